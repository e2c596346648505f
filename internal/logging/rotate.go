package logging

import (
	"fmt"
	"os"
	"strconv"
	"sync"
)

// The log of a daemon on demand: a file of at most RotateSize bytes, and
// RotateKeep older ones.
const (
	RotateSize = 4 << 20
	RotateKeep = 3
)

// Rotating is a log file that is put aside when it has grown. It is an io.Writer
// for several goroutines.
type Rotating struct {
	path string
	max  int64
	keep int
	// moved is told of each new file: what else writes to the old one can
	// follow. On Windows the file stays the same one.
	moved func(*os.File)

	mu   sync.Mutex // guards what follows
	f    *os.File
	size int64
}

// OpenRotating opens the log at path to append to it. max and keep at 0 are
// RotateSize and RotateKeep; moved may be nil. Close it at the end.
func OpenRotating(path string, max int64, keep int, moved func(*os.File)) (*Rotating, error) {
	if max <= 0 {
		max = RotateSize
	}
	if keep <= 0 {
		keep = RotateKeep
	}
	l := &Rotating{path: path, max: max, keep: keep, moved: moved}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Rotating) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("cannot open the log: %w", err)
	}
	l.f, l.size = f, st.Size()
	return nil
}

// Write appends one line. Where the file can't be put aside it goes on in the
// same one.
func (l *Rotating) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(b)) > l.max {
		l.rotate()
	}
	n, err := l.f.Write(b)
	l.size += int64(n)
	return n, err
}

// rotate begins another file. mu is held.
func (l *Rotating) rotate() {
	for i := l.keep; i > 1; i-- {
		_ = os.Rename(l.aside(i-1), l.aside(i))
	}
	l.size = 0 // a failure is not tried again with each line
	l.putAside(l.aside(1))
}

func (l *Rotating) aside(i int) string { return l.path + "." + strconv.Itoa(i) }

// Close closes the file.
func (l *Rotating) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}
