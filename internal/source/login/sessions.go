package login

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/internal/source/flight"
)

// Sessions is what the sources of one sign-in share, so that any number of
// links is one refresh and one browser page. A daemon makes one.
type Sessions struct {
	mu  sync.Mutex // guards all
	all map[cred.LinkKey]*shared
}

// shared is the state of one sign-in.
type shared struct {
	// flights are its attempts. Their lock is taken before mu.
	flights flight.Group[cred.Credentials]

	mu    sync.Mutex // guards what follows
	renew bool       // the next attempt for a person who signs in asks
	// learned is who signed in where the link names nobody; told says that
	// Deps.Learned knows.
	learned string
	told    bool
}

// NewSessions returns an empty Sessions. It starts nothing.
func NewSessions() *Sessions { return &Sessions{all: map[cred.LinkKey]*shared{}} }

// of returns the state of a sign-in.
func (x *Sessions) of(key cred.LinkKey) *shared {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.all[key]
	if e == nil {
		e = &shared{}
		x.all[key] = e
	}
	return e
}

// Renew makes the next Fetch that comes with a Signin ask a person even if
// the session of that AskKey is good (login --force). A sign-in that fails
// leaves the session as it is.
func (x *Sessions) Renew(key cred.LinkKey) {
	e := x.of(key)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.renew = true
}

func (e *shared) renewed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.renew
}

// again reports whether an attempt asks a person whatever there is, because
// somebody wanted that of the next one for a person who signs in.
func (e *shared) again(person bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	again := e.renew && person
	e.renew = e.renew && !person
	return again
}

// forget ends an attempt under way, which keeps nothing, and returns whose
// sign-in it was.
func (e *shared) forget(arn string) string {
	e.flights.Cancel(errForgotten)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.renew = false
	if arn == "" {
		arn = e.learned
	}
	e.learned, e.told = "", false
	return arn
}

// who returns whom a sign-in that names nobody turned out to be, "" while
// nobody knows, and whether Deps.Learned does.
func (e *shared) who() (arn string, told bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.learned, e.told
}

// learn notes who that is, in the context of an attempt.
func (e *shared) learn(ctx context.Context, arn string, told bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !forgotten(ctx) {
		e.learned, e.told = arn, told
	}
}

// errForgotten is a sign-in that a logout ended while it was refreshed.
var errForgotten error = forgottenError{}

type forgottenError struct{}

func (forgottenError) Error() string        { return "cannot use the console sign-in: a logout has ended it" }
func (forgottenError) Is(target error) bool { return target == cred.ErrUnavailable }

// forgotten reports whether a logout has ended the attempt of ctx.
func forgotten(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errForgotten) }

func quiet() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}
