//go:build linux

package e2e

import (
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// source is a profile p whose credentials come of one source.
type source struct {
	make  func(t *testing.T) *person
	login []string // what follows `login p`
	stdin func(p *person) []byte
	tabs  int // that a sign-in opens
	// page says that the sign-in begins with the page, before any call: what
	// AWS answers there the person sees in the browser.
	page bool
}

// sources are all of them, each with one profile p.
func sources() map[string]source {
	identityCenter := func(t *testing.T) *person {
		p := newPerson(t, strings.ReplaceAll(ssoConfig, "[profile dev]", "[profile p]"))
		p.aws.AddSSO(directory())
		return p
	}
	federated := func(settings string) func(t *testing.T) *person {
		return func(t *testing.T) *person {
			p := newFederated(t, "")
			p.add("[profile p]\nregion = eu-west-1\nrole_arn = " + federatedARN + "\n" + strings.NewReplacer("URL", p.url, "HOME", p.home).Replace(settings))
			p.aws.AddOIDC(fakeaws.OIDCSpec{})
			p.aws.AddSAML(fakeaws.SAMLSpec{Roles: []string{federatedARN}, ACS: p.url + "/saml"})
			token, err := p.aws.IDToken(p.url, "idp", "pod")
			if err != nil {
				t.Fatal(err)
			}
			p.secrets.note("idToken", token)
			p.write("token", token)
			return p
		}
	}
	assertion := func(p *person) []byte {
		text, err := p.aws.SAMLResponse("idp", nil)
		if err != nil {
			p.t.Fatal(err)
		}
		p.secrets.note("assertion", text)
		return []byte(text)
	}
	return map[string]source{
		"sso": {make: identityCenter, tabs: 1},
		"login": {make: func(t *testing.T) *person {
			return newPerson(t, "[profile p]\nregion = eu-west-1\nlogin_session = "+aliceARN+"\n")
		}, tabs: 1, page: true},
		"oidc":      {make: federated("oidc_issuer = URL/oidc/idp\noidc_client_id = keyfob\n"), tabs: 1},
		"web token": {make: federated("web_identity_token_file = HOME/token\n")},
		"saml":      {make: federated("saml_url = URL/saml/idp\n"), login: []string{"--assertion-file", "-"}, stdin: assertion},
		"saml tool": {make: federated("saml_process = cat HOME/assertion\n"), stdin: func(p *person) []byte { p.write("assertion", string(assertion(p))); return nil }},
		"long-lived": {make: func(t *testing.T) *person {
			p := newPerson(t, "[profile p]\nregion = eu-west-1\n")
			p.addKeys("p")
			return p
		}},
		"roles anywhere": {make: func(t *testing.T) *person {
			root := fakeawstest.NewIssuer(t)
			p := anywhere(t, root.PEM, "roles_anywhere_certificate = HOME/both.pem\n")
			leaf := root.Leaf(t, fakeawstest.LeafSpec{})
			p.write("both.pem", string(leaf.CertPEM)+string(leaf.KeyPEM))
			p.write(".aws/config", strings.ReplaceAll(p.file(p.path(".aws/config")), "[profile any]", "[profile p]"))
			return p
		}},
		"process": {make: func(t *testing.T) *person {
			p := newPerson(t, "")
			p.write("tool", fmt.Sprintf("#!/bin/sh\necho '{\"Version\":1,\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"%s\"}'\n", p.keyID, p.secret))
			if err := os.Chmod(p.path("tool"), 0o700); err != nil {
				t.Fatal(err)
			}
			p.add("[profile p]\nregion = eu-west-1\ncredential_process = '" + p.path("tool") + "'\n")
			return p
		}},
		"instance": {make: func(t *testing.T) *person {
			p := newPerson(t, "")
			p.aws.AddRole(fakeaws.RoleSpec{ARN: federatedARN})
			p.aws.AddRole(fakeaws.RoleSpec{ARN: deployARN})
			p.aws.SetInstance(fakeaws.InstanceSpec{Role: federatedARN})
			p.add("[profile p]\nregion = eu-west-1\nrole_arn = " + deployARN + "\ncredential_source = Ec2InstanceMetadata\nec2_metadata_service_endpoint = " + p.url + "\n")
			return p
		}},
	}
}

// TestNoWayToTheSignIn: where nothing listens, nobody is sent to a browser.
func TestNoWayToTheSignIn(t *testing.T) {
	t.Parallel()
	for name, x := range sources() {
		if x.tabs == 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := x.make(t)
			p.env["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
			p.write(".aws/config", strings.ReplaceAll(p.file(p.path(".aws/config")), "oidc_issuer = "+p.url, "oidc_issuer = http://127.0.0.1:1"))
			p.bad(p.do(nil, "login", "p"), 1, "127.0.0.1:1")
			p.wantTabs(0, 0, "no network")
		})
	}
}

// TestUpstreamInTrouble: AWS, or the provider, limits the rate; then it can't
// be reached at all. Each is said in a line, nobody is sent to a browser in
// vain, and when it is over the same command works. What there is then
// outlives the next trouble.
func TestUpstreamInTrouble(t *testing.T) {
	t.Parallel()
	for name, x := range sources() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := x.make(t)
			sign := func() result {
				var in []byte
				if x.stdin != nil {
					in = x.stdin(p)
				}
				return p.do(in, append([]string{"login", "p"}, x.login...)...)
			}
			outage := func(o fakeaws.Outage) {
				if err := p.aws.SetOutage(o); err != nil {
					t.Fatal(err)
				}
			}
			throttle := fakeaws.Fault{Kind: fakeaws.Throttle}
			if x.page {
				throttle.Action = "CreateOAuth2Token"
			}
			p.aws.SetFaults(throttle)
			begun := time.Now()
			r := sign()
			p.refusal(r, 1)
			if !strings.Contains(r.err, "rate") {
				t.Errorf("it does not say that the rate is limited: %q", r.err)
			}
			before := p.tabs()
			if before > 0 && !x.page {
				t.Error("somebody was sent to a browser in vain")
			}
			p.aws.SetFaults()
			if !x.page {
				outage(fakeaws.Refused)
				at, err := url.Parse(p.url)
				if err != nil {
					t.Fatal(err)
				}
				p.bad(sign(), 1, at.Host)
				p.wantTabs(before, 0, "the network is gone")
			}
			if took := time.Since(begun); took > 20*time.Second {
				t.Errorf("it took %v to say so", took)
			}
			outage(fakeaws.Up)
			if r = sign(); r.code != 0 {
				t.Fatalf("afterwards: %+v", r)
			}
			d := p.parse(p.good(nil, "credential-process", "--profile", "p"))
			p.wantTabs(before, x.tabs, "one sign-in")

			outage(fakeaws.Refused)
			p.again() // and what is in the vault serves
			if e := p.parse(p.good(nil, "credential-process", "--profile", "p")); e.AccessKeyId != d.AccessKeyId {
				t.Error("something else is handed out")
			}
		})
	}
}
