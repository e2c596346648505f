package profiles

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	testID     = "AKIATESTTESTTESTTEST"
	testSecret = "canarySecretAccessKeyThatNobodyMaySee000"
	testToken  = "canarySessionTokenThatNobodyMaySee"
	testRole   = "arn:aws:iam::123456789012:role/app"
	testMFA    = "arn:aws:iam::123456789012:mfa/alice"
)

// pair is a key pair as lines of a section.
const pair = "aws_access_key_id = " + testID + "\naws_secret_access_key = " + testSecret + "\n"

// world is what a test's Set is made of.
type world struct {
	config, credentials, keyfob string
	env                         map[string]string
	vault                       map[string]VaultKey
	home                        string
	self                        []string
}

// load writes the files that are not empty and loads them.
func (w world) load(t testing.TB) (*Set, string) {
	t.Helper()
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	return Load(Input{
		ConfigFile: put("config", w.config), CredentialsFile: put("credentials", w.credentials), KeyfobFile: put("profiles", w.keyfob),
		Env: w.env, Vault: w.vault, Home: w.home, Self: w.self,
	}), dir
}

// byFlag is a query that names the profile by a flag.
func byFlag(name string) Query {
	return Query{Profile: name, ProfileOrigin: Origin{Kind: FromFlag, Name: "--profile"}}
}

func (w world) resolve(t testing.TB, q Query) *Profile {
	t.Helper()
	s, _ := w.load(t)
	return mustResolve(t, s, q)
}

func mustResolve(t testing.TB, s *Set, q Query) *Profile {
	t.Helper()
	p, err := s.Resolve(q)
	if err != nil {
		t.Fatalf("Resolve(%q): %v", q.Profile, err)
	}
	return p
}

// chainOf is a chain in one line: kind(profile) -> …
func chainOf(p *Profile) string {
	var parts []string
	for _, l := range p.Chain {
		parts = append(parts, fmt.Sprintf("%s(%s)", l.Kind, l.Profile))
	}
	return strings.Join(parts, " -> ")
}

// at is an origin in one word: base name of the file, line.
func at(o Origin) string {
	if o.File == "" {
		return string(o.Kind) + " " + o.Name
	}
	return fmt.Sprintf("%s:%d", filepath.Base(o.File), o.Line)
}

// settingLine is a setting in one line: value @ origin < shadow @ origin …
func settingLine(p *Profile, name string) string {
	s, ok := p.Get(name)
	if !ok {
		return "none"
	}
	line := s.Value + " @ " + at(s.Origin)
	for _, h := range s.Shadows {
		line += " < " + h.Value + " @ " + at(h.Origin)
	}
	return line
}
