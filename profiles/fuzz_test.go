package profiles

import (
	"encoding/json"
	"strings"
	"testing"
)

// grammarSeeds are texts for the fuzzers, made in code so that a change of
// the grammar's cases changes them too.
func grammarSeeds() []string {
	var seeds []string
	for _, c := range grammarCases {
		seeds = append(seeds, c.config)
	}
	for _, c := range resolveCases {
		for _, text := range []string{c.config, c.credentials, c.keyfob} {
			if text != "" {
				seeds = append(seeds, text)
			}
		}
	}
	for _, c := range sdkDifferences {
		seeds = append(seeds, c.config)
	}
	return append(seeds, "", "\r", "\n", "[", "]", "=", "\ufeff", "[a]\nx=\n =\n", "[profile default]\n[default]\n", "[\"", "[profile '\n", " \t\n")
}

func TestSeeds(t *testing.T) {
	if n := len(grammarSeeds()); n < 150 {
		t.Errorf("%d seeds: the fuzzers start from too little", n)
	}
}

// checkParse holds for every text: places are inside it, every profile of a
// broken file carries its error, a profile resolves and explains without a
// secret, and a text that is good has one reading only.
func checkParse(t *testing.T, text string) {
	lines := strings.Count(text, "\n") + 1
	for _, kind := range []OriginKind{FromConfig, FromCredentials} {
		g := configGrammar
		if kind == FromCredentials {
			g = credentialsGrammar
		}
		f := &file{kind: kind, path: "/f", exists: true}
		f.parse(text, g)
		if f.err != nil && (f.err.Line < 1 || f.err.Line > lines) {
			t.Fatalf("the error is in line %d of %d", f.err.Line, lines)
		}
		for _, m := range []map[string]*section{f.profiles, f.sessions, f.services} {
			for name, s := range m {
				if name == "" || len(s.headers) == 0 {
					t.Fatalf("section %q without name or header", name)
				}
				for _, p := range s.props {
					if p.key == "" || p.key != strings.ToLower(p.key) || int(p.line) < 1 || int(p.line) > lines || p.value != "" && p.block != nil {
						t.Fatalf("property %+v of %d lines", p, lines)
					}
				}
			}
		}
		set := &Set{files: [3]*file{{kind: FromKeyfob}, {kind: FromCredentials}, {kind: FromConfig}}}
		if kind == FromConfig {
			set.files[2] = f
		} else {
			set.files[1] = f
		}
		for i, name := range set.Names() {
			if i > 20 {
				break
			}
			p, err := set.Resolve(byFlag(name))
			if err != nil {
				t.Fatalf("a listed profile is unknown: %v", err)
			}
			if f.err != nil && p.Err == nil {
				t.Fatal("a profile of a broken file works")
			}
			if p.Err == nil && len(p.Chain) == 0 {
				t.Fatal("no chain and no error")
			}
			if _, err := json.Marshal(p.Explain()); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"aws_secret_access_key", "aws_session_token"} {
				if s, ok := p.Get(name); ok && s.Value != "" && s.Value != Redacted {
					t.Fatalf("%s shows %q", name, s.Value)
				}
			}
			_ = p.ConfigLines()
		}
	}
	next, at := 0, 0
	lex(text, configGrammar, func(tok *token) {
		at++
		if tok.line != at || tok.start != next || tok.end <= tok.start || tok.valStart > tok.valEnd || tok.valEnd > tok.end {
			t.Fatalf("token %+v after byte %d", *tok, next)
		}
		if tok.kind == lineProperty && text[tok.valStart:tok.valEnd] != tok.value {
			t.Fatalf("value %q stands as %q", tok.value, text[tok.valStart:tok.valEnd])
		}
		next = tok.end
	})
	if rest := text[next:]; rest != "" && rest != byteOrderMark {
		t.Fatalf("%q belongs to no line", rest)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range grammarSeeds() {
		f.Add(s)
	}
	f.Fuzz(checkParse)
}

func FuzzEdit(f *testing.F) {
	for i, s := range grammarSeeds() {
		f.Add(s, editSections[i%len(editSections)], editKeys[i%len(editKeys)], editValues[i%len(editValues)], i%5 == 0)
		f.Add(s, "profile a", "region", "new", false)
	}
	f.Fuzz(func(t *testing.T, text, section, key, value string, remove bool) {
		checkEdit(t, text, Edit{Section: section, Key: key, Value: value, Delete: remove})
	})
}

func FuzzProgram(f *testing.F) {
	for _, s := range []string{"keyfob", "env -i A=b 'keyfob' x", `"\`, "'", "A=b", "env -S ''", "env env env", `\`, "; keyfob", "exec exec"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		_ = programOf(line, false)
		_ = programOf(line, true)
	})
}
