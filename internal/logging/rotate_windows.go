package logging

import (
	"io"
	"os"
)

// putAside copies the file and empties it: Windows renames no file that is
// open, and this one is our standard error, or somebody reads it just now.
// All who write to it append, so they go on at its new end. mu is held.
func (l *Rotating) putAside(to string) {
	if copyFile(l.path, to) != nil {
		_ = os.Remove(to)
		return
	}
	_ = os.Truncate(l.path, 0)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if e := out.Close(); err == nil {
		err = e
	}
	return err
}
