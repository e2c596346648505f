package cli

import (
	"bytes"
	"strings"
	"testing"
)

// A terminal gets colours and lines that fit it; NO_COLOR, TERM=dumb and
// pipes get none.
func TestColourOnATerminal(t *testing.T) {
	for name, one := range map[string]struct {
		env    []string
		pipe   bool
		colour bool
	}{
		"terminal":       {nil, false, true},
		"NO_COLOR":       {[]string{"NO_COLOR=1"}, false, false},
		"empty NO_COLOR": {[]string{"NO_COLOR="}, false, true},
		"dumb":           {[]string{"TERM=dumb"}, false, false},
		"pipe":           {nil, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			h, c := newHome(t), newConsole(t)
			cmd := h.command("list")
			cmd.Env = append(cmd.Env, append([]string{"TERM=xterm", "COLUMNS=70"}, one.env...)...)
			var out bytes.Buffer
			if one.pipe {
				cmd.Stdout = &out
			}
			c.start(cmd)
			if code := exitCode(t, cmd); code != 0 {
				t.Fatalf("exit code %d: %s", code, c.text())
			}
			if !one.pipe {
				c.expect("prod")
				out.WriteString(c.text())
			}
			if got := strings.Contains(out.String(), "\x1b["); got != one.colour {
				t.Errorf("colour: %v in %q", got, out.String())
			}
		})
	}
}

// While a sign-in is waited for, a terminal shows one line that is rewritten,
// and that is gone at the end.
func TestLoginShowsProgress(t *testing.T) {
	h, c := newHome(t), newConsole(t)
	cmd := h.command("login", "p-slow")
	cmd.Env = append(cmd.Env, "TERM=xterm", "COLUMNS=70")
	c.start(cmd)
	c.expect("https://device.example/")
	c.expect("\r\x1b[Kkeyfob: waiting for the sign-in in a browser, 1s")
	c.expect("\r\x1b[Kkeyfob: waiting for the sign-in in a browser, 2s")
	if code := exitCode(t, cmd); code != 0 {
		t.Fatalf("exit code %d: %s", code, c.text())
	}
	c.expect("signed in to p-slow")
	text := c.text()
	if last := text[strings.LastIndex(text, "waiting for"):]; !strings.Contains(last, "\r\x1b[K") || strings.Index(last, "\r\x1b[K") > strings.Index(last, "signed in") {
		t.Errorf("the line is left there: %q", last)
	}
	// Elsewhere nothing is rewritten.
	var errs bytes.Buffer
	cmd = h.command("login", "p-slow", "--force")
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil || strings.Contains(errs.String(), "\x1b") || strings.Contains(errs.String(), "\r") {
		t.Errorf("%v: %q", err, errs.String())
	}
}
