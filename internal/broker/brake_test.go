package broker

import (
	"fmt"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// Two hundred sessions that are due while AWS limits the rate: they pause
// together, and those that cannot wait do not.
func TestRefreshesThatCanWaitLeaveAThrottledUpstreamAlone(t *testing.T) {
	s := set{}
	for i := range 200 {
		n := fmt.Sprintf("r%d", i)
		s.add(n, static("base"), role(n, n))
	}
	s.add("cold", static("base"), role("cold", "cold"))
	other := role("other", "other")
	other.Params["upstream"] = "elsewhere"
	s.add("other", static("base"), other)
	bubble(t, s, func(t *testing.T, r *rig) {
		r.w.latency = 100 * time.Millisecond
		for i := range 200 {
			r.must(fmt.Sprintf("r%d", i))
		}
		r.must("other")
		limit := func(on bool) {
			r.w.setFail(nil)
			if on {
				r.w.setFail(func(k profiles.Kind, name string) error {
					if k == profiles.KindStaticKeys || name == "other" {
						return nil
					}
					return &cred.UpstreamError{Op: "AssumeRole", Code: "Throttling", Status: 400, Message: "cannot assume the role: AWS limits the rate of calls"}
				})
			}
		}
		time.Sleep(25 * time.Minute)
		limit(true)
		others := r.w.count("assume-role other")
		before := r.w.count("assume-role r")
		time.Sleep(8 * time.Minute)
		if n := r.w.count("assume-role r") - before; n > 80 {
			t.Errorf("%d calls to an upstream that limits the rate", n)
		}
		if n := r.w.count("assume-role other") - others; n != 1 {
			t.Errorf("%d calls to another upstream, want 1", n)
		}
		// Who has nothing does not wait for the others' pause.
		before = r.w.count("assume-role cold")
		if _, err := r.get("cold"); err == nil || err == errBraked {
			t.Errorf("got %v", err)
		}
		if n := r.w.count("assume-role cold") - before; n != 1 {
			t.Errorf("%d calls for who has nothing", n)
		}
		for i := range 200 {
			r.must(fmt.Sprintf("r%d", i))
		}
		limit(false)
		time.Sleep(70 * time.Second) // the longest pause, and the crowd after it
		for i := range 200 {
			if p, ok := r.b.Peek(fmt.Sprintf("r%d", i)); !ok || time.Until(p.Expires) < 50*time.Minute {
				t.Fatalf("r%d is not fresh", i)
			}
		}
		if r.b.brake.on.Load() || len(r.b.brake.ups) != 0 {
			t.Error("braked still")
		}

		// To the end of all: no later than the reserve each tries for itself.
		time.Sleep(25 * time.Minute)
		limit(true)
		time.Sleep(31 * time.Minute)
		before = r.w.count("assume-role r")
		time.Sleep(time.Minute)
		if n := r.w.count("assume-role r") - before; n < 100 {
			t.Errorf("%d calls in the last minutes", n)
		}
		limit(false)
		time.Sleep(70 * time.Second)
		for i := range 200 {
			if _, ok := r.b.Peek(fmt.Sprintf("r%d", i)); !ok {
				t.Fatalf("r%d is not back", i)
			}
		}
	})
}

func TestJitter(t *testing.T) {
	for _, life := range []time.Duration{20 * time.Second, 15 * time.Minute, time.Hour, 12 * time.Hour, 36 * time.Hour} {
		most := min((life-threshold(life))/10, 10*time.Minute)
		var sum, least, largest time.Duration
		least = most
		for i := range 2000 {
			d := jitterOf(fmt.Sprintf("ASIAEXAMPLE%09d", i), life)
			sum += d
			least, largest = min(least, d), max(largest, d)
		}
		if mean := sum / 2000; mean < most*45/100 || mean > most*55/100 || least > most/50 || largest > most || largest < most*98/100 {
			t.Errorf("%v: %v to %v, mean %v of at most %v", life, least, largest, mean, most)
		}
	}
	if first := jitterOf("a", time.Hour); first != jitterOf("a", time.Hour) {
		t.Error("one session has two lots")
	}
	if d := jitterOf("a", 0); d != 0 {
		t.Error(d)
	}
}
