package broker

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

func dev() set { return set{}.add("dev", static("base"), role("dev", "R")) }

func TestRefreshAheadOfCallers(t *testing.T) {
	for _, c := range []struct {
		life, least time.Duration
		perDay      [2]int
	}{
		{time.Hour, 26 * time.Minute, [2]int{48, 56}},           // due with 30 min left
		{15 * time.Minute, 7 * time.Minute, [2]int{192, 215}},   // 7.5 min
		{4 * time.Hour, 79 * time.Minute, [2]int{9, 11}},        // 80 min
		{12 * time.Hour, 239 * time.Minute, [2]int{3, 4}},       // 4 h
		{20 * time.Second, 9 * time.Second, [2]int{8640, 9700}}, // 10 s
	} {
		t.Run(c.life.String(), func(t *testing.T) {
			bubble(t, dev(), func(t *testing.T, r *rig) {
				r.w.life[profiles.KindAssumeRole] = c.life
				r.w.latency = 100 * time.Millisecond
				r.must("dev")
				begin := time.Now()
				for time.Since(begin) < 24*time.Hour {
					time.Sleep(47 * time.Minute)
					s := r.must("dev")
					if left := time.Until(s.Expires); left < c.least {
						t.Fatalf("%v left at %v, want %v", left, time.Since(begin), c.least)
					}
				}
				if n := r.w.count("assume-role") - 1; n < c.perDay[0]-1 || n > c.perDay[1] {
					t.Fatalf("%d calls a day, want %v", n, c.perDay)
				}
			})
		})
	}
}

func TestInnerLinkIsNotRefreshedWithOuter(t *testing.T) {
	s := set{}.add("dev", static("base"), session("base", ""), role("dev", "A"), role("dev", "B"))
	bubble(t, s, func(t *testing.T, r *rig) {
		r.must("dev")
		for range 24 {
			time.Sleep(time.Hour)
			r.must("dev")
		}
		if n := r.w.count("session-token"); n < 3 || n > 5 {
			t.Errorf("%d GetSessionToken a day", n)
		}
		for _, role := range []string{"assume-role A", "assume-role B"} {
			if n := r.w.count(role); n < 48 || n > 58 {
				t.Errorf("%s: %d a day", role, n)
			}
		}
	})
}

func TestOutageIsNotFeltUntilItOutlastsTheCredential(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		good := r.must("dev")
		r.w.setFail(networkDown)
		for time.Until(good.Expires) > 0 {
			if s := r.must("dev"); s.AccessKeyID != good.AccessKeyID {
				t.Fatal("the good credential is gone")
			}
			time.Sleep(time.Second)
		}
		_, err := r.get("dev")
		if !errors.Is(err, cred.ErrUnavailable) || err.Error() != "cannot reach AWS: connection refused" {
			t.Fatalf("after its end: %v", err)
		}
		r.w.setFail(nil)
		time.Sleep(67 * time.Second) // nobody asks: it mends by itself
		before := r.w.count("assume-role")
		r.must("dev")
		r.wantCalls("assume-role", before)
		if s := r.b.Sessions()[0]; s.LastError != "" {
			t.Errorf("last error %q stays", s.LastError)
		}
	})
}

func TestBackoffWhateverCallersDo(t *testing.T) {
	for name, fail := range map[string]func(profiles.Kind, string) error{"down": networkDown, "refused": refused} {
		t.Run(name, func(t *testing.T) {
			bubble(t, dev(), func(t *testing.T, r *rig) {
				r.w.setFail(fail)
				for i := range 4 * 3600 {
					if _, err := r.get("dev"); err == nil || errors.Is(err, cred.ErrUnknownProfile) {
						t.Fatal(err)
					}
					if i == 3600 {
						if n := r.w.count("assume-role"); n < 55 || n > 72 {
							t.Fatalf("%d calls in the first hour", n)
						}
					}
					time.Sleep(time.Second)
				}
				if n := r.w.count("assume-role"); n < 4*54 || n > 4*68 {
					t.Fatalf("%d calls in four hours", n)
				}
				r.w.setFail(nil)
				r.b.Wake("dev")
				r.must("dev")
			})
		})
	}
}

// A role that was never granted is not asked for without a caller, a pinned
// one is.
func TestColdFailureIsTriedAgainOnlyForCallersOrPinned(t *testing.T) {
	bubble(t, dev().add("pin", static("base"), role("pin", "P")), func(t *testing.T, r *rig) {
		r.w.setFail(refused)
		if _, err := r.get("dev"); err == nil {
			t.Fatal("no error")
		}
		r.b.SetActive(plain("pin"))
		time.Sleep(time.Hour)
		r.wantCalls("assume-role R", 1)
		if n := r.w.count("assume-role P"); n < 55 || n > 72 {
			t.Fatalf("%d calls for the pinned", n)
		}
		r.w.setFail(nil)
		r.b.Wake("")
		synctest.Wait()
		if _, ok := r.b.Peek("pin"); !ok {
			t.Fatal("the pinned one is not fetched at once after Wake")
		}
	})
}

func TestBackoffOfWaitersBelow(t *testing.T) {
	s := set{}
	for i := range 20 {
		s.add(fmt.Sprintf("r%d", i), static("base"), session("base", ""), role("", fmt.Sprintf("r%d", i)))
	}
	bubble(t, s, func(t *testing.T, r *rig) {
		r.w.setFail(networkDown)
		for range 600 {
			for i := range 20 {
				if _, err := r.get(fmt.Sprintf("r%d", i)); !errors.Is(err, cred.ErrUnavailable) {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		}
		if n := r.w.count("session-token"); n > 20 {
			t.Errorf("%d GetSessionToken in ten minutes", n)
		}
		r.wantCalls("assume-role", 0)
		r.w.setFail(nil)
		time.Sleep(67 * time.Second)
		for i := range 20 {
			r.must(fmt.Sprintf("r%d", i)) // none has a back-off of its own
		}
	})
}

// A role whose base has ended in an outage comes back within one pause.
func TestPausesOfAChainAreOne(t *testing.T) {
	s := set{}.add("dev", static("base"), session("base", ""), role("dev", "R"))
	bubble(t, s, func(t *testing.T, r *rig) {
		r.w.life[profiles.KindSessionToken] = 15 * time.Minute
		r.must("dev")
		for range 10 {
			r.w.setFail(networkDown)
			time.Sleep(2*time.Hour + 17*time.Second)
			r.w.setFail(nil)
			time.Sleep(67 * time.Second)
			if _, ok := r.b.Peek("dev"); !ok {
				t.Fatal("not there a minute after the outage")
			}
			r.must("dev")
		}
	})
}

// What is near its end is served only if there will be nothing better.
func TestCallersWaitForTheNextInTheLastMinute(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.w.latency = time.Second
		good := r.must("dev")
		r.w.setFail(networkDown)
		time.Sleep(time.Until(good.Expires) - 30*time.Second)
		for range 20 {
			if s := r.must("dev"); s.AccessKeyID != good.AccessKeyID {
				t.Fatal("another one")
			}
			time.Sleep(100 * time.Millisecond)
		}
		r.w.setFail(nil)
		r.b.Wake("dev")
		if s := r.must("dev"); s.AccessKeyID == good.AccessKeyID {
			t.Fatal("the old one, though a new one could be had")
		}
	})
}

// What is left does not end while its caller waits for the next.
func TestRestIsServedBeforeItEnds(t *testing.T) {
	for _, left := range []time.Duration{50 * time.Second, 20 * time.Second, time.Second} {
		bubble(t, dev(), func(t *testing.T, r *rig) {
			good := r.must("dev")
			r.w.setFail(networkDown)
			time.Sleep(time.Until(good.Expires) - left)
			r.w.mu.Lock()
			r.w.latency = 25 * time.Second
			r.w.mu.Unlock()
			r.b.Wake("dev")
			s, err := r.getAs("dev", false, 55*time.Second)
			if err != nil || time.Until(s.Expires) < left/2 {
				t.Fatalf("with %v left: %v, %v", left, s, err)
			}
		})
	}
	bubble(t, dev(), func(t *testing.T, r *rig) {
		good := r.must("dev")
		r.w.setFail(networkDown)
		time.Sleep(time.Until(good.Expires) - 50*time.Second)
		r.w.mu.Lock()
		r.w.latency = 25 * time.Second
		r.w.mu.Unlock()
		r.b.Wake("dev")
		got := make(chan *cred.Snapshot, 1)
		go func() {
			s, _ := r.getAs("dev", false, 10*time.Second)
			got <- s
		}()
		time.Sleep(5 * time.Second)
		r.b.skew.Add(int64(time.Hour)) // the machine sleeps while the caller waits
		if s := <-got; s != nil {
			t.Fatal("it got what had ended")
		}
	})
}

func TestSuspend(t *testing.T) {
	// The wall clock runs ahead of the timers: in the bubble both run
	// together, so the broker's correction of the wall clock moves instead.
	sleep := func(r *rig, d time.Duration) {
		r.b.skew.Add(int64(d))
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		r.w.clock += d
	}

	t.Run("minute", func(t *testing.T) {
		bubble(t, dev(), func(t *testing.T, r *rig) {
			old := r.must("dev")
			sleep(r, 35*time.Minute)
			time.Sleep(maxTick + time.Second)
			if s, _ := r.b.Peek("dev"); s == nil || s.AccessKeyID == old.AccessKeyID {
				t.Fatal("not refreshed within a minute of waking")
			}
		})
	})
	t.Run("use", func(t *testing.T) {
		bubble(t, dev(), func(t *testing.T, r *rig) {
			old := r.must("dev")
			synctest.Wait() // else the minder is still under way, and sees the jump itself
			sleep(r, 35*time.Minute)
			if s := r.must("dev"); s.AccessKeyID != old.AccessKeyID {
				t.Fatal("it was good still")
			}
			synctest.Wait()
			if s, _ := r.b.Peek("dev"); s.AccessKeyID == old.AccessKeyID {
				t.Fatal("not refreshed at once after being used")
			}
			sleep(r, 2*time.Hour)
			if s := r.must("dev"); time.Until(s.Expires) < 0 {
				t.Fatal("expired")
			}
			r.wantCalls("assume-role", 3)
		})
	})
	t.Run("back", func(t *testing.T) {
		bubble(t, dev(), func(t *testing.T, r *rig) {
			old := r.must("dev")
			// The clock is set back: by the wall there is life for ever.
			r.b.skew.Add(-int64(24 * time.Hour))
			time.Sleep(59*time.Minute + 59*time.Second)
			r.w.mu.Lock()
			r.w.clock -= 24 * time.Hour
			r.w.mu.Unlock()
			if s := r.must("dev"); s.AccessKeyID == old.AccessKeyID {
				t.Fatal("the old one is served to a made-up end")
			}
		})
	})
}

func TestSkew(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		// Our clock is two hours ahead: without a correction all answers
		// look expired.
		r.w.clock = -2 * time.Hour
		_, err := r.get("dev")
		if err == nil || cred.HintOf(err) == "" {
			t.Fatalf("got %v", err)
		}
		time.Sleep(2 * time.Second)
		r.w.onAnswer = func() { r.b.SetSkew(-2 * time.Hour) } // the Date header comes with the answer
		s := r.must("dev")
		if left := time.Until(s.Expires); left != time.Hour {
			t.Fatalf("advertised for %v by the local clock", left)
		}
		if s := r.b.Sessions()[0]; s.Skew != -2*time.Hour {
			t.Errorf("status says %v", s.Skew)
		}
		time.Sleep(10 * time.Hour)
		r.must("dev")
		if n := r.w.count("assume-role"); n > 27 {
			t.Errorf("%d calls", n)
		}
		// A change is advertised at once.
		r.w.onAnswer = nil
		fresh, err := r.b.Refresh(t.Context(), cred.Request{Caller: self, Profile: "dev"})
		if err != nil {
			t.Fatal(err)
		}
		r.b.SetSkew(-110 * time.Minute)
		if d := r.must("dev").Expires.Sub(fresh.Expires); d != -10*time.Minute {
			t.Errorf("the end moved by %v", d)
		}
	})
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.w.setFail(func(k profiles.Kind, _ string) error {
			if k == profiles.KindStaticKeys {
				return nil
			}
			return &cred.UpstreamError{Op: "AssumeRole", Code: "SignatureDoesNotMatch", Status: 403, Skew: 10 * time.Minute, Refused: true}
		})
		_, _ = r.get("dev")
		if s := r.b.Sessions()[0]; s.Skew != 10*time.Minute {
			t.Errorf("status says %v", s.Skew)
		}
	})
}

func TestIdleIsGivenUp(t *testing.T) {
	bubble(t, fiftyRoles().add("dev", static("base"), role("dev", "R")), func(t *testing.T, r *rig) {
		r.b.SetActive(plain("dev"))
		r.ask.attach(after(0, "123456"))
		for i := range 50 {
			if _, err := r.getAs(fmt.Sprintf("r%d", i), true, time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(r.b.activeLinks()); n != 53 { // base keys, session, 50 roles, R
			t.Fatalf("%d links", n)
		}
		time.Sleep(idleAfter - 2*time.Minute)
		r.must("r7") // somebody asks for one
		calls := r.w.count("assume-role r8")
		time.Sleep(5 * time.Minute)
		if n := len(r.b.activeLinks()); n != 4 {
			t.Fatalf("%d links, want base keys, session, r7, R", n)
		}
		time.Sleep(24 * time.Hour)
		if n := len(r.b.activeLinks()); n != 2 {
			t.Fatalf("%d links, want base keys, R", n)
		}
		r.wantCalls("assume-role r8", calls)
		if n := r.w.count("assume-role R"); n < 50 {
			t.Fatalf("the pinned one was refreshed %d times", n)
		}
		r.must("dev")
	})
}

func TestInactiveProfilesCostNothing(t *testing.T) {
	s := set{}
	for i := range 1000 {
		s.add(fmt.Sprintf("p%d", i), static("base"), role("", fmt.Sprintf("p%d", i)))
	}
	bubble(t, s, func(t *testing.T, r *rig) {
		synctest.Wait()
		if len(r.b.activeLinks()) != 0 || len(r.b.Sessions()) != 0 {
			t.Fatal("something is active")
		}
		// No timer: the bubble's clock would stop at one on its way.
		sleep, _ := r.b.look(t.Context(), time.Now(), nil)
		if sleep != 0 {
			t.Fatalf("the minder would wake in %v", sleep)
		}
	})
}

func TestTimes(t *testing.T) {
	for n := 1; n < 20; n++ {
		nominal := min(time.Second<<(min(n, 7)-1), time.Minute)
		for range 200 {
			if d := backoff(n); d < time.Second || d < nominal*9/10 || d > nominal*11/10+1 {
				t.Fatalf("back-off %d is %v", n, d)
			}
		}
	}
	for life, want := range map[time.Duration]time.Duration{
		time.Hour: 30 * time.Minute, 15 * time.Minute: 450 * time.Second,
		12 * time.Hour: 4 * time.Hour, 90 * time.Minute: 35 * time.Minute, 36 * time.Hour: 12 * time.Hour,
	} {
		if got := threshold(life); got != want {
			t.Errorf("threshold of %v is %v, want %v", life, got, want)
		}
	}
}
