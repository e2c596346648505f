package settings

import (
	"errors"
	"os"
	"path/filepath"
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
	for _, c := range []struct{ text, line, want string }{
		{"data_dir = '/x'\nkeystroke = 'pass'\n", ":2:", "keystroke"},
		{"[[endpoint]]\nkind = 'imds'\nlisten = '127.0.0.1:1'\nimdsv3 = true\n", ":4:", "imdsv3"},
		{"[[endpoint]]\nkind = 'imds'\nlisten = '127.0.0.1:1'\nallow_groups = ['x']\n", ":4:", "allow_groups"},
		{"[[profile]]\nname = 'x'\nprotect = true\n", ":3:", "protect"},
		{"data_dir = \n", ":1:", ""},
		{"data_dir = 3\n", ":1:", ""},
		{"[[endpoint]]\nkind = 'ftp'\nlisten = '127.0.0.1:1'\n", "", `"ftp"`},
		{"[[endpoint]]\nkind = 'imds'\nlisten = '0.0.0.0:80'\n", "", "every interface"},
		{"[[endpoint]]\nkind = 'imds'\nlisten = '127.0.0.1'\n", "", "no port"},
		{"interactive = 'sometimes'\n", "", "sometimes"},
		{"signin_timeout = 'soon'\n", "", "soon"},
		{"[keystore]\nbackend = 'file'\n", "", "file"},
	} {
		file := writeConfig(t, c.text)
		getenv, _ := env(t, map[string]string{"KEYFOB_CONFIG": file})
		_, err := Load(Flags{}, getenv)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: error %v", c.text, err)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || c.line != "" && !strings.Contains(err.Error(), file+c.line) {
			t.Errorf("%q: %v; want %s and %s", c.text, err, c.want, c.line)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: more than one line: %v", c.text, err)
		}
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
