package sso

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sso"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// Logout ends the session of a link's sign-in at the portal, for all profiles
// that share it, and forgets its tokens: in the vault and, where it is
// shared, in the AWS command line's cache. Tokens are forgotten also where
// the portal can't be told, which is then the error. A session that nobody
// signed in to is none.
func Logout(ctx context.Context, link profiles.Link, d Deps) error {
	si, err := newSignIn(link, d)
	if err != nil {
		return err
	}
	c := &caller{signIn: &si}
	s := si.d.Sessions.of(si.key())
	var given []cred.Secret
	err = s.flights.End(ctx, errForgotten, func() (err error) {
		given, err = s.forget(ctx, c)
		return err
	})
	for _, access := range given {
		err = errors.Join(err, c.signOut(ctx, access))
	}
	return err
}

// forget drops the tokens and returns the access tokens that the portal may
// still take. No flight is under way.
func (s *session) forget(ctx context.Context, c *caller) (given []cred.Secret, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unlock, err := c.lockCache(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// What can't be read (a locked vault) can't be signed out of, but goes.
	if l, err := s.see(ctx, c.signIn); err == nil {
		for _, t := range l.list {
			if (t != l.cli || c.share()) && l.rec.usable(t, time.Now()) {
				given = append(given, t.access)
			}
		}
	}
	s.unsaved, s.retry, s.renew = nil, time.Time{}, false
	if err = c.d.Store.Delete(ctx, s.recordName()); errors.Is(err, cred.ErrNotFound) {
		err = nil
	}
	if c.share() {
		if err2 := os.Remove(c.cachePath()); err2 != nil && !errors.Is(err2, fs.ErrNotExist) {
			err = errors.Join(err, err2)
		}
	}
	return given, err
}

// signOut ends one access token's session at the portal.
func (c *caller) signOut(ctx context.Context, access cred.Secret) error {
	p := &call{signIn: c.signIn, op: "Logout", service: servicePortal, doing: "sign out of " + c.title(), secrets: []cred.Secret{access}}
	err := p.do(ctx, func(ctx context.Context, cfg aws.Config) error {
		_, err := sso.NewFromConfig(cfg).Logout(ctx, &sso.LogoutInput{AccessToken: aws.String(access.Reveal())})
		return err
	})
	var up *cred.UpstreamError
	if errors.As(err, &up) && up.Status == http.StatusUnauthorized {
		return nil // it had ended
	}
	return err
}
