//go:build linux

package e2e

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

const (
	federatedARN = "arn:aws:iam::111122223333:role/federated"
	secondARN    = "arn:aws:iam::111122223333:role/second"
	aliceARN     = "arn:aws:iam::111122223333:user/alice"
)

// newFederated is a person known to an OpenID and a SAML provider.
func newFederated(t *testing.T, config string) *person {
	t.Helper()
	p := newPerson(t, "")
	for _, arn := range []string{federatedARN, secondARN} {
		p.aws.AddRole(fakeaws.RoleSpec{ARN: arn, Trust: []fakeaws.Trust{{Federated: []string{"*"}}}})
	}
	p.aws.AddRole(fakeaws.RoleSpec{ARN: entryARN, Trust: []fakeaws.Trust{{Principals: []string{federatedARN}}}})
	p.add(strings.ReplaceAll(config, "URL", p.url) + "\n[profile top]\nregion = eu-west-1\nrole_arn = " + entryARN + "\nsource_profile = base0\n")
	return p
}

// add adds to ~/.aws/config.
func (p *person) add(config string) {
	p.t.Helper()
	p.write(".aws/config", p.file(p.path(".aws/config"))+"\n"+config)
}

const oidcConfig = `[profile base0]
region = eu-west-1
role_arn = ` + federatedARN + `
oidc_issuer = URL/oidc/idp
oidc_client_id = keyfob
`

// TestOIDC: a sign-in at an OpenID provider, a chain on top, a restart, an
// end of the session there, a refusal, a logout.
func TestOIDC(t *testing.T) {
	t.Parallel()
	p := newFederated(t, oidcConfig)
	p.aws.AddOIDC(fakeaws.OIDCSpec{Rotate: true})
	p.bad(p.do(nil, "credential-process", "--profile", "top"), 3, "hint: keyfob login top")
	p.good(nil, "login", "top")
	first := p.uses("top", "entry")
	p.uses("base0", "federated")
	p.wantTabs(0, 1, "login")
	p.again()
	if d := p.uses("top", "entry"); d.AccessKeyId != first.AccessKeyId {
		t.Error("a new daemon asked AWS again")
	}
	if r := p.good(nil, "login", "top"); !strings.Contains(r.out, "has a valid session") {
		t.Errorf("a second login printed %q", r.out)
	}
	p.wantTabs(0, 1, "after a restart")

	p.good(nil, "logout", "top")
	if p.aws.Count("OIDCRevoke") == 0 {
		t.Error("the refresh token was not revoked")
	}
	p.bad(p.do(nil, "credential-process", "--profile", "base0"), 3, "hint: keyfob login base0")
	p.aws.SetSignIn(fakeaws.SignInOIDC, fakeaws.SignInDeny)
	p.refusal(p.do(nil, "login", "base0"), 3, "refused in the browser")
}

// TestOIDCInChromium: the provider's page in a real browser.
func TestOIDCInChromium(t *testing.T) {
	t.Parallel()
	p := newFederated(t, oidcConfig)
	p.aws.AddOIDC(fakeaws.OIDCSpec{})
	p.chromium()
	p.good(nil, "login", "top")
	p.uses("top", "entry")
	p.wantTabs(0, 1, "one sign-in")
}

// TestWebIdentity: the token file is read again at each refresh.
func TestWebIdentity(t *testing.T) {
	t.Parallel()
	p := newFederated(t, "")
	p.add("[profile base0]\nregion = eu-west-1\nrole_arn = " + federatedARN + "\nweb_identity_token_file = " + p.path("token") + "\n")
	p.aws.AddOIDC(fakeaws.OIDCSpec{})
	token := func(subject string) {
		text, err := p.aws.IDToken(p.url, "idp", subject)
		if err != nil {
			t.Fatal(err)
		}
		p.secrets.note("idToken", text)
		p.write("token", text)
	}
	p.bad(p.do(nil, "credential-process", "--profile", "base0"), 1, "token")
	token("alice")
	p.must(nil, "reload")
	p.uses("top", "entry")
	first := p.uses("base0", "federated")
	token("bob")
	p.good(nil, "login", "base0", "--force")
	if d := p.uses("base0", "federated"); d.AccessKeyId == first.AccessKeyId {
		t.Error("nothing was fetched anew")
	}
	if c := p.aws.Calls("AssumeRoleWithWebIdentity"); len(c) < 2 || !strings.Contains(fmt.Sprint(c[len(c)-1]), "bob") {
		t.Logf("calls: %+v", c)
	}
	p.write("token", "CANARY-no-token-of-any-provider")
	p.secrets.note("token", "CANARY-no-token-of-any-provider")
	p.bad(p.do(nil, "login", "base0", "--force"), 1, "token")
}

// TestConsoleLogin: `aws login` sessions: in the browser, for a profile that
// has no source yet, which gets one.
func TestConsoleLogin(t *testing.T) {
	t.Parallel()
	p := newPerson(t, "[profile me]\nregion = eu-west-1\nlogin_session = "+aliceARN+"\n\n[profile fresh]\nregion = eu-west-1\n")
	p.aws.AddRole(fakeaws.RoleSpec{ARN: federatedARN})
	p.add("[profile up]\nregion = eu-west-1\nrole_arn = " + federatedARN + "\nsource_profile = me\n")
	p.bad(p.do(nil, "credential-process", "--profile", "me"), 3, "hint: keyfob login me")
	p.good(nil, "login", "me")
	p.uses("me", "alice")
	p.uses("up", "federated")
	if r := p.good(nil, "login", "me"); !strings.Contains(r.out, "has a valid session") {
		t.Errorf("a second login printed %q", r.out)
	}
	p.wantTabs(0, 1, "login")
	p.again()
	p.uses("me", "alice")
	p.good(nil, "login", "fresh")
	if b := p.file(p.path("config/keyfob/profiles")); !strings.Contains(b, "[profile fresh]") || !strings.Contains(b, "login_session = "+aliceARN) {
		t.Errorf("keyfob's profiles file holds %q", b)
	}
	p.uses("fresh", "alice")
	p.aws.EndLogins()
	p.good(nil, "logout", "me")
	p.bad(p.do(nil, "credential-process", "--profile", "me"), 3, "hint: keyfob login me")
	p.aws.SetSignIn(fakeaws.SignInLogin, fakeaws.SignInDeny)
	p.refusal(p.do(nil, "login", "me"), 3, "refused in the browser")
}

// TestConsoleLoginRemote: the cross-device form, its answer on standard input
// and at a terminal; an answer of another sign-in.
func TestConsoleLoginRemote(t *testing.T) {
	t.Parallel()
	p := newPerson(t, "[profile me]\nregion = eu-west-1\nlogin_session = "+aliceARN+"\n")
	visit := func(address string) string { // what the page shows
		page := fakeawstest.NewBrowser(t, false).Open(address)
		_, text, ok := strings.Cut(page.Body, "<pre id=\"code\"")
		_, text, _ = strings.Cut(text, ">")
		text, _, _ = strings.Cut(text, "<")
		if !ok || text == "" {
			t.Errorf("no code on the page %q", page.Body)
		}
		p.secrets.note("code", text)
		return text
	}
	remote := func(change func(string) string) result {
		cmd := p.command(p.keyfob(), "login", "me", "--remote", "--force")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		shown, end, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer shown.Close()
		cmd.Stderr = end
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end.Close()
		kill := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		var text strings.Builder
		b := make([]byte, 4096)
		answered := false
		for {
			n, err := shown.Read(b)
			text.Write(b[:n])
			if i := strings.Index(text.String(), "http://"); i >= 0 && !answered && strings.Contains(text.String()[i:], "\n") {
				answered = true
				address, _, _ := strings.Cut(text.String()[i:], "\n")
				fmt.Fprintln(in, change(visit(address)))
				in.Close()
			}
			if err != nil {
				break
			}
		}
		_ = cmd.Wait()
		p.said = append(p.said, text.String())
		return result{err: text.String(), code: cmd.ProcessState.ExitCode()}
	}
	if r := remote(func(s string) string { return s }); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	p.uses("me", "alice")
	p.wantTabs(0, 0, "--remote")
	p.refusal(remote(func(string) string { return "CANARY-not-what-is-shown" }), 1, "what was pasted is not what the page shows")
	p.refusal(remote(func(string) string {
		return base64.StdEncoding.EncodeToString([]byte("state=OTHER&code=" + url.QueryEscape("abc")))
	}), 1, "its state is not ours")

	c := newConsole(t)
	cmd := p.command(p.keyfob(), "login", "me", "--remote", "--force")
	wait := c.run(cmd)
	c.expect("and give the code that the page shows: ")
	c.typed("\n")
	p.refusal(wait(), 3)
}

// TestSAML: an assertion from a file, from a command, and from the page in a
// browser; the choice among its roles.
func TestSAML(t *testing.T) {
	t.Parallel()
	p := newFederated(t, "[profile base0]\nregion = eu-west-1\nrole_arn = "+federatedARN+"\nsaml_url = URL/saml/idp\n")
	p.add("[profile made]\nregion = eu-west-1\nrole_arn = " + secondARN + "\nsaml_process = cat '" + p.path("assertion") + "'\n")
	// where the provider posts to: the fake's own address
	p.aws.AddSAML(fakeaws.SAMLSpec{Roles: []string{federatedARN, secondARN}, ACS: p.url + "/saml"})
	assertion := func(change func(*fakeaws.Assertion)) string {
		text, err := p.aws.SAMLResponse("idp", change)
		if err != nil {
			t.Fatal(err)
		}
		p.secrets.note("assertion", text)
		p.write("assertion", text)
		return text
	}
	p.bad(p.do(nil, "credential-process", "--profile", "base0"), 3, "hint: keyfob login base0")
	assertion(nil)
	p.good(nil, "login", "base0", "--assertion-file", p.path("assertion"))
	p.uses("base0", "federated")
	p.uses("top", "entry")
	p.uses("made", "second")
	p.good([]byte(assertion(nil)), "login", "base0", "--force", "--assertion-file", "-")
	p.good(nil, "logout", "base0")
	p.bad(p.do(nil, "credential-process", "--profile", "base0"), 3, "hint: keyfob login base0")

	p.write("wrong", assertion(func(a *fakeaws.Assertion) { a.Audience = "urn:somebody:else" }))
	p.bad(p.do(nil, "login", "base0", "--assertion-file", p.path("wrong")), 1, "urn:somebody:else")
	p.write("old", assertion(func(a *fakeaws.Assertion) { a.NotOnOrAfter = time.Now().Add(-time.Hour) }))
	p.bad(p.do(nil, "login", "base0", "--assertion-file", p.path("old")), 1, "expired")
	p.write("none", "CANARY this is no assertion")
	p.bad(p.do(nil, "login", "base0", "--assertion-file", p.path("none")), 1, "base64")
	p.write("other", base64.StdEncoding.EncodeToString([]byte("<html>CANARY</html>")))
	p.bad(p.do(nil, "login", "base0", "--assertion-file", p.path("other")), 1)
}

// TestSAMLChoice: a profile that names no role has the person choose among
// those that the assertion offers.
func TestSAMLChoice(t *testing.T) {
	t.Parallel()
	p := newFederated(t, "[profile base0]\nregion = eu-west-1\nsaml_url = URL/saml/idp\n")
	p.aws.AddSAML(fakeaws.SAMLSpec{Roles: []string{federatedARN, secondARN}, ACS: p.url + "/saml"})
	text, err := p.aws.SAMLResponse("idp", nil)
	if err != nil {
		t.Fatal(err)
	}
	p.secrets.note("assertion", text)
	p.write("assertion", text)
	p.good([]byte("2\n"), "login", "base0", "--assertion-file", p.path("assertion"))
	p.uses("base0", secondARN[strings.LastIndex(secondARN, "/")+1:])
}

// TestSAMLInChromium: keyfob-signin drives the browser; the second time its
// cookies are enough.
func TestSAMLInChromium(t *testing.T) {
	t.Parallel()
	findChromium(t)
	p := newFederated(t, "[profile base0]\nregion = eu-west-1\nrole_arn = "+federatedARN+"\nsaml_url = URL/saml/idp\n")
	p.aws.AddSAML(fakeaws.SAMLSpec{Roles: []string{federatedARN, secondARN}, ACS: p.url + "/saml"})
	p.env["KEYFOB_BROWSER_HEADLESS"] = "1"
	p.env["KEYFOB_BROWSER_ARGS"] = "--no-sandbox --disable-gpu --disable-quic --no-proxy-server"
	p.good(nil, "login", "base0")
	p.uses("top", "entry")
	p.good(nil, "login", "base0", "--force")
	p.wantTabs(0, 0, "$BROWSER is not for SAML")
	p.aws.SetSignIn(fakeaws.SignInSAML, fakeaws.SignInDeny)
	p.env["KEYFOB_SIGNIN_TIMEOUT"] = "5s"
	p.refusal(p.do(nil, "login", "base0", "--force"), 3)
	if out := p.args.all; out == nil {
		t.Error("nothing was looked at")
	}
}

// TestProcess: another tool's line; its errors, and what they may not show.
func TestProcess(t *testing.T) {
	t.Parallel()
	p := newPerson(t, "")
	doc := func(warning string) string {
		p.write("tool", "#!/bin/sh\n"+warning+"\ncat '"+p.path("doc")+"'\n")
		if err := os.Chmod(p.path("tool"), 0o700); err != nil {
			t.Fatal(err)
		}
		return ""
	}
	doc("")
	p.add("[profile tool]\nregion = eu-west-1\ncredential_process = '" + p.path("tool") + "' --quietly\n\n[profile up]\nregion = eu-west-1\nrole_arn = " + deployARN + "\nsource_profile = tool\n")
	p.aws.AddRole(fakeaws.RoleSpec{ARN: deployARN})
	p.addKeys("base")
	p.aws.AddRole(fakeaws.RoleSpec{ARN: entryARN})
	session := p.credentials("entry")
	p.write("doc", fmt.Sprintf(`{"Version":1,"AccessKeyId":%q,"SecretAccessKey":%q,"SessionToken":%q,"Expiration":%q}`,
		session.AccessKeyId, session.SecretAccessKey, session.SessionToken, session.Expiration.Format(time.RFC3339)))
	p.uses("tool", "entry")
	p.uses("up", "deploy")
	p.good(nil, "logout", "tool")
	doc("echo 'WARNING: CANARY-warning you are old'")
	p.bad(p.do(nil, "login", "tool", "--force"), 1, "JSON")
	if r := p.do(nil, "login", "tool", "--force"); strings.Contains(r.err, session.SecretAccessKey) {
		t.Errorf("the answer is shown: %q", r.err)
	}
	doc("echo 'CANARY-on-stderr' >&2; exit 9")
	p.bad(p.do(nil, "login", "tool", "--force"), 1, "9")
	doc("exit 0 #")
	p.write("doc", "")
	p.bad(p.do(nil, "login", "tool", "--force"), 1)
}

// TestInstanceAndContainer: their credentials as the base of a chain.
func TestInstanceAndContainer(t *testing.T) {
	t.Parallel()
	p := newPerson(t, "")
	p.aws.AddRole(fakeaws.RoleSpec{ARN: federatedARN})
	p.aws.AddRole(fakeaws.RoleSpec{ARN: secondARN})
	p.aws.AddRole(fakeaws.RoleSpec{ARN: deployARN})
	p.aws.SetInstance(fakeaws.InstanceSpec{Role: federatedARN})
	path := p.aws.AddContainer(fakeaws.ContainerSpec{Role: secondARN, Token: "CANARY-container-token"})
	p.secrets.note("token", "CANARY-container-token")
	p.add("[profile inst]\nregion = eu-west-1\nrole_arn = " + deployARN + "\ncredential_source = Ec2InstanceMetadata\nec2_metadata_service_endpoint = " + p.url +
		"\n\n[profile cont]\nregion = eu-west-1\nrole_arn = " + deployARN + "\ncredential_source = EcsContainer\n")
	p.uses("inst", "deploy")
	if c := p.aws.Calls("AssumeRole"); len(c) == 0 || !strings.Contains(c[len(c)-1].Principal, "federated") {
		t.Errorf("%+v", c)
	}
	// on demand it takes no container's address from its caller
	p.bad(p.do(nil, "credential-process", "--profile", "cont"), 1, "AWS_CONTAINER_CREDENTIALS", "hint: ")
	p.good(nil, "stop")

	cmd := p.command(strings.TrimSuffix(p.keyfob(), "keyfob")+"keyfobd", "run")
	cmd.Env = append(cmd.Env, "AWS_CONTAINER_CREDENTIALS_FULL_URI="+p.url+path, "AWS_CONTAINER_AUTHORIZATION_TOKEN=CANARY-container-token")
	log, err := os.OpenFile(p.path("data/keyfobd.log"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ended atomic.Bool
	t.Cleanup(func() {
		if !ended.Load() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	for end := time.Now().Add(10 * time.Second); p.run(nil, "status", "--no-start").code != 0 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond) // it says to nobody that it is ready
	}
	p.uses("cont", "deploy")
	if c := p.aws.Calls("AssumeRole"); !strings.Contains(c[len(c)-1].Principal, "second") {
		t.Errorf("%+v", c[len(c)-1])
	}
	p.good(nil, "stop")
	_ = cmd.Wait()
	ended.Store(true)
}

// TestMFAWithoutAPerson: mfa_process, then a seed in the vault.
func TestMFAWithoutAPerson(t *testing.T) {
	t.Parallel()
	seed := fakeaws.NewSeed()
	p := newPerson(t, "")
	p.aws.AddUser(fakeaws.UserSpec{Name: "carol", AccessKeyID: "AKIACAROLCAROLCAROL1", SecretAccessKey: "CANARY-carols-secret-key-0123456789ABCDE", MFA: []fakeaws.MFASpec{{Seed: seed}}})
	const serial = "arn:aws:iam::111122223333:mfa/carol"
	p.aws.AddRole(fakeaws.RoleSpec{ARN: deployARN, Trust: []fakeaws.Trust{{MFA: true}}})
	p.secrets.note("secretAccessKey", "CANARY-carols-secret-key-0123456789ABCDE")
	p.secrets.note("token", seed)
	p.add("[profile carol]\nregion = eu-west-1\n\n[profile prod]\nregion = eu-west-1\nrole_arn = " + deployARN + "\nsource_profile = carol\nmfa_serial = " + serial +
		"\n\n[profile tool]\nregion = eu-west-1\nrole_arn = " + deployARN + "\nsource_profile = carol\nmfa_serial = " + serial + "\nrole_session_name = tool\nmfa_process = cat '" + p.path("code") + "'\n")
	p.good([]byte(`{"AccessKeyId":"AKIACAROLCAROLCAROL1","SecretAccessKey":"CANARY-carols-secret-key-0123456789ABCDE"}`), "add", "carol")
	p.bad(p.do(nil, "credential-process", "--profile", "prod"), 3, "MFA code", "hint: keyfob login prod")
	p.write("code", p.aws.MFACode(serial)+"\n")
	p.uses("tool", "deploy")
	p.good(nil, "logout", "tool")
	p.good(nil, "logout", "prod")
	p.good([]byte(seed+"\n"), "mfa", "add", serial)
	p.uses("prod", "deploy")
	p.good(nil, "logout", "prod")
	p.good(nil, "mfa", "remove", serial, "--yes")
	p.bad(p.do(nil, "credential-process", "--profile", "prod"), 3, "hint: keyfob login prod")
}
