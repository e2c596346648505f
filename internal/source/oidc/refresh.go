package oidc

import (
	"context"
	"errors"
	"net/url"
	"time"

	"keyfob/internal/cred"
)

// known returns what the provider says of itself.
func (s *session) known(ctx context.Context, in *signIn, doing string) (*provider, error) {
	if p := s.provider; p != nil && time.Since(p.read) < providerFor {
		return p, nil
	}
	p, err := in.discover(ctx, doing)
	if err != nil {
		return nil, err
	}
	if s.provider != nil && s.provider.Keys == p.Keys {
		p.keys = s.provider.keys
	}
	s.provider = p
	return p, nil
}

// refresh gets a new ID token for the refresh token (OpenID Connect Core 1.0
// §12). errAgain: there is none to be had without a person.
func (s *session) refresh(ctx context.Context, c *caller) (*record, error) {
	doing := "cannot refresh the sign-in at " + c.issuer + ": "
	p, err := s.known(ctx, c.signIn, doing)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	r, err := s.see(ctx, c.signIn)
	if err == nil && !r.refreshable(c.awsNow(ctx)) {
		err = errAgain
	}
	if err == nil {
		r.sent = true
		err = s.save(ctx, c.signIn, r)
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}

	x := &call{signIn: c.signIn, doing: doing}
	t, err := p.exchange(ctx, x, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {r.refresh.Reveal()}})
	var spent *errSpent
	var no *oauthError
	switch {
	case errors.As(err, &spent) && !r.steady:
		c.log().WithError(err).Warn("a refresh has no answer, and its token may be good for one use: somebody must sign in again")
		return nil, errAgain
	case errors.As(err, &no) && no.code == "invalid_grant":
		c.log().WithField("answer", no.text).Info("the provider has ended the sign-in")
		r.refresh, r.sent = cred.Secret{}, false
		if err := s.store(ctx, c, r); err != nil {
			return nil, err
		}
		return nil, errAgain
	case err != nil:
		r.sent = false
		if err := s.store(ctx, c, r); err != nil {
			c.log().WithError(err).Warn("that a refresh token was not used is kept in memory alone")
		}
		if no != nil {
			return nil, x.refusal(no)
		}
		if spent != nil {
			return nil, spent.err
		}
		return nil, err
	}

	r.sent = false
	r.steady = t.refresh == "" || t.refresh == r.refresh.Reveal()
	if !r.steady {
		r.refresh = cred.NewSecret(t.refresh)
	}
	if !t.refreshEnds.IsZero() {
		r.refreshEnds = t.refreshEnds
	}
	var bad error
	if r.noID = t.id == ""; r.noID {
		c.log().Info("the provider gives no ID token at a refresh: a sign-in lasts as long as its ID token")
		bad = errAgain
	} else if said, err := p.verify(ctx, x, t.id, expected{nonce: r.nonce, subject: r.subject}); err != nil {
		bad = err
	} else {
		r.id, r.claims, r.since = cred.NewSecret(t.id), said, time.Now()
	}
	if err := s.store(ctx, c, r); err != nil {
		return nil, err
	}
	if bad != nil {
		return nil, bad
	}
	c.log().WithField("expires", r.claims.expires).Debug("the sign-in is refreshed")
	return r, nil
}

// store writes the record of an operation, unless the sign-in was signed out
// of.
func (s *session) store(ctx context.Context, c *caller, r *record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(context.Cause(ctx), errForgotten) {
		return errForgotten
	}
	return s.keep(ctx, c.signIn, r)
}
