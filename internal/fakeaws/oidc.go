package fakeaws

import (
	"crypto"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// OIDCSpec describes an OpenID provider of the fake. Its issuer is
// URL/oidc/NAME, whatever the URL that it is asked by.
type OIDCSpec struct {
	Name     string `json:"name"`      // default "idp"
	ClientID string `json:"client_id"` // default "keyfob"
	// ClientSecret: wanted at the token endpoint; "" is a public client.
	ClientSecret string `json:"client_secret"`
	// RedirectURIs are the addresses allowed, loopback ones with any port;
	// none is every loopback address.
	RedirectURIs []string `json:"redirect_uris"`
	Subject      string   `json:"subject"` // default "alice"; a form's user name goes before
	// TokenSeconds is the id token's life, default 3600; SessionSeconds the
	// refresh token's, default 28800.
	TokenSeconds   int `json:"token_seconds"`
	SessionSeconds int `json:"session_seconds"`
	// Rotate: a refresh gives a new refresh token and ends the old one.
	Rotate bool `json:"rotate"`
	// NoIDTokenOnRefresh: a refresh gives no id token; NoRefreshToken: there
	// is never a refresh token.
	NoIDTokenOnRefresh bool `json:"no_id_token_on_refresh"`
	NoRefreshToken     bool `json:"no_refresh_token"`
	// Claims are added to the id tokens.
	Claims map[string]any `json:"claims"`
	// Accounts in which it is an IAM identity provider, for the audiences
	// ClientID and Audiences; nil is every account.
	Accounts  []string `json:"accounts"`
	Audiences []string `json:"audiences"`
	// Wrong makes its id tokens wrong: "nonce", "aud", "iss", "signature" or
	// "expired".
	Wrong string `json:"wrong"`
}

// IssuerSpec is an identity provider elsewhere that IAM trusts.
type IssuerSpec struct {
	Issuer    string          `json:"issuer"`
	JWKS      json.RawMessage `json:"jwks"` // its JSON Web Key Set
	Audiences []string        `json:"audiences"`
	Accounts  []string        `json:"accounts"` // nil is every account
}

// oidcRoom is the OpenID provider: Discovery 1.0, Core 1.0 with PKCE.
var oidcRoom = restRoom("oidc", oidcFailure, &apiError{status: 429, code: "temporarily_unavailable", message: "Too many requests"},
	route{"GET", "/oidc/{p}/.well-known/openid-configuration", "OIDCDiscovery", action{run: onProvider(oidcDiscovery), unsigned: true}},
	route{"GET", "/oidc/{p}/jwks", "OIDCKeys", action{run: onProvider(oidcKeys), unsigned: true}},
	route{"", "/oidc/{p}/authorize", "OIDCAuthorize", action{run: onProvider(oidcAuthorize), unsigned: true}},
	route{"POST", "/oidc/{p}/token", "OIDCToken", action{run: onProvider(oidcToken), unsigned: true}},
	route{"POST", "/oidc/{p}/revoke", "OIDCRevoke", action{run: onProvider(oidcRevoke), unsigned: true}},
)

func oidcFailure(_ *request, e *apiError) *answer {
	e = generic(e, map[string]string{"InternalFailure": "server_error", "InvalidAction": "invalid_request", "ValidationError": "invalid_request"})
	a := jsonAnswer(e.status, map[string]string{"error": e.code, "error_description": e.message})
	a.code = e.code
	return a.set("Cache-Control", "no-store")
}

// oidcState is the memory of the providers. Server.mu guards it.
type oidcState struct {
	providers map[string]*OIDCSpec
	elsewhere []IssuerSpec
	keys      map[string][]*signingKey // by provider, the newest first
	codes     map[string]*oidcCode
	refresh   map[string]*oidcRefresh
}

func newOIDCState() oidcState {
	return oidcState{providers: map[string]*OIDCSpec{}, keys: map[string][]*signingKey{}, codes: map[string]*oidcCode{}, refresh: map[string]*oidcRefresh{}}
}

type signingKey struct {
	kid string
	key *rsa.PrivateKey
}

type oidcCode struct {
	provider, redirect, challenge, nonce, scope, subject string
	expires                                              time.Time
	used                                                 bool
}

type oidcRefresh struct {
	provider, subject, scope string
	expires                  time.Time
	used                     bool
}

// signerLocked returns a provider's current key, made at its first use.
func (o *oidcState) signerLocked(provider string) (kid string, key *rsa.PrivateKey) {
	if len(o.keys[provider]) == 0 {
		o.keys[provider] = []*signingKey{{kid: "key-" + opaque(6), key: newRSAKey()}}
	}
	k := o.keys[provider][0]
	return k.kid, k.key
}

// AddOIDC adds an OpenID provider, or replaces that of the same name, and
// returns the path that its issuer has below the server's URL.
func (s *Server) AddOIDC(spec OIDCSpec) (path string) {
	path, err := s.addOIDC(spec)
	if err != nil {
		panic("fakeaws: " + err.Error())
	}
	return path
}

func (s *Server) addOIDC(spec OIDCSpec) (string, error) {
	set(&spec.Name, "idp")
	set(&spec.ClientID, "keyfob")
	set(&spec.Subject, "alice")
	setInt(&spec.TokenSeconds, 3600)
	setInt(&spec.SessionSeconds, 28800)
	switch spec.Wrong {
	case "", "nonce", "aud", "iss", "signature", "expired":
	default:
		return "", fmt.Errorf("an id token can't be wrong in %q", spec.Wrong)
	}
	if strings.ContainsAny(spec.Name, "/?#% ") {
		return "", fmt.Errorf("an OpenID provider can't be named %q", spec.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oidc.providers[spec.Name] = &spec
	return "/oidc/" + spec.Name, nil
}

// TrustIssuer makes an identity provider that is elsewhere known to IAM.
func (s *Server) TrustIssuer(spec IssuerSpec) error {
	var keys jwkSet
	if err := json.Unmarshal(spec.JWKS, &keys); err != nil {
		return fmt.Errorf("the keys of %s are no key set: %w", spec.Issuer, err)
	}
	for _, k := range keys.Keys {
		if _, err := k.public(); err != nil {
			return fmt.Errorf("a key of %s: %w", spec.Issuer, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oidc.elsewhere = append(s.oidc.elsewhere, spec)
	return nil
}

// RotateOIDCKeys gives a provider a new signing key; the old ones stay
// published if keep says so.
func (s *Server) RotateOIDCKeys(provider string, keep bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.oidc.keys[provider]
	if !keep {
		old = nil
	}
	s.oidc.keys[provider] = append([]*signingKey{{kid: "key-" + opaque(6), key: newRSAKey()}}, old...)
}

// EndOIDCSessions ends every refresh token of the OpenID providers and
// returns how many there were.
func (s *Server) EndOIDCSessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.oidc.refresh)
	clear(s.oidc.refresh)
	return n
}

// IDToken makes an id token as the provider would give it, for tests of web
// identity. base is the server's URL.
func (s *Server) IDToken(base, provider, subject string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.oidc.providers[provider]
	if p == nil {
		return "", errors.New("there is no OpenID provider " + provider)
	}
	return s.idTokenLocked(p, base, orElse(subject, p.Subject), ""), nil
}

func (s *Server) idTokenLocked(p *OIDCSpec, base, subject, nonce string) string {
	now := s.nowLocked()
	c := map[string]any{}
	for k, v := range p.Claims {
		c[k] = v
	}
	c["iss"], c["aud"], c["sub"], c["email"] = base+"/oidc/"+p.Name, p.ClientID, subject, subject+"@example.com"
	c["iat"], c["exp"] = now.Unix(), now.Add(time.Duration(p.TokenSeconds)*time.Second).Unix()
	if nonce != "" {
		c["nonce"] = nonce
	}
	kid, key := s.oidc.signerLocked(p.Name)
	switch p.Wrong {
	case "nonce":
		c["nonce"] = opaque(12)
	case "aud":
		c["aud"] = "somebody-else"
	case "iss":
		c["iss"] = "https://elsewhere.example.com"
	case "expired":
		c["iat"], c["exp"] = now.Add(-2*time.Hour).Unix(), now.Add(-time.Hour).Unix()
	case "signature":
		key = newRSAKey()
	}
	return signJWT(key, kid, c)
}

// trustedIssuer is an identity provider as IAM knows it.
type trustedIssuer struct {
	arn       string
	audiences []string
	keys      jwkSet
}

func (t *trustedIssuer) verify(x *jws) error {
	for _, k := range t.keys.Keys {
		if x.header.Kid != "" && k.Kid != "" && x.header.Kid != k.Kid {
			continue
		}
		var key crypto.PublicKey
		key, err := k.public()
		if err == nil && x.verify(key) == nil {
			return nil
		}
	}
	return errors.New("no key of the provider signed this")
}

func (s *Server) trustedIssuerLocked(acct, issuer string) *trustedIssuer {
	u, err := url.Parse(issuer)
	if err != nil {
		return nil
	}
	arn := "arn:aws:iam::" + acct + ":oidc-provider/" + u.Host + u.Path
	for _, e := range s.oidc.elsewhere {
		if e.Issuer == issuer && (e.Accounts == nil || contains(e.Accounts, acct)) {
			t := &trustedIssuer{arn: arn, audiences: e.Audiences}
			if json.Unmarshal(e.JWKS, &t.keys) == nil {
				return t
			}
		}
	}
	name, ok := strings.CutPrefix(u.Path, "/oidc/")
	p := s.oidc.providers[name]
	if !ok || p == nil || p.Accounts != nil && !contains(p.Accounts, acct) {
		return nil
	}
	return &trustedIssuer{arn: arn, audiences: append([]string{p.ClientID}, p.Audiences...), keys: s.publishedLocked(name)}
}

func (s *Server) publishedLocked(provider string) jwkSet {
	s.oidc.signerLocked(provider)
	out := jwkSet{}
	for _, k := range s.oidc.keys[provider] {
		out.Keys = append(out.Keys, rsaJWK(&k.key.PublicKey, k.kid))
	}
	return out
}

func onProvider(do func(*Server, *request, *OIDCSpec) (any, error)) func(*Server, *request) (any, error) {
	return func(s *Server, q *request) (any, error) {
		p := s.oidc.providers[q.path["p"]]
		if p == nil {
			return nil, fail(http.StatusNotFound, "invalid_request", "There is no such provider")
		}
		return do(s, q, p)
	}
}

func oidcDiscovery(_ *Server, q *request, p *OIDCSpec) (any, error) {
	iss := q.base() + "/oidc/" + p.Name
	return map[string]any{
		"issuer": iss, "authorization_endpoint": iss + "/authorize", "token_endpoint": iss + "/token", "jwks_uri": iss + "/jwks", "revocation_endpoint": iss + "/revoke",
		"response_types_supported": []string{"code"}, "grant_types_supported": []string{grantCode, grantRefresh}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"}, "code_challenge_methods_supported": []string{"S256"}, "scopes_supported": []string{"openid", "offline_access", "email"},
		"token_endpoint_auth_methods_supported": []string{"none", "client_secret_post", "client_secret_basic"},
	}, nil
}

func oidcKeys(s *Server, _ *request, p *OIDCSpec) (any, error) {
	return s.publishedLocked(p.Name), nil
}

func oidcAuthorize(s *Server, q *request, p *OIDCSpec) (any, error) {
	get := q.query.Get
	redirect := get("redirect_uri")
	allowedRedirect := p.RedirectURIs == nil && loopback(redirect, "") || slices.ContainsFunc(p.RedirectURIs, func(r string) bool {
		return r == redirect || redirectMatches(r, redirect)
	})
	if get("client_id") != p.ClientID || !allowedRedirect {
		return note(http.StatusBadRequest, "invalid_request", "The client or its redirect address is not known."), nil
	}
	refuse := func(code, text string) (any, error) {
		a := goTo(redirect, "error", code, "error_description", text, "state", get("state"))
		a.code = code
		return a, nil
	}
	switch {
	case get("response_type") != "code":
		return refuse("unsupported_response_type", "response_type must be code")
	case !contains(strings.Fields(get("scope")), "openid"):
		return refuse("invalid_scope", "The scope openid is required")
	case get("code_challenge_method") != "S256" || !challengeRE.MatchString(get("code_challenge")):
		return refuse("invalid_request", "A code_challenge with the method S256 is required")
	}
	v, user, page := s.consentLocked(q, SignInOIDC, "Sign in to "+p.ClientID)
	switch {
	case page != nil:
		return page, nil
	case v == refusedByPerson:
		return refuse("access_denied", "The person said no")
	}
	code := opaque(32)
	s.oidc.codes[code] = &oidcCode{provider: p.Name, redirect: redirect, challenge: get("code_challenge"), nonce: get("nonce"), scope: get("scope"),
		subject: orElse(user, p.Subject), expires: q.now.Add(time.Minute)}
	return goTo(redirect, "code", code, "state", stateFor(v, get("state")), "iss", q.base()+"/oidc/"+p.Name), nil
}

// oidcClient authenticates the client of a request (RFC 6749 §2.3.1).
func oidcClient(q *request, p *OIDCSpec) error {
	id, secret, ok := q.http.BasicAuth()
	if ok {
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = q.params.Get("client_id"), q.params.Get("client_secret")
	}
	if id != p.ClientID || !sameToken(secret, p.ClientSecret) {
		return fail(http.StatusUnauthorized, "invalid_client", "The client or its secret is not right")
	}
	return nil
}

func oidcToken(s *Server, q *request, p *OIDCSpec) (any, error) {
	if err := oidcClient(q, p); err != nil {
		return nil, err
	}
	get := q.params.Get
	out := map[string]any{"access_token": opaque(32), "token_type": "Bearer", "expires_in": p.TokenSeconds}
	fresh := func(subject, scope string, end time.Time) {
		token := opaque(48)
		s.oidc.refresh[token] = &oidcRefresh{provider: p.Name, subject: subject, scope: scope, expires: end}
		out["refresh_token"] = token
	}
	switch get("grant_type") {
	case grantCode:
		c := s.oidc.codes[get("code")]
		if c != nil && c.used {
			s.log.counters["reused:code"]++
		}
		if c == nil || c.used || c.provider != p.Name || !c.expires.After(q.now) || c.redirect != get("redirect_uri") {
			return nil, badOAuth("invalid_grant", "The code is not valid")
		}
		c.used = true
		if v := get("code_verifier"); len(v) < 43 || len(v) > 128 || s256(v) != c.challenge {
			return nil, badOAuth("invalid_grant", "The code verifier is not right")
		}
		out["scope"], out["id_token"] = c.scope, s.idTokenLocked(p, q.base(), c.subject, c.nonce)
		if !p.NoRefreshToken && contains(strings.Fields(c.scope), "offline_access") {
			fresh(c.subject, c.scope, q.now.Add(time.Duration(p.SessionSeconds)*time.Second))
		}
	case grantRefresh:
		r := s.oidc.refresh[get("refresh_token")]
		if r != nil && r.used {
			s.log.counters["reused:refresh_token"]++
		}
		if r == nil || r.used || r.provider != p.Name || !r.expires.After(q.now) {
			return nil, badOAuth("invalid_grant", "The refresh token is not valid")
		}
		out["scope"] = r.scope
		if p.Rotate {
			r.used = true
			fresh(r.subject, r.scope, r.expires)
		}
		if !p.NoIDTokenOnRefresh {
			out["id_token"] = s.idTokenLocked(p, q.base(), r.subject, "")
		}
	default:
		return nil, badOAuth("unsupported_grant_type", "This grant type is not supported")
	}
	return jsonAnswer(http.StatusOK, out).set("Cache-Control", "no-store"), nil
}

func oidcRevoke(s *Server, q *request, p *OIDCSpec) (any, error) {
	if err := oidcClient(q, p); err != nil {
		return nil, err
	}
	delete(s.oidc.refresh, q.params.Get("token"))
	return &answer{status: http.StatusOK, contentType: "application/json"}, nil
}
