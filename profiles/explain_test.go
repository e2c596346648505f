package profiles

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

const sep = string(os.PathSeparator)

// explainWorld has one of everything that explain shows.
var explainWorld = world{
	config: "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://x\n" +
		"[profile user]\nmfa_serial = " + testMFA + "\n" +
		"[profile app]\nregion = eu-west-1\nregion = eu-west-2\nRole_Arn = " + testRole + "\nsource_profile = user\ns3 =\n  addressing_style = path\ntext = one\n  two\n" +
		"[profile  both]\nsource_profile = user\ncredential_source = Environment\nrole_arn = x\n" +
		"[profile itself]\ncredential_process = keyfob credential-process --profile itself\n",
	credentials: "[user]\n" + pair + "aws_session_token =\n",
	keyfob:      "[profile app]\nregion =\n",
	env:         map[string]string{"AWS_REGION": "us-west-2"},
}

func TestExplainJSON(t *testing.T) {
	s, dir := explainWorld.load(t)
	for name, want := range map[string]string{
		"app": `{
 "profile": "app",
 "settings": [
  {"name": "region", "value": "us-west-2", "origin": {"kind": "environment", "name": "AWS_REGION"}, "shadows": [
   {"value": "", "origin": {"kind": "keyfob", "name": "[profile app]", "file": "DIR/profiles", "line": 2}},
   {"value": "eu-west-2", "origin": {"kind": "config", "name": "[profile app]", "file": "DIR/config", "line": 8}},
   {"value": "eu-west-1", "origin": {"kind": "config", "name": "[profile app]", "file": "DIR/config", "line": 7}}]},
  {"name": "role_arn", "value": "ROLE", "origin": {"kind": "config", "name": "[profile app]", "file": "DIR/config", "line": 9}, "shadows": []},
  {"name": "s3.addressing_style", "value": "path", "origin": {"kind": "config", "name": "[profile app]", "file": "DIR/config", "line": 12}, "shadows": []},
  {"name": "source_profile", "value": "user", "origin": {"kind": "config", "name": "[profile app]", "file": "DIR/config", "line": 10}, "shadows": []},
  {"name": "text", "value": "one\ntwo", "origin": {"kind": "config", "name": "[profile app]", "file": "DIR/config", "line": 13}, "shadows": []}],
 "chain": [
  {"kind": "static-keys", "profile": "user", "origin": {"kind": "credentials", "name": "[user]", "file": "DIR/credentials", "line": 2}},
  {"kind": "session-token", "profile": "user", "origin": {"kind": "config", "name": "[profile user]", "file": "DIR/config", "line": 5}},
  {"kind": "assume-role", "profile": "app", "role_arn": "ROLE", "origin": {"kind": "config", "name": "[profile app]", "file": "DIR/config", "line": 9}}],
 "warnings": []
}`,
		"user": `{
 "profile": "user",
 "settings": [
  {"name": "aws_access_key_id", "value": "ID", "origin": {"kind": "credentials", "name": "[user]", "file": "DIR/credentials", "line": 2}, "shadows": []},
  {"name": "aws_secret_access_key", "value": "[redacted]", "origin": {"kind": "credentials", "name": "[user]", "file": "DIR/credentials", "line": 3}, "shadows": []},
  {"name": "aws_session_token", "value": "", "origin": {"kind": "credentials", "name": "[user]", "file": "DIR/credentials", "line": 4}, "shadows": []},
  {"name": "mfa_serial", "value": "MFA", "origin": {"kind": "config", "name": "[profile user]", "file": "DIR/config", "line": 5}, "shadows": []},
  {"name": "region", "value": "us-west-2", "origin": {"kind": "environment", "name": "AWS_REGION"}, "shadows": []}],
 "chain": [
  {"kind": "static-keys", "profile": "user", "origin": {"kind": "credentials", "name": "[user]", "file": "DIR/credentials", "line": 2}},
  {"kind": "session-token", "profile": "user", "origin": {"kind": "config", "name": "[profile user]", "file": "DIR/config", "line": 5}}],
 "warnings": []
}`,
		"both": `{
 "profile": "both",
 "settings": [
  {"name": "credential_source", "value": "Environment", "origin": {"kind": "config", "name": "[profile  both]", "file": "DIR/config", "line": 17}, "shadows": []},
  {"name": "region", "value": "us-west-2", "origin": {"kind": "environment", "name": "AWS_REGION"}, "shadows": []},
  {"name": "role_arn", "value": "x", "origin": {"kind": "config", "name": "[profile  both]", "file": "DIR/config", "line": 18}, "shadows": []},
  {"name": "source_profile", "value": "user", "origin": {"kind": "config", "name": "[profile  both]", "file": "DIR/config", "line": 16}, "shadows": []}],
 "chain": [],
 "warnings": [],
 "error": {"message": "cannot use profile both: source_profile (DIR/config:16) and credential_source (DIR/config:17) exclude each other",
  "file": "DIR/config", "line": 16, "also": {"file": "DIR/config", "line": 17}}
}`,
		"itself": `{
 "profile": "itself",
 "settings": [
  {"name": "credential_process", "value": "keyfob credential-process --profile itself", "origin": {"kind": "config", "name": "[profile itself]", "file": "DIR/config", "line": 20}, "shadows": [], "skipped": "keyfob itself"},
  {"name": "region", "value": "us-west-2", "origin": {"kind": "environment", "name": "AWS_REGION"}, "shadows": []}],
 "chain": [],
 "skipped": [{"profile": "itself", "origin": {"kind": "config", "name": "[profile itself]", "file": "DIR/config", "line": 20}, "skipped": "keyfob itself"}],
 "warnings": [],
 "error": {"message": "cannot find credentials for profile itself: its credential_process is keyfob itself, and keyfob has no keys, role or sign-in for it",
  "file": "DIR/config", "line": 19, "hint": "keyfob add itself"}
}`,
	} {
		t.Run(name, func(t *testing.T) {
			q := Query{Profile: name, ProfileOrigin: fromEnvironment("AWS_PROFILE")}
			got, err := json.Marshal(mustResolve(t, s, q).Explain())
			if err != nil {
				t.Fatal(err)
			}
			want = strings.NewReplacer("DIR/", strings.ReplaceAll(dir+sep, `\`, `\\`), "ROLE", testRole, "MFA", testMFA, `"ID"`, `"`+testID+`"`).Replace(want)
			var compact bytes.Buffer
			if err := json.Compact(&compact, []byte(want)); err != nil {
				t.Fatal(err)
			}
			if string(got) != compact.String() {
				t.Errorf("explain is\n%s\nwant\n%s", got, compact.String())
			}
			if strings.Contains(string(got), testSecret) {
				t.Error("a secret is shown")
			}
			// The client prints what the daemon sends: nothing is lost on the way.
			var back Explanation
			if err := json.Unmarshal(got, &back); err != nil {
				t.Fatal(err)
			}
			var a, b bytes.Buffer
			back.Text(&a, Style{})
			mustResolve(t, s, q).Explain().Text(&b, Style{})
			if a.String() != b.String() || a.Len() == 0 {
				t.Errorf("text is\n%s\nafter JSON, and before\n%s", a.String(), b.String())
			}
		})
	}
}

func TestExplainText(t *testing.T) {
	s, dir := explainWorld.load(t)
	for name, want := range map[string]string{
		"app": `profile app

credentials
  static-keys  [user]  DIR/credentials:2 [user]
  └─ session-token  [user]  DIR/config:5 [profile user]
     └─ assume-role arn:aws:iam::123456789012:role/app  [app]  DIR/config:9 [profile app]

settings
  region               us-west-2                           environment AWS_REGION
                    ├─ (empty)                             DIR/profiles:2 [profile app]  (shadowed)
                    ├─ eu-west-2                           DIR/config:8 [profile app]  (shadowed)
                    └─ eu-west-1                           DIR/config:7 [profile app]  (shadowed)
  role_arn             arn:aws:iam::123456789012:role/app  DIR/config:9 [profile app]
  s3.addressing_style  path                                DIR/config:12 [profile app]
  source_profile       user                                DIR/config:10 [profile app]
  text                 one\ntwo                            DIR/config:13 [profile app]
`,
		"itself": `profile itself

credentials
  none
  skipped: credential_process of itself, DIR/config:20 [profile itself]: keyfob itself

settings
  credential_process  keyfob credential-process --profile itself  DIR/config:20 [profile itself]  (skipped: keyfob itself)
  region              us-west-2                                   environment AWS_REGION

error
  cannot find credentials for profile itself: its credential_process is keyfob itself, and keyfob has no keys, role or sign-in for it
  hint: keyfob add itself
`,
	} {
		var b bytes.Buffer
		mustResolve(t, s, byFlag(name)).Explain().Text(&b, Style{})
		if want = strings.ReplaceAll(want, "DIR/", dir+sep); b.String() != want {
			t.Errorf("text is\n%s\nwant\n%s", b.String(), want)
		}
	}
	// What a file holds can't move the cursor.
	var b bytes.Buffer
	world{config: "[profile a]\nx = \x1b[2J\u202e\n" + pair}.resolve(t, byFlag("a")).Explain().Text(&b, Style{})
	if strings.ContainsAny(b.String(), "\x1b\u202e") {
		t.Errorf("control characters in %q", b.String())
	}
}

func TestConfigLines(t *testing.T) {
	w := world{
		config: "[profile a]\nregion = eu-west-1\noutput = json\ncli_pager =\nrole_arn = " + testRole + "\nsource_profile = a\nmfa_serial = x\nduration_seconds = 900\nservices = s\n" +
			"sso_start_url = u\nsaml_url =\noidc_issuer =\nroles_anywhere_certificate =\nlong = 1\n  2 # c\ns3 =\n  addressing_style = path # c\n  x = y\nsession_tags = a=b\naws_account_id = 1\nprotected = true\ncredential_process = x\n" + pair +
			"[services s]\nsts =\n  endpoint_url = http://sts\n  x = 1\ns3 =\n  endpoint_url = http://s3\n",
		env: map[string]string{"AWS_RETRY_MODE": "adaptive", "AWS_CA_BUNDLE": "/a # b"},
	}
	p := w.resolve(t, byFlag("a"))
	if p.Err != nil {
		t.Fatal(p.Err)
	}
	want := `long = 1
  2 # c
output = json
region = eu-west-1
retry_mode = adaptive
s3 =
  addressing_style = path # c
  x = y
services = keyfob

[services keyfob]
s3 =
  endpoint_url = http://s3
sts =
  endpoint_url = http://sts
  x = 1
`
	lines := p.ConfigLines()
	if lines != want {
		t.Errorf("lines are\n%s\nwant\n%s", lines, want)
	}
	// They read back as what they came from.
	q := world{config: "[default]\n" + lines}.resolve(t, byFlag("default"))
	for _, s := range q.Settings {
		if s.Name == "services" {
			continue
		}
		if o, _ := p.Get(s.Name); o.Value != s.Value {
			t.Errorf("%s reads back as %q, was %q", s.Name, s.Value, o.Value)
		}
	}
	if len(q.Settings) != 10 {
		t.Errorf("settings read back: %v", q.Settings)
	}
	if strings.Contains(lines, testSecret) || strings.Contains(lines, testID) {
		t.Error("credentials in the lines")
	}
}
