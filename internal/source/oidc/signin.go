package oidc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"keyfob/internal/cred"
	"keyfob/internal/source/flight"
	"keyfob/internal/source/loopback"
)

// signIn asks a person to sign in: in a browser of this machine by the
// authorization code grant with PKCE (RFC 7636, RFC 8252), or by a code for
// another device (RFC 8628).
func (s *session) signIn(ctx context.Context, f *flight.Flight[outcome], c *caller) (*record, error) {
	x := &call{signIn: c.signIn, doing: "cannot sign in at " + c.issuer + ": "}
	p, err := s.known(ctx, c.signIn, x.doing)
	if err != nil {
		return nil, err
	}
	why, err := s.why(ctx, c)
	if err != nil {
		return nil, err
	}
	var r *record
	err = errNoBrowser
	if !c.device() {
		r, err = s.browser(ctx, f, c, p, x, why)
	}
	if errors.Is(err, errNoBrowser) && (ctx.Err() == nil || context.Cause(ctx) == nil) {
		r, err = s.device(ctx, f, c, p, why)
	}
	if err != nil {
		return nil, err
	}
	// The person has done his part: that is kept whoever has left.
	if err := s.store(ctx, c, r); err != nil {
		return nil, err
	}
	c.log().WithField("expires", r.claims.expires).Info("signed in at an OpenID provider")
	return r, nil
}

// why is why a person must sign in, in one clause, "" where there is no need.
func (s *session) why(ctx context.Context, c *caller) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.see(ctx, c.signIn)
	at := "the sign-in at " + c.issuer
	switch now := c.awsNow(ctx); {
	case err != nil:
		return "", err
	case r.since.IsZero():
		return "nobody has signed in at " + c.issuer, nil
	case r.usable(now):
		return "", nil
	case !r.refresh.IsZero() && !r.refreshEnds.IsZero() && !r.refreshEnds.After(now):
		return at + " ended at " + r.refreshEnds.UTC().Format(time.RFC3339), nil
	case r.id.IsZero():
		return at + " has ended: AWS takes its ID token no more", nil
	}
	return at + " ended at " + r.claims.expires.UTC().Format(time.RFC3339), nil
}

func (s *signIn) text() string { return "Sign in at " + s.issuer }

// browser signs in on this machine. errNoBrowser: it has none.
func (s *session) browser(ctx context.Context, f *flight.Flight[outcome], c *caller, p *provider, x *call, why string) (r *record, err error) {
	if p.Authorization == "" {
		return nil, errNoBrowser
	}
	cb, err := loopback.Listen(c.port)
	if err != nil {
		if errors.Is(err, loopback.ErrPortTaken) {
			err = cred.WithHint(err, "end the program that listens there, or set another oidc_redirect_port in profile "+c.profile+" if the provider allows it")
		}
		return nil, err
	}
	defer func() { _ = cb.Close() }()
	cb.Log = c.log()
	state, nonce, verifier := rand.Text(), rand.Text(), oauth2.GenerateVerifier()
	page, err := c.authorizeURL(p, cb.RedirectURI(), state, nonce, verifier)
	if err != nil {
		return nil, err
	}
	waiting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	asked := f.Ask(ctx, flight.Question{Why: why, Question: cred.Question{Kind: cred.AskBrowser, Text: c.text(), URL: page},
		Answer: func(answer cred.Secret) {
			if answer.Reveal() == cred.AnswerNoBrowser {
				stop(errNoBrowser)
			}
		}})
	// What failed after the person did his part cools down like a refusal: a
	// caller that tries again at once would open one tab after another.
	defer func() { asked.Over(err != nil && context.Cause(waiting) == nil) }()
	answer, err := cb.Wait(waiting, state)
	var said *loopback.AnswerError
	switch {
	case err == nil:
		asked.Acted()
	case errors.Is(err, loopback.ErrRefused):
		return nil, &flight.PersonError{Kind: cred.AskBrowser, Why: err.Error()}
	case errors.As(err, &said):
		x.op = "OIDCAuthorize"
		return nil, x.refusal(&oauthError{code: said.Code, text: clause(said.Description), status: http.StatusFound})
	default:
		if cause := context.Cause(waiting); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	if iss := answer.Get("iss"); iss != c.issuer && (iss != "" || p.NamesIssuer) { // RFC 9207 §2.4
		return nil, x.error(http.StatusFound, "", "the answer is of "+quoted(iss)+", another issuer", "somebody may be in between: try again, and look at the address of the page", true)
	}
	t, err := p.exchange(ctx, x, url.Values{"grant_type": {"authorization_code"}, "code": {answer.Get("code")},
		"redirect_uri": {cb.RedirectURI()}, "code_verifier": {verifier}})
	if err != nil {
		return nil, x.notGranted(err)
	}
	return s.granted(ctx, p, x, t, expected{nonce: nonce, must: true})
}

// authorizeURL is the address of the sign-in page.
func (s *signIn) authorizeURL(p *provider, redirect, state, nonce, verifier string) (string, error) {
	u, err := url.Parse(p.Authorization)
	if err != nil {
		return "", fmt.Errorf("cannot sign in at %s: its authorization_endpoint is no address", s.issuer)
	}
	q := u.Query()
	for k, v := range map[string]string{
		"response_type":         "code",
		"client_id":             s.client,
		"redirect_uri":          redirect,
		"scope":                 strings.Join(s.scopes, " "),
		"state":                 state,
		"nonce":                 nonce,
		"code_challenge":        oauth2.S256ChallengeFromVerifier(verifier),
		"code_challenge_method": "S256",
	} {
		q.Set(k, v)
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// notGranted is the error of an exchange of what a person has done.
func (c *call) notGranted(err error) error {
	var no *oauthError
	var spent *errSpent
	switch {
	case errors.As(err, &no):
		return c.refusal(no)
	case errors.As(err, &spent):
		return spent.err
	}
	return err
}

// granted makes the record of a sign-in.
func (s *session) granted(ctx context.Context, p *provider, x *call, t *tokens, want expected) (*record, error) {
	if t.id == "" {
		return nil, x.error(http.StatusOK, "", "the provider gave no ID token", "the client must be allowed the scope openid (oidc_scopes in profile "+x.profile+")", true)
	}
	said, err := p.verify(ctx, x, t.id, want)
	if err != nil {
		return nil, err
	}
	return &record{id: cred.NewSecret(t.id), claims: said, since: time.Now(), refresh: cred.NewSecret(t.refresh), refreshEnds: t.refreshEnds,
		nonce: want.nonce, subject: said.subject}, nil
}
