package settings

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// env gives a getenv over a fresh home and the given variables.
func env(t *testing.T, vars map[string]string) (func(string) string, string) {
	t.Helper()
	home := t.TempDir()
	return func(name string) string {
		if v, ok := vars[name]; ok {
			return v
		}
		if name == "HOME" || name == "USERPROFILE" {
			return home
		}
		return ""
	}, home
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPrecedence(t *testing.T) {
	file := writeConfig(t, "profile = 'filed'\ninteractive = 'never'\n[keystore]\nbackend = 'pass'\n[log]\nlevel = 'debug'\n")
	getenv, _ := env(t, map[string]string{"KEYFOB_CONFIG": file})
	s, err := Load(Flags{}, getenv)
	if err != nil {
		t.Fatal(err)
	}
	if s.Profile != "filed" || s.ProfileFrom != file || s.Interactive != "never" || s.Keystore != "pass" || s.LogLevel != "debug" {
		t.Errorf("the file's settings are not used: %+v", s)
	}
	getenv, _ = env(t, map[string]string{"KEYFOB_CONFIG": file, "AWS_DEFAULT_PROFILE": "older", "KEYFOB_KEYSTORE": "keyctl", "KEYFOB_LOG_LEVEL": "  "})
	if s, err = Load(Flags{}, getenv); err != nil || s.Profile != "older" || s.Keystore != "keyctl" || s.LogLevel != "debug" {
		t.Errorf("environment over file: %+v, %v", s, err)
	}
	getenv, _ = env(t, map[string]string{"KEYFOB_CONFIG": file, "AWS_DEFAULT_PROFILE": "older", "AWS_PROFILE": "newer", "KEYFOB_KEYSTORE": "keyctl"})
	if s, err = Load(Flags{}, getenv); err != nil || s.Profile != "newer" || s.ProfileFrom != "AWS_PROFILE" {
		t.Errorf("AWS_PROFILE over AWS_DEFAULT_PROFILE: %+v, %v", s, err)
	}
	if s, err = Load(Flags{Profile: "flagged", Keystore: "passphrase"}, getenv); err != nil || s.Profile != "flagged" || s.ProfileFrom != "--profile" || s.Keystore != "passphrase" {
		t.Errorf("flag over environment: %+v, %v", s, err)
	}
}

func TestDefaults(t *testing.T) {
	getenv, home := env(t, nil)
	s, err := Load(Flags{}, getenv)
	if err != nil {
		t.Fatal(err)
	}
	if s.Profile != "default" || s.Keystore != "auto" || s.Interactive != "auto" || s.SignInTimeout != 10*time.Minute || s.IdleExit != 12*time.Hour || s.ProcessTimeout != time.Minute {
		t.Errorf("defaults: %+v", s)
	}
	if runtime.GOOS == "linux" {
		if s.DataDir != filepath.Join(home, ".local/share/keyfob") || s.Socket != filepath.Join(s.DataDir, "keyfob.sock") || s.AWSConfigFile != filepath.Join(home, ".aws/config") {
			t.Errorf("paths: %+v", s)
		}
	}
}

func TestBadSettingsNameFileAndLine(t *testing.T) {
	const imds = "[[endpoint]]\nkind = 'imds'\nlisten = '127.0.0.1:1'\n"
	const container = "[[endpoint]]\nkind = 'container'\nlisten = '127.0.0.1:1'\n"
	long := "[[endpoint]]\nkind = 'imds'\nlisten = '127.0.0.1:1'\npolicy_arns = [" + strings.Repeat("'arn:aws:iam::aws:policy/x',", 11) + "]\n"
	for _, c := range []struct{ text, line, want string }{
		{"data_dir = '/x'\nkeystroke = 'pass'\n", ":2:", "keystroke"},
		{imds + "imdsv3 = true\n", ":4:", "imdsv3"},
		{imds + "[endpoint.metadata]\nhost = 'x'\n", ":5:", "host"},
		{"[[profile]]\nname = 'x'\nprotect = true\n", ":3:", "protect"},
		{"data_dir = \n", ":1:", ""},
		{"data_dir = 3\n", ":1:", ""},
		{"[log]\n\nlevel = 'loud'\n", ":3:", `"loud"`},
		{"log.format = 'xml'\n", ":1:", `"xml"`},
		{"log = { level = 'debug',\nformat = 'xml' }\n", ":2:", `"xml"`},
		{"interactive = 'sometimes'\n", ":1:", "sometimes"},
		{"\nsignin_timeout = 'soon'\n", ":2:", "soon"},
		{"[keystore]\nbackend = 'file'\n", ":2:", "file"},
		{"[console]\nfederation_endpoint = 'signin'\n", ":2:", "signin"},
		{"[[endpoint]]\nkind = 'ftp'\nlisten = '127.0.0.1:1'\n", ":2:", `"ftp"`},
		{"[[endpoint]]\nlisten = '127.0.0.1:1'\n", ":1:", `""`},
		{imds + "[[endpoint]]\nkind = 'imds'\n", ":4:", "no listen"},
		{"[[endpoint]]\nkind = 'imds'\nlisten = '0.0.0.0:80'\n", ":3:", "every interface"},
		{"[[endpoint]]\nkind = 'imds'\nlisten = '[::]:80'\n", ":3:", "every interface"},
		{"[[endpoint]]\nkind = 'imds'\nlisten = '127.0.0.1'\n", ":3:", "no port"},
		{"[[endpoint]]\nkind = 'imds'\nlisten = '127.0.0.1:99999'\n", ":3:", "no port"},
		{"[[endpoint]]\nkind = 'imds'\nlisten = 'http://x:1'\n", ":3:", "no address"},
		{imds + "[[endpoint]]\nkind = 'container'\nlisten = '127.0.0.1:1'\n", ":6:", "two endpoints"},
		{"[[endpoint]]\nkind = 'imds'\nlisten = '[::1]:1'\n[[endpoint]]\nkind = 'imds'\nlisten = '[0:0::1]:1'\n", ":6:", "two endpoints"},
		{imds + "hosts = ['fine.test', 'a b']\n", ":4:", `"a b"`},
		{imds + "tls_cert = 'c.pem'\ntls_key = 'k.pem'\n", ":4:", "imds endpoint takes no tls_cert"},
		{imds + "tls_key = 'k.pem'\n", ":4:", "imds endpoint takes no tls_key"},
		{container + "tls_cert = 'c.pem'\n", ":4:", "no tls_key"},
		{container + "tls_key = 'k.pem'\n", ":4:", "no tls_cert"},
		{container + "tls_cert = true\n", ":4:", "wrong kind"},
		{"[[endpoint]]\nkind = 'container'\nlisten = '172.17.0.1:9913'\nallow_unidentified = true\n", ":4:", "172.17.0.1:9913 would hand credentials"},
		{"[[endpoint]]\nkind = 'container'\nlisten = '[fd00::1]:9913'\nallow_unidentified = true\n", ":4:", "plain http"},
		{"[[endpoint]]\nkind = 'container'\nlisten = 'keyfob.internal:80'\nallow_unidentified = true\n", ":4:", "plain http"},
		{imds + "hosts = [\n  'fine.test',\n  'http://x',\n]\n", ":6:", "http://x"},
		{imds + "hosts = ['fine.test:80']\n", ":4:", "fine.test:80"},
		{imds + "allow_programs = ['terraform']\n", ":4:", `"terraform"`},
		{imds + "allow_programs = ['/a',\n{ path = '/b', sha256 = 'abc' }]\n", ":5:", "SHA-256"},
		{imds + "allow_programs = [{ path = '/b', md5 = 'abc' }]\n", ":4:", "md5"},
		{imds + "allow_programs = [3]\n", ":4:", "wrong kind"},
		{imds + "[[endpoint.user]]\nuser = 'bob'\n", ":4:", "needs a user"},
		{imds + "[[endpoint.user]]\nuser = 'b'\nprofile = 'p'\n[[endpoint.user]]\nuser = 'b'\nprofile = 'q'\n", ":8:", "two [[endpoint.user]]"},
		{imds + "policy_arns = ['arn:aws:iam::aws:policy/ok', 'arn:aws:s3:::bucket']\n", ":4:", "arn:aws:s3"},
		{long, ":4:", "10"},
		{imds + "[endpoint.metadata]\nlocal_ipv4 = '::1'\n", ":5:", "::1"},
		{imds + "[endpoint.metadata]\naccount_id = '12'\n", ":5:", "twelve"},
		{imds + "[endpoint.metadata]\nmac = '00-11'\n", ":5:", "00-11"},
		{imds + "[endpoint.metadata.tags]\n'a b' = 'x'\n", ":5:", "a b"},
		{"[[endpoint]]\nkind = 'container'\nlisten = '127.0.0.1:1'\nimdsv1 = true\n", ":4:", "imdsv1"},
		{"[[endpoint]]\nkind = 'container'\nlisten = '127.0.0.1:1'\npolicy = 'x'\n", ":4:", "grants"},
		{"[[profile]]\nname = 'x'\n[[profile]]\nprotected = true\n", ":3:", "no name"},
		{"[[profile]]\nname = 'x'\nsession_policy_arns = ['ReadOnly']\n", ":3:", "ReadOnly"},
		{"[audit]\nmax_size = '16 potatoes'\n", ":2:", "potatoes"},
		{"[audit]\nmax_size = 16\n", ":2:", "16"},
		{"[audit]\nkeep = 0\n", ":2:", "keep"},
		{"[metrics]\nlisten = '192.0.2.1:9912'\n", ":2:", "loopback"},
		{"[metrics]\nlisten = 'unix:'\n", ":2:", "unix:"},
		{imds + "[metrics]\nlisten = '127.0.0.1:1'\n", ":5:", "endpoint"},
	} {
		if runtime.GOOS == "windows" {
			c.text = strings.ReplaceAll(strings.ReplaceAll(c.text, "'/a'", `'C:\a'`), "'/b'", `'C:\b'`)
		}
		file := writeConfig(t, c.text)
		getenv, _ := env(t, map[string]string{"KEYFOB_CONFIG": file})
		_, err := Load(Flags{}, getenv)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: error %v", c.text, err)
			continue
		}
		if !strings.Contains(err.Error()+e.Hint(), c.want) || !strings.Contains(err.Error(), file+c.line) {
			t.Errorf("%q: %v; want %s and %s", c.text, err, c.want, c.line)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: more than one line: %v", c.text, err)
		}
	}
}

// TestBadFlagsAreNamed: what came by a flag or a variable is named by it.
func TestBadFlagsAreNamed(t *testing.T) {
	getenv, _ := env(t, map[string]string{"KEYFOB_LOG_LEVEL": "loud"})
	for want, f := range map[string]Flags{
		`cannot use KEYFOB_LOG_LEVEL="loud"`: {},
		`cannot use --keystore "file"`:       {Keystore: "file"},
		`cannot use --imds "9911"`:           {IMDS: "9911", LogLevel: "info"},
	} {
		if _, err := Load(f, getenv); err == nil || err.Error() != want {
			t.Errorf("%+v: %v, want %s", f, err, want)
		}
	}
}

// TestWholeFile: every setting of an endpoint, a rule, the audit log and the
// metrics arrives; relative paths are relative to the file.
func TestWholeFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the paths of its programs are of Unix")
	}
	hash := strings.Repeat("Ab", 32)
	file := writeConfig(t, `profiles_file = "mine"
default_profile = "app"
[aws]
config_file = "~/aws"
[[endpoint]]
kind = "container"
listen = "127.0.0.1:2"
[[endpoint]]
kind = "imds"
listen = "LOCALHOST:1"
allow_groups = []
allow_programs = ["/usr/bin/terraform", { path = "/opt/x", sha256 = "`+hash+`" }]
policy = "read-only.json"
policy_arns = ["arn:aws:iam::aws:policy/ReadOnlyAccess"]
[[endpoint.user]]
user = "bob"
profile = "bobs"
[endpoint.metadata]
instance_id = "i-0123456789abcdef0"
mac = "0A:00:00:00:00:01"
tags = { Name = "my box", env = "dev" }
user_data_file = "~/user-data"
security_groups = ["default"]
[[profile]]
name = "prod-*"
protected = true
session_policy = "prod.json"
session_policy_arns = ["arn:aws-cn:iam::123456789012:policy/path/p"]
[audit]
max_size = "16 MiB"
keep = 3
[metrics]
listen = "unix:metrics.sock"
`)
	getenv, home := env(t, map[string]string{"KEYFOB_CONFIG": file})
	s, err := Load(Flags{}, getenv)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	at := func(p string) string { return filepath.Join(dir, p) }
	if s.ProfilesFile != at("mine") || s.AWSConfigFile != filepath.Join(home, "aws") || s.Metrics != "unix:"+at("metrics.sock") {
		t.Errorf("paths: %q %q %q", s.ProfilesFile, s.AWSConfigFile, s.Metrics)
	}
	if s.Audit != (Audit{MaxSize: 16 << 20, Keep: 3}) {
		t.Errorf("audit: %+v", s.Audit)
	}
	e := s.Endpoints[0]
	want := Endpoint{Kind: "imds", Listen: "localhost:1", Profile: "app", AllowGroups: []string{},
		AllowPrograms: []Program{{Path: "/usr/bin/terraform"}, {Path: "/opt/x", SHA256: strings.ToLower(hash)}},
		Users:         []EndpointUser{{"bob", "bobs"}}, Policy: at("read-only.json"), PolicyARNs: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"},
		Metadata: Metadata{InstanceID: "i-0123456789abcdef0", MAC: "0a:00:00:00:00:01", Tags: map[string]string{"Name": "my box", "env": "dev"},
			UserDataFile: filepath.Join(home, "user-data"), SecurityGroups: []string{"default"}},
		key: "endpoint[1]"}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("endpoint:\n%+v, want\n%+v", e, want)
	}
	r := s.ProfileRules[0]
	if !r.Protected || r.SessionPolicy != at("prod.json") || len(r.SessionPolicyARNs) != 1 || r.AllowGroups != nil || r.AllowPrograms != nil {
		t.Errorf("rule: %+v", r)
	}
	if err := s.Bad(e.Key()+".policy", "", "it is not JSON"); err.File != file || err.Line != 13 {
		t.Errorf("the place of what is found later: %v", err)
	}
}

// TestTLS: the paths are relative to the file; plain http to unidentified
// callers is for addresses alone that stay on the machine.
func TestTLS(t *testing.T) {
	text := "[[endpoint]]\nkind = 'container'\nlisten = '172.17.0.1:443'\nallow_unidentified = true\ntls_cert = 'tls/cert.pem'\ntls_key = '/k.pem'\n" +
		"[[endpoint]]\nkind = 'container'\nlisten = '172.17.0.1:80'\n"
	for _, listen := range []string{"127.9.9.9:1", "localhost:2", "[::1]:3", "169.254.170.2:80", "169.254.170.23:80", "[fd00:ec2::23]:80", "[fe80::1]:4"} {
		text += "[[endpoint]]\nkind = 'container'\nlisten = '" + listen + "'\nallow_unidentified = true\n"
	}
	file := writeConfig(t, text)
	getenv, _ := env(t, map[string]string{"KEYFOB_CONFIG": file})
	s, err := Load(Flags{}, getenv)
	if err != nil {
		t.Fatal(err)
	}
	if e := s.Endpoints[0]; e.TLSCert != filepath.Join(filepath.Dir(file), "tls", "cert.pem") || filepath.Base(e.TLSKey) != "k.pem" || !filepath.IsAbs(e.TLSKey) {
		t.Errorf("the endpoint is %+v", e)
	}
	if len(s.Endpoints) != 9 {
		t.Errorf("%d endpoints", len(s.Endpoints))
	}
}

func TestRulesAndDefaultProfile(t *testing.T) {
	file := writeConfig(t, "default_profile = 'app'\n[[profile]]\nname = 'prod-*'\nallow_users = ['alice']\n[[endpoint]]\nkind = 'imds'\nlisten = '127.0.0.1:9911'\n")
	getenv, _ := env(t, map[string]string{"KEYFOB_CONFIG": file})
	s, err := Load(Flags{}, getenv)
	if err != nil {
		t.Fatal(err)
	}
	if s.Profile != "app" || len(s.ProfileRules) != 1 || s.ProfileRules[0].AllowUsers[0] != "alice" || s.Endpoints[0].Profile != "app" {
		t.Errorf("settings: %+v", s)
	}
	s, err = Load(Flags{IMDS: "127.0.0.1:1234", Profile: "p"}, getenv)
	if err != nil || len(s.Endpoints) != 1 || s.Endpoints[0].Listen != "127.0.0.1:1234" || s.Endpoints[0].Profile != "p" {
		t.Errorf("--imds: %+v, %v", s, err)
	}
}

func TestSocketPath(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("pipes have no path limit")
	}
	long := "/" + strings.Repeat("d", 120)
	getenv, _ := env(t, map[string]string{"XDG_RUNTIME_DIR": long, "KEYFOB_DATA_DIR": "/short"})
	s, err := Load(Flags{}, getenv)
	if err != nil || s.Socket != "/short/keyfob.sock" {
		t.Errorf("a long runtime directory: %v, %v", s, err)
	}
	getenv, _ = env(t, map[string]string{"KEYFOB_DATA_DIR": long})
	if _, err = Load(Flags{}, getenv); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("a long data directory: %v", err)
	}
	if _, err = Load(Flags{Socket: long}, getenv); err == nil || !strings.Contains(err.Error(), long) {
		t.Errorf("a long socket: %v", err)
	}
}

// TestSystemPlaces: the machine's daemon has the machine's places, whoever
// starts it.
func TestSystemPlaces(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the places of Linux")
	}
	creds := t.TempDir()
	getenv, home := env(t, map[string]string{"XDG_CONFIG_HOME": "/home/x", "XDG_DATA_HOME": "/home/x", "XDG_RUNTIME_DIR": "/run/user/1", "CREDENTIALS_DIRECTORY": creds})
	s, err := Load(Flags{System: true}, getenv)
	if err != nil {
		t.Skipf("this machine has settings of its own: %v", err)
	}
	if s.DataDir != "/var/lib/keyfob" || s.ConfigFile != "/etc/keyfob/config.toml" || s.Socket != "/run/keyfob/keyfob.sock" || s.Socket != s.SystemSocket ||
		s.AWSConfigFile != "/etc/keyfob/aws/config" || s.AWSCredentials != "/etc/keyfob/aws/credentials" || s.ProfilesFile != "/etc/keyfob/profiles" || s.Keystore != "passphrase" || s.PassphraseFile != "" {
		t.Errorf("%+v", s)
	}
	for _, name := range []string{"passphrase", "keyfob.passphrase"} {
		if err := os.WriteFile(filepath.Join(creds, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err = Load(Flags{System: true}, getenv); err != nil || s.PassphraseFile != filepath.Join(creds, name) {
			t.Errorf("%+v, %v", s, err)
		}
	}
	if s, err = Load(Flags{}, getenv); err != nil || s.PassphraseFile != "" || s.Keystore != "auto" {
		t.Errorf("a person's: %+v, %v", s, err)
	}
	s, err = Load(Flags{System: true, DataDir: "/a", Socket: "/b/s", Config: writeConfig(t, "[system]\nadmin_users = ['alice']\nallow_sign_ins = true\n[tpm]\ndevice = '/dev/tpm7'\n[audit]\nsyslog = 'udp://[::1]:514'\notlp = 'https://c/v1/logs'\njournal = true\n")}, getenv)
	if err != nil || s.DataDir != "/a" || s.Socket != "/b/s" || !s.Machine.AllowSignIns || s.Machine.AllowProcesses || s.TPMDevice != "/dev/tpm7" || s.Audit != (Audit{Journal: true, Syslog: "udp://[::1]:514", OTLP: "https://c/v1/logs"}) {
		t.Errorf("by flags: %+v, %v", s, err)
	}
	_ = home
}

// TestCheckTellsAll: unknown settings, values and places of all kinds, by line.
func TestCheckTellsAll(t *testing.T) {
	file := writeConfig(t, "keystroke = 'pass'\nidle_exit = 'soon'\nnothing = 1\n[[endpoint]]\nkind = 'ftp'\nlisten = '0.0.0.0:1'\nhosts = ['a b']\nallow_programs = ['x', 3]\n[endpoint.metadata]\nmac = 'x'\nregion = 'y'\n"+
		"[[profile]]\nprotected = true\n[audit]\nsyslog = 'x'\notlp = 'y'\nkeep = 0\n[metrics]\nlisten = 'x'\n[system]\nadmin_users = ['']\n")
	getenv, _ := env(t, map[string]string{"KEYFOB_CONFIG": file, "KEYFOB_INTERACTIVE": "sometimes"})
	_, errs := Check(Flags{}, getenv)
	var lines []int
	for _, e := range errs {
		lines = append(lines, e.Line)
		if e.File == "" && !strings.Contains(e.Message, "KEYFOB_INTERACTIVE") || e.Message == "" {
			t.Errorf("%+v", e)
		}
	}
	want := []int{0, 1, 2, 3, 5, 6, 7, 8, 8, 10, 11, 12, 15, 16, 17, 19, 21}
	if !reflect.DeepEqual(lines, want) {
		t.Errorf("lines %v, want %v: %v", lines, want, errs)
	}
	if _, err := Load(Flags{}, getenv); err == nil {
		t.Error("Load takes them")
	}
	file = writeConfig(t, "data_dir = 3\nkeystroke = 1\n")
	getenv, _ = env(t, map[string]string{"KEYFOB_CONFIG": file})
	if _, errs = Check(Flags{}, getenv); len(errs) == 0 {
		t.Error("a value of the wrong kind is taken")
	}
}
