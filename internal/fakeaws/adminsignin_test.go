package fakeaws_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

func TestAdminSignIn(t *testing.T) {
	s, base, ca := fakeawstest.StartTLS(t, "oidc.eu-west-1.amazonaws.com")
	srv := httptest.NewServer(s.AdminHandler())
	defer srv.Close()
	call := func(method, path, body string, status int, out any) string {
		t.Helper()
		return admin(t, srv.URL, method, path, body, status, out)
	}
	call("POST", "/roles", `{"arn":"`+samlRole+`","trust":[{"federated":["*"]}]}`, 200, nil)
	call("POST", "/signin", `{"sso":[{"accounts":[{"roles":[{"name":"Admin"}]}]}],"oidc":[{}],"saml":[{"roles":["`+samlRole+`"]}],
		"instance":{"role":"`+samlRole+`"},"containers":[{"role":"`+samlRole+`","token":"x"}],"anywhere_profiles":[{}],"sign_in":{"sso":"click"}}`, 200, nil)
	for _, bad := range []string{`{"sign_in":{"sso":"maybe"}}`, `{"sign_in":{"door":"auto"}}`, `{"login":"arn:aws:iam::111122223333:user/nobody"}`, `{"trust_anchors":[{"pem":"x"}]}`,
		`{"sso":[{"accounts":[{"id":"1"}]}]}`, `{"saml":[{"roles":["x"]}]}`, `{"oidc":[{"wrong":"colour"}]}`, `{"issuers":[{"issuer":"https://x","jwks":{"keys":[{"kty":"x"}]}}]}`, `{"nonsense":1}`} {
		call("POST", "/signin", bad, 400, nil)
	}
	var tok fakeaws.SSOTokens
	call("POST", "/sso-tokens", `{"start_url":"`+startURL+`"}`, 200, &tok)
	call("POST", "/sso-tokens", `{"start_url":"https://x"}`, 400, nil)
	p := as(t, s, "", "", "").at(base, trusting(t, ca))
	d, err := p.oidc().StartDeviceAuthorization(t.Context(), deviceOf(tok))
	if err != nil || !strings.HasPrefix(*d.VerificationUri, "https://127.0.0.1:") {
		t.Fatalf("%+v %v", d, err)
	}
	var n map[string]int
	if call("POST", "/device", `{"user_code":"`+*d.UserCode+`"}`, 200, &n); n["decided"] != 1 {
		t.Errorf("%v", n)
	}
	if call("POST", "/end", `{"what":"sso-sessions"}`, 200, &n); n["ended"] != 1 {
		t.Errorf("%v", n)
	}
	for _, what := range []string{"sso-tokens", "sso-clients", "oidc-sessions", "login-sessions", "cookies"} {
		call("POST", "/end", `{"what":"`+what+`"}`, 200, nil)
	}
	call("POST", "/end", `{"what":"it-all"}`, 400, nil)
	call("POST", "/rotate", `{"keep":true}`, 200, nil)
	call("GET", "/saml-response", "", 200, nil)
	call("GET", "/saml-response?provider=x", "", 400, nil)
	var id map[string]string
	if call("GET", "/id-token?base=https://idp.example.com", "", 200, &id); strings.Count(id["id_token"], ".") != 2 {
		t.Errorf("%v", id)
	}
	call("GET", "/session?access_key_id=x", "", 400, nil)
	call("POST", "/reset", "", 200, nil)

	// The same in a state file.
	file := filepath.Join(t.TempDir(), "w.json")
	if err := os.WriteFile(file, []byte(`{"users":[{}],"sso":[{}],"login":"`+alice+`","sign_in":{"login":"form"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := fakeaws.LoadWorld(file)
	if err != nil || len(w.SSO) != 1 {
		t.Fatalf("%+v %v", w, err)
	}
	if _, _, err := fakeaws.New().Populate(w); err != nil {
		t.Error(err)
	}
}
