package sso

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"keyfob/internal/cred"
)

// Sessions is what the links of a daemon share: of each sign-in, the one
// refresh or question that is under way. It is safe for concurrent use and
// starts nothing of its own: what a Fetch starts, the last Fetch that waits
// for it joins.
type Sessions struct {
	mu  sync.Mutex // guards all
	all map[cred.LinkKey]*session
}

// NewSessions returns an empty Sessions.
func NewSessions() *Sessions { return &Sessions{all: map[cred.LinkKey]*session{}} }

func (x *Sessions) of(key cred.LinkKey) *session {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.all[key]
	if s == nil {
		s = &session{key: key}
		x.all[key] = s
	}
	return s
}

// Renew makes the next Fetch that comes with a Signin ask a person even if
// the session of that AskKey is good (login --force). A sign-in that fails
// leaves the session as it is. A key of no source does nothing.
func (x *Sessions) Renew(key cred.LinkKey) {
	x.mu.Lock()
	s := x.all[key]
	x.mu.Unlock()
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew = true
}

// session is one sign-in.
type session struct {
	key cred.LinkKey

	mu    sync.Mutex // guards the vault's record of key, from reading to writing it, and what follows
	op    *operation // under way, nil for none
	renew bool
	// unsaved is a record that could not be written. It is written before
	// its tokens are used; until then it is all there is of them.
	unsaved *record
	// retry is when a refresh may be tried again that failed while the
	// access token was good.
	retry time.Time
	// noted is the last trouble with the command line's cache that was
	// logged: not again at each look.
	noted string
}

// retryAfter is the pause after a refresh that failed while the access token
// was good.
const retryAfter = 30 * time.Second

// signInNotice is how much a sign-in must have left for a person who comes to
// sign in to be sent away; the broker announces ends as early.
const signInNotice = 30 * time.Minute

// step is what a caller must do for an access token.
type step int

const (
	useIt step = iota
	refreshIt
	signInAnew
)

// look is the tokens that there are.
type look struct {
	rec  *record
	own  *tokens // rec's
	cli  *tokens // of the command line's cache; nil for none
	list []*tokens
}

// see reads the vault and, where it may matter, the cache. mu is held.
func (s *session) see(ctx context.Context, in *signIn) (*look, error) {
	rec, err := s.load(ctx, in) // also where unsaved goes before: while the vault is locked nothing is used
	if err != nil {
		return nil, err
	}
	if s.unsaved != nil {
		if err := s.save(ctx, in, s.unsaved); err != nil {
			return nil, err
		}
		rec, s.unsaved = s.unsaved, nil
	}
	l := &look{rec: rec, own: &rec.tokens}
	l.list = append(l.list, l.own)
	share := in.share()
	if in.d.CacheDir == "" || !share && (rec.usable(l.own, time.Now()) || rec.refreshable(l.own, in.awsNow(ctx))) {
		return l, nil
	}
	l.cli = s.readCache(in)
	switch {
	case l.cli == nil || l.cli.access.Equal(l.own.access): // of ours more is known
	case share && l.cli.expires.After(l.own.expires):
		// The newer one is where the sign-in lives on. The command line
		// refreshes the same one, so that our refresh token may be used up.
		own := *l.own
		own.refresh = cred.Secret{}
		l.list = []*tokens{l.cli, &own}
	default:
		l.list = append(l.list, l.cli)
	}
	return l, nil
}

// refreshable are the tokens that may be refreshed, the best first.
func (l *look) refreshable(ctx context.Context, in *signIn) *tokens {
	aws := in.awsNow(ctx)
	for _, t := range l.list {
		if (t != l.cli || in.share()) && l.rec.refreshable(t, aws) {
			return t
		}
	}
	return nil
}

// usable is the access token that lasts longest, nil for none.
func (l *look) usable(now time.Time) (best *tokens) {
	for _, t := range l.list {
		if l.rec.usable(t, now) && (best == nil || t.expires.After(best.expires)) {
			best = t
		}
	}
	return best
}

// next decides. mu is held.
func (s *session) next(ctx context.Context, c *caller) (tokens, step, error) {
	l, err := s.see(ctx, c.signIn)
	if err != nil {
		return tokens{}, 0, err
	}
	now := time.Now()
	good, can := l.usable(now), l.refreshable(ctx, c.signIn)
	if c.in.Signin != nil && !c.signedIn {
		switch {
		case s.renew:
			return tokens{}, signInAnew, nil
		case can == nil && good != nil && good.expires.Sub(now) <= signInNotice:
			// Nothing prolongs it, and the person is here now.
			return tokens{}, signInAnew, nil
		case can == nil && good != nil && !good.refresh.IsZero() && slices.Contains(l.rec.spent, hashOf(good.refresh)):
			// AWS has refused to refresh it: it counts as ended.
			return tokens{}, signInAnew, nil
		}
	}
	switch {
	case good != nil && (!good.stale(now) || can == nil || now.Before(s.retry)):
		return *good, useIt, nil
	case can != nil:
		return tokens{}, refreshIt, nil
	}
	return tokens{}, signInAnew, nil
}

// token returns an access token, after a refresh or a sign-in where there is
// need; concurrent callers share either.
func (s *session) token(ctx context.Context, c *caller) (tokens, error) {
	for range 8 {
		s.mu.Lock()
		op := s.op
		if op == nil {
			t, what, err := s.next(ctx, c)
			if err != nil || what == useIt {
				s.mu.Unlock()
				return t, err
			}
			op = s.start(ctx, c, what)
		}
		op.waiters++
		s.mu.Unlock()

		err := s.wait(ctx, op, c)
		c.signedIn = c.signedIn || err == nil && op.what == signInAnew
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return tokens{}, err
		case errors.Is(err, errLeft):
			// Those who waited before us gave it up as we came.
		case op.what == refreshIt && op.failed(err):
			s.mu.Lock()
			l, err2 := s.see(ctx, c.signIn)
			s.mu.Unlock()
			if err2 != nil {
				return tokens{}, err2
			}
			good := l.usable(time.Now())
			if good == nil {
				return tokens{}, err
			}
			return *good, nil
		default:
			return tokens{}, err
		}
	}
	return tokens{}, fmt.Errorf("cannot get a session of %s: it changes all the time: %w", c.title(), cred.ErrUnavailable)
}

// refuse notes that AWS refused an access token.
func (s *session) refuse(ctx context.Context, c *caller, access cred.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.unsaved
	if rec == nil {
		var err error
		if rec, err = s.load(ctx, c.signIn); err != nil {
			return // a locked vault: the token is not used before it can be read again
		}
	}
	if slices.Contains(rec.refused, hashOf(access)) {
		return
	}
	rec.refused = addHash(rec.refused, access)
	c.log().Info("Identity Center has ended the session's access token")
	if err := s.save(ctx, c.signIn, rec); err != nil {
		s.unsaved = rec
	}
}

// ends is cred.SignInSource's SignInEnds.
func (s *session) ends(ctx context.Context, in *signIn) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.unsaved
	if rec == nil {
		var err error
		if rec, err = s.load(ctx, in); err != nil {
			return time.Time{}
		}
	}
	if rec.refreshable(&rec.tokens, in.awsNow(ctx)) || !rec.usable(&rec.tokens, time.Now()) {
		return time.Time{}
	}
	return rec.expires
}
