//go:build linux

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
)

// TestBadSSO: settings that no sign-in can come of.
func TestBadSSO(t *testing.T) {
	t.Parallel()
	p := newEmployee(t)
	profile := func(name, session, role string) {
		p.add("[sso-session " + name + "]\nsso_registration_scopes = sso:account:access\n" + session +
			"\n\n[profile " + name + "]\nregion = eu-west-1\nsso_session = " + name + "\nsso_account_id = 111122223333\nsso_role_name = " + role + "\n")
	}
	profile("nostart", "sso_region = eu-west-1\nsso_start_url = https://d-0000000000.awsapps.com/start", "Developer")
	profile("noaddress", "sso_region = eu-west-1\nsso_start_url = d-1234567890.awsapps.com", "Developer")
	profile("noregion", "sso_region = Ireland\nsso_start_url = "+startURL, "Developer")
	profile("unassigned", "sso_region = eu-west-1\nsso_start_url = "+startURL, "Administrator")
	p.add("[profile noaccount]\nregion = eu-west-1\nsso_session = unassigned\nsso_account_id = 999988887777\nsso_role_name = Developer\n")
	p.add("[profile halfaccount]\nregion = eu-west-1\nsso_session = unassigned\nsso_account_id = 12\nsso_role_name = Developer\n")

	p.refusal(p.do(nil, "login", "nostart"), 1, "d-0000000000")
	p.bad(p.do(nil, "login", "noaddress"), 1, "sso_start_url")
	p.bad(p.do(nil, "login", "noregion"), 1, "sso_region", "Ireland")
	p.bad(p.do(nil, "login", "halfaccount"), 1, "sso_account_id")
	p.refusal(p.do(nil, "login", "unassigned"), 1, "Administrator", "111122223333")
	p.refusal(p.do(nil, "login", "noaccount"), 1, "999988887777")
	p.bad(p.do(nil, "credential-process", "--profile", "unassigned"), 1, "Administrator", "111122223333")
}

var stateIn = regexp.MustCompile(`redirect_uri=([^&\s]+)`)

// TestForgedAnswers: another state and another host change nothing, and the
// real answer still counts.
func TestForgedAnswers(t *testing.T) {
	t.Parallel()
	p := newEmployee(t)
	// the forger is faster than the person
	p.browser(`echo "$1" >` + p.path("address") + `
i=0; while [ ! -e ` + p.path("go") + ` ] && [ $i -lt 200 ]; do sleep 0.05; i=$((i+1)); done
` + lastLine(p.file(p.path("browser"))))
	done := make(chan result)
	go func() { done <- p.run(nil, "login", "dev") }()
	var address string
	for end := time.Now().Add(10 * time.Second); !strings.HasSuffix(address, "\n") && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		b, _ := os.ReadFile(p.path("address"))
		address = string(b)
	}
	m := stateIn.FindStringSubmatch(address)
	if m == nil {
		t.Fatalf("the browser was sent to %q", address)
	}
	back, err := url.QueryUnescape(m[1])
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ query, host string }{
		"another state":           {"?code=CANARY-forged-code-0001&state=CANARYSTATE", ""},
		"a refusal without state": {"?error=access_denied", ""},
		"from elsewhere":          {"?code=CANARY-forged-code-0002&state=x", "evil.example.com"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, back+c.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.host != "" {
			r.Host = c.host
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("%s: %s", what, resp.Status)
		}
	}
	p.write("go", "")
	r := <-done
	p.said = append(p.said, r.err)
	if r.code != 0 {
		t.Fatalf("%+v", r)
	}
	p.uses("dev", "Developer")
	if log := p.file(p.path("data/keyfobd.log")); !strings.Contains(log, "state") || strings.Contains(log, "CANARY") {
		t.Errorf("the log does not say it, or too much: %s", log)
	}
	// a page that itself answers with another state
	p.aws.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInWrongState)
	p.env["KEYFOB_SIGNIN_TIMEOUT"] = "4s"
	p.good(nil, "stop")
	p.refusal(p.do(nil, "login", "dev", "--force"), 3)
}

// TestBadOIDC: id tokens that are not for us.
func TestBadOIDC(t *testing.T) {
	t.Parallel()
	for _, wrong := range []string{"nonce", "aud", "iss", "signature", "expired"} {
		t.Run(wrong, func(t *testing.T) {
			t.Parallel()
			p := newFederated(t, oidcConfig)
			p.aws.AddOIDC(fakeaws.OIDCSpec{Wrong: wrong})
			say := map[string]string{"aud": "not for the client", "iss": "issuer"}[wrong]
			if say == "" {
				say = wrong
			}
			r := p.do(nil, "login", "base0")
			p.refusal(r, 1)
			if !strings.Contains(strings.ToLower(r.err), say) {
				t.Errorf("it does not say %s: %q", say, r.err)
			}
		})
	}
	t.Run("no such provider", func(t *testing.T) {
		t.Parallel()
		p := newFederated(t, oidcConfig)
		p.bad(p.do(nil, "login", "base0"), 1, "/oidc/idp")
	})
}

// TestBrowserClosed: nobody comes back from the browser; exit 3 when the time
// is over, and the port is free.
func TestBrowserClosed(t *testing.T) {
	t.Parallel()
	p := newEmployee(t)
	p.browser("exit 0")
	p.env["KEYFOB_SIGNIN_TIMEOUT"] = "3s"
	r := p.do(nil, "login", "dev")
	p.refusal(r, 3, "hint: ")
}

// TestPortTaken: a fixed redirect port that another program has.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	p := newFederated(t, "")
	taken, err := url.Parse(p.url)
	if err != nil {
		t.Fatal(err)
	}
	p.add(strings.ReplaceAll(oidcConfig, "URL", p.url) + "oidc_redirect_port = " + taken.Port() + "\n")
	p.aws.AddOIDC(fakeaws.OIDCSpec{})
	p.bad(p.do(nil, "login", "base0"), 1, taken.Port())
	p.wantTabs(0, 0, "the port is taken")
}

// TestNetworkGone: no sign-in is asked for in vain.
func TestNetworkGone(t *testing.T) {
	t.Parallel()
	p := newEmployee(t)
	p.env["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
	p.bad(p.do(nil, "login", "dev"), 1, "127.0.0.1:1")
	p.wantTabs(0, 0, "no network")
}

// machine makes a key and a certificate for it.
func machine(t *testing.T, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "machine"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(0, 0, 90), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true}
	if parent == nil {
		x.IsCA, x.KeyUsage, x.Subject.CommonName, parent, parentKey = true, x509.KeyUsageCertSign, "root", x, key
	}
	if change != nil {
		change(x)
	}
	der, err := x509.CreateCertificate(rand.Reader, x, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func pemText(t *testing.T, what any) string {
	t.Helper()
	var b bytes.Buffer
	block := &pem.Block{Type: "CERTIFICATE"}
	switch x := what.(type) {
	case *x509.Certificate:
		block.Bytes = x.Raw
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalPKCS8PrivateKey(x)
		if err != nil {
			t.Fatal(err)
		}
		block = &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	}
	if err := pem.Encode(&b, block); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestRolesAnywhere: a certificate and key in PEM files, replaced while it
// runs; those that can't be used are refused before any call.
func TestRolesAnywhere(t *testing.T) {
	t.Parallel()
	p := newPerson(t, "")
	root, rootKey := machine(t, nil, nil, nil)
	p.aws.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: pemText(t, root)})
	p.aws.AddAnywhereProfile(fakeaws.AnywhereProfile{})
	p.aws.AddRole(fakeaws.RoleSpec{ARN: federatedARN, Trust: []fakeaws.Trust{{Principals: []string{"rolesanywhere.amazonaws.com"}}}})
	p.aws.AddRole(fakeaws.RoleSpec{ARN: secondARN, Trust: []fakeaws.Trust{{Principals: []string{federatedARN}}}})
	p.add("[profile any]\nregion = eu-west-1\nrole_arn = " + federatedARN + "\nroles_anywhere_trust_anchor_arn = " + fakeaws.DefaultTrustAnchorARN +
		"\nroles_anywhere_profile_arn = " + fakeaws.DefaultAnywhereProfileARN + "\nroles_anywhere_certificate = " + p.path("pki/cert.pem") +
		"\nroles_anywhere_private_key = " + p.path("pki/key.pem") + "\n\n[profile up]\nregion = eu-west-1\nrole_arn = " + secondARN + "\nsource_profile = any\n")
	write := func(cert *x509.Certificate, key *ecdsa.PrivateKey) {
		p.write("pki/key.pem", pemText(t, key))
		p.write("pki/cert.pem", pemText(t, cert))
		p.secrets.note("token", strings.Split(pemText(t, key), "\n")[1])
	}
	p.bad(p.do(nil, "credential-process", "--profile", "any"), 1, "pki/cert.pem")
	cert, key := machine(t, root, rootKey, nil)
	write(cert, key)
	p.must(nil, "reload")
	first := p.uses("any", "federated")
	p.uses("up", "second")
	p.again()
	if d := p.uses("any", "federated"); d.AccessKeyId != first.AccessKeyId {
		t.Error("a new daemon asked AWS again")
	}
	p.good(nil, "logout", "any")
	calls := p.aws.Count("CreateSession")
	_, other := machine(t, root, rootKey, nil)
	write(cert, other)
	p.bad(p.do(nil, "login", "any", "--force"), 1, "key")
	early, earlyKey := machine(t, root, rootKey, func(x *x509.Certificate) { x.NotBefore = time.Now().Add(48 * time.Hour) })
	write(early, earlyKey)
	p.bad(p.do(nil, "login", "any", "--force"), 1, "it is not valid before")
	late, lateKey := machine(t, root, rootKey, func(x *x509.Certificate) {
		x.NotBefore, x.NotAfter = time.Now().AddDate(0, -2, 0), time.Now().AddDate(0, -1, 0)
	})
	write(late, lateKey)
	p.bad(p.do(nil, "login", "any", "--force"), 1, "it ended at")
	if n := p.aws.Count("CreateSession") - calls; n != 0 {
		t.Errorf("%d calls with certificates that can't be used", n)
	}
	stranger, strangerKey := machine(t, nil, nil, nil)
	foreign, foreignKey := machine(t, stranger, strangerKey, nil)
	write(foreign, foreignKey)
	p.bad(p.do(nil, "login", "any", "--force"), 1)
	soon, soonKey := machine(t, root, rootKey, func(x *x509.Certificate) { x.NotAfter = time.Now().AddDate(0, 0, 5) })
	write(soon, soonKey)
	p.good(nil, "login", "any", "--force")
	if out := p.good(nil, "status").out; !strings.Contains(out, "cert") {
		t.Errorf("status does not warn of a certificate with five days left: %s", out)
	}
}
