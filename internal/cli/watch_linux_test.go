package cli

import (
	"strings"
	"syscall"
	"testing"
)

// The view takes the whole terminal, and gives it back as it was, however it
// ends.
func TestStatusWatch(t *testing.T) {
	for _, how := range []string{"q", "\x03", "SIGTERM"} {
		h, c := newHome(t), newConsole(t)
		h.set("mode", "unlocked")
		cmd := h.command("status", "--watch")
		c.start(cmd)
		c.expect("Waiting for you (2)")
		c.expect("/usr/bin/terraform")
		c.expect("Sessions (1)")
		if c.echoes() {
			t.Error("what is typed is shown in the middle of the view")
		}
		if how == "SIGTERM" {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		} else {
			c.typed(how)
		}
		if code := exitCode(t, cmd); code != 0 {
			t.Errorf("%q: exit code %d: %s", how, code, c.text())
		}
		c.expect("\x1b[?1049l") // what was written last may not have been read yet
		if text := c.text(); !strings.Contains(text, "\x1b[?1049h") || !strings.HasSuffix(text, "\x1b[?7h\x1b[?25h\x1b[?1049l") || !c.echoes() {
			t.Errorf("%q: the terminal is not given back: echoes %v, %q", how, c.echoes(), text)
		}
	}
}

// A question is put on the terminal as a command would, and the view comes
// back after it.
func TestStatusWatchAnswers(t *testing.T) {
	h, c := newHome(t), newConsole(t)
	h.set("mode", "unlocked")
	cmd := h.command("status", "--watch")
	cmd.Env = append(cmd.Env, "NO_COLOR=1")
	c.start(cmd)
	c.expect("> mfa")
	c.typed("j")
	c.expect("> confirm")
	c.typed("\r")
	for _, want := range []string{"\x1b[?1049l", "\x1b[?1049h"} {
		c.expect(want)
	}
	c.typed("q")
	if code := exitCode(t, cmd); code != 0 || !strings.Contains(h.read("asked"), `answer {"interaction":"i2"}`) {
		t.Errorf("exit code %d, asked %s, shown %q", code, h.read("asked"), c.text())
	}
}

func TestStatusWatchNeedsATerminal(t *testing.T) {
	h := newHome(t)
	h.set("mode", "unlocked")
	cmd := h.command("status", "--watch")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); err == nil || code != 2 || !strings.Contains(string(out), "no terminal to show it on\nhint: keyfob status\n") {
		t.Errorf("exit code %d: %s", code, out)
	}
}
