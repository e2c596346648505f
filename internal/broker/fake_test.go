package broker

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
	"keyfob/profiles"
)

func TestMain(m *testing.M) {
	// The seed that rapid prints is enough to repeat a failure.
	_ = flag.Set("rapid.nofailfile", "true")
	goleak.VerifyTestMain(m)
}

// canary is part of every secret of the fake world: it must turn up in
// records alone.
const canary = "CANARY"

var self = peer.Caller{UID: "1000", PID: 77, Via: "unix"}

// world is a fake AWS with clock, counters and faults, and the Sources that
// call it.
type world struct {
	mu       sync.Mutex
	calls    map[string]int // "kind name", of calls that reached upstream
	life     map[profiles.Kind]time.Duration
	latency  time.Duration
	fail     func(kind profiles.Kind, name string) error // nil: all succeed
	mangle   func(*cred.Credentials)
	dead     map[string]bool // access key ids that AWS calls expired
	serial   int
	ends     map[string]time.Time // of what was given, by AWS's clock
	clock    time.Duration        // AWS's clock minus ours
	onAnswer func()
	noSource map[profiles.Kind]bool
	cut      map[string]bool // upstreams without a way to them
	dial     time.Duration   // how long a connect takes that finds no way
	probes   map[string]int  // connects by Reach, by upstream
	inside   int             // calls under way
	most     int             // the most there were at once

	policies map[string]string    // by access key id: what its session was narrowed by
	signIns  map[string]time.Time // ends of sign-ins, by name
	signLife time.Duration        // of the next sign-in
	signins  []*cred.Signin       // as sources got them
}

func newWorld() *world {
	return &world{
		calls: map[string]int{}, dead: map[string]bool{}, ends: map[string]time.Time{}, noSource: map[profiles.Kind]bool{},
		cut: map[string]bool{}, probes: map[string]int{}, policies: map[string]string{}, signIns: map[string]time.Time{}, signLife: 8 * time.Hour,
		life: map[profiles.Kind]time.Duration{profiles.KindSessionToken: 12 * time.Hour, profiles.KindAssumeRole: time.Hour, profiles.KindSSO: time.Hour},
	}
}

func (w *world) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for k, c := range w.calls {
		if strings.HasPrefix(k, what) {
			n += c
		}
	}
	return n
}

// setWay cuts the way to an upstream, or opens it again.
func (w *world) setWay(upstream string, open bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[upstream] = !open
}

func (w *world) probed(upstream string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.probes[upstream]
}

// busiest is the most calls that were under way at once.
func (w *world) busiest() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most
}

// connect fails while there is no way, after what a connect takes.
func (w *world) connect(ctx context.Context, upstream string) error {
	w.mu.Lock()
	cut, dial := w.cut[upstream], w.dial
	w.mu.Unlock()
	if !cut {
		return nil
	}
	for end := time.Now().Add(dial); time.Now().Before(end); {
		select {
		case <-time.After(time.Second): // a SYN again
		case <-ctx.Done():
			return ctx.Err()
		}
		w.mu.Lock()
		cut = w.cut[upstream]
		w.mu.Unlock()
		if !cut {
			return nil
		}
	}
	return errors.New("dial tcp: no way")
}

func (w *world) setFail(f func(kind profiles.Kind, name string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail = f
}

func (w *world) For(l profiles.Link) (cred.Source, error) {
	if w.noSource[l.Kind] {
		return nil, fmt.Errorf("cannot use links of kind %s", l.Kind)
	}
	if l.Kind == profiles.KindSSO {
		return &fakeSignIn{fakeSource{w: w, link: l}}, nil
	}
	return &fakeSource{w: w, link: l}, nil
}

type fakeSource struct {
	w    *world
	link profiles.Link
}

func (s *fakeSource) Interactive() bool { return s.link.Params["mfa_serial"] != "" }

// Upstream is the link's parameter "upstream", or "sts"; "-" is none.
func (s *fakeSource) Upstream() string {
	switch u := s.link.Params["upstream"]; u {
	case "":
		return "sts"
	case "-":
		return ""
	default:
		return u
	}
}

func (s *fakeSource) Reach(ctx context.Context) error {
	s.w.mu.Lock()
	s.w.probes[s.Upstream()]++
	s.w.mu.Unlock()
	return s.w.connect(ctx, s.Upstream())
}

func (s *fakeSource) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	w := s.w
	name := s.link.Params["name"]
	if s.link.Kind == profiles.KindStaticKeys {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.calls["static-keys "+name]++
		if w.fail != nil {
			if err := w.fail(s.link.Kind, name); err != nil {
				return cred.Credentials{}, err
			}
		}
		return cred.Credentials{AccessKeyID: "AKIA" + name, SecretAccessKey: cred.NewSecret(canary + "-static")}, nil
	}
	if s.Interactive() {
		code, err := in.Ask.Ask(ctx, in.Key, cred.Question{Kind: cred.AskMFA, Profile: in.Profile, Serial: s.link.Params["mfa_serial"]})
		if err != nil {
			return cred.Credentials{}, err
		}
		if code.Reveal() != "123456" {
			return cred.Credentials{}, &cred.UpstreamError{Op: "GetSessionToken", Code: "AccessDenied", Status: 403, Message: "cannot use this MFA code", Refused: true, Err: wrongCodeError{}}
		}
	}
	if err := w.connect(ctx, s.Upstream()); err != nil {
		return cred.Credentials{}, &cred.UpstreamError{Op: "AssumeRole", Message: "cannot reach AWS: connection refused", Err: err}
	}
	w.mu.Lock()
	latency := w.latency
	w.calls[string(s.link.Kind)+" "+name]++
	w.inside++
	w.most = max(w.most, w.inside)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.inside--
		w.mu.Unlock()
	}()
	select {
	case <-time.After(latency):
	case <-ctx.Done():
		return cred.Credentials{}, &cred.UpstreamError{Op: "call", Message: "cannot reach AWS: no answer", Err: ctx.Err()}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.onAnswer != nil {
		w.onAnswer()
	}
	if w.fail != nil {
		if err := w.fail(s.link.Kind, name); err != nil {
			return cred.Credentials{}, err
		}
	}
	if w.dead[in.Base.AccessKeyID] {
		return cred.Credentials{}, &cred.UpstreamError{Op: "AssumeRole", Code: "ExpiredToken", Status: 403, Message: "cannot assume the role: the base session has ended", Refused: true}
	}
	w.serial++
	c := cred.Credentials{
		AccessKeyID:     fmt.Sprintf("ASIA%s%d", name, w.serial),
		SecretAccessKey: cred.NewSecret(canary + "-secret"), SessionToken: cred.NewSecret(canary + "-token"),
		Expires: time.Now().Add(w.clock + w.life[s.link.Kind]).UTC(), AccountID: "111122223333", RoleARN: s.link.RoleARN,
	}
	w.ends[c.AccessKeyID] = c.Expires
	w.policies[c.AccessKeyID] = s.link.Params["session_policy_inline"] + s.link.Params["session_policy_arns"]
	if w.mangle != nil {
		w.mangle(&c)
	}
	return c, nil
}

type wrongCodeError struct{}

func (wrongCodeError) Error() string   { return "wrong code" }
func (wrongCodeError) WrongCode() bool { return true }

// set is a Resolver of profiles made by hand.
type set map[string]*profiles.Profile

func (s set) Resolve(q profiles.Query) (*profiles.Profile, error) {
	p := s[q.Profile]
	if p == nil {
		return nil, &profiles.Error{Message: "cannot find profile " + q.Profile, Unknown: true, Nearest: "dev"}
	}
	c := *p
	if q.RoleARN != "" {
		c.Chain = append(slices.Clone(p.Chain), role(q.Profile, q.RoleARN))
	}
	if q.PolicyInline != "" || len(q.PolicyARNs) > 0 {
		c.Chain = slices.Clone(c.Chain)
		l := &c.Chain[len(c.Chain)-1]
		if l.Kind != profiles.KindAssumeRole {
			c.Err = &profiles.Error{Message: "cannot narrow profile " + q.Profile + " by a session policy", Help: "name a role"}
			return &c, nil
		}
		l.Params = maps.Clone(l.Params)
		if q.PolicyInline != "" {
			l.Params["session_policy_inline"] = q.PolicyInline
		}
		if len(q.PolicyARNs) > 0 {
			l.Params["session_policy_arns"] = strings.Join(q.PolicyARNs, ",")
		}
	}
	return &c, nil
}

func (s set) add(name string, chain ...profiles.Link) set {
	s[name] = &profiles.Profile{Name: name, Chain: chain}
	return s
}

func static(name string) profiles.Link {
	return profiles.Link{Kind: profiles.KindStaticKeys, Profile: name, Params: map[string]string{"name": name}}
}

func session(name, mfa string) profiles.Link {
	l := profiles.Link{Kind: profiles.KindSessionToken, Profile: name, Params: map[string]string{"name": name}}
	if mfa != "" {
		l.Params["mfa_serial"] = mfa
	}
	return l
}

func role(profile, name string) profiles.Link {
	return profiles.Link{Kind: profiles.KindAssumeRole, Profile: profile, RoleARN: "arn:aws:iam::111122223333:role/" + name,
		Params: map[string]string{"name": name}, Client: profiles.Client{Region: "us-east-1"}}
}

// store is a Store in memory with faults.
type store struct {
	mu     sync.Mutex
	m      map[string]string
	locked bool
	fail   error
	slow   time.Duration // of Put
}

func newStore() *store { return &store{m: map[string]string{}} }

func (s *store) lock(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locked = on
}

func (s *store) names(prefix string) []string {
	n, _ := s.List(context.Background(), prefix)
	return n
}

func (s *store) Get(_ context.Context, name string) (cred.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return cred.Secret{}, cred.ErrLocked
	}
	if s.fail != nil {
		return cred.Secret{}, s.fail
	}
	v, ok := s.m[name]
	if !ok {
		return cred.Secret{}, cred.ErrNotFound
	}
	return cred.NewSecret(v), nil
}

func (s *store) Put(_ context.Context, name string, v cred.Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked {
		return cred.ErrLocked
	}
	if s.fail != nil {
		return s.fail
	}
	time.Sleep(s.slow)
	s.m[name] = v.Reveal()
	return nil
}

func (s *store) Delete(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.m[name]; !ok {
		return cred.ErrNotFound
	}
	delete(s.m, name)
	return nil
}

func (s *store) List(_ context.Context, prefix string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, n := range slices.Sorted(maps.Keys(s.m)) {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	return names, nil
}

// asker is a person: absent until attached.
type asker struct {
	asked    atomic.Int32 // questions put to the person
	refusals atomic.Int32 // answered at once, because nobody is there
	mu       sync.Mutex
	answer   func(ctx context.Context, q cred.Question) (cred.Secret, error)
}

func (a *asker) attach(f func(context.Context, cred.Question) (cred.Secret, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = f
}

func (a *asker) Ask(ctx context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	a.mu.Lock()
	f := a.answer
	a.mu.Unlock()
	if f == nil {
		a.refusals.Add(1)
		return cred.Secret{}, &cred.InteractionError{Key: key, Kind: q.Kind, Profile: q.Profile,
			Message: "cannot get credentials for " + q.Profile + ": a code is needed", Help: "keyfob login " + q.Profile}
	}
	a.asked.Add(1)
	return f(ctx, q)
}

func after(d time.Duration, code string) func(context.Context, cred.Question) (cred.Secret, error) {
	return func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		select {
		case <-time.After(d):
			return cred.NewSecret(code), nil
		case <-ctx.Done():
			return cred.Secret{}, ctx.Err()
		}
	}
}

// rules lets one user in.
type rules struct{}

func (rules) Check(c peer.Caller, _ string, _ cred.Endpoint) error {
	if c.UID != self.UID {
		return fmt.Errorf("not %s: %w", self.UID, cred.ErrDenied)
	}
	return nil
}

func (rules) Policy(string) string  { return "" }
func (rules) Protected(string) bool { return false }

// rig is a broker in the fake world.
type rig struct {
	rules   Checker // of start, nil: rules{}
	confirm func(context.Context, cred.Request) error
	t       *testing.T
	w       *world
	store   *store
	ask     *asker
	b       *Broker
	log     *bytes.Buffer
	logMu   sync.Mutex
	stop    func()
	onLog   func(line string) // called by who logs, one at a time
	told    []Announcement    // guarded by logMu
	fetched []cred.LinkKey    // guarded by logMu
}

func (r *rig) Write(p []byte) (int, error) {
	if f := r.onLog; f != nil {
		f(string(p))
	}
	r.logMu.Lock()
	defer r.logMu.Unlock()
	return r.log.Write(p)
}

func (r *rig) logged() string {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	return r.log.String()
}

func (r *rig) announced() []Announcement {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	return slices.Clone(r.told)
}

func newRig(t *testing.T, s Resolver) *rig { return newRigOf(t, s, rules{}) }

func newRigOf(t *testing.T, s Resolver, c Checker) *rig {
	r := &rig{t: t, w: newWorld(), store: newStore(), ask: &asker{}, log: &bytes.Buffer{}, rules: c}
	r.start(s)
	return r
}

// start runs a broker, a new one after stop: a restart of the daemon.
func (r *rig) start(s Resolver) {
	l := logrus.New()
	l.SetOutput(io.Writer(r))
	l.SetLevel(logrus.DebugLevel)
	r.b = New(Config{Sources: r.w, Store: r.store, Asker: r.ask, Rules: r.rules, Log: logrus.NewEntry(l),
		Confirm: func(ctx context.Context, q cred.Request) error {
			if r.confirm == nil {
				return cred.ErrDenied
			}
			return r.confirm(ctx, q)
		},
		Announce: func(a Announcement) {
			r.logMu.Lock()
			defer r.logMu.Unlock()
			r.told = append(r.told, a)
		},
		Fetched: func(key cred.LinkKey) {
			r.logMu.Lock()
			defer r.logMu.Unlock()
			r.fetched = append(r.fetched, key)
		}})
	r.b.SetProfiles(s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.b.Run(ctx); err != nil {
			r.t.Error(err)
		}
	}()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			<-done
		})
	}
}

func (r *rig) get(profile string) (*cred.Snapshot, error) {
	return r.getAs(profile, false, time.Minute)
}

func (r *rig) getAs(profile string, mayAsk bool, limit time.Duration) (*cred.Snapshot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return r.b.Get(ctx, cred.Request{Caller: self, Profile: profile, MayAsk: mayAsk})
}

func (r *rig) must(profile string) *cred.Snapshot {
	r.t.Helper()
	s, err := r.get(profile)
	if err != nil {
		r.t.Fatalf("get %s at %v: %v", profile, time.Now(), err)
	}
	if !s.Expires.After(time.Now()) {
		r.t.Fatalf("get %s at %v: expired at %v", profile, time.Now(), s.Expires)
	}
	return s
}

func (r *rig) wantCalls(what string, n int) {
	r.t.Helper()
	if got := r.w.count(what); got != n {
		r.t.Fatalf("%s: %d calls, want %d", what, got, n)
	}
}

// bubble runs f with fake time and a rig that is stopped at its end, and
// looks for canaries in the log.
func bubble(t *testing.T, s Resolver, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, s)
		defer func() {
			r.stop()
			if strings.Contains(r.logged(), canary) {
				t.Errorf("a secret is in the log:\n%s", r.logged())
			}
		}()
		f(t, r)
	})
}

func networkDown(k profiles.Kind, _ string) error {
	if k == profiles.KindStaticKeys {
		return nil
	}
	return &cred.UpstreamError{Op: "AssumeRole", Message: "cannot reach AWS: connection refused", Err: errors.New("dial tcp: connection refused")}
}

func refused(k profiles.Kind, _ string) error {
	if k == profiles.KindStaticKeys {
		return nil
	}
	return &cred.UpstreamError{Op: "AssumeRole", Code: "AccessDenied", Status: 403, Message: "cannot assume the role: AccessDenied", Refused: true}
}
