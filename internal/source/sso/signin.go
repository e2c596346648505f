package sso

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssooidc"

	"keyfob/internal/cred"
	"keyfob/internal/source/flight"
	"keyfob/internal/source/loopback"
)

// signIn asks a person to sign in: in a browser of this machine by the
// authorization code grant with PKCE (RFC 7636), or by a code for another
// device (RFC 8628).
func (s *session) signIn(ctx context.Context, f *flight.Flight[step], c *caller) error {
	s.mu.Lock()
	l, err := s.see(ctx, c.signIn)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	why := l.why(c.start, time.Now())
	var got *tokens
	err = errNoBrowser
	if !c.device() {
		got, err = s.browser(ctx, f, c, why)
	}
	if errors.Is(err, errNoBrowser) && ctx.Err() == nil {
		got, err = s.device(ctx, f, c, why)
	}
	if err != nil {
		return err
	}
	// The person has done his part: that is kept whoever has left.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cred.FetchTimeout)
	defer cancel()
	unlock, err := c.lockCache(ctx)
	if err != nil {
		c.log().WithError(err).Warn("the sign-in is not shared with the AWS command line")
	} else {
		defer unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.unsaved
	if rec == nil {
		if rec, err = s.load(ctx, c.signIn); err != nil {
			rec = &record{}
		}
	}
	rec.tokens, rec.ended = *got, time.Time{}
	s.retry = time.Time{}
	c.log().Info("signed in to Identity Center")
	if err := s.keep(ctx, c, rec); err != nil {
		return err
	}
	if unlock != nil {
		s.writeCache(c, rec.tokens)
	}
	return nil
}

// text is the question's line.
func (s *signIn) text() string { return "Sign in to " + s.title() }

// unanswered is how long a browser's question must have been open without an
// answer for the registration to be suspected: a page that does not know it
// shows an error and sends nobody back.
const unanswered = time.Minute

// browser signs in on this machine. errNoBrowser: it has none.
func (s *session) browser(ctx context.Context, f *flight.Flight[step], c *caller, why string) (*tokens, error) {
	r, err := c.registration(ctx, true)
	if err != nil {
		return nil, err
	}
	page, err := c.endpoint(ctx, serviceOIDC)
	if err != nil {
		return nil, &configError{msg: err.Error(), help: cred.HintOf(err), err: err}
	}
	cb, err := loopback.Listen(0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = cb.Close() }()
	cb.Log = c.log()
	state, verifier := rand.Text(), rand.Text()+rand.Text()
	waiting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	began := time.Now()
	asked := f.Ask(ctx, flight.Question{Why: why, Question: cred.Question{Kind: cred.AskBrowser, Text: c.text(),
		URL: authorizeURL(page, r.id, cb.RedirectURI(), state, verifier, c.scopes)},
		Answer: func(answer cred.Secret) {
			if answer.Reveal() == cred.AnswerNoBrowser {
				stop(errNoBrowser)
			}
		}})
	answer, err := cb.Wait(waiting, state)
	asked.Over(errors.Is(err, loopback.ErrRefused))
	var said *loopback.AnswerError
	switch {
	case err == nil:
	case errors.Is(err, loopback.ErrRefused):
		return nil, &flight.PersonError{Kind: cred.AskBrowser, Why: err.Error()}
	case errors.As(err, &said):
		c.forget(ctx, true)
		return nil, &cred.UpstreamError{Op: "Authorize", Code: said.Code, Status: 302, Refused: true,
			Message: "cannot sign in to " + c.title() + ": " + said.Error(), Help: "check sso_start_url, sso_region and sso_registration_scopes of " + c.settings()}
	default:
		if time.Since(began) > unanswered {
			c.forget(ctx, true)
		}
		return nil, context.Cause(waiting)
	}
	p := &call{signIn: c.signIn, doing: "sign in to " + c.title()}
	return p.token(ctx, r, &ssooidc.CreateTokenInput{GrantType: aws.String(grantCode), Code: aws.String(answer.Get("code")),
		RedirectUri: aws.String(cb.RedirectURI()), CodeVerifier: aws.String(verifier)})
}

// authorizeURL is the sign-in page: it is in no model of AWS's, and its
// parameter of scopes is spelt so.
func authorizeURL(endpoint *url.URL, client, redirect, state, verifier string, scopes []string) string {
	sum := sha256.Sum256([]byte(verifier))
	u := *endpoint
	u.Path = strings.TrimRight(u.Path, "/") + "/authorize"
	u.RawQuery = url.Values{
		"response_type":         {"code"},
		"client_id":             {client},
		"redirect_uri":          {redirect},
		"state":                 {state},
		"code_challenge_method": {"S256"},
		"scopes":                {strings.Join(scopes, " ")},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(sum[:])},
	}.Encode()
	return u.String()
}

// registration returns the client that keyfob is for a kind of sign-in: the
// vault's, or a new one where it ends soon.
func (c *caller) registration(ctx context.Context, code bool) (*client, error) {
	name := c.clientName(code)
	v, err := c.d.Store.Get(ctx, name)
	if err != nil && !errors.Is(err, cred.ErrNotFound) {
		return nil, err
	}
	if err == nil {
		if r := decodeClient(v); r != nil && r.expires.Sub(c.awsNow(ctx)) >= renewBefore {
			return r, nil
		}
	}
	r, err := c.register(ctx, code)
	if err != nil {
		return nil, err
	}
	if v, err = r.encode(); err != nil {
		return nil, err
	}
	return r, c.d.Store.Put(ctx, name, v)
}

// clientName is the record of a registration: it belongs to a start URL, a
// region, scopes and grant types.
func (s *signIn) clientName(code bool) string {
	grants := grantDevice
	if code {
		grants = grantCode
	}
	return clientPrefix + cred.KeyOf("sso client", map[string]string{"start_url": canonicalStart(s.start), "region": s.region,
		"scopes": sortedScopes(s.scopes), "grants": grants, "endpoint": s.configured(serviceOIDC)}, cred.LinkKey{}).String()
}

// forget drops a registration that AWS does not take.
func (c *caller) forget(ctx context.Context, code bool) {
	if err := c.d.Store.Delete(context.WithoutCancel(ctx), c.clientName(code)); err != nil && !errors.Is(err, cred.ErrNotFound) {
		c.log().WithError(err).Warn("a client registration could not be deleted")
	}
}
