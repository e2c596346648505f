package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/atomicfile"
	"keyfob/internal/logging"
)

// retryEvery is how often writing is tried while it fails.
const retryEvery = 5 * time.Second

// errWaiting: writing has failed a moment ago and is not tried yet.
var errWaiting = errors.New("waiting to try again")

// file is the log's file as the writer has it, and the end of the chain. Only
// the writer uses it.
type file struct {
	path    string
	maxSize int64
	keep    int
	log     *logrus.Entry
	forward func(Line) // nil for nobody

	begun bool // the end of what the last run left is known
	cut   bool // it was a line that was cut short; the writer tells of it

	f    *os.File
	size int64 // as we left it
	// last is the line that the next one follows, nil for none.
	last []byte
	// instead, where the file was not what the vault's record says, is what
	// the next keyed line has in previous: the break stays to be seen.
	instead string
	// torn: the file ends within a line that could not be cut off.
	torn bool
	// rotateAfter is when a rotation that failed is tried again.
	rotateAfter time.Time
	rotated     bool // since it was last asked

	failing  string // why writing fails, "" when it does not
	retry    time.Time
	unsynced bool
}

// ready opens the file where it is not open, or not under its name any more.
func (w *file) ready() error {
	if w.failing != "" && time.Now().Before(w.retry) {
		return errWaiting
	}
	if w.f != nil {
		if w.unchanged() {
			return nil
		}
		_ = w.f.Close()
		w.f = nil
	}
	if !w.begun {
		if err := w.begin(); err != nil {
			return w.fail(err)
		}
	}
	if err := w.open(); err != nil {
		return w.fail(err)
	}
	return nil
}

// unchanged looks whether the open file is still the one under its name.
// Whatever else happened to it is told once: the chain will show it.
func (w *file) unchanged() bool {
	mine, err := w.f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(w.path)
	if err != nil || !os.SameFile(mine, named) {
		w.log.WithField(logging.Path, w.path).Warn("audit log was moved or removed, a new file is begun")
		return false
	}
	if mine.Size() != w.size {
		w.log.WithField(logging.Path, w.path).Warn("audit log was changed by somebody else")
		w.size = mine.Size()
		w.torn = !endsWhole(w.f, w.size)
	}
	return true
}

func endsWhole(f *os.File, size int64) bool {
	if size == 0 {
		return true
	}
	var b [1]byte
	_, err := f.ReadAt(b[:], size-1)
	return err == nil && b[0] == '\n'
}

func (w *file) open() error {
	if err := regular(w.path); err != nil {
		return err
	}
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = f.Chmod(0o600)
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	w.f, w.size = f, info.Size()
	w.torn = !endsWhole(f, w.size)
	return nil
}

// begin reads what the last run left: the line that the first one of this run
// follows. A line that was cut short is removed.
func (w *file) begin() error {
	files, err := list(w.path)
	if err != nil {
		return err
	}
	for i := len(files) - 1; i >= 0 && w.last == nil; i-- {
		line, end, size, err := files[i].lastLine()
		current := files[i].number == 0
		switch {
		case err != nil && current:
			return err
		case err != nil:
			w.log.WithError(err).Warn("cannot read a file of the audit log")
			continue
		}
		w.last = line
		if current && end != size {
			w.cut = true
			if err := os.Truncate(w.path, end); err != nil {
				w.log.WithError(err).Warn("cannot remove a line of the audit log that was cut short")
			}
		}
	}
	w.begun = true
	return nil
}

func (l logFile) lastLine() (line []byte, end, size int64, err error) {
	o, err := l.open()
	if err != nil {
		return nil, 0, 0, err
	}
	defer o.f.Close()
	line, end, err = o.lastLine()
	return line, end, o.size, err
}

// lastLine returns the last whole line of the file, nil for none, and where
// it ends.
func (o *openFile) lastLine() (line []byte, end int64, err error) {
	// Back, a piece at a time, to the last line feed and the one before it.
	var tail []byte
	for start := o.size; start > 0; {
		n := min(start, 8<<10)
		start -= n
		piece := make([]byte, n, int(n)+len(tail))
		if _, err := o.f.ReadAt(piece, start); err != nil && err != io.EOF {
			return nil, 0, err
		}
		tail = append(piece, tail...)
		last := bytes.LastIndexByte(tail, '\n')
		if last < 0 {
			if len(tail) > maxLine {
				tail = tail[:maxLine] // no entry: only where it begins matters
			}
			continue
		}
		if before := bytes.LastIndexByte(tail[:last], '\n'); before >= 0 || start == 0 || last > maxLine {
			return bytes.Clone(tail[before+1 : last]), start + int64(last) + 1, nil
		}
	}
	return nil, 0, nil
}

// append writes e as the next line; h is nil while there is no key. An error
// means that nothing of it is in the file.
func (w *file) append(e *entry, h *hasher) error {
	if err := w.ready(); err != nil {
		return err
	}
	if w.torn && e.Reason != tornReason {
		lost := &entry{Version: version, Time: time.Now().UTC().Format(timeForm), Event: eventLost, Reason: tornReason}
		if err := w.append(lost, h); err != nil {
			return err
		}
	}
	if w.size > 0 && e.Event != eventRotation {
		// What it takes is not known before its hash is; the length is.
		e.Previous = w.previous(h)
		if line, err := e.encode(); err == nil && w.size+int64(len(line))+1 > w.maxSize {
			w.rotate(h)
			if err := w.ready(); err != nil {
				return err
			}
		}
	}
	e.Previous = w.previous(h)
	line, err := e.encode()
	if err != nil {
		return w.fail(err)
	}
	out := make([]byte, 0, len(line)+2)
	if w.torn {
		out = append(out, '\n')
	}
	out = append(append(out, line...), '\n')
	n, err := w.f.Write(out)
	if err != nil {
		if n > 0 {
			// Half a line must not stay: the next one would be part of it.
			if terr := w.f.Truncate(w.size); terr != nil {
				w.size += int64(n)
				w.torn = true
			}
		}
		return w.fail(err)
	}
	w.size += int64(len(out))
	w.last, w.torn, w.unsynced = line, false, true
	if w.forward != nil {
		w.forward(Line{Time: e.when(), Event: e.Event, JSON: ascii(line)})
	}
	if h != nil {
		w.instead = ""
	}
	if w.failing != "" {
		w.failing = ""
		w.log.WithField(logging.Path, w.path).Info("audit log is written again")
	}
	return nil
}

// previous is the hash for the next line.
func (w *file) previous(h *hasher) string {
	switch {
	case h == nil:
		return unkeyed(w.last)
	case w.instead != "":
		return w.instead
	default:
		return h.keyed(w.last)
	}
}

// fail tells once that writing fails.
func (w *file) fail(err error) error {
	if w.failing == "" {
		w.log.WithError(err).WithField(logging.Path, w.path).Warn("cannot write the audit log: entries are kept in memory")
	}
	w.failing = err.Error()
	w.retry = time.Now().Add(retryEvery - bunch)
	return err
}

// sync makes what was written survive a power cut.
func (w *file) sync() error {
	if !w.unsynced || w.f == nil {
		return nil
	}
	w.unsynced = false
	if err := w.f.Sync(); err != nil {
		return fmt.Errorf("cannot sync %s: %w", w.path, err)
	}
	return nil
}

// rotate renames the files one number up and lets ready begin a new one. The
// oldest go where there are more than keep, after a line that says so. When
// something fails the log goes on in the file that it has.
func (w *file) rotate(h *hasher) {
	if time.Now().Before(w.rotateAfter) {
		return
	}
	if err := w.rotateNow(h); err != nil {
		w.rotateAfter = time.Now().Add(time.Minute)
		w.log.WithError(err).WithField(logging.Path, w.path).Warn("cannot rotate the audit log")
	}
}

func (w *file) rotateNow(h *hasher) error {
	files, err := list(w.path)
	if err != nil {
		return err
	}
	present := map[int]bool{}
	for _, l := range files {
		present[l.number] = true
	}
	// Up to the first gap the files move by one.
	top := 0
	for present[top] {
		top++
	}
	var kept, gone *logFile // the oldest that stays, the newest that goes
	for i := range files {  // oldest first
		after := files[i].number
		if after < top {
			after++
		}
		if after <= w.keep {
			kept = &files[i]
			break
		}
		gone = &files[i]
	}
	if gone != nil && kept != nil {
		e := &entry{Version: version, Time: time.Now().UTC().Format(timeForm), Count: 1, Event: eventRotation, Oldest: begins(kept, gone, h)}
		if err := w.append(e, h); err != nil {
			return err
		}
	}
	if err := w.sync(); err != nil {
		return err
	}
	_ = w.f.Close()
	w.f = nil
	for _, l := range files {
		after := l.number
		if after < top {
			after++
		}
		if after > w.keep {
			err = os.Remove(l.path)
		} else if after != l.number {
			err = os.Rename(l.path, numbered(w.path, after))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	w.rotated = true
	return atomicfile.SyncDir(filepath.Dir(w.path))
}

// begins is the field previous of the first line of kept. Where that does not
// follow the last line of the file that goes, it is what would: the break stays
// to be seen for as long as the file.
func begins(kept, gone *logFile, h *hasher) string {
	first := kept.firstPrevious()
	last, _, _, err := gone.lastLine()
	if err != nil || last == nil {
		return first
	}
	switch {
	case strings.HasPrefix(first, unkeyedMark):
		return unkeyed(last)
	case h != nil:
		return h.keyed(last)
	}
	return first // there is no key to tell
}

// firstPrevious is the field previous of a file's first line, "-" where there
// is none.
func (l logFile) firstPrevious() string {
	o, err := l.open()
	if err != nil {
		return "-"
	}
	defer o.f.Close()
	if line, _, err := o.from(0).read(); err == nil {
		if e, ok := decode(line); ok {
			return e.Previous
		}
	}
	return "-"
}

func (w *file) close() error {
	if w.f == nil {
		return nil
	}
	err := errors.Join(w.sync(), w.f.Close())
	w.f = nil
	return err
}
