//go:build linux

package e2e

import (
	"os"
	"strings"
	"testing"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// TestWrongState: a page that answers with another state than ours is not
// believed: whoever waits gets nothing, and the log says why.
func TestWrongState(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]fakeaws.SignInKind{"login": fakeaws.SignInLogin, "oidc": fakeaws.SignInOIDC} { // sso: TestForgedAnswers
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := sources()[name].make(t)
			p.aws.SetSignIn(kind, fakeaws.SignInWrongState)
			p.env["KEYFOB_SIGNIN_TIMEOUT"] = "2s"
			p.refusal(p.do(nil, "login", "p"), 3, "hint: keyfob login p")
			if log := p.file(p.path("data/keyfobd.log")); !strings.Contains(log, "state") {
				t.Errorf("the log does not say it: %s", log)
			}
			if n := p.aws.Count("CreateOAuth2Token") + p.aws.Count("OIDCToken"); n != 0 {
				t.Errorf("%d codes of somebody else were used", n)
			}
		})
	}
}

// TestSomebodyElse: the person who signs in is not the one of login_session.
func TestSomebodyElse(t *testing.T) {
	t.Parallel()
	p := sources()["login"].make(t)
	p.aws.AddUser(fakeaws.UserSpec{Name: "mallory"})
	if err := p.aws.SetLogin("arn:aws:iam::111122223333:user/mallory"); err != nil {
		t.Fatal(err)
	}
	p.refusal(p.do(nil, "login", "p"), 1, "user/mallory", "user/alice")
	if r := p.do(nil, "credential-process", "--profile", "p"); r.code == 0 || r.out != "" {
		t.Errorf("somebody else's credentials are handed out: %+v", r)
	}
}

// TestBadAnswers: what a provider, a tool or a service gives and can't be
// used, by source.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		source string
		spoil  func(t *testing.T, p *person) (stdin string)
		args   []string
		says   []string
	}{
		"a token for another audience": {"web token", func(t *testing.T, p *person) string {
			p.aws.AddOIDC(fakeaws.OIDCSpec{Name: "other", ClientID: "somebody-else", Accounts: []string{"999988887777"}})
			token, err := p.aws.IDToken(p.url, "other", "pod")
			if err != nil {
				t.Fatal(err)
			}
			p.secrets.note("idToken", token)
			p.write("token", token)
			return ""
		}, nil, []string{"token"}},
		"a token file with a line of text": {"web token", func(_ *testing.T, p *person) string {
			p.write("token", "CANARY please log in first")
			return ""
		}, nil, []string{"/token"}},
		"an assertion of a tool that prints a warning": {"saml tool", func(_ *testing.T, p *person) string {
			p.write("assertion", "WARNING: CANARY-warning you are old\nPHNhbWw+\n")
			return ""
		}, nil, []string{"saml_process"}},
		"an assertion for another role": {"saml", func(t *testing.T, p *person) string {
			p.aws.AddSAML(fakeaws.SAMLSpec{Roles: []string{secondARN}, ACS: p.url + "/saml"})
			text, err := p.aws.SAMLResponse("idp", nil)
			if err != nil {
				t.Fatal(err)
			}
			p.secrets.note("assertion", text)
			return text
		}, []string{"--assertion-file", "-"}, []string{federatedARN}},
		"an assertion with a wrong signature": {"saml", func(t *testing.T, p *person) string {
			p.aws.AddSAML(fakeaws.SAMLSpec{Roles: []string{federatedARN}, ACS: p.url + "/saml", Wrong: "signature"})
			text, err := p.aws.SAMLResponse("idp", nil)
			if err != nil {
				t.Fatal(err)
			}
			p.secrets.note("assertion", text)
			return text
		}, []string{"--assertion-file", "-"}, []string{federatedARN}},
		"an instance without a role": {"instance", func(_ *testing.T, p *person) string {
			p.aws.SetInstance(fakeaws.InstanceSpec{})
			return ""
		}, nil, []string{"instance", "role"}},
		"a process that prints a warning before its JSON": {"process", func(_ *testing.T, p *person) string {
			p.write("tool", strings.Replace(p.file(p.path("tool")), "\n", "\necho 'WARNING: CANARY-warning'\n", 1))
			return ""
		}, nil, []string{"JSON", "hint: "}},
		"a process that is not there": {"process", func(t *testing.T, p *person) string {
			if err := os.Remove(p.path("tool")); err != nil {
				t.Fatal(err)
			}
			return ""
		}, nil, []string{"credential_process"}},
		"a process that does not end": {"process", func(_ *testing.T, p *person) string {
			p.env["KEYFOB_PROCESS_TIMEOUT"] = "1s"
			p.write("tool", "#!/bin/sh\nexec sleep 30\n")
			return ""
		}, nil, []string{"process_timeout"}},
		"a process that never stops printing": {"process", func(_ *testing.T, p *person) string {
			p.write("tool", "#!/bin/sh\nexec yes CANARY\n")
			return ""
		}, nil, []string{"1048576"}},
		"a certificate of another authority": {"roles anywhere", func(t *testing.T, p *person) string {
			leaf := fakeawstest.NewIssuer(t).Leaf(t, fakeawstest.LeafSpec{})
			p.write("both.pem", string(leaf.CertPEM)+string(leaf.KeyPEM))
			return ""
		}, nil, []string{"trust"}},
		"a region that is none": {"roles anywhere", func(_ *testing.T, p *person) string { // sso_region: TestBadSSO
			p.write(".aws/config", strings.ReplaceAll(p.file(p.path(".aws/config")), ":rolesanywhere:eu-west-1:", ":rolesanywhere:Ireland:"))
			return ""
		}, nil, []string{"Ireland", "region"}},
		"the certificate of an authority": {"roles anywhere", func(t *testing.T, p *person) string {
			leaf := fakeawstest.NewIssuer(t).Leaf(t, fakeawstest.LeafSpec{IsCA: true})
			p.write("both.pem", string(leaf.CertPEM)+string(leaf.KeyPEM))
			return ""
		}, nil, []string{"both.pem"}},
		"keys that AWS does not know": {"long-lived", func(_ *testing.T, p *person) string {
			p.aws.DeleteKey(p.keyID)
			return ""
		}, nil, []string{"access key"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := sources()[x.source].make(t)
			in := x.spoil(t, p)
			r := p.do([]byte(in), append([]string{"login", "p"}, x.args...)...)
			p.bad(r, 1, x.says...)
			t.Logf("%s", r.err)
			if strings.Contains(r.err, "CANARY") {
				t.Errorf("what it printed is shown: %q", r.err)
			}
			// and for a program that asks: the same
			if r = p.do(nil, "credential-process", "--profile", "p"); r.code != 1 && x.source != "saml" || r.code == 0 {
				t.Errorf("credential-process: %+v", r)
			}
		})
	}
}
