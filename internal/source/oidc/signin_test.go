package oidc

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/internal/source/loopback"
	"keyfob/profiles"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func challenge(v string) string { s := sha256.Sum256([]byte(v)); return b64(s[:]) }

func wants(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", parts)
	}
	text := err.Error() + " | " + cred.HintOf(err)
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("error %q lacks %q", text, p)
		}
	}
	if strings.ContainsAny(text, "\n\r\t") || strings.HasSuffix(err.Error(), ".") || !strings.HasPrefix(err.Error(), "cannot ") {
		t.Errorf("error %q is not in form", text)
	}
}

func interaction(t *testing.T, err error) *cred.InteractionError {
	t.Helper()
	var ie *cred.InteractionError
	if !errors.As(err, &ie) {
		t.Fatalf("error %v is no InteractionError", err)
	}
	return ie
}

func upstreamError(t *testing.T, err error) *cred.UpstreamError {
	t.Helper()
	var up *cred.UpstreamError
	if !errors.As(err, &up) {
		t.Fatalf("error %v is no UpstreamError", err)
	}
	return up
}

// TestSignIn: a browser signs in, the role is assumed in the person's name;
// another role of the sign-in and a restart need neither a person nor the
// provider.
func TestSignIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	c := w.must()
	s, ok := w.aws.Session(c.AccessKeyID)
	if !ok || !strings.HasSuffix(s.ARN, "assumed-role/federated/alice@example.com") || c.RoleARN != w.roles[0] || c.AccountID != fakeaws.DefaultAccount {
		t.Errorf("session %+v, credentials %+v", s, c)
	}
	q := w.ask.last()
	u, _ := url.Parse(q.URL)
	for k, want := range map[string]string{"response_type": "code", "client_id": "keyfob", "scope": "openid offline_access", "code_challenge_method": "S256"} {
		if got := u.Query().Get(k); got != want {
			t.Errorf("%s = %q, want %q", k, got, want)
		}
	}
	if q.Kind != cred.AskBrowser || !strings.HasSuffix(u.Query().Get("redirect_uri"), "/oauth/callback") || !strings.Contains(q.Text, "/oidc/idp") {
		t.Errorf("question %+v", q)
	}
	w.restart()
	if d := w.must("role_arn", w.roles[1]); d.AccessKeyID == c.AccessKeyID {
		t.Error("the same credentials for another role")
	}
	if n := w.aws.Count("OIDCToken"); n != 1 || w.ask.count() != 1 {
		t.Errorf("%d calls of the token endpoint, %d questions, want 1 and 1", n, w.ask.count())
	}
	src := w.source(w.link()).(cred.SignInSource)
	if src.Interactive() || src.AskKey() != w.source(w.link("role_arn", w.roles[1], "oidc_scopes", "offline_access, openid")).(cred.SignInSource).AskKey() {
		t.Error("the sign-in is not shared")
	}
	if end := src.SignInEnds(t.Context()); !end.IsZero() {
		t.Errorf("the sign-in ends at %v, which nobody said", end)
	}
	if w.source(w.link("oidc_client_id", "other")).(cred.SignInSource).AskKey() == src.AskKey() {
		t.Error("another client shares the sign-in")
	}
}

// TestWithoutRefreshToken: a sign-in lasts as long as its ID token.
func TestWithoutRefreshToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{NoRefreshToken: true})
	w.must()
	end := w.source(w.link()).(cred.SignInSource).SignInEnds(t.Context())
	if left := time.Until(end); left < 55*time.Minute || left > time.Hour {
		t.Errorf("the sign-in ends in %v, want an hour", left)
	}
	w.expire()
	w.must()
	if w.ask.count() != 2 {
		t.Errorf("%d questions, want 2", w.ask.count())
	}
}

// TestRefresh: with and without rotation, and without ID tokens.
func TestRefresh(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]fakeaws.OIDCSpec{"steady": {}, "rotating": {Rotate: true}, "no-id-token": {NoIDTokenOnRefresh: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, spec)
			w.must()
			before := w.record()
			w.expire()
			w.restart()
			w.must()
			after := w.record()
			questions := 1
			if spec.NoIDTokenOnRefresh {
				questions = 2 // the refresh gave nothing: signed in again
			}
			if w.ask.count() != questions {
				t.Errorf("%d questions, want %d", w.ask.count(), questions)
			}
			if rotated := before["refresh_token"] != after["refresh_token"]; rotated != (spec.Rotate || spec.NoIDTokenOnRefresh) {
				t.Errorf("rotated = %v", rotated)
			}
			if after["sent"] != nil {
				t.Error("the mark is still there")
			}
			if !spec.NoIDTokenOnRefresh {
				w.expire()
				w.must()
			}
			if n := w.aws.Count("reused:refresh_token"); n != 0 {
				t.Errorf("a refresh token was used twice (%d)", n)
			}
		})
	}
}

// TestRevoked: what the provider has ended needs a person, once for all.
func TestRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	w.must()
	w.expire()
	w.aws.EndOIDCSessions()
	w.ask.does = nobody
	_, err := w.fetch()
	ie := interaction(t, err)
	if ie.Kind != cred.AskBrowser {
		t.Errorf("kind %q", ie.Kind)
	}
	_, err = w.fetch()
	interaction(t, err)
	if n := len(w.idp.sent()); n != 1 {
		t.Errorf("the ended token was sent %d times, want 1", n)
	}
	w.ask.does = nil
	w.must()
}

// TestDenied: the person says no.
func TestDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	w.aws.SetSignIn(fakeaws.SignInOIDC, fakeaws.SignInDeny)
	_, err := w.fetch()
	wants(t, err, "refused in the browser", "keyfob login asked", w.base+"/oidc/idp")
	if ie := interaction(t, err); ie.Kind != cred.AskBrowser || ie.Profile != "asked" || ie.Key != w.source(w.link()).(cred.SignInSource).AskKey() {
		t.Errorf("%+v", ie)
	}
	// The Queue cools down after a question whose time is over.
	if w.ask.ends[0] != context.DeadlineExceeded {
		t.Errorf("the question ended with %v", w.ask.ends[0])
	}
	if len(w.vault.all()) != 0 {
		t.Error("something was written")
	}
}

// TestForeignAnswers: another state, Host or issuer changes nothing.
func TestForeignAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	w.ask.does = func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		u, _ := url.Parse(q.URL)
		redirect := u.Query().Get("redirect_uri")
		if p := open(t, redirect+"?code=evil&state=guess"); p.Status != http.StatusBadRequest {
			t.Errorf("a wrong state was answered %d", p.Status)
		}
		if p := open(t, redirect+"?error=access_denied&state=guess"); p.Status != http.StatusBadRequest {
			t.Errorf("a refusal with a wrong state was answered %d", p.Status)
		}
		open(t, q.URL)
		<-ctx.Done()
		return cred.Secret{}, ctx.Err()
	}
	w.must()

	w = newWorld(t, fakeaws.OIDCSpec{})
	w.ask.does = func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		u, _ := url.Parse(q.URL)
		open(t, u.Query().Get("redirect_uri")+"?"+url.Values{"code": {"c"}, "state": {u.Query().Get("state")}, "iss": {"https://evil.example.com"}}.Encode())
		<-ctx.Done()
		return cred.Secret{}, ctx.Err()
	}
	_, err := w.fetch()
	wants(t, err, `"https://evil.example.com"`, "another issuer")
	if w.aws.Count("OIDCToken") != 0 {
		t.Error("the code was sent")
	}
}

// TestWrongTokens: what an ID token lacks is said, and it is not sent to AWS.
func TestWrongTokens(t *testing.T) {
	t.Parallel()
	words := map[string][]string{
		"nonce":     {"its nonce is not that of this sign-in"},
		"aud":       {`it is for "somebody-else"`, "not for the client keyfob", "oidc_client_id in profile dev"},
		"iss":       {`issuer "https://elsewhere.example.com"`, "oidc_issuer in profile dev"},
		"signature": {"none of the provider's keys made its signature"},
		"expired":   {"it expired at ", "clock"},
	}
	for wrong, parts := range words {
		t.Run(wrong, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeaws.OIDCSpec{Wrong: wrong})
			_, err := w.fetch()
			wants(t, err, append(parts, "cannot sign in at "+w.base)...)
			if !upstreamError(t, err).Refused {
				t.Error("it is no refusal")
			}
			if w.aws.Count("AssumeRoleWithWebIdentity") != 0 || len(w.vault.all()) != 0 {
				t.Error("the token was used or kept")
			}
			if w.ask.ends[0] != context.DeadlineExceeded {
				t.Errorf("the question ended with %v: a tab would open at each try", w.ask.ends[0])
			}
			// The same at a refresh; what was rotated is kept.
			w.aws.AddOIDC(fakeaws.OIDCSpec{Rotate: true})
			w.must()
			w.aws.AddOIDC(fakeaws.OIDCSpec{Rotate: true, Wrong: wrong})
			w.expire()
			before := w.record()["refresh_token"]
			_, err = w.fetch()
			wants(t, err, append(parts, "cannot refresh the sign-in")...)
			if w.record()["refresh_token"] == before || w.record()["sent"] != nil {
				t.Error("the new refresh token was lost")
			}
			w.aws.AddOIDC(fakeaws.OIDCSpec{Rotate: true})
			w.must()
			if n := w.ask.count(); n != 2 {
				t.Errorf("%d questions, want 2", n)
			}
		})
	}
}

// TestAnotherPerson: a refresh must not change who it is.
func TestAnotherPerson(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	w.must()
	w.change(func(r map[string]any) { r["subject"] = "bob" })
	w.expire()
	_, err := w.fetch()
	wants(t, err, "another person", "keyfob logout dev")
}

// TestKeyRotation: keys are read again when none fits.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{true, false} {
		w := newWorld(t, fakeaws.OIDCSpec{})
		w.must()
		w.expire()
		w.must()
		if n := w.aws.Count("OIDCKeys"); n != 1 {
			t.Errorf("keys were read %d times, want once", n)
		}
		w.aws.RotateOIDCKeys("idp", keep)
		w.expire()
		w.must()
		if n := w.aws.Count("OIDCKeys"); n != 2 {
			t.Errorf("keys were read %d times, want twice", n)
		}
	}
}

// TestWithdrawnKey: an ID token whose key is gone is replaced, once it is old
// enough for that to be the likely cause.
func TestWithdrawnKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	w.must()
	w.aws.RotateOIDCKeys("idp", false)
	_, err := w.fetch()
	wants(t, err, "AWS does not accept the ID token", "issuer "+w.base+"/oidc/idp", "audience keyfob")
	if w.record()["id_token"] == nil {
		t.Error("a new token is suspected")
	}
	w.change(func(r map[string]any) { r["since"] = time.Now().Add(-5 * time.Minute) })
	_, err = w.fetch()
	wants(t, err, "AWS does not accept the ID token")
	w.must()
	if w.ask.count() != 1 {
		t.Errorf("%d questions, want 1", w.ask.count())
	}
}

// TestEndedForAWS: an ID token that AWS calls expired is not sent again.
func TestEndedForAWS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	w.must()
	w.change(func(r map[string]any) { r["since"] = time.Now().Add(-5 * time.Minute) })
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Code: "ExpiredTokenException", Message: "Token expired", Action: "AssumeRoleWithWebIdentity", Count: 1})
	_, err := w.fetch()
	wants(t, err, "the ID token (issuer "+w.base+"/oidc/idp, audience keyfob) expired at 20", "tries again")
	if upstreamError(t, err).Refused {
		t.Error("it is a refusal, though another token will do")
	}
	w.must()
	if n := w.aws.Count("OIDCToken"); n != 2 || w.ask.count() != 1 {
		t.Errorf("%d calls of the token endpoint, %d questions, want 2 and 1", n, w.ask.count())
	}
}

// TestProviderFaults: what can be wrong with the provider, in words.
func TestProviderFaults(t *testing.T) {
	t.Parallel()
	answer := func(path string, status int, contentType, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, path) {
				return false
			}
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	const conf, page = "/openid-configuration", "<!DOCTYPE html><title>Welcome</title>"
	for name, x := range map[string]struct {
		before   func(http.ResponseWriter, *http.Request) bool
		discover func(map[string]any)
		kv       []string
		refused  bool
		want     []string
	}{
		"page":       {before: answer(conf, 200, "text/html", page), want: []string{"web page (HTTP 200)", "oidc_issuer in profile dev"}},
		"error page": {before: answer(conf, 503, "text/html", page), want: []string{"HTTP 503"}},
		"nothing":    {before: answer(conf, 404, "text/html", page), refused: true, want: []string{"there is no OpenID provider at"}},
		"not json":   {before: answer(conf, 200, "application/json", `{"issuer":`), want: []string{"not as an OpenID provider does"}},
		"not ours":   {before: answer(conf, 200, "application/json", `{"hello":1}`), want: []string{"not as an OpenID provider does"}},
		"too long":   {before: answer(conf, 200, "application/json", strings.Repeat(" ", 2<<20)), want: []string{"longer than 1 MiB"}},
		"issuer": {discover: func(d map[string]any) { d["issuer"] = d["issuer"].(string) + "/" }, refused: true,
			want: []string{"calls itself", "/oidc/idp/\"", "to the letter"}},
		"wrong path":   {kv: []string{"oidc_issuer", "/oidc/nobody"}, refused: true, want: []string{"there is no OpenID provider at"}},
		"no token":     {discover: func(d map[string]any) { delete(d, "token_endpoint") }, refused: true, want: []string{"token_endpoint"}},
		"plain http":   {discover: func(d map[string]any) { d["token_endpoint"] = "http://idp.example.com/token" }, refused: true, want: []string{"token_endpoint", "https"}},
		"a user":       {discover: func(d map[string]any) { d["jwks_uri"] = "https://u:hunter22@idp.example.com/" }, refused: true, want: []string{"jwks_uri"}},
		"keys page":    {before: answer("/jwks", 200, "text/html", page), want: []string{"web page"}},
		"token page":   {before: answer("/token", 200, "text/html", page), want: []string{"web page"}},
		"token client": {before: answer("/token", 401, "application/json", `{"error":"invalid_client"}`), refused: true, want: []string{"invalid_client", "oidc_client_id", "public"}},
		"token empty":  {before: answer("/token", 200, "application/json", `{}`), want: []string{"without tokens"}},
		"no id token":  {before: answer("/token", 200, "application/json", `{"access_token":"x"}`), refused: true, want: []string{"no ID token", "openid"}},
		"busy":         {before: answer("/token", 429, "application/json", `{"error":"slow"}`), want: []string{"limits the rate"}},
		"no public":    {discover: func(d map[string]any) { d["id_token_signing_alg_values_supported"] = []string{"HS256", "none"} }, refused: true, want: []string{"public keys"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeaws.OIDCSpec{})
			w.idp.discover = x.discover
			w.idp.intercept(x.before)
			for i := 1; i < len(x.kv); i += 2 {
				x.kv[i] = w.base + x.kv[i]
			}
			_, err := w.fetch(x.kv...)
			wants(t, err, append(x.want, "cannot sign in at ")...)
			if strings.Contains(err.Error(), "hunter22") {
				t.Error("a password is shown")
			}
			if up := upstreamError(t, err); up.Refused != x.refused {
				t.Errorf("Refused = %v: %v", up.Refused, err)
			}
		})
	}
}

// TestRedirects: the discovery follows one within the host; tokens follow
// none, and nothing follows one to elsewhere.
func TestRedirects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	w.idp.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/old/") {
			http.Redirect(rw, r, strings.Replace(r.URL.Path, "/old/", "/oidc/", 1), http.StatusMovedPermanently)
			return true
		}
		return false
	})
	w.idp.discover = func(d map[string]any) { d["issuer"] = w.base + "/old/idp" }
	_, err := w.fetch("oidc_issuer", w.base+"/old/idp")
	wants(t, err, "another issuer") // discovered, and the answer judged

	elsewhere := 0
	other := newWorld(t, fakeaws.OIDCSpec{})
	other.idp.intercept(func(http.ResponseWriter, *http.Request) bool { elsewhere++; return false })
	for _, path := range []string{"/openid-configuration", "/jwks", "/token"} {
		w := newWorld(t, fakeaws.OIDCSpec{})
		w.idp.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, path) {
				http.Redirect(rw, r, other.base+r.URL.Path, http.StatusTemporaryRedirect)
				return true
			}
			return false
		})
		_, err := w.fetch()
		wants(t, err, "redirects (HTTP 307)", "not followed")
	}
	if elsewhere != 0 {
		t.Errorf("%d requests came to another host", elsewhere)
	}
}

// TestSettings: what no call could be made with is said at once.
func TestSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	for _, x := range []struct{ key, value, want string }{
		{"oidc_issuer", "", "oidc_issuer"},
		{"oidc_issuer", "http://idp.example.com", "not https"},
		{"oidc_issuer", "idp.example.com", "oidc_issuer"},
		{"oidc_issuer", "https://u:hunter22@idp.example.com", "oidc_issuer"},
		{"oidc_issuer", "https://idp.example.com/?a=b", "oidc_issuer"},
		{"oidc_issuer", "ftp://127.0.0.1", "not https"},
		{"oidc_client_id", "", "oidc_client_id"},
		{"oidc_client_id", "a\nb", "oidc_client_id"},
		{"oidc_redirect_port", "99999", "oidc_redirect_port"},
		{"role_arn", "arn:aws:iam::1:role/x", "role_arn"},
		{"duration_seconds", "soon", "duration_seconds"},
		{"role_session_name", "a b", "role_session_name"},
		{"session_policy_arns", "nonsense", "managed policy"},
	} {
		_, err := New(w.link(x.key, x.value), w.deps)
		wants(t, err, x.want, "profile dev")
		if !errors.Is(err, cred.ErrConfig) || strings.Contains(err.Error(), "hunter22") {
			t.Errorf("%s: %v", x.key, err)
		}
	}
	_, err := New(profiles.Link{Kind: profiles.KindSSO}, w.deps)
	if !errors.Is(err, cred.ErrConfig) {
		t.Errorf("another kind: %v", err)
	}
	for _, x := range [][2]string{{"", "openid offline_access"}, {"email", "openid email"}, {" openid , email,openid profile", "openid email profile"}} {
		if got := strings.Join(scopesOf(x[0]), " "); got != x[1] {
			t.Errorf("scopes %q, want %q", got, x[1])
		}
	}
}

// TestPort: a port that the provider knows is used, and one that is taken is
// named.
func TestPort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	cb, err := loopback.Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(cb.RedirectURI())
	_, err = w.fetch("oidc_redirect_port", u.Port())
	wants(t, err, u.Port(), "another program", "oidc_redirect_port in profile dev")
	if w.ask.count() != 0 {
		t.Error("a browser was opened in vain")
	}
	_ = cb.Close()
	w.must("oidc_redirect_port", u.Port())
	if !strings.Contains(w.ask.last().URL, u.Port()) {
		t.Error("another port was used")
	}
}

// TestTLS: the CA bundle of the profile holds for the provider, too; without
// it nothing is sent.
func TestTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	aws, base, ca := fakeawstest.StartTLS(t)
	w.aws, w.base, w.roles = aws, base, nil
	w.set(fakeaws.OIDCSpec{}, w.deps.Pool)
	w.aws.SetSignIn(fakeaws.SignInOIDC, fakeaws.SignInAuto)
	link := w.link()
	link.Client.EndpointURL = map[string]string{"sts": base}
	_, err := w.fetchWith(link, cred.Input{})
	wants(t, err, "unknown authority", "ca_bundle")
	link.Client.CABundle = filepath.Join(t.TempDir(), "ca.pem")
	_, err = w.fetchWith(link, cred.Input{})
	wants(t, err, "CA bundle", link.Client.CABundle)
	if err := os.WriteFile(link.Client.CABundle, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	browser := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	w.ask.does = func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		resp, err := browser.Get(q.URL)
		if err != nil {
			t.Error(err)
		} else {
			_ = resp.Body.Close()
		}
		<-ctx.Done()
		return cred.Secret{}, ctx.Err()
	}
	if _, err = w.fetchWith(link, cred.Input{}); err != nil {
		t.Fatal(err)
	}
}

// TestUpstream: both ends are looked at before a person is asked.
func TestUpstream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	src := w.source(w.link()).(*provided)
	if got := src.Upstream(); got != w.base+" or "+w.url {
		t.Errorf("upstream %q", got)
	}
	if err := src.Reach(t.Context()); err != nil {
		t.Error(err)
	}
	gone := w.source(w.link("oidc_issuer", "http://127.0.0.1:1/idp")).(*provided)
	if gone.Reach(t.Context()) == nil {
		t.Error("a provider that is gone is reached")
	}
	_, err := w.fetch("oidc_issuer", "http://127.0.0.1:1/idp")
	wants(t, err, "127.0.0.1:1 refuses the connection", "oidc_issuer in profile dev")
	if up := upstreamError(t, err); up.Status != 0 || up.Refused || !errors.Is(err, cred.ErrUnavailable) {
		t.Errorf("%+v", up)
	}
}

// TestProxy: the provider is called through the proxy that awsclient names.
func TestProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	proxy, _ := url.Parse("http://127.0.0.1:1")
	w.deps.Pool = awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return proxy, nil }})
	_, err := w.fetch()
	wants(t, err, "the proxy 127.0.0.1:1 refuses the connection", "HTTPS_PROXY")
}

// TestClock: tokens are judged by the clocks of those who make and take them.
func TestClock(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{2 * time.Hour, -2 * time.Hour} {
		w := newWorld(t, fakeaws.OIDCSpec{Rotate: true})
		w.aws.SetClock(d)
		w.must()
		w.must("role_arn", w.roles[1])
		if n := w.aws.Count("OIDCToken"); n != 1 {
			t.Errorf("%v: %d calls of the token endpoint, want 1", d, n)
		}
		p := awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }})
		t.Cleanup(p.CloseIdle)
		w.deps.Pool = p // nothing is known of clocks any more
		w.restart()
		w.must()
		if w.ask.count() != 1 {
			t.Errorf("%v: %d questions, want 1", d, w.ask.count())
		}
	}
}
