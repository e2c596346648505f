package e2e

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// message is an error that the command itself words.
type message struct {
	at         string // FILE:LINE
	text, hint []string
}

// hole stands for what is known only at run time.
const hole = "\x00"

// makers are the functions that make such errors of their first argument, and
// whether the next one is the hint. Whatever else is given a text that begins
// with "cannot " makes one too.
var makers = map[string]bool{"failure": true, "usage": true, "person": true, "cannot": true, "noWay": false, "failed": false, "Errorf": false, "New": false}

var verb = regexp.MustCompile(`%[-+# 0-9.]*[a-zA-Z]`)

// words are the parts of a string expression that are fixed.
func words(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.BasicLit:
		if s, err := strconv.Unquote(x.Value); err == nil {
			return s
		}
	case *ast.BinaryExpr:
		if x.Op == token.ADD {
			return words(x.X) + words(x.Y)
		}
	case *ast.ParenExpr:
		return words(x.X)
	case *ast.CallExpr:
		if f, ok := x.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Sprintf" && len(x.Args) > 0 {
			return verb.ReplaceAllString(words(x.Args[0]), hole)
		}
	}
	return hole
}

// fixed splits at the holes and leaves out what is too short to be told from
// anything else.
func fixed(text string) []string {
	var parts []string
	for _, p := range strings.Split(text, hole) {
		if p = strings.TrimSpace(p); len(p) > 3 {
			parts = append(parts, p)
		}
	}
	return parts
}

// messagesOf reads them from the source of a package, for Linux.
func messagesOf(t *testing.T, dir string) []message {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var all []message
	set := token.NewFileSet()
	for _, file := range files {
		if name := filepath.Base(file); strings.HasSuffix(name, "_test.go") || strings.Contains(name, "_windows") || strings.Contains(name, "_darwin") {
			continue
		}
		tree, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok || len(c.Args) == 0 {
				return true
			}
			name := ""
			switch f := c.Fun.(type) {
			case *ast.Ident:
				name = f.Name
			case *ast.SelectorExpr:
				name = f.Sel.Name
			}
			hinted, made := makers[name]
			for i, arg := range c.Args {
				text := words(arg)
				if !(made && i == 0) && !strings.HasPrefix(text, "cannot ") || name == "Sprintf" || name == "HasPrefix" || strings.HasPrefix(name, "Trim") {
					continue
				}
				if name == "Errorf" {
					text = verb.ReplaceAllString(text, hole)
				}
				m := message{at: fmt.Sprintf("%s:%d", filepath.Base(file), set.Position(arg.Pos()).Line), text: fixed(text)}
				if (hinted || name == "confirm") && len(c.Args) > i+1 {
					m.hint = fixed(words(c.Args[i+1]))
				}
				if len(m.text) > 0 {
					all = append(all, m)
				}
			}
			return true
		})
	}
	return all
}

// has reports whether text has the parts, in order.
func has(text string, parts []string) bool {
	for _, p := range parts {
		i := strings.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return true
}

// asserted are the texts that the tests of internal/cli and of this package
// want to see on standard error or on a terminal: the scripts there run with a
// daemon that can be made to answer anything. One entry for each run.
func asserted(t *testing.T) []string {
	t.Helper()
	var all []string
	scripts, err := filepath.Glob("../cli/testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts of internal/cli", err)
	}
	for _, file := range scripts {
		run := ""
		for _, line := range strings.Split(read(t, file), "\n") {
			if pattern, ok := strings.CutPrefix(line, "stderr "); ok {
				run += unquoted(pattern) + "\n"
			} else if run != "" && (strings.HasPrefix(line, "code ") || line == "") {
				all, run = append(all, run), ""
			}
		}
		all = append(all, run)
	}
	for _, dir := range []string{"../cli", "."} {
		files, err := filepath.Glob(dir + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if filepath.Base(file) == "messages_linux_test.go" {
				continue // it names those that are left out
			}
			tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range tree.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				text := "" // of one test: a message and its hint may be two strings of it
				ast.Inspect(f, func(n ast.Node) bool {
					if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
						s, _ := strconv.Unquote(l.Value)
						text += s + "\n"
					}
					return true
				})
				all = append(all, text)
			}
		}
	}
	return all
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// unquoted is the text that a pattern of a script stands for, as far as it
// stands for one.
func unquoted(pattern string) string {
	pattern = strings.TrimSuffix(strings.TrimPrefix(pattern, "'"), "'")
	pattern = strings.ReplaceAll(pattern, "''", "'")
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '^', c == '$' && i == len(pattern)-1, c == '$' && i+1 < len(pattern) && pattern[i+1] == '\\':
		case c == '\\' && i+1 < len(pattern):
			if i++; pattern[i] == 'n' {
				b.WriteByte('\n')
			} else {
				b.WriteByte(pattern[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// everyMessageShown fails for a message of internal/cli that no test provokes
// with its hint and that is not in unprovoked; and for one that is there and need
// not be.
func everyMessageShown(t *testing.T, runs []ran) {
	var shown []string
	for _, x := range runs {
		shown = append(shown, x.err)
	}
	if _, err := os.Stat("/run/keyfob/keyfob.sock"); err == nil { // start.txtar was answered
		shown = append(shown, "the machine's keyfobd is not running, keyfob service start --system")
	}
	scripts := len(shown)
	shown = append(shown, asserted(t)...)
	all := messagesOf(t, "../cli")
	if len(all) < 150 {
		t.Fatalf("only %d messages were found", len(all))
	}
	here, left := 0, map[string]bool{}
	for _, m := range all {
		key := strings.Join(m.text, " … ")
		found, hinted := -1, false
		for i, text := range shown {
			if has(text, m.text) {
				if found < 0 {
					found = i
				}
				if has(text, m.hint) {
					hinted = true
					break
				}
			}
		}
		why, listed := unprovoked[key]
		left[key] = true
		switch {
		case found >= 0 && found < scripts:
			here++
		}
		switch {
		case found < 0 && !listed:
			t.Errorf("%s: no test provokes %q", m.at, key)
		case found < 0 && why == "":
			t.Errorf("%s: %q is left out without a reason", m.at, key)
		case found >= 0 && listed:
			t.Errorf("%s: %q is provoked: take it out of the list", m.at, key)
		case found >= 0 && !hinted:
			t.Errorf("%s: no test shows the hint %q of %q", m.at, m.hint, key)
		}
	}
	for key := range unprovoked {
		if !left[key] {
			t.Errorf("internal/cli has no message %q: take it out of the list", key)
		}
	}
	t.Logf("%d messages of the command: %d shown with real programs, %d by tests with a daemon that answers what it is told, %d not", len(all), here, len(all)-here-len(unprovoked), len(unprovoked))
}

// unprovoked are messages that no test causes, with the reason. The list only
// shrinks: whoever adds a message adds its test.
var unprovoked = map[string]string{
	// Not said to anybody.
	"help is wanted":                              "decides that the help is printed",
	"it is no list of numbers":                    "decides that a text is looked for",
	"there is no terminal to ask on":              "each command says it in its own words",
	"cannot ask: there is nothing to choose from": "nobody asks with an empty list",

	// What only a daemon could say that is not of this release.
	"cannot read an entry of the audit log: it is not of this version": "the daemon answers with entries that it wrote",
	"keyfobd's answer has no end":                                      "the daemon's pages end",
	"keyfobd's answer holds no credentials":                            "the daemon answers with credentials or an error",
	"its address has characters that an address can't have":            "the daemon makes addresses that are some",
	"cannot show the sign-in page:":                                    "the daemon makes addresses that are some",
	"cannot open the identity provider's page:":                        "the daemon checks saml_url",
	"cannot ask for a choice: there is nothing to choose from":         "the daemon asks for one of several",
	"gave no assertion":                                                "keyfob-signin gives one or ends with an error",

	// What takes as long as the patience of the command.
	"cannot start keyfobd: another keyfob has been starting it for too long":           "35 s",
	"cannot start keyfobd: it is not ready after":                                      "20 s",
	"cannot start keyfobd: it is ready but does not answer on":                         "needs a socket that is taken away just then",
	"keyfobd (pid … ) has not ended in":                                                "15 s",
	"cannot make the program's AWS files: another keyfob exec has held … for too long": "as long as it waits for the lock",

	// What the kernel does not do to a test.
	"cannot tell where keyfob is:":                     "/proc would have to be gone",
	"cannot use the terminal:":                         "a terminal would have to fail between two calls",
	"cannot read the terminal:":                        "a terminal would have to fail between two calls",
	"cannot ask: the terminal is gone":                 "its end kills the command first",
	"cannot use what was typed: it is too long":        "the kernel cuts lines at 4,095 bytes",
	"cannot make the program's AWS files: cannot lock": "a file system without locks",

	// What needs a machine of its own (the tests of the system daemon): it
	// leaves the token of a grant to the command.
	"cannot keep the grant's token:":       "a system daemon",
	"cannot keep the grant's token in":     "a system daemon",
	"it holds something else than a token": "a system daemon",
}
