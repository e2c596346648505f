package cli

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// plainLine is a line of jsonLines for people.
func plainLine(name string) (words []string, stdin string) {
	l := jsonLines[name]
	return slices.DeleteFunc(strings.Fields(l.line), func(w string) bool { return w == "--json" }), l.stdin
}

func (h *home) ready(name string) {
	h.jsonWorld()
	h.json("list", "") // a daemon, and what is said of its start
	if strings.HasPrefix(name, "configure-undo") {
		h.json(jsonLines["configure"].line, "")
	}
}

// Every command into a pipe: no colour, no movement of a cursor, and with
// --quiet nothing on standard error.
func TestPipesAndQuiet(t *testing.T) {
	for _, s := range schemas {
		words, stdin := plainLine(s.name)
		if jsonLines[s.name].line == "" {
			continue
		}
		for _, quiet := range []bool{false, true} {
			h := newHome(t)
			h.ready(s.name)
			if quiet {
				words = append([]string{"--quiet"}, words...)
			}
			cmd := h.command(words...)
			cmd.Env = append(cmd.Env, "TERM=xterm-256color", "COLUMNS=40", "BROWSER=true")
			var out, said bytes.Buffer
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &said
			if err := cmd.Run(); err != nil && s.name != "doctor" && !(s.name == "rotate" && cmd.ProcessState.ExitCode() == 1) {
				t.Errorf("keyfob %s: %v %s", strings.Join(words, " "), err, said.String())
			}
			if text := out.String() + said.String(); strings.ContainsAny(text, "\x1b\r") {
				t.Errorf("keyfob %s: %q", strings.Join(words, " "), text)
			}
			if quiet && said.Len() > 0 {
				t.Errorf("keyfob %s says %q", strings.Join(words, " "), said.String())
			}
			for line := range strings.Lines(said.String()) {
				if s.name != "configure" && s.name != "import" && !strings.HasPrefix(line, "keyfob: ") && !strings.HasPrefix(line, "hint: ") { // which show a change or a list
					t.Errorf("keyfob %s says %q", strings.Join(words, " "), line)
				}
			}
		}
	}
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// Every command on a terminal: NO_COLOR and TERM=dumb turn colour off, and
// what is a table fits.
func TestNoColour(t *testing.T) {
	coloured := 0
	for _, name := range []string{"overview", "list", "explain", "explain-shadow", "status", "whoami", "grant-list", "audit", "audit-verify", "mfa-list", "rotate", "doctor", "version", "certificate-list", "configure-undo-list"} {
		words, _ := plainLine(name)
		for _, variable := range []string{"NO_COLOR=1", "TERM=dumb", "TERM=xterm"} {
			h, tty := newHome(t), newConsole(t)
			h.ready(name)
			cmd := h.command(words...)
			cmd.Env = append(cmd.Env, "TERM=xterm", variable)
			tty.start(cmd)
			exitCode(t, cmd)
			tty.typed("over\r")
			tty.expect("over")
			has := sgr.MatchString(tty.text())
			if has && variable != "TERM=xterm" {
				t.Errorf("%s keyfob %s: %q", variable, strings.Join(words, " "), tty.text())
			}
			if has {
				coloured++
			}
		}
	}
	if coloured < 5 {
		t.Errorf("only %d commands use colour at all: this test proves nothing", coloured)
	}
}
