package profiles

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// grammarCases: a config file, and what the profile "a" then is.
var grammarCases = []struct {
	name, config string
	want         map[string]string // setting -> value; "-" for none
	err          string            // "LINE: text", "" for none
	warn         string            // part of a warning, "" for no warning at all
}{
	{name: "plain", config: "[profile a]\nregion = eu-west-1\n", want: map[string]string{"region": "eu-west-1"}},
	{name: "no blanks", config: "[profile a]\nregion=eu-west-1", want: map[string]string{"region": "eu-west-1"}},
	{name: "keys are lower case", config: "[profile a]\nReGion = X\n", want: map[string]string{"region": "X"}},
	{name: "blanks around everything", config: "[ \tprofile \t a \t]\t\nregion\t =\t x y \t\n", want: map[string]string{"region": "x y"}},
	{name: "equals signs in a value", config: "[profile a]\nx = a=b = c\n", want: map[string]string{"x": "a=b = c"}},
	{name: "unicode in a value", config: "[profile a]\nx = żółw 🐢\n", want: map[string]string{"x": "żółw 🐢"}},
	{name: "quotes stay", config: "[profile a]\nx = \"v\"\ny = 'v'\n", want: map[string]string{"x": `"v"`, "y": "'v'"}},
	{name: "byte-order mark", config: "\ufeff[profile a]\nx = 1\n", want: map[string]string{"x": "1"}},
	{name: "CRLF", config: "[profile a]\r\nx = 1\r\n  2\r\ny =\r\n  z = 3\r\n", want: map[string]string{"x": "1\n2", "y.z": "3"}},
	{name: "comments at the start of a line", config: "# c\n; d = e\n[profile a]\n#x = 1\n;y = 2\nz = 3\n", want: map[string]string{"x": "-", "y": "-", "z": "3"}},
	{name: "comments after white space", config: "[profile a] # c\nx = 1 # c\ny = 2\t; c\nz = 3 ;\n", want: map[string]string{"x": "1", "y": "2", "z": "3"}},
	{name: "a comment right after the header", config: "[profile a]; c\nx = 1\n", want: map[string]string{"x": "1"}},
	{name: "no comment without white space", config: "[profile a]\nx = 1;2\ny = a#b\nz =#v\n", want: map[string]string{"x": "1;2", "y": "a#b", "z": "#v"}},
	{name: "a comment alone makes an empty value", config: "[profile a]\nx = # c\n", want: map[string]string{"x": ""}},
	{name: "continuations", config: "[profile a]\nx = 1\n  2\n\t3 = 4\n", want: map[string]string{"x": "1\n2\n3 = 4"}},
	{name: "blank lines and comments do not end a value", config: "[profile a]\nx = 1\n\n# c\n   \n  2\n", want: map[string]string{"x": "1\n2"}},
	{name: "an indented comment continues a value", config: "[profile a]\nx = 1\n  # c\n  ; d\n", want: map[string]string{"x": "1\n# c\n; d"}},
	{name: "comments in continuations stay", config: "[profile a]\nx = 1\n  2 # c\n", want: map[string]string{"x": "1\n2 # c"}},
	{name: "an indented comment with nothing to continue is a comment", config: "  # c\n[profile a]\n  ; d\nx =\n  # e\ny = 1\n", want: map[string]string{"x": "", "y": "1"}},
	{name: "sub-properties", config: "[profile a]\ns3 =\n  Addressing_Style = path\n\n# c\n  # d\n  x=y=z\n  e =\n", want: map[string]string{"s3": "-", "s3.addressing_style": "path", "s3.x": "y=z", "s3.e": ""}},
	{name: "comments after sub-properties stay", config: "[profile a]\ns3 =\n  x = y # c\n", want: map[string]string{"s3.x": "y # c"}},
	{name: "sub-properties below a comment", config: "[profile a]\ns3 = # c\n  x = y\n", want: map[string]string{"s3.x": "y"}},
	{name: "an empty value", config: "[profile a]\nx =\ny = \n", want: map[string]string{"x": "", "y": ""}},
	{name: "the last key wins", config: "[profile a]\nx = 1\nx = 2\n", want: map[string]string{"x": "2"}},
	{name: "sections merge", config: "[profile a]\nx = 1\ny = 1\n[profile b]\nx = 9\n[profile  a]\nx = 2\n", want: map[string]string{"x": "2", "y": "1"}},
	{name: "a later block replaces an earlier one whole", config: "[profile a]\ns =\n  x = 1\n  y = 1\ns =\n  x = 2\n", want: map[string]string{"s.x": "2", "s.y": "-"}, warn: "config:4: s.y is not used"},
	{name: "all characters of names", config: "[profile b]\n[profile a]\na_-/.%@:+9 = 1\n", want: map[string]string{"a_-/.%@:+9": "1"}},
	{name: "letters outside ASCII in a key", config: "[profile a]\nschlüssel = 1\n", want: map[string]string{"schlüssel": "1"}},
	{name: "nothing follows", config: "[profile a]", want: map[string]string{}},

	{name: "a key outside the grammar is skipped, and what continues it", config: "[profile a]\nx y = 1\n  2\nin$valid = 1\nz = 3\n", want: map[string]string{"x y": "-", "in$valid": "-", "z": "3"}, warn: "config:2: the name of this setting"},
	{name: "a sub-key outside the grammar is skipped", config: "[profile a]\ns =\n  b c = 1\n  d = 2\n", want: map[string]string{"s.d": "2"}, warn: "config:3:"},
	{name: "a section outside the grammar is skipped, and leaks nothing", config: "[profile a]\nx = 1\n[profile a#b]\nx = 2\ny = 2\n", want: map[string]string{"x": "1", "y": "-"}, warn: "config:3: the name in [profile a#b]"},
	{name: "two words without quotes are outside the grammar", config: "[profile a]\nx = 1\n[profile a b]\nx = 2\n", want: map[string]string{"x": "1"}, warn: "config:3: the name in [profile a b]"},
	{name: "a profile without profile", config: "[profile a]\nx = 1\n[a]\nx = 2\n", want: map[string]string{"x": "1"}, warn: "config:3: [a] without `profile`"},
	{name: "an unknown kind of section", config: "[profile a]\nx = 1\n[thing a]\nx = 2\n", want: map[string]string{"x": "1"}, warn: "config:3: [thing a]"},
	{name: "the CLI's own sections", config: "[plugins]\nx = 1\n[profile a]\n[preview]\nx = 2\n", want: map[string]string{"x": "-"}},
	{name: "a header in a continuation is told", config: "[profile a]\nx = 1\n  [profile b]\n", want: map[string]string{"x": "1\n[profile b]"}, warn: "config:3: this line is indented"},

	{name: "no equals sign", config: "[profile a]\nx = 1\nregion\n", want: map[string]string{"x": "1"}, err: "3: no `=`"},
	{name: "a colon", config: "[profile a]\nregion : x\n", err: "2: a setting is written with `=`"},
	{name: "a colon without blanks", config: "[profile a]\nregion:x\n", err: "2: a setting is written with `=`"},
	{name: "a colon before an equals sign", config: "[profile a]\ncredential_process : x --y=z\n", err: "2: a setting is written with `=`"},
	{name: "a colon inside a name", config: "[profile a]\na:b = c\n", want: map[string]string{"a:b": "c"}},
	{name: "no closing bracket", config: "[profile a]\nx = 1\n[profile b\nx = 2\n", want: map[string]string{"x": "1"}, err: "3: no `]`"},
	{name: "text after the bracket", config: "[profile a]\nx = 1\n[profile b] c\n", err: "3: text after `]`"},
	{name: "before any section", config: "\nx = 1\n[profile a]\n", err: "2: a property before any section"},
	{name: "indented with nothing to continue", config: "[profile a]\n  x = 1\n", want: map[string]string{"x": "-"}, err: "2: an indented line with nothing to continue"},
	{name: "indented before any section", config: "  [profile a]\n[profile a]\n", err: "1: an indented line with nothing to continue"},
	{name: "a continuation does not reach over a header", config: "[profile a]\nx = 1\n[profile a]\n  2\n", want: map[string]string{"x": "1"}, err: "4: an indented line"},
	{name: "an empty key", config: "[profile a]\n= 1\n", err: "2: an empty name"},
	{name: "an empty section", config: "[profile a]\n[]\n", err: "2: an empty name"},
	{name: "an empty profile", config: "[profile a]\n[profile ]\n", err: "2: an empty name"},
	{name: "an empty quoted profile", config: "[profile a]\n[profile \" \"]\n", err: "2: an empty name"},
	{name: "an empty sso-session", config: "[profile a]\n[sso-session]\n", err: "2: an empty name"},
	{name: "a sub-property without an equals sign", config: "[profile a]\ns =\n  x\n", err: "3: no `=`"},
	{name: "NUL", config: "[profile a]\nx = 1\ny = \x00\n", want: map[string]string{"x": "1", "y": "-"}, err: "3: a NUL byte"},
	{name: "not UTF-8", config: "[profile a]\n# \xff\n", err: "2: not UTF-8"},
	{name: "UTF-16", config: "\xff\xfe[\x00a\x00]\x00\n[profile a]\n", err: "1: a NUL byte"},
	{name: "the first error is told", config: "[profile a]\nx\ny\n", err: "2: no `=`"},
}

func TestGrammar(t *testing.T) {
	for _, c := range grammarCases {
		t.Run(c.name, func(t *testing.T) {
			s, dir := world{config: c.config}.load(t)
			p := mustResolve(t, s, byFlag("a"))
			for name, want := range c.want {
				got, ok := p.Get(name)
				if !ok {
					got.Value = "-"
				}
				if got.Value != want {
					t.Errorf("%s is %q, want %q", name, got.Value, want)
				}
			}
			path := filepath.Join(dir, "config")
			if c.err == "" {
				if s.Err() != nil {
					t.Fatalf("unexpected error of the file: %v", s.Err())
				}
			} else {
				if p.Err == nil || !strings.Contains(p.Err.Error(), path+":"+c.err) {
					t.Fatalf("error is %v, want %s:%s", p.Err, path, c.err)
				}
				if line, _, _ := strings.Cut(c.err, ":"); p.Err.File != path || fmt.Sprint(p.Err.Line) != line {
					t.Errorf("place of the error is %s:%d", p.Err.File, p.Err.Line)
				}
				if s.Err() != p.Err {
					t.Errorf("Set.Err is %v", s.Err())
				}
			}
			all := strings.Join(p.Warnings, "\n")
			if c.warn == "" && all != "" || !strings.Contains(all, c.warn) {
				t.Errorf("warnings are %q, want %q", all, c.warn)
			}
		})
	}
}

func TestQuotedAndForeignNames(t *testing.T) {
	s, _ := world{
		config:      "[profile \"a b\"]\nregion = 1\n[profile 'c d']\nregion = 2\n[profile größe]\nregion = 3\n[profile \"x]y\"]\nregion = 4\n",
		credentials: "[\"e f\"]\n" + pair + "[profile z]\n" + pair + "[q$r]\n" + pair,
	}.load(t)
	want := "a b,c d,e f,größe,x]y"
	if got := strings.Join(s.Names(), ","); got != want {
		t.Fatalf("names are %s, want %s", got, want)
	}
	for name, region := range map[string]string{"a b": "1", "c d": "2", "größe": "3", "x]y": "4"} {
		if p := mustResolve(t, s, byFlag(name)); p.Region != region {
			t.Errorf("region of %s is %q", name, p.Region)
		}
	}
	p := mustResolve(t, s, byFlag("a b"))
	if all := strings.Join(p.Warnings, "\n"); !strings.Contains(all, "credentials:4: [profile z]") || !strings.Contains(all, "credentials:7: the name in [q$r]") {
		t.Errorf("warnings are %s", all)
	}
}

func TestDefaultHidesBareDefault(t *testing.T) {
	for name, config := range map[string]string{
		"bare first": "[default]\nregion = bare\nonly = bare\n[profile default]\nregion = prefixed\n",
		"bare last":  "[profile default]\nregion = prefixed\n[default]\nregion = bare\nonly = bare\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := world{config: config}.resolve(t, byFlag("default"))
			s, _ := p.Get("region")
			if s.Value != "prefixed" || s.Origin.Name != "[profile default]" || len(s.Shadows) != 1 || s.Shadows[0].Value != "bare" || s.Shadows[0].Origin.Name != "[default]" {
				t.Errorf("region is %+v", s)
			}
			if _, ok := p.Get("only"); ok {
				t.Error("a key of the hidden [default] is used")
			}
			if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "only in [default] is not used") {
				t.Errorf("warnings are %v", p.Warnings)
			}
		})
	}
}

func TestFilesMissingAndUnreadable(t *testing.T) {
	dir := t.TempDir()
	creds := filepath.Join(dir, "credentials")
	if err := os.WriteFile(creds, []byte("[a]\n"+pair), 0o600); err != nil {
		t.Fatal(err)
	}
	in := Input{ConfigFile: filepath.Join(dir, "none", "config"), CredentialsFile: creds, KeyfobFile: ""}
	s := Load(in)
	if s.Err() != nil {
		t.Fatalf("a missing file is an error: %v", s.Err())
	}
	if p := mustResolve(t, s, byFlag("a")); p.Err != nil {
		t.Fatal(p.Err)
	}
	f := s.Files()
	if len(f) != 3 || f[0].Kind != FromConfig || f[0].Exists || f[1].Kind != FromCredentials || !f[1].Exists || f[2].Kind != FromKeyfob || f[2].Path != "" {
		t.Errorf("files are %+v", f)
	}

	in.ConfigFile = creds + "/config" // below a file: it can't exist
	if s := Load(in); s.Err() != nil {
		t.Errorf("a path below a file is an error: %v", s.Err())
	}

	in.ConfigFile = dir
	s = Load(in)
	if s.Err() == nil || !strings.Contains(s.Err().Error(), "cannot read "+dir) || s.Err().File != dir {
		t.Errorf("a directory: %v", s.Err())
	}
	if p := mustResolve(t, s, byFlag("a")); p.Err == nil || chainOf(p) != "static-keys(a) -> session-token(a)" {
		t.Errorf("a profile with an unreadable file: err %v, chain %s", p.Err, chainOf(p))
	}
	if p := mustResolve(t, s, byFlag("elsewhere")); p.Err == nil || p.Err.File != dir {
		t.Errorf("a profile that may stand in the unreadable file: %v", p.Err)
	}

	in.ConfigFile = os.DevNull
	if s := Load(in); s.Err() != nil {
		t.Errorf("the null device: %v", s.Err())
	}
	if runtime.GOOS != "windows" && os.Getuid() != 0 {
		locked := filepath.Join(dir, "locked")
		if err := os.WriteFile(locked, nil, 0); err != nil {
			t.Fatal(err)
		}
		in.ConfigFile = locked
		if s := Load(in); s.Err() == nil || !strings.Contains(s.Err().Error(), "permission denied") {
			t.Errorf("no permission: %v", s.Err())
		}
	}
	big := filepath.Join(dir, "big")
	h, err := os.Create(big)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Truncate(maxFileSize + 1); err != nil {
		t.Fatal(err)
	}
	h.Close()
	in.ConfigFile = big
	if s := Load(in); s.Err() == nil || !strings.Contains(s.Err().Error(), "larger than 16 MiB") {
		t.Errorf("a huge file: %v", s.Err())
	}
}

// An error of one file is the answer of that file's profiles, not of others.
func TestFileErrorBelongsToItsProfiles(t *testing.T) {
	w := world{
		config:      "[profile here]\nregion\n[sso-session s]\nsso_region = r\nsso_start_url = u\n",
		credentials: "[here]\n" + pair + "[there]\n" + pair,
		keyfob:      "[profile on]\nrole_arn = " + testRole + "\nsource_profile = here\n[profile sso]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n",
	}
	s, _ := w.load(t)
	for name, broken := range map[string]bool{"here": true, "there": false, "on": true, "sso": true} {
		if p := mustResolve(t, s, byFlag(name)); (p.Err != nil) != broken {
			t.Errorf("%s: error is %v", name, p.Err)
		}
	}
	// A name that nobody has may stand in the line that can't be read.
	if p, err := s.Resolve(byFlag("nobody")); err != nil || p.Err == nil {
		t.Errorf("nobody: %v, %v", p, err)
	}
}

func TestErrorsAndWarningsQuoteNoValues(t *testing.T) {
	for _, config := range []string{
		"[profile a]\naws_secret_access_key : " + testSecret + "\n",
		"[profile a]\n" + testSecret + "\n",
		"[profile a]\n" + testSecret + " x = y\n",
		"[profile a]\n" + testSecret + "\x00\n",
		"[profile a]\naws_secret_access_key = " + testSecret + "\n",
		"[profile a]\nduration_seconds = " + testSecret + "\nrole_arn = " + testRole + "\nsource_profile = a\n" + pair,
		"[profile a]\nmax_attempts = " + testSecret + "\n" + pair,
	} {
		p := world{config: config}.resolve(t, byFlag("a"))
		if p.Err != nil && strings.Contains(p.Err.Error(), testSecret) || strings.Contains(strings.Join(p.Warnings, ""), testSecret) {
			t.Errorf("%q: %v %v", config, p.Err, p.Warnings)
		}
	}
}
