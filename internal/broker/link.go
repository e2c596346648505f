package broker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// mode says on whose behalf a session is wanted.
type mode int

const (
	modeAuto  mode = iota // the minder, ahead of callers
	modePlain             // a caller that cannot wait for a person
	modeAsk               // a caller that can
)

// link is one active link of one or more chains: its session, and the
// refresher that alone makes attempts and publishes what they give.
type link struct {
	b     *Broker
	key   cred.LinkKey
	below *link // nil for a base link

	cur     atomic.Pointer[published] // nil: cold. Stored with mu held.
	seq     atomic.Uint64             // counts successes, so that links above see that it mended
	signs   atomic.Uint64             // counts the sessions that a person who signs in has got
	unsaved atomic.Bool               // cur could not be written to the vault
	kick    chan struct{}             // cap 1: there is something to do
	stop    chan struct{}             // closed when the last reference is gone

	// storeMu orders what is done with the record of this link: a session
	// that was forgotten must not be written after its deletion.
	storeMu sync.Mutex

	// mu guards what follows, and the order of stores to cur.
	mu       sync.Mutex
	spec     *profiles.Link
	src      cred.Source
	askKey   cred.LinkKey // of src where it is a cred.SignInSource, else zero
	owner    string       // a profile that uses the link, for messages
	flight   *flight      // the attempt under way or asked for, or nil
	epoch    uint64       // raised when the session is forgotten
	restored bool         // the vault was asked in this life
	lapsed   bool         // what it had has ended, by the clock as it was
	had      bool         // there has been a session in this life
	ended    bool         // the refresher has returned

	failures  int       // failed attempts in a row
	retryAt   time.Time // no attempt before it
	offline   string    // the upstream that gave the last attempt no answer, or ""
	lastErr   error     // of the last attempt, nil after a success
	lastBelow bool      // lastErr is of the link below
	asked     error     // the last attempt ended because a person is needed
	askedAt   time.Time

	autoFails int       // failures of the link below, seen by the minder
	autoAt    time.Time // no attempt by the minder before it
	belowSeq  uint64    // below.seq when autoAt was set

	// Guarded by Broker.mu.
	refs   int // entries and links above that use it
	last   int // entries whose last link it is
	pinned int // those among them that are pinned
}

// flight is one attempt, and everybody who waits for it. Its result is
// written before done is closed.
type flight struct {
	mode    mode
	force   bool   // fetch although there is a good session
	refresh bool   // a person asked for that, and nothing is wrong with the session
	profile string // on whose behalf
	signin  *cred.Signin
	test    bool // it looks whether an upstream limits the rate still
	epoch   uint64
	done    chan struct{}
	snap    *cred.Snapshot
	err     error
}

func (l *link) log() *logrus.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.log.WithFields(logrus.Fields{
		"profile": l.owner, "kind": string(l.spec.Kind), "link": l.key.Short(),
	})
}

// setSource changes what the link is fetched by. mu is held, or nobody else
// has l.
func (l *link) setSource(spec *profiles.Link, src cred.Source) {
	l.spec, l.src, l.askKey = spec, src, cred.LinkKey{}
	if s, ok := src.(cred.SignInSource); ok {
		l.askKey = s.AskKey()
	}
}

// upstream names the upstream of l. mu is held.
func (l *link) upstream() string { return upstreamOf(l.src, l.key) }

// source returns what the link is fetched by, as of the last reload.
func (l *link) source() (*profiles.Link, cred.Source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spec, l.src
}

// good reports whether p can be served now.
func (l *link) good(p *published, now time.Time) bool {
	return p != nil && p.age(now, l.b.skew.Load()) < p.left
}

// want says how acquire is to get a session.
type want struct {
	mode    mode
	profile string
	// signin is how the person wants to sign in. An attempt under way is
	// joined whatever it says.
	signin *cred.Signin
	// force asks for a new session although there is a good one.
	force bool
	// not is a session that will not do, because AWS refused it.
	not *cred.Snapshot
}

// acquire returns l's session, or waits for the attempt that makes one. The
// errors are those of the attempt; errEnded when l was given up.
func (l *link) acquire(ctx context.Context, w want) (*cred.Snapshot, error) {
	for {
		now := time.Now()
		l.mu.Lock()
		p := l.cur.Load()
		if p != nil && p.snap == w.not || !l.good(p, now) {
			p = nil
		}
		if p != nil && !w.force && p.age(now, l.b.skew.Load()) < p.stale {
			l.mu.Unlock()
			return p.snap, nil
		}
		if l.ended {
			l.mu.Unlock()
			return nil, errEnded
		}
		// What is left of a session is served if there will be no next one.
		var rest *cred.Snapshot
		m := w.mode
		if p != nil && !w.force {
			rest = p.snap
			m = min(m, modePlain) // nobody is asked while there is something left
		}
		f, own := l.flight, false
		switch {
		case f == nil:
			if !w.force {
				if err := l.blocked(now, m); err != nil {
					l.mu.Unlock()
					if rest != nil {
						return rest, nil
					}
					return nil, err
				}
			}
			as := w
			as.mode = m
			f, own = l.start(as), true
		case f.epoch != l.epoch, w.force && !f.force:
			// Its result will not do: wait for its end, then begin anew.
			l.mu.Unlock()
			select {
			case <-f.done:
				continue
			case <-ctx.Done():
				return nil, l.late(ctx, w.profile)
			}
		}
		l.mu.Unlock()
		if !own {
			l.b.count.joined.Add(1)
		}

		var half *time.Timer
		var over <-chan time.Time // what is left must not end while waiting for better
		if rest != nil {
			half = time.NewTimer((p.left - p.age(now, l.b.skew.Load())) / 2)
			over = half.C
		}
		late := false
		select {
		case <-f.done:
		case <-over:
			late = true
		case <-ctx.Done():
			late = true
		}
		if half != nil {
			half.Stop()
		}
		switch {
		case !late:
		case rest != nil && l.cur.Load() == p && l.good(p, time.Now()):
			return rest, nil
		case ctx.Err() == nil:
			continue // forgotten, or the machine slept
		default:
			return nil, l.late(ctx, w.profile)
		}
		if f.err == nil && f.snap != w.not {
			return f.snap, nil
		}
		if f.err == nil {
			continue // it was under way before the session was refused
		}
		// A failure replaces nothing: what is left is served, also what the
		// vault had.
		if p := l.cur.Load(); !w.force && w.not == nil && l.good(p, time.Now()) {
			return p.snap, nil
		}
		if errors.Is(f.err, errBraked) {
			continue // it made no attempt, and here is somebody who needs one
		}
		if m == modeAsk && !own && f.mode != modeAsk && interactionOf(f.err) != nil {
			continue // it began when nobody could be asked; now somebody can
		}
		return nil, f.err
	}
}

// late is what a caller whose deadline came first learns: the last answer
// where there is one, because it says more than the time.
func (l *link) late(ctx context.Context, profile string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lastErr != nil {
		return l.lastErr
	}
	return lateError(ctx, profile)
}

// blocked returns the error that stands instead of an attempt: the last one
// while its back-off lasts, or that a person is needed. mu is held.
func (l *link) blocked(now time.Time, m mode) error {
	if l.asked != nil {
		if m == modeAsk {
			return nil
		}
		if m == modeAuto && !unlockNeeded(l.asked) || now.Sub(l.askedAt) < recheckAfter {
			return l.asked
		}
	}
	if now.Before(l.retryAt) && !(m == modeAsk && wrongCode(l.lastErr)) {
		return l.lastErr
	}
	return nil
}

// wrongCode reports whether all that was wrong is the MFA code: the next
// attempt waits for a person anyway. Package sts says so by this method.
func wrongCode(err error) bool {
	var w interface{ WrongCode() bool }
	return errors.As(err, &w) && w.WrongCode()
}

// unlockNeeded reports whether it is the vault that a person must open.
// Looking again disturbs nobody then.
func unlockNeeded(err error) bool {
	ie := interactionOf(err)
	return ie != nil && ie.Kind == "unlock"
}

// start asks the refresher for an attempt. mu is held and flight is nil.
func (l *link) start(w want) *flight {
	if w.profile == "" {
		w.profile = l.owner
	}
	if w.mode != modeAsk {
		w.signin = nil // nobody can sign in for it
	}
	l.flight = &flight{mode: w.mode, force: w.force || w.not != nil, refresh: w.force, profile: w.profile, signin: w.signin,
		epoch: l.epoch, done: make(chan struct{})}
	l.poke()
	return l.flight
}

// poke wakes the refresher.
func (l *link) poke() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// run is the refresher: it makes the attempts that are asked for until l is
// given up, the attempt under way ended, or ctx ends.
func (l *link) run(ctx context.Context) {
	for {
		stopped := false
		select {
		case <-ctx.Done():
		case <-l.stop:
			stopped = true
		case <-l.kick:
		}
		l.mu.Lock()
		f := l.flight
		if ctx.Err() != nil || stopped && f == nil {
			l.ended = true
			l.flight = nil
			l.mu.Unlock()
			if f != nil {
				f.err = errShutdown(f.profile)
				close(f.done)
			}
			return
		}
		l.mu.Unlock()
		switch {
		case f != nil:
			snap, err := l.attempt(ctx, f)
			l.finish(ctx, f, snap, err)
		case l.unsaved.Load():
			l.saveAgain(ctx)
		}
	}
}

// forget drops the session in memory and what an attempt under way will
// give. The vault's record is the caller's affair.
func (l *link) forget(restorable bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	l.cur.Store(nil)
	l.unsaved.Store(false)
	l.had = false
	l.restored, l.lapsed = !restorable, false
	l.failures, l.retryAt, l.offline = 0, time.Time{}, ""
	l.autoFails, l.autoAt = 0, time.Time{}
	l.lastErr, l.asked = nil, nil
}

// nextTry is when the pause after the last failure ends.
func (l *link) nextTry() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.autoAt.After(l.retryAt) {
		return l.autoAt
	}
	return l.retryAt
}

// wake ends every back-off of l.
func (l *link) wake() {
	l.mu.Lock()
	l.failures, l.retryAt, l.offline = 0, time.Time{}, ""
	l.autoFails, l.autoAt = 0, time.Time{}
	l.asked = nil
	l.mu.Unlock()
	if l.unsaved.Load() {
		l.poke()
	}
}
