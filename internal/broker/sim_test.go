package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// simCount is what became of the callers of one group of profiles.
type simCount struct {
	calls, served                   int
	waited                          int // longer than 250 ms
	expired, lost                   int // what must not be
	imds, network, throttle, slow   int // excused: what the caller could not have had
	least                           time.Duration
	clock, person                   int
	examples                        []string
	maxWait                         time.Duration
	goodCalls, badCalls, ideal, off int
	profiles                        int
}

// caller is one program that asks for a profile, again and again.
type caller struct {
	profile  string
	role     *simLink
	mean     time.Duration // between calls
	steady   bool          // like an SDK: at about that time
	limit    time.Duration
	imds     bool
	rng      *rand.Rand
	counts   *simCount
	upheaval *atomic.Bool
	// The last time it was served, and the first since the profile was active
	// without a pause.
	served, servedBy time.Duration
}

func (c *caller) run(t *testing.T, s *sim, end time.Duration) {
	for {
		d := time.Duration(c.rng.ExpFloat64() * float64(c.mean))
		if c.steady {
			d = c.mean*9/10 + time.Duration(c.rng.Int64N(int64(c.mean/5)))
		}
		if s.now()+d > end-time.Minute {
			return
		}
		time.Sleep(max(d, time.Millisecond))
		c.call(t, s)
	}
}

func (c *caller) call(t *testing.T, s *sim) {
again:
	b := s.cur.Load()
	from := s.now()
	ctx, cancel := context.WithTimeout(context.Background(), c.limit)
	snap, err := b.Get(ctx, cred.Request{Caller: self, Profile: c.profile})
	cancel()
	to := s.now()
	if err != nil && (c.upheaval.Load() || s.cur.Load() != b) {
		time.Sleep(time.Second) // the daemon is restarted: programs come again
		goto again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.role.asked = append(c.role.asked, from)
	n := c.counts
	n.calls++
	if to-from > 250*time.Millisecond {
		n.waited++
		n.maxWait = max(n.maxWait, to-from)
	}
	aws := to + s.aws
	if err == nil {
		if from-c.served >= idleAfter-2*minute || c.servedBy <= s.started {
			c.servedBy = to
		}
		c.served = to
		left := s.ends[snap.AccessKeyID] - aws
		n.served++
		if left <= 0 {
			n.expired++
		}
		if n.least == 0 || left < n.least {
			n.least = left
		}
		return
	}
	need := latencyAt(to)
	if c.role.base != nil && c.role.base.best <= aws {
		need += latencyAt(to)
	}
	within := func(f func(time.Duration) bool, a time.Duration) bool {
		for ; a < to; a += 500 * time.Millisecond {
			if f(a) {
				return true
			}
		}
		return f(to)
	}
	lost := n.lost
	p := c.role.person
	switch {
	case c.role.best > aws && b.skewNow() == s.aws:
		n.lost++
	case p != nil && p.ends() <= aws:
		n.person++ // nothing could be had without him
	case within(cutAt, max(from-10*time.Second, 0)):
		n.network++
		// An outage shorter than what is left at any time is not felt by whose
		// profile was active before it, unless the machine slept into it.
		slept := len(s.sleeps) > 0 && s.sleeps[len(s.sleeps)-1].at > from-c.role.life
		begun := cutBegins(max(from-10*time.Second, 0)) - 5*minute
		apart := p != nil && p.back(s) > from-c.role.life
		if c.role.life >= hour && !slept && !apart && c.servedBy > s.started && c.servedBy <= begun && from-c.served < idleAfter-2*minute {
			n.lost++
		}
	case within(throttledAt, max(from-66*time.Second, 0)):
		n.throttle++
	case c.imds && errors.Is(err, context.DeadlineExceeded):
		n.imds++
	case need >= c.limit:
		n.slow++
	case b.skewNow() != s.aws:
		n.clock++
	default:
		n.lost++
	}
	if n.lost > lost && len(n.examples) < 5 {
		n.examples = append(n.examples, fmt.Sprintf("%s at %v, after %v: %v", c.profile, from, to-from, err))
	}
}

func TestSimulatedWeeks(t *testing.T) {
	days := 14
	switch {
	case raceEnabled:
		days = 1
	case testing.Short():
		days = 2
	}
	started := time.Now()
	synctest.Test(t, func(t *testing.T) { simulate(t, time.Duration(days)*24*hour) })
	t.Logf("%d days took %v", days, time.Since(started).Round(100*time.Millisecond))
}

func simulate(t *testing.T, end time.Duration) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := &sim{begin: time.Now(), links: map[string]*simLink{}, ends: map[string]time.Duration{}}
	link := func(name string, life time.Duration) *simLink {
		l := &simLink{name: name, life: life}
		s.links[name] = l
		return l
	}
	groups := []struct {
		name  string
		life  time.Duration
		based bool // over one of the sessions
	}{
		{"15 min", 15 * minute, false}, {"30 min", 30 * minute, false}, {"1 h", hour, false}, {"1 h over a session", hour, true},
		{"2 h", 2 * hour, false}, {"4 h", 4 * hour, false}, {"8 h", 8 * hour, false}, {"12 h", 12 * hour, false},
	}
	all := set{}
	counts := map[string]*simCount{}
	var callers []*caller
	var pinned []string
	var upheaval atomic.Bool
	for i := range 200 {
		g := groups[i%len(groups)]
		name := fmt.Sprintf("p%d", i)
		l := link(name, g.life)
		chain := []profiles.Link{static("keys")}
		if g.based {
			base := fmt.Sprintf("s%d", i%40/len(groups))
			if l.base = s.links[base]; l.base == nil {
				l.base = link(base, 12*hour)
				l.base.isBase = true
			}
			chain = append(chain, session(base, ""))
		}
		all.add(name, append(chain, role(name, name))...)
		if counts[g.name] == nil {
			counts[g.name] = &simCount{}
		}
		counts[g.name].profiles++
		c := &caller{profile: name, role: l, counts: counts[g.name], limit: 55 * time.Second, upheaval: &upheaval,
			rng: rand.New(rand.NewPCG(uint64(i), 7))}
		switch i / len(groups) % 5 {
		case 0: // a program that asks all the time
			c.mean = 3 * minute
		case 1: // an SDK that comes back
			c.mean, c.steady = 50*minute, true
		case 2: // somebody who works now and then
			c.mean, c.limit = 4*hour, 55*time.Second
		case 3: // an instance's metadata, never idle
			c.mean, c.limit, c.imds, l.pinned = 10*minute, 250*time.Millisecond, true, true
			pinned = append(pinned, name)
		case 4: // a container
			c.mean, c.limit = 20*minute, 30*time.Second
		}
		callers = append(callers, c)
	}

	// Those that need a person now and then: 20 roles over the MFA sessions of
	// four, and 20 behind the sign-ins of two.
	for i := range 40 {
		name, g := fmt.Sprintf("p%d", 200+i), "1 h over MFA"
		l := link(name, hour)
		chain := []profiles.Link{static("keys")}
		if i < 20 {
			base := fmt.Sprintf("mfa%d", i%4)
			chain = append(chain, session(base, base))
			if l.base = s.links[base]; l.base == nil {
				l.base = link(base, 12*hour)
				l.base.isBase = true
				l.base.person = s.person(base, name, keysOf(chain)[1], 12*hour)
			}
			l.person = l.base.person
			chain = append(chain, role(name, name))
		} else {
			g = "1 h after sign-in"
			in := fmt.Sprintf("corp%d", i%2)
			if l.person = s.persons[min(4+i%2, len(s.persons)-1)]; l.person.name != in {
				l.person = s.person(in, name, cred.KeyOf(in, nil, cred.LinkKey{}), 8*hour)
			}
			chain = []profiles.Link{{Kind: profiles.KindSSO, Profile: name, Params: map[string]string{"name": name}}}
		}
		all.add(name, chain...)
		if counts[g] == nil {
			counts[g] = &simCount{}
		}
		counts[g].profiles++
		c := &caller{profile: name, role: l, counts: counts[g], limit: 55 * time.Second, upheaval: &upheaval,
			rng: rand.New(rand.NewPCG(uint64(i), 9)), mean: []time.Duration{3 * minute, 50 * minute, 4 * hour, 20 * minute, 20 * minute}[i/4%5]}
		callers = append(callers, c)
	}

	st := simStore{newStore(), s}
	stop := s.start(t, st, all, pinned)
	var wg sync.WaitGroup
	for _, c := range callers {
		wg.Go(func() { c.run(t, s, end) })
	}
	for _, p := range s.persons {
		wg.Go(func() { p.run(t, s, end) })
	}
	wg.Go(func() { s.watch(end) })
	restarts, jumps := 0, 0
	for day := time.Duration(0); day < end/(24*hour); day++ {
		until := func(t time.Duration) { time.Sleep(time.Until(s.begin.Add(day*24*hour + t))) }
		until(3*hour + 10*minute)
		s.suspend(2*hour + time.Duration(rng.Int64N(int64(6*hour))))
		if day%2 == 0 {
			until(9*hour + 7*minute)
			upheaval.Store(true)
			stop()
			stop = s.start(t, st, all, pinned)
			upheaval.Store(false)
			restarts++
		}
		until(cutBegins(12*hour) + 5*minute) // in an outage
		s.suspend(40 * minute)
		if d := []time.Duration{0, 3 * hour, 0, -3 * hour, 26 * hour, 0, -26 * hour}[day%7]; d != 0 {
			until(calmFrom((day*24+15)*hour+31*minute) - day*24*hour + minute)
			s.jump(d)
			jumps++
		}
		until(24 * hour)
	}
	wg.Wait()
	stop()

	// What the rule needs.
	over := map[*simLink][]time.Duration{}
	sessions := &simCount{}
	total := &simCount{}
	var lines []string
	for _, c := range callers {
		g := c.counts
		sort.Slice(c.role.asked, func(a, b int) bool { return c.role.asked[a] < c.role.asked[b] })
		g.ideal += s.ideal(c.role, c.role.asked, end)
		g.goodCalls += c.role.good
		g.badCalls += c.role.bad
		g.off += c.role.unreached
		if base := c.role.base; base != nil && base.person == nil {
			base.pinned = base.pinned || c.role.pinned
			over[base] = append(over[base], c.role.asked...)
		}
	}
	for _, base := range slices.SortedFunc(maps.Keys(over), func(a, b *simLink) int { return strings.Compare(a.name, b.name) }) {
		asked := over[base]
		slices.Sort(asked)
		sessions.profiles++
		sessions.ideal += s.ideal(base, asked, end)
		sessions.goodCalls += base.good
		sessions.badCalls += base.bad
		sessions.off += base.unreached
	}
	row := func(name string, c *simCount) {
		lines = append(lines, fmt.Sprintf("%-20s %4d %8d %7d %4d %4d | %5d %5d %5d %4d %4d %5d | %7d %6d %6d %6.3f %6d | %8v %6v",
			name, c.profiles, c.calls, c.waited, c.expired, c.lost, c.network, c.throttle, c.imds, c.slow, c.clock, c.person,
			c.ideal, c.goodCalls, c.badCalls, float64(c.goodCalls+c.badCalls)/float64(max(c.ideal, 1)), c.off,
			c.least.Round(time.Second), c.maxWait.Round(time.Second)))
	}
	names := []string{}
	for _, g := range groups {
		names = append(names, g.name)
	}
	counts["sessions of keys"] = sessions
	for _, name := range append(names, "1 h over MFA", "1 h after sign-in", "sessions of keys") {
		c := counts[name]
		row(name, c)
		total.add(c)
		for _, e := range c.examples {
			t.Errorf("%s: %s", name, e)
		}
		if r := float64(c.goodCalls+c.badCalls) / float64(c.ideal); r > 1.10 && end > 7*24*hour {
			t.Errorf("%s: %.3f of the calls that the rule needs", name, r)
		}
	}
	row("all", total)
	lines = append(lines, s.report(t)...)
	t.Logf("%v with %d suspends, %d clock jumps, %d restarts; %d probes, %d of them found a way; at most %d calls at once\n%-20s %4s %8s %7s %4s %4s | %5s %5s %5s %4s %4s %5s | %7s %6s %6s %6s %6s | %8s %6s\n%s",
		end, len(s.sleeps), jumps, restarts, s.probes, s.vain, s.most,
		"lifetime", "prof", "callers", "waited", "exp", "lost", "net", "thr", "imds", "slow", "clk", "pers", "needed", "good", "bad", "ratio", "unrch", "least", "wait",
		strings.Join(lines, "\n"))
	if total.expired > 0 || total.lost > 0 {
		t.Errorf("%d callers got what had ended, %d got nothing though it could be had", total.expired, total.lost)
	}
	if r := float64(total.goodCalls+total.badCalls) / float64(total.ideal); r > 1.10 {
		t.Errorf("%.3f of the calls that the rule needs", r)
	}
	if hours := int(end / hour); s.probes > hours*(15*60/5+2) {
		t.Errorf("%d probes in %d outages of 15 min", s.probes, hours)
	}
	if total.clock > 0 {
		t.Logf("%d callers failed while the clock was wrong and AWS had not said so", total.clock)
	}
}

func (n *simCount) add(c *simCount) {
	n.profiles += c.profiles
	n.calls += c.calls
	n.served += c.served
	n.waited += c.waited
	n.expired += c.expired
	n.lost += c.lost
	n.imds += c.imds
	n.network += c.network
	n.throttle += c.throttle
	n.slow += c.slow
	n.clock += c.clock
	n.person += c.person
	n.goodCalls += c.goodCalls
	n.badCalls += c.badCalls
	n.ideal += c.ideal
	n.off += c.off
	n.maxWait = max(n.maxWait, c.maxWait)
	if n.least == 0 || c.least > 0 && c.least < n.least {
		n.least = c.least
	}
}
