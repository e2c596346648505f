package broker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
)

// Our clock is set ahead: all sessions look ended until the first answer
// tells that they have not. Those that wait for room then need no call.
func TestClockThatIsSetIsNoStorm(t *testing.T) {
	for _, jump := range []time.Duration{26 * time.Hour, -26 * time.Hour} {
		bubble(t, thousand("sts"), func(t *testing.T, r *rig) {
			r.w.latency = 200 * time.Millisecond
			r.w.onAnswer = func() { r.b.SetSkew(0) } // stands for the Date header
			r.b.SetActive(plain(names(r.b.resolver.(set))...))
			time.Sleep(10 * time.Second)
			r.wantCalls("assume-role", many)
			r.b.skew.Add(int64(jump)) // stands for the wall clock
			time.Sleep(maxTick)
			r.must("p1")
			time.Sleep(10 * time.Second)
			if n := r.w.count("assume-role") - many; n > maxAttemptsEach+1 {
				t.Errorf("%v: %d calls of 1,000 profiles whose sessions are good", jump, n)
			}
			r.must("p99")
			time.Sleep(5 * time.Hour)
			if n := r.w.count("assume-role") - many; n > many*11+maxAttemptsEach {
				t.Errorf("%v: %d calls in five hours", jump, n)
			}
		})
	}
}

// A machine that starts with a wrong clock takes what cost a code for ended;
// that it is not is seen when the clock is right.
func TestSessionOutlivesAWrongClock(t *testing.T) {
	for name, right := range map[string]func(b *Broker){
		"an answer told":    func(b *Broker) { b.SetSkew(0) },
		"the clock was set": func(b *Broker) { b.skew.Store(0); b.SetSkew(0) }, // and the next answer confirms it
	} {
		for _, ahead := range []time.Duration{13 * time.Hour, 10 * time.Hour} {
			t.Run(name+" "+ahead.String(), func(t *testing.T) {
				bubble(t, mfaRole(), func(t *testing.T, r *rig) {
					r.ask.attach(after(0, "123456"))
					s, err := r.getAs("base", true, time.Minute)
					if err != nil {
						t.Fatal(err)
					}
					r.ask.attach(nil)
					r.stop()
					time.Sleep(time.Hour)
					r.start(mfaRole())
					r.b.skew.Store(int64(ahead)) // stands for the wall clock
					if got, err := r.get("base"); ahead > 12*time.Hour && interactionOf(err) == nil {
						t.Fatalf("it had not ended: %v, %v", got, err)
					}
					if len(r.store.names("session/")) != 1 {
						t.Fatal("the record is gone")
					}
					right(r.b)
					got := r.must("base")
					if got.AccessKeyID != s.AccessKeyID {
						t.Fatal("another session")
					}
					if left := time.Until(got.Expires); left != 11*time.Hour {
						t.Errorf("%v left", left)
					}
					for time.Until(s.Expires) > 0 {
						r.must("base")
						time.Sleep(30 * time.Minute)
					}
					if _, err := r.get("base"); interactionOf(err) == nil {
						t.Errorf("after its end: %v", err)
					}
				})
			})
		}
	}
	// Logged out is logged out, whatever the clock does.
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		r.ask.attach(after(0, "123456"))
		if _, err := r.getAs("dev", true, time.Minute); err != nil {
			t.Fatal(err)
		}
		r.ask.attach(nil)
		r.stop()
		r.start(mfaRole())
		r.b.skew.Store(int64(13 * time.Hour))
		if _, err := r.get("dev"); interactionOf(err) == nil {
			t.Fatal(err)
		}
		kept := map[string]string{}
		for n, v := range r.store.m {
			kept[n] = v
		}
		if err := r.b.Forget(t.Context(), "dev"); err != nil {
			t.Fatal(err)
		}
		r.store.m = kept // a vault that could not delete
		r.b.SetSkew(0)
		if s, err := r.get("dev"); interactionOf(err) == nil {
			t.Fatalf("back after logout: %v, %v", s, err)
		}
	})
}

// Where an earlier keyfob wrote the record, its time of fetching by our clock
// is all there is.
func TestRecordWithoutAWSTime(t *testing.T) {
	now := time.Now()
	c := cred.Credentials{Expires: now.Add(time.Hour)}
	p := newPublished(c, now.Add(-time.Hour), now.Add(-time.Hour), now, 0, false)
	if p.left != time.Hour || p.left-p.due < threshold(2*time.Hour) {
		t.Errorf("%v left, due after %v", p.left, p.due)
	}
}

// What a clock that was set wrong for a while made broker ask for is not asked
// for any more.
func TestNeedForAPersonEndsWithAWrongClock(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		r.ask.attach(after(0, "123456"))
		if _, err := r.getAs("dev", true, time.Minute); err != nil {
			t.Fatal(err)
		}
		r.ask.attach(nil)
		r.b.skew.Add(int64(26 * time.Hour)) // stands for our wall clock
		if _, err := r.get("dev"); interactionOf(err) == nil {
			t.Fatal(err)
		}
		if s := r.b.Sessions()[0]; !s.NeedsPerson {
			t.Error("nobody is said to be needed")
		}
		r.b.skew.Add(-int64(26 * time.Hour))
		r.must("dev")
		if s := r.b.Sessions()[0]; s.NeedsPerson || s.LastError != "" || r.b.Stats().NeedPerson != 0 {
			t.Errorf("still: %+v", s)
		}
	})
}

// Nobody is asked for a code that would go nowhere.
func TestNobodyIsAskedWithoutANetwork(t *testing.T) {
	bubble(t, mfaRole().add("s0", sso("s0", "corp", "s0")), func(t *testing.T, r *rig) {
		r.ask.attach(after(0, "123456"))
		r.w.setWay("sts", false)
		for _, p := range []string{"dev", "s0"} {
			_, err := r.getAs(p, true, time.Minute)
			if !errors.Is(err, cred.ErrUnavailable) || !strings.HasSuffix(err.Error(), "sts cannot be reached, and so nobody was asked") || cred.HintOf(err) == "" {
				t.Errorf("%s: %v", p, err)
			}
		}
		if n := r.ask.asked.Load(); n != 0 {
			t.Errorf("asked %d times", n)
		}
		r.w.setWay("sts", true)
		time.Sleep(10 * time.Second)
		for _, p := range []string{"dev", "s0"} {
			if _, err := r.getAs(p, true, time.Minute); err != nil {
				t.Errorf("%s: %v", p, err)
			}
		}
		if n := r.ask.asked.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}
