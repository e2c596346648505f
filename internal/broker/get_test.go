package broker

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

	"keyfob/internal/cred"
	"keyfob/internal/peer"
	"keyfob/profiles"
)

func TestTenThousandColdCallersAreOneFetch(t *testing.T) {
	bubble(t, set{}.add("dev", static("base"), role("dev", "R")), func(t *testing.T, r *rig) {
		r.w.latency = 300 * time.Millisecond
		var wg sync.WaitGroup
		var failed atomic.Int32
		begin := time.Now()
		for range 10000 {
			wg.Go(func() {
				if _, err := r.get("dev"); err != nil {
					failed.Add(1)
				}
			})
		}
		wg.Wait()
		if failed.Load() > 0 {
			t.Fatalf("%d callers failed", failed.Load())
		}
		if d := time.Since(begin); d > 450*time.Millisecond {
			t.Fatalf("took %v, more than 1.5 of one upstream's time", d)
		}
		r.wantCalls("assume-role", 1)
	})
}

func fiftyRoles() set {
	s := set{}
	for i := range 50 {
		name := fmt.Sprintf("r%d", i)
		s.add(name, static("base"), session("base", "arn:aws:iam::111122223333:mfa/me"), role(name, name))
	}
	return s
}

func TestFiftyRolesOverOneSession(t *testing.T) {
	bubble(t, fiftyRoles(), func(t *testing.T, r *rig) {
		r.ask.attach(after(5*time.Second, "123456"))
		r.w.latency = 200 * time.Millisecond
		all := func() {
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					if _, err := r.getAs(fmt.Sprintf("r%d", i), true, time.Minute); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		all()
		r.wantCalls("session-token", 1)
		r.wantCalls("assume-role", 50)
		if n := r.ask.asked.Load(); n != 1 {
			t.Fatalf("a person was asked %d times", n)
		}
		r.stop()

		// A restart costs neither a code nor a call.
		r.ask.attach(nil)
		r.start(fiftyRoles())
		all()
		r.wantCalls("session-token", 1)
		r.wantCalls("assume-role", 50)
		r.stop()

		// Nor does one after the roles have ended cost more than the roles.
		time.Sleep(2 * time.Hour)
		r.start(fiftyRoles())
		all()
		r.wantCalls("session-token", 1)
		r.wantCalls("assume-role", 100)
		if n := r.ask.asked.Load(); n != 1 {
			t.Fatalf("a person was asked %d times", n)
		}
	})
}

func TestCallerThatLeavesCancelsNothing(t *testing.T) {
	bubble(t, set{}.add("dev", static("base"), role("dev", "R")), func(t *testing.T, r *rig) {
		r.w.latency = 2 * time.Second
		_, err := r.getAs("dev", false, 250*time.Millisecond)
		if !errors.Is(err, cred.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := r.getAs("dev", false, time.Nanosecond); err != nil {
			t.Fatal(err)
		}
		r.wantCalls("assume-role", 1)
	})
}

func TestFetchHasItsOwnDeadline(t *testing.T) {
	bubble(t, set{}.add("dev", static("base"), role("dev", "R")), func(t *testing.T, r *rig) {
		r.w.latency = time.Hour
		begin := time.Now()
		_, err := r.getAs("dev", false, 24*time.Hour)
		if !errors.Is(err, cred.ErrUnavailable) || time.Since(begin) != cred.FetchTimeout {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
	})
}

func TestErrors(t *testing.T) {
	s := set{}.add("dev", static("base"), role("dev", "R")).
		add("keys", static("base")).
		add("sso", profiles.Link{Kind: profiles.KindSSO, Profile: "sso"}).
		add("none")
	s["broken"] = &profiles.Profile{Name: "broken", Err: &profiles.Error{Message: "cannot use role_arn alone", Help: "add source_profile"}}
	bubble(t, s, func(t *testing.T, r *rig) {
		r.w.noSource[profiles.KindSSO] = true
		for _, c := range []struct {
			profile  string
			sentinel error
			text     string
			hint     string
		}{
			{"devv", cred.ErrUnknownProfile, "cannot find profile devv", "did you mean dev?"},
			{"broken", cred.ErrConfig, "cannot use role_arn alone", "add source_profile"},
			{"none", cred.ErrConfig, "cannot find a source of credentials for profile none", ""},
			{"sso", cred.ErrConfig, "cannot get credentials for profile sso: cannot use links of kind sso", ""},
			{"keys", cred.ErrConfig, "cannot hand out the long-lived keys of profile keys", ""},
		} {
			_, err := r.get(c.profile)
			if !errors.Is(err, c.sentinel) || err.Error() != c.text || cred.HintOf(err) != c.hint {
				t.Errorf("%s: got %q, hint %q", c.profile, err, cred.HintOf(err))
			}
		}
		_, err := r.b.Get(t.Context(), cred.Request{Caller: self, Profile: "dev", Policy: "{}"})
		if !errors.Is(err, cred.ErrConfig) {
			t.Errorf("a policy that nobody applies: %v", err)
		}
		if n := len(r.b.Sessions()); n != 1 { // keys: it resolves
			t.Errorf("%d active sessions", n)
		}
	})
}

func TestDeniedLooksAlikeForKnownAndUnknown(t *testing.T) {
	bubble(t, set{}.add("dev", static("base"), role("dev", "R")), func(t *testing.T, r *rig) {
		r.must("dev") // hot: the rules are asked there too
		for _, c := range []peer.Caller{{}, {UID: "1001", PID: 5}} {
			for _, p := range []string{"dev", "nope"} {
				req := cred.Request{Caller: c, Profile: p}
				if _, err := r.b.Get(t.Context(), req); err == nil || err.Error() != "denied" || !errors.Is(err, cred.ErrDenied) {
					t.Errorf("Get %s: %v", p, err)
				}
				if _, _, err := r.b.Chain(req); !errors.Is(err, cred.ErrDenied) {
					t.Errorf("Chain %s: %v", p, err)
				}
				if _, err := r.b.Refresh(t.Context(), req); !errors.Is(err, cred.ErrDenied) {
					t.Errorf("Refresh %s: %v", p, err)
				}
			}
		}
		if log := r.logged(); strings.Count(log, "caller is denied") != 4 || !strings.Contains(log, "known=false") || !strings.Contains(log, "known=true") {
			t.Errorf("the log does not tell them apart once each:\n%s", log)
		}
		r.b.SetRules(nil)
		if _, err := r.get("dev"); !errors.Is(err, cred.ErrDenied) {
			t.Errorf("without rules: %v", err)
		}
	})
}

func TestBadAnswersAreErrorsAndKeepTheGoodOne(t *testing.T) {
	for name, mangle := range map[string]func(*cred.Credentials){
		"expired":   func(c *cred.Credentials) { c.Expires = time.Now().Add(-time.Second) },
		"year":      func(c *cred.Credentials) { c.Expires = time.Now().Add(365 * 24 * time.Hour) },
		"no end":    func(c *cred.Credentials) { c.Expires = time.Time{} },
		"no secret": func(c *cred.Credentials) { c.SecretAccessKey = cred.Secret{} },
		"no id":     func(c *cred.Credentials) { c.AccessKeyID = "" },
		"no token":  func(c *cred.Credentials) { c.SessionToken = cred.Secret{} },
		"long":      func(c *cred.Credentials) { c.SessionToken = cred.Secret{}; c.Expires = time.Time{} },
		"panic":     func(c *cred.Credentials) { panic(canary) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, set{}.add("dev", static("base"), role("dev", "R")), func(t *testing.T, r *rig) {
				r.w.mangle = mangle
				if name == "panic" {
					r.w.mangle = nil
					r.w.onAnswer = func() { r.w.mu.Unlock(); defer r.w.mu.Lock(); panic(canary) }
				}
				_, err := r.get("dev")
				if err == nil || !strings.HasPrefix(err.Error(), "cannot ") || strings.Contains(err.Error(), canary) {
					t.Fatalf("cold: %v", err)
				}
				r.w.mu.Lock()
				r.w.mangle, r.w.onAnswer = nil, nil
				r.w.mu.Unlock()
				time.Sleep(time.Minute)
				good := r.must("dev")
				r.w.mu.Lock()
				r.w.mangle = mangle
				r.w.mu.Unlock()
				if name == "panic" {
					r.w.setFail(networkDown)
				}
				before := r.w.count("assume-role")
				time.Sleep(40 * time.Minute)
				if s := r.must("dev"); s.AccessKeyID != good.AccessKeyID {
					t.Fatal("the good credential is gone")
				}
				if n := r.w.count("assume-role") - before; n < 5 || n > 30 {
					t.Fatalf("%d attempts", n)
				}
				if s := r.b.Sessions(); s[0].LastError == "" || strings.Contains(s[0].LastError, canary) {
					t.Fatalf("last error %q", s[0].LastError)
				}
			})
		})
	}
}

func TestShutdown(t *testing.T) {
	bubble(t, set{}.add("dev", static("base"), role("dev", "R")).add("b", static("base"), role("b", "B")), func(t *testing.T, r *rig) {
		r.must("dev")
		r.w.latency = time.Hour
		got := make(chan error, 1)
		go func() {
			_, err := r.get("b")
			got <- err
		}()
		synctest.Wait()
		begin := time.Now()
		r.stop()
		if err := <-got; !errors.Is(err, cred.ErrUnavailable) || time.Since(begin) > 0 {
			t.Fatalf("a waiter got %v after %v", err, time.Since(begin))
		}
		if _, err := r.get("dev"); !errors.Is(err, cred.ErrUnavailable) {
			t.Fatalf("afterwards: %v", err)
		}
		if err := r.b.Run(t.Context()); err == nil {
			t.Fatal("it runs twice")
		}
		r.b.SetProfiles(set{}.add("x", static("x"))) // harmless
		r.b.SetActive(plain("x"))
	})
}

// What has been paid for is written before Run returns.
func TestShutdownDuringAWrite(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.store.slow = 2 * time.Second
		go func() { _, _ = r.get("dev") }()
		time.Sleep(time.Second)
		begin := time.Now()
		r.stop()
		if d := time.Since(begin); d != time.Second {
			t.Fatalf("Run returned after %v", d)
		}
		if n := len(r.store.names("session/")); n != 1 {
			t.Fatalf("%d records", n)
		}
	})
}

func TestGetBeforeRunWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b := New(Config{Sources: w, Store: newStore(), Rules: rules{}})
		if _, err := b.Get(t.Context(), cred.Request{Caller: self, Profile: "dev"}); !errors.Is(err, cred.ErrUnavailable) {
			t.Fatalf("without profiles: %v", err)
		}
		b.SetProfiles(set{}.add("dev", static("base"), role("dev", "R")))
		got := make(chan error, 1)
		go func() {
			_, err := b.Get(context.Background(), cred.Request{Caller: self, Profile: "dev"})
			got <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		cancel()
		<-done
	})
}

func TestCallersAreCounted(t *testing.T) {
	bubble(t, set{}.add("dev", static("base"), role("dev", "R")), func(t *testing.T, r *rig) {
		for i := range 10 {
			for _, pid := range []int{10, 20, 30} {
				if _, err := r.b.Get(t.Context(), cred.Request{Caller: peer.Caller{UID: self.UID, PID: pid}, Profile: "dev"}); err != nil {
					t.Fatal(i, err)
				}
			}
			time.Sleep(61 * time.Second)
		}
		if n := r.b.Sessions()[0].Callers; n != 3 {
			t.Fatalf("%d callers", n)
		}
		time.Sleep(61 * time.Minute)
		if n := r.b.Sessions()[0].Callers; n != 0 {
			t.Fatalf("%d callers an hour later", n)
		}
	})
}
