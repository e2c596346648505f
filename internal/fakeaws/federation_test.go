package fakeaws_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/logincreds"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/signin"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

const webRole = "arn:aws:iam::444455556666:role/web"

func TestWebIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeaws.New()
		p := as(t, s, "", "", "")
		s.AddRole(fakeaws.RoleSpec{ARN: webRole, Trust: []fakeaws.Trust{{Federated: []string{"arn:aws:iam::*:oidc-provider/*/oidc/idp"}, Audiences: []string{"keyfob"}, Subjects: []string{"ali*"}}}})
		const base = "https://idp.example.com"
		call := func(spec fakeaws.OIDCSpec, subject string, change func(*sts.AssumeRoleWithWebIdentityInput)) (*sts.AssumeRoleWithWebIdentityOutput, error) {
			t.Helper()
			s.AddOIDC(spec)
			token, err := s.IDToken(base, "idp", subject)
			if err != nil {
				t.Fatal(err)
			}
			in := &sts.AssumeRoleWithWebIdentityInput{RoleArn: aws.String(webRole), RoleSessionName: aws.String("alice"), WebIdentityToken: &token}
			if change != nil {
				change(in)
			}
			return p.sts().AssumeRoleWithWebIdentity(t.Context(), in)
		}
		out, err := call(fakeaws.OIDCSpec{}, "", func(in *sts.AssumeRoleWithWebIdentityInput) {
			in.PolicyArns = []types.PolicyDescriptorType{{Arn: aws.String("arn:aws:iam::aws:policy/ReadOnlyAccess")}}
		})
		if err != nil || *out.Audience != "keyfob" || *out.SubjectFromWebIdentityToken != "alice" || *out.Provider != "arn:aws:iam::444455556666:oidc-provider/idp.example.com/oidc/idp" {
			t.Fatalf("%+v %v", out, err)
		}
		if who, err := p.with(out.Credentials).who(); err != nil || who != "arn:aws:sts::444455556666:assumed-role/web/alice" {
			t.Errorf("%s %v", who, err)
		}
		// Narrowed to reading.
		s.AddUser(fakeaws.UserSpec{Name: "dave", Account: "444455556666"})
		if _, err = p.with(out.Credentials).iam().GetUser(t.Context(), &iam.GetUserInput{UserName: aws.String("dave")}); err != nil {
			t.Error(err)
		}
		_, err = p.with(out.Credentials).iam().CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: aws.String("dave")})
		code(t, err, "AccessDenied", "")
		if x, _ := s.Session(*out.Credentials.AccessKeyId); len(x.PolicyARNs) != 1 || x.Via != "AssumeRoleWithWebIdentity" {
			t.Errorf("%+v", x)
		}
		if c := s.Calls("AssumeRoleWithWebIdentity"); c[0].Params["WebIdentityToken"] != "[redacted]" {
			t.Error("the token is recorded")
		}

		_, err = call(fakeaws.OIDCSpec{}, "bob", nil)
		refused(t, err, 403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
		_, err = call(fakeaws.OIDCSpec{}, "", func(in *sts.AssumeRoleWithWebIdentityInput) { in.WebIdentityToken = aws.String("opaque") })
		code(t, err, "InvalidIdentityToken", "is not a valid JWT")
		_, err = call(fakeaws.OIDCSpec{Wrong: "aud"}, "", nil)
		refused(t, err, 400, "InvalidIdentityToken", "Incorrect token audience")
		_, err = call(fakeaws.OIDCSpec{Wrong: "iss"}, "", nil)
		refused(t, err, 400, "InvalidIdentityToken", "No OpenIDConnect provider found in your account for https://elsewhere.example.com")
		_, err = call(fakeaws.OIDCSpec{Wrong: "signature"}, "", nil)
		code(t, err, "InvalidIdentityToken", "Couldn't retrieve verification key")
		_, err = call(fakeaws.OIDCSpec{Wrong: "expired"}, "", nil)
		code(t, err, "ExpiredTokenException", "Token expired")
		_, err = call(fakeaws.OIDCSpec{Accounts: []string{"111122223333"}}, "", nil)
		code(t, err, "InvalidIdentityToken", "No OpenIDConnect provider")
		s.AddOIDC(fakeaws.OIDCSpec{})
		old, _ := s.IDToken(base, "idp", "")
		s.RotateOIDCKeys("idp", true)
		if _, err = call(fakeaws.OIDCSpec{}, "", func(in *sts.AssumeRoleWithWebIdentityInput) { in.WebIdentityToken = &old }); err != nil {
			t.Errorf("with the kept key: %v", err)
		}
		s.RotateOIDCKeys("idp", false)
		_, err = call(fakeaws.OIDCSpec{}, "", func(in *sts.AssumeRoleWithWebIdentityInput) { in.WebIdentityToken = &old })
		code(t, err, "InvalidIdentityToken", "")
	})
}

// The provider's own endpoints, over real sockets.
func TestOpenIDProvider(t *testing.T) {
	s, base := fakeawstest.Start(t)
	s.AddRole(fakeaws.RoleSpec{ARN: webRole, Trust: []fakeaws.Trust{{Federated: []string{"*"}}}})
	iss := base + s.AddOIDC(fakeaws.OIDCSpec{Rotate: true, NoIDTokenOnRefresh: true})
	b := fakeawstest.NewBrowser(t, false)
	var d map[string]any
	if x := b.Open(iss + "/.well-known/openid-configuration"); json.Unmarshal([]byte(x.Body), &d) != nil || d["issuer"] != iss {
		t.Fatalf("%+v", x)
	}
	page := func(nonce string) string {
		t.Helper()
		x := b.Open(d["authorization_endpoint"].(string) + "?" + url.Values{"response_type": {"code"}, "client_id": {"keyfob"}, "scope": {"openid offline_access"}, "state": {"st"}, "nonce": {nonce},
			"redirect_uri": {"http://127.0.0.1:4711/oauth/callback"}, "code_challenge_method": {"S256"}, "code_challenge": {challengeOf(verifier)}}.Encode())
		u, _ := url.Parse(x.Location)
		if u.Query().Get("state") != "st" || u.Query().Get("iss") != iss {
			t.Fatalf("%+v", x)
		}
		return u.Query().Get("code")
	}
	token := func(status int, fields ...string) map[string]any {
		t.Helper()
		x := b.Post(d["token_endpoint"].(string), append(fields, "client_id", "keyfob")...)
		out := map[string]any{}
		if json.Unmarshal([]byte(x.Body), &out) != nil || x.Status != status {
			t.Fatalf("%+v, want %d", x, status)
		}
		return out
	}
	redeem := func(status int, code, verifier string) map[string]any {
		t.Helper()
		return token(status, "grant_type", "authorization_code", "code", code, "code_verifier", verifier, "redirect_uri", "http://127.0.0.1:4711/oauth/callback")
	}
	a := redeem(200, page("n-1"), verifier)
	id := a["id_token"].(string)
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(id, ".")[1])
	if !strings.Contains(string(payload), `"nonce":"n-1"`) {
		t.Errorf("%s", payload)
	}
	if _, err := as(t, s, "", "", "").at(base, nil).sts().AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{RoleArn: aws.String(webRole), RoleSessionName: aws.String("alice"), WebIdentityToken: &id}); err != nil {
		t.Error(err)
	}
	if x := redeem(400, page(""), verifier+"x"); x["error"] != "invalid_grant" {
		t.Errorf("%v", x)
	}
	r := token(200, "grant_type", "refresh_token", "refresh_token", a["refresh_token"].(string))
	if r["id_token"] != nil || r["refresh_token"] == nil || r["refresh_token"] == a["refresh_token"] {
		t.Errorf("%v", r)
	}
	token(400, "grant_type", "refresh_token", "refresh_token", a["refresh_token"].(string))
	if s.Count("reused:refresh_token") != 1 {
		t.Error("not counted")
	}
	s.AddOIDC(fakeaws.OIDCSpec{})
	first := token(200, "grant_type", "refresh_token", "refresh_token", r["refresh_token"].(string))
	if first["id_token"] == nil || first["refresh_token"] != nil {
		t.Errorf("%v", first)
	}
	s.EndOIDCSessions()
	token(400, "grant_type", "refresh_token", "refresh_token", r["refresh_token"].(string))
	s.AddOIDC(fakeaws.OIDCSpec{ClientSecret: "s3cret"})
	token(401, "grant_type", "refresh_token", "refresh_token", "x")
}

const samlRole = "arn:aws:iam::444455556666:role/saml"

func TestSAML(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeaws.New()
		p := as(t, s, "", "", "")
		provider := fakeaws.SAMLProviderARN("444455556666", "idp")
		s.AddRole(fakeaws.RoleSpec{ARN: samlRole, MaxSessionDuration: 7200, Trust: []fakeaws.Trust{{Federated: []string{provider}}}})
		s.AddRole(fakeaws.RoleSpec{ARN: samlRole + "2", Trust: []fakeaws.Trust{{Federated: []string{provider}}}})
		spec := fakeaws.SAMLSpec{Roles: []string{samlRole}, SourceIdentity: "alice", Tags: map[string]string{"team": "a&b <c> \"d\""}, TransitiveTags: []string{"team"}, SessionDuration: 7200}
		call := func(spec fakeaws.SAMLSpec, seconds int32, change func(*fakeaws.Assertion), spoil func(string) string) (*sts.AssumeRoleWithSAMLOutput, error) {
			t.Helper()
			s.AddSAML(spec)
			text, err := s.SAMLResponse("idp", change)
			if err != nil {
				t.Fatal(err)
			}
			if spoil != nil {
				b, _ := base64.StdEncoding.DecodeString(text)
				text = base64.StdEncoding.EncodeToString([]byte(spoil(string(b))))
			}
			return p.sts().AssumeRoleWithSAML(t.Context(), &sts.AssumeRoleWithSAMLInput{RoleArn: aws.String(samlRole), PrincipalArn: &provider, SAMLAssertion: &text, DurationSeconds: &seconds})
		}
		for _, reversed := range []bool{false, true} {
			spec.Reversed = reversed
			out, err := call(spec, 7200, nil, nil)
			if err != nil || *out.AssumedRoleUser.Arn != "arn:aws:sts::444455556666:assumed-role/saml/alice@example.com" || *out.SourceIdentity != "alice" {
				t.Fatalf("%+v %v", out, err)
			}
			near(t, "expiration", *out.Credentials.Expiration, time.Now().Add(2*time.Hour))
			if x, _ := s.Session(*out.Credentials.AccessKeyId); x.Tags["team"] != "a&b <c> \"d\"" || len(x.TransitiveTags) != 1 || x.Via != "AssumeRoleWithSAML" {
				t.Errorf("%+v", x)
			}
		}
		spec.SessionSeconds = 1800
		out, err := call(spec, 7200, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "capped expiration", *out.Credentials.Expiration, time.Now().Add(30*time.Minute))

		refuse := func(name, want string, spec fakeaws.SAMLSpec, seconds int32, change func(*fakeaws.Assertion), spoil func(string) string) {
			t.Helper()
			_, err := call(spec, seconds, change, spoil)
			if err == nil {
				t.Errorf("%s: accepted", name)
				return
			}
			code(t, err, want, "")
		}
		plain := fakeaws.SAMLSpec{Roles: []string{samlRole}}
		with := func(f func(*fakeaws.SAMLSpec)) fakeaws.SAMLSpec { x := plain; f(&x); return x }
		refuse("audience", "InvalidIdentityToken", with(func(x *fakeaws.SAMLSpec) { x.Audience = "urn:somebody:else" }), 900, nil, nil)
		refuse("china's audience", "InvalidIdentityToken", with(func(x *fakeaws.SAMLSpec) { x.Audience = "urn:amazon:webservices:cn-north-1" }), 900, nil, nil)
		refuse("signature", "InvalidIdentityToken", with(func(x *fakeaws.SAMLSpec) { x.Wrong = "signature" }), 900, nil, nil)
		refuse("issuer", "InvalidIdentityToken", with(func(x *fakeaws.SAMLSpec) { x.Wrong = "issuer" }), 900, nil, nil)
		refuse("expired", "ExpiredTokenException", plain, 900, func(a *fakeaws.Assertion) { a.NotOnOrAfter = time.Now() }, nil)
		refuse("old", "ExpiredTokenException", with(func(x *fakeaws.SAMLSpec) { x.AssertionSeconds = 3600 }), 900, func(a *fakeaws.Assertion) { a.IssueInstant = a.IssueInstant.Add(-6 * time.Minute) }, nil)
		refuse("too long", "ValidationError", plain, 10000, nil, nil)
		refuse("tampered", "InvalidIdentityToken", plain, 900, nil, func(x string) string { return strings.ReplaceAll(x, "alice@", "root@") })
		refuse("unsigned", "InvalidIdentityToken", plain, 900, nil, func(x string) string {
			i, j := strings.Index(x, "<ds:Signature "), strings.Index(x, "</ds:Signature>")
			return x[:i] + x[j+len("</ds:Signature>"):]
		})
		refuse("not offered", "AccessDenied", with(func(x *fakeaws.SAMLSpec) { x.Roles = []string{samlRole + "2"} }), 900, nil, nil)
		refuse("no XML", "InvalidIdentityToken", plain, 900, nil, func(string) string { return "hello" })
	})
}

func TestSAMLPage(t *testing.T) {
	s, base := fakeawstest.Start(t)
	s.AddRole(fakeaws.RoleSpec{ARN: samlRole, Trust: []fakeaws.Trust{{Federated: []string{"*"}}}})
	page := base + s.AddSAML(fakeaws.SAMLSpec{Roles: []string{samlRole}})
	s.SetSignIn(fakeaws.SignInSAML, fakeaws.SignInForm)
	b := fakeawstest.NewBrowser(t, false)
	address := page + "?RelayState=r%201&acs=" + url.QueryEscape(base+"/saml")
	if x := b.Open(address); !strings.Contains(x.Body, `id="username"`) {
		t.Fatalf("%+v", x)
	}
	x := b.Post(address, "username", "bob", "password", fakeaws.SignInPassword)
	if y := b.Open(address); !strings.Contains(y.Body, "SAMLResponse") {
		t.Errorf("the cookie does not remember: %+v", y)
	}
	field := func(name string) string {
		_, rest, ok := strings.Cut(x.Body, name+`="`)
		v, _, _ := strings.Cut(rest, `"`)
		if !ok {
			t.Fatalf("no %s in %s", name, x.Body)
		}
		return html.UnescapeString(v)
	}
	if field("action") != base+"/saml" || field(`"RelayState" value`) != "r 1" {
		t.Errorf("%s", x.Body)
	}
	response := field(`"SAMLResponse" value`)
	if y := b.Post(base+"/saml", "SAMLResponse", response); y.Status != 200 || !strings.Contains(y.Body, samlRole) {
		t.Errorf("%+v", y)
	}
	out, err := as(t, s, "", "", "").at(base, nil).sts().AssumeRoleWithSAML(t.Context(), &sts.AssumeRoleWithSAMLInput{RoleArn: aws.String(samlRole),
		PrincipalArn: aws.String(fakeaws.SAMLProviderARN("444455556666", "idp")), SAMLAssertion: &response})
	if err != nil || !strings.HasSuffix(*out.AssumedRoleUser.Arn, "/bob") {
		t.Errorf("%+v %v", out, err)
	}
}

// AWS's own SDK refreshes a login session from a cache that we write.
func TestLoginCacheWithSDK(t *testing.T) {
	s, base := fakeawstest.Start(t)
	s.AddUser(fakeaws.UserSpec{})
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	l, err := s.NewLogin("", &key.PublicKey)
	if err != nil || l.LoginSession != alice {
		t.Fatal(err)
	}
	der, _ := x509.MarshalECPrivateKey(key)
	file := filepath.Join(t.TempDir(), "login.json")
	b, _ := json.Marshal(map[string]any{"accessToken": map[string]any{"accessKeyId": l.AccessKeyID, "secretAccessKey": l.SecretAccessKey, "sessionToken": l.SessionToken,
		"accountId": "111122223333", "expiresAt": time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)}, "tokenType": "aws_sigv4", "clientId": l.ClientID,
		"refreshToken": l.RefreshToken, "idToken": "x.y.z", "dpopKey": string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))})
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	p := as(t, s, "", "", "").at(base, nil)
	c, err := logincreds.New(signin.NewFromConfig(p.cfg), file).Retrieve(t.Context())
	if err != nil || c.AccessKeyID == l.AccessKeyID {
		t.Fatalf("%v", err)
	}
	if who, err := p.with(&types.Credentials{AccessKeyId: &c.AccessKeyID, SecretAccessKey: &c.SecretAccessKey, SessionToken: &c.SessionToken}).who(); err != nil || who != alice {
		t.Errorf("%s %v", who, err)
	}
}

func TestConsole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeaws.New()
		id, secret := s.AddUser(fakeaws.UserSpec{})
		role := s.AddRole(fakeaws.RoleSpec{})
		second := s.AddRole(fakeaws.RoleSpec{Name: "second"})
		p := as(t, s, id, secret, "")
		token := func(c *types.Credentials, more string) (int, string) {
			t.Helper()
			b, _ := json.Marshal(map[string]*string{"sessionId": c.AccessKeyId, "sessionKey": c.SecretAccessKey, "sessionToken": c.SessionToken})
			r := get(s, "https://signin.aws.amazon.com/federation?Action=getSigninToken"+more+"&Session="+url.QueryEscape(string(b)))
			body, _ := io.ReadAll(r.Body)
			var out struct{ SigninToken string }
			_ = json.Unmarshal(body, &out)
			return r.StatusCode, out.SigninToken
		}
		login := func(token, to string) *http.Response {
			return get(s, "https://signin.aws.amazon.com/federation?Action=login&Issuer=x&Destination="+url.QueryEscape(to)+"&SigninToken="+token)
		}
		a, err := p.assume(role, nil)
		if err != nil {
			t.Fatal(err)
		}
		status, tok := token(a.Credentials, "&SessionDuration=43200")
		if status != 200 || tok == "" {
			t.Fatalf("%d", status)
		}
		const home = "https://console.aws.amazon.com/s3/home"
		r := login(tok, home)
		body, _ := io.ReadAll(r.Body)
		if r.StatusCode != 200 || !strings.Contains(string(body), *a.AssumedRoleUser.Arn) || !strings.Contains(string(body), home) {
			t.Errorf("%d %s", r.StatusCode, body)
		}
		if login(tok, "https://evil.example.com/").StatusCode != 400 || login("x", home).StatusCode != 400 {
			t.Error("accepted")
		}
		chained, err := p.with(a.Credentials).assume(second, nil)
		if err != nil {
			t.Fatal(err)
		}
		f, err := p.federate("alice", `{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`)
		if err != nil {
			t.Fatal(err)
		}
		session, err := p.sts().GetSessionToken(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, x := range map[string]struct {
			c    *types.Credentials
			more string
			want int
		}{
			"chained":                 {chained.Credentials, "", 200},
			"chained with duration":   {chained.Credentials, "&SessionDuration=3600", 400},
			"federated":               {f.Credentials, "", 200},
			"federated with duration": {f.Credentials, "&SessionDuration=3600", 400},
			"GetSessionToken":         {session.Credentials, "", 400},
			"long-lived":              {&types.Credentials{AccessKeyId: &id, SecretAccessKey: &secret}, "", 400},
			"duration":                {a.Credentials, "&SessionDuration=60", 400},
		} {
			if status, _ := token(x.c, x.more); status != x.want {
				t.Errorf("%s: %d, want %d", name, status, x.want)
			}
		}
		time.Sleep(16 * time.Minute)
		if login(tok, home).StatusCode != 400 {
			t.Error("a token of 16 minutes is accepted")
		}
	})
}
