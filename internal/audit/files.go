package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// logFile is one file of the log: the current one, or a rotated one.
type logFile struct {
	path   string
	number int // 0 for the current one, higher is older
}

// numbered is the name of a rotated file.
func numbered(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

// list finds the files of the log, oldest first.
func list(path string) ([]logFile, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("cannot list the audit log: %w", err)
	}
	var files []logFile
	base := filepath.Base(path)
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), base)
		if !ok || e.IsDir() {
			continue
		}
		if rest == "" {
			files = append(files, logFile{path, 0})
			continue
		}
		n, err := strconv.Atoi(strings.TrimPrefix(rest, "."))
		if err == nil && n > 0 && numbered(base, n) == e.Name() {
			files = append(files, logFile{numbered(path, n), n})
		}
	}
	slices.SortFunc(files, func(a, b logFile) int { return b.number - a.number })
	return files, nil
}

// snapshot is the files of the log opened at one moment, oldest first, so that
// a rotation that follows does not matter.
type snapshot []*openFile

type openFile struct {
	logFile
	f    *os.File
	size int64 // what is written later is not looked at
}

func (s snapshot) close() {
	for _, o := range s {
		_ = o.f.Close()
	}
}

// errMoving: the files were renamed again and again while they were opened.
var errMoving = errors.New("cannot read the audit log: its files are being renamed")

// open opens all files of the log. A log of which there is no file is empty.
func open(path string) (snapshot, error) {
	for range 10 {
		s, err := openOnce(path)
		if err != nil || s.settled(path) {
			return s, err
		}
		s.close()
	}
	return nil, errMoving
}

func openOnce(path string) (s snapshot, err error) {
	files, err := list(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
			s, err = nil, fmt.Errorf("cannot read the audit log: %w", err)
		}
	}()
	for _, l := range files {
		o, err := l.open()
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated; settled tells
		}
		if err != nil {
			return s, err
		}
		s = append(s, o)
	}
	return s, nil
}

func (l logFile) open() (*openFile, error) {
	if err := regular(l.path); err != nil {
		return nil, err
	}
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &openFile{logFile: l, f: f, size: info.Size()}, nil
}

// regular refuses anything but a file: a pipe or a device could make whoever
// opens it wait. What is not there is fine.
func regular(path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	return nil
}

// settled reports whether the names still stand for the opened files.
func (s snapshot) settled(path string) bool {
	now, err := list(path)
	if err != nil || len(now) != len(s) {
		return false
	}
	for i, o := range s {
		byName, err := os.Stat(o.path)
		if err != nil || now[i] != o.logFile {
			return false
		}
		if byHandle, err := o.f.Stat(); err != nil || !os.SameFile(byName, byHandle) {
			return false
		}
	}
	return true
}

// lines reads a file's lines.
type lines struct {
	r      *bufio.Reader
	next   int64 // offset of the line that comes next
	offset int64 // of the line that was read last
	number int   // of the line that was read last, from 1 where the reading began
}

// How reading a long file leaves room for others: on one processor a goroutine
// that computes is switched after 10 ms, and even then to one that computes
// too, while who waits for the network waits on. A sleep has the runtime look
// there.
const (
	breathEvery = 256 // lines, about 1 ms
	breath      = 100 * time.Microsecond
)

// from reads the lines from an offset on.
func (o *openFile) from(offset int64) *lines {
	return &lines{r: bufio.NewReaderSize(io.NewSectionReader(o.f, offset, o.size-offset), maxLine), next: offset}
}

// read returns the next line without its line feed; it is good until the
// following call. whole is false for what the file ends with after its last
// line feed, and for the beginning of a line that is longer than any entry.
// The error is io.EOF at the end.
func (l *lines) read() (line []byte, whole bool, err error) {
	line, err = l.r.ReadSlice('\n')
	l.offset = l.next
	l.next += int64(len(line))
	if l.number++; l.number%breathEvery == 0 {
		time.Sleep(breath)
	}
	switch {
	case err == nil:
		return line[:len(line)-1], true, nil
	case errors.Is(err, bufio.ErrBufferFull):
		line = slices.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			var more []byte
			more, err = l.r.ReadSlice('\n')
			l.next += int64(len(more))
		}
		if err == io.EOF {
			err = nil
		}
		return line, false, err
	case err == io.EOF && len(line) > 0:
		return line, false, nil
	default:
		return nil, false, err
	}
}
