//go:build !windows

package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// afterKeyfob are words that follow "keyfob" in sentences about it. A hint
// that names a command that is not there would begin with another one.
var afterKeyfob = []string{"endpoint", "is", "was", "and", "has", "does", "itself", "again", "alone", "hands", "keeps", "serves", "asks", "wrote", "by", "for", "in", "that", "to", "with",
	"from", "must", "can", "may", "speaks", "made", "before", "under", "runs", "as", "or", "it", "gives", "starts", "looks", "rotates", "not", "writes", "needs", "also", "reads",
	"would", "sees", "counts", "last", "signs", "did", "knows", "uses", "says", "sends", "waits", "tries", "can't",
	"command", "daemon", "profile", "profiles", "no", "on", "at", "of", "the", "service's"}

var mentioned = regexp.MustCompile(`(^|[^a-zA-Z0-9_./-])keyfob ([a-z][a-z' -]*)`)

// Every command and flag that a message of any of keyfob's programs speaks of
// is there.
func TestHintedCommandsExist(t *testing.T) {
	seen := 0
	sources(t, func(path, text string) {
		if strings.ContainsAny(text, "\x00") || strings.Contains(text, " v1") || strings.HasPrefix(text, "sc ") { // marks of records; a program of Windows
			return
		}
		for _, m := range mentioned.FindAllStringSubmatchIndex(text, -1) {
			words := strings.Fields(text[m[4]:m[5]])
			cmd := commandOf(words)
			switch {
			case cmd == nil && (slices.Contains(afterKeyfob, words[0]) || m[5] < len(text) && text[m[5]] == '%'):
			case cmd == nil:
				t.Errorf("%s: %q: there is no command keyfob %s", path, text, words[0])
			default:
				seen++
				rest := text[m[4]:]
				rest = rest[:len(rest)-len(strings.TrimLeft(rest, " "))] + firstLine(rest)
				for _, flag := range regexp.MustCompile(`--[a-z][a-z0-9-]*`).FindAllString(rest, -1) {
					if !hasFlag(cmd, flag[2:]) {
						t.Errorf("%s: %q: keyfob %s has no %s", path, text, cmd.name, flag)
					}
				}
			}
		}
	})
	if seen < 150 {
		t.Errorf("only %d mentions were found: this test proves nothing", seen)
	}
}

// firstLine is what of a text can belong to the command at its beginning: up
// to the next command, sentence or line.
func firstLine(text string) string {
	for _, end := range []string{"\n", "; ", ", ", ". ", " && ", " keyfob ", "`", "(", ")", ": "} {
		if i := strings.Index(text, end); i >= 0 {
			text = text[:i]
		}
	}
	return text
}

func commandOf(words []string) *command {
	all := commands()
	if len(words) > 1 {
		if c := find(all, words[0]+" "+words[1]); c != nil {
			return c
		}
	}
	if c := find(all, words[0]); c != nil {
		return c
	}
	if second := within(all, words[0]); len(second) > 0 && len(words) == 1 {
		return find(all, words[0]+" "+second[0])
	}
	return nil
}

// hasFlag reports whether a command has a flag, or one of those that share
// its first word: a hint may name them together.
func hasFlag(cmd *command, flag string) bool {
	first, _, _ := strings.Cut(cmd.name, " ")
	for _, c := range commands() {
		if word, _, _ := strings.Cut(c.name, " "); word == first && (&app{}).flagSet(c).Lookup(flag) != nil {
			return true
		}
	}
	return flag == "help" || flag == "version"
}

// sources calls see with each string of the programs' source.
func sources(t *testing.T, see func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if slices.Contains([]string{"testdata", ".git", "fakeaws", "packaging", "scripts", "docs", "e2e"}, name) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.SkipObjectResolution)
		if err != nil {
			return nil // somebody is just writing it: the compiler says so
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil {
					see(path, text)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
