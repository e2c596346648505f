package fakeaws

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	grantCode    = "authorization_code"
	grantRefresh = "refresh_token"
	grantDevice  = "urn:ietf:params:oauth:grant-type:device_code"
	scopeAccess  = "sso:account:access"
)

// ssoOIDCRoom is SSO OIDC with its authorize and device pages, by the service
// model "sso-oidc" 2019-06-10 and, for what is not in it, as the AWS command
// line uses it.
var ssoOIDCRoom = restRoom("sso-oauth", ssoOIDCFailure, &apiError{status: 400, code: "SlowDownException", message: "Rate exceeded"},
	route{"POST", "/client/register", "RegisterClient", action{run: registerClient, unsigned: true}},
	route{"POST", "/device_authorization", "StartDeviceAuthorization", action{run: startDevice, unsigned: true}},
	route{"POST", "/token", "CreateToken", action{run: createToken, unsigned: true}},
	route{"", "/authorize", "Authorize", action{run: ssoAuthorize, unsigned: true}},
	route{"", "/device", "DevicePage", action{run: devicePage, unsigned: true}},
)

// oauthWords are the "error" values of SSO OIDC's exceptions.
var oauthWords = map[string]string{
	"AccessDeniedException": "access_denied", "AuthorizationPendingException": "authorization_pending", "ExpiredTokenException": "expired_token",
	"InternalServerException": "server_error", "InvalidClientException": "invalid_client", "InvalidClientMetadataException": "invalid_client_metadata",
	"InvalidGrantException": "invalid_grant", "InvalidRedirectUriException": "invalid_redirect_uri", "InvalidRequestException": "invalid_request",
	"InvalidScopeException": "invalid_scope", "SlowDownException": "slow_down", "UnauthorizedClientException": "unauthorized_client",
	"UnsupportedGrantTypeException": "unsupported_grant_type",
}

func ssoOIDCFailure(_ *request, e *apiError) *answer {
	e = generic(e, map[string]string{"InternalFailure": "InternalServerException", "InvalidAction": "UnknownOperationException", "ValidationError": "InvalidRequestException"})
	a := jsonAnswer(e.status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{orElse(e.detail, orElse(oauthWords[e.code], "invalid_request")), e.message})
	a.code = e.code
	return a.errorType(e.code)
}

func badOAuth(code, format string, args ...any) *apiError {
	return fail(http.StatusBadRequest, code, format, args...)
}

// clientSecretJWT makes a client secret of the form and length of AWS's: a
// JWT that nobody but AWS can read.
func clientSecretJWT(now time.Time) string {
	h, _ := json.Marshal(map[string]string{"kid": "key-1", "alg": "HS384"})
	p, _ := json.Marshal(map[string]any{"serialized": opaque(600), "exp": now.AddDate(0, 3, 0).Unix()})
	return b64.EncodeToString(h) + "." + b64.EncodeToString(p) + "." + opaque(48)
}

var regionHost = regexp.MustCompile(`^(?:oidc|portal\.sso)\.([a-z0-9-]+)\.amazonaws\.com(?::\d+)?$`)

// wrongRegion: the instance answers in its own region alone.
func wrongRegion(q *request, p *SSOSpec) bool {
	m := regionHost.FindStringSubmatch(q.http.Host)
	return m != nil && m[1] != p.Region
}

func registerClient(s *Server, q *request) (any, error) {
	get := q.params.Get
	if get("clientName") == "" || get("clientType") == "" {
		return nil, badOAuth("InvalidRequestException", "clientName and clientType are required")
	}
	if get("clientType") != "public" {
		return nil, badOAuth("InvalidClientMetadataException", "Invalid client type provided")
	}
	c := &ssoClient{id: opaque(16), secret: clientSecretJWT(q.now), name: get("clientName"), start: get("issuerUrl"),
		scopes: q.params["scopes"], redirects: q.params["redirectUris"], grants: q.params["grantTypes"]}
	for _, g := range c.grants {
		if g != grantCode && g != grantRefresh && g != grantDevice {
			return nil, badOAuth("UnsupportedGrantTypeException", "Grant type %s is not supported", g)
		}
	}
	life := 90 * 86400
	if p := s.portalLocked(c.start); p != nil {
		life = p.ClientSeconds
		if wrongRegion(q, p) {
			return nil, badOAuth("InvalidRequestException", "Invalid issuerUrl provided")
		}
	} else if c.start != "" {
		return nil, badOAuth("InvalidRequestException", "Invalid issuerUrl provided")
	}
	if contains(c.grants, grantCode) {
		if c.start == "" {
			return nil, badOAuth("InvalidRequestException", "issuerUrl is required")
		}
		if len(c.redirects) == 0 {
			return nil, badOAuth("InvalidRedirectUriException", "redirectUris are required")
		}
	}
	for _, u := range c.redirects {
		if !loopback(u, "") {
			return nil, badOAuth("InvalidRedirectUriException", "Invalid redirect URI provided")
		}
	}
	c.expires = q.now.Add(time.Duration(life) * time.Second).Truncate(time.Second)
	s.sso.clients[c.id] = c
	return map[string]any{"clientId": c.id, "clientSecret": c.secret, "clientIdIssuedAt": q.now.Unix(), "clientSecretExpiresAt": c.expires.Unix(),
		"authorizationEndpoint": nil, "tokenEndpoint": nil}, nil
}

// ssoClientLocked authenticates the client of a request.
func (s *Server) ssoClientLocked(q *request) (*ssoClient, *apiError) {
	c := s.sso.clients[q.params.Get("clientId")]
	if c == nil || !sameToken(c.secret, q.params.Get("clientSecret")) {
		return nil, fail(http.StatusUnauthorized, "InvalidClientException", "Invalid client provided")
	}
	if !c.expires.After(q.now) {
		return nil, fail(http.StatusUnauthorized, "InvalidClientException", "Client is expired")
	}
	return c, nil
}

// userCodeLetters has no vowels and nothing that is mistaken for another.
const userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"

func startDevice(s *Server, q *request) (any, error) {
	c, err := s.ssoClientLocked(q)
	if err != nil {
		return nil, err
	}
	p := s.portalLocked(q.params.Get("startUrl"))
	if p == nil || wrongRegion(q, p) {
		return nil, badOAuth("InvalidRequestException", "Invalid startUrl provided")
	}
	if !c.may(grantDevice) {
		return nil, badOAuth("UnauthorizedClientException", "The client is not registered for the device authorization grant")
	}
	b := random(8)
	for i := range b {
		b[i] = userCodeLetters[int(b[i])%len(userCodeLetters)]
	}
	d := &ssoDevice{userCode: string(b[:4]) + "-" + string(b[4:]), client: c, portal: p, expires: q.now.Add(time.Duration(p.DeviceSeconds) * time.Second)}
	code := opaque(64)
	s.sso.devices[code] = d
	out := map[string]any{"deviceCode": code, "userCode": d.userCode, "verificationUri": q.base() + "/device",
		"verificationUriComplete": q.base() + "/device?user_code=" + d.userCode, "expiresIn": p.DeviceSeconds}
	if p.Interval > 0 {
		out["interval"] = p.Interval
	}
	return out, nil
}

func devicePage(s *Server, q *request) (any, error) {
	code := strings.ToUpper(strings.TrimSpace(q.query.Get("user_code")))
	if code == "" {
		return htmlPage(http.StatusOK, codePage, nil), nil
	}
	var d *ssoDevice
	for _, x := range s.sso.devices {
		if x.userCode == code {
			d = x
		}
	}
	if d == nil || !d.expires.After(q.now) {
		return note(http.StatusBadRequest, "InvalidCode", "This code is not valid or has expired."), nil
	}
	if d.state != "" {
		return note(http.StatusOK, "", "This code was used before."), nil
	}
	v, user, page := s.consentLocked(q, SignInSSO, "Allow "+d.client.name+" to access your data? Code "+code)
	if page != nil {
		return page, nil
	}
	d.decide(v != refusedByPerson, user)
	if v == refusedByPerson {
		return note(http.StatusOK, "", "Request denied. You can close this window."), nil
	}
	return note(http.StatusOK, "", "Request approved. You can close this window."), nil
}

var challengeRE = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

func ssoAuthorize(s *Server, q *request) (any, error) {
	get := q.query.Get
	c := s.sso.clients[get("client_id")]
	if c == nil || !c.expires.After(q.now) {
		return note(http.StatusBadRequest, "InvalidClientException", "The client is not known."), nil
	}
	redirect := get("redirect_uri")
	if !slices.ContainsFunc(c.redirects, func(r string) bool { return redirectMatches(r, redirect) }) {
		return note(http.StatusBadRequest, "InvalidRedirectUriException", "The redirect address is not one of the client's."), nil
	}
	refuse := func(code, text string) (any, error) {
		a := goTo(redirect, "error", code, "error_description", text, "state", get("state"))
		a.code = code
		return a, nil
	}
	p := s.portalLocked(c.start)
	scopes := strings.Fields(get("scopes"))
	switch {
	case p == nil:
		return refuse("invalid_request", "The start URL is not known")
	case !c.may(grantCode):
		return refuse("unauthorized_client", "The client is not registered for the authorization code grant")
	case get("response_type") != "code":
		return refuse("unsupported_response_type", "response_type must be code")
	case get("state") == "":
		return refuse("invalid_request", "state is required")
	case get("code_challenge_method") != "S256" || !challengeRE.MatchString(get("code_challenge")):
		return refuse("invalid_request", "A code_challenge with the method S256 is required")
	case len(scopes) == 0 || slices.ContainsFunc(scopes, func(x string) bool { return !contains(c.scopes, x) }):
		return refuse("invalid_scope", "The scopes are not those of the client")
	}
	v, user, page := s.consentLocked(q, SignInSSO, "Allow "+c.name+" to access your data?")
	switch {
	case page != nil:
		return page, nil
	case v == refusedByPerson:
		return refuse("access_denied", "User denied the request")
	}
	code := opaque(64)
	s.sso.codes[code] = &ssoCode{client: c, portal: p, user: user, redirect: redirect, challenge: get("code_challenge"), expires: q.now.Add(10 * time.Minute)}
	return goTo(redirect, "code", code, "state", stateFor(v, get("state"))), nil
}

func stateFor(v verdict, state string) string {
	if v == otherState {
		return requestID()
	}
	return state
}

// redirectMatches compares a loopback redirect with a registered one: any
// port (RFC 8252 §7.3), the same path.
func redirectMatches(registered, got string) bool {
	host := func(u string) string { // without the port
		rest, ok := strings.CutPrefix(u, "http://")
		h, path, _ := strings.Cut(rest, "/")
		if i := strings.LastIndexByte(h, ':'); i > strings.LastIndexByte(h, ']') {
			h = h[:i]
		}
		if !ok {
			return ""
		}
		return h + "/" + path
	}
	return loopback(got, "") && host(registered) == host(got)
}

func createToken(s *Server, q *request) (any, error) {
	get := q.params.Get
	grant := get("grantType")
	if get("clientId") == "" || get("clientSecret") == "" || grant == "" {
		return nil, badOAuth("InvalidRequestException", "clientId, clientSecret and grantType are required")
	}
	c, err := s.ssoClientLocked(q)
	if err != nil {
		return nil, err
	}
	if grant != grantCode && grant != grantRefresh && grant != grantDevice {
		return nil, badOAuth("UnsupportedGrantTypeException", "Grant type %s is not supported", grant)
	}
	if !c.may(grant) {
		return nil, badOAuth("UnauthorizedClientException", "The client is not registered for %s", grant)
	}
	var x *ssoSession
	switch grant {
	case grantDevice:
		x, err = s.redeemDeviceLocked(q, c)
	case grantCode:
		x, err = s.redeemCodeLocked(q, c)
	case grantRefresh:
		x, err = s.redeemRefreshLocked(q, c)
	}
	if err != nil {
		return nil, err
	}
	access, refresh := s.ssoTokensLocked(c, x)
	out := map[string]any{"accessToken": access, "tokenType": "Bearer", "expiresIn": int(s.sso.access[access].expires.Sub(q.now).Round(time.Second).Seconds()), "idToken": nil}
	if refresh != "" {
		out["refreshToken"] = refresh
	}
	return out, nil
}

func (s *Server) redeemDeviceLocked(q *request, c *ssoClient) (*ssoSession, *apiError) {
	d := s.sso.devices[q.params.Get("deviceCode")]
	if d == nil || d.client != c {
		return nil, badOAuth("InvalidGrantException", "Invalid device code provided")
	}
	early := !d.polled.IsZero() && q.now.Sub(d.polled) < time.Duration(max(1, d.portal.Interval))*time.Second*9/10
	d.polled = q.now
	switch {
	case d.state == "used":
		return nil, badOAuth("InvalidGrantException", "Invalid device code provided")
	case d.state == "denied":
		return nil, badOAuth("AccessDeniedException", "User denied the request")
	case !d.expires.After(q.now):
		return nil, badOAuth("ExpiredTokenException", "Device code expired")
	case early && d.portal.StrictInterval:
		return nil, badOAuth("SlowDownException", "Polling too fast")
	case d.state == "":
		return nil, badOAuth("AuthorizationPendingException", "Authorization is still pending")
	}
	d.state = "used"
	return s.newSSOSessionLocked(d.portal, d.user), nil
}

func (s *Server) redeemCodeLocked(q *request, c *ssoClient) (*ssoSession, *apiError) {
	get := q.params.Get
	x := s.sso.codes[get("code")]
	if x == nil || x.client != c || !x.expires.After(q.now) {
		return nil, badOAuth("InvalidGrantException", "Invalid authorization code provided")
	}
	if x.used {
		s.log.counters["reused:code"]++
		return nil, badOAuth("InvalidGrantException", "Invalid authorization code provided")
	}
	x.used = true // also when what follows is wrong
	if get("redirectUri") != x.redirect {
		return nil, badOAuth("InvalidGrantException", "Invalid redirect URI provided")
	}
	if v := get("codeVerifier"); len(v) < 43 || len(v) > 128 || s256(v) != x.challenge {
		return nil, badOAuth("InvalidGrantException", "Invalid code verifier provided")
	}
	return s.newSSOSessionLocked(x.portal, x.user), nil
}

func (s *Server) redeemRefreshLocked(q *request, c *ssoClient) (*ssoSession, *apiError) {
	t := s.sso.refresh[q.params.Get("refreshToken")]
	if t != nil && t.used {
		s.log.counters["reused:refresh_token"]++
	}
	if t == nil || t.used || t.client != c || !t.session.alive(q.now) {
		return nil, badOAuth("InvalidGrantException", "Invalid refresh token provided")
	}
	t.used = true
	return t.session, nil
}
