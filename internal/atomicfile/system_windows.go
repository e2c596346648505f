package atomicfile

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// busy are the errors of a file that another process has open.
func busy(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_LOCK_VIOLATION)
}

// setMode does nothing: who may read a file is said by its directory's access
// list, and a read-only file could not be replaced again.
func setMode(*os.File, fs.FileMode) error { return nil }

// SyncDir does nothing: NTFS journals renames, and directories can't be
// flushed.
func SyncDir(string) error { return nil }
