package flight

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"keyfob/internal/cred"
)

// Question is what the callers of a flight ask a person. Each caller puts its
// own Profile into it.
type Question struct {
	cred.Question
	// Why is why a person must act, in one clause ("the sign-in at … ended at
	// …"): it stands in the error of a caller that finds nobody to ask.
	Why string
	// Answer is told, once, what a person answered; nil where the answer
	// comes by another way. It must not wait.
	Answer func(cred.Secret)
}

// Asked is a question that is being asked.
type Asked struct {
	q        Question
	open     context.Context // ends when the question is withdrawn
	withdraw context.CancelFunc
	answered sync.Once
	// failed: the person has been where we asked him to go, in vain.
	failed atomic.Bool
	// acted: the person has done his part.
	acted atomic.Bool

	over func() // takes the question back, if it is still the flight's
}

// Ask puts a question to all callers, in place of the one before. Call Over
// when it is over.
func (f *Flight[T]) Ask(ctx context.Context, q Question) *Asked {
	a := &Asked{q: q}
	a.open, a.withdraw = context.WithCancel(ctx)
	a.over = func() {
		f.g.mu.Lock()
		defer f.g.mu.Unlock()
		if f.question == a {
			f.ask(nil)
		}
	}
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	f.ask(a)
	return a
}

// ask is Ask; nil is no question. mu is held.
func (f *Flight[T]) ask(a *Asked) {
	if f.question != nil {
		f.question.withdraw()
	}
	f.question = a
	close(f.changed)
	f.changed = make(chan struct{})
	if a != nil && f.waiters == 0 {
		f.cancel(ErrLeft)
	}
}

// Acted says that the person has done his part: what comes of it is not given
// up because whoever asked has left, and who comes from now on is not asked.
func (a *Asked) Acted() { a.acted.Store(true) }

// Over withdraws the question. failed says that the person has been where he
// was asked to go, in vain: that cools down like a question that nobody
// answered, or whoever tries again at once would open one page after another.
func (a *Asked) Over(failed bool) {
	a.failed.Store(failed)
	a.over()
}

// ask asks in c's name until the question is withdrawn or answered.
func (a *Asked) ask(ctx context.Context, c Caller) error {
	if c.NoBrowser && a.q.Kind == cred.AskBrowser {
		a.answer(cred.NewSecret(cred.AnswerNoBrowser))
		return nil
	}
	asking, cancel := context.WithCancel(a.open)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	q := a.q.Question
	q.Profile = c.Profile
	answer, err := c.Ask.Ask(askContext{asking, ctx, a}, c.Key, q)
	if err != nil {
		return a.because(err, c)
	}
	a.answer(answer)
	return nil
}

func (a *Asked) answer(s cred.Secret) {
	a.answered.Do(func() {
		a.acted.Store(true)
		a.withdraw()
		if a.q.Answer != nil {
			a.q.Answer(s)
		}
	})
}

// because adds the reason for which a person was asked to the error of an
// Asker, which knows only why nobody answered.
func (a *Asked) because(err error, c Caller) error {
	ie, ok := err.(*cred.InteractionError)
	if !ok || a.q.Why == "" {
		return err
	}
	e := *ie
	_, rest, _ := strings.Cut(e.Message, "a person must act")
	e.Message = "cannot get credentials for " + c.Profile + ": " + a.q.Why + rest
	return &e
}

// askContext is the context of one Ask. It ends with the question as well as
// with its caller's.
//
// An Asker is told no more than that it ended. It takes the end of a time
// limit for a person who let the question pass, which is how a sign-in that
// failed in the browser has to count.
type askContext struct {
	context.Context // ends with both
	caller          context.Context
	a               *Asked
}

func (c askContext) Value(key any) any { return c.caller.Value(key) }

func (c askContext) Deadline() (time.Time, bool) { return c.caller.Deadline() }

func (c askContext) Err() error {
	err := c.Context.Err()
	switch {
	case err == nil:
		return nil
	case c.a.failed.Load():
		return context.DeadlineExceeded
	case c.caller.Err() != nil:
		return c.caller.Err()
	}
	return err
}
