package service

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// tailMost is how much of a log's end is read.
const tailMost = 1 << 20

// tailEvery is how often a followed log is looked at.
const tailEvery = 500 * time.Millisecond

// tail writes the last lines of a file, and what is appended until ctx ends.
func tail(ctx context.Context, w io.Writer, path string, o LogOptions) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fail("keyfob service status", "cannot read the log %s: the service has not written one", path)
	}
	if err != nil {
		return fileError("read", path, err)
	}
	defer func() { _ = f.Close() }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fileError("read", path, err)
	}
	from := max(0, size-tailMost)
	b := make([]byte, size-from)
	if _, err := f.ReadAt(b, from); err != nil && err != io.EOF {
		return fileError("read", path, err)
	}
	if _, err := w.Write(lastLines(b, o.Lines)); err != nil {
		return err
	}
	tick := time.NewTicker(tailEvery)
	defer tick.Stop()
	for o.Follow {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, err := io.Copy(w, f); err != nil {
			return err
		}
		// A rotated log is another file of the same name.
		now, err := os.Stat(path)
		if err != nil {
			continue
		}
		// Or, on Windows, the same one, emptied.
		if at, err := f.Seek(0, io.SeekCurrent); err == nil && now.Size() < at {
			_, _ = f.Seek(0, io.SeekStart)
		}
		if mine, err := f.Stat(); err == nil && !os.SameFile(mine, now) {
			if next, err := os.Open(path); err == nil {
				_ = f.Close()
				f = next
			}
		}
	}
	return nil
}

func lastLines(b []byte, n int) []byte {
	at := len(bytes.TrimSuffix(b, []byte("\n")))
	for ; n > 0 && at > 0; n-- {
		at = bytes.LastIndexByte(b[:at], '\n')
		if at < 0 {
			return b
		}
	}
	return bytes.TrimPrefix(b[max(at, 0):], []byte("\n"))
}
