package broker

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// asksPerson reports whether an attempt of src may wait for a person.
func asksPerson(src cred.Source) bool {
	if _, ok := src.(cred.SignInSource); ok {
		return true
	}
	return src.Interactive()
}

func (l *link) mayNeedPerson() bool {
	_, src := l.source()
	return asksPerson(src)
}

// askKey returns the key of the sign-in behind a link of a chain, which need
// not be active. mu is held.
func (b *Broker) askKey(k cred.LinkKey, spec profiles.Link) (cred.LinkKey, bool) {
	if l := b.links[k]; l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.askKey, l.askKey != cred.LinkKey{}
	}
	if src, err := b.cfg.Sources.For(spec); err == nil {
		if s, ok := src.(cred.SignInSource); ok {
			return s.AskKey(), true
		}
	}
	return cred.LinkKey{}, false
}

// signedIn ends the need for a person of all links that share l's sign-in,
// once an attempt has shown that there is one; ok says that it has. Otherwise
// it is only to be looked at again.
func (l *link) signedIn(ok bool) {
	l.mu.Lock()
	key := l.askKey
	l.mu.Unlock()
	if (key == cred.LinkKey{}) {
		return
	}
	l.b.signs.changed(key)
	if !ok {
		return
	}
	for _, o := range l.b.activeLinks() {
		o.mu.Lock()
		if o != l && o.askKey == key && o.asked != nil {
			o.asked, o.lastErr = nil, nil
		}
		o.mu.Unlock()
	}
}

// pass is the place in the gate of an attempt that may find that a person
// must sign in. The place is given back while it asks: a person may take
// minutes, and fifty roles may wait for him.
type pass struct {
	g        *gate
	ctx      context.Context // of the attempt
	upstream string
	ask      cred.Asker

	mu     sync.Mutex // guards what follows, and is held over gate.enter
	asking int
	inside bool
	over   bool // the attempt has ended
}

func (p *pass) enter(urgent bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.g.enter(p.ctx, p.upstream, urgent)
	p.inside = err == nil
	return err
}

func (p *pass) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.out()
}

// out gives the place back. mu is held.
func (p *pass) out() {
	if p.inside {
		p.inside = false
		p.g.leave(p.upstream)
	}
}

// Ask asks without the place, and returns with it.
func (p *pass) Ask(ctx context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	p.mu.Lock()
	p.asking++
	p.out()
	p.mu.Unlock()
	answer, err := p.ask.Ask(ctx, key, q)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asking--
	if p.asking == 0 && !p.over && !p.inside {
		// When the attempt's time is over there is nothing to enter for.
		p.inside = p.g.enter(p.ctx, p.upstream, true) == nil
	}
	return answer, err
}

// signIns is what is known of the sign-ins behind active links. They are read
// once a minute while such links are active, and after each attempt.
type signIns struct {
	mu     sync.Mutex // guards what follows
	all    map[cred.LinkKey]*signIn
	looked time.Time // by the minder
}

type signIn struct {
	read    time.Time // when ends was read, zero for never
	reading bool
	ends    time.Time // zero while it is not known, or nobody has signed in
	seen    time.Time // when this end was seen first
	told    time.Time // the end that a person was told of
	loaded  bool      // told was looked up in the vault
}

// signInNotice is how long before its end a sign-in is announced: less where
// it was known for less than two hours.
const signInNotice = 30 * time.Minute

// changed makes the next look read the sign-in anew.
func (s *signIns) changed(key cred.LinkKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = time.Time{}
	if x := s.all[key]; x != nil {
		x.read = time.Time{}
	}
}

// of returns what is known of a sign-in. mu is held.
func (s *signIns) of(key cred.LinkKey) *signIn {
	x := s.all[key]
	if x == nil {
		x = &signIn{}
		if s.all == nil {
			s.all = map[cred.LinkKey]*signIn{}
		}
		s.all[key] = x
	}
	return x
}

// signInEnds returns when the sign-in behind l ends and the key of it, read
// now unless it was within a minute; ok is false when there is none behind l.
func (l *link) signInEnds(ctx context.Context) (ends time.Time, key cred.LinkKey, ok bool) {
	l.mu.Lock()
	src, key := l.src, l.askKey
	l.mu.Unlock()
	if (key == cred.LinkKey{}) {
		return time.Time{}, key, false
	}
	s := &l.b.signs
	s.mu.Lock()
	x := s.of(key)
	ends = x.ends
	fresh := !x.read.IsZero() && !jumped(x.read, time.Now()) && time.Since(x.read) < maxTick
	s.mu.Unlock()
	if fresh {
		return ends, key, true
	}
	l.b.readSignIn(ctx, key, src.(cred.SignInSource))
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of(key).ends, key, true
}

// readSignIn reads when a sign-in ends and, once that is soon, whether a
// person was told of it before a restart.
func (b *Broker) readSignIn(ctx context.Context, key cred.LinkKey, src cred.SignInSource) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	ends := signInEnds(ctx, src)
	if ctx.Err() != nil {
		return // what was read in no time says nothing
	}
	now := time.Now()
	s := &b.signs
	s.mu.Lock()
	x := s.of(key)
	if !near(x.ends, ends) {
		x.seen = now
	}
	x.ends, x.read = ends, now
	load := x.soon(now) && !x.loaded
	s.mu.Unlock()
	if !load {
		return
	}
	told, err := b.readTold(ctx, key)
	if err != nil {
		return // locked: told again rather than never
	}
	s.mu.Lock()
	x = s.of(key)
	x.loaded = true
	if x.told.IsZero() {
		x.told = told
	}
	s.mu.Unlock()
}

func signInEnds(ctx context.Context, src cred.SignInSource) (ends time.Time) {
	defer func() {
		if recover() != nil {
			ends = time.Time{} // one source's fault must not end the daemon
		}
	}()
	return src.SignInEnds(ctx)
}

// soon reports whether the sign-in ends within the notice.
func (x *signIn) soon(now time.Time) bool {
	return x.ends.After(now) && !x.ends.After(now.Add(min(signInNotice, x.ends.Sub(x.seen)/4)))
}

// known reports whether the person was told of this end.
func (x *signIn) known() bool { return near(x.told, x.ends) }

// near reports whether two times are the same end: the two times of one
// sign-in differ by what an answer takes.
func near(a, b time.Time) bool {
	d := a.Sub(b)
	return a.IsZero() == b.IsZero() && d < 2*time.Minute && d > -2*time.Minute
}

// mindSignIns reads, once a minute, the sign-ins behind the links that the
// minder looked at, and announces those that end soon. Only the minder calls
// it.
func (b *Broker) mindSignIns(ctx context.Context, now time.Time, links []minded) {
	s := &b.signs
	s.mu.Lock()
	if !s.looked.IsZero() && now.Sub(s.looked) < maxTick && !jumped(s.looked, now) {
		s.mu.Unlock()
		return
	}
	s.looked = now
	s.mu.Unlock()

	sources := map[cred.LinkKey]cred.SignInSource{}
	for _, m := range links {
		m.link.mu.Lock()
		if key := m.link.askKey; (key != cred.LinkKey{}) && sources[key] == nil {
			sources[key] = m.link.src.(cred.SignInSource)
		}
		m.link.mu.Unlock()
	}
	var ending []cred.LinkKey
	s.mu.Lock()
	for key, x := range s.all {
		if sources[key] == nil && !x.reading {
			delete(s.all, key) // what was told of it is in the vault
		}
	}
	for key, src := range sources {
		x := s.of(key)
		fresh := !x.read.IsZero() && now.Sub(x.read) < maxTick/2
		if fresh && x.soon(now) && !x.known() {
			ending = append(ending, key)
		}
		if x.reading || fresh {
			continue
		}
		x.reading = true
		b.wg.Go(func() {
			b.readSignIn(ctx, key, src)
			s.mu.Lock()
			x := s.of(key)
			x.reading = false
			again := x.soon(time.Now()) && !x.known()
			if again {
				s.looked = time.Time{}
			}
			s.mu.Unlock()
			if again && ctx.Err() == nil {
				b.pokeMinder()
			}
		})
	}
	s.mu.Unlock()
	if b.cfg.Announce != nil {
		for _, key := range ending {
			b.announceSignIn(ctx, now, key)
		}
	}
}

// announceSignIn tells of a sign-in that ends soon, where somebody asked
// lately for a profile that needs it.
func (b *Broker) announceSignIn(ctx context.Context, now time.Time, key cred.LinkKey) {
	var user *entry
	var kind profiles.Kind
	for _, e := range b.view.Load().entries() {
		if !b.usedLately(e, now) || user != nil && !e.laterThan(user) {
			continue
		}
		for l := e.last; l != nil; l = l.below {
			l.mu.Lock()
			if l.askKey == key {
				user, kind = e, l.spec.Kind
			}
			l.mu.Unlock()
		}
	}
	if user == nil {
		return
	}
	s := &b.signs
	s.mu.Lock()
	x := s.of(key)
	x.told = x.ends
	ends := x.ends
	s.mu.Unlock()
	b.tell(Announcement{Profile: user.profile, Kind: string(kind), Expires: ends, Hint: "keyfob login " + user.profile})
	b.wg.Go(func() { b.writeTold(ctx, key, ends) })
}

// toldPrefix is where it is noted in the Store, by the key of a sign-in, of
// which end a person was told.
const toldPrefix = "announced/"

type toldRecord struct {
	Version int       `json:"version"`
	Ends    time.Time `json:"ends"`
}

// readTold returns the zero time where nothing is noted.
func (b *Broker) readTold(ctx context.Context, key cred.LinkKey) (time.Time, error) {
	v, err := b.storeGet(ctx, toldPrefix+key.String())
	if errors.Is(err, cred.ErrNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	var r toldRecord
	if json.Unmarshal([]byte(v.Reveal()), &r) != nil || r.Version != recordVersion {
		return time.Time{}, nil
	}
	return r.Ends, nil
}

func (b *Broker) writeTold(ctx context.Context, key cred.LinkKey, ends time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	v, err := json.Marshal(toldRecord{Version: recordVersion, Ends: ends.UTC()})
	if err == nil {
		err = b.cfg.Store.Put(ctx, toldPrefix+key.String(), cred.SecretBytes(v))
	}
	if err != nil {
		b.log.WithError(err).Debug("that a person was told is kept in memory only")
	}
}

// sweepTold deletes the notes about sign-ins that have ended.
func (b *Broker) sweepTold(ctx context.Context) {
	names, err := b.cfg.Store.List(ctx, toldPrefix)
	if err != nil {
		return
	}
	for _, name := range names {
		v, err := b.storeGet(ctx, name)
		var r toldRecord
		if err != nil || json.Unmarshal([]byte(v.Reveal()), &r) != nil || r.Version != recordVersion || time.Since(r.Ends) < sweepEvery {
			continue
		}
		_ = b.cfg.Store.Delete(ctx, name) // again at the next sweep
	}
}

// tell announces on a goroutine that Run joins.
func (b *Broker) tell(a Announcement) {
	b.count.announced.Add(1)
	b.log.WithFields(logrus.Fields{"profile": a.Profile, "kind": a.Kind, "expires": a.Expires}).
		Info("a session that needs a person ends soon")
	b.wg.Go(func() { b.cfg.Announce(a) })
}
