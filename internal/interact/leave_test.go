package interact

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
)

func TestDetachInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		first, second := &person{place: "tty:1"}, &person{place: "tty:1", answer: after(time.Second, "second")}
		detachFirst := q.Attach([]cred.LinkKey{keyA}, first)
		var wg sync.WaitGroup
		wg.Go(func() {
			got, err := q.Ask(t.Context(), keyA, question("dev"))
			if err != nil || got.Reveal() != "second" {
				t.Errorf("%q, %v", got.Reveal(), err)
			}
		})
		synctest.Wait()
		detachSecond := q.Attach([]cred.LinkKey{keyA}, second) // came while it was asked
		synctest.Wait()
		if second.asked.Load() != 0 {
			t.Error("two prompts at one place")
		}
		detachFirst()
		if first.over.Load() != 1 || first.open.Load() != 0 {
			t.Error("detach returned before the prompt ended")
		}
		wg.Wait()
		detachSecond()
		detachSecond()
	})
}

// A prompt is open in a window that nobody looks at; the person runs login
// in another one, and is asked there too, without another Ask.
func TestAttachWhileAPromptIsOpenElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		hidden, login := &person{place: "tty:1"}, &person{place: "tty:2", answer: after(time.Second, "login")}
		defer q.Attach([]cred.LinkKey{keyA}, hidden)()
		var wg sync.WaitGroup
		wg.Go(func() {
			got, err := q.Ask(t.Context(), keyA, question("dev"))
			if err != nil || got.Reveal() != "login" {
				t.Errorf("%q, %v", got.Reveal(), err)
			}
		})
		synctest.Wait()
		defer q.Attach([]cred.LinkKey{keyA}, login)()
		wg.Wait()
		synctest.Wait()
		if hidden.over.Load() != 1 {
			t.Error("the hidden prompt was not told that it is over")
		}
	})
}

func TestLastOneDetaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		p := &person{}
		detach := q.Attach([]cred.LinkKey{keyA}, p)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				_, err := q.Ask(t.Context(), keyA, question("dev"))
				wantInteraction(t, err, keyA, "dev", "left without an answer")
			})
		}
		synctest.Wait()
		detach()
		wg.Wait()
		if got := q.Pending(); len(got) != 1 || got[0].Waiting != 0 {
			t.Errorf("pending: %+v", got)
		}
		// abandoned: cools down
		defer q.Attach([]cred.LinkKey{keyA}, p)()
		_, err := q.Ask(t.Context(), keyA, question("dev"))
		wantInteraction(t, err, keyA, "dev", "asked again in 1m")
		if p.asked.Load() != 1 {
			t.Error("asked again at once")
		}
	})
}

// Who was never asked, because another question was on the screen, abandoned
// nothing.
func TestDetachBeforeTheQuestionWasShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		p := &person{}
		detach := q.Attach([]cred.LinkKey{keyA, keyB}, p)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = q.Ask(t.Context(), keyA, question("a")) })
		synctest.Wait()
		wg.Go(func() { _, _ = q.Ask(t.Context(), keyB, question("b")) })
		synctest.Wait()
		detach()
		wg.Wait()
		ok := &person{answer: after(time.Second, "1")}
		defer q.Attach([]cred.LinkKey{keyA, keyB}, ok)()
		if _, err := q.Ask(t.Context(), keyB, question("b")); err != nil {
			t.Error(err)
		}
		_, err := q.Ask(t.Context(), keyA, question("a"))
		wantInteraction(t, err, keyA, "a", "asked again")
	})
}

func TestAnAnswererThatFailsIsNotAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		broken := &person{answer: func(context.Context, Pending) (cred.Secret, error) {
			return cred.Secret{}, errors.New("the connection is gone")
		}}
		works := &person{answer: after(time.Second, "1")}
		broken.place, works.place = "tty:1", "tty:1"
		defer q.Attach([]cred.LinkKey{keyA, keyB}, broken)()
		defer q.Attach([]cred.LinkKey{keyA}, works)()
		if got, err := q.Ask(t.Context(), keyA, question("dev")); err != nil || got.Reveal() != "1" {
			t.Errorf("%q, %v", got.Reveal(), err)
		}
		if broken.asked.Load() != 1 || works.asked.Load() != 1 {
			t.Errorf("asked %d and %d", broken.asked.Load(), works.asked.Load())
		}
		_, err := q.Ask(t.Context(), keyB, question("b"))
		wantInteraction(t, err, keyB, "b", "left without an answer")
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		p := &person{}
		defer q.Attach([]cred.LinkKey{keyA}, p)()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := q.Ask(t.Context(), keyA, question("dev")); !errors.Is(err, ErrObsolete) || !errors.Is(err, cred.ErrUnavailable) {
					t.Error(err)
				}
			})
		}
		_, _ = q.Ask(t.Context(), keyB, question("b"))
		synctest.Wait()
		q.Cancel(keyA)
		q.Cancel(keyB)
		q.Cancel(keyC)
		wg.Wait()
		synctest.Wait()
		if p.over.Load() != 1 || len(q.Pending()) != 0 {
			t.Errorf("over %d, pending %+v", p.over.Load(), q.Pending())
		}
		p.answer = after(time.Second, "1")
		if _, err := q.Ask(t.Context(), keyA, question("dev")); err != nil {
			t.Errorf("after Cancel: %v", err)
		}
	})
}

func TestCallersThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		p := &person{answer: after(10*time.Second, "1")}
		defer q.Attach([]cred.LinkKey{keyA}, p)()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := q.Ask(ctx, keyA, question("dev")); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() { // who stays gets the answer
			if _, err := q.Ask(t.Context(), keyA, question("dev")); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		if got := q.Pending(); len(got) != 1 || got[0].Waiting != 1 {
			t.Errorf("pending: %+v", got)
		}
		wg.Wait()

		// all leave: the prompt ends, and nothing cools down
		p.answer = nil
		ctx, cancel = context.WithCancel(t.Context())
		wg.Go(func() { _, _ = q.Ask(ctx, keyA, question("dev")) })
		synctest.Wait()
		cancel()
		wg.Wait()
		synctest.Wait()
		if p.over.Load() != 1 || len(q.Pending()) != 0 {
			t.Errorf("over %d, pending %+v", p.over.Load(), q.Pending())
		}

		// the deadline of the last one passes: the person let it pass
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := q.Ask(ctx, keyA, question("dev")); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		_, err := q.Ask(t.Context(), keyA, question("dev"))
		wantInteraction(t, err, keyA, "dev", "asked again in 1m0s")
		if _, err := q.Ask(ctx, keyA, question("dev")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with an ended context: %v", err)
		}
	})
}
