package fakeaws_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"keyfob/internal/fakeaws"
)

const verifier = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJ"

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// proof makes a DPoP proof; change may spoil it.
func proof(t *testing.T, key *ecdsa.PrivateKey, htu string, change func(header, claims map[string]any)) string {
	t.Helper()
	pub, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	e := base64.RawURLEncoding.EncodeToString
	header := map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": map[string]string{"kty": "EC", "crv": "P-256", "x": e(pub[1:33]), "y": e(pub[33:])}}
	claims := map[string]any{"htm": "POST", "htu": htu, "iat": time.Now().Unix(), "jti": rand.Text()}
	if change != nil {
		change(header, claims)
	}
	h, _ := json.Marshal(header)
	c, _ := json.Marshal(claims)
	signed := e(h) + "." + e(c)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return signed + "." + e(sig)
}

type loginAnswer struct {
	AccessToken struct{ AccessKeyID, SecretAccessKey, SessionToken string }
	TokenType   string
	ExpiresIn   int
	RefreshToken, IDToken,
	Error, Message string
	status int
	kind   string
}

func loginToken(t *testing.T, s *fakeaws.Server, proof string, in map[string]string) loginAnswer {
	t.Helper()
	b, _ := json.Marshal(in)
	r := httptest.NewRequest("POST", "https://eu-west-1.signin.aws.amazon.com/v1/token", bytes.NewReader(b))
	r.Header.Set("Content-Type", "application/json")
	if proof != "" {
		r.Header.Set("DPoP", proof)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	var out loginAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("%s: %v", w.Body, err)
	}
	out.status, out.kind = w.Code, strings.SplitN(w.Header().Get("X-Amzn-Errortype"), ":", 2)[0]
	return out
}

const signinHost = "https://eu-west-1.signin.aws.amazon.com"

func TestLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeaws.New()
		s.AddUser(fakeaws.UserSpec{})
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		const same, cross = "arn:aws:signin:::devtools/same-device", "arn:aws:signin:::devtools/cross-device"
		page := func(client, redirect string) *http.Response {
			return get(s, signinHost+"/v1/authorize?"+url.Values{"response_type": {"code"}, "client_id": {client}, "state": {"st"}, "code_challenge_method": {"SHA-256"},
				"scope": {"openid"}, "redirect_uri": {redirect}, "code_challenge": {challengeOf(verifier)}}.Encode())
		}
		const back = "http://127.0.0.1:4711/oauth/callback"
		approve := func() string {
			t.Helper()
			u, _ := url.Parse(page(same, back).Header.Get("Location"))
			if u.Query().Get("state") != "st" || u.Query().Get("code") == "" || u.Host != "127.0.0.1:4711" {
				t.Fatalf("redirect to %s", u)
			}
			return u.Query().Get("code")
		}
		redeem := func(code, proof string) loginAnswer {
			return loginToken(t, s, proof, map[string]string{"clientId": same, "grantType": "authorization_code", "code": code, "codeVerifier": verifier, "redirectUri": back})
		}
		refresh := func(token, proof string) loginAnswer {
			return loginToken(t, s, proof, map[string]string{"clientId": same, "grantType": "refresh_token", "refreshToken": token})
		}
		const htu = signinHost + "/v1/token"
		good := func() string { return proof(t, key, htu, nil) }
		a := redeem(approve(), good())
		if a.status != 200 || a.TokenType != "aws_sigv4" || a.ExpiresIn != 900 || a.RefreshToken == "" {
			t.Fatalf("%+v", a)
		}
		var claims struct{ Sub string }
		b, _ := base64.RawURLEncoding.DecodeString(strings.Split(a.IDToken, ".")[1])
		if err := json.Unmarshal(b, &claims); err != nil || claims.Sub != alice {
			t.Errorf("sub %s", b)
		}
		p := as(t, s, "", "", "")
		if who, err := p.with(&types.Credentials{AccessKeyId: &a.AccessToken.AccessKeyID, SecretAccessKey: &a.AccessToken.SecretAccessKey, SessionToken: &a.AccessToken.SessionToken}).who(); err != nil || who != alice {
			t.Errorf("%s %v", who, err)
		}

		for name, bad := range map[string]string{
			"none": "",
			"htm":  proof(t, key, htu, func(_, c map[string]any) { c["htm"] = "GET" }),
			"htu":  proof(t, key, signinHost+"/v1/other", nil),
			"iat":  proof(t, key, htu, func(_, c map[string]any) { c["iat"] = time.Now().Add(-time.Hour).Unix() }),
			"typ":  proof(t, key, htu, func(h, _ map[string]any) { h["typ"] = "JWT" }),
			"tampered": func() string { // the key's header and claims, another's signature
				mine := good()
				theirs := proof(t, other, htu, nil)
				return mine[:strings.LastIndexByte(mine, '.')] + theirs[strings.LastIndexByte(theirs, '.'):]
			}(),
		} {
			if x := refresh(a.RefreshToken, bad); x.status != 400 || x.Error != "INVALID_REQUEST" || x.kind != "ValidationException" {
				t.Errorf("%s: %+v", name, x)
			}
		}
		once := good()
		r := refresh(a.RefreshToken, once)
		if r.status != 200 || r.IDToken != "" || r.RefreshToken == a.RefreshToken {
			t.Fatalf("%+v", r)
		}
		if x := refresh(r.RefreshToken, once); x.status != 400 || s.Count("reused:jti") != 1 {
			t.Errorf("a proof used twice: %+v", x)
		}
		if x := refresh(r.RefreshToken, proof(t, other, htu, nil)); x.status != 400 {
			t.Errorf("another key: %+v", x)
		}
		if x := refresh(a.RefreshToken, good()); x.status != 200 || x.RefreshToken != r.RefreshToken || x.AccessToken != r.AccessToken {
			t.Errorf("the same token again: %+v", x)
		}
		time.Sleep(16 * time.Minute)
		if x := refresh(a.RefreshToken, good()); x.status != 401 || x.Error != "TOKEN_EXPIRED" || x.kind != "AccessDeniedException" {
			t.Errorf("an old token: %+v", x)
		}
		r = refresh(r.RefreshToken, good())
		if r.status != 200 {
			t.Errorf("%+v", r)
		}
		for how, status := range map[fakeaws.LoginRefusal]int{fakeaws.LoginTokenExpired: 401, fakeaws.LoginCredentialsChanged: 403, fakeaws.LoginNotPermitted: 403} {
			s.RefuseLogin(how)
			if x := refresh(r.RefreshToken, good()); x.status != status || x.Error != string(how) || x.kind != "AccessDeniedException" {
				t.Errorf("%s: %+v", how, x)
			}
		}
		s.RefuseLogin(fakeaws.LoginWorks)
		s.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Count: 1}, fakeaws.Fault{Kind: fakeaws.Fail500, Count: 1, After: 1})
		if x := refresh(r.RefreshToken, good()); x.status != 429 || x.kind != "TooManyRequestsError" {
			t.Errorf("%+v", x)
		}
		s.SetFaults(fakeaws.Fault{Kind: fakeaws.Fail500, Count: 1})
		if x := refresh(r.RefreshToken, good()); x.status != 500 || x.Error != "server_error" {
			t.Errorf("%+v", x)
		}
		s.EndLogins()
		if x := refresh(r.RefreshToken, good()); x.status != 401 {
			t.Errorf("%+v", x)
		}
		c := approve()
		_ = redeem(c, good())
		if x := redeem(c, good()); x.status != 401 || x.Error != "AUTHCODE_EXPIRED" {
			t.Errorf("a code used twice: %+v", x)
		}

		// Across devices: the page shows what to paste.
		w := page(cross, signinHost+"/v1/sessions/confirmation")
		w = get(s, w.Header.Get("Location"))
		body, _ := io.ReadAll(w.Body)
		_, rest, _ := strings.Cut(string(body), `id="code">`)
		text, _, _ := strings.Cut(rest, "<")
		text = strings.ReplaceAll(text, "&#43;", "+") // html/template's +
		plain, err := base64.StdEncoding.DecodeString(text)
		v, _ := url.ParseQuery(string(plain))
		if err != nil || v.Get("state") != "st" || v.Get("code") == "" {
			t.Errorf("%s: %s %v", body, plain, err)
		}
		x := loginToken(t, s, good(), map[string]string{"clientId": cross, "grantType": "authorization_code", "code": v.Get("code"), "codeVerifier": verifier, "redirectUri": signinHost + "/v1/sessions/confirmation"})
		if x.status != 200 {
			t.Errorf("%+v", x)
		}
		if page(same, "http://evil.example.com/oauth/callback").StatusCode != 400 {
			t.Error("redirects to elsewhere")
		}
		if err := s.SetLogin("arn:aws:iam::111122223333:user/nobody"); err == nil {
			t.Error("nobody can sign in")
		}
	})
}

func TestFederationToken(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{})
	role := s.AddRole(fakeaws.RoleSpec{})
	p := as(t, s, id, secret, "")
	out, err := p.federate("carol", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`)
	if err != nil || *out.FederatedUser.Arn != "arn:aws:sts::111122223333:federated-user/carol" || *out.FederatedUser.FederatedUserId != "111122223333:carol" {
		t.Fatalf("%+v %v", out, err)
	}
	near(t, "expiration", *out.Credentials.Expiration, time.Now().Add(12*time.Hour))
	f := p.with(out.Credentials)
	if who, err := f.who(); err != nil || who != *out.FederatedUser.Arn {
		t.Errorf("%s %v", who, err)
	}
	_, err = f.assume(role, nil)
	code(t, err, "AccessDenied", "")
	_, err = f.iam().GetUser(t.Context(), nil)
	code(t, err, "InvalidClientTokenId", "")
	_, err = f.federate("carol", "")
	refused(t, err, 403, "AccessDenied", "Cannot call GetFederationToken with session credentials")
	x, ok := s.Session(aws.ToString(out.Credentials.AccessKeyId))
	if !ok || x.Via != "GetFederationToken" || !strings.Contains(x.Policy, "s3:*") {
		t.Errorf("%+v", x)
	}
}
