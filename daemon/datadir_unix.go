//go:build !windows

package daemon

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"keyfob/internal/cred"
)

const exeSuffix = ""

// makePrivate makes the directory where there is none.
func makePrivate(dir string, _ bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the data directory: %w", err)
	}
	return nil
}

// checkPrivate refuses a directory that is another's or that others may
// enter.
func checkPrivate(dir string, st fs.FileInfo) error {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("cannot use the data directory %s: it belongs to user %d", dir, sys.Uid)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return cred.WithHint(fmt.Errorf("cannot use the data directory %s: its permissions %04o let others in", dir, st.Mode().Perm()), "chmod 700 "+dir)
	}
	return nil
}
