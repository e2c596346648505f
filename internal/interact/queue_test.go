package interact

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"keyfob/internal/cred"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	keyA = cred.KeyOf("test", map[string]string{"name": "a"}, cred.LinkKey{})
	keyB = cred.KeyOf("test", map[string]string{"name": "b"}, cred.LinkKey{})
	keyC = cred.KeyOf("test", map[string]string{"name": "c"}, cred.LinkKey{})
)

func question(profile string) cred.Question {
	return cred.Question{Kind: cred.AskMFA, Profile: profile, Serial: "arn:aws:iam::123456789012:mfa/me", Text: "MFA code"}
}

// person is an Answerer. Each Prompt is one entry in asked, and is answered
// by what answer does; nil waits until the prompt is over.
type person struct {
	place  string
	answer func(ctx context.Context, p Pending) (cred.Secret, error)

	open, most, asked, over atomic.Int32
}

func (p *person) Place() string { return p.place }

func (p *person) Prompt(ctx context.Context, q Pending) (cred.Secret, error) {
	p.asked.Add(1)
	if n := p.open.Add(1); n > p.most.Load() {
		p.most.Store(n)
	}
	defer p.open.Add(-1)
	if p.answer != nil {
		return p.answer(ctx, q)
	}
	<-ctx.Done()
	p.over.Add(1)
	return cred.Secret{}, ctx.Err()
}

// after answers with value after d.
func after(d time.Duration, value string) func(context.Context, Pending) (cred.Secret, error) {
	return func(ctx context.Context, _ Pending) (cred.Secret, error) {
		select {
		case <-time.After(d):
			return cred.NewSecret(value), nil
		case <-ctx.Done():
			return cred.Secret{}, ctx.Err()
		}
	}
}

func refuse(ctx context.Context, _ Pending) (cred.Secret, error) {
	time.Sleep(time.Second)
	return cred.Secret{}, fmt.Errorf("at the prompt: %w", ErrRefused)
}

func wantInteraction(t *testing.T, err error, key cred.LinkKey, profile, why string) {
	t.Helper()
	var ie *cred.InteractionError
	if !errors.As(err, &ie) || ie.Key != key || ie.Profile != profile || ie.Kind != cred.AskMFA ||
		ie.Hint() != "keyfob login "+profile || !strings.HasPrefix(ie.Error(), "cannot ") || !strings.Contains(ie.Error(), why) {
		t.Errorf("error is %#v (%v), want an InteractionError of %s about %q", err, err, profile, why)
	}
}

func TestHundredsOfCallersAreOnePrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		p := &person{answer: after(5*time.Second, "123456")}
		defer q.Attach([]cred.LinkKey{keyA}, p)()
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				got, err := q.Ask(t.Context(), keyA, question("dev"))
				if err != nil || got.Reveal() != "123456" {
					t.Errorf("%q, %v", got.Reveal(), err)
				}
			})
		}
		synctest.Wait()
		pending := q.Pending()
		if len(pending) != 1 || pending[0].Waiting != 500 || pending[0].Profile != "dev" || pending[0].Kind != cred.AskMFA || pending[0].ID == "" {
			t.Errorf("pending: %+v", pending)
		}
		if d := pending[0].Expires.Sub(pending[0].Since); d != 10*time.Minute {
			t.Errorf("expires after %v", d)
		}
		wg.Wait()
		if p.asked.Load() != 1 {
			t.Errorf("%d prompts", p.asked.Load())
		}
		if len(q.Pending()) != 0 {
			t.Errorf("an answered question is pending: %+v", q.Pending())
		}
	})
}

// Three hundred commands in one terminal, each of which could ask, are one
// prompt there; another terminal gets its own.
func TestOnePromptAtAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		var open, asked, most atomic.Int32
		count := func(ctx context.Context, p Pending) (cred.Secret, error) {
			asked.Add(1)
			if n := open.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer open.Add(-1)
			return after(time.Second, "1")(ctx, p)
		}
		other := &person{place: "tty:2"}
		defer q.Attach([]cred.LinkKey{keyA}, other)()
		var wg sync.WaitGroup
		for i := range 300 {
			key := []cred.LinkKey{keyA, keyB, keyC}[i%3]
			wg.Go(func() {
				defer q.Attach([]cred.LinkKey{key}, &person{place: "tty:1", answer: count})()
				if _, err := q.Ask(t.Context(), key, question("dev")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if asked.Load() != 3 || most.Load() != 1 {
			t.Errorf("%d prompts for three keys, %d at once", asked.Load(), most.Load())
		}
		if other.asked.Load() != 1 || other.over.Load() != 1 {
			t.Errorf("the other terminal: asked %d, told it is over %d", other.asked.Load(), other.over.Load())
		}
	})
}

func TestFirstAnswerWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		slow, fast := &person{}, &person{answer: after(3*time.Second, "fast")}
		defer q.Attach([]cred.LinkKey{keyA}, slow)()
		defer q.Attach([]cred.LinkKey{keyA}, fast)()
		unrelated := &person{}
		defer q.Attach([]cred.LinkKey{keyB}, unrelated)()
		got, err := q.Ask(t.Context(), keyA, question("dev"))
		if err != nil || got.Reveal() != "fast" {
			t.Errorf("%q, %v", got.Reveal(), err)
		}
		synctest.Wait()
		if slow.asked.Load() != 1 || slow.over.Load() != 1 {
			t.Errorf("the other: asked %d, over %d", slow.asked.Load(), slow.over.Load())
		}
		if unrelated.asked.Load() != 0 {
			t.Error("somebody who can't answer was asked")
		}
	})
}

func TestOneAnswererIsAskedOneThingAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		p := &person{}
		p.answer = func(ctx context.Context, pending Pending) (cred.Secret, error) {
			return after(time.Second, "for "+pending.Profile)(ctx, pending)
		}
		defer q.Attach([]cred.LinkKey{keyA, keyB, keyC}, p)()
		var wg sync.WaitGroup
		for i, key := range []cred.LinkKey{keyA, keyB, keyC} {
			profile := string(rune('a' + i))
			wg.Go(func() {
				got, err := q.Ask(t.Context(), key, question(profile))
				if err != nil || got.Reveal() != "for "+profile {
					t.Errorf("%s: %q, %v", profile, got.Reveal(), err)
				}
			})
		}
		wg.Wait()
		if p.asked.Load() != 3 || p.most.Load() != 1 {
			t.Errorf("asked %d, at once %d", p.asked.Load(), p.most.Load())
		}
	})
}

func TestNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		for range 3 {
			_, err := q.Ask(t.Context(), keyA, question("dev"))
			wantInteraction(t, err, keyA, "dev", "nobody is there")
		}
		first := q.Pending()
		if len(first) != 1 || first[0].Waiting != 0 || first[0].Key != keyA {
			t.Fatalf("pending: %+v", first)
		}
		// Who comes later is not asked before the next Ask, and then
		// answers the same interaction.
		p := &person{answer: after(time.Second, "1")}
		defer q.Attach([]cred.LinkKey{keyA}, p)()
		synctest.Wait()
		if p.asked.Load() != 0 {
			t.Error("asked without an Ask")
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := q.Ask(t.Context(), keyA, question("dev")); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if now := q.Pending(); len(now) != 1 || now[0].ID != first[0].ID || now[0].Waiting != 1 {
			t.Errorf("pending: %+v", now)
		}
		wg.Wait()
		if len(q.Pending()) != 0 {
			t.Error("still pending")
		}
	})
}

// TestTheLatestQuestionIsAsked: what was recorded while nobody was there, a
// page whose listener has closed, is not what the next person is shown.
func TestTheLatestQuestionIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		first, second := question("p"), question("p")
		first.URL, second.URL = "http://first.test", "http://second.test"
		if _, err := q.Ask(t.Context(), keyA, first); err == nil {
			t.Fatal("somebody was there")
		}
		var shown string
		defer q.Attach([]cred.LinkKey{keyA}, &person{answer: func(_ context.Context, p Pending) (cred.Secret, error) {
			shown = p.Question.URL
			return cred.NewSecret("x"), nil
		}})()
		if _, err := q.Ask(t.Context(), keyA, second); err != nil || shown != second.URL {
			t.Errorf("%v, shown %q", err, shown)
		}
	})
}

// TestOneBrowser: of many who could open a browser one does; another one when
// that one can't, or leaves.
func TestOneBrowser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		ask := question("p")
		ask.Kind = cred.AskBrowser
		var open, most, all int
		var mu sync.Mutex
		browser := func(ctx context.Context, _ Pending) (cred.Secret, error) {
			mu.Lock()
			open++
			all++
			most = max(most, open)
			n := all
			mu.Unlock()
			defer func() { mu.Lock(); open--; mu.Unlock() }()
			if n == 1 {
				return cred.Secret{}, errors.New("no opener")
			}
			<-ctx.Done()
			return cred.Secret{}, ctx.Err()
		}
		ctx, cancel := context.WithCancel(t.Context())
		var leave []func()
		for range 50 {
			leave = append(leave, q.Attach([]cred.LinkKey{keyA}, &person{answer: browser}))
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { _, _ = q.Ask(ctx, keyA, ask) })
		}
		synctest.Wait()
		mu.Lock()
		if open != 1 || most != 1 || all != 2 {
			t.Errorf("%d open, %d at most, %d in all", open, most, all)
		}
		mu.Unlock()
		for _, l := range leave[25:] { // who has none open
			l()
		}
		synctest.Wait()
		mu.Lock()
		if open != 1 || all != 2 {
			t.Errorf("after others have left: %d open, %d in all", open, all)
		}
		mu.Unlock()
		leave[0]()
		leave[1]() // whose browser it was
		synctest.Wait()
		mu.Lock()
		if open != 1 || most != 1 || all != 3 {
			t.Errorf("after that one has left: %d open, %d at most, %d in all", open, most, all)
		}
		mu.Unlock()
		cancel()
		wg.Wait()
		for _, l := range leave[:25] {
			l()
		}
	})
}

// TestNobodyIsSentToAPageUnasked: a refresh in the background opens no
// browser at somebody who is there for another reason, and joins no sign-in.
func TestNobodyIsSentToAPageUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		ask := question("p")
		ask.Kind = cred.AskBrowser
		p := &person{}
		defer q.Attach([]cred.LinkKey{keyA}, p)()
		for range 2 {
			if _, err := q.Ask(cred.Unattended(t.Context()), keyA, ask); err == nil {
				t.Fatal("it was asked")
			}
			if n := p.asked.Load(); n > 1 {
				t.Fatalf("asked %d times", n)
			}
			// The second time beside one who does want to sign in.
			go func() { _, _ = q.Ask(t.Context(), keyA, ask) }()
			synctest.Wait()
		}
		if n := p.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if _, err := q.Ask(cred.Unattended(t.Context()), keyB, question("p")); err == nil {
			t.Error("nobody is there for it")
		}
		q.Cancel(keyA)
	})
}

func TestPendingExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{Expiry: time.Minute})
		_, _ = q.Ask(t.Context(), keyA, question("dev"))
		time.Sleep(59 * time.Second)
		if len(q.Pending()) != 1 {
			t.Error("gone too early")
		}
		time.Sleep(time.Second)
		if len(q.Pending()) != 0 {
			t.Error("still shown")
		}
	})
}

func TestRefusalCoolsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		p := &person{answer: refuse}
		defer q.Attach([]cred.LinkKey{keyA, keyB}, p)()
		bystander := &person{}
		defer q.Attach([]cred.LinkKey{keyA}, bystander)()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				_, err := q.Ask(t.Context(), keyA, question("dev"))
				wantInteraction(t, err, keyA, "dev", "refused")
			})
		}
		wg.Wait()
		synctest.Wait()
		if p.asked.Load() != 1 || bystander.over.Load() != 1 {
			t.Errorf("asked %d, bystander told %d", p.asked.Load(), bystander.over.Load())
		}
		if len(q.Pending()) != 0 {
			t.Error("a refused question is pending")
		}
		time.Sleep(59 * time.Second)
		_, err := q.Ask(t.Context(), keyA, question("dev"))
		wantInteraction(t, err, keyA, "dev", "asked again in 1s")
		if p.asked.Load() != 1 {
			t.Error("asked during the cool-down")
		}
		if len(q.Pending()) != 1 {
			t.Error("what is needed during the cool-down is not shown")
		}
		p.answer = after(time.Second, "1")
		if _, err := q.Ask(t.Context(), keyB, question("other")); err != nil {
			t.Errorf("the cool-down reaches another key: %v", err)
		}
		time.Sleep(time.Second) // the cool-down of the bystander's key ends
		if _, err := q.Ask(t.Context(), keyA, question("dev")); err != nil {
			t.Errorf("after the cool-down: %v", err)
		}
	})
}

func TestResetEndsACoolDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		p := &person{answer: refuse}
		defer q.Attach([]cred.LinkKey{keyA}, p)()
		_, err := q.Ask(t.Context(), keyA, question("dev"))
		wantInteraction(t, err, keyA, "dev", "refused")
		q.Reset(keyA)
		p.answer = after(time.Second, "1")
		if _, err := q.Ask(t.Context(), keyA, question("dev")); err != nil {
			t.Error(err)
		}
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		p := &person{}
		defer q.Attach([]cred.LinkKey{keyA}, p)()
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				_, err := q.Ask(t.Context(), keyA, question("dev"))
				wantInteraction(t, err, keyA, "dev", "nobody answered in 10m")
			})
		}
		wg.Wait()
		if d := time.Since(start); d != 10*time.Minute {
			t.Errorf("after %v", d)
		}
		synctest.Wait()
		if p.asked.Load() != 1 || p.over.Load() != 1 {
			t.Errorf("asked %d, over %d", p.asked.Load(), p.over.Load())
		}
		_, err := q.Ask(t.Context(), keyA, question("dev"))
		wantInteraction(t, err, keyA, "dev", "asked again in 1m0s")
	})
}

// Nothing that was typed is in what the queue shows or says.
func TestNoSecretIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		const canary = "canary-492817"
		p := &person{answer: func(ctx context.Context, _ Pending) (cred.Secret, error) {
			return cred.NewSecret(canary), ErrRefused
		}}
		defer q.Attach([]cred.LinkKey{keyA}, p)()
		got, err := q.Ask(t.Context(), keyA, question("dev"))
		if text := fmt.Sprintf("%+v %#v %v %+v", got, got, err, q.Pending()); strings.Contains(text, canary) || !got.IsZero() {
			t.Error(text)
		}
	})
}

// TestNobodyIsNoRefusal: an Answerer that could show nothing to nobody
// starts no cool-down, and the next one that comes is asked at once.
func TestNobodyIsNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(Config{})
		key := cred.LinkKey{1}
		detach := q.Attach([]cred.LinkKey{key}, answererFunc(func(context.Context, Pending) (cred.Secret, error) {
			return cred.Secret{}, fmt.Errorf("no desktop: %w", ErrNobody)
		}))
		var ie *cred.InteractionError
		if _, err := q.Ask(t.Context(), key, cred.Question{Profile: "p"}); !errors.As(err, &ie) || !strings.Contains(err.Error(), "nobody is there") {
			t.Errorf("nobody there: %v", err)
		}
		detach()
		defer q.Attach([]cred.LinkKey{key}, answererFunc(func(context.Context, Pending) (cred.Secret, error) {
			return cred.NewSecret("123456"), nil
		}))()
		if v, err := q.Ask(t.Context(), key, cred.Question{Profile: "p"}); err != nil || v.Reveal() != "123456" {
			t.Errorf("the next one: %v", err)
		}
	})
}

type answererFunc func(context.Context, Pending) (cred.Secret, error)

func (f answererFunc) Prompt(ctx context.Context, p Pending) (cred.Secret, error) { return f(ctx, p) }
