package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/interact"
)

// tabs answers the Queue's questions with a browser and counts them.
type tabs struct {
	t    *testing.T
	n    atomic.Int32
	does func(p interact.Pending) (cred.Secret, error) // nil: a browser
}

func (b *tabs) Prompt(ctx context.Context, p interact.Pending) (cred.Secret, error) {
	b.n.Add(1)
	if b.does != nil {
		if answer, err := b.does(p); err != nil || !answer.IsZero() {
			return answer, err
		}
	} else {
		time.Sleep(50 * time.Millisecond) // so that all callers have come
		open(b.t, p.Question.URL)
	}
	<-ctx.Done()
	return cred.Secret{}, ctx.Err()
}

// crowd has n links of one sign-in fetch at once.
func crowd(w *world, q *interact.Queue, n int) (errs []error) {
	errs = make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		role := w.aws.AddRole(fakeaws.RoleSpec{Name: fmt.Sprintf("role%d", i)})
		wg.Go(func() {
			_, errs[i] = w.fetchWith(w.link("role_arn", role), cred.Input{Ask: q, Profile: fmt.Sprintf("p%d", i)})
		})
	}
	wg.Wait()
	return errs
}

// TestHundredLinks: one tab, one code, one token; then one refresh.
func TestHundredLinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{Rotate: true})
	q := interact.NewQueue(interact.Config{})
	b := &tabs{t: t}
	key := w.source(w.link()).(cred.SignInSource).AskKey()
	defer q.Attach([]cred.LinkKey{key}, b)()
	for round := range 2 {
		for _, err := range crowd(w, q, 100) {
			if err != nil {
				t.Fatal(err)
			}
		}
		if n := w.aws.Count("OIDCToken"); n != round+1 || b.n.Load() != 1 {
			t.Fatalf("round %d: %d calls of the token endpoint, %d tabs", round, n, b.n.Load())
		}
		w.expire()
	}
	if n := w.aws.Count("OIDCDiscovery"); n != 1 {
		t.Errorf("%d discoveries", n)
	}
	if p := q.Pending(); len(p) != 0 {
		t.Errorf("questions are left: %+v", p)
	}
}

// TestHundredRefused: one no is everybody's, in the words of each, and the
// next ones are not asked for a while.
func TestHundredRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	w.aws.SetSignIn(fakeaws.SignInOIDC, fakeaws.SignInDeny)
	q := interact.NewQueue(interact.Config{})
	b := &tabs{t: t}
	key := w.source(w.link()).(cred.SignInSource).AskKey()
	defer q.Attach([]cred.LinkKey{key}, b)()
	for i, err := range crowd(w, q, 100) {
		if ie := interaction(t, err); ie.Profile != fmt.Sprintf("p%d", i) {
			t.Errorf("link %d got %+v", i, ie)
		}
	}
	for _, err := range crowd(w, q, 20) {
		interaction(t, err)
	}
	if n := b.n.Load(); n != 1 {
		t.Errorf("%d tabs, want one", n)
	}
	q.Reset(key) // a login
	w.aws.SetSignIn(fakeaws.SignInOIDC, fakeaws.SignInAuto)
	if err := crowd(w, q, 1)[0]; err != nil {
		t.Error(err)
	}
}

// TestNobody: where nobody can be asked all are told at once.
func TestNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	began := time.Now()
	for _, err := range crowd(w, interact.NewQueue(interact.Config{}), 100) {
		wants(t, err, "nobody is there to answer")
		interaction(t, err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
}

// TestNoBrowserCrowd: a hundred callers without a browser are one code.
func TestNoBrowserCrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	q := interact.NewQueue(interact.Config{})
	devices := atomic.Int32{}
	b := &tabs{t: t, does: func(p interact.Pending) (cred.Secret, error) {
		if p.Kind == cred.AskBrowser {
			return cred.NewSecret(cred.AnswerNoBrowser), nil
		}
		devices.Add(1)
		time.Sleep(50 * time.Millisecond)
		w.idp.set(func(p *idp) { p.approved = true })
		return cred.Secret{}, nil
	}}
	key := w.source(w.link()).(cred.SignInSource).AskKey()
	defer q.Attach([]cred.LinkKey{key}, b)()
	for _, err := range crowd(w, q, 100) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := devices.Load(); n != 1 {
		t.Errorf("%d codes were shown, want one", n)
	}
}

// TestLeaving: who began a sign-in may leave, and the others go on; when the
// last one leaves it ends.
func TestLeaving(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	shown, gone := make(chan cred.Question, 2), make(chan struct{})
	w.ask.does = func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		shown <- q
		<-ctx.Done()
		return cred.Secret{}, ctx.Err()
	}
	first, leave := context.WithCancel(t.Context())
	go func() {
		defer close(gone)
		_, err := w.source(w.link()).Fetch(first, cred.Input{Profile: "first", Ask: w.ask})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
	}()
	q := <-shown
	done := make(chan error, 1)
	go func() {
		_, err := w.source(w.link()).Fetch(t.Context(), cred.Input{Profile: "second", Ask: w.ask})
		done <- err
	}()
	if again := <-shown; again.URL != q.URL || again.Profile != "second" {
		t.Errorf("the second question is %+v", again)
	}
	leave()
	<-gone
	open(t, q.URL)
	if err := <-done; err != nil {
		t.Error(err)
	}

	w = newWorld(t, fakeaws.OIDCSpec{})
	w.ask.does = func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		leave()
		<-ctx.Done()
		return cred.Secret{}, ctx.Err()
	}
	first, leave = context.WithCancel(t.Context())
	defer leave()
	began := time.Now()
	_, err := w.source(w.link()).Fetch(first, cred.Input{Profile: "first", Ask: w.ask})
	if !errors.Is(err, context.Canceled) || time.Since(began) > 2*time.Second {
		t.Errorf("the last one left: %v after %v", err, time.Since(began))
	}
}

// TestShutdown: a refresh that everybody has left is not cut off: its answer
// is the only copy of a token.
func TestShutdown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{Rotate: true})
	w.must()
	w.expire()
	before := w.record()["refresh_token"]
	ctx, cancel := context.WithCancel(t.Context())
	w.idp.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/token") {
			cancel()
			time.Sleep(200 * time.Millisecond)
		}
		return false
	})
	_, err := w.source(w.link()).Fetch(ctx, cred.Input{Profile: "asked", Ask: w.ask})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	if r := w.record(); r["refresh_token"] == before || r["sent"] != nil {
		t.Error("the answer was lost")
	}
	w.restart()
	w.must()
	if w.ask.count() != 1 || w.aws.Count("OIDCToken") != 2 {
		t.Errorf("%d questions, %d calls of the token endpoint", w.ask.count(), w.aws.Count("OIDCToken"))
	}
}
