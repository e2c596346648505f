package broker

import (
	"context"
	"errors"
	"fmt"
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
	owner    string  // a profile that uses the link, for messages
	flight   *flight // the attempt under way or asked for, or nil
	epoch    uint64  // raised when the session is forgotten
	restored bool    // the vault was asked in this life
	had      bool    // there has been a session in this life
	ended    bool    // the refresher has returned

	failures int       // failed attempts in a row
	retryAt  time.Time // no attempt before it
	lastErr  error     // of the last attempt, nil after a success
	asked    error     // the last attempt ended because a person is needed
	askedAt  time.Time

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
	profile string // on whose behalf
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
			f, own = l.start(m, w.profile, w.force || w.not != nil), true
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

		select {
		case <-f.done:
		case <-ctx.Done():
			if rest != nil {
				return rest, nil
			}
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
func (l *link) start(m mode, profile string, force bool) *flight {
	if profile == "" {
		profile = l.owner
	}
	l.flight = &flight{mode: m, force: force, profile: profile, epoch: l.epoch, done: make(chan struct{})}
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

// attempt makes one attempt and publishes what it gives.
func (l *link) attempt(ctx context.Context, f *flight) (*cred.Snapshot, error) {
	if err := l.b.checkLock(ctx); err != nil {
		return nil, err
	}
	if !f.force {
		l.restore(ctx, f)
		now := time.Now()
		if p := l.cur.Load(); l.good(p, now) {
			until := p.stale
			if f.mode == modeAuto {
				until = p.due
			}
			if p.age(now, l.b.skew.Load()) < until {
				return p.snap, nil
			}
		}
	}
	var base *cred.Snapshot
	if l.below != nil {
		var err error
		if base, err = l.below.acquire(ctx, want{mode: f.mode, profile: f.profile}); err != nil {
			return nil, &belowError{err}
		}
	}
	c, err := l.fetch(ctx, f, base)
	if refused, ended := baseRefused(err); refused && base != nil {
		next, nerr := l.below.replace(ctx, base, ended, want{mode: f.mode, profile: f.profile})
		switch {
		case nerr != nil && interactionOf(nerr) != nil:
			// What mends it is more use than what AWS said. It counts as a
			// failure of this link, which has called AWS.
			return nil, nerr
		case nerr == nil && !sameKeys(next, base):
			c, err = l.fetch(ctx, f, next)
		}
	}
	if err != nil {
		return nil, err
	}
	now := time.Now()
	spec, src := l.source()
	if err := validate(&c, spec.Kind, now.Add(l.b.skewNow())); err != nil {
		return nil, err
	}
	if c.Expires.IsZero() {
		// Long-lived keys: read anew for each attempt of the link above
		// rather than kept in memory, so that a corrected secret counts.
		return &cred.Snapshot{Credentials: c, Fetched: now.Round(0).UTC()}, nil
	}
	p := newPublished(c, now, now, l.b.skewNow(), src.Interactive())
	if !l.publish(f, p) {
		return nil, errForgotten
	}
	l.log().WithFields(logrus.Fields{
		"access_key_id": c.AccessKeyID, "expires": p.snap.Expires,
	}).Info("session fetched")
	l.save(ctx, f, p)
	return p.snap, nil
}

// fetch makes the one call of an attempt, within its own deadline.
func (l *link) fetch(ctx context.Context, f *flight, base *cred.Snapshot) (c cred.Credentials, err error) {
	spec, src := l.source()
	limit := cred.FetchTimeout
	if src.Interactive() {
		limit = l.b.cfg.SigninTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	in := cred.Input{Key: l.key, Profile: f.profile, Ask: l.b.cfg.Asker}
	if base != nil {
		in.Base = base.Credentials
	}
	defer func() {
		// One link's fault must not end the daemon that serves all others.
		// The value is not logged: it may hold anything.
		if v := recover(); v != nil {
			l.log().WithField("panic", fmt.Sprintf("%T", v)).Error("source panicked")
			c, err = cred.Credentials{}, fmt.Errorf("cannot get credentials from a link of kind %s: internal error", spec.Kind)
		}
	}()
	c, err = src.Fetch(ctx, in)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, cred.ErrUnavailable) {
		err = fmt.Errorf("cannot get credentials for %s: no answer within %v: %w", f.profile, limit, cred.ErrUnavailable)
	}
	return c, err
}

// validate refuses answers that no program could use.
func validate(c *cred.Credentials, kind profiles.Kind, now time.Time) error {
	if c.AccessKeyID == "" || c.SecretAccessKey.IsZero() {
		return fmt.Errorf("cannot use the answer of a link of kind %s: it lacks a key: %w", kind, cred.ErrUnavailable)
	}
	standing := kind == profiles.KindStaticKeys || kind == profiles.KindEnvironmentKeys
	if c.Expires.IsZero() {
		switch {
		case standing && !c.SessionToken.IsZero():
			c.Expires = now.Add(unknownLife)
		case standing, kind == profiles.KindProcess && c.SessionToken.IsZero():
			return nil
		default:
			return fmt.Errorf("cannot use the answer of a link of kind %s: it has no expiration: %w", kind, cred.ErrUnavailable)
		}
	}
	if c.SessionToken.IsZero() {
		return fmt.Errorf("cannot use the answer of a link of kind %s: it has no session token: %w", kind, cred.ErrUnavailable)
	}
	left := c.Expires.Sub(now)
	if left <= 0 {
		err := fmt.Errorf("cannot use the answer of a link of kind %s: it ended at %s: %w", kind, c.Expires.UTC().Format(time.RFC3339), cred.ErrUnavailable)
		return cred.WithHint(err, "check this machine's clock")
	}
	if left > maxLifetime && kind != profiles.KindProcess {
		return fmt.Errorf("cannot use the answer of a link of kind %s: it claims to last until %s, longer than any session of AWS: %w",
			kind, c.Expires.UTC().Format(time.RFC3339), cred.ErrUnavailable)
	}
	return nil
}

// sameKeys reports whether two snapshots sign alike.
func sameKeys(a, b *cred.Snapshot) bool {
	return a.AccessKeyID == b.AccessKeyID && a.SecretAccessKey.Equal(b.SecretAccessKey) && a.SessionToken.Equal(b.SessionToken)
}

// replace returns another session than old, which AWS refused. ended says
// that AWS called it over: it is forgotten at once; otherwise it is kept
// until there is a new one. A session younger than replaceAfter is not
// replaced: old itself is returned.
func (l *link) replace(ctx context.Context, old *cred.Snapshot, ended bool, w want) (*cred.Snapshot, error) {
	now := time.Now()
	l.mu.Lock()
	p := l.cur.Load()
	mine := p != nil && p.snap == old
	if mine && p.age(now, l.b.skew.Load()) < replaceAfter && now.Sub(old.Fetched) < replaceAfter {
		l.mu.Unlock()
		return old, nil
	}
	if mine && ended {
		l.cur.Store(nil)
	}
	f := &flight{epoch: l.epoch}
	l.mu.Unlock()
	if mine && ended {
		l.log().Info("session was refused by AWS before its end")
		l.discard(ctx, f)
	}
	if mine {
		w.not = old
	}
	return l.acquire(ctx, w)
}

// publish makes p what readers see, unless the session was forgotten since
// f began.
func (l *link) publish(f *flight, p *published) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != f.epoch {
		return false
	}
	l.cur.Store(p)
	l.had = true
	l.restored = true // an older record must not replace it
	return true
}

// forgotten reports whether l's session was forgotten since f began.
func (l *link) forgotten(f *flight) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch != f.epoch
}

// finish notes the outcome of an attempt and releases who waits for it.
func (l *link) finish(ctx context.Context, f *flight, snap *cred.Snapshot, err error) {
	if err != nil && ctx.Err() != nil {
		err = errShutdown(f.profile)
	}
	now := time.Now()
	var below *belowError
	isBelow := errors.As(err, &below)
	if isBelow {
		err = below.err
	}
	if errors.Is(err, errEnded) {
		err = errShutdown(f.profile)
	}
	var belowAt time.Time
	if isBelow {
		belowAt = l.below.nextTry()
	}
	counted := err != nil && !isBelow && !errors.Is(err, errForgotten) && ctx.Err() == nil

	l.mu.Lock()
	l.flight = nil
	recovered := err == nil && l.lastErr != nil
	switch {
	case l.epoch != f.epoch || ctx.Err() != nil:
		// Forgotten, or ending: it says nothing about the next attempt.
	case err == nil:
		l.lastErr, l.asked = nil, nil
		l.failures, l.retryAt = 0, time.Time{}
		l.autoFails, l.autoAt = 0, time.Time{}
		l.seq.Add(1)
	case isBelow:
		l.lastErr = err
		l.autoFails++
		// With the link below, not between its attempts.
		if l.autoAt = belowAt; !belowAt.After(now) {
			l.autoAt = now.Add(backoff(l.autoFails))
		}
		l.belowSeq = l.below.seq.Load()
	case errors.Is(err, errForgotten):
	case interactionOf(err) != nil && l.below == nil, interactionOf(err) != nil && l.src.Interactive():
		l.lastErr, l.asked, l.askedAt = err, err, now
	default:
		l.lastErr = err
		if interactionOf(err) != nil {
			l.asked, l.askedAt = err, now
		}
		l.failures++
		l.retryAt = now.Add(backoff(l.failures))
	}
	retryAt := l.retryAt
	l.mu.Unlock()

	if counted {
		l.logFailure(err, retryAt.Sub(now))
		var ue *cred.UpstreamError
		if errors.As(err, &ue) && ue.Skew != 0 {
			l.b.SetSkew(ue.Skew)
		}
	}
	if recovered {
		l.log().Info("session is fetched again after failures")
	}
	f.snap, f.err = snap, err
	close(f.done)
	l.b.pokeMinder()
}

func (l *link) logFailure(err error, pause time.Duration) {
	e := l.log().WithError(err)
	if interactionOf(err) != nil {
		e.Info("a person must act")
		return
	}
	var ue *cred.UpstreamError
	if errors.As(err, &ue) {
		e = e.WithFields(logrus.Fields{"code": ue.Code, "status": ue.Status, "refused": ue.Refused})
		if ue.Err != nil {
			e = e.WithField("cause", ue.Err.Error())
		}
	}
	if pause > 0 {
		e = e.WithField("retry_in", pause.Round(time.Millisecond).String())
	}
	e.Warn("session cannot be fetched")
}

// saveAgain writes a session that could not be written before.
func (l *link) saveAgain(ctx context.Context) {
	l.mu.Lock()
	f := &flight{epoch: l.epoch}
	p := l.cur.Load()
	l.mu.Unlock()
	if p == nil || !l.good(p, time.Now()) {
		l.unsaved.Store(false)
		return
	}
	l.save(ctx, f, p)
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
	l.restored = !restorable
	l.failures, l.retryAt = 0, time.Time{}
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
	l.failures, l.retryAt = 0, time.Time{}
	l.autoFails, l.autoAt = 0, time.Time{}
	l.asked = nil
	l.mu.Unlock()
	if l.unsaved.Load() {
		l.poke()
	}
}
