package flight

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"keyfob/internal/cred"
	"keyfob/internal/interact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key = cred.KeyOf("test", nil, cred.LinkKey{})

// askFunc is an Asker of one person.
type askFunc func(ctx context.Context, q cred.Question) (cred.Secret, error)

func (f askFunc) Ask(ctx context.Context, _ cred.LinkKey, q cred.Question) (cred.Secret, error) {
	return f(ctx, q)
}

func untilOver(ctx context.Context, _ cred.Question) (cred.Secret, error) {
	<-ctx.Done()
	return cred.Secret{}, ctx.Err()
}

func as(profile string, ask cred.Asker) Caller {
	return Caller{Key: key, Profile: profile, Ask: ask, Person: func(kind, why string) error {
		return &cred.InteractionError{Key: key, Kind: kind, Profile: profile, Message: "cannot: " + why}
	}}
}

func always(run Run[int]) func() (Run[int], error) {
	return func() (Run[int], error) { return run, nil }
}

// TestOneFlight: however many come, there is one, and it is everybody's; then
// there may be another.
func TestOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		var runs atomic.Int32
		failure := errors.New("no")
		for round := range 3 {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					got, err := g.Do(t.Context(), as("p", nil), always(func(context.Context, *Flight[int]) (int, error) {
						time.Sleep(time.Second)
						runs.Add(1)
						if round == 1 {
							return 0, failure
						}
						return 7, nil
					}))
					if round == 1 && err != failure || round != 1 && (got != 7 || err != nil) {
						t.Errorf("round %d: %d, %v", round, got, err)
					}
				})
			}
			wg.Wait()
			if n := int(runs.Load()); n != round+1 {
				t.Fatalf("%d flights in round %d", n, round)
			}
		}
	})
}

func TestNothingToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		why := errors.New("locked")
		for _, want := range []error{nil, why} {
			if got, err := g.Do(t.Context(), as("p", nil), func() (Run[int], error) { return nil, want }); got != 0 || err != want {
				t.Errorf("%d, %v", got, err)
			}
		}
	})
}

type valueKey struct{}

// TestWhoBeganMayLeave: the others go on; the last one ends what asks a
// person, and gives an answer under way its time.
func TestWhoBeganMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		first, leave := context.WithCancel(context.WithValue(t.Context(), valueKey{}, "v"))
		slow := func(ctx context.Context, _ *Flight[int]) (int, error) {
			if ctx.Value(valueKey{}) != "v" {
				t.Error("the values of the context are lost")
			}
			select {
			case <-time.After(10 * time.Second):
				return 1, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := g.Do(first, as("p", nil), always(slow)); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if got, err := g.Do(t.Context(), as("p", nil), nil); got != 1 || err != nil {
				t.Errorf("who stays: %d, %v", got, err)
			}
		})
		synctest.Wait()
		leave()
		wg.Wait()

		for _, x := range []struct {
			takes, left time.Duration
		}{{2 * time.Second, 2 * time.Second}, {time.Minute, grace}} {
			ctx, leave := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			began := time.Now()
			leave()
			_, err := g.Do(ctx, as("p", nil), always(func(ctx context.Context, _ *Flight[int]) (int, error) {
				select {
				case <-time.After(x.takes):
				case <-ctx.Done():
				}
				ended <- context.Cause(ctx)
				return 0, ctx.Err()
			}))
			if !errors.Is(err, context.Canceled) || time.Since(began) != x.left {
				t.Errorf("the last one: %v after %v", err, time.Since(began))
			}
			if cause := <-ended; (cause != nil) != (x.takes > grace) || cause != nil && cause != ErrLeft {
				t.Errorf("a flight of %v ended with %v", x.takes, cause)
			}
		}
	})
}

// asks is a flight that asks and takes an answer.
func asks(q Question) Run[int] {
	return func(ctx context.Context, f *Flight[int]) (int, error) {
		answers := make(chan cred.Secret, 1)
		q.Answer = func(s cred.Secret) { answers <- s } // a second one would block
		a := f.Ask(ctx, q)
		defer a.Over(false)
		select {
		case s := <-answers:
			time.Sleep(time.Second)
			return s.Len(), nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// TestEveryCallerAsks: each in its own name, one answer is everybody's, and
// who comes after it is not asked again.
func TestEveryCallerAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		var asked atomic.Int32
		names := sync.Map{}
		ask := askFunc(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
			asked.Add(1)
			names.Store(q.Profile, true)
			if q.Profile == "answers" {
				time.Sleep(time.Second)
				return cred.NewSecret("12345"), nil
			}
			return untilOver(ctx, q)
		})
		var wg sync.WaitGroup
		do := func(name string) {
			wg.Go(func() {
				got, err := g.Do(t.Context(), as(name, ask), always(asks(Question{Question: cred.Question{Kind: cred.AskCode, Profile: "x"}})))
				if got != 5 || err != nil {
					t.Errorf("%s: %d, %v", name, got, err)
				}
			})
		}
		for _, name := range []string{"a", "b", "answers", "c"} {
			do(name)
		}
		time.Sleep(1500 * time.Millisecond)
		do("late")
		wg.Wait()
		if _, ok := names.Load("b"); !ok || asked.Load() != 4 {
			t.Errorf("%d asked", asked.Load())
		}
	})
}

// TestNobodyThere: a caller without anybody is told, in the question's words;
// the others go on; the last one's leaving ends the flight.
func TestNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		queue := interact.NewQueue(interact.Config{})
		q := Question{Why: "the sign-in at X ended at noon", Question: cred.Question{Kind: cred.AskBrowser}}
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := g.Do(t.Context(), as("there", askFunc(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
				time.Sleep(time.Second)
				return cred.NewSecret("abc"), nil
			})), always(asks(q)))
			if err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		alone := func() {
			began := time.Now()
			_, err := g.Do(t.Context(), as("alone", queue), always(asks(q)))
			var ie *cred.InteractionError
			if !errors.As(err, &ie) || err.Error() != "cannot get credentials for alone: the sign-in at X ended at noon: nobody is there to answer" || ie.Hint() != "keyfob login alone" {
				t.Errorf("%v, %v", err, ie.Hint())
			}
			if d := time.Since(began); d != 0 {
				t.Errorf("it took %v", d)
			}
		}
		alone()
		wg.Wait()
		alone()
		if g.cur != nil {
			t.Error("the flight goes on without anybody")
		}
	})
}

// TestQuestionsFollowEachOther: at a real Queue each is shown as it is, and
// what was refused cools down.
func TestQuestionsFollowEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		queue := interact.NewQueue(interact.Config{})
		var shown []string
		defer queue.Attach([]cred.LinkKey{key}, prompt(func(ctx context.Context, p interact.Pending) (cred.Secret, error) {
			shown = append(shown, p.Question.URL)
			<-ctx.Done()
			return cred.Secret{}, ctx.Err()
		}))()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				_, err := g.Do(t.Context(), as("p", queue), always(func(ctx context.Context, f *Flight[int]) (int, error) {
					for _, u := range []string{"one", "two", "three"} {
						a := f.Ask(ctx, Question{Question: cred.Question{Kind: cred.AskDevice, URL: u}})
						time.Sleep(time.Second)
						a.Over(u == "three")
					}
					return 0, &PersonError{cred.AskDevice, "refused in the browser"}
				}))
				var ie *cred.InteractionError
				if !errors.As(err, &ie) || !strings.Contains(err.Error(), "refused in the browser") {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if strings.Join(shown, " ") != "one two three" {
			t.Errorf("shown %v", shown)
		}
		if _, err := g.Do(t.Context(), as("p", queue), always(asks(Question{Question: cred.Question{Kind: cred.AskBrowser}}))); err == nil || !strings.Contains(err.Error(), "asked again in") {
			t.Errorf("after a no: %v", err)
		}
	})
}

type prompt func(ctx context.Context, p interact.Pending) (cred.Secret, error)

func (f prompt) Prompt(ctx context.Context, p interact.Pending) (cred.Secret, error) {
	return f(ctx, p)
}

// TestTime: a caller whose time is over while a person is asked learns that;
// its Asker learns that the question was let pass.
func TestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		var saw error
		ctx, cancel := context.WithTimeout(cred.Unattended(t.Context()), time.Minute)
		defer cancel()
		_, err := g.Do(ctx, as("p", askFunc(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
			if end, ok := ctx.Deadline(); !ok || time.Until(end) != time.Minute || !cred.IsUnattended(ctx) {
				t.Error("the caller's context is not the question's")
			}
			_, err := untilOver(ctx, q)
			saw = err
			return cred.Secret{}, err
		})), always(asks(Question{Question: cred.Question{Kind: cred.AskBrowser}})))
		var ie *cred.InteractionError
		if !errors.As(err, &ie) || ie.Kind != cred.AskBrowser || !errors.Is(saw, context.DeadlineExceeded) {
			t.Errorf("%v, the Asker saw %v", err, saw)
		}
		// Nobody was asked: it is not a person who is late.
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Do(ctx, as("p", nil), always(func(ctx context.Context, _ *Flight[int]) (int, error) { <-ctx.Done(); return 0, ctx.Err() })); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// TestTheLastOneLeavesAQuestion: it ends at once, unless the person has done
// his part.
func TestTheLastOneLeavesAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, acted := range []bool{false, true} {
			var g Group[int]
			ctx, leave := context.WithCancel(t.Context())
			finished := false
			time.AfterFunc(time.Second, leave)
			began := time.Now()
			_, _ = g.Do(ctx, as("p", askFunc(untilOver)), always(func(ctx context.Context, f *Flight[int]) (int, error) {
				a := f.Ask(ctx, Question{Question: cred.Question{Kind: cred.AskBrowser}})
				defer a.Over(false)
				if acted {
					a.Acted()
				}
				select {
				case <-time.After(3 * time.Second):
					finished = true
				case <-ctx.Done():
				}
				return 0, nil
			}))
			if finished != acted || !acted && time.Since(began) != time.Second {
				t.Errorf("acted %v: finished %v after %v", acted, finished, time.Since(began))
			}
		}
	})
}

// TestWithoutABrowser: one caller who wants none is enough.
func TestWithoutABrowser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		var wg sync.WaitGroup
		for _, none := range []bool{false, true} {
			wg.Go(func() {
				c := as("p", askFunc(untilOver))
				c.NoBrowser = none
				got, err := g.Do(t.Context(), c, always(asks(Question{Question: cred.Question{Kind: cred.AskBrowser}})))
				if err != nil || got != len(cred.AnswerNoBrowser) {
					t.Errorf("%d, %v", got, err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
	})
}

func TestCancelAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		g.Cancel(errors.New("nothing is under way"))
		forgotten := errors.New("signed out")
		var ended atomic.Bool
		hangs := always(func(ctx context.Context, _ *Flight[int]) (int, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			ended.Store(true)
			return 0, ctx.Err()
		})
		for _, end := range []bool{false, true} {
			ended.Store(false)
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := g.Do(t.Context(), as("p", nil), hangs); err != forgotten {
					t.Error(err)
				}
			})
			synctest.Wait()
			if !end {
				g.Cancel(forgotten)
				wg.Wait()
				continue
			}
			short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			if err := g.End(short, forgotten, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			cancel()
			why := errors.New("fn's")
			err := g.End(t.Context(), forgotten, func() error {
				if !ended.Load() {
					t.Error("it is still under way")
				}
				return why
			})
			if err != why {
				t.Error(err)
			}
			wg.Wait()
		}
	})
}

// TestPanic: one sign-in's fault is one caller's error.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		if _, err := g.Do(t.Context(), as("p", nil), always(func(context.Context, *Flight[int]) (int, error) { panic("CANARY") })); err == nil || strings.Contains(err.Error(), "CANARY") {
			t.Error(err)
		}
		if got, err := g.Do(t.Context(), as("p", nil), always(func(context.Context, *Flight[int]) (int, error) { return 1, nil })); got != 1 || err != nil {
			t.Error(err)
		}
	})
}
