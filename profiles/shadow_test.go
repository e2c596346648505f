package profiles

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// shadowSummary is what each SDK does, in a line: the chain, or !why.
func shadowSummary(c ClientShadow) string {
	if c.Refuses != "" {
		return "!" + c.Refuses
	}
	var parts []string
	for _, l := range c.Chain {
		part := string(l.Kind)
		if l.Kind == KindStaticKeys || l.Kind == KindEnvironmentKeys {
			part += " " + c.AccessKeyID
		}
		parts = append(parts, part)
	}
	if c.Keyfob {
		return "keyfob"
	}
	return strings.Join(parts, " > ")
}

const shadowProcess = "credential_process = /bin/keyfob credential-process --profile deploy\n"

// What the e2e test compares with the real clients is here for those that it
// can't run, and for what is told besides the chain.
func TestShadow(t *testing.T) {
	for name, c := range map[string]struct {
		world world
		query ShadowQuery
		want  map[string]string // by client; "" is all others
	}{
		"keyfob's line": {world{config: "[profile p]\n" + shadowProcess}, ShadowQuery{Profile: "p"}, map[string]string{"": "keyfob"}},
		"keyfob's line and keys in the credentials file": {world{config: "[profile p]\n" + shadowProcess, credentials: "[p]\n" + pair}, ShadowQuery{Profile: "p"},
			map[string]string{"": "static-keys " + testID, "java": "keyfob", "rust": "keyfob"}},
		"keyfob's line and a role": {world{config: "[profile p]\n" + shadowProcess + "role_arn = " + testRole + "\n"}, ShadowQuery{Profile: "p"},
			map[string]string{"go": "process > assume-role", "js": "keyfob", "java": "keyfob", "": "!role_arn needs source_profile or credential_source"}},
		"keyfob's line and sso": {world{config: "[profile p]\nsso_account_id = 1\nsso_role_name = r\nsso_region = x\nsso_start_url = u\n" + shadowProcess}, ShadowQuery{Profile: "p"},
			map[string]string{"": "sso", "js": "keyfob"}},
		"login": {world{config: "[profile p]\nlogin_session = arn:aws:iam::1:user/u\n"}, ShadowQuery{Profile: "p"}, map[string]string{"": "login"}},
		"login as a source": {world{config: "[profile p]\nrole_arn = " + testRole + "\nsource_profile = b\n[profile b]\nlogin_session = x\n"}, ShadowQuery{Profile: "p"},
			map[string]string{"": "login > assume-role", "go": "!the source profile has no credentials that it knows"}},
		"a role and sso": {world{config: "[profile p]\nrole_arn = " + testRole + "\nsource_profile = b\nsso_account_id = 1\nsso_role_name = r\nsso_region = x\nsso_start_url = u\n[profile b]\n" + pair}, ShadowQuery{Profile: "p"},
			map[string]string{"": "static-keys " + testID + " > assume-role", "java": "sso"}},
		"a session's own region": {world{config: "[sso-session s]\nsso_region = x\nsso_start_url = u\n[profile p]\nsso_session = s\nsso_region = x\nsso_account_id = 1\nsso_role_name = r\n"}, ShadowQuery{Profile: "p"},
			map[string]string{"": "sso", "rust": "!sso_region beside sso_session may stand in the session's section alone"}},
		"itself": {world{config: "[profile p]\nrole_arn = " + testRole + "\nsource_profile = p\n" + pair}, ShadowQuery{Profile: "p"},
			map[string]string{"": "static-keys " + testID + " > assume-role", "java": "imds"}},
		"the environment's keys": {world{config: "[profile p]\n" + shadowProcess}, ShadowQuery{Profile: "p", Env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "s"}},
			map[string]string{"": "environment-keys AKIAENV", "js": "keyfob"}},
		"nothing": {world{config: "[profile p]\nregion = x\n"}, ShadowQuery{Profile: "p", Env: map[string]string{"AWS_EC2_METADATA_DISABLED": "true"}},
			map[string]string{"": "!it finds no credentials, and AWS_EC2_METADATA_DISABLED is true",
				"js": "!profile p has no credentials that it knows", "java": "!profile p has no credentials that it knows"}},
		"unknown": {world{}, ShadowQuery{Profile: "none"},
			map[string]string{"": "!it has no profile none in the AWS files", "js": "imds", "java": "imds", "rust": "imds"}},
		"half a pair": {world{config: "[profile p]\naws_access_key_id = x\n"}, ShadowQuery{Profile: "p"},
			map[string]string{"": "!half a key pair", "js": "imds", "java": "imds"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := c.world.load(t)
			for _, got := range s.Shadow(c.query).Clients {
				want, ok := c.want[got.Client]
				if !ok {
					want = c.want[""]
				}
				if shadowSummary(got) != want {
					t.Errorf("%s: %s, want %s", got.Client, shadowSummary(got), want)
				}
			}
		})
	}
}

// Each of the clients is compared with keyfob: the same role by the same keys
// is no difference, whatever keyfob puts between.
func TestShadowDiffers(t *testing.T) {
	s, dir := world{
		config: "[profile same]\nrole_arn = " + testRole + "\nsource_profile = user\nmfa_serial = " + testMFA + "\n[profile user]\n" + pair +
			"[profile app]\n" + shadowProcess + "[profile other]\nrole_arn = " + testRole + "\nsource_profile = vaulted\n[profile vaulted]\nregion = x\n",
	}.load(t)
	s = s.WithVault(map[string]VaultKey{"vaulted": {AccessKeyID: "AKIAVAULT"}})
	explained := func(name string) *Explanation {
		x := mustResolve(t, s, byFlag(name)).Explain()
		return &x
	}
	for name, want := range map[string]map[string]bool{
		"same":  {"go": true, "js": true, "botocore": false, "rust": false, "java": false}, // go and js ask nobody for a code
		"app":   {"": false},
		"user":  {"": false},
		"other": {"": true},
	} {
		r := s.Shadow(ShadowQuery{Profile: name, Keyfob: explained(name)})
		for _, c := range r.Clients {
			w, ok := want[c.Client]
			if !ok {
				w = want[""]
			}
			if c.Differs != w {
				t.Errorf("%s, %s: differs %v, want %v (%s)", name, c.Client, c.Differs, w, shadowSummary(c))
			}
		}
	}
	// In words, and no control character of a file in them.
	r := s.Shadow(ShadowQuery{Profile: "same", Keyfob: explained("same")})
	var b bytes.Buffer
	r.Text(&b, Style{Bad: func(s string) string { return "<" + s + ">" }})
	for _, want := range []string{
		"AWS SDK for Go v2 (Terraform, kubectl)  <no credentials>\n  it asks nobody for an MFA code: a program has to bring a token provider  " + dir + sep + "config:4 [profile same]\n",
		"botocore (boto3, AWS CLI v1)\n  static-keys " + testID + "  " + dir + sep + "config:6 [profile user]\n  └─ assume-role " + testRole + "  " + dir + sep + "config:2 [profile same]\n  note: mfa_serial (" + dir + sep + "config:4): the code is asked for",
		"AWS SDK for Rust\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, b.String())
		}
	}
	w := world{config: "[profile p]\ncredential_process = x\x1b[2J\nrole_arn = \x1b[2J\nsource_profile = p\n" + pair}
	set, _ := w.load(t)
	b.Reset()
	set.Shadow(ShadowQuery{Profile: "p\x1b", Env: map[string]string{"AWS_DEFAULT_PROFILE": "\x1b[2J"}}).Text(&b, Style{})
	if strings.Contains(b.String(), "\x1b") {
		t.Errorf("control characters in %q", b.String())
	}
}

// No secret of a file or of the environment is in a report.
func TestShadowHasNoSecret(t *testing.T) {
	s, _ := world{config: "[profile p]\n" + pair + "aws_session_token = CANARYtoken\n"}.load(t)
	r := s.Shadow(ShadowQuery{Profile: "p", Env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "CANARYenv", "AWS_SESSION_TOKEN": "CANARYenv"}})
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	r.Text(&text, Style{})
	for _, secret := range []string{testSecret, "CANARY"} {
		if strings.Contains(string(b)+text.String(), secret) {
			t.Errorf("a secret is in %s%s", b, text.String())
		}
	}
}

func TestPlainKeys(t *testing.T) {
	s, dir := world{
		config:      "[profile a]\n" + pair + "[profile b]\nregion = x\n",
		credentials: "[a]\naws_access_key_id = AKIAC\naws_secret_access_key = s\n[t]\n" + pair + "aws_session_token = x\n[half]\naws_access_key_id = x\n",
	}.load(t)
	var got []string
	for _, k := range s.PlainKeys() {
		got = append(got, fmt.Sprintf("%s %s %s:%d", k.Profile, k.AccessKeyID, filepath.ToSlash(strings.TrimPrefix(k.Origin.File, dir)), k.Origin.Line))
	}
	if want := []string{"a AKIAC /credentials:2", "a " + testID + " /config:2"}; !slices.Equal(got, want) {
		t.Errorf("plain keys: %q, want %q", got, want)
	}
}

func TestProcessLine(t *testing.T) {
	s, dir := world{config: "[profile a]\n" + shadowProcess + "[profile b]\ncredential_process = env X=1 /opt/aws-vault exec b\n[profile c]\n", keyfob: "[profile c]\n" + shadowProcess}.load(t)
	a, ok := s.ProcessLine("a")
	if !ok || !a.Keyfob || a.Program != "/bin/keyfob" || a.Origin.File != dir+sep+"config" || a.Origin.Line != 2 {
		t.Errorf("a: %+v, %v", a, ok)
	}
	want := "/opt/aws-vault"
	if runtime.GOOS == "windows" { // its shell knows no env
		want = "env"
	}
	if b, ok := s.ProcessLine("b"); !ok || b.Keyfob || b.Program != want {
		t.Errorf("b: %+v, %v", b, ok)
	}
	if c, ok := s.ProcessLine("c"); ok {
		t.Errorf("c: %+v, which SDKs do not see", c)
	}
}

// ShadowAll says of each what Shadow does.
func TestShadowAll(t *testing.T) {
	s, _ := world{config: "[profile a]\n" + shadowProcess + "[profile b]\n" + pair + "region = x\nregion = y\n"}.load(t)
	names := s.Names()
	for i, r := range s.ShadowAll(names) {
		one, err := json.Marshal(s.Shadow(ShadowQuery{Profile: names[i]}))
		if err != nil {
			t.Fatal(err)
		}
		if all, err := json.Marshal(r); err != nil || string(all) != string(one) {
			t.Errorf("%s: %s and %s", names[i], all, one)
		}
	}
	if r := s.Shadow(ShadowQuery{Profile: "a"}).Clients[1]; !strings.Contains(r.Refuses, "twice") || r.Origin.Line != 7 {
		t.Errorf("botocore and a key that stands twice: %+v", r)
	}
}

func BenchmarkShadow(b *testing.B) {
	s, _ := bigSet(b)
	for b.Loop() {
		s.Shadow(ShadowQuery{Profile: "team-500"})
	}
}

func BenchmarkShadowAll(b *testing.B) {
	s, _ := bigSet(b)
	names := s.Names()
	for b.Loop() {
		s.ShadowAll(names)
	}
}

// BenchmarkExplain is all that `keyfob explain` costs besides the process:
// reading a config file of 10,000 lines, resolving, and the text.
func BenchmarkExplain(b *testing.B) {
	_, in := bigSet(b)
	for b.Loop() {
		var text bytes.Buffer
		mustResolve(b, Load(in), byFlag("team-500")).Explain().Text(&text, Style{})
	}
}
