package setup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Backup copies the file, as it was read, to a new one beside it that its
// owner alone may read, and returns that one's path.
func Backup(f *File, now time.Time) (path string, err error) {
	base := fmt.Sprintf("%s.keyfob-backup-%s", f.target, now.UTC().Format("20060102T150405Z"))
	var out *os.File
	for i := 1; ; i++ {
		path = base
		if i > 1 {
			path = fmt.Sprintf("%s-%d", base, i)
		}
		if out, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, fs.ErrExist) || i == 100 {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("cannot back up %s: %w", f.Path, cause(err))
	}
	_, err = out.WriteString(f.Text)
	if err == nil {
		err = out.Sync()
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path)
		return "", fmt.Errorf("cannot back up %s: %w", f.Path, cause(err))
	}
	return path, nil
}

// ShredLimits is what a person is to know of Shred.
const ShredLimits = "an SSD, a copy-on-write or journalling file system, a snapshot or a backup may keep the old blocks: " +
	"a key that was in plain text is safest replaced (keyfob rotate)"

// Shred overwrites a file with random bytes and removes it. What ShredLimits
// says is beyond it.
func Shred(path string) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("cannot shred %s: %w", path, cause(err))
	}
	info, err := os.Stat(target)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(target, os.O_WRONLY, 0)
	}
	if err != nil {
		return fmt.Errorf("cannot shred %s: %w", path, cause(err))
	}
	if _, err = io.CopyN(f, zeros{}, info.Size()); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Remove(target)
	}
	if err == nil && target != path {
		err = os.Remove(path) // the link to it
	}
	if err != nil {
		return fmt.Errorf("cannot shred %s: %w", path, cause(err))
	}
	return nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
