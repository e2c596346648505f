package oidc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"keyfob/internal/cred"
)

// Sessions is what the oidc links of a daemon share: of each sign-in, the one
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
// the sign-in of that AskKey is good (login --force). A sign-in that fails
// leaves what there was as it is.
func (x *Sessions) Renew(key cred.LinkKey) {
	s := x.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew = true
}

// Forget drops what is kept in memory alone: tokens that could not be
// written. A daemon whose vault is locked must hold none.
func (x *Sessions) Forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.all {
		s.mu.Lock()
		s.unsaved = nil
		s.mu.Unlock()
	}
}

// session is one sign-in.
type session struct {
	key cred.LinkKey

	mu    sync.Mutex // guards the vault's record of key, from reading to writing it, and what follows
	op    *operation // under way, nil for none
	renew bool
	// asking counts the calls of Ask that have not returned; idle is closed
	// when there is none any more, nil while there is none.
	asking int
	idle   chan struct{}
	// unsaved is a record that could not be written. It is written before
	// its tokens are used; until then it is all there is of them.
	unsaved *record

	// provider is what discovery said. Only the operation under way uses it,
	// or who has ended operations.
	provider *provider
}

// token is an ID token with what it says.
type token struct {
	id     cred.Secret
	claims claims
	since  time.Time
}

func (r *record) token() token { return token{r.id, r.claims, r.since} }

// caller is one Fetch.
type caller struct {
	*signIn
	in cred.Input
	// signedIn: the person has signed in within this Fetch.
	signedIn bool
}

// device: the person wants a code for another device's browser.
func (c *caller) device() bool { return c.in.Signin != nil && c.in.Signin.Device }

// step is what a caller must do for an ID token.
type step int

const (
	useIt step = iota
	refreshIt
	signInAnew
)

// signInNotice is how much a sign-in that nothing prolongs must have left for
// a person who comes to sign in to be sent away; the broker announces ends as
// early.
const signInNotice = 30 * time.Minute

// next decides. mu is held.
func (s *session) next(ctx context.Context, c *caller) (token, step, error) {
	r, err := s.see(ctx, c.signIn)
	if err != nil {
		return token{}, 0, err
	}
	now := c.awsNow(ctx)
	good, can := r.usable(now), r.refreshable(now)
	if c.in.Signin != nil && !c.signedIn &&
		(s.renew || good && !can && r.claims.expires.Sub(now) <= signInNotice) {
		return token{}, signInAnew, nil
	}
	switch {
	case good:
		return r.token(), useIt, nil
	case can:
		return token{}, refreshIt, nil
	}
	return token{}, signInAnew, nil
}

// token returns an ID token, after a refresh or a sign-in where there is
// need; concurrent callers share either.
func (s *session) token(ctx context.Context, c *caller) (token, error) {
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
		switch {
		case err == nil && op.what == refreshIt && c.in.Signin != nil && s.renewed():
			continue // the person wants to sign in, and this was none
		case err == nil:
			return op.got, nil
		case errors.Is(err, errAgain), errors.Is(err, errLeft):
			if ctx.Err() != nil {
				return token{}, ctx.Err()
			}
		default:
			return token{}, err
		}
	}
	return token{}, fmt.Errorf("cannot get a sign-in at %s: it changes all the time: %w", c.issuer, cred.ErrUnavailable)
}

func (s *session) renewed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renew
}

// recent is how long an ID token is not suspected: what AWS refuses then is
// not cured by another one.
const recent = time.Minute

// refused notes that AWS did not take an ID token, where another one may
// serve: an ended one, or one whose key the provider has withdrawn since.
func (s *session) refused(ctx context.Context, c *caller, t token, err error) {
	var up *cred.UpstreamError
	if !errors.As(err, &up) || time.Since(t.since) < recent {
		return
	}
	ended := strings.HasPrefix(up.Code, "ExpiredToken")
	if !ended && up.Code != "InvalidIdentityToken" && up.Code != "InvalidIdentityTokenException" && !strings.HasPrefix(up.Code, "IDPRejectedClaim") {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.see(ctx, c.signIn)
	if err != nil || !r.id.Equal(t.id) || !ended && !r.refreshable(time.Now()) {
		return // in doubt it is used again, and refused again
	}
	r.id, r.claims = cred.Secret{}, claims{}
	if err := s.keep(ctx, c.signIn, r); err != nil {
		c.log().WithError(err).Warn("that AWS refused an ID token is kept in memory alone")
	}
}

// ends is cred.SignInSource's SignInEnds.
func (s *session) ends(ctx context.Context, in *signIn) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.unsaved
	if r == nil {
		var err error
		if r, err = s.load(ctx, in); err != nil {
			return time.Time{}
		}
	}
	switch now := in.awsNow(ctx); {
	case r.refreshable(now):
		return r.refreshEnds
	case r.usable(now):
		return r.claims.expires
	}
	return time.Time{}
}
