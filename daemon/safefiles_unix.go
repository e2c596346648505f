//go:build !windows

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// writableByOthers says who besides root and this process's user may write to
// the file, or put another one in its place; nil for nobody. A file that does
// not exist is judged by the directories above it.
func writableByOthers(path string) error {
	paths := []string{path}
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
		paths = append(paths, real)
	}
	for _, p := range paths {
		for ; ; p = filepath.Dir(p) {
			if err := looseAt(p); err != nil {
				return err
			}
			if p == filepath.Dir(p) {
				break
			}
		}
	}
	return nil
}

func looseAt(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("cannot tell whose %s is", path)
	}
	if sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d", path, sys.Uid)
	}
	mode := st.Mode()
	switch {
	case mode.Type() == fs.ModeSymlink: // its permissions mean nothing
	case mode.IsDir() && mode&fs.ModeSticky != 0: // what is in it can't be replaced by others
	case mode.Perm()&0o002 != 0, mode.Perm()&0o020 != 0 && sys.Gid != 0:
		return fmt.Errorf("others may write to %s (%04o)", path, mode.Perm())
	}
	return nil
}
