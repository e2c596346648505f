//go:build !windows

package cli

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// There may be no PowerShell where these tests run, so that what is written
// for it is read back by its grammar (PowerShell Language Specification,
// 2.3.5.2.1, verbatim string literals): such a string ends at the first of
// five single-quote characters that is not doubled, and nothing else in it
// means anything. Of two that follow one another the second is the character.

func isSingleQuote(r rune) bool { return strings.ContainsRune("'\u2018\u2019\u201a\u201b", r) }

// verbatim reads a verbatim string that text begins with, and returns what
// stands behind it.
func verbatim(text string) (value, rest string, ok bool) {
	runes := []rune(text)
	if len(runes) == 0 || !isSingleQuote(runes[0]) {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(runes); i++ {
		if isSingleQuote(runes[i]) {
			if i+1 == len(runes) || !isSingleQuote(runes[i+1]) {
				return b.String(), string(runes[i+1:]), true
			}
			i++
		}
		b.WriteRune(runes[i])
	}
	return "", "", false
}

func TestVerbatim(t *testing.T) {
	for text, want := range map[string][2]string{
		"'a''b' c": {"a'b", " c"}, "'a\u2019\u2019b'": {"a\u2019b", ""}, "'a\u2019;x": {"a", ";x"}, "\u2018a'": {"a", ""}, "'$(x)`n\"'": {"$(x)`n\"", ""},
	} {
		if value, rest, ok := verbatim(text); !ok || value != want[0] || rest != want[1] {
			t.Errorf("%s: %q %q %v", text, value, rest, ok)
		}
	}
}

func TestPowerShellQuoting(t *testing.T) {
	print, _ := shellPrinter("powershell")
	check := func(fail func(string, ...any), value string) {
		text, err := print([]variable{{"X", value}, {"Y", ""}})
		if strings.ContainsAny(value, "\r\n\x00") {
			if err == nil {
				fail("%q is printed, and each line of it would be run", value)
			}
			return
		}
		literal, ok := strings.CutPrefix(text, "$Env:X = ")
		if value == "" || err != nil || !ok {
			fail("%q: %v %q", value, err, text)
			return
		}
		got, rest, ok := verbatim(literal)
		if !ok || got != value || rest != "\nRemove-Item -ErrorAction SilentlyContinue Env:Y\n" {
			fail("PowerShell reads %q as %q, and then %q", value, got, rest)
		}
	}
	for _, value := range append(hostile, "\u2018", "\u2019\u2019", "\u201a;calc", "\u201b'\u2018", "'\u2019", "`'", "@'", "'@") {
		check(t.Errorf, value)
	}
	rapid.Check(t, func(t *rapid.T) {
		check(t.Fatalf, rapid.StringOfN(rapid.RuneFrom([]rune("ab '\"`$;|&(){}@#\\\u2018\u2019\u201a\u201b\u201c\u201d\n")), 1, 12, -1).Draw(t, "value"))
	})
}

// The completion script hands on what keyfob prints: a name that PowerShell
// would act on is quoted by PowerShell's own function, and nothing of the
// script's is left open.
func TestPowerShellCompletionScript(t *testing.T) {
	var open []rune
	for rest := powershellCompletion; rest != ""; {
		r := []rune(rest)[0]
		switch {
		case r == '#':
			_, rest, _ = strings.Cut(rest, "\n")
			continue
		case r == '"': // none of ours has an escape in it
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				t.Fatalf("a string is open: %s", rest)
			}
			rest = rest[end+2:]
			continue
		case isSingleQuote(r):
			_, after, ok := verbatim(rest)
			if !ok {
				t.Fatalf("a string is open: %s", rest)
			}
			rest = after
			continue
		case strings.ContainsRune("({[", r):
			open = append(open, r)
		case strings.ContainsRune(")}]", r):
			if len(open) == 0 || strings.IndexRune("({[", open[len(open)-1]) != strings.IndexRune(")}]", r) {
				t.Fatalf("%c closes nothing: %s", r, rest)
			}
			open = open[:len(open)-1]
		}
		rest = rest[len(string(r)):]
	}
	if len(open) > 0 {
		t.Fatalf("%q is open at the end", string(open))
	}
	pattern := regexp.MustCompile(`-notmatch '([^']+)'`).FindStringSubmatch(powershellCompletion)
	if pattern == nil || !strings.Contains(powershellCompletion, "EscapeSingleQuotedStringContent($name)") {
		t.Fatal("names are not quoted")
	}
	plain := regexp.MustCompile(pattern[1])
	for _, name := range append(hostile, "a b", "a,b", "@x", "a`b", "{x}", "(x)", "a|b", "<x>") {
		if plain.MatchString(name) && name != "-n" {
			t.Errorf("%q is inserted as it is", name)
		}
	}
	for _, name := range []string{"prod", "--keystore=pass", "a.b/c:d+e_f-1"} {
		if !plain.MatchString(name) {
			t.Errorf("%q is quoted without need", name)
		}
	}
}
