package login

import (
	"context"
	"io"
	"sync"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
)

// Sessions is what the sources of one sign-in share, so that any number of
// links is one refresh and one browser page. A daemon makes one.
type Sessions struct {
	mu  sync.Mutex // guards what follows
	all map[cred.LinkKey]*shared
}

// shared is the state of one sign-in.
type shared struct {
	flight *flight
	renew  bool   // the next attempt for a person who signs in asks
	epoch  uint64 // raised by forget
	// learned is who signed in where the link names nobody; told says that
	// Deps.Learned knows.
	learned string
	told    bool
}

// flight is one attempt.
type flight struct {
	done chan struct{} // closed when it is over; then what follows stands
	// access is what the attempt gave.
	access cred.Credentials
	err    error
	asker  bool // err is the Asker's

	again bool // a person is asked whatever there is
	epoch uint64
	over  context.Context // ends with end
	end   context.CancelFunc
}

// NewSessions returns an empty Sessions. It starts nothing.
func NewSessions() *Sessions { return &Sessions{all: map[cred.LinkKey]*shared{}} }

// of returns the state of a sign-in. mu is held.
func (x *Sessions) of(key cred.LinkKey) *shared {
	e := x.all[key]
	if e == nil {
		e = &shared{}
		x.all[key] = e
	}
	return e
}

// join returns the attempt under way, or a new one that the caller leads.
// person says that a person signs in.
func (x *Sessions) join(key cred.LinkKey, person bool) (f *flight, lead bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.of(key)
	if e.flight != nil {
		return e.flight, false
	}
	f = &flight{done: make(chan struct{}), again: e.renew && person, epoch: e.epoch}
	f.over, f.end = context.WithCancel(context.Background())
	e.renew = e.renew && !person
	e.flight = f
	return f, true
}

// leave ends the attempt that its caller led.
func (x *Sessions) leave(key cred.LinkKey, f *flight) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.of(key).flight = nil
	f.end()
	close(f.done)
}

// Renew makes the next Fetch that comes with a Signin ask a person even if
// the session of that AskKey is good (login --force). A sign-in that fails
// leaves the session as it is.
func (x *Sessions) Renew(key cred.LinkKey) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.of(key).renew = true
}

func (x *Sessions) renewed(key cred.LinkKey) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.of(key).renew
}

// forget ends an attempt under way, which keeps nothing, and returns whose
// sign-in it was.
func (x *Sessions) forget(key cred.LinkKey, arn string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.of(key)
	e.epoch++
	e.renew = false
	if e.flight != nil {
		e.flight.end()
	}
	if arn == "" {
		arn = e.learned
	}
	e.learned, e.told = "", false
	return arn
}

// current reports whether nothing was forgotten since f began.
func (x *Sessions) current(key cred.LinkKey, f *flight) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.of(key).epoch == f.epoch
}

// who returns whom a sign-in that names nobody turned out to be, "" while
// nobody knows, and whether Deps.Learned does.
func (x *Sessions) who(key cred.LinkKey) (arn string, told bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.of(key)
	return e.learned, e.told
}

func (x *Sessions) learn(key cred.LinkKey, f *flight, arn string, told bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.of(key); e.epoch == f.epoch {
		e.learned, e.told = arn, told
	}
}

func quiet() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}
