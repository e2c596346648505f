package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// attempt makes one attempt and publishes what it gives.
func (l *link) attempt(ctx context.Context, f *flight) (*cred.Snapshot, error) {
	if err := l.b.checkLock(ctx); err != nil {
		return nil, err
	}
	// Also where a new one is wanted whatever there is: should that fail,
	// what the vault has is served.
	l.restore(ctx, f)
	if snap := l.enough(f); snap != nil {
		return snap, nil
	}
	below := want{mode: f.mode, profile: f.profile, signin: f.signin}
	var base *cred.Snapshot
	if l.below != nil {
		var err error
		if base, err = l.below.acquire(ctx, below); err != nil {
			return nil, &belowError{err}
		}
	}
	c, snap, err := l.fetch(ctx, f, base)
	if snap != nil {
		return snap, nil
	}
	if refused, ended := baseRefused(err); refused && base != nil {
		next, nerr := l.below.replace(ctx, base, ended, below)
		switch {
		case nerr != nil && interactionOf(nerr) != nil:
			// What mends it is more use than what AWS said. It counts as a
			// failure of this link, which has called AWS.
			return nil, nerr
		case nerr == nil && !sameKeys(next, base):
			if c, snap, err = l.fetch(ctx, f, next); snap != nil {
				return snap, nil
			}
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
	skew := l.b.skewNow()
	p := newPublished(c, now, now.Add(skew), now, skew, src.Interactive())
	if !l.publish(f, p) {
		return nil, errForgotten
	}
	if f.signin != nil {
		l.signs.Add(1)
	}
	l.log().WithFields(logrus.Fields{
		"access_key_id": c.AccessKeyID, "expires": p.snap.Expires,
	}).Info("session fetched")
	if l.b.cfg.Fetched != nil {
		l.b.cfg.Fetched(l.key)
	}
	l.save(ctx, f, p)
	return p.snap, nil
}

// enough returns the session that makes f's call unnecessary, or nil.
func (l *link) enough(f *flight) *cred.Snapshot {
	now := time.Now()
	p := l.cur.Load()
	if f.force || !l.good(p, now) {
		return nil
	}
	until := p.stale
	if f.mode == modeAuto {
		until = p.due
	}
	if p.age(now, l.b.skew.Load()) >= until {
		return nil
	}
	return p.snap
}

// fetch makes the one call of an attempt when there is room for it. A link
// that may wait for a person needs no room: people are not many. It returns
// a session instead where, after waiting, the call is no longer needed: what
// looked like the end of all sessions may have been our clock, as the first
// answer tells.
func (l *link) fetch(ctx context.Context, f *flight, base *cred.Snapshot) (c cred.Credentials, snap *cred.Snapshot, err error) {
	spec, src := l.source()
	ask := l.b.cfg.Asker
	if kept(spec.Kind) && !src.Interactive() {
		p := &pass{g: &l.b.gate, ctx: ctx, upstream: upstreamOf(src, l.key), ask: ask}
		if err := p.enter(!l.good(l.cur.Load(), time.Now())); err != nil {
			return cred.Credentials{}, nil, err
		}
		defer p.leave()
		if snap := l.enough(f); snap != nil {
			return cred.Credentials{}, snap, nil
		}
		if f.mode == modeAuto && !f.force && !f.test && l.b.brake.holds(p.upstream) && l.hasTime(time.Now()) {
			return cred.Credentials{}, nil, errBraked
		}
		defer func() { l.b.brake.answered(p.upstream, err, time.Now()) }()
		if _, ok := src.(cred.SignInSource); ok {
			ask = p
		}
	}
	c, err = l.call(ctx, f, base, ask)
	return c, nil, err
}

// call calls the source within the attempt's own deadline.
func (l *link) call(ctx context.Context, f *flight, base *cred.Snapshot, ask cred.Asker) (c cred.Credentials, err error) {
	spec, src := l.source()
	limit := cred.FetchTimeout
	if asksPerson(src) {
		limit = time.Duration(l.b.signin.Load())
	}
	// One that runs a program has the program's own limit.
	if x, ok := src.(interface{ Limit() time.Duration }); ok {
		limit = max(limit, x.Limit())
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if f.mode != modeAsk {
		ctx = cred.Unattended(ctx)
	}
	if kept(spec.Kind) {
		defer func() { l.b.count.attempt(err) }()
	}
	in := cred.Input{Key: l.key, Profile: f.profile, Ask: ask, Signin: f.signin}
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
	if f.mode == modeAsk && asksPerson(src) {
		if err := l.wayThere(ctx, f, src); err != nil {
			return c, err
		}
	}
	c, err = src.Fetch(ctx, in)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, cred.ErrUnavailable) {
		err = fmt.Errorf("cannot get credentials for %s: no answer within %v: %w", f.profile, limit, cred.ErrUnavailable)
	}
	return c, err
}

// wayThere fails where there is no way to the upstream: a person must not be
// asked for a code, or to sign in, in vain.
func (l *link) wayThere(ctx context.Context, f *flight, src cred.Source) error {
	r, ok := src.(Reacher)
	if !ok {
		return nil
	}
	err := reach(ctx, r)
	if err == nil || errors.Is(err, cred.ErrConfig) { // Fetch says it better
		return nil
	}
	return &cred.UpstreamError{Op: "connect", Target: upstreamOf(src, l.key), Err: err,
		Message: fmt.Sprintf("cannot get credentials for %s: %s cannot be reached, and so nobody was asked", f.profile, upstreamOf(src, l.key)),
		Help:    "check the network and try again"}
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
	l.restored, l.lapsed = true, false // an older record must not replace it
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
	counted := err != nil && !isBelow && !errors.Is(err, errForgotten) && !errors.Is(err, errBraked) && ctx.Err() == nil
	offline := ""
	if counted && noAnswer(err) {
		_, src := l.source()
		offline = upstreamOf(src, l.key)
	}

	l.mu.Lock()
	l.flight = nil
	recovered := err == nil && l.lastErr != nil
	switch {
	case l.epoch != f.epoch || ctx.Err() != nil:
		// Forgotten, or ending: it says nothing about the next attempt.
	case err != nil && f.refresh && l.good(l.cur.Load(), now):
		// Who asked for it is told. The session that there is stays as good
		// as it was.
	case err == nil:
		l.lastErr, l.asked = nil, nil
		l.failures, l.retryAt, l.offline = 0, time.Time{}, ""
		l.autoFails, l.autoAt = 0, time.Time{}
		l.seq.Add(1)
	case isBelow:
		l.lastErr, l.lastBelow = err, true
		l.autoFails++
		// With the link below, not between its attempts.
		if l.autoAt = belowAt; !belowAt.After(now) {
			l.autoAt = now.Add(backoff(l.autoFails))
		}
		l.belowSeq = l.below.seq.Load()
	case errors.Is(err, errForgotten), errors.Is(err, errBraked):
	case interactionOf(err) != nil && l.below == nil, interactionOf(err) != nil && asksPerson(l.src):
		l.lastErr, l.lastBelow, l.asked, l.askedAt = err, false, err, now
	default:
		l.lastErr, l.lastBelow, l.offline = err, false, offline
		if interactionOf(err) != nil {
			l.asked, l.askedAt = err, now
		}
		l.failures++
		l.retryAt = now.Add(pause(l.failures, err))
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
	l.signedIn(err == nil)
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
