package flight

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
)

// ErrLeft is what a caller gets that joined a flight just as the callers
// before gave it up: there is no harm in another Do.
var ErrLeft = errors.New("nobody waits for it any more")

// PersonError is what a Run returns where a person must act, or did not do it
// right. Each caller gets its own Caller.Person of it.
type PersonError struct {
	Kind string // cred.AskBrowser, …
	Why  string // one clause
}

func (e *PersonError) Error() string { return e.Why }

// grace is what a flight may still take when nobody waits for it and nobody
// is asked: the answer under way may be the only copy of a token.
const grace = 3 * time.Second

// Caller is one who takes part in a flight.
type Caller struct {
	Key     cred.LinkKey // under which it asks
	Profile string       // in whose name
	Ask     cred.Asker
	// NoBrowser: this caller's person wants none, and answers AskBrowser with
	// cred.AnswerNoBrowser for everybody.
	NoBrowser bool
	// Person is the error for this caller where a person must act. why is ""
	// where its time was over while a person was asked.
	Person func(kind, why string) error
	Log    *logrus.Entry
}

// Run makes the attempt. Its context ends when nobody waits for it any more,
// or by Group.Cancel or Group.End: context.Cause tells. It must bound what it
// does by itself: the context has no deadline.
type Run[T any] func(ctx context.Context, f *Flight[T]) (T, error)

// Group is the flights of one sign-in, one at a time. The zero value is ready
// for use.
type Group[T any] struct {
	mu  sync.Mutex // guards cur, and what a Flight says
	cur *Flight[T] // under way, nil for none
}

// Flight is one attempt that is under way.
type Flight[T any] struct {
	g      *Group[T]
	cancel context.CancelCauseFunc
	done   chan struct{} // closed at the end; then got and err stand
	got    T
	err    error

	// The Group's mu guards what follows.
	waiters  int
	question *Asked        // that a person is asked now, nil for none
	changed  chan struct{} // closed, and another one made, when question changes
}

// Do takes part in the flight that is under way, and otherwise in the one
// that begin says is to be made. begin is called while no flight is under way
// or can begin; where it returns no Run, Do returns its error and the zero
// value.
//
// Errors: the flight's, where a *PersonError is c.Person's; that of c.Ask,
// which then says what the question's Why says; ErrLeft; the context's, or
// c.Person's where its deadline passed while a person was asked.
func (g *Group[T]) Do(ctx context.Context, c Caller, begin func() (Run[T], error)) (T, error) {
	var none T
	g.mu.Lock()
	f := g.cur
	if f == nil {
		run, err := begin()
		if run == nil {
			g.mu.Unlock()
			return none, err
		}
		f = g.start(ctx, c, run)
	}
	f.waiters++
	g.mu.Unlock()
	defer f.leave()
	return f.wait(ctx, c)
}

// Cancel ends the flight under way, if there is one, with a cause, which is
// then its error. It does not wait for the end.
func (g *Group[T]) Cancel(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cur != nil {
		g.cur.cancel(cause)
	}
}

// End is Cancel that waits for the end, and then calls fn, with no flight
// under way and none that can begin. Errors: fn's, ctx's.
func (g *Group[T]) End(ctx context.Context, cause error, fn func() error) error {
	for {
		g.mu.Lock()
		f := g.cur
		if f == nil {
			defer g.mu.Unlock()
			return fn()
		}
		f.cancel(cause)
		g.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// start begins a flight for c. mu is held.
func (g *Group[T]) start(ctx context.Context, c Caller, run Run[T]) *Flight[T] {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	f := &Flight[T]{g: g, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	g.cur = f
	go func() {
		defer cancel(nil)
		got, err := guarded(ctx, f, c, run)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
		g.mu.Lock()
		f.ask(nil)
		g.cur = nil
		f.got, f.err = got, err
		g.mu.Unlock()
		close(f.done)
	}()
	return f
}

// guarded keeps one sign-in's fault from ending the daemon. The value is not
// logged: it may hold anything.
func guarded[T any](ctx context.Context, f *Flight[T], c Caller, run Run[T]) (got T, err error) {
	defer func() {
		if v := recover(); v != nil {
			if c.Log != nil {
				c.Log.WithField("panic", fmt.Sprintf("%T", v)).Error("a sign-in panicked")
			}
			err = errors.New("cannot use the sign-in: internal error")
		}
	}()
	return run(ctx, f)
}

// wait waits for the end of f and asks its questions.
func (f *Flight[T]) wait(ctx context.Context, c Caller) (T, error) {
	var none T
	asked := ""
	for {
		f.g.mu.Lock()
		q, changed := f.question, f.changed
		f.g.mu.Unlock()
		if q != nil && !q.acted.Load() {
			asked = q.q.Kind
			if err := q.ask(ctx, c); err != nil && q.open.Err() == nil && ctx.Err() == nil {
				return none, err
			}
		}
		select {
		case <-f.done:
			var p *PersonError
			if errors.As(f.err, &p) {
				return none, c.Person(p.Kind, p.Why)
			}
			return f.got, f.err
		case <-changed:
		case <-ctx.Done():
			if asked != "" && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return none, c.Person(asked, "")
			}
			return none, ctx.Err()
		}
	}
}

// leave ends f when nobody else waits for it, and joins it.
func (f *Flight[T]) leave() {
	f.g.mu.Lock()
	f.waiters--
	last := f.waiters == 0
	if last && f.question != nil && !f.question.acted.Load() {
		f.cancel(ErrLeft)
	}
	f.g.mu.Unlock()
	if !last {
		return
	}
	end := time.AfterFunc(grace, func() {
		f.g.mu.Lock()
		defer f.g.mu.Unlock()
		if f.waiters == 0 {
			f.cancel(ErrLeft)
		}
	})
	defer end.Stop()
	<-f.done
}
