package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// provider is what a provider says of itself (OpenID Connect Discovery 1.0,
// RFC 8414, RFC 8628 §4, RFC 9207 §3, OpenID Connect RP-Initiated Logout 1.0).
// Who runs a session's operation uses it alone.
type provider struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	Keys          string   `json:"jwks_uri"`
	Device        string   `json:"device_authorization_endpoint"`
	Revocation    string   `json:"revocation_endpoint"`
	EndSession    string   `json:"end_session_endpoint"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	NamesIssuer   bool     `json:"authorization_response_iss_parameter_supported"`

	read time.Time
	keys []jose.JSONWebKey
}

// providerFor is how long a discovery holds.
const providerFor = 12 * time.Hour

// discover reads the provider's metadata.
func (s *signIn) discover(ctx context.Context, doing string) (*provider, error) {
	c := &call{signIn: s, op: "OIDCDiscovery", doing: doing}
	a, err := c.get(ctx, strings.TrimSuffix(s.issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	p := &provider{read: time.Now()}
	if a.status == http.StatusNotFound {
		return nil, c.error(a.status, "", "there is no OpenID provider at "+s.issuer+" (HTTP 404 for its openid-configuration)",
			"check oidc_issuer in profile "+s.profile, true)
	}
	if a.status != http.StatusOK || json.Unmarshal(a.body, p) != nil {
		return nil, c.strange(a)
	}
	if p.Issuer != s.issuer {
		if p.Issuer == "" {
			return nil, c.strange(a)
		}
		return nil, c.error(a.status, "", "the provider at "+s.issuer+" calls itself "+quoted(p.Issuer),
			"oidc_issuer in profile "+s.profile+" must be what the provider calls itself, to the letter", true)
	}
	issuer, err := url.Parse(s.issuer)
	if err != nil {
		return nil, c.strange(a)
	}
	for _, e := range []struct {
		name, address string
		needed        bool
	}{
		{"authorization_endpoint", p.Authorization, false}, {"token_endpoint", p.Token, true}, {"jwks_uri", p.Keys, true},
		{"device_authorization_endpoint", p.Device, false}, {"revocation_endpoint", p.Revocation, false}, {"end_session_endpoint", p.EndSession, false},
	} {
		if e.address == "" && !e.needed {
			continue
		}
		if u, err := url.Parse(e.address); err != nil || !secureURL(u, issuer) || u.Fragment != "" {
			return nil, c.error(a.status, "", "the provider names no usable "+e.name+" ("+quoted(withoutUser(e.address))+")", "it must be an https address", true)
		}
	}
	return p, nil
}

// signatures are those that both sides may use: none of them can be made
// with a secret that both know, or without any.
var signatures = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.PS256, jose.PS384, jose.PS512, jose.EdDSA}

// expected is what an ID token must fit beyond what is configured.
type expected struct {
	nonce string
	// must: the nonce must be there; otherwise it may be left out.
	must    bool
	subject string // "" for any
}

// verify checks an ID token (OpenID Connect Core 1.0 §3.1.3.7, §12.2).
func (p *provider) verify(ctx context.Context, c *call, raw string, want expected) (claims, error) {
	var allowed []string
	for _, a := range signatures {
		if len(p.Algorithms) == 0 && a == jose.RS256 || slices.Contains(p.Algorithms, string(a)) {
			allowed = append(allowed, string(a))
		}
	}
	bad := func(why, help string) (claims, error) {
		return claims{}, c.error(http.StatusOK, "", "the provider's ID token is not usable: "+why, help, true)
	}
	if len(allowed) == 0 {
		return bad("the provider signs by no method that can be verified with public keys", "")
	}
	keys := &keySet{p: p, c: &call{signIn: c.signIn, op: "OIDCKeys", doing: c.doing}}
	now := time.Now().Add(c.seen.Facts().Skew)
	v := goidc.NewVerifier(c.issuer, keys, &goidc.Config{ClientID: c.client, SupportedSigningAlgs: allowed, Now: func() time.Time { return now }})
	token, err := v.Verify(ctx, raw)
	said, readable := peek(raw)
	if err != nil {
		var expired *goidc.TokenExpiredError
		switch {
		case keys.err != nil:
			return claims{}, keys.err
		case keys.unknown:
			return bad("none of the provider's keys made its signature", "somebody may be in between; otherwise the provider's keys and tokens do not fit")
		case errors.As(err, &expired):
			return bad("it expired at "+expired.Expiry.UTC().Format(time.RFC3339), "check this machine's clock and the provider's")
		case !readable:
			return bad("it is no signed JWT", "")
		case said.issuer != c.issuer:
			return bad("it is of issuer "+quoted(said.issuer)+", not of "+c.issuer, "check oidc_issuer in profile "+c.profile)
		case !slices.Contains(said.audience, c.client):
			return bad("it is for "+quoted(strings.Join(said.audience, ", "))+", not for the client "+c.client, "check oidc_client_id in profile "+c.profile)
		}
		return bad(printable(scrub(strings.TrimPrefix(err.Error(), "oidc: "), append([]string{raw}, c.secrets...)), 200), "")
	}
	switch {
	case token.Nonce == "" && want.must:
		return bad("it lacks the nonce of this sign-in", "try again; a provider that leaves nonces out can't be used")
	case token.Nonce != "" && want.nonce != "" && token.Nonce != want.nonce:
		return bad("its nonce is not that of this sign-in", "it belongs to another sign-in; somebody may be in between")
	case token.Subject == "":
		return bad("it names no subject", "")
	case want.subject != "" && token.Subject != want.subject:
		return bad("it is for another person than the one who signed in", "keyfob logout "+c.profile+", and sign in again")
	case len(token.Audience) > 1 && said.party != "" && said.party != c.client:
		return bad("it is for the client "+quoted(said.party)+", not for "+c.client, "check oidc_client_id in profile "+c.profile)
	case len(raw) > maxToken:
		return bad(fmt.Sprintf("it is longer than the %d characters that AWS takes", maxToken), "have the provider put fewer claims (groups, for example) into it")
	}
	return said, nil
}

// keySet verifies signatures by the provider's keys. They are read again
// when none of those that are known fits: keys are rotated.
type keySet struct {
	p       *provider
	c       *call
	err     error // the keys could not be read
	unknown bool  // no key fits
}

// VerifySignature implements go-oidc's KeySet.
func (k *keySet) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	sig, err := jose.ParseSigned(token, signatures)
	if err != nil || len(sig.Signatures) != 1 {
		return nil, errors.New("it is no JWT with one signature")
	}
	if payload, ok := k.try(sig); ok {
		return payload, nil
	}
	if k.err = k.read(ctx); k.err != nil {
		return nil, k.err
	}
	if payload, ok := k.try(sig); ok {
		return payload, nil
	}
	k.unknown = true
	return nil, errors.New("no key of the provider made the signature")
}

func (k *keySet) try(sig *jose.JSONWebSignature) ([]byte, bool) {
	id := sig.Signatures[0].Header.KeyID
	for i := range k.p.keys {
		if key := &k.p.keys[i]; id == "" || key.KeyID == "" || key.KeyID == id {
			if payload, err := sig.Verify(key); err == nil {
				return payload, true
			}
		}
	}
	return nil, false
}

// read fetches the keys. Those of kinds that are not known are left out.
func (k *keySet) read(ctx context.Context) error {
	a, err := k.c.get(ctx, k.p.Keys)
	if err != nil {
		return err
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if a.status != http.StatusOK || json.Unmarshal(a.body, &set) != nil || set.Keys == nil {
		return k.c.strange(a)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil && key.IsPublic() && key.Use != "enc" {
			keys = append(keys, key)
		}
	}
	k.p.keys = keys
	return nil
}

// tokens is an answer of the token endpoint.
type tokens struct {
	id, refresh string
	refreshEnds time.Time // zero where the provider does not say
}

// oauthError is a refusal of the token endpoint (RFC 6749 §5.2).
type oauthError struct {
	code, text string
	status     int
}

func (e *oauthError) Error() string { return e.code }

// errSpent says that an answer was cut off, or that none came: a one-use
// token that was sent may have been taken.
type errSpent struct{ err error }

func (e *errSpent) Error() string { return e.err.Error() }
func (e *errSpent) Unwrap() error { return e.err }

// exchange asks the token endpoint. Errors: *oauthError for its refusals;
// *errSpent; others, after which what was sent is as good as before.
func (p *provider) exchange(ctx context.Context, c *call, form url.Values) (*tokens, error) {
	form.Set("client_id", c.client)
	c.op = "OIDCToken"
	for _, name := range []string{"code", "code_verifier", "refresh_token", "device_code"} {
		if v := form.Get(name); v != "" {
			c.secrets = append(c.secrets, v)
		}
	}
	a, err := c.post(ctx, p.Token, form)
	if err != nil {
		if c.sent.Load() {
			return nil, &errSpent{err}
		}
		return nil, err
	}
	var all map[string]any
	err = json.Unmarshal(a.body, &all)
	text := func(name string) string { s, _ := all[name].(string); return s }
	code := text("error")
	switch {
	case code != "" && a.status >= 400 && a.status < 500 && a.status != http.StatusTooManyRequests:
		return nil, &oauthError{code: printable(scrub(code, c.secrets), 80), text: clause(printable(scrub(text("error_description"), c.secrets), 300)), status: a.status}
	case a.status != http.StatusOK || c.seen.Facts().HTML:
		p.read = time.Time{} // the address may be an old one
		return nil, c.strange(a)
	case err != nil:
		return nil, &errSpent{c.strange(a)}
	}
	t := &tokens{id: text("id_token"), refresh: text("refresh_token")}
	// No standard names it: Keycloak and Microsoft Entra ID do.
	for _, name := range []string{"refresh_expires_in", "refresh_token_expires_in"} {
		if n, ok := all[name].(float64); ok && n > 0 && n < 1<<32 {
			t.refreshEnds = time.Now().Add(time.Duration(n) * time.Second)
		}
	}
	if t.id == "" && t.refresh == "" && text("access_token") == "" {
		return nil, &errSpent{c.error(a.status, "", c.seen.Facts().Host+" sent an answer without tokens", "check oidc_issuer in profile "+c.profile, false)}
	}
	return t, nil
}

// refusal is an oauthError in words.
func (c *call) refusal(e *oauthError) error {
	text, help, refused := "the provider answered "+e.code, "", true
	if e.text != "" {
		text += ": " + e.text
	}
	switch e.code {
	case "invalid_client", "unauthorized_client":
		help = "check oidc_client_id in profile " + c.profile + "; the client must be a public one (a native application with PKCE and no secret) that may use this grant"
	case "invalid_scope":
		help = "check oidc_scopes in profile " + c.profile + " (asked for: " + strings.Join(c.scopes, " ") + ")"
	case "invalid_request":
		help = "check oidc_client_id, oidc_scopes and oidc_redirect_port in profile " + c.profile + ": the provider must know the redirect address http://127.0.0.1:PORT/oauth/callback"
	case "temporarily_unavailable", "server_error", "slow_down":
		refused = false
	}
	return c.error(e.status, e.code, text, help, refused)
}
