package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// at is a role that is fetched from an upstream.
func at(name, upstream string) profiles.Link {
	l := role(name, name)
	l.Params["upstream"] = upstream
	return l
}

// thousand profiles of one upstream, less under the race detector.
func thousand(upstream string) set {
	s := set{}
	for i := range many {
		name := fmt.Sprintf("p%d", i)
		s.add(name, static("base"), at(name, upstream))
	}
	return s
}

// plain are profiles under no policy.
func plain(names ...string) []Active {
	var all []Active
	for _, n := range names {
		all = append(all, Active{Profile: n})
	}
	return all
}

func names(s set) []string {
	var all []string
	for n := range s {
		all = append(all, n)
	}
	return all
}

// A network that returns is used within seconds: one connect each 5 s tells,
// however many links wait, and nothing looks when nobody waits.
func TestNetworkReturns(t *testing.T) {
	for _, c := range []struct {
		name string
		dial time.Duration // 0: refused at once
	}{{"refused", 0}, {"no answer", 10 * time.Second}} {
		t.Run(c.name, func(t *testing.T) {
			s := thousand("sts").add("other", static("base"), at("other", "elsewhere"))
			bubble(t, s, func(t *testing.T, r *rig) {
				r.w.dial = c.dial
				r.b.SetActive(plain(names(s)...))
				time.Sleep(time.Second)
				r.wantCalls("assume-role", many+1)
				r.w.setWay("sts", false)
				time.Sleep(45 * time.Minute) // due since 15 min at least
				begun := r.w.probed("sts")
				time.Sleep(10*time.Minute + 3*time.Second)
				if n := r.w.probed("sts") - begun; n > 10*60/5+1 || n < 20 {
					t.Errorf("%d probes in ten minutes", n)
				}
				r.w.setWay("sts", true)
				back := time.Now()
				time.Sleep(10 * time.Second)
				for name := range s {
					if p, ok := r.b.Peek(name); !ok || name != "other" && p.Fetched.Before(back.Add(-time.Nanosecond)) {
						t.Fatalf("%s is not fresh within 10 s", name)
					}
				}
				r.wantCalls("assume-role p", 2*many)
				if n := r.w.probed("elsewhere"); n != 0 {
					t.Errorf("%d probes of what always answered", n)
				}
				before := r.w.probed("sts")
				time.Sleep(time.Hour)
				if n := r.w.probed("sts") - before; n != 0 {
					t.Errorf("%d probes while nobody waits", n)
				}
			})
		})
	}
}

// An upstream that can be connected to and does not answer gets no more
// calls than any that fails.
func TestOnlyTheChangeEndsTheBackoff(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.must("dev")
		r.w.setFail(networkDown)
		time.Sleep(32 * time.Minute)
		before := r.w.count("assume-role")
		time.Sleep(20 * time.Minute)
		if n := r.w.count("assume-role") - before; n > 24 {
			t.Errorf("%d attempts in 20 min", n)
		}
		if n := r.w.probed("sts"); n < 200 {
			t.Errorf("%d probes", n)
		}
		// A failure with an answer is none of the network's: no probes.
		r.w.setFail(func(k profiles.Kind, _ string) error {
			return &cred.UpstreamError{Op: "AssumeRole", Code: "Throttling", Status: 503, Message: "cannot assume the role: busy"}
		})
		time.Sleep(2 * time.Minute)
		probes := r.w.probed("sts")
		time.Sleep(time.Hour)
		if n := r.w.probed("sts") - probes; n != 0 {
			t.Errorf("%d probes of an upstream that answers", n)
		}
	})
}

// A network that comes and goes makes no storm.
func TestFlappingNetwork(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.b.SetActive(plain("dev"))
		r.w.setFail(networkDown) // nothing ever succeeds
		begin := time.Now()
		for time.Since(begin) < time.Hour {
			r.w.setWay("sts", false)
			time.Sleep(6 * time.Second)
			r.w.setWay("sts", true)
			time.Sleep(6 * time.Second)
		}
		if n := r.w.count("assume-role"); n > 700 {
			t.Errorf("%d calls in an hour of 300 changes", n)
		}
		if n := r.w.probed("sts"); n > 721 {
			t.Errorf("%d probes in an hour", n)
		}
	})
}

// A role that never was is not looked for without a caller; a caller within
// the pause after the network's return is served at once.
func TestNetworkReturnsForColdCallers(t *testing.T) {
	s := dev().add("lone", static("base"), at("lone", "-")).add("far", static("base"), at("far", "far"))
	bubble(t, s, func(t *testing.T, r *rig) {
		for _, name := range []string{"dev", "lone", "far"} {
			r.w.setWay(map[string]string{"dev": "sts", "lone": "", "far": "far"}[name], false)
			for i := range 300 { // until the pauses are long
				if _, err := r.get(name); !errors.Is(err, cred.ErrUnavailable) {
					t.Fatal(i, err)
				}
				time.Sleep(time.Second)
			}
		}
		if n := r.w.probed(""); n < 50 || n > 75 {
			t.Errorf("%d probes of a source without a name", n)
		}
		r.w.setWay("far", true)
		time.Sleep(probeEvery + time.Second)
		r.must("far")
		r.wantCalls("assume-role far", 1)
		time.Sleep(2 * time.Minute)
		probes := r.w.probed("sts") + r.w.probed("")
		time.Sleep(time.Hour)
		if n := r.w.probed("sts") + r.w.probed("") - probes; n != 0 {
			t.Errorf("%d probes for nobody", n)
		}
	})
}

// The pause of a role whose base waits for the network ends with the base's.
func TestNetworkReturnsBelow(t *testing.T) {
	s := set{}.add("dev", static("base"), session("base", ""), at("dev", "elsewhere"))
	bubble(t, s, func(t *testing.T, r *rig) {
		r.w.life[profiles.KindSessionToken] = 15 * time.Minute
		r.must("dev")
		for i := range 10 {
			r.w.setWay("sts", false)
			time.Sleep(2*time.Hour + time.Duration(i)*7*time.Second)
			r.w.setWay("sts", true)
			time.Sleep(10 * time.Second)
			if _, ok := r.b.Peek("dev"); !ok {
				t.Fatal("not there 10 s after the network")
			}
			r.must("dev")
		}
	})
}

// A source that panics or hangs when it is asked for the way harms nobody.
func TestProbeThatPanics(t *testing.T) {
	err := reach(t.Context(), reachFunc(func(context.Context) error { panic(canary) }))
	if err == nil {
		t.Fatal("a way")
	}
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.w.setWay("sts", false)
		r.w.dial = time.Hour
		_, _ = r.getAs("dev", false, time.Minute)
		synctest.Wait()
		begin := time.Now()
		r.stop() // joins the probe
		if d := time.Since(begin); d > time.Second {
			t.Errorf("Run returned after %v", d)
		}
	})
}

type reachFunc func(context.Context) error

func (f reachFunc) Reach(ctx context.Context) error { return f(ctx) }

// A thousand cold profiles do not call at once; those that wait for their
// turn do not fail for it.
func TestAttemptsAreBounded(t *testing.T) {
	s := thousand("sts")
	for i := range many / 2 {
		name := fmt.Sprintf("q%d", i)
		s.add(name, static("base"), at(name, "elsewhere"))
	}
	bubble(t, s, func(t *testing.T, r *rig) {
		r.w.latency = 20 * time.Second
		begin := time.Now()
		r.b.SetActive(plain(names(s)...))
		for len(r.store.names("session/")) < many+many/2 {
			time.Sleep(20 * time.Second)
			if time.Since(begin) > time.Hour {
				t.Fatalf("%d sessions after an hour", len(r.store.names("session/")))
			}
		}
		took := time.Since(begin)
		r.wantCalls("assume-role", many+many/2)
		if r.w.busiest() != maxAttempts {
			t.Errorf("%d calls at once", r.w.busiest())
		}
		if took > 10*time.Minute { // 1500 / 64 × 20 s is 8 min
			t.Errorf("took %v", took)
		}
		for _, s := range r.b.Sessions() {
			if s.LastError != "" {
				t.Fatalf("%s: %s", s.Profile, s.LastError)
			}
		}
	})
}

func TestWaitingForRoomIsWithinTheCallersDeadline(t *testing.T) {
	s := thousand("sts").add("late", static("base"), at("late", "sts"))
	bubble(t, s, func(t *testing.T, r *rig) {
		r.w.mu.Lock()
		r.w.latency = 20 * time.Second
		r.w.mu.Unlock()
		r.b.SetActive(plain(names(thousand("sts"))...))
		time.Sleep(time.Second)
		begin := time.Now()
		_, err := r.getAs("late", false, 30*time.Second)
		if !errors.Is(err, cred.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 30*time.Second {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
		if r.w.busiest() != maxAttemptsEach {
			t.Errorf("%d calls of one upstream at once", r.w.busiest())
		}
		r.stop() // joins those that wait for room
	})
}

// One upstream that does not answer does not hold up another.
func TestUpstreamsAreFairToEachOther(t *testing.T) {
	s := thousand("dead").add("dev", static("base"), at("dev", "sts"))
	bubble(t, s, func(t *testing.T, r *rig) {
		r.w.setWay("dead", false)
		r.w.dial = 10 * time.Second
		var all []string
		for n := range s {
			if n != "dev" {
				all = append(all, n)
			}
		}
		r.b.SetActive(plain(all...))
		time.Sleep(time.Minute)
		begin := time.Now()
		r.must("dev")
		if d := time.Since(begin); d != 0 {
			t.Errorf("waited %v for the other upstream", d)
		}
	})
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{all: 3, each: 2}
		var inside, most atomic.Int32
		var order []string
		var mu sync.Mutex
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		came := 0
		come := func(ctx context.Context, name string) {
			came++
			stay := time.Second + time.Duration(came)*10*time.Millisecond
			wg.Go(func() {
				if g.enter(ctx, name[:1], name[1] == '!') != nil {
					return
				}
				defer g.leave(name[:1])
				most.Store(max(most.Load(), inside.Add(1)))
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				time.Sleep(stay)
				inside.Add(-1)
			})
			synctest.Wait()
		}
		for i := range 3 {
			come(t.Context(), fmt.Sprintf("a%d", i))
		}
		come(ctx, "ax") // leaves before its turn
		come(t.Context(), "a3")
		come(t.Context(), "a!") // has no session
		come(t.Context(), "b0")
		come(t.Context(), "b1")
		cancel()
		wg.Wait()
		if got := fmt.Sprint(order); got != "[a0 a1 b0 a! a2 b1 a3]" || most.Load() != 3 {
			t.Errorf("%v, %d at once", order, most.Load())
		}
		if len(g.lanes) != 0 || g.inside != 0 {
			t.Errorf("left: %+v", g)
		}
	})
}
