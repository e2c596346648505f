package fakeaws

import (
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	sameDevice  = "arn:aws:signin:::devtools/same-device"
	crossDevice = "arn:aws:signin:::devtools/cross-device"
)

// signinRoom is the sign-in service of `aws login`, by the service model
// "signin" 2023-01-01 and, for the pages, as the AWS command line uses it.
var signinRoom = restRoom("signin", signinFailure, &apiError{status: 429, code: "TooManyRequestsError", message: "Too many requests", detail: "INVALID_REQUEST"},
	route{"", "/v1/authorize", "SigninAuthorize", action{run: signinAuthorize, unsigned: true}},
	route{"GET", "/v1/sessions/confirmation", "SigninConfirmation", action{run: signinConfirmation, unsigned: true}},
	route{"POST", "/v1/token", "CreateOAuth2Token", action{run: createOAuth2Token, unsigned: true}},
)

func signinFailure(_ *request, e *apiError) *answer {
	e = generic(e, map[string]string{"InternalFailure": "InternalServerException", "InvalidAction": "UnknownOperationException", "ValidationError": "ValidationException"})
	word := "INVALID_REQUEST"
	if e.status >= 500 {
		word = "server_error"
	}
	a := jsonAnswer(e.status, struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}{orElse(e.detail, word), e.message})
	a.code = e.code
	return a.errorType(e.code)
}

// LoginRefusal makes token requests of `aws login` sessions fail.
type LoginRefusal string

// The refusals of the Signin service.
const (
	LoginWorks              LoginRefusal = ""
	LoginTokenExpired       LoginRefusal = "TOKEN_EXPIRED"
	LoginCredentialsChanged LoginRefusal = "USER_CREDENTIALS_CHANGED"
	LoginNotPermitted       LoginRefusal = "INSUFFICIENT_PERMISSIONS"
)

// signinState is the sign-in service's memory. Server.mu guards it.
type signinState struct {
	as      string // ARN of who signs in, "" for the first user
	refusal LoginRefusal
	codes   map[string]*signinCode
	refresh map[string]*signinRefresh
	proofs  map[string]time.Time // jti of DPoP proofs seen, and when
	life    time.Duration        // of a console session
}

func newSigninState() signinState {
	return signinState{codes: map[string]*signinCode{}, refresh: map[string]*signinRefresh{}, proofs: map[string]time.Time{}, life: 12 * time.Hour}
}

type signinCode struct {
	client, redirect, challenge string
	who                         principal
	expires                     time.Time
	used                        bool
}

// signinSession is a console sign-in that was handed to a client.
type signinSession struct {
	client, key string // key: thumbprint of the DPoP key
	who         principal
	expires     time.Time
	ended       bool
}

// signinRefresh is one refresh token. Sent again while what it gave is valid,
// it gives the same.
type signinRefresh struct {
	session *signinSession
	gave    map[string]any
	until   time.Time
	issued  string
}

// SetLogin names who signs in to the console: the ARN of a user, of an
// account's root, or of a role session (its role must exist); "" is the first
// user. The error says that there is no such principal.
func (s *Server) SetLogin(arn string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.loginLocked(arn); !ok {
		return errors.New("there is nobody with the ARN " + arn)
	}
	s.signin.as = arn
	return nil
}

// RefuseLogin makes every token request of a console sign-in fail; LoginWorks
// ends that.
func (s *Server) RefuseLogin(r LoginRefusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signin.refusal = r
}

// EndLogins ends every `aws login` session: refreshing answers TOKEN_EXPIRED.
func (s *Server) EndLogins() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.signin.refresh {
		r.session.ended = true
	}
}

func (s *Server) loginLocked(arn string) (principal, bool) {
	for _, u := range s.users {
		if arn == "" || u.arn == arn {
			return principal{arn: u.arn, id: u.id, account: u.spec.Account, partition: u.spec.Partition, user: u}, true
		}
	}
	if _, acct, resource, ok := splitARN(arn); ok {
		p := strings.Split(resource, "/")
		for _, r := range s.roles {
			if len(p) == 3 && p[0] == "assumed-role" && r.spec.Name == p[1] && r.spec.Account == acct {
				return roleSession(r, p[2]), true
			}
		}
	}
	return principal{}, false
}

// LoginTokens is a console sign-in as the AWS command line's cache holds it.
type LoginTokens struct {
	LoginSession, ClientID, RefreshToken       string
	AccessKeyID, SecretAccessKey, SessionToken string
	Expires                                    time.Time
}

// NewLogin signs a person in (an ARN as in SetLogin, "" for the first user)
// without any page, for the DPoP key of a client.
func (s *Server) NewLogin(arn string, key *ecdsa.PublicKey) (LoginTokens, error) {
	raw, err := key.Bytes()
	if err != nil || len(raw) != 65 {
		return LoginTokens{}, errors.New("the key is no P-256 key")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	who, ok := s.loginLocked(arn)
	if !ok {
		return LoginTokens{}, errors.New("there is nobody with the ARN " + arn)
	}
	who.via = viaLogin
	x := &signinSession{client: sameDevice, key: jwk{Kty: "EC", Crv: "P-256", X: b64.EncodeToString(raw[1:33]), Y: b64.EncodeToString(raw[33:])}.thumbprint(),
		who: who, expires: s.nowLocked().Add(s.signin.life)}
	c := s.issueLocked(who, 900)
	token := opaque(300)
	s.signin.refresh[token] = &signinRefresh{session: x}
	return LoginTokens{who.arn, sameDevice, token, c.id, c.secret, c.token, c.expires}, nil
}

func signinAuthorize(s *Server, q *request) (any, error) {
	get := q.query.Get
	bad := func(text string) (any, error) {
		return note(http.StatusBadRequest, "ValidationException", text), nil
	}
	redirect := get("redirect_uri")
	switch get("client_id") {
	case sameDevice:
		if !loopback(redirect, "/oauth/callback") {
			return bad("The redirect address must be http://127.0.0.1:PORT/oauth/callback.")
		}
	case crossDevice:
		u, err := url.Parse(redirect)
		if err != nil || u.Path != "/v1/sessions/confirmation" || u.Host != q.http.Host {
			return bad("The redirect address must be the confirmation page of this service.")
		}
	default:
		return bad("The client is not known.")
	}
	switch {
	case get("response_type") != "code", get("scope") != "openid", get("state") == "":
		return bad("response_type must be code, scope openid, and state present.")
	case get("code_challenge_method") != "SHA-256" || !challengeRE.MatchString(get("code_challenge")):
		return bad("A code_challenge with the method SHA-256 is required.")
	}
	who, ok := s.loginLocked(s.signin.as)
	if !ok {
		return bad("Nobody can sign in: there is no user.")
	}
	v, _, page := s.consentLocked(q, SignInLogin, "Continue as "+who.arn+"?")
	switch {
	case page != nil:
		return page, nil
	case v == refusedByPerson:
		a := goTo(redirect, "error", "access_denied", "error_description", "The request was denied", "state", get("state"))
		a.code = "access_denied"
		return a, nil
	}
	code := opaque(64)
	s.signin.codes[code] = &signinCode{client: get("client_id"), redirect: redirect, challenge: get("code_challenge"), who: who, expires: q.now.Add(10 * time.Minute)}
	return goTo(redirect, "code", code, "state", stateFor(v, get("state"))), nil
}

func signinConfirmation(_ *Server, q *request) (any, error) {
	get := q.query.Get
	if get("code") == "" {
		return note(http.StatusOK, "", "You did not sign in: "+orElse(get("error_description"), get("error"))), nil
	}
	return htmlPage(http.StatusOK, pastePage, base64.StdEncoding.EncodeToString([]byte("state="+get("state")+"&code="+get("code")))), nil
}

func badSignin(format string, args ...any) *apiError {
	e := badOAuth("ValidationException", format, args...)
	e.detail = "INVALID_REQUEST"
	return e
}

func signinDenied(status int, detail, message string) *apiError {
	return &apiError{status: status, code: "AccessDeniedException", message: message, detail: detail}
}

func createOAuth2Token(s *Server, q *request) (any, error) {
	get := q.params.Get
	client := get("clientId")
	if client != sameDevice && client != crossDevice {
		return nil, badSignin("1 validation error detected: Value at 'clientId' failed to satisfy constraint")
	}
	key, err := s.checkProofLocked(q)
	if err != nil {
		return nil, badSignin("Invalid DPoP proof: %v", err)
	}
	switch s.signin.refusal {
	case LoginTokenExpired:
		return nil, signinDenied(http.StatusUnauthorized, string(s.signin.refusal), "The token has expired")
	case LoginCredentialsChanged:
		return nil, signinDenied(http.StatusForbidden, string(s.signin.refusal), "The credentials of the user have changed")
	case LoginNotPermitted:
		return nil, signinDenied(http.StatusForbidden, string(s.signin.refusal), "The user lacks the permission signin:CreateOAuth2Token")
	}
	switch get("grantType") {
	case grantCode:
		c := s.signin.codes[get("code")]
		if c == nil || c.client != client {
			return nil, badSignin("Invalid authorization code")
		}
		if c.used || !c.expires.After(q.now) {
			if c.used {
				s.log.counters["reused:code"]++
			}
			return nil, signinDenied(http.StatusUnauthorized, "AUTHCODE_EXPIRED", "The authorization code has expired")
		}
		c.used = true
		if v := get("codeVerifier"); len(v) < 43 || len(v) > 128 || s256(v) != c.challenge {
			return nil, badSignin("Invalid code verifier")
		}
		if get("redirectUri") != c.redirect {
			return nil, badSignin("Invalid redirect URI")
		}
		if c.who.denied("signin:CreateOAuth2Token") {
			return nil, signinDenied(http.StatusForbidden, string(LoginNotPermitted), "The user lacks the permission signin:CreateOAuth2Token")
		}
		x := &signinSession{client: client, key: key, who: c.who, expires: q.now.Add(s.signin.life)}
		out := s.signinTokenLocked(q, x)
		kid, signer := s.oidc.signerLocked("signin")
		out["idToken"] = signJWT(signer, kid, map[string]any{"iss": q.base(), "aud": client, "sub": x.who.arn, "iat": q.now.Unix(), "exp": q.now.Add(15 * time.Minute).Unix()})
		return out, nil
	case grantRefresh:
		r := s.signin.refresh[get("refreshToken")]
		if r == nil || r.session.client != client {
			return nil, badSignin("Invalid refresh token")
		}
		if r.session.key != key {
			return nil, badSignin("Invalid DPoP proof: the key is not that of the session")
		}
		if r.session.ended || !r.session.expires.After(q.now) || r.gave != nil && !r.until.After(q.now) {
			return nil, signinDenied(http.StatusUnauthorized, string(LoginTokenExpired), "The token has expired")
		}
		if r.gave == nil {
			r.gave = s.signinTokenLocked(q, r.session)
			r.until, r.issued = s.sessions[q.issued].expires, q.issued
			return r.gave, nil
		}
		s.log.counters["again:refresh_token"]++
		q.issued = r.issued
		out := map[string]any{}
		for k, v := range r.gave {
			out[k] = v
		}
		out["expiresIn"] = int(r.until.Sub(q.now).Seconds())
		return out, nil
	}
	return nil, badSignin("1 validation error detected: Value at 'grantType' failed to satisfy constraint")
}

func (s *Server) signinTokenLocked(q *request, x *signinSession) map[string]any {
	who := x.who
	who.via = viaLogin
	c := s.issueLocked(who, 900)
	q.issued = c.id
	token := opaque(300)
	s.signin.refresh[token] = &signinRefresh{session: x}
	return map[string]any{
		"accessToken": map[string]string{"accessKeyId": c.id, "secretAccessKey": c.secret, "sessionToken": c.token},
		"tokenType":   "aws_sigv4", "expiresIn": min(900, int(q.fault.expiration(c.expires, q.now).Sub(q.now).Round(time.Second).Seconds())), "refreshToken": token,
	}
}

// checkProofLocked judges the DPoP header (RFC 9449 §4.3) and returns the
// key's thumbprint.
func (s *Server) checkProofLocked(q *request) (string, error) {
	proofs := q.http.Header.Values("DPoP")
	if len(proofs) != 1 {
		return "", errors.New("exactly one DPoP header is required")
	}
	x, err := parseJWS(proofs[0])
	if err != nil {
		return "", errors.New("not a JWS")
	}
	if x.header.Typ != "dpop+jwt" || x.header.Alg != "ES256" || x.header.JWK == nil {
		return "", errors.New("typ must be dpop+jwt, alg ES256, and jwk present")
	}
	key, err := x.header.JWK.public()
	if err != nil {
		return "", err
	}
	if _, ok := key.(*ecdsa.PublicKey); !ok {
		return "", errors.New("not an EC key")
	}
	if err := x.verify(key); err != nil {
		return "", err
	}
	var c struct {
		HTM string  `json:"htm"`
		HTU string  `json:"htu"`
		IAT float64 `json:"iat"`
		JTI string  `json:"jti"`
	}
	if err := json.Unmarshal(x.payload, &c); err != nil {
		return "", errors.New("the payload is not JSON")
	}
	at := time.Unix(int64(c.IAT), 0)
	switch {
	case c.HTM != q.http.Method:
		return "", errors.New("htm is not the request's method")
	case c.HTU != q.base()+q.http.URL.Path:
		return "", errors.New("htu is not the request's URL")
	case at.Before(q.now.Add(-5*time.Minute)) || at.After(q.now.Add(5*time.Minute)):
		return "", errors.New("iat is too far from now")
	case c.JTI == "":
		return "", errors.New("jti is missing")
	}
	for id, seen := range s.signin.proofs {
		if seen.Before(q.now.Add(-time.Hour)) {
			delete(s.signin.proofs, id)
		}
	}
	if _, ok := s.signin.proofs[c.JTI]; ok {
		s.log.counters["reused:jti"]++
		return "", errors.New("jti was used before")
	}
	s.signin.proofs[c.JTI] = q.now
	return x.header.JWK.thumbprint(), nil
}
