package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyfob/internal/cred"
)

// pokeMinder makes the minder look at all links again.
func (b *Broker) pokeMinder() {
	select {
	case b.poked <- struct{}{}:
	default:
	}
}

// minder wakes refreshers when a refresh is due or a back-off has ended, and
// gives up entries that nobody asks for. It has the broker's only timer,
// which never sleeps longer than maxTick while links are active and does not
// run while none is. inner is the context of the probes that it starts.
func (b *Broker) minder(ctx, inner context.Context) {
	timer := time.NewTimer(maxTick)
	timer.Stop()
	defer timer.Stop()
	var scratch []minded
	last := time.Now()
	idleSeen := b.minute(last)
	for {
		now := time.Now()
		if d := last.Add(lull).Sub(now); d > 0 && len(scratch) > crowd {
			// The ends of many attempts are looked at together.
			timer.Reset(d)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			now = time.Now()
		}
		b.voidSkew(last, now)
		last = now
		if m := b.minute(now); m != idleSeen {
			idleSeen = m
			b.dropIdle(now)
		}
		var sleep time.Duration
		sleep, scratch = b.look(inner, now, scratch)
		if sleep > 0 {
			timer.Reset(sleep)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-b.poked:
		case <-timer.C:
			// The vault may be open again.
			for _, m := range scratch {
				if m.link.unsaved.Load() {
					m.link.poke()
				}
			}
		}
	}
}

// minded is a link with what Broker.mu guards of it.
type minded struct {
	link           *link
	wanted, pinned bool
}

// look starts what is due and returns how long to sleep, 0 for until poked.
func (b *Broker) look(ctx context.Context, now time.Time, scratch []minded) (time.Duration, []minded) {
	scratch = scratch[:0]
	b.mu.Lock()
	for _, l := range b.links {
		scratch = append(scratch, minded{l, l.last > 0, l.pinned > 0})
	}
	b.mu.Unlock()
	if len(scratch) == 0 {
		return 0, scratch
	}
	sleep := maxTick
	var ending []*link           // that need a person soon
	var offline map[string]*link // one for each upstream that is waited for
	for _, m := range scratch {
		o := m.link.mind(now, m.wanted, m.pinned)
		if o.wait > 0 {
			sleep = min(sleep, o.wait)
		}
		if o.ending {
			ending = append(ending, m.link)
		}
		if o.offline != "" {
			if offline == nil {
				offline = map[string]*link{}
			}
			offline[o.offline] = m.link
		}
	}
	if d := b.probes(ctx, now, offline); d > 0 {
		sleep = min(sleep, d)
	}
	if len(ending) > 0 && b.cfg.Announce != nil {
		b.announce(now, ending)
	}
	b.mindSignIns(ctx, now, scratch)
	return sleep, scratch
}

// outlook is what the minder sees of a link.
type outlook struct {
	wait    time.Duration // when to look again, 0 for not before something happens
	offline string        // the upstream that its back-off waits for, or ""
	ending  bool          // its session is to be announced
}

// mind starts an attempt if one is due without a caller, or tells when to
// look again. wanted says that the link's own credentials are handed out,
// pinned that this never pauses.
//
// A session that is good is refreshed when due. One that has ended is fetched
// again only for who hands it out, and at first only if it is pinned: a role
// that was never granted is not asked for all day.
func (l *link) mind(now time.Time, wanted, pinned bool) (o outlook) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.cur.Load()
	var age time.Duration
	if p != nil {
		age = p.age(now, l.b.skew.Load())
		o.ending = age >= p.tell && age < p.left && !p.told.Load()
	}
	if l.flight != nil {
		return o
	}
	if l.offline != "" && l.retryAt.After(now) {
		o.offline = l.offline
	}
	o.wait = l.next(now, p, age, wanted, pinned)
	return o
}

// next starts the attempt that is due and returns 0, or returns when to look
// again, 0 for not before something happens. mu is held.
func (l *link) next(now time.Time, p *published, age time.Duration, wanted, pinned bool) time.Duration {
	switch {
	case p != nil && age < p.left:
		if age < p.due {
			if p.due == never {
				if age < p.tell {
					return p.tell - age
				}
				return p.left - age
			}
			return p.due - age
		}
	case !pinned && !(wanted && l.had && (p == nil || p.due != never)):
		return 0
	}
	if l.asked != nil && !unlockNeeded(l.asked) {
		return 0
	}
	if l.asked != nil {
		if d := l.askedAt.Add(recheckAfter).Sub(now); d > 0 {
			return d
		}
	}
	if d := l.retryAt.Sub(now); d > 0 {
		return d
	}
	if d := l.autoAt.Sub(now); d > 0 && l.below != nil && l.below.seq.Load() == l.belowSeq {
		return d
	}
	test := false
	if l.canWait(p, age) {
		var d time.Duration
		if d, test = l.b.brake.wait(l.upstream, now); d > 0 {
			return d
		}
	}
	l.start(want{mode: modeAuto}).test = test
	return 0
}

// dropIdle gives up entries that nobody asked for in idleAfter.
func (b *Broker) dropIdle(now time.Time) {
	limit := b.minute(now) - int64(idleAfter/time.Minute)
	if limit <= 0 {
		return
	}
	idle := func(e *entry) bool { return !e.pinned && e.use.last.Load() < limit }
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.view.Load()
	all := v.entries()
	var stay []*entry
	for _, e := range all {
		if !idle(e) {
			stay = append(stay, e)
			continue
		}
		b.log.WithField("profile", e.profile).Debug("profile is given up until somebody asks for it")
		b.dropEntry(e)
	}
	if len(stay) < len(all) {
		b.view.Store(v.only(stay))
	}
}

// voidSkew forgets what is known of AWS's clock once ours was set or stood
// still: the next answer tells it anew.
func (b *Broker) voidSkew(last, now time.Time) {
	if !jumped(last, now) {
		return
	}
	b.mu.Lock()
	void := b.skewAt.IsZero() || jumped(b.skewAt, now)
	if void {
		b.skewAt = time.Time{}
	}
	b.mu.Unlock()
	if void && b.skew.Load() != 0 {
		b.applySkew(0, false)
	}
}

// Wake ends the back-off of every link that has to do with profile, and of
// the links that share a chain with one: something that they lacked was
// added, signed in or unlocked. "" is all links.
func (b *Broker) Wake(profile string) {
	b.mu.Lock()
	touched := b.keysOfProfile(profile)
	woken := map[*link]bool{}
	for _, e := range b.view.Load().entries() {
		hit := profile == "" || e.profile == profile
		for l := e.last; l != nil && !hit; l = l.below {
			spec, _ := l.source()
			hit = touched[l.key] || spec.Profile == profile
		}
		for l := e.last; l != nil && hit; l = l.below {
			woken[l] = true
		}
	}
	b.mu.Unlock()
	for l := range woken {
		l.wake()
	}
	b.gens.flush(b)
	b.pokeMinder()
}

// ForgetMemory is lock: every session in memory is dropped, and attempts
// under way give nothing. Until the vault is unlocked nothing is handed out,
// also of what the vault is not needed for.
func (b *Broker) ForgetMemory() {
	b.shut.Store(true)
	for _, l := range b.activeLinks() {
		l.forget(true)
	}
	b.pokeMinder()
}

// checkLock returns an error that Is cred.ErrLocked between ForgetMemory and
// the vault's being unlocked.
func (b *Broker) checkLock(ctx context.Context) error {
	if !b.shut.Load() {
		return nil
	}
	// Which record does not matter: a locked vault refuses all, an open one
	// answers something else.
	_, err := b.storeGet(ctx, generationPrefix)
	if errors.Is(err, cred.ErrLocked) {
		return lockedError()
	}
	if err != nil && !errors.Is(err, cred.ErrNotFound) {
		return fmt.Errorf("cannot tell whether the vault is unlocked: %w", err)
	}
	b.shut.Store(false)
	return nil
}
