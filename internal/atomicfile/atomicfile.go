// Package atomicfile puts files in place whole: whoever opens one by its name
// finds the old text or the new one, never a part, also after a power cut.
package atomicfile

import (
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Options say how a file is written; the zero value is a private file.
type Options struct {
	// Mode is the file's, whatever the umask; 0600 when zero.
	Mode fs.FileMode
	// Prefix begins the temporary file's name, for those who look for what a
	// crash left behind; ".keyfob-" when empty.
	Prefix string
	// Written is called with the temporary file before it gets its mode and is
	// synced, Ready when it only has to be renamed. An error of either leaves
	// everything as it was, and is returned.
	Written func(*os.File) error
	Ready   func() error
}

// Write puts data in the place of the file at path. It writes a temporary file
// in the same directory, which must exist, syncs it, renames it and syncs the
// directory. A symbolic link at path is replaced.
//
// On Windows a rename waits, for at most a second, while another process has
// the file open. Errors are those of the file system, and of Written and Ready;
// then path is as it was, but for the error of the last step: the new file is
// in place, and a power cut may bring the old one back.
func Write(path string, data []byte, o Options) (err error) {
	prefix, mode := o.Prefix, o.Mode
	if prefix == "" {
		prefix = ".keyfob-"
	}
	if mode == 0 {
		mode = 0o600
	}
	f, err := os.CreateTemp(filepath.Dir(path), prefix+"*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // a second Close is harmless
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if o.Written != nil {
		if err := o.Written(f); err != nil {
			return err
		}
	}
	if mode != 0o600 || o.Written != nil {
		if err := setMode(f, mode); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if o.Ready != nil {
		if err := o.Ready(); err != nil {
			return err
		}
	}
	if err := Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Rename is os.Rename that waits, on Windows and for at most a second, while
// another process has one of the files open.
func Rename(from, to string) error {
	return Retry(func() error { return os.Rename(from, to) })
}

// Retry repeats op while the system says that another process uses the file,
// which only Windows does, for at most a second.
func Retry(op func() error) error {
	for end := time.Now().Add(time.Second); ; time.Sleep(2 * time.Millisecond) {
		err := op()
		if err == nil || !busy(err) || time.Now().After(end) {
			return err
		}
	}
}
