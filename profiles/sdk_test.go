package profiles

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"pgregory.net/rapid"
)

// The AWS SDK for Go reads the same files. Where it is right, we say the
// same; where it is not, sdkDifferences says so and why.

// comparedKeys are read by the SDK from both files as plain strings.
var comparedKeys = []string{"region", "external_id", "mfa_serial", "role_session_name", "ca_bundle", "credential_process", "login_session", "ec2_metadata_service_endpoint",
	"sso_session", "sso_region", "sso_start_url", "sso_account_id", "sso_role_name", "role_arn", "source_profile", "credential_source", "web_identity_token_file"}

func loadSDK(configFile, credentialsFile, profile string) (config.SharedConfig, error) {
	return config.LoadSharedConfigProfile(context.Background(), profile, func(o *config.LoadSharedConfigOptions) {
		o.ConfigFiles, o.CredentialsFiles = []string{configFile}, []string{credentialsFile}
	})
}

// sdkSummary is what the SDK makes of a profile, in one text.
func sdkSummary(c config.SharedConfig, err error) string {
	if err != nil {
		return "error"
	}
	values := map[string]string{
		"region": c.Region, "external_id": c.ExternalID, "mfa_serial": c.MFASerial, "role_session_name": c.RoleSessionName, "ca_bundle": c.CustomCABundle,
		"credential_process": c.CredentialProcess, "login_session": c.LoginSession, "ec2_metadata_service_endpoint": c.EC2IMDSEndpoint,
		"sso_session": c.SSOSessionName, "sso_region": c.SSORegion, "sso_start_url": c.SSOStartURL, "sso_account_id": c.SSOAccountID, "sso_role_name": c.SSORoleName,
		"role_arn": c.RoleARN, "source_profile": c.SourceProfileName, "credential_source": c.CredentialSource, "web_identity_token_file": c.WebIdentityTokenFile,
		"keys":         c.Credentials.AccessKeyID + c.Credentials.SecretAccessKey + c.Credentials.SessionToken,
		"endpoint_url": c.BaseEndpoint,
	}
	if c.RoleDurationSeconds != nil {
		values["duration_seconds"] = fmt.Sprint(int(c.RoleDurationSeconds.Seconds()))
	}
	if s := c.SSOSession; s != nil {
		values["session"] = s.SSORegion + " " + s.SSOStartURL
	}
	for service, block := range c.Services.ServiceValues {
		for k, v := range block {
			values["services."+service+"."+k] = v
		}
	}
	chain := ""
	for src := &c; src != nil; src = src.Source {
		if src.Source != nil {
			chain += " < role"
			continue
		}
		if src.RoleARN != "" && (src.CredentialSource != "" || src.WebIdentityTokenFile != "" || src.Credentials.HasKeys()) {
			chain += " < role"
		}
		switch {
		case src.Credentials.HasKeys():
			chain += " < keys " + src.Credentials.AccessKeyID
		case src.CredentialSource != "":
			chain += " < " + src.CredentialSource
		case src.WebIdentityTokenFile != "":
			chain += " < web identity"
		case src.SSOSessionName != "" || src.SSOStartURL != "":
			chain += " < sso"
		case src.LoginSession != "":
			chain += " < login"
		case src.CredentialProcess != "":
			chain += " < process"
		}
	}
	return summaryText(values, chain)
}

func summaryText(values map[string]string, chain string) string {
	var lines []string
	for k, v := range values {
		if v != "" {
			lines = append(lines, fmt.Sprintf("%s=%q", k, v))
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, " ") + chain
}

// ourSummary is the same of ours.
func ourSummary(s *Set, name string) string {
	p, err := s.Resolve(byFlag(name))
	if err != nil || p.Err != nil && !strings.Contains(p.Err.Message, "cannot find credentials for profile "+name) { // the SDK does not look for any
		return "error"
	}
	v := s.view(name)
	values := map[string]string{}
	_, hasRole := v.get("role_arn")
	_, source := v.get("source_profile")
	source = source && hasRole
	for _, key := range append(comparedKeys, "endpoint_url") {
		values[key] = v.text(key)
		if source && (key == "credential_process" || strings.HasPrefix(key, "sso_") && key != "sso_session") {
			values[key] = "" // the SDK clears what a source makes idle
		}
	}
	if keys, _ := v.keys(); keys != nil && !source {
		values["keys"] = keys.id + keys.secret + keys.token
	}
	if d, ok := v.get("duration_seconds"); ok {
		values["duration_seconds"] = d.text
		if n, err := v.duration(0); err == nil {
			values["duration_seconds"] = n
		}
	}
	if name := v.text("sso_session"); name != "" {
		session := s.ssoSession(name)
		region, _ := session.get("sso_region")
		url, _ := session.get("sso_start_url")
		values["session"] = region.text + " " + url.text
	}
	for _, x := range p.Settings {
		if strings.HasPrefix(x.Name, "services.") {
			values[x.Name] = x.Value
		}
	}
	chain := ""
	for i := len(p.Chain) - 1; i >= 0; i-- {
		switch l := p.Chain[i]; l.Kind {
		case KindAssumeRole:
			chain += " < role"
		case KindStaticKeys:
			chain += " < keys " + l.Params["aws_access_key_id"]
		case KindEnvironmentKeys:
			chain += " < Environment"
		case KindIMDS:
			chain += " < Ec2InstanceMetadata"
		case KindWebIdentity:
			chain += " < role < web identity"
		case KindSSO:
			chain += " < sso"
		case KindLogin:
			chain += " < login"
		case KindProcess:
			chain += " < process"
		}
	}
	return summaryText(values, chain)
}

func writePair(t interface{ Fatal(...any) }, dir, configText, credentialsText string) (string, string) {
	c, d := filepath.Join(dir, "config"), filepath.Join(dir, "credentials")
	for path, text := range map[string]string{c: configText, d: credentialsText} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c, d
}

// drawSDKText draws a file of the grammar on which all agree.
func drawSDKText(t *rapid.T, headers []string, keys []string) string {
	var b strings.Builder
	end := rapid.SampledFrom([]string{"\n", "\n", "\r\n"}).Draw(t, "end")
	property := func() {
		key := rapid.SampledFrom(keys).Draw(t, "key")
		if rapid.IntRange(0, 5).Draw(t, "upper") == 0 {
			key = strings.ToUpper(key)
		}
		value := rapid.SampledFrom([]string{"", "v", "a b", "x=y", "a;b", "c#d", "http://h:1/p?q=r", "ü", "-", "1"}).Draw(t, "value")
		b.WriteString(key + rapid.SampledFrom([]string{"=", " = ", "\t=", "=  "}).Draw(t, "equals") + value)
		b.WriteString(rapid.SampledFrom([]string{"", "", " ", " # c", "\t; c = d", " ;"}).Draw(t, "tail") + end)
		if value != "" && end == "\n" && rapid.IntRange(0, 3).Draw(t, "continued") == 0 {
			b.WriteString("  more" + end)
			if rapid.Bool().Draw(t, "again") {
				b.WriteString("\n# c\n\tand more" + end)
			}
		}
	}
	for range rapid.IntRange(0, 6).Draw(t, "sections") {
		b.WriteString(rapid.SampledFrom(headers).Draw(t, "header") + rapid.SampledFrom([]string{"", "", " ", " # c", "; c"}).Draw(t, "tail") + end)
		for range rapid.IntRange(0, 4).Draw(t, "lines") {
			switch rapid.IntRange(0, 9).Draw(t, "line") {
			case 0:
				b.WriteString(rapid.SampledFrom([]string{"", "  ", "# c", ";d = e", "#[x]"}).Draw(t, "nothing") + end)
			default:
				property()
			}
		}
	}
	return b.String()
}

func TestSDKReadsTheSame(t *testing.T) {
	dir, compared := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		keys := []string{"region", "external_id", "mfa_serial", "role_session_name", "ca_bundle", "login_session"}
		c, d := writePair(t, dir,
			drawSDKText(t, []string{"[default]", "[profile default]", "[profile a]", "[ profile\ta ]", "[profile a.b/c@d:e+f%g-h_i]", "[profile größe]", "[a]", "[sso-session a]"}, keys),
			drawSDKText(t, []string{"[default]", "[a]", "[ a ]", "[größe]", "[profile a]"}, keys))
		s := Load(Input{ConfigFile: c, CredentialsFile: d})
		for _, name := range []string{"default", "a", "a.b/c@d:e+f%g-h_i", "größe", "none"} {
			ours, theirs := ourSummary(s, name), sdkSummary(loadSDK(c, d, name))
			theirs, _, _ = strings.Cut(theirs, " < ") // the chain is compared below
			ours, _, _ = strings.Cut(ours, " < ")
			if ours != theirs {
				a, _ := os.ReadFile(c)
				b, _ := os.ReadFile(d)
				t.Fatalf("profile %s\nours %s\nSDK  %s\nconfig\n%s\ncredentials\n%s", name, ours, theirs, a, b)
			}
			compared++
		}
	})
	if compared < 50 {
		t.Errorf("%d profiles compared", compared)
	}
}

func TestSDKMakesTheSameChains(t *testing.T) {
	dir, chains := t.TempDir(), map[string]int{}
	// Some chains are seldom drawn: until each was, it goes on.
	missing := func() (names []string) {
		for _, want := range []string{"keys A", "role < keys A", "role < role < keys A", "role < sso", "role < web identity", "role < EcInstanceMetadata", "process", ""} {
			if chains[want] == 0 {
				names = append(names, want)
			}
		}
		return names
	}
	draw := func(t *rapid.T) {
		var cfg, crd strings.Builder
		n := rapid.IntRange(1, 5).Draw(t, "profiles")
		cfg.WriteString("[sso-session s]\nsso_region = r\nsso_start_url = u\n[services v]\nsts =\n  endpoint_url = http://x\n")
		for i := range n {
			fmt.Fprintf(&cfg, "[profile p%d]\n", i)
			keys := fmt.Sprintf("aws_access_key_id = A%d\naws_secret_access_key = s\n", i)
			if rapid.Bool().Draw(t, "token") {
				keys += "aws_session_token = t\n"
			}
			role := fmt.Sprintf("role_arn = arn:aws:iam::123456789012:role/r%d\nexternal_id = e\nmfa_serial = m\nduration_seconds = %d\n", i, 900+rapid.IntRange(0, 3000).Draw(t, "seconds"))
			if rapid.Bool().Draw(t, "services") {
				cfg.WriteString("services = v\n")
			}
			switch kind := rapid.SampledFrom([]string{"role", "role", "role", "self", "keys", "credentials", "process", "sso", "legacy", "imds", "web"}).Draw(t, "kind"); kind {
			case "role":
				// the next ones, or one that is not there
				fmt.Fprintf(&cfg, "%ssource_profile = p%d\n", role, i+1+rapid.IntRange(0, 1).Draw(t, "source"))
			case "self":
				fmt.Fprintf(&cfg, "%ssource_profile = p%d\n", role, i)
				if i == 0 { // as a source: see sdkDifferences
					cfg.WriteString(keys)
				} else {
					cfg.WriteString("source_profile =\nrole_arn =\ncredential_process = p\n")
				}
			case "keys":
				cfg.WriteString(keys)
			case "credentials":
				fmt.Fprintf(&crd, "[p%d]\n%s", i, keys)
			case "process":
				cfg.WriteString("credential_process = x\n")
			case "sso":
				cfg.WriteString("sso_session = s\nsso_account_id = 1\nsso_role_name = r\n")
			case "legacy":
				cfg.WriteString("sso_region = r\nsso_start_url = u\nsso_account_id = 1\nsso_role_name = r\n")
			case "imds":
				cfg.WriteString(role + "credential_source = Ec2InstanceMetadata\n")
			case "web":
				cfg.WriteString(role + "web_identity_token_file = /t\n")
			}
		}
		c, d := writePair(t, dir, cfg.String(), crd.String())
		s := Load(Input{ConfigFile: c, CredentialsFile: d})
		for i := range n {
			name := fmt.Sprintf("p%d", i)
			ours, theirs := ourSummary(s, name), sdkSummary(loadSDK(c, d, name))
			if ours != theirs {
				t.Fatalf("profile %s\nours %s\nSDK  %s\n%s\n%s", name, ours, theirs, cfg.String(), crd.String())
			}
			_, chain, _ := strings.Cut(ours, " < ")
			chains[strings.Join(strings.FieldsFunc(chain, func(r rune) bool { return r >= '0' && r <= '9' }), "")]++
		}
	}
	for round := 0; round == 0 || round < 20 && len(missing()) > 0 && !t.Failed() && !testing.Short(); round++ {
		rapid.Check(t, draw)
	}
	if left := missing(); len(left) > 0 && !testing.Short() { // few are drawn then
		t.Errorf("no chain %q was compared: %v", left, chains)
	}
}

// sdkDifferences are the cases in which we answer otherwise than the SDK
// (config v1.33.15), and why. Each is checked to be one.
var sdkDifferences = []struct {
	why                 string
	config, credentials string
	ours, sdk           string // summaries of profile "a"
}{
	{"quotes stay, as in botocore; the SDK breaks `\"/p\" \"arg\"`", "[profile a]\ncredential_process = \"/p\" \"arg\"\n", "", `credential_process="\"/p\" \"arg\"" < process`, `credential_process="/p\" \"arg" < process`},
	{"a colon assigns nothing, as the grammar says", "[profile a]\nregion: x\n", "", "error", `region="x"`},
	{"a property before any section is no grammar", "x = 1\n[profile a]\nregion = x\n", "", "error", `region="x"`},
	{"a line without `=` is no grammar", "[profile a]\nregion = x\nother\n", "", "error", `region="x"`},
	{"an indented line with nothing to continue is no grammar", "[profile a]\n  region = x\n", "", "error", `region="x"`},
	{"a sub-property without `=` is no grammar", "[profile a]\nregion = x\ns =\n  y\n", "", "error", `region="x"`},
	{"an empty name is no grammar", "[profile a]\nregion = x\n= z\n", "", "error", `region="x"`},
	{"text after `]` is no grammar; to the SDK it is no header, and its keys leak", "[profile a]\nregion = x\n[profile b] y\nregion = z\n", "", "error", `region="z"`},
	{"a header without `]`", "[profile a]\nregion = x\n[profile b\nregion = z\n", "", "error", `region="z"`},
	{"NUL is no text", "[profile a]\nregion = x\x00\n", "", "error", `region="x\x00"`},
	{"not UTF-8", "[profile a]\nregion = \xff\n", "", "error", `region="\xff"`},
	{"[profile a#b] is a section of its own", "[profile a]\nregion = x\n[profile a#b]\nregion = z\n", "", `region="x"`, `region="z"`},
	{"a byte-order mark belongs to no section", "\ufeff[profile a]\nregion = x\n", "", `region="x"`, "error"},
	{"an indented comment continues the value", "[profile a]\nregion = x\n  # y\n", "", `region="x\n# y"`, `region="x"`},
	{"an indented header continues the value", "[profile a]\nregion = x\n  [profile b]\nexternal_id = y\n", "", `external_id="y" region="x\n[profile b]"`, `region="x"`},
	{"blanks at the end of a continuation go", "[profile a]\nregion = x\n  y \n", "", `region="x\ny"`, `region="x\ny "`},
	{"so does the CR of its line end", "[profile a]\r\nregion = x\r\n  y\r\n", "", `region="x\ny"`, `region="x\ny\r"`},
	{"a quoted name is the name in the quotes", "[profile \"a\"]\nregion = x\n", "", `region="x"`, "error"},
	{"the token belongs to the pair of its file", "[profile a]\naws_access_key_id = A\naws_secret_access_key = B\naws_session_token = C\n", "[a]\naws_access_key_id = D\naws_secret_access_key = E\n", `keys="DE" < keys D`, `keys="DEC" < keys D`},
	{"all keys of the credentials file count where the section is in both", "[profile a]\nregion = x\n", "[a]\nendpoint_url = http://y\n", `endpoint_url="http://y" region="x"`, `region="x"`},
	{"the services section too", "[profile a]\nregion = x\n[services s]\nsts =\n  endpoint_url = y\n", "[a]\nservices = s\n", `region="x" services.sts.endpoint_url="y"`, `region="x"`},
	{"leading zeros are decimal", "[profile a]\nduration_seconds = 0900\n", "", `duration_seconds="900"`, `duration_seconds="0"`},
	{"a bad duration is an error", "[profile a]\nduration_seconds = 1h\ncredential_process = p\n", "", "error", `credential_process="p" duration_seconds="0" < process`},
	{"a source's static keys end the chain, as in botocore and JS", "[profile a]\nrole_arn = x\nsource_profile = b\n[profile b]\nrole_arn = y\naws_access_key_id = A\naws_secret_access_key = B\n", "", `role_arn="x" source_profile="b" < role < keys A`, `role_arn="x" source_profile="b" < role < role < keys A`},
	{"a cycle is one also where a member has static keys", "[profile a]\nrole_arn = x\nsource_profile = b\n[profile b]\nrole_arn = y\nsource_profile = a\naws_access_key_id = A\naws_secret_access_key = B\n", "", "error", `role_arn="x" source_profile="b" < role < role < keys A`},
	{"a source may have login_session alone", "[profile a]\nrole_arn = x\nsource_profile = b\n[profile b]\nlogin_session = y\n", "", `role_arn="x" source_profile="b" < role < login`, "error"},
	{"role_arn alone can't be assumed", "[profile a]\nrole_arn = x\n", "", "error", `role_arn="x"`},
	{"role_arn with own keys and no source is read in three ways by three SDKs", "[profile a]\nrole_arn = x\naws_access_key_id = A\naws_secret_access_key = B\n", "", "error", `keys="AB" role_arn="x" < role < keys A`},
	{"role_arn with own SSO and no source likewise", "[profile a]\nrole_arn = x\nsso_region = r\nsso_start_url = u\nsso_account_id = 1\nsso_role_name = r\n", "", "error", `role_arn="x" sso_account_id="1" sso_region="r" sso_role_name="r" sso_start_url="u" < sso`},
	{"source_profile without role_arn is a warning", "[profile a]\nsource_profile = b\ncredential_process = p\n[profile b]\n", "", `credential_process="p" source_profile="b" < process`, "error"},
	{"a role beside a credential_process is the role: the line may be keyfob's", "[profile a]\nrole_arn = x\nsource_profile = b\ncredential_process = keyfob\n[profile b]\naws_access_key_id = A\naws_secret_access_key = B\n", "", `role_arn="x" source_profile="b" < role < keys A`, "error"},
	{"sso keys that differ from their session are refused before they are used", "[profile a]\nsso_session = s\nsso_region = r\naws_access_key_id = A\naws_secret_access_key = B\n[sso-session s]\nsso_region = q\nsso_start_url = u\n", "", "error", `keys="AB" session="q u" sso_region="r" sso_session="s" < keys A`},
	{"a missing sso-session matters where it is used", "[profile a]\nsso_session = s\naws_access_key_id = A\naws_secret_access_key = B\n", "", `keys="AB" session=" " sso_session="s" < keys A`, "error"},
	{"a missing services section may hide where calls should go", "[profile a]\nservices = s\ncredential_process = p\nregion = x\naws_access_key_id = A\naws_secret_access_key = B\n", "", "error", `credential_process="p" keys="AB" region="x" < keys A`},
}

func TestSDKDifferences(t *testing.T) {
	for _, c := range sdkDifferences {
		t.Run(c.why, func(t *testing.T) {
			f, d := writePair(t, t.TempDir(), c.config, c.credentials)
			if got := ourSummary(Load(Input{ConfigFile: f, CredentialsFile: d}), "a"); got != c.ours {
				t.Errorf("ours is  %s\nlisted   %s", got, c.ours)
			}
			if got := sdkSummary(loadSDK(f, d, "a")); got != c.sdk {
				t.Errorf("the SDK's is  %s\nlisted        %s", got, c.sdk)
			}
			if c.ours == c.sdk {
				t.Error("this is no difference")
			}
		})
	}
}
