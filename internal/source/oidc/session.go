package oidc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/source/flight"
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
	// flights are its refreshes and sign-ins. Their lock is taken before mu.
	flights flight.Group[outcome]

	mu    sync.Mutex // guards the vault's record of key, from reading to writing it, and what follows
	renew bool
	// unsaved is a record that could not be written. It is written before
	// its tokens are used; until then it is all there is of them.
	unsaved *record

	// provider is what discovery said. Only the flight under way uses it, or
	// who has ended flights.
	provider *provider
}

// outcome is what a flight brought.
type outcome struct {
	token
	what step
}

// token is an ID token with what it says.
type token struct {
	id     cred.Secret
	claims claims
	since  time.Time
}

func (r *record) token() token { return token{r.id, r.claims, r.since} }

var (
	// errForgotten ends a flight whose sign-in is signed out of.
	errForgotten = fmt.Errorf("the sign-in was signed out of: %w", cred.ErrUnavailable)
	// errAgain: the record has changed, decide anew.
	errAgain = errors.New("the sign-in has ended")
	// errNoBrowser: no browser can be opened, or none is wanted.
	errNoBrowser = errors.New("no browser can be opened")
)

// interaction says that a person must act, in words for one caller.
func (s *session) interaction(c *caller, kind, why string) error {
	return &cred.InteractionError{Key: s.key, Kind: kind, Profile: c.in.Profile,
		Message: "cannot get credentials for " + c.in.Profile + ": the sign-in at " + c.issuer + ": " + why, Help: "keyfob login " + c.in.Profile}
}

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
		var t token
		settled := false
		got, err := s.flights.Do(ctx, s.participant(c), func() (run flight.Run[outcome], err error) {
			t, run, err = s.begin(ctx, c)
			settled = run == nil
			return run, err
		})
		switch {
		case settled:
			return t, err
		case err == nil && got.what == refreshIt && c.in.Signin != nil && s.renewed():
			continue // the person wants to sign in, and this was none
		case err == nil:
			return got.token, nil
		case errors.Is(err, errAgain), errors.Is(err, flight.ErrLeft):
			if ctx.Err() != nil {
				return token{}, ctx.Err()
			}
		default:
			return token{}, err
		}
	}
	return token{}, fmt.Errorf("cannot get a sign-in at %s: it changes all the time: %w", c.issuer, cred.ErrUnavailable)
}

// participant is c in a flight.
func (s *session) participant(c *caller) flight.Caller {
	return flight.Caller{Key: s.key, Profile: c.in.Profile, Ask: c.in.Ask, NoBrowser: c.device(), Log: c.log(),
		Person: func(kind, why string) error {
			if why == "" {
				why = "nobody finished it in time"
			}
			return s.interaction(c, kind, why)
		}}
}

// begin decides what there is to be done, nil for nothing where t will do.
func (s *session) begin(ctx context.Context, c *caller) (t token, run flight.Run[outcome], err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, what, err := s.next(ctx, c)
	if err != nil || what == useIt {
		return t, nil, err
	}
	if what == signInAnew {
		s.renew = false
	}
	return t, func(ctx context.Context, f *flight.Flight[outcome]) (outcome, error) {
		var r *record
		var err error
		if what == refreshIt {
			r, err = s.refresh(ctx, c)
		} else {
			r, err = s.signIn(ctx, f, c)
		}
		if err != nil {
			return outcome{}, err
		}
		return outcome{r.token(), what}, nil
	}, nil
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
