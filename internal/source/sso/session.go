package sso

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/source/flight"
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
	// flights are its refreshes and sign-ins; what each was is its outcome.
	// Their lock is taken before mu.
	flights flight.Group[step]

	mu    sync.Mutex // guards the vault's record of key, from reading to writing it, and what follows
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

// sameEnd is how much earlier the end of a newer token may stand in the
// command line's file: AWS tells lifetimes and the file tells ends in whole
// seconds. What we get stands in the file as well, so another one there is
// the newer one.
const sameEnd = 5 * time.Second

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
	case share && !l.cli.expires.Before(l.own.expires.Add(-sameEnd)):
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
		var t tokens
		settled := false
		what, err := s.flights.Do(ctx, s.participant(c), func() (run flight.Run[step], err error) {
			t, run, err = s.begin(ctx, c)
			settled = run == nil
			return run, err
		})
		if settled {
			return t, err
		}
		c.signedIn = c.signedIn || err == nil && what == signInAnew
		var failed *refreshError
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return tokens{}, err
		case errors.Is(err, flight.ErrLeft):
			// Those who waited before us gave it up as we came.
		case errors.As(err, &failed):
			s.mu.Lock()
			l, err := s.see(ctx, c.signIn)
			s.mu.Unlock()
			if err != nil {
				return tokens{}, err
			}
			good := l.usable(time.Now())
			if good == nil {
				return tokens{}, failed.err
			}
			return *good, nil
		default:
			return tokens{}, err
		}
	}
	return tokens{}, fmt.Errorf("cannot get a session of %s: it changes all the time: %w", c.title(), cred.ErrUnavailable)
}

// refreshError is the error of a refresh: what else there is may do.
type refreshError struct{ err error }

func (e *refreshError) Error() string { return e.err.Error() }
func (e *refreshError) Unwrap() error { return e.err }

// participant is c in a flight.
func (s *session) participant(c *caller) flight.Caller {
	return flight.Caller{Key: s.key, Profile: c.in.Profile, Ask: c.in.Ask, NoBrowser: c.device(), Log: c.log(),
		Person: func(kind, why string) error {
			if why == "" {
				why = "nobody finished the sign-in in time"
			}
			return s.interaction(c, kind, why)
		}}
}

// begin decides what there is to be done, nil for nothing where t will do.
func (s *session) begin(ctx context.Context, c *caller) (t tokens, run flight.Run[step], err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, what, err := s.next(ctx, c)
	if err != nil {
		return t, nil, err
	}
	switch what {
	case refreshIt:
		run = func(ctx context.Context, _ *flight.Flight[step]) (step, error) {
			if err := s.refresh(ctx, c); err != nil {
				return refreshIt, &refreshError{err}
			}
			return refreshIt, nil
		}
	case signInAnew:
		s.renew = false
		run = func(ctx context.Context, f *flight.Flight[step]) (step, error) {
			return signInAnew, s.signIn(ctx, f, c)
		}
	}
	return t, run, nil
}

// why is why a person must sign in at a start URL, in one clause, "" where
// there is no need.
func (l *look) why(start string, now time.Time) string {
	var last *tokens
	for _, t := range l.list {
		if !t.access.IsZero() && (last == nil || t.expires.After(last.expires)) {
			last = t
		}
	}
	at := "the sign-in at " + start
	switch {
	case last == nil:
		return "nobody has signed in at " + start
	case l.rec.usable(last, now):
		return ""
	case last.expires.Sub(now) < usableFor:
		return at + " ended at " + last.expires.UTC().Format(time.RFC3339)
	case last == l.own && !l.rec.ended.IsZero():
		return at + " ended at " + l.rec.ended.UTC().Format(time.RFC3339) + ": AWS takes its token no more"
	}
	return at + " has ended: AWS takes its token no more"
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
	if access.Equal(rec.access) {
		rec.ended = time.Now()
	}
	c.log().Info("Identity Center has ended the session's access token")
	if err := s.save(ctx, c.signIn, rec); err != nil {
		s.unsaved = rec
	}
}

// signedIn reports whether there is a token that can be used or refreshed.
func (s *session) signedIn(ctx context.Context, in *signIn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, err := s.current(ctx, in)
	return err == nil && (rec.refreshable(&rec.tokens, in.awsNow(ctx)) || rec.usable(&rec.tokens, time.Now()))
}

// current is the record in force; s.mu is held.
func (s *session) current(ctx context.Context, in *signIn) (*record, error) {
	if s.unsaved != nil {
		return s.unsaved, nil
	}
	return s.load(ctx, in)
}

// ends is cred.SignInSource's SignInEnds.
func (s *session) ends(ctx context.Context, in *signIn) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, err := s.current(ctx, in)
	if err != nil {
		return time.Time{}
	}
	if rec.refreshable(&rec.tokens, in.awsNow(ctx)) || !rec.usable(&rec.tokens, time.Now()) {
		return time.Time{}
	}
	return rec.expires
}
