package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// The simulated weeks. Time is that of the bubble, which is what the timers
// and the monotonic clock show. AWS's clock and our wall clock are ahead of
// it by what the machine slept; a jump moves our wall clock alone. The
// broker's correction of its wall clock stands for both: in a bubble the wall
// clock itself cannot be set.
type sim struct {
	begin time.Time
	cur   atomic.Pointer[Broker]

	mu      sync.Mutex
	aws     time.Duration // AWS's clock minus the bubble's
	wall    time.Duration // our wall clock minus the bubble's
	sleeps  []simSleep
	started time.Duration // the daemon, last
	serial  int
	ends    map[string]time.Duration // of sessions, by AWS's clock
	links   map[string]*simLink
	answers int
	probes  int
	vain    int // that found a way
	inside  int
	most    int
}

// simLink is what upstream knows of one link.
type simLink struct {
	name           string
	life           time.Duration
	good, bad      int           // answers
	unreached      int           // attempts that met no network
	best           time.Duration // the latest end of its sessions, by AWS's clock
	asked          []time.Duration
	pinned, isBase bool
	base           *simLink
}

type simSleep struct{ at, length time.Duration }

const (
	hour   = time.Hour
	minute = time.Minute
)

// The weather, by the bubble's time since the beginning.

// cutAt: for 15 minutes of each hour there is no network.
func cutAt(t time.Duration) bool { b := cutBegins(t); return t >= b && t < b+15*minute }

// cutBegins is when the outage of t's hour begins; not the same minute in
// each, or lifetimes that divide the hour would never or always meet it.
func cutBegins(t time.Duration) time.Duration {
	h := t / hour
	return h*hour + (h*19+5)%45*minute
}

// hangs: in every other outage connects hang instead of being refused.
func hangs(t time.Duration) bool { return t/hour%2 == 1 }

// throttledAt: two minutes of every six hours AWS throttles all.
func throttledAt(t time.Duration) bool { b := throttleBegins(t); return t >= b && t < b+2*minute }

func throttleBegins(t time.Duration) time.Duration {
	n := t / (6 * hour)
	return n*6*hour + (n*71+20)%355*minute
}

// latencyAt: half an hour of every four answers take 20 s.
func latencyAt(t time.Duration) time.Duration {
	if t/hour%4 == 1 && t%hour < 30*minute {
		return 20 * time.Second
	}
	return 150 * time.Millisecond
}

// calmFrom is the first time from t on at which AWS could answer.
func calmFrom(t time.Duration) time.Duration {
	for cutAt(t) || throttledAt(t) {
		if cutAt(t) {
			t = cutBegins(t) + 15*minute
		} else {
			t = throttleBegins(t) + 2*minute
		}
	}
	return t
}

func (s *sim) now() time.Duration { return time.Since(s.begin) }

func (s *sim) For(l profiles.Link) (cred.Source, error) {
	return &simSource{s: s, link: s.links[l.Params["name"]], static: l.Kind == profiles.KindStaticKeys}, nil
}

type simSource struct {
	s      *sim
	link   *simLink
	static bool
}

func (*simSource) Interactive() bool { return false }
func (*simSource) Upstream() string  { return "sts" }

func (x *simSource) Reach(ctx context.Context) error {
	x.s.mu.Lock()
	x.s.probes++
	if !cutAt(x.s.now()) {
		x.s.vain++
	}
	x.s.mu.Unlock()
	return x.s.connect(ctx)
}

func (s *sim) connect(ctx context.Context) error {
	for range 10 {
		switch t := s.now(); {
		case !cutAt(t):
			return nil
		case !hangs(t):
			return errors.New("dial tcp: connection refused")
		}
		select {
		case <-time.After(time.Second): // a SYN again
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("dial tcp: i/o timeout")
}

var simSecret, simToken = cred.NewSecret(canary + "-secret"), cred.NewSecret(canary + "-token")

func (x *simSource) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	if x.static {
		return cred.Credentials{AccessKeyID: "AKIA", SecretAccessKey: simSecret}, nil
	}
	s, l := x.s, x.link
	if err := s.connect(ctx); err != nil {
		s.mu.Lock()
		l.unreached++
		s.mu.Unlock()
		return cred.Credentials{}, &cred.UpstreamError{Op: "AssumeRole", Message: "cannot reach AWS", Err: err}
	}
	s.mu.Lock()
	s.inside++
	s.most = max(s.most, s.inside)
	s.mu.Unlock()
	time.Sleep(latencyAt(s.now()))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inside--
	t := s.now()
	if cutAt(t) { // during the answer
		l.unreached++
		return cred.Credentials{}, &cred.UpstreamError{Op: "AssumeRole", Message: "cannot reach AWS", Err: context.DeadlineExceeded}
	}
	s.answers++
	b := s.cur.Load()
	b.SetSkew(s.aws) // the Date header
	if throttledAt(t) {
		l.bad++
		return cred.Credentials{}, &cred.UpstreamError{Op: "AssumeRole", Code: "Throttling", Status: 503, Message: "cannot assume the role: AWS limits the rate of calls"}
	}
	if in.Base.AccessKeyID != "AKIA" && s.ends[in.Base.AccessKeyID] <= t+s.aws {
		l.bad++
		return cred.Credentials{}, &cred.UpstreamError{Op: "AssumeRole", Code: "ExpiredToken", Status: 403, Message: "cannot assume the role: the session has ended", Refused: true}
	}
	l.good++
	s.serial++
	id := fmt.Sprintf("ASIA%d", s.serial)
	l.best = t + s.aws + l.life
	s.ends[id] = l.best
	return cred.Credentials{AccessKeyID: id, SecretAccessKey: simSecret, SessionToken: simToken, Expires: s.begin.Add(l.best)}, nil
}

// simStore keeps the times of fetching by the wall clock.
type simStore struct {
	*store
	s *sim
}

func (x simStore) move(v cred.Secret, d time.Duration) cred.Secret {
	var r record
	if json.Unmarshal([]byte(v.Reveal()), &r) != nil {
		return v
	}
	r.Fetched = r.Fetched.Add(d)
	out, _ := json.Marshal(r)
	return cred.SecretBytes(out)
}

func (x simStore) wall() time.Duration {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	return x.s.wall
}

func (x simStore) Get(ctx context.Context, name string) (cred.Secret, error) {
	v, err := x.store.Get(ctx, name)
	return x.move(v, -x.wall()), err
}

func (x simStore) Put(ctx context.Context, name string, v cred.Secret) error {
	return x.store.Put(ctx, name, x.move(v, x.wall()))
}

// start runs a broker over the store, the one before having ended.
func (s *sim) start(t *testing.T, st cred.Store, set set, pinned []string) (stop func()) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.SetLevel(logrus.PanicLevel)
	s.mu.Lock()
	s.started = s.now()
	s.mu.Unlock()
	b := New(Config{Sources: s, Store: st, Rules: rules{}, Log: logrus.NewEntry(log)})
	b.skew.Store(int64(s.wall))
	b.SetProfiles(set)
	b.SetActive(pinned)
	s.cur.Store(b)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// suspend lets the machine sleep: no timer runs, the clocks do.
func (s *sim) suspend(d time.Duration) {
	s.mu.Lock()
	s.aws += d
	s.wall += d
	s.sleeps = append(s.sleeps, simSleep{s.now(), d})
	s.mu.Unlock()
	s.cur.Load().skew.Add(int64(d))
}

// jump sets our clock by d. The minder sees it within a minute and forgets
// what it knew of AWS's clock, unless an answer told it anew.
func (s *sim) jump(d time.Duration) {
	s.mu.Lock()
	s.wall += d
	wall, answers := s.wall, s.answers
	s.mu.Unlock()
	b := s.cur.Load()
	b.skew.Add(int64(d))
	b.pokeMinder()
	time.Sleep(30 * time.Second)
	s.mu.Lock()
	told := s.answers != answers
	s.mu.Unlock()
	if !told {
		b.mu.Lock()
		b.skewAt = time.Time{}
		b.mu.Unlock()
		b.applySkew(wall, false)
	}
}

// simCount is what became of the callers of one group of profiles.
type simCount struct {
	calls, served                   int
	waited                          int // longer than 250 ms
	expired, lost                   int // what must not be
	imds, network, throttle, slow   int // excused: what the caller could not have had
	least                           time.Duration
	clock                           int
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
	switch {
	case c.role.best > aws && b.skewNow() == s.aws:
		n.lost++
	case within(cutAt, max(from-10*time.Second, 0)):
		n.network++
		// An outage shorter than what is left at any time is not felt by whose
		// profile was active before it, unless the machine slept into it.
		slept := len(s.sleeps) > 0 && s.sleeps[len(s.sleeps)-1].at > from-c.role.life
		begun := cutBegins(max(from-10*time.Second, 0)) - 5*minute
		if c.role.life >= hour && !slept && c.servedBy > s.started && c.servedBy <= begun && from-c.served < idleAfter-2*minute {
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

// wake is the bubble's time at which AWS's clock shows at.
func (s *sim) wake(at time.Duration) time.Duration {
	for _, x := range s.sleeps {
		switch {
		case at <= x.at:
			return at
		case at <= x.at+x.length:
			return x.at
		}
		at -= x.length
	}
	return at
}

// awsAt is AWS's clock at the bubble's time t.
func (s *sim) awsAt(t time.Duration) time.Duration {
	sum := t
	for _, x := range s.sleeps {
		if x.at <= t {
			sum += x.length
		}
	}
	return sum
}

// ideal is how many calls the rule of DESIGN §6.2 needs for a link that is
// asked for at the given times: without jitter, every call good, each made
// as late as the rule lets it and never in vain.
func (s *sim) ideal(l *simLink, asked []time.Duration, end time.Duration) int {
	next := func(t time.Duration) time.Duration { // the first call from t on
		i := sort.Search(len(asked), func(i int) bool { return asked[i] >= t })
		if i == len(asked) {
			return end + 1
		}
		return asked[i]
	}
	t := time.Duration(0)
	if !l.pinned {
		t = next(0)
	}
	n := 0
	for t <= end {
		t = calmFrom(t)
		n++
		due := s.wake(s.awsAt(t) + l.life - threshold(l.life))
		if l.pinned || next(max(due-idleAfter, 0)) <= due {
			t = due
			continue
		}
		t = next(due)
	}
	return n
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

	st := simStore{newStore(), s}
	stop := s.start(t, st, all, pinned)
	var wg sync.WaitGroup
	for _, c := range callers {
		wg.Go(func() { c.run(t, s, end) })
	}
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
		if base := c.role.base; base != nil {
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
		lines = append(lines, fmt.Sprintf("%-20s %4d %8d %7d %4d %4d | %5d %5d %5d %4d %4d | %7d %6d %6d %6.3f %6d | %8v %6v",
			name, c.profiles, c.calls, c.waited, c.expired, c.lost, c.network, c.throttle, c.imds, c.slow, c.clock,
			c.ideal, c.goodCalls, c.badCalls, float64(c.goodCalls+c.badCalls)/float64(max(c.ideal, 1)), c.off,
			c.least.Round(time.Second), c.maxWait.Round(time.Second)))
	}
	for _, g := range groups {
		c := counts[g.name]
		row(g.name, c)
		total.add(c)
		for _, e := range c.examples {
			t.Errorf("%s: %s", g.name, e)
		}
	}
	row("sessions of keys", sessions)
	total.add(sessions)
	row("all", total)
	t.Logf("%v with %d suspends, %d clock jumps, %d restarts; %d probes, %d of them found a way; at most %d calls at once\n%-20s %4s %8s %7s %4s %4s | %5s %5s %5s %4s %4s | %7s %6s %6s %6s %6s | %8s %6s\n%s",
		end, len(s.sleeps), jumps, restarts, s.probes, s.vain, s.most,
		"lifetime", "prof", "callers", "waited", "exp", "lost", "net", "thr", "imds", "slow", "clk", "needed", "good", "bad", "ratio", "unrch", "least", "wait",
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
	n.goodCalls += c.goodCalls
	n.badCalls += c.badCalls
	n.ideal += c.ideal
	n.off += c.off
	n.maxWait = max(n.maxWait, c.maxWait)
	if n.least == 0 || c.least > 0 && c.least < n.least {
		n.least = c.least
	}
}
