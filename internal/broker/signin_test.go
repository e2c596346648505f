package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// corp are n profiles behind one sign-in, and one behind none.
func corp(n int) set {
	s := dev()
	for i := range n {
		p := fmt.Sprintf("s%d", i)
		s.add(p, sso(p, "corp", p))
	}
	return s.add("above", sso("above", "corp", "above"), role("above", "A"))
}

// once makes one interaction of all questions with one key, as the queue does.
func once(f func(context.Context, cred.Question) (cred.Secret, error)) func(context.Context, cred.Question) (cred.Secret, error) {
	var mu sync.Mutex
	var under chan struct{}
	var answer cred.Secret
	var err error
	return func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		mu.Lock()
		if done := under; done != nil {
			mu.Unlock()
			select {
			case <-done:
				return answer, err
			case <-ctx.Done():
				return cred.Secret{}, ctx.Err()
			}
		}
		done := make(chan struct{})
		under = done
		mu.Unlock()
		answer, err = f(ctx, q)
		mu.Lock()
		under = nil
		mu.Unlock()
		close(done)
		return answer, err
	}
}

// signedInFor gives the sign-in a time from now.
func (r *rig) signedInFor(d time.Duration) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.signIns["corp"] = time.Now().Add(d)
}

func TestSignInIsAskedForOnce(t *testing.T) {
	bubble(t, corp(60), func(t *testing.T, r *rig) {
		for i := range 60 {
			_, err := r.get(fmt.Sprintf("s%d", i))
			var ie *cred.InteractionError
			if !errors.As(err, &ie) || ie.Key != (&fakeSignIn{fakeSource{link: sso("", "corp", "")}}).AskKey() {
				t.Fatal(err)
			}
		}
		r.wantCalls("sso", 0)
		if s := r.b.Sessions()[0]; !s.NeedsPerson || s.LastError == "" || !s.NextRefresh.IsZero() {
			t.Errorf("status: %+v", s)
		}
		if n := r.b.Stats(); n.Interactions != 60 || n.Failures != 0 || n.NeedPerson != 60 {
			t.Errorf("%+v", n)
		}
		questions := 0
		r.ask.attach(once(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
			questions++
			return after(9*time.Minute, "")(ctx, q)
		}))
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				if _, err := r.getAs(fmt.Sprintf("s%d", i), true, time.Hour); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Minute)
		begin := time.Now()
		r.must("dev") // sixty that wait for a person leave room to others of that upstream
		if time.Since(begin) > time.Second {
			t.Errorf("another profile waited %v", time.Since(begin))
		}
		wg.Wait()
		if questions != 1 || r.w.count("sso") != 60 {
			t.Errorf("%d questions, %d calls", questions, r.w.count("sso"))
		}
		if most := r.w.busiest(); most > maxAttemptsEach {
			t.Errorf("%d calls at once", most)
		}
		g := &r.b.gate
		if g.inside != 0 || len(g.lanes) != 0 {
			t.Errorf("%d are in the gate still", g.inside)
		}
	})
}

func TestSignInTimeLimit(t *testing.T) {
	bubble(t, corp(1), func(t *testing.T, r *rig) {
		r.ask.attach(after(time.Hour, ""))
		begin := time.Now()
		if _, err := r.getAs("s0", true, 24*time.Hour); err == nil || time.Since(begin) != 10*time.Minute {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
		if n := r.b.gate.inside; n != 0 {
			t.Errorf("%d are in the gate still", n)
		}
	})
}

// Roles behind a sign-in are refreshed ahead without anybody; when it has
// ended they are served to their end, and mend together.
func TestSignInThatEnds(t *testing.T) {
	bubble(t, corp(20), func(t *testing.T, r *rig) {
		r.ask.attach(once(after(0, "")))
		if _, err := r.getAs("s0", true, time.Minute); err != nil {
			t.Fatal(err)
		}
		r.ask.attach(nil)
		all := func() (good, bad int) {
			for i := range 20 {
				if s, err := r.get(fmt.Sprintf("s%d", i)); err != nil {
					bad++
				} else if good++; time.Until(s.Expires) <= 0 {
					t.Fatal("expired")
				}
			}
			return
		}
		begin := time.Now()
		for time.Since(begin) < 8*time.Hour-time.Minute {
			if _, bad := all(); bad > 0 {
				t.Fatalf("%d fail while the sign-in lasts", bad)
			}
			time.Sleep(7 * time.Minute)
		}
		if n := r.w.count("sso"); n > 20*18 {
			t.Errorf("%d calls", n)
		}
		asked := r.ask.refusals.Load()
		time.Sleep(20 * time.Minute)
		if good, _ := all(); good != 20 {
			t.Errorf("only %d are served to their end", good)
		}
		time.Sleep(2 * time.Hour)
		if _, bad := all(); bad != 20 {
			t.Error("served without a sign-in")
		}
		if n := r.ask.refusals.Load() - asked; n > 2*20+2 {
			t.Errorf("%d vain looks for a person", n)
		}
		// One signs in: all that were in use come back without a caller.
		r.ask.attach(once(after(time.Minute, "")))
		before := r.ask.asked.Load()
		if _, err := r.getAs("s7", true, time.Hour); err != nil {
			t.Fatal(err)
		}
		r.ask.attach(nil)
		time.Sleep(2 * time.Second)
		for i := range 20 {
			if _, ok := r.b.Peek(fmt.Sprintf("s%d", i)); !ok {
				t.Errorf("s%d is not back", i)
			}
		}
		if n := r.ask.asked.Load() - before; n != 1 {
			t.Errorf("asked %d times", n)
		}
		for _, s := range r.b.Sessions() {
			if s.NeedsPerson || s.LastError != "" {
				t.Errorf("status of %s: %v, %q", s.Profile, s.NeedsPerson, s.LastError)
			}
		}
	})
}

func TestSignInIsShownAndAnnounced(t *testing.T) {
	bubble(t, corp(3), func(t *testing.T, r *rig) {
		r.signedInFor(8 * time.Hour)
		ends := time.Now().Add(8 * time.Hour)
		use := func(d time.Duration) {
			for begin := time.Now(); time.Since(begin) < d; time.Sleep(time.Minute) {
				r.must("s0")
				r.must("s1")
				r.must("above")
			}
		}
		use(7*time.Hour + 28*time.Minute)
		for _, s := range r.b.Sessions() {
			if !s.EndsAt.Equal(ends) || s.NeedsPerson {
				t.Errorf("%s: ends at %v, needs a person: %v", s.Profile, s.EndsAt, s.NeedsPerson)
			}
		}
		if n := r.announced(); len(n) != 0 {
			t.Fatalf("told of %v", n)
		}
		use(4 * time.Minute)
		want := []Announcement{{Profile: "above", Kind: "sso", Expires: ends, Hint: "keyfob login above"}}
		if got := r.announced(); !slices.Equal(got, want) {
			t.Fatalf("told of %v, want %v", got, want)
		}
		if s := r.b.Sessions()[0]; !s.NeedsPerson || !s.EndsAt.Equal(ends) {
			t.Errorf("%+v", s)
		}
		// At most once, also over a restart.
		use(5 * time.Minute)
		r.stop()
		r.start(corp(3))
		use(20 * time.Minute) // it knows this end for less time, and tells of it later
		if got := r.announced(); len(got) != 1 {
			t.Fatalf("told of %v", got)
		}
		// Another sign-in is another end.
		r.signedInFor(8 * time.Hour)
		use(2 * time.Minute)
		if s := r.b.Sessions()[0]; s.NeedsPerson {
			t.Errorf("after signing in: %+v", s)
		}
		use(8 * time.Hour)
		if got := r.announced(); len(got) != 2 {
			t.Errorf("told of %v", got)
		}
		if s := r.b.Stats(); s.Announced != 1 { // by this broker
			t.Errorf("counted %d", s.Announced)
		}
		// Ended: nobody is told of an end that was.
		time.Sleep(3 * time.Hour)
		if got := r.announced(); len(got) != 2 {
			t.Errorf("told of %v", got)
		}
		if s := r.b.Sessions(); len(s) > 0 && (!s[0].NeedsPerson || !s[0].EndsAt.IsZero()) {
			t.Errorf("after its end: %+v", s[0])
		}
		time.Sleep(48 * time.Hour) // sweeps
		r.must("dev")
		synctest.Wait()
		if n := r.store.names(toldPrefix); len(n) != 0 {
			t.Errorf("left in the vault: %v", n)
		}
	})
	// Nobody used it lately: nobody is told.
	bubble(t, corp(1), func(t *testing.T, r *rig) {
		r.signedInFor(8 * time.Hour)
		r.b.SetActive(plain("s0"))
		r.must("s0")
		time.Sleep(7*time.Hour + 59*time.Minute)
		if got := r.announced(); len(got) != 0 {
			t.Errorf("told of %v", got)
		}
	})
	// A short one is not announced as soon as it begins.
	bubble(t, corp(1), func(t *testing.T, r *rig) {
		r.signedInFor(20 * time.Minute)
		r.must("s0")
		time.Sleep(14 * time.Minute)
		if got := r.announced(); len(got) != 0 {
			t.Errorf("told of %v", got)
		}
		time.Sleep(3 * time.Minute)
		if got := r.announced(); len(got) != 1 {
			t.Errorf("told of %v", got)
		}
	})
}

func TestFreshSignsIn(t *testing.T) {
	bubble(t, corp(1), func(t *testing.T, r *rig) {
		r.signedInFor(2 * time.Hour)
		r.must("s0")
		r.must("above")
		calls := r.w.count("sso")
		r.ask.attach(once(after(time.Minute, "")))
		how := &cred.Signin{Device: true}
		login := func(profile string) {
			t.Helper()
			if _, err := r.b.Fresh(t.Context(), cred.Request{Caller: self, Profile: profile, MayAsk: true, Signin: how}); err != nil {
				t.Fatal(err)
			}
		}
		login("s0")
		login("above")
		if n := r.ask.asked.Load(); n != 0 || r.w.count("sso") != calls {
			t.Errorf("asked %d times, %d calls, with a sign-in of two hours", n, r.w.count("sso")-calls)
		}
		for _, profile := range []string{"s0", "above"} {
			r.signedInFor(-time.Minute) // the role's credentials are good still
			r.w.mu.Lock()
			r.w.signins = nil
			r.w.mu.Unlock()
			time.Sleep(maxTick)
			before := r.ask.asked.Load()
			login(profile)
			if n := r.ask.asked.Load() - before; n != 1 {
				t.Errorf("%s: asked %d times", profile, n)
			}
			if got := r.w.signins; len(got) != 1 || got[0] != how {
				t.Errorf("%s: the source got %v", profile, got)
			}
		}
	})
}

// A flight under way is joined whatever it says.
func TestSigninReachesTheWholeChain(t *testing.T) {
	bubble(t, corp(1), func(t *testing.T, r *rig) {
		r.ask.attach(once(after(time.Minute, "")))
		how := &cred.Signin{Remote: true}
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				q := cred.Request{Caller: self, Profile: "above", MayAsk: true, Signin: how}
				if i > 0 {
					q.Signin = &cred.Signin{Device: true}
					time.Sleep(time.Second)
				}
				if _, err := r.b.Get(t.Context(), q); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := r.w.signins; len(got) != 1 || got[0] != how {
			t.Errorf("the source got %v", got)
		}
		if n := r.b.Stats(); n.FlightsJoined != 9 || n.Attempts != 2 || n.ActiveLinks != 2 || n.ActiveProfiles != 1 {
			t.Errorf("%+v", n)
		}
	})
}

func TestChainTellsTheKeysOfSignIns(t *testing.T) {
	bubble(t, corp(2), func(t *testing.T, r *rig) {
		want := (&fakeSignIn{fakeSource{link: sso("", "corp", "")}}).AskKey()
		for range 2 { // before it is active, and after
			keys, links, err := r.b.Chain(cred.Request{Caller: self, Profile: "above"})
			if err != nil || len(links) != 2 || len(keys) != 3 || keys[2] != want {
				t.Fatal(keys, links, err)
			}
			_, _ = r.get("above")
		}
	})
}

// login --force that fails leaves no mark on sessions that are good.
func TestFailedRefreshLeavesNoMark(t *testing.T) {
	s := mfaRole().add("plain", static("base"), role("plain", "P")).add("s0", sso("s0", "corp", "s0"))
	for name, spoil := range map[string]func(r *rig){
		"nobody there": func(r *rig) { r.ask.attach(nil); r.w.setFail(networkDown) },
		"wrong code":   func(r *rig) { r.ask.attach(after(0, "999999")); r.w.setFail(refused) },
		"refused":      func(r *rig) { r.w.setFail(refused) },
		"down":         func(r *rig) { r.w.setFail(networkDown) },
		"only the role": func(r *rig) {
			r.w.setFail(func(k profiles.Kind, n string) error {
				return map[bool]error{true: refused(k, n)}[k == profiles.KindAssumeRole]
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, s, func(t *testing.T, r *rig) {
				r.ask.attach(after(0, "123456"))
				names := []string{"dev", "base", "plain", "s0"}
				good := map[string]*cred.Snapshot{}
				for _, n := range names {
					var err error
					if good[n], err = r.getAs(n, true, time.Minute); err != nil {
						t.Fatal(err)
					}
				}
				try := func() {
					for _, n := range names {
						if _, err := r.b.Refresh(t.Context(), cred.Request{Caller: self, Profile: n, MayAsk: true}); err != nil {
							continue
						}
						good[n] = r.must(n) // what could be fetched is new
					}
				}
				clean := func() {
					t.Helper()
					for _, x := range r.b.Sessions() {
						if x.LastError != "" || x.NeedsPerson {
							t.Errorf("%s: last error %q, needs a person: %v", x.Profile, x.LastError, x.NeedsPerson)
						}
						if got := r.must(x.Profile); got.AccessKeyID != good[x.Profile].AccessKeyID {
							t.Errorf("%s: another session", x.Profile)
						}
					}
				}
				spoil(r)
				try()
				clean()
				// After a restart it is the vault that has the good ones.
				r.stop()
				r.start(s)
				try()
				for _, n := range names {
					r.must(n)
				}
				clean()
				// A session that is not there is marked as ever.
				if err := r.b.Forget(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
				_, err := r.b.Refresh(t.Context(), cred.Request{Caller: self, Profile: "dev"})
				if err == nil {
					t.Fatal("no error")
				}
				shown := ""
				for _, x := range r.b.Sessions() {
					if x.Profile == "dev" {
						shown = x.LastError
					}
				}
				if shown == "" || !strings.HasPrefix(shown, "cannot") {
					t.Errorf("status of what is gone: %q, after %v", shown, err)
				}
			})
		})
	}
}
