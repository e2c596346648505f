package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"
	"sync/atomic"
	"testing"
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
	persons []*simPerson
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
	person         *simPerson // without whom neither it nor its base can be had
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
	x := &simSource{s: s, link: s.links[l.Params["name"]], static: l.Kind == profiles.KindStaticKeys, mfa: l.Params["mfa_serial"] != ""}
	if l.Kind == profiles.KindSSO {
		return &simSignIn{x}, nil
	}
	return x, nil
}

type simSource struct {
	s      *sim
	link   *simLink
	static bool
	mfa    bool
}

func (x *simSource) Interactive() bool { return x.mfa }
func (*simSource) Upstream() string    { return "sts" }

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
	if x.mfa {
		if _, err := in.Ask.Ask(ctx, in.Key, cred.Question{Kind: cred.AskMFA, Profile: in.Profile}); err != nil {
			return cred.Credentials{}, err
		}
	}
	good := l.good
	if x.mfa {
		defer func() {
			s.mu.Lock()
			l.person.wasted += 1 - (l.good - good)
			s.mu.Unlock()
		}()
	}
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
	if base := in.Base.AccessKeyID; base != "AKIA" && base != "" && s.ends[in.Base.AccessKeyID] <= t+s.aws {
		l.bad++
		return cred.Credentials{}, &cred.UpstreamError{Op: "AssumeRole", Code: "ExpiredToken", Status: 403, Message: "cannot assume the role: the session has ended", Refused: true}
	}
	l.good++
	s.serial++
	id := fmt.Sprintf("ASIA%d", s.serial)
	l.best = t + s.aws + l.life
	s.ends[id] = l.best
	if x.mfa {
		l.person.has(t, l.best)
	}
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
	b := New(Config{Sources: s, Store: st, Rules: rules{}, Log: logrus.NewEntry(log), Asker: s, Announce: s.announce})
	b.skew.Store(int64(s.wall))
	b.SetProfiles(set)
	b.SetActive(plain(pinned...))
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
		for { // AWS and the person
			t = calmFrom(t)
			there := s.personFrom(l, t)
			if there == t {
				break
			}
			t = there
		}
		if t > end {
			break
		}
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
