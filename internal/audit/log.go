package audit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/peer"
)

// What Config's zero values stand for.
const (
	DefaultMaxSize = 16 << 20
	DefaultKeep    = 10
)

// Config is what a Log is made of.
type Config struct {
	Path string // of the current file; rotated ones are Path.1, Path.2, …
	// Key returns the key of the chain, ok false while the vault is locked.
	// It is asked before each write and must not block. Nil: never a key.
	Key func() (key [32]byte, ok bool)
	// Store holds HeadRecord. It must not wait for the vault to be opened.
	// Nil: an end that was cut off is not found.
	Store   cred.Store
	MaxSize int64 // in bytes; 0 is DefaultMaxSize
	Keep    int   // rotated files; 0 is DefaultKeep
	Log     *logrus.Entry
	// Forward is told of each line that was written, by the writer; it must
	// not block. nil for nobody.
	Forward func(Line)
	// Users returns the login name of a user id, "" for none; nil asks the
	// system. Each id is asked for once.
	Users func(uid string) string
}

// Log is the audit log. It is a cred.Recorder.
type Log struct {
	cfg      Config
	in       intake
	requests chan request
	expected chan peer.Caller
	started  atomic.Bool
	running  chan struct{} // closed when Run begins
	ended    chan struct{}
	warning  atomic.Pointer[string]
}

// request is work for the writer, which alone knows the end of the log.
type request struct {
	work func(*writer)
	done chan struct{}
}

// Open returns the log. It opens and starts nothing: that is Run's.
func Open(cfg Config) *Log {
	if cfg.MaxSize <= 0 {
		cfg.MaxSize = DefaultMaxSize
	}
	if cfg.Keep <= 0 {
		cfg.Keep = DefaultKeep
	}
	if cfg.Log == nil {
		cfg.Log = logging.Discard()
	}
	l := &Log{cfg: cfg, requests: make(chan request), expected: make(chan peer.Caller, manyExpected), running: make(chan struct{}), ended: make(chan struct{})}
	l.in.init()
	return l
}

// Record counts an event. It never blocks on a disk and never fails; see the
// package comment for what becomes of the event.
func (l *Log) Record(e cred.Event) { l.in.add(&e) }

// Expect tells that c is about to be recorded. Its program is looked for now,
// while its connection is certainly there: many clients close theirs within a
// millisecond of the answer. It returns at once; where too many are expected
// it does nothing.
func (l *Log) Expect(c peer.Caller) {
	if !searched(c) {
		return
	}
	select {
	case l.expected <- c:
	default:
	}
}

// manyExpected bounds how many callers wait to be looked for.
const manyExpected = 64

// Run writes until ctx ends, then writes what is still in memory and returns
// nil. Events of before Run are kept for it; those after it are lost. What
// goes wrong is logged, and Warning has it. A second Run is an error.
func (l *Log) Run(ctx context.Context) error {
	if !l.started.CompareAndSwap(false, true) {
		return errors.New("cannot run the audit log twice")
	}
	close(l.running)
	defer close(l.ended)
	w := newWriter(l, context.WithoutCancel(ctx))
	w.run(ctx)
	return nil
}

// Running is closed once Run has begun: Flush, Read and Verify then speak of
// everything that was recorded.
func (l *Log) Running() <-chan struct{} { return l.running }

// KeyChanged tells that Config.Key may answer differently now. The daemon
// calls it after each unlock, so that what was written meanwhile is sealed
// without waiting for the next entry.
func (l *Log) KeyChanged() { l.in.rouse() }

// Warning says in one line why entries can't be written now, "" when they
// can.
func (l *Log) Warning() string {
	if p := l.warning.Load(); p != nil {
		return *p
	}
	return ""
}

// Flush writes whatever is counted in memory and notes the end of the log in
// the vault. The daemon calls it before the vault is locked. The error is
// that of ctx, or says that Run does not run.
func (l *Log) Flush(ctx context.Context) error {
	return l.do(ctx, func(w *writer) {
		w.fresh()
		w.sweep(true)
		w.note()
	})
}

// Read is the function Read, after what is counted in memory was written, so
// that its answer has everything up to now (but for Filter.Written).
func (l *Log) Read(ctx context.Context, f Filter) (Page, error) {
	var s snapshot
	var err error
	look := func(w *writer) {
		if !f.Written {
			w.fresh()
			w.sweep(true)
		}
		s, err = open(l.cfg.Path)
	}
	if derr := l.do(ctx, look); errors.Is(derr, errNotRunning) {
		s, err = open(l.cfg.Path)
	} else if derr != nil {
		return Page{}, fmt.Errorf("cannot read the audit log: %w", derr)
	}
	if err != nil {
		return Page{}, err
	}
	defer s.close()
	return s.read(ctx, f)
}

// Verify checks the chain, and that the log ends where this Log left it.
// Errors: cred.ErrLocked while there is no key; one of reading the files.
func (l *Log) Verify(ctx context.Context) (Report, error) {
	if l.cfg.Key == nil {
		return Report{}, errLocked()
	}
	key, ok := l.cfg.Key()
	if !ok {
		return Report{}, errLocked()
	}
	h := newHasher(key)
	var s snapshot
	var err error
	var end ending
	look := func(w *writer) {
		w.fresh()
		if s, err = open(l.cfg.Path); err == nil && w.bound {
			end = w.ending(h)
		}
	}
	derr := l.do(ctx, look)
	switch {
	case errors.Is(derr, errNotRunning):
		if s, err = open(l.cfg.Path); err == nil && l.cfg.Store != nil {
			if end.hash, err = loadHead(ctx, l.cfg.Store); err == nil && end.hash == "" {
				var sealed bool
				if sealed, err = s.sealed(); sealed { // as bind judges
					end.hash = h.keyed([]byte("no record"))
				}
			}
		}
	case derr != nil:
		return Report{}, fmt.Errorf("cannot verify the audit log: %w", derr)
	}
	defer s.close()
	if err != nil {
		return Report{}, err
	}
	r, err := s.verify(ctx, h, end)
	if text := l.Warning(); text != "" {
		r.Warnings = append(r.Warnings, text)
	}
	return r, err
}

func errLocked() error {
	return cred.WithHint(fmt.Errorf("cannot verify the audit log: %w", cred.ErrLocked), "keyfob unlock")
}

var errNotRunning = errors.New("the audit log is not being written")

// do has the writer do something.
func (l *Log) do(ctx context.Context, work func(*writer)) error {
	select {
	case <-l.running:
	default:
		return errNotRunning
	}
	r := request{work, make(chan struct{})}
	select {
	case l.requests <- r:
	case <-l.ended:
		return errNotRunning
	case <-ctx.Done():
		return ctx.Err()
	}
	<-r.done // no select: work writes to what its caller reads
	return nil
}

// setWarning keeps what Warning says.
func (l *Log) setWarning(text string) {
	if l.Warning() != text {
		l.warning.Store(&text)
	}
}

var _ cred.Recorder = (*Log)(nil)

// soonest is the earlier of two times, of which zero is never.
func soonest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
