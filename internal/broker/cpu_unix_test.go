//go:build unix

package broker

import (
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
)

// cpuTime is what this process has computed so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A thousand active profiles of an hour each refresh with under 1 % of one
// core: the refreshers, the minder, the records, a store in memory. The
// second measure takes the real source, and the fake AWS with it.
func TestThousandActiveProfilesCostLittle(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("measures")
	}
	report := func(t *testing.T, what string, cpu time.Duration, hours, calls int) {
		t.Helper()
		share := cpu.Seconds() / (float64(hours) * 3600) * 100
		t.Logf("%s: %v of CPU time an hour, %.4f %% of one core, %d calls an hour, %v each",
			what, (cpu / time.Duration(hours)).Round(10*time.Microsecond), share, calls/hours, cpu/time.Duration(max(calls, 1)))
		if share >= 1 {
			t.Errorf("%s: %.3f %% of one core", what, share)
		}
	}
	t.Run("broker", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, thousand("sts"))
			defer r.stop()
			r.b.log.Logger.SetOutput(discard{})
			r.w.latency = 100 * time.Millisecond
			r.b.SetActive(plain(names(r.b.resolver.(set))...))
			time.Sleep(time.Hour)
			const hours = 8
			calls, begin := r.w.count("assume-role"), cpuTime()
			time.Sleep(hours * time.Hour)
			report(t, "1,000 profiles", cpuTime()-begin, hours, r.w.count("assume-role")-calls)
		})
	})
	t.Run("real source", func(t *testing.T) {
		realBubble(t, func(a *aRig) {
			chain := a.b.resolver.(set)["dev"].Chain
			s := set{}
			for i := range 1000 {
				l := chain[1]
				l.Params = map[string]string{"role_arn": a.role, "external_id": fmt.Sprintf("x%d", i)}
				s.add(fmt.Sprintf("p%d", i), chain[0], l)
			}
			a.b.SetProfiles(s)
			a.b.SetActive(plain(names(s)...))
			time.Sleep(time.Hour)
			const hours = 2
			calls, begin := a.aws.Count("AssumeRole"), cpuTime()
			time.Sleep(hours * time.Hour)
			report(t, "1,000 profiles by the real source, with its fake AWS", cpuTime()-begin, hours, a.aws.Count("AssumeRole")-calls)
			if _, err := a.b.Get(t.Context(), cred.Request{Caller: self, Profile: "p7"}); err != nil {
				t.Error(err)
			}
		})
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
