//go:build !windows

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// safeFiles says how files for a machine's daemon must be.
const safeFiles = "it and the directories above it must belong to root or to the daemon's user, and nobody else may write there"

// maxLinks bounds how many symbolic links a path may lead through.
const maxLinks = 40

// writableByOthers says who besides root and this process's user may write to
// the file, or put another one in its place; nil for nobody. It goes the way
// that the system goes: every directory and every symbolic link on it counts.
// A file that does not exist is judged by the directories above it.
func writableByOthers(path string) error {
	if !filepath.IsAbs(path) {
		var err error
		if path, err = filepath.Abs(path); err != nil {
			return err
		}
	}
	at, rest, links := "/", strings.Split(path, "/"), 0
	if _, err := looseAt(at); err != nil {
		return err
	}
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at) // of a path without links, as the system sees it
			continue
		}
		next := filepath.Join(at, part)
		st, err := looseAt(next)
		if errors.Is(err, fs.ErrNotExist) {
			if dir, err := os.Lstat(at); err != nil || dir.Mode()&fs.ModeSticky != 0 && dir.Mode().Perm()&0o022 != 0 {
				return fmt.Errorf("others may make %s", next)
			}
			return nil
		}
		if err != nil {
			return err
		}
		if st.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%s leads through too many links", path)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return nil
}

// looseAt looks at one step of a path; an error says who else may write there.
func looseAt(path string) (fs.FileInfo, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("cannot tell whose %s is", path)
	}
	if sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s belongs to user %d", path, sys.Uid)
	}
	mode := st.Mode()
	switch {
	case mode.Type() == fs.ModeSymlink: // its permissions mean nothing
	case mode.IsDir() && mode&fs.ModeSticky != 0: // what is in it can't be replaced by others
	case mode.Perm()&0o002 != 0, mode.Perm()&0o020 != 0 && sys.Gid != 0:
		return nil, fmt.Errorf("others may write to %s (%04o)", path, mode.Perm())
	}
	return st, nil
}
