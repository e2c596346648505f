package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
	"keyfob/profiles"
)

// Sources makes the Source of a link.
type Sources interface {
	// For returns the source of l, opening nothing. Its error says why
	// links of that kind can't be used.
	For(l profiles.Link) (cred.Source, error)
}

// Resolver turns a query into a chain of links; *profiles.Set is one.
type Resolver interface {
	Resolve(q profiles.Query) (*profiles.Profile, error)
}

// Checker decides who may have what; *access.RuleSet is one.
type Checker interface {
	// Check returns nil when c may have profile by the exit via, and an
	// error that Is cred.ErrDenied otherwise, the text of which is for the
	// log only. It must not allocate when it allows.
	Check(c peer.Caller, profile string, via cred.Endpoint) error
	// Policy is the session policy under which profile is handed out, by
	// SessionPolicy.Encode, "" for none.
	Policy(profile string) string
	// Protected reports whether a person confirms each program that gets
	// profile.
	Protected(profile string) bool
}

// Config is what a Broker works with. Sources and Store are required.
type Config struct {
	Sources Sources
	Store   cred.Store // sessions: records "session/<hex of the LinkKey>"
	Asker   cred.Asker // nil: nobody can be asked
	Rules   Checker    // nil: everybody is denied until SetRules
	Log     *logrus.Entry

	// Confirm asks a person whether r's program may have a protected
	// profile, or knows the answer. It is called after the rules said yes, by
	// callers that no grant let in, and not for a login, which hands out
	// nothing. nil: protected profiles are denied. Errors: one that Is
	// cred.ErrDenied after a no, *cred.InteractionError when nobody can be
	// asked.
	Confirm func(ctx context.Context, r cred.Request) error

	// SigninTimeout bounds one attempt of a link that may need a person;
	// 0 is ten minutes. Other links have cred.FetchTimeout.
	SigninTimeout time.Duration

	// Announce is told of sessions that end soon and that only a person can
	// renew, each once; nil: nobody is told. It is called on a goroutine of
	// its own, which Run joins: it must end within seconds.
	Announce func(Announcement)
	// Fetched is told of each link that got credentials: a question about it
	// that still waits is nobody's any more. Nil for nobody; it must not block.
	Fetched func(cred.LinkKey)
}

// Broker hands out credentials. Its methods are safe for concurrent use.
type Broker struct {
	cfg   Config
	log   *logrus.Entry
	birth time.Time // the origin of minutes of use, by its monotonic reading
	limit int       // maxEntries, less in tests

	view  atomic.Pointer[view] // what readers see; stored with mu held
	skew  atomic.Int64         // AWS's clock minus ours, ns
	poked chan struct{}        // cap 1: the minder has something to look at
	shut  atomic.Bool          // lock was asked for: nothing while the vault is locked

	wg     sync.WaitGroup // refreshers and sweeps; Add with mu held and closed false
	gens   generations
	denied denials
	net    network
	gate   gate
	brake  brake
	signs  signIns
	count  counters

	// mu guards what follows. It is held over Resolve and Sources.For, which
	// do no more than compute.
	mu       sync.Mutex
	resolver Resolver
	rules    Checker // those of view, for Resolve
	links    map[cred.LinkKey]*link
	pinned   map[Active]bool // by SetActive
	signin   atomic.Int64    // the time limit of an attempt that may ask a person
	started  bool
	closed   bool
	runCtx   context.Context // of Run
	swept    time.Time
	skewAt   time.Time // when AWS told its clock last, zero since ours was set
}

// New returns a Broker that knows no profile yet. It starts nothing: callers
// that need an attempt wait until Run.
func New(cfg Config) *Broker {
	if cfg.Asker == nil {
		cfg.Asker = noAsker{}
	}
	log := cfg.Log
	if log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		log = logrus.NewEntry(l)
	}
	b := &Broker{
		cfg: cfg, log: log, birth: time.Now(), limit: maxEntries,
		poked:  make(chan struct{}, 1),
		links:  map[cred.LinkKey]*link{},
		pinned: map[Active]bool{},
		gate:   gate{all: maxAttempts, each: maxAttemptsEach},
	}
	b.SetSigninTimeout(cfg.SigninTimeout)
	b.rules = checkerOf(cfg.Rules)
	b.view.Store(&view{rules: b.rules})
	return b
}

// SetSigninTimeout sets Config.SigninTimeout anew, for attempts that begin
// from now on; 0 is ten minutes.
func (b *Broker) SetSigninTimeout(d time.Duration) {
	if d == 0 {
		d = signinTimeout
	}
	b.signin.Store(int64(d))
}

// Run owns the refreshers and the minder. It returns after joining all of
// them once ctx ends; whoever waits then, or asks later, gets an error that
// Is cred.ErrUnavailable. It is called once.
func (b *Broker) Run(ctx context.Context) error {
	// The refreshers' context ends after the view says so, so that whoever
	// finds an ended link knows why.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	b.mu.Lock()
	if b.started || b.closed {
		b.mu.Unlock()
		return errors.New("cannot run the broker twice")
	}
	b.started, b.runCtx = true, inner
	for _, l := range b.links {
		b.launch(l)
	}
	b.mu.Unlock()

	b.minder(ctx, inner)

	b.mu.Lock()
	b.closed = true
	v := *b.view.Load()
	v.closed = true
	b.view.Store(&v)
	b.mu.Unlock()
	cancel()
	b.wg.Wait()
	return nil
}

// Get returns credentials of r.Profile for r.Caller: those in memory while
// they are good, else those of the attempt under way, for which it waits
// until ctx ends. A caller that leaves cancels nothing.
//
// Errors, to be told apart by errors.Is and errors.As: cred.ErrDenied (judged
// first, so that outsiders learn nothing of what exists),
// cred.ErrUnknownProfile, cred.ErrConfig, cred.ErrLocked,
// cred.ErrUnavailable, *cred.UpstreamError, *cred.InteractionError (also of
// Config.Confirm).
func (b *Broker) Get(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
	v := b.view.Load()
	if err := v.judge(&r); err != nil {
		return nil, b.deny(&r, err)
	}
	if snap := b.held(v, &r); snap != nil {
		return snap, nil
	}
	return b.getSlow(ctx, &r, want{}, (*link).acquire)
}

// Held is Get for whoever would make preparations before waiting: it returns
// what is in memory and good, or nil where Get would have to wait, to have a
// person confirm, or to fail.
func (b *Broker) Held(r cred.Request) *cred.Snapshot {
	v := b.view.Load()
	if v.judge(&r) != nil {
		return nil
	}
	return b.held(v, &r)
}

// held returns the snapshot in memory that answers r, or nil.
func (b *Broker) held(v *view, r *cred.Request) *cred.Snapshot {
	e := v.find(r)
	if e == nil || v.closed || mustConfirm(e, r) {
		return nil
	}
	p := e.last.cur.Load()
	if p == nil {
		return nil
	}
	now := time.Now()
	age := p.age(now, b.skew.Load())
	if age >= p.stale {
		return nil
	}
	e.use.touch(b.minute(now), &r.Caller)
	if age >= p.due && !p.kicked.Load() && p.kicked.CompareAndSwap(false, true) {
		b.pokeMinder()
	}
	return p.snap
}

// Refresh is Get that fetches every session of the chain anew, in the order
// in which credentials flow, whatever there is and however recent the last
// failure; it is for a person who asks for it. Where that fails the sessions
// that there were stay.
func (b *Broker) Refresh(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
	if err := b.check(&r); err != nil {
		return nil, err
	}
	return b.getSlow(ctx, &r, want{force: true}, (*link).forceChain)
}

// Fresh is Get for a person who signs in: besides, every link of the chain
// that needs a person has afterwards a session that does not end soon (more
// is left than is announced), also where a role above is still good. Whoever
// has one that does is not asked. Back-offs of the chain end first. Where it
// fails the sessions that there were stay.
func (b *Broker) Fresh(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
	if err := b.check(&r); err != nil {
		return nil, err
	}
	woken := false
	return b.getSlow(ctx, &r, want{}, func(l *link, ctx context.Context, w want) (*cred.Snapshot, error) {
		if !woken {
			woken = true
			for x := l; x != nil; x = x.below {
				x.wake()
			}
			b.pokeMinder()
		}
		return l.freshChain(ctx, w)
	})
}

// judge applies the rules to r. A request that a grant opened was judged
// where the grant was looked at, by access.RuleSet.CheckGrant: it may be for
// users whom the rules of the endpoint alone would refuse.
func (v *view) judge(r *cred.Request) error {
	switch {
	case v.rules == nil:
		return errNoRules
	case r.Grant != "":
		return nil
	}
	return v.rules.Check(r.Caller, r.Profile, r.Via)
}

// check applies the rules to r.
func (b *Broker) check(r *cred.Request) error {
	if err := b.view.Load().judge(r); err != nil {
		return b.deny(r, err)
	}
	return nil
}

// getSlow is Get where the answer is not in memory; from gets it from the
// last link of r's chain.
func (b *Broker) getSlow(ctx context.Context, r *cred.Request, w want,
	from func(*link, context.Context, want) (*cred.Snapshot, error)) (*cred.Snapshot, error) {
	w.mode, w.profile, w.signin = modePlain, r.Profile, r.Signin
	if w.force {
		w.signin = signingIn(w.signin)
	}
	if r.MayAsk {
		w.mode = modeAsk
	}
	confirmed := false
	// A link may be given up by a reload between being found and being
	// asked; more than once in a row is not bad luck.
	for range 8 {
		ruling := b.view.Load().ruling
		if err := b.check(r); err != nil {
			return nil, err
		}
		e, err := b.activate(r)
		if err != nil {
			return nil, err
		}
		if !confirmed && mustConfirm(e, r) {
			if err := b.confirm(ctx, r); err != nil {
				return nil, err
			}
			confirmed = true
			continue // it took a while
		}
		e.use.touch(b.minute(time.Now()), &r.Caller)
		snap, err := from(e.last, ctx, w)
		if v := b.view.Load(); v.ruling != ruling {
			// The rules are others than those by which it began: they may
			// refuse r, narrow what it gets, or want a person's yes.
			if now := v.find(r); v.judge(r) != nil || now == nil || now.last != e.last || now.protected != e.protected {
				continue
			}
		}
		switch {
		case errors.Is(err, errEnded):
			continue
		case err != nil:
			return nil, ownError(err, r.Profile)
		case !snap.Temporary():
			return nil, &fault{sentinel: cred.ErrConfig,
				err: fmt.Errorf("cannot hand out the long-lived keys of profile %s", r.Profile)}
		}
		return snap, nil
	}
	return nil, fmt.Errorf("cannot get credentials for %s while its settings change: %w", r.Profile, cred.ErrUnavailable)
}

// forceChain fetches l's session anew, and before it those of the links
// below that keep one.
func (l *link) forceChain(ctx context.Context, w want) (*cred.Snapshot, error) {
	if l.below != nil {
		if _, err := l.below.forceChain(ctx, w); err != nil {
			return nil, err
		}
	}
	return l.acquire(ctx, w)
}

// freshChain returns l's session after seeing to it that those of the links
// below that may need a person, and its own, do not end soon.
func (l *link) freshChain(ctx context.Context, w want) (*cred.Snapshot, error) {
	for below := l.below; below != nil; below = below.below {
		if below.mayNeedPerson() {
			if _, err := below.freshChain(ctx, w); err != nil {
				return nil, err
			}
			break
		}
	}
	w.signin = signingIn(w.signin)
	signs := l.signs.Load()
	snap, err := l.acquire(ctx, w) // rather the vault's than a new one
	if err != nil || l.signs.Load() != signs || !l.endsSoon(ctx, time.Now()) {
		return snap, err // or the source has just looked, with the person there
	}
	w.force = true
	return l.acquire(ctx, w)
}

// signingIn is the usual way to sign in where none was named. Sources get nil
// only where nobody wants to sign in now: a sign-in that lasts is used then.
func signingIn(how *cred.Signin) *cred.Signin {
	if how == nil {
		return &cred.Signin{}
	}
	return how
}

// endsSoon reports whether l needs a person and what is left of its session,
// or of the sign-in behind it, is no more than is announced. Of a sign-in
// that nobody knows it is assumed: its source looks without disturbing who
// has signed in.
func (l *link) endsSoon(ctx context.Context, now time.Time) bool {
	if ends, _, ok := l.signInEnds(ctx); ok {
		return !ends.After(now.Add(signInNotice))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.cur.Load()
	return l.src.Interactive() && (p == nil || p.age(now, l.b.skew.Load()) >= p.tell)
}

// ownError makes the need for a person, found on behalf of one profile of a
// shared link, that of the profile that asked: it must name what the caller
// knows.
func ownError(err error, profile string) error {
	ie, ok := err.(*cred.InteractionError)
	if !ok || ie.Profile == profile {
		return err // one that is wrapped has words of its own
	}
	c := *ie
	c.Profile = profile
	if c.Help == "keyfob login "+ie.Profile {
		c.Help = "keyfob login " + profile
	}
	const begin = "cannot get credentials for "
	if rest, ok := strings.CutPrefix(c.Message, begin+ie.Profile+":"); ok {
		c.Message = begin + profile + ":" + rest
	}
	return &c
}

// Chain returns the links of r's chain in the order in which credentials
// flow, and the keys under which they may ask a person: their own in the same
// order, then those of sign-ins that they share with other chains. The errors
// are those of Get that need no attempt. Callers that Get would deny are
// denied.
func (b *Broker) Chain(r cred.Request) ([]cred.LinkKey, []profiles.Link, error) {
	if err := b.check(&r); err != nil {
		return nil, nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.resolve(queryOf(&r))
	if err != nil {
		return nil, nil, err
	}
	keys := keysOf(p.Chain)
	for i, k := range keys {
		if ask, ok := b.askKey(k, p.Chain[i]); ok && !slices.Contains(keys, ask) {
			keys = append(keys, ask)
		}
	}
	return keys, p.Chain, nil
}

// SetSkew tells how far AWS's clock is ahead of ours (negative: behind), as
// an answer's Date header said. Ends of sessions are judged and advertised
// by it. It ends when our clock is set or the machine was suspended.
func (b *Broker) SetSkew(d time.Duration) {
	now := time.Now()
	b.mu.Lock()
	news := b.skewAt.IsZero()
	b.skewAt = now
	b.mu.Unlock()
	b.applySkew(d, news)
}

// applySkew judges and advertises by another skew. told says that it is
// AWS's word after a time in which nothing was known of its clock: then it
// counts although it may confirm what was assumed.
func (b *Broker) applySkew(d time.Duration, told bool) {
	old := time.Duration(b.skew.Swap(int64(d)))
	diff := d - old
	same := diff < time.Second && diff > -time.Second
	switch {
	case same && !told:
		return
	case same:
	case d == 0:
		b.log.Info("the clock is taken for right")
	default:
		b.log.WithField("skew", d.String()).Warn("the clock differs from that of AWS")
	}
	now := time.Now()
	for _, l := range b.activeLinks() {
		l.judgeBy(d, now, told || !same && d != 0)
	}
	b.pokeMinder()
}

func (b *Broker) skewNow() time.Duration { return time.Duration(b.skew.Load()) }

// minute is the minute of the broker's life by the monotonic clock, from 1: a
// suspend must not make every profile look unused.
func (b *Broker) minute(now time.Time) int64 { return int64(now.Sub(b.birth)/time.Minute) + 1 }
