package rolesanywhere

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

func TestSettings(t *testing.T) {
	const anchor = "arn:aws:rolesanywhere:eu-west-1:111122223333:trust-anchor/1"
	const profile = "arn:aws:rolesanywhere:eu-west-1:111122223333:profile/2"
	link := func(kv ...string) profiles.Link {
		l := profiles.Link{Kind: profiles.KindRolesAnywhere, Profile: "dev", Params: map[string]string{
			"role_arn": role, settingAnchor: anchor, settingProfile: profile, settingCertificate: "/c.pem"}}
		for i := 0; i < len(kv); i += 2 {
			l.Params[kv[i]] = kv[i+1]
		}
		return l
	}
	s, err := New(link("role_session_name", "alice@example.com", "duration_seconds", "43200"), Deps{})
	if err != nil || s.(*source).region != "eu-west-1" || s.(*source).link.Client.Region != "eu-west-1" || s.(*source).d.TPM != DefaultTPM {
		t.Errorf("%v", err)
	}
	for _, x := range []struct {
		name, value string
		parts       []string
	}{
		{settingAnchor, "", []string{"is not the ARN of a trust anchor"}},
		{settingAnchor, profile, []string{"is not the ARN of a trust anchor"}},
		{settingAnchor, strings.Replace(anchor, "eu-west-1", "", 1), []string{"names no region"}},
		{settingAnchor, strings.Replace(anchor, "eu-west-1", "us-east-1", 1), []string{"the trust anchor is in region us-east-1 and the Roles Anywhere profile in eu-west-1", "correct " + settingAnchor}},
		{settingProfile, anchor, []string{"is not the ARN of a Roles Anywhere profile"}},
		{settingProfile, strings.Replace(profile, "aws", "aws-cn", 1), []string{"different partitions (aws, aws-cn and aws)"}},
		{"role_arn", "arn:aws:iam::1:role/x", []string{"is not the ARN of a role"}},
		{"role_arn", "arn:aws:iam::111122223333:user/x", []string{"is not the ARN of a role"}},
		{"role_arn", role + "\n", []string{"is not the ARN of a role"}},
		{"duration_seconds", "899", []string{"900 to 43200"}},
		{"duration_seconds", "1h", []string{"900 to 43200"}},
		{"role_session_name", "a b", []string{"role_session_name"}},
		{"session_policy", "/p.json", []string{"takes no session policy", "source_profile"}},
		{"session_policy_inline", "{}", []string{"takes no session policy"}},
		{"session_policy_arns", "arn:aws:iam::aws:policy/X", []string{"session_policy_arns is set"}},
		{settingCertificate, "", []string{settingCertificate + " is missing"}},
		{settingCertificate, "c.pem", []string{"is no absolute path"}},
		{settingCertificate, "vault:../x", []string{"names no certificate of the vault"}},
		{settingCertificate, "pkcs11:object=x", []string{"names no token"}},
		{settingKey, "pkcs11:token=x?pin-value=CANARY%zz", []string{"pin-value is not percent-encoded well"}},
		{settingChain, "pkcs11:token=x", []string{"must be a file, or in the vault"}},
	} {
		t.Run(x.name+"="+strings.ReplaceAll(x.value, "/", "|"), func(t *testing.T) {
			_, err := New(link(x.name, x.value), Deps{})
			if !errors.Is(err, cred.ErrConfig) {
				t.Fatalf("%v", err)
			}
			says(t, err, append(x.parts, "cannot use profile dev: ")...)
			if strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := New(profiles.Link{Kind: profiles.KindSAML}, Deps{}); !errors.Is(err, cred.ErrConfig) {
		t.Error(err)
	}
}

func TestEndpoint(t *testing.T) {
	for _, x := range []struct {
		c    profiles.Client
		want string
	}{
		{profiles.Client{Region: "eu-west-1"}, "https://rolesanywhere.eu-west-1.amazonaws.com"},
		{profiles.Client{Region: "us-east-1"}, "https://rolesanywhere.us-east-1.amazonaws.com"},
		{profiles.Client{Region: "us-east-1", UseFIPS: true}, "https://rolesanywhere-fips.us-east-1.amazonaws.com"},
		{profiles.Client{Region: "us-gov-west-1", UseFIPS: true}, "https://rolesanywhere-fips.us-gov-west-1.amazonaws.com"},
		{profiles.Client{Region: "eu-west-1", UseDualStack: true}, "https://rolesanywhere.eu-west-1.api.aws"},
		{profiles.Client{Region: "cn-north-1"}, "https://rolesanywhere.cn-north-1.amazonaws.com.cn"},
		{profiles.Client{Region: "eusc-de-east-1"}, "https://rolesanywhere.eusc-de-east-1.amazonaws.eu"},
		{profiles.Client{Region: "us-iso-east-1"}, "https://rolesanywhere.us-iso-east-1.c2s.ic.gov"},
		{profiles.Client{Region: "eu-west-1", STSLegacy: true}, "https://rolesanywhere.eu-west-1.amazonaws.com"},
		{profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"sts": "http://sts.example", "rolesanywhere": "https://ra.example:8443/x"}}, "https://ra.example:8443/x"},
		{profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"": "http://all.example"}}, "http://all.example"},
		{profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"sts": "http://sts.example"}}, "https://rolesanywhere.eu-west-1.amazonaws.com"},
	} {
		u, err := endpoint(t.Context(), x.c)
		if err != nil || u.String() != x.want {
			t.Errorf("%+v: %v %v, want %s", x.c, u, err, x.want)
		}
	}
	var e *awsclient.SettingsError
	if _, err := endpoint(t.Context(), profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"": "ftp://x"}}); !errors.As(err, &e) {
		t.Error(err)
	}
	w := newWorld(t)
	leaf, key := w.root.leaf(t, false)
	l := w.link("certificate", w.file(t, "c.pem", pemOf(leaf), keyPEM(t, key)))
	l.Client.UseFIPS = true
	s, err := New(l, w.deps)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Fetch(t.Context(), cred.Input{})
	if !errors.Is(err, cred.ErrConfig) {
		t.Error(err)
	}
	says(t, err, "together with use_fips_endpoint", "(profile dev)")
	if s.(*source).Upstream() != "" || !errors.Is(s.(*source).Reach(t.Context()), cred.ErrConfig) {
		t.Error("an endpoint")
	}
}

func TestURI(t *testing.T) {
	u, err := parseURI("pkcs11:model=m;token=My%20token;object=a%3Bb;id=%01%FF;type=private?module-path=/usr/lib/x.so&pin-source=file:/run/pin")
	if err != nil || u.token != "My token" || u.object != "a;b" || string(u.id) != "\x01\xff" || u.modulePath != "/usr/lib/x.so" || u.pinSource != "/run/pin" || u.slot != -1 {
		t.Errorf("%+v %v", u, err)
	}
	if u, err = parseURI("pkcs11:slot-id=3?pin-value=12%2034"); err != nil || u.slot != 3 || u.pin.Reveal() != "12 34" || strings.Contains(fmt.Sprintf("%+v", u), "34") {
		t.Errorf("%+v %v", u, err)
	}
	if at := (location{kind: onToken, name: "pkcs11:token=x?pin-value=CANARY"}); strings.Contains(at.String(), "CANARY") {
		t.Error(at)
	}
	for _, bad := range []string{"pkcs11:", "pkcs11:token", "pkcs11:token=a;token=b", "pkcs11:token=%z", "pkcs11:slot-id=x", "pkcs11:token=a;color=red", "pkcs11:token=a;type=data",
		"pkcs11:token=a?module-name=x", "pkcs11:token=a?module-path=x.so", "pkcs11:token=a?pin-source=x", "pkcs11:token=a?x=y", "http://x"} {
		if _, err := parseURI(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func FuzzURI(f *testing.F) {
	f.Add("pkcs11:token=a;id=%01?pin-value=b")
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := parseURI(s); err == nil && u.token == "" && u.serial == "" && u.slot < 0 {
			t.Error("no token")
		}
	})
}

func FuzzBundle(f *testing.F) {
	f.Add([]byte("-----BEGIN TSS2 PRIVATE KEY-----\nMAA=\n-----END TSS2 PRIVATE KEY-----\n"))
	f.Add([]byte{0x30, 3, 2, 1, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &parser{at: location{kind: inFile, name: "/x"}, wantKey: true, passphrase: func() (cred.Secret, error) { return cred.NewSecret("x"), nil }}
		_, _ = p.parse(cred.SecretBytes(b))
	})
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{"a b+c/d:e,f=g@h~i-j_k.l": "a%20b%2Bc%2Fd%3Ae%2Cf%3Dg%40h~i-j_k.l", "ü": "%C3%BC"} {
		if got := escape(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
		if back, _ := url.PathUnescape(escape(in)); back != in {
			t.Error(back)
		}
	}
}
