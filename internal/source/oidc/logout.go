package oidc

import (
	"context"
	"errors"
	"net/url"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// Logout ends the sign-in of an oidc link, for all profiles that share it: it
// forgets its tokens, has the provider revoke the refresh token (RFC 7009)
// and end the session (OpenID Connect RP-Initiated Logout 1.0), where the
// provider has addresses for that. Tokens are forgotten also where the
// provider can't be told, which is then the error. A sign-in that nobody made
// is none.
func Logout(ctx context.Context, link profiles.Link, d Deps) error {
	in, err := newSignIn(link, d)
	if err != nil {
		return err
	}
	s := in.d.Sessions.of(in.AskKey())
	return s.flights.End(ctx, errForgotten, func() error { return s.signOut(ctx, in) })
}

// signOut is Logout while no flight is under way.
func (s *session) signOut(ctx context.Context, in *signIn) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.unsaved
	if r == nil {
		r, err = s.load(ctx, in)
	}
	if err != nil {
		r = &record{} // nothing can be read that could be revoked
	}
	s.unsaved, s.renew = nil, false
	err = in.d.Store.Delete(ctx, s.recordName())
	if errors.Is(err, cred.ErrNotFound) {
		err = nil
	}
	return errors.Join(err, s.tell(ctx, in, r))
}

// tell tells the provider that a sign-in is over. mu is held.
func (s *session) tell(ctx context.Context, in *signIn, r *record) error {
	if r.refresh.IsZero() && r.id.IsZero() {
		return nil
	}
	doing := "cannot sign out at " + in.issuer + " (its tokens are forgotten here): "
	p, err := s.known(ctx, in, doing)
	if err != nil {
		return err
	}
	var errs []error
	post := func(op, address string, form url.Values, secret cred.Secret) {
		x := &call{signIn: in, op: op, doing: doing, secrets: []string{secret.Reveal()}}
		form.Set("client_id", in.client)
		a, err := x.post(ctx, address, form)
		// An end_session_endpoint answers with a page or a redirect.
		if err == nil && a.status >= 400 {
			err = x.strange(a)
		}
		errs = append(errs, err)
	}
	if p.Revocation != "" && !r.refresh.IsZero() {
		post("OIDCRevoke", p.Revocation, url.Values{"token": {r.refresh.Reveal()}, "token_type_hint": {"refresh_token"}}, r.refresh)
	}
	if p.EndSession != "" && !r.id.IsZero() {
		post("OIDCEndSession", p.EndSession, url.Values{"id_token_hint": {r.id.Reveal()}}, r.id)
	}
	return errors.Join(errs...)
}
