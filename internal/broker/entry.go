package broker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// maxEntries bounds how many ways of asking are active at once: regions and
// roles come from callers. Beyond it the one unused longest gives way.
const maxEntries = 4096

// variant is what of a request, besides the profile, decides its chain. The
// policy is the request's own; that of the rules is the same for all.
type variant struct {
	implicit     bool
	role, region string
	policy       string
}

// entry is one active way of asking: a profile and a variant, resolved to
// its last link. It is immutable but for use.
type entry struct {
	profile   string
	variant   variant
	last      *link
	pinned    bool
	protected bool // a person confirms each program
	use       *usage
}

// slot holds the entries of one profile. It is immutable.
type slot struct {
	plain    *entry // the variant of a bare name
	variants map[variant]*entry
}

// view is all that Get needs when the answer is in memory. It is immutable;
// writers make a new one under Broker.mu.
type view struct {
	closed bool
	rules  Checker
	ruling uint64 // counts the changes of rules
	slots  map[string]*slot
	count  int
}

// find returns the entry of r, or nil.
func (v *view) find(r *cred.Request) *entry {
	s := v.slots[r.Profile]
	if s == nil {
		return nil
	}
	if !r.Implicit && r.RoleARN == "" && r.Region == "" && r.Policy == "" {
		return s.plain
	}
	return s.variants[variantOf(r)]
}

func variantOf(r *cred.Request) variant {
	return variant{implicit: r.Implicit, role: r.RoleARN, region: r.Region, policy: r.Policy}
}

// entries returns all entries, in no order.
func (v *view) entries() []*entry {
	all := make([]*entry, 0, v.count)
	for _, s := range v.slots {
		if s.plain != nil {
			all = append(all, s.plain)
		}
		for _, e := range s.variants {
			all = append(all, e)
		}
	}
	return all
}

// with returns v with e in the place of its profile and variant.
func (v *view) with(e *entry) *view {
	n := *v
	n.slots = maps.Clone(v.slots)
	if n.slots == nil {
		n.slots = map[string]*slot{}
	}
	n.slots[e.profile] = n.slots[e.profile].with(e, &n.count)
	return &n
}

func (s *slot) with(e *entry, count *int) *slot {
	var n slot
	if s != nil {
		n = *s
	}
	if e.variant == (variant{}) {
		if n.plain == nil {
			*count++
		}
		n.plain = e
		return &n
	}
	n.variants = maps.Clone(n.variants)
	if n.variants == nil {
		n.variants = map[variant]*entry{}
	}
	if n.variants[e.variant] == nil {
		*count++
	}
	n.variants[e.variant] = e
	return &n
}

// only returns v with the given entries alone.
func (v *view) only(entries []*entry) *view {
	n := *v
	n.slots = make(map[string]*slot, len(entries))
	n.count = 0
	for _, e := range entries {
		n.slots[e.profile] = n.slots[e.profile].with(e, &n.count)
	}
	return &n
}

// activate returns the entry of r, made now if there is none.
func (b *Broker) activate(r *cred.Request) (*entry, error) {
	if v := b.view.Load(); !v.closed {
		if e := v.find(r); e != nil {
			return e, nil
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.view.Load()
	if v.closed {
		return nil, errShutdown(r.Profile)
	}
	if e := v.find(r); e != nil {
		return e, nil
	}
	e, err := b.makeEntry(queryOf(r), &usage{})
	if err != nil {
		return nil, err
	}
	if v.count >= b.limit {
		v = b.evict(v)
	}
	b.view.Store(v.with(e))
	b.pokeMinder()
	return e, nil
}

// evict gives up the entry that was unused longest. mu is held.
func (b *Broker) evict(v *view) *view {
	all := v.entries()
	var oldest *entry
	for _, e := range all {
		if !e.pinned && (oldest == nil || e.use.last.Load() < oldest.use.last.Load()) {
			oldest = e
		}
	}
	if oldest == nil {
		return v
	}
	b.dropEntry(oldest)
	return v.only(slices.DeleteFunc(all, func(e *entry) bool { return e == oldest }))
}

// makeEntry resolves q and takes its links into use. mu is held.
func (b *Broker) makeEntry(q query, use *usage) (*entry, error) {
	p, err := b.resolve(q)
	if err != nil {
		return nil, err
	}
	last, err := b.takeChain(q.profile, p.Chain)
	if err != nil {
		return nil, err
	}
	e := &entry{profile: q.profile, variant: q.variant, last: last, use: use,
		protected: b.protected(p),
		pinned:    b.isPinned(q.profile, q.variant)}
	last.refs++
	last.last++
	if e.pinned {
		last.pinned++
	}
	return e, nil
}

// dropEntry gives up what e uses. mu is held.
func (b *Broker) dropEntry(e *entry) {
	e.last.last--
	if e.pinned {
		e.last.pinned--
	}
	b.release(e.last)
}

// takeChain returns the last link of chain; links that exist are shared and
// take over the chain's settings, others are made. Nothing is changed when
// it fails. mu is held.
func (b *Broker) takeChain(owner string, chain []profiles.Link) (*link, error) {
	keys := keysOf(chain)
	sources := make([]cred.Source, len(chain))
	for i := range chain {
		if l := b.links[keys[i]]; l != nil && l.sameSpec(&chain[i]) {
			continue
		}
		src, err := b.cfg.Sources.For(chain[i])
		if err != nil {
			return nil, &fault{sentinel: cred.ErrConfig,
				err: fmt.Errorf("cannot get credentials for profile %s: %w", owner, err)}
		}
		sources[i] = src
	}
	var below *link
	for i := range chain {
		l := b.links[keys[i]]
		switch {
		case l == nil:
			l = &link{b: b, key: keys[i], below: below, owner: owner, kick: make(chan struct{}, 1), stop: make(chan struct{})}
			l.setSource(&chain[i], sources[i])
			if below != nil {
				below.refs++
			}
			b.links[l.key] = l
			if b.started {
				b.launch(l)
			}
		case sources[i] != nil:
			l.mu.Lock()
			l.setSource(&chain[i], sources[i])
			if !kept(l.spec.Kind) {
				l.cur.Store(nil) // read before they were changed
				l.epoch++
			}
			l.mu.Unlock()
		}
		below = l
	}
	return below, nil
}

// sameSpec reports whether l's source serves spec as well. Keys that stand
// in a file may change without their id.
func (l *link) sameSpec(spec *profiles.Link) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.spec
	if old == spec {
		return true
	}
	if old.Client.MaxAttempts != spec.Client.MaxAttempts || old.Client.RetryMode != spec.Client.RetryMode {
		return false
	}
	if old.Secrets == nil || spec.Secrets == nil {
		return old.Secrets == spec.Secrets
	}
	s1, t1 := old.Secrets.Reveal()
	s2, t2 := spec.Secrets.Reveal()
	return old.Secrets.AccessKeyID == spec.Secrets.AccessKeyID && s1 == s2 && t1 == t2
}

// launch starts l's refresher. mu is held, started is true, closed is false.
func (b *Broker) launch(l *link) {
	ctx := b.runCtx
	b.wg.Go(func() {
		l.run(ctx)
		if l.below != nil {
			b.mu.Lock()
			b.release(l.below)
			b.mu.Unlock()
		}
	})
}

// release gives back one reference to l; without any the refresher ends,
// and then gives back its reference to the link below. mu is held.
func (b *Broker) release(l *link) {
	l.refs--
	if l.refs > 0 {
		return
	}
	if b.links[l.key] == l {
		delete(b.links, l.key)
	}
	close(l.stop)
	if !b.started && l.below != nil {
		b.release(l.below)
	}
}

// activeLinks returns the links in use.
func (b *Broker) activeLinks() []*link {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.links))
}

// SetProfiles swaps what profiles are resolved by. Sessions of links that
// are in both old and new chains are kept, others end; who waits for one of
// those gets its result.
func (b *Broker) SetProfiles(r Resolver) {
	b.mu.Lock()
	b.resolver = r
	if !b.closed {
		b.remake(b.view.Load())
	}
	b.mu.Unlock()
	b.pokeMinder()
}

// remake resolves all entries of old anew and publishes them with whatever
// else it says. mu is held.
func (b *Broker) remake(old *view) {
	var next []*entry
	for _, e := range old.entries() {
		n, err := b.makeEntry(query{e.profile, e.variant}, e.use)
		if err != nil {
			// The next caller is told; the pinned have none.
			if e.pinned {
				b.log.WithField("profile", e.profile).WithError(err).Warn("active profile cannot be used")
			}
			continue
		}
		next = append(next, n)
	}
	v := old.only(next)
	if b.resolver != nil {
		v = b.addPinned(v)
	}
	b.view.Store(v)
	// After the new ones are made, so that what is shared never ends.
	for _, e := range old.entries() {
		b.dropEntry(e)
	}
}

// addPinned makes the entries of pinned profiles that have none. mu is held.
func (b *Broker) addPinned(v *view) *view {
	all := slices.SortedFunc(maps.Keys(b.pinned), func(x, y Active) int {
		return cmp.Or(cmp.Compare(x.Profile, y.Profile), cmp.Compare(x.Policy, y.Policy))
	})
	for _, a := range all {
		r := cred.Request{Profile: a.Profile, Policy: a.Policy}
		if v.find(&r) != nil {
			continue
		}
		e, err := b.makeEntry(queryOf(&r), &usage{})
		if err != nil {
			b.log.WithField("profile", a.Profile).WithError(err).Warn("active profile cannot be used")
			continue
		}
		v = v.with(e)
	}
	return v
}

// Active is what an endpoint hands out: a profile, under the endpoint's own
// session policy (cred.Request.Policy).
type Active struct{ Profile, Policy string }

// isPinned reports whether SetActive named this way of asking. mu is held.
func (b *Broker) isPinned(profile string, v variant) bool {
	return v == variant{policy: v.policy} && b.pinned[Active{profile, v.policy}]
}

// SetActive names what is active from the start and never idle: what
// endpoints hand out. It replaces the list before.
func (b *Broker) SetActive(active []Active) {
	b.mu.Lock()
	b.pinned = make(map[Active]bool, len(active))
	for _, a := range active {
		b.pinned[a] = true
	}
	if b.closed {
		b.mu.Unlock()
		return
	}
	v := b.view.Load()
	for _, e := range v.entries() {
		want := b.isPinned(e.profile, e.variant)
		if want == e.pinned {
			continue
		}
		n := *e
		n.pinned = want
		if want {
			n.last.pinned++
		} else {
			n.last.pinned--
		}
		v = v.with(&n)
	}
	if b.resolver != nil {
		v = b.addPinned(v)
	}
	b.view.Store(v)
	b.mu.Unlock()
	b.pokeMinder()
}

// SetRules swaps who may have what, and by which policies; nil denies
// everybody. Who waits is judged again before he gets anything.
func (b *Broker) SetRules(r Checker) {
	b.mu.Lock()
	v := *b.view.Load()
	v.rules = checkerOf(r)
	v.ruling++
	b.rules = v.rules
	if b.closed {
		b.view.Store(&v)
	} else {
		b.remake(&v)
	}
	b.mu.Unlock()
	b.pokeMinder()
}
