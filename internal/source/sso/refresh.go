package sso

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssooidc"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
)

// refresh gets a new access token with the refresh token. A refusal by AWS is
// no error: it is noted, and whoever waits looks again for what else there
// is.
func (s *session) refresh(ctx context.Context, c *caller) error {
	ctx, cancel := context.WithTimeout(ctx, cred.FetchTimeout)
	defer cancel()
	unlock, err := c.lockCache(ctx)
	if err != nil {
		return err
	}
	defer unlock()

	s.mu.Lock()
	l, err := s.see(ctx, c.signIn)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	now := time.Now()
	t := l.refreshable(ctx, c.signIn)
	if good := l.usable(now); t == nil || good != nil && !good.stale(now) {
		s.mu.Unlock() // another process was faster
		return nil
	}
	old := *t
	l.rec.spent = addHash(l.rec.spent, old.refresh)
	err = s.save(ctx, c.signIn, l.rec)
	s.mu.Unlock()
	if err != nil {
		return err
	}

	// On a new connection: one that sleep or a changed network has killed
	// would take the token and give nothing for it.
	if c.d.Pool != nil {
		c.d.Pool.CloseIdle()
	}
	p := &call{signIn: c.signIn, doing: "refresh the session of " + c.title(), secrets: []cred.Secret{old.access}}
	got, err := p.token(ctx, &client{old.clientID, old.clientSecret, old.clientExpires},
		&ssooidc.CreateTokenInput{GrantType: aws.String(grantRefresh), RefreshToken: aws.String(old.refresh.Reveal())})

	// What is known now must be written whoever has left meanwhile.
	ctx, cancel2 := context.WithTimeout(context.WithoutCancel(ctx), cred.FetchTimeout)
	defer cancel2()
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, err2 := s.load(ctx, c.signIn)
	if err2 != nil {
		rec = l.rec // locked meanwhile
	}
	switch {
	case err == nil:
		rec.tokens, rec.ended = *got, time.Time{}
		if got.refresh.IsZero() || got.refresh.Equal(old.refresh) {
			// RFC 6749 §6: without a new one the old one stays good.
			rec.refresh = old.refresh
			rec.spent = dropHash(rec.spent, old.refresh)
		}
		s.retry = time.Time{}
		c.log().Debug("Identity Center refreshed the session")
		if err := s.keep(ctx, c, rec); err != nil {
			return err
		}
		s.writeCache(c, rec.tokens)
		return nil
	case s.endedBy(p, err):
		c.log().WithError(err).Info("Identity Center does not refresh the session any more")
		return nil // it stays spent
	}
	s.retry = time.Now().Add(retryAfter)
	if p.maybeSpent() {
		c.log().WithError(err).Warn("no answer came to a refresh: its token is not sent again, and a sign-in is needed once the access token has ended")
		var up *cred.UpstreamError
		if errors.As(err, &up) {
			up.Message += "; the refresh token may be used up, and is not sent again"
			up.Help = "keyfob login " + c.in.Profile
		}
		return err
	}
	rec.spent = dropHash(rec.spent, old.refresh)
	if err2 := s.keep(ctx, c, rec); err2 != nil {
		return err2
	}
	return err
}

// endedBy reports whether err says that the refresh token will never do.
func (s *session) endedBy(p *call, err error) bool {
	var up *cred.UpstreamError
	if !errors.As(err, &up) || p.kind != awsclient.Refused {
		return false
	}
	switch up.Code {
	case "InvalidGrantException", "InvalidClientException", "UnauthorizedClientException", "ExpiredTokenException", "AccessDeniedException", "UnsupportedGrantTypeException":
		return true
	}
	return false
}

// keep writes a record whose tokens exist nowhere else. mu is held.
func (s *session) keep(ctx context.Context, c *caller, rec *record) error {
	s.unsaved = nil
	if err := s.save(ctx, c.signIn, rec); err != nil {
		s.unsaved = rec
		return fmt.Errorf("cannot keep the session of %s: %w", c.title(), err)
	}
	return nil
}
