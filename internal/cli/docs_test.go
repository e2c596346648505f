//go:build !windows

package cli

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The reference in docs/ is made of the command table and of the types that
// --json prints: `go test ./internal/cli -run TestDocs -update` writes it, and
// without -update the tests say what is out of date.

var update = flag.Bool("update", false, "write docs/commands.md, docs/man and docs/schemas anew")

const docsDir = "../../docs"

// current compares a file of docs/ with what it should be.
func current(t *testing.T, name, want string) {
	t.Helper()
	path := filepath.Join(docsDir, name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("docs/%s is out of date (%v): go test ./internal/cli -run TestDocs -update", name, err)
	}
}

// noOthers reports the files of a directory of docs/ that are not in want.
func noOthers(t *testing.T, dir string, want map[string]bool) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(docsDir, dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		switch {
		case want[e.Name()]:
		case *update:
			if err := os.Remove(filepath.Join(docsDir, dir, e.Name())); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("docs/%s/%s is of no command", dir, e.Name())
		}
	}
}

// shownFlag is one flag as the reference shows it.
type shownFlag struct{ name, value, text string }

// flagsOf are the flags of a command without the general ones, or those alone.
func flagsOf(cmd *command) (flags []shownFlag) {
	a := &app{}
	general := a.flagSet(nil)
	fs := general
	if cmd != nil {
		fs = (&app{}).flagSet(cmd)
	}
	fs.VisitAll(func(f *flag.Flag) {
		if cmd == nil || general.Lookup(f.Name) == nil {
			value, text := flag.UnquoteUsage(f)
			flags = append(flags, shownFlag{"--" + f.Name, value, text})
		}
	})
	return flags
}

func (f shownFlag) label() string { return strings.TrimSpace(f.name + " " + f.value) }

func shownCommands() (all []*command) {
	for _, c := range commands() {
		if !c.hidden {
			all = append(all, c)
		}
	}
	return all
}

func usageLine(c *command) string {
	return strings.TrimSpace("keyfob " + c.name + " " + c.args)
}

// exitCodes is CONTRACT.md §2, for the reference and the manual.
var exitCodes = [][2]string{
	{"0", "done"},
	{"1", "failed: an unknown profile, a refusal by AWS, the network, a bad configuration"},
	{"2", "wrong usage"},
	{"3", "a person must act: sign in, give an MFA code, unlock the vault"},
	{"4", "keyfob's own rules refused"},
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

func TestDocsOfCommands(t *testing.T) {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Commands")
	line("")
	line("Made from the command table by `go test ./internal/cli -run TestDocs -update`. `keyfob help COMMAND` says the same.")
	line("")
	line("P is a profile; it may also be given as `--profile P`. Without it AWS_PROFILE counts, then the profile of config.toml, then `default`. Flags may stand anywhere before `--`.")
	line("Standard output carries the result alone; messages go to standard error: one line `keyfob: cannot …`, and where something helps a line `hint: …`.")
	line("`keyfob` alone says what is set up and what to do next.")
	line("")
	line("| exit code | |")
	line("|---|---|")
	for _, c := range exitCodes {
		line("| %s | %s |", c[0], c[1])
	}
	line("")
	line("`exec` passes on the exit code of its program.")
	line("")
	line("| command | |")
	line("|---|---|")
	for _, c := range shownCommands() {
		line("| [%s](#%s) | %s |", c.name, anchor(c.name), escapeTable(c.short))
	}
	line("")
	line("## General flags")
	line("")
	flagTable(line, flagsOf(nil))
	for _, c := range shownCommands() {
		line("")
		line("## %s", c.name)
		line("")
		line("%s", sentence(c.short))
		if c.long != "" {
			line("%s", strings.ReplaceAll(c.long, "\n", " "))
		}
		line("")
		line("    %s", usageLine(c))
		if flags := flagsOf(c); len(flags) > 0 {
			line("")
			flagTable(line, flags)
		}
		if s := schemaNames(c.name); len(s) > 0 {
			line("")
			links := make([]string, len(s))
			for i, name := range s {
				links[i] = fmt.Sprintf("[%s](schemas/%s.json)", name, name)
			}
			line("What `--json` prints: %s.", strings.Join(links, ", "))
		}
	}
	current(t, "commands.md", b.String())
}

func anchor(name string) string { return strings.ReplaceAll(name, " ", "-") }

func escapeTable(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func flagTable(line func(string, ...any), flags []shownFlag) {
	line("| flag | |")
	line("|---|---|")
	for _, f := range flags {
		line("| `%s` | %s |", escapeTable(f.label()), escapeTable(f.text))
	}
}
