package oidc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"keyfob/internal/cred"
)

// operation is a refresh or a sign-in that all callers of a session share. It
// runs on a goroutine of its own, so that whoever began it may leave; the
// last one that leaves ends and joins it.
type operation struct {
	what   step
	cancel context.CancelCauseFunc
	done   chan struct{} // closed at the end; then got and err stand
	got    token
	err    error

	// The session's mu guards what follows.
	waiters  int
	question *question     // that a person is asked now, nil for none
	changed  chan struct{} // closed, and another one made, when question changes
}

// question is what callers ask a person on behalf of an operation.
type question struct {
	q         cred.Question
	over      context.Context // ends when the question is withdrawn
	withdraw  context.CancelFunc
	noBrowser func() // of AskBrowser: there is none
	// failed: the person has been where we asked him to go, in vain. It is
	// told to the Queue as a question that nobody answered, which cools down.
	failed atomic.Bool
	// acted: the person has done his part, and what comes of it is not given
	// up because whoever asked has left.
	acted atomic.Bool
}

// askContext is the context of one Ask of a question.
type askContext struct {
	context.Context
	q *question
}

func (a askContext) Err() error {
	err := a.Context.Err()
	if err != nil && a.q.failed.Load() {
		return context.DeadlineExceeded
	}
	return err
}

var (
	// errLeft ends an operation for which nobody waits any more.
	errLeft = errors.New("nobody waits for it any more")
	// errForgotten ends an operation whose sign-in is signed out of.
	errForgotten = fmt.Errorf("the sign-in was signed out of: %w", cred.ErrUnavailable)
	// errAgain: the record has changed, decide anew.
	errAgain = errors.New("the sign-in has ended")
	// errNoBrowser: no browser can be opened, or none is wanted.
	errNoBrowser = errors.New("no browser can be opened")
)

// personError says that a person must act: in the words of each caller.
type personError struct{ kind, why string }

func (e *personError) Error() string { return e.why }

// interaction is a personError for one caller.
func (s *session) interaction(c *caller, e *personError) error {
	return &cred.InteractionError{Key: s.key, Kind: e.kind, Profile: c.in.Profile,
		Message: "cannot get credentials for " + c.in.Profile + ": the sign-in at " + c.issuer + ": " + e.why, Help: "keyfob login " + c.in.Profile}
}

// grace is what a request under way may still take when nobody waits for it:
// its answer may be the only copy of a token.
const grace = 3 * time.Second

// start begins an operation for c. mu is held.
func (s *session) start(ctx context.Context, c *caller, what step) *operation {
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	op := &operation{what: what, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	s.op = op
	if what == signInAnew {
		s.renew = false
	}
	go func() {
		defer cancel(nil)
		r, err := s.guarded(run, op, c)
		if cause := context.Cause(run); err != nil && cause != nil {
			err = cause
		}
		s.mu.Lock()
		s.ask(op, nil)
		s.op = nil
		if op.err = err; err == nil {
			op.got = r.token()
		}
		s.mu.Unlock()
		close(op.done)
	}()
	return op
}

// guarded keeps one sign-in's fault from ending the daemon. The value is not
// logged: it may hold anything.
func (s *session) guarded(ctx context.Context, op *operation, c *caller) (r *record, err error) {
	defer func() {
		if v := recover(); v != nil {
			c.log().WithField("panic", fmt.Sprintf("%T", v)).Error("a sign-in panicked")
			r, err = nil, fmt.Errorf("cannot sign in at %s: internal error", c.issuer)
		}
	}()
	if op.what == refreshIt {
		return s.refresh(ctx, c)
	}
	return s.signIn(ctx, op, c)
}

// ask puts a question to all who wait, in place of the one before; nil is
// none. mu is held.
func (s *session) ask(op *operation, q *question) {
	if op.question != nil {
		op.question.withdraw()
	}
	op.question = q
	close(op.changed)
	op.changed = make(chan struct{})
	if q != nil && op.waiters == 0 {
		op.cancel(errLeft)
	}
}

// put makes a question and asks it. Call the result when it is over.
func (s *session) put(ctx context.Context, op *operation, q cred.Question, noBrowser func()) (x *question, over func(failed bool)) {
	s.settle(ctx)
	x = &question{q: q, noBrowser: noBrowser}
	x.over, x.withdraw = context.WithCancel(ctx)
	s.mu.Lock()
	s.ask(op, x)
	s.mu.Unlock()
	return x, func(failed bool) {
		x.failed.Store(failed)
		s.mu.Lock()
		defer s.mu.Unlock()
		if op.question == x {
			s.ask(op, nil)
		}
	}
}

// settleFor bounds how long a question waits for those who asked the one
// before: the broker may have them queue for a place before they return.
const settleFor = 2 * time.Second

// settle waits until nobody asks a question that is withdrawn. Questions of
// one key are one to the Queue: whoever asked the next one before all had
// left would get the one before.
func (s *session) settle(ctx context.Context) {
	s.mu.Lock()
	idle := s.idle
	s.mu.Unlock()
	if idle == nil {
		return
	}
	late := time.NewTimer(settleFor)
	defer late.Stop()
	select {
	case <-idle:
	case <-late.C:
	case <-ctx.Done():
	}
}

// asked counts a return of Ask.
func (s *session) asked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking--; s.asking == 0 {
		close(s.idle)
		s.idle = nil
	}
}

// wait waits for the end of op and asks its questions; c was counted as a
// waiter.
func (s *session) wait(ctx context.Context, op *operation, c *caller) error {
	defer s.leave(op)
	asked := ""
	for {
		s.mu.Lock()
		q, changed := op.question, op.changed
		if q != nil {
			if s.asking++; s.asking == 1 {
				s.idle = make(chan struct{})
			}
		}
		s.mu.Unlock()
		if q != nil {
			asked = q.q.Kind
			err := s.askPerson(ctx, q, c)
			s.asked()
			if err != nil && q.over.Err() == nil && ctx.Err() == nil {
				return err
			}
		}
		select {
		case <-op.done:
			var p *personError
			if errors.As(op.err, &p) {
				return s.interaction(c, p)
			}
			return op.err
		case <-changed:
		case <-ctx.Done():
			if asked != "" && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return s.interaction(c, &personError{asked, "nobody finished it in time"})
			}
			return ctx.Err()
		}
	}
}

// askPerson asks until the question is withdrawn. Every caller does, though
// one answer is enough: the broker counts who waits for a person, and gives
// the place of such a caller to others.
func (s *session) askPerson(ctx context.Context, q *question, c *caller) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(q.over, cancel)()
	if c.device() && q.noBrowser != nil {
		q.noBrowser()
		return nil
	}
	question := q.q
	question.Profile = c.in.Profile
	answer, err := c.in.Ask.Ask(askContext{ctx, q}, s.key, question)
	if err != nil {
		return err
	}
	if q.noBrowser != nil && answer.Reveal() == cred.AnswerNoBrowser {
		q.noBrowser()
	}
	return nil
}

// leave ends op when nobody else waits for it, and joins it.
func (s *session) leave(op *operation) {
	s.mu.Lock()
	op.waiters--
	last := op.waiters == 0
	if last && op.question != nil && !op.question.acted.Load() {
		op.cancel(errLeft)
	}
	s.mu.Unlock()
	if !last {
		return
	}
	late := time.AfterFunc(grace, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if op.waiters == 0 {
			op.cancel(errLeft)
		}
	})
	defer late.Stop()
	<-op.done
}
