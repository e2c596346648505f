package interact

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
)

func page(kind, url string) cred.Question {
	return cred.Question{Kind: kind, Profile: "p", Text: "Sign in", URL: url}
}

// TestAnotherQuestionTakesThePlace: a page that is shown is withdrawn where
// another one is put, and nobody gets the other's answer.
func TestAnotherQuestionTakesThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		var shown []Pending
		var over atomic.Int32
		p := &person{place: "tty:1", answer: func(ctx context.Context, p Pending) (cred.Secret, error) {
			shown = append(shown, p)
			if p.Kind == cred.AskCode {
				return after(time.Second, "typed")(ctx, p)
			}
			<-ctx.Done()
			over.Add(1)
			return cred.Secret{}, ctx.Err()
		}}
		defer q.Attach([]cred.LinkKey{keyA}, p)()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := q.Ask(t.Context(), keyA, page(cred.AskBrowser, "http://first.test")); !errors.Is(err, ErrObsolete) {
					t.Errorf("the first question's caller: %v", err)
				}
			})
		}
		synctest.Wait()
		for range 50 {
			wg.Go(func() {
				got, err := q.Ask(t.Context(), keyA, page(cred.AskCode, "http://second.test"))
				if err != nil || got.Reveal() != "typed" {
					t.Errorf("the second question's caller: %q, %v", got.Reveal(), err)
				}
			})
		}
		synctest.Wait()
		if now := q.Pending(); len(now) != 1 || now[0].Question.URL != "http://second.test" || now[0].Waiting != 50 {
			t.Errorf("pending: %+v", now)
		}
		wg.Wait()
		if len(shown) != 2 || over.Load() != 1 || shown[1].Question.URL != "http://second.test" || shown[0].ID == shown[1].ID {
			t.Errorf("shown %+v, %d withdrawn", shown, over.Load())
		}
		if len(q.Pending()) != 0 {
			t.Errorf("pending: %+v", q.Pending())
		}
	})
}

// TestOneQuestionOfManyProfiles: for whom it is asked makes no other question.
func TestOneQuestionOfManyProfiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		p := &person{answer: after(time.Second, "typed")}
		defer q.Attach([]cred.LinkKey{keyA}, p)()
		var wg sync.WaitGroup
		for _, profile := range []string{"one", "two", "three"} {
			wg.Go(func() {
				ask := page(cred.AskChoice, "")
				ask.Profile, ask.Choices = profile, []string{"a", "b"}
				if got, err := q.Ask(t.Context(), keyA, ask); err != nil || got.Reveal() != "typed" {
					t.Errorf("%s: %v", profile, err)
				}
			})
		}
		wg.Wait()
		if p.asked.Load() != 1 {
			t.Errorf("%d prompts", p.asked.Load())
		}
	})
}

// lagging is a context that has ended, of a call that has not seen it yet.
type lagging struct {
	context.Context
	err atomic.Pointer[error]
	// after is after how many looks it has ended.
	after atomic.Int32
}

func (l *lagging) Err() error {
	if err := l.err.Load(); err != nil && l.after.Add(-1) < 0 {
		return *err
	}
	return nil
}

// TestCallersThatAreAboutToLeave: the question of callers whose contexts have
// ended is over, though they have not returned: whoever asks next is not given
// it, and pauses where theirs was let pass.
func TestCallersThatAreAboutToLeave(t *testing.T) {
	for _, x := range []struct {
		name string
		err  error
		why  string
	}{
		{"withdrawn", context.Canceled, ""},
		{"let pass", context.DeadlineExceeded, "left without an answer, and it is asked again in 1m0s"},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := NewQueue(Config{})
				p := &person{}
				defer q.Attach([]cred.LinkKey{keyA}, p)()
				ctx, cancel := context.WithCancel(t.Context())
				old := &lagging{Context: ctx}
				var wg sync.WaitGroup
				wg.Go(func() { _, _ = q.Ask(old, keyA, question("old")) })
				synctest.Wait()
				old.err.Store(&x.err)
				if x.why != "" {
					_, err := q.Ask(t.Context(), keyA, question("dev"))
					wantInteraction(t, err, keyA, "dev", x.why)
				} else {
					p.answer = after(time.Second, "new")
					if got, err := q.Ask(t.Context(), keyA, question("dev")); err != nil || got.Reveal() != "new" {
						t.Errorf("%q, %v", got.Reveal(), err)
					}
				}
				cancel()
				wg.Wait()
			})
		})
	}
}

// TestALateCallBringsNothingBack: a call whose question was withdrawn between
// its first look and its turn does not put that in the place of the next one.
func TestALateCallBringsNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		p := &person{answer: after(time.Second, "typed")}
		defer q.Attach([]cred.LinkKey{keyA}, p)()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := q.Ask(t.Context(), keyA, page(cred.AskCode, "http://second.test")); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		late := &lagging{Context: t.Context()}
		late.err.Store(&context.Canceled)
		late.after.Store(1)
		if _, err := q.Ask(late, keyA, page(cred.AskBrowser, "http://first.test")); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		wg.Wait()
		if p.asked.Load() != 1 {
			t.Errorf("%d prompts", p.asked.Load())
		}
	})
}
