package keystore

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// checkDir only looks for the directory: below %LOCALAPPDATA% the inherited
// access list already keeps other users out.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot use the vault: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("cannot use the vault %s: it is not a directory", dir)
	}
	return nil
}

// syncDir does nothing: NTFS journals renames, and directories can't be
// flushed.
func syncDir(string) error { return nil }

// busy reports whether another process has the file open just now.
func busy(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED) ||
		errors.Is(err, windows.ERROR_LOCK_VIOLATION)
}
