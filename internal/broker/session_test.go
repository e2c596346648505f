package broker

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

const mfa = "arn:aws:iam::111122223333:mfa/me"

func mfaRole() set {
	return set{}.add("dev", static("base"), session("base", mfa), role("dev", "R")).
		add("base", static("base"), session("base", mfa))
}

func TestNobodyToAsk(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		begin := time.Now()
		for range 1000 {
			_, err := r.get("dev")
			var ie *cred.InteractionError
			if !errors.As(err, &ie) || ie.Profile != "dev" || cred.HintOf(err) != "keyfob login dev" {
				t.Fatalf("got %v, hint %q", err, cred.HintOf(err))
			}
			if _, err = r.get("base"); cred.HintOf(err) != "keyfob login base" || err.Error() != "cannot get credentials for base: a code is needed" {
				t.Fatalf("in words of another profile: %q, hint %q", err, cred.HintOf(err))
			}
		}
		if time.Since(begin) != 0 {
			t.Fatalf("callers waited %v", time.Since(begin))
		}
		if n := r.ask.refusals.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		time.Sleep(10 * time.Hour)
		if n := r.ask.refusals.Load(); n > 2 {
			t.Errorf("asked %d times without a caller", n)
		}
		r.wantCalls("session-token", 0)
		r.wantCalls("assume-role", 0)
		if s := r.b.Sessions(); len(s) > 0 && (s[0].LastError == "" || !s[0].NextRefresh.IsZero()) {
			t.Errorf("status: %+v", s[0])
		}

		// It is no failure: whoever can ask begins anew at once.
		if _, err := r.get("dev"); interactionOf(err) == nil {
			t.Fatal(err)
		}
		r.ask.attach(after(time.Minute, "123456"))
		begin = time.Now()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := r.getAs("dev", true, time.Hour); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := r.ask.asked.Load(); n != 1 || time.Since(begin) != time.Minute {
			t.Fatalf("a person was asked %d times in %v", n, time.Since(begin))
		}
		r.must("dev")
	})
}

// Somebody who can ask joins an attempt that began when nobody could.
func TestAskerDoesNotTakeTheAnswerOfOneThatCouldNot(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		var there bool
		r.ask.attach(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
			if there {
				return cred.NewSecret("123456"), nil
			}
			time.Sleep(time.Second) // a slow look whether somebody is there
			there = true
			return cred.Secret{}, &cred.InteractionError{Kind: q.Kind, Profile: q.Profile}
		})
		go func() { _, _ = r.get("dev") }()
		time.Sleep(500 * time.Millisecond)
		if _, err := r.getAs("dev", true, time.Minute); err != nil {
			t.Fatal(err)
		}
	})
}

func TestInteractiveIsUsedToItsEnd(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		r.ask.attach(after(0, "123456"))
		r.w.life[profiles.KindSessionToken] = 8 * time.Hour
		s, err := r.getAs("base", true, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if n := r.b.Sessions()[0].NextRefresh; !n.IsZero() {
			t.Errorf("a refresh is planned for %v", n)
		}
		for time.Until(s.Expires) > 0 {
			if got := r.must("base"); got != s {
				t.Fatal("another session")
			}
			r.must("dev")
			time.Sleep(10 * time.Minute)
		}
		r.wantCalls("session-token", 1)
		if n := r.ask.asked.Load(); n != 1 {
			t.Fatalf("a person was asked %d times", n)
		}
		// Its end takes the role along only at the role's own end, and then
		// nobody is asked without a caller who can.
		r.ask.attach(nil)
		last := r.must("dev")
		time.Sleep(time.Until(last.Expires) + time.Hour)
		if _, err := r.get("dev"); interactionOf(err) == nil {
			t.Fatal(err)
		}
	})
}

// Somebody signed in by another way, as reload and login tell by Wake.
func TestWakeEndsTheNeedForAPerson(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		if _, err := r.get("dev"); interactionOf(err) == nil {
			t.Fatal(err)
		}
		r.ask.attach(after(0, "123456"))
		if _, err := r.get("dev"); interactionOf(err) == nil {
			t.Fatal("within a minute the answer is from memory")
		}
		r.b.Wake("base") // shares the link that lacks it
		r.must("dev")
	})
}

// A role whose base has ended is refreshed as soon as there is a new base.
func TestRoleFollowsItsBase(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		r.w.life[profiles.KindSessionToken] = 15 * time.Minute
		r.ask.attach(after(0, "123456"))
		old, err := r.getAs("dev", true, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		r.ask.attach(nil)
		time.Sleep(50 * time.Minute) // the role is due since long
		if r.must("dev") != old {
			t.Fatal("refreshed without a base")
		}
		r.ask.attach(after(0, "123456"))
		if _, err := r.getAs("base", true, time.Minute); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if r.must("dev") == old {
			t.Fatal("not refreshed although the base is there")
		}
	})
}

func TestOlderRecordDoesNotReplaceANewerSession(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.must("dev")
		r.stop()
		r.w.life[profiles.KindAssumeRole] = 20 * time.Second
		r.start(dev())
		r.store.lock(true) // neither read nor written
		s, err := r.b.Refresh(t.Context(), cred.Request{Caller: self, Profile: "dev"})
		if err != nil {
			t.Fatal(err)
		}
		r.store.lock(false)
		time.Sleep(15 * time.Second) // a refresh was due after ten
		if got := r.must("dev"); got == s || got.AccessKeyID == "ASIAR1" {
			t.Fatalf("got %s", got.AccessKeyID)
		}
	})
}

func TestSigninTimeLimit(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		r.ask.attach(after(time.Hour, "123456"))
		begin := time.Now()
		_, err := r.getAs("dev", true, 24*time.Hour)
		if err == nil || time.Since(begin) != 10*time.Minute {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
	})
}

func TestWrongCode(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		r.ask.attach(after(0, "999999"))
		_, err := r.getAs("dev", true, time.Minute)
		var ue *cred.UpstreamError
		if !errors.As(err, &ue) || !ue.Refused {
			t.Fatal(err)
		}
		if _, err := r.get("dev"); !errors.As(err, &ue) {
			t.Fatalf("who cannot ask got %v", err)
		}
		if n := r.ask.asked.Load(); n != 1 {
			t.Fatalf("asked %d times on behalf of who cannot ask", n)
		}
		r.ask.attach(after(0, "123456")) // no cool-down for who can
		if _, err := r.getAs("dev", true, time.Minute); err != nil {
			t.Fatal(err)
		}
	})
}

func TestBaseThatAWSRefusesIsRefreshedOnce(t *testing.T) {
	s := set{}.add("dev", static("base"), session("base", ""), role("dev", "R"))
	for i := range 20 {
		n := string(rune('a' + i))
		s.add(n, static("base"), session("base", ""), role(n, n))
	}
	bubble(t, s, func(t *testing.T, r *rig) {
		first := r.must("dev")
		time.Sleep(5 * time.Minute)
		r.w.mu.Lock()
		r.w.dead["ASIAbase1"] = true // revoked long before its end
		r.w.mu.Unlock()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() { r.must(string(rune('a' + i))) })
		}
		wg.Wait()
		r.wantCalls("session-token", 2)
		if r.must("dev") != first {
			t.Error("the role's own session is gone")
		}
		// One that is refused again and again does not make a storm below.
		r.w.setFail(func(k profiles.Kind, name string) error {
			if k == profiles.KindAssumeRole {
				return &cred.UpstreamError{Op: "AssumeRole", Code: "ExpiredToken", Status: 403, Message: "cannot assume the role", Refused: true}
			}
			return nil
		})
		before := r.w.count("session-token")
		roles := r.w.count("assume-role")
		time.Sleep(time.Hour)
		if n := r.w.count("session-token") - before; n > 65 {
			t.Errorf("%d GetSessionToken in an hour", n)
		}
		if n := r.w.count("assume-role") - roles; n > 21*2*70 {
			t.Errorf("%d AssumeRole in an hour", n)
		}
	})
}

// InvalidClientTokenId is said of good sessions too: one that cost a code is
// kept, and the person is told.
func TestUnknownTokenKeepsASessionThatCostACode(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		r.ask.attach(after(0, "123456"))
		base, err := r.getAs("base", true, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		r.ask.attach(nil)
		time.Sleep(time.Hour)
		r.w.setFail(func(k profiles.Kind, _ string) error {
			if k == profiles.KindAssumeRole {
				return &cred.UpstreamError{Op: "AssumeRole", Code: "InvalidClientTokenId", Status: 403, Message: "cannot assume the role", Refused: true}
			}
			return nil
		})
		for range 5 {
			if _, err := r.get("dev"); interactionOf(err) == nil {
				t.Fatal(err)
			}
		}
		r.wantCalls("assume-role", 1)
		if r.must("base") != base {
			t.Fatal("the session is gone")
		}
	})
}

func TestCorrectedSecretCounts(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.w.setFail(func(k profiles.Kind, _ string) error {
			if k == profiles.KindStaticKeys {
				return cred.WithHint(cred.ErrLocked, "keyfob unlock")
			}
			return nil
		})
		_, err := r.get("dev")
		if !errors.Is(err, cred.ErrLocked) || cred.HintOf(err) != "keyfob unlock" {
			t.Fatal(err)
		}
		r.w.setFail(nil)
		r.b.Wake("")
		r.must("dev")
		time.Sleep(29 * time.Minute)
		r.must("dev")
		time.Sleep(time.Minute)
		if n := r.w.count("static-keys"); n != 3 {
			t.Errorf("the keys were read %d times, want once for each attempt", n)
		}
	})
}

func TestLockedVaultDegrades(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		r.store.lock(true)
		r.ask.attach(after(0, "123456"))
		if _, err := r.getAs("dev", true, time.Minute); err != nil {
			t.Fatal(err)
		}
		if n := len(r.store.names("session/")); n != 0 {
			t.Fatalf("%d records in a locked vault", n)
		}
		r.store.lock(false)
		time.Sleep(maxTick + time.Second) // by itself
		if n := len(r.store.names("session/")); n != 2 {
			t.Fatalf("%d records, want 2", n)
		}
		r.ask.attach(nil)
		r.stop()
		r.start(mfaRole())
		r.must("dev")
		r.wantCalls("assume-role", 1)
		if strings.Count(r.logged(), "session is kept in memory only") != 2 {
			t.Errorf("log:\n%s", r.logged())
		}
	})
}

func TestRecords(t *testing.T) {
	key := keysOf(dev()["dev"].Chain)[1]
	good := func() map[string]any {
		now := time.Now().UTC()
		return map[string]any{"version": 1, "kind": "assume-role", "profile": "dev", "access_key_id": "ASIAOLD",
			"secret_access_key": "s", "session_token": "t", "expires": now.Add(40 * time.Minute), "fetched": now.Add(-20 * time.Minute)}
	}
	for name, c := range map[string]struct {
		change func(map[string]any)
		raw    string
		fail   error
		used   bool
		stays  bool
	}{
		"good":       {used: true},
		"expired":    {change: func(m map[string]any) { m["expires"] = time.Now().Add(-time.Second) }},
		"newer":      {change: func(m map[string]any) { m["version"] = 2 }, stays: true},
		"no token":   {change: func(m map[string]any) { m["session_token"] = "" }},
		"no fetched": {change: func(m map[string]any) { delete(m, "fetched") }},
		"for a year": {change: func(m map[string]any) { m["expires"] = time.Now().Add(365 * 24 * time.Hour) }},
		"garbage":    {raw: "\x00" + canary + "{{{"},
		"unreadable": {fail: errors.New("cannot read the record: corrupt"), stays: true},
		"clock behind": {change: func(m map[string]any) {
			m["fetched"] = time.Now().Add(9 * time.Hour)
			m["expires"] = time.Now().Add(10 * time.Hour)
		}, used: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, dev(), func(t *testing.T, r *rig) {
				m := good()
				if c.change != nil {
					c.change(m)
				}
				text, _ := json.Marshal(m)
				if c.raw != "" {
					text = []byte(c.raw)
				}
				r.store.m[recordName(key)] = string(text)
				r.store.fail = c.fail
				before := string(text)
				s := r.must("dev")
				if used := s.AccessKeyID == "ASIAOLD"; used != c.used {
					t.Fatalf("the record was used: %v", used)
				}
				if !c.used && c.fail == nil && r.store.m[recordName(key)] == before {
					t.Error("the new session was not written")
				}
				if name == "clock behind" {
					time.Sleep(61 * time.Minute)
					if s := r.must("dev"); s.AccessKeyID == "ASIAOLD" {
						t.Error("served longer than it ever lived")
					}
				}
			})
		})
	}
}

func TestSweepDeletesWhatHasEnded(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		put := func(name string, expires time.Time) {
			text, _ := json.Marshal(record{Version: 1, Profile: "x", AccessKeyID: "a", SecretAccessKey: "s", SessionToken: "t", Expires: expires, Fetched: expires.Add(-time.Hour)})
			r.store.m["session/"+name] = string(text)
		}
		put("old", time.Now().Add(-2*time.Hour))
		put("new", time.Now().Add(time.Hour))
		r.store.m["session/strange"] = "?"
		r.must("dev")
		synctest.Wait()
		if got := strings.Join(r.store.names("session/"), " "); strings.Contains(got, "old") || !strings.Contains(got, "new") || !strings.Contains(got, "strange") {
			t.Fatalf("left: %s", got)
		}
	})
}

func TestReload(t *testing.T) {
	s := dev().add("other", static("base"), role("other", "O"))
	bubble(t, s, func(t *testing.T, r *rig) {
		r.b.SetActive(plain("other"))
		a, o := r.must("dev"), r.must("other")

		// Unchanged but for the place and how often a client retries.
		same := dev().add("other", static("base"), role("other", "O"))
		same["dev"].Chain[1].Origin = profiles.Origin{Line: 9}
		same["dev"].Chain[1].Client.MaxAttempts = 7
		r.b.SetProfiles(same)
		if r.must("dev") != a || r.must("other") != o {
			t.Fatal("sessions did not outlive a reload")
		}
		if n := len(r.b.activeLinks()); n != 3 {
			t.Fatalf("%d links", n)
		}

		// One changes, one goes.
		next := set{}.add("dev", static("base"), role("dev", "R2"))
		r.b.SetProfiles(next)
		synctest.Wait()
		if n := len(r.b.activeLinks()); n != 2 {
			t.Fatalf("%d links", n)
		}
		if s := r.must("dev"); s.RoleARN != role("", "R2").RoleARN {
			t.Fatalf("got %s", s.RoleARN)
		}
		if _, err := r.get("other"); !errors.Is(err, cred.ErrUnknownProfile) {
			t.Fatal(err)
		}
		// It comes back, and is active without a caller.
		r.b.SetProfiles(s)
		synctest.Wait()
		if p, ok := r.b.Peek("other"); !ok || p.AccessKeyID != o.AccessKeyID {
			t.Fatal("the pinned profile's session is not taken from the vault")
		}
		r.wantCalls("assume-role O", 1)
	})
}

func TestTooManyWaysOfAsking(t *testing.T) {
	bubble(t, dev().add("pin", static("base"), role("pin", "P")), func(t *testing.T, r *rig) {
		r.b.limit = 3
		r.b.SetActive(plain("pin"))
		r.must("dev")
		for i := range 10 {
			time.Sleep(61 * time.Second)
			r.must("dev")
			if _, err := r.b.Get(t.Context(), cred.Request{Caller: self, Profile: "dev", RoleARN: string(rune('a' + i))}); err != nil {
				t.Fatal(err)
			}
			if n := len(r.b.Sessions()); n > 3 {
				t.Fatalf("%d active", n)
			}
		}
		synctest.Wait()
		if _, ok := r.b.Peek("pin"); !ok {
			t.Fatal("the pinned one gave way")
		}
		if n := len(r.b.activeLinks()); n != 4 { // keys, P, R, the last of the others
			t.Fatalf("%d links", n)
		}
		r.wantCalls("assume-role R", 1)
		r.wantCalls("assume-role P", 1)
	})
}

func TestReloadDuringAnAttempt(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.w.latency = time.Second
		got := make(chan error, 1)
		go func() {
			_, err := r.get("dev")
			got <- err
		}()
		time.Sleep(500 * time.Millisecond)
		r.b.SetProfiles(set{})
		if err := <-got; err != nil {
			t.Fatalf("who waited got %v", err)
		}
		synctest.Wait()
		if n := len(r.b.activeLinks()); n != 0 {
			t.Fatalf("%d links", n)
		}
	})
}

func TestForget(t *testing.T) {
	bubble(t, mfaRole().add("free", static("free"), role("free", "F")), func(t *testing.T, r *rig) {
		r.ask.attach(after(0, "123456"))
		if _, err := r.getAs("dev", true, time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := r.b.Get(t.Context(), cred.Request{Caller: self, Profile: "dev", RoleARN: "extra"}); err != nil {
			t.Fatal(err)
		}
		free := r.must("free")
		r.ask.attach(nil)
		if g := r.b.Generation("dev"); g != 0 {
			t.Fatalf("generation %d", g)
		}
		if n := len(r.store.names("session/")); n != 4 {
			t.Fatalf("%d records", n)
		}
		if err := r.b.Forget(t.Context(), "dev"); err != nil {
			t.Fatal(err)
		}
		if n := len(r.store.names("session/")); n != 1 {
			t.Fatalf("%d records, want that of free", n)
		}
		if _, ok := r.b.Peek("dev"); ok {
			t.Fatal("in memory still")
		}
		if _, err := r.get("dev"); interactionOf(err) == nil {
			t.Fatalf("not logged out: %v", err)
		}
		if r.must("free") != free || r.b.Generation("free") != 0 {
			t.Fatal("another profile is logged out too")
		}
		g := r.b.Generation("dev")
		if g == 0 {
			t.Fatal("the generation was not raised")
		}
		if err := r.b.Forget(t.Context(), "dev"); err != nil {
			t.Fatal(err)
		}
		if n := r.b.Generation("dev"); n <= g {
			t.Fatalf("%d after %d", n, g)
		}
		g = r.b.Generation("dev")
		r.stop()
		r.start(mfaRole())
		if n := r.b.Generation("dev"); n != g {
			t.Fatalf("%d after a restart, was %d", n, g)
		}
		if err := r.b.Forget(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if r.b.Generation("free") <= 0 || r.b.Generation("dev") < g || len(r.store.names("session/")) != 0 {
			t.Fatal("not all is forgotten")
		}
	})
}

func TestForgetDuringAnAttempt(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.w.latency = time.Second
		got := make(chan error, 1)
		go func() {
			_, err := r.get("dev")
			got <- err
		}()
		time.Sleep(500 * time.Millisecond)
		if err := r.b.Forget(t.Context(), "dev"); err != nil {
			t.Fatal(err)
		}
		later := make(chan error, 1)
		go func() {
			_, err := r.get("dev")
			later <- err
		}()
		if err := <-got; !errors.Is(err, cred.ErrUnavailable) {
			t.Fatalf("who asked before got %v", err)
		}
		if err := <-later; err != nil {
			t.Fatalf("who asked after got %v", err)
		}
		r.wantCalls("assume-role", 2)
	})
}

// Logged out after the session was fetched and before it was written.
func TestForgetBeforeTheWrite(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.onLog = func(line string) {
			if strings.Contains(line, "session fetched") {
				r.onLog = nil
				if err := r.b.Forget(t.Context(), "dev"); err != nil {
					t.Error(err)
				}
			}
		}
		_, _ = r.get("dev")
		if n := r.store.names("session/"); len(n) != 0 {
			t.Fatalf("left in the vault: %v", n)
		}
		if _, ok := r.b.Peek("dev"); ok {
			t.Fatal("in memory still")
		}
	})
}

func TestGenerationWhileLocked(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.store.lock(true)
		locked := r.b.Generation("dev")
		err := r.b.Forget(t.Context(), "dev")
		if !errors.Is(err, cred.ErrLocked) {
			t.Fatalf("nobody is told that it is not on record: %v", err)
		}
		r.store.lock(false)
		r.b.Wake("")
		g := r.b.Generation("dev")
		if g == 0 || g == locked {
			t.Fatalf("generation %d, %d before", g, locked)
		}
		r.stop()
		r.start(dev())
		if n := r.b.Generation("dev"); n != g {
			t.Fatalf("%d after a restart, was %d", n, g)
		}
		r.store.fail = errors.New("cannot read")
		if n := r.b.Generation("unread"); n != locked {
			t.Fatalf("generation %d of what cannot be read", n)
		}
	})
}

func TestForgetMemoryIsLock(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		s := r.must("dev")
		r.store.lock(true)
		r.b.ForgetMemory()
		if _, ok := r.b.Peek("dev"); ok {
			t.Fatal("in memory still")
		}
		for range 3 {
			_, err := r.get("dev")
			if !errors.Is(err, cred.ErrLocked) || cred.HintOf(err) != "keyfob unlock" {
				t.Fatalf("got %v, hint %q", err, cred.HintOf(err))
			}
			r.b.Wake("") // a reload must not open it
			time.Sleep(time.Minute)
		}
		r.wantCalls("assume-role", 1)
		r.store.lock(false)
		r.b.Wake("")
		if r.must("dev").AccessKeyID != s.AccessKeyID {
			t.Fatal("the session is not taken from the vault")
		}
		r.wantCalls("assume-role", 1)
	})
}

func TestRefreshReplacesTheWholeChain(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		r.ask.attach(after(time.Second, "123456"))
		req := cred.Request{Caller: self, Profile: "dev", MayAsk: true}
		old, err := r.b.Get(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		now, err := r.b.Refresh(t.Context(), req)
		if err != nil || now.AccessKeyID == old.AccessKeyID {
			t.Fatal(now, err)
		}
		r.wantCalls("session-token", 2)
		r.wantCalls("assume-role", 2)
		if r.must("dev") != now {
			t.Fatal("not what is handed out")
		}
		// Refused: what there was stays.
		r.ask.attach(nil)
		if _, err := r.b.Refresh(t.Context(), req); interactionOf(err) == nil {
			t.Fatal(err)
		}
		if r.must("dev") != now {
			t.Fatal("the good session is gone")
		}
	})
}

func TestChain(t *testing.T) {
	bubble(t, fiftyRoles(), func(t *testing.T, r *rig) {
		k1, l1, err := r.b.Chain(cred.Request{Caller: self, Profile: "r1"})
		if err != nil || len(k1) != 3 || len(l1) != 3 {
			t.Fatal(k1, l1, err)
		}
		k2, _, _ := r.b.Chain(cred.Request{Caller: self, Profile: "r2"})
		if k1[0] != k2[0] || k1[1] != k2[1] || k1[2] == k2[2] {
			t.Fatal("the keys do not share what the chains share")
		}
	})
}

func TestKeysTellWhatDecides(t *testing.T) {
	base := role("p", "R")
	seen := map[cred.LinkKey]string{keyOf(&base, cred.LinkKey{}): "as it is"}
	for name, change := range map[string]func(l *profiles.Link){
		"kind":      func(l *profiles.Link) { l.Kind = profiles.KindSAML },
		"param":     func(l *profiles.Link) { l.Params["external_id"] = "x" },
		"region":    func(l *profiles.Link) { l.Client.Region = "eu-west-1" },
		"endpoint":  func(l *profiles.Link) { l.Client.EndpointURL = map[string]string{"sts": "http://x"} },
		"endpoints": func(l *profiles.Link) { l.Client.EndpointURL = map[string]string{"": "http://x"} },
		"fips":      func(l *profiles.Link) { l.Client.UseFIPS = true },
		"dual":      func(l *profiles.Link) { l.Client.UseDualStack = true },
		"legacy":    func(l *profiles.Link) { l.Client.STSLegacy = true },
		"bundle":    func(l *profiles.Link) { l.Client.CABundle = "/x" },
	} {
		l := role("p", "R")
		change(&l)
		k := keyOf(&l, cred.LinkKey{})
		if was, ok := seen[k]; ok {
			t.Errorf("%s and %s have one key", name, was)
		}
		seen[k] = name
	}
	if _, ok := seen[keyOf(&base, cred.LinkKey{1})]; ok {
		t.Error("the link below does not count")
	}
	for name, change := range map[string]func(l *profiles.Link){
		"retries": func(l *profiles.Link) { l.Client.MaxAttempts = 9; l.Client.RetryMode = "adaptive" },
		"place":   func(l *profiles.Link) { l.Profile = "q"; l.Origin.Line = 4 },
	} {
		l := role("p", "R")
		change(&l)
		if keyOf(&l, cred.LinkKey{}) != keyOf(&base, cred.LinkKey{}) {
			t.Errorf("%s decides nothing, but changes the key", name)
		}
	}
}
