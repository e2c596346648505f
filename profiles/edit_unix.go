//go:build unix

package profiles

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// isNull reports whether path is the null device.
func isNull(path string) bool { return filepath.Clean(path) == os.DevNull }

// keepOwner gives tmp the owner and group of the file it will replace.
func keepOwner(tmp *os.File, old fs.FileInfo) error {
	want, ok := old.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	info, err := tmp.Stat()
	if err != nil {
		return err
	}
	if have, ok := info.Sys().(*syscall.Stat_t); ok && have.Uid == want.Uid && have.Gid == want.Gid {
		return nil
	}
	return tmp.Chown(int(want.Uid), int(want.Gid))
}
