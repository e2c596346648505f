package cli

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// A recovery key and passphrases are typed unseen, and never given twice
// differently.
func TestRecoveryAsks(t *testing.T) {
	for _, one := range []struct {
		mode, first, second string // what is typed for a passphrase
		code                int
		asked               string
	}{
		{"passphrase", "new sesame", "new sesame", 0, `"passphrase":"new sesame"`},
		{"passphrase", "", "", 0, `"recovery":"` + fakeRecoveryKey + `"}`},
		{"passphrase", "new sesame", "new simsim", 1, ""},
		{"", "", "", 0, `"recovery":"` + fakeRecoveryKey + `"}`},
	} {
		h, c := newHome(t), newConsole(t)
		h.set("mode", one.mode)
		cmd := h.command("unlock", "--recovery")
		c.start(cmd)
		c.expect("Recovery key of keyfob's vault: ")
		c.typed(fakeRecoveryKey + "\n")
		if one.mode != "" {
			c.expect("New passphrase for keyfob's vault (Enter keeps the former): ")
			c.typed(one.first + "\n")
		}
		if one.first != "" {
			c.expect("The same once more: ")
			c.typed(one.second + "\n")
		}
		if code := exitCode(t, cmd); code != one.code {
			t.Errorf("%+v: exit code %d: %s", one, code, c.text())
		}
		if asked := h.read("asked"); one.asked != "" && !strings.Contains(asked, one.asked) || one.asked == "" && strings.Contains(asked, "unlock ") {
			t.Errorf("%+v: the daemon was asked %s", one, asked)
		}
		if strings.Contains(c.text(), "sesame") || strings.Contains(c.text(), "AAAAA") || !c.echoes() {
			t.Errorf("the terminal shows %q, echoes: %v", c.text(), c.echoes())
		}
	}
}

func TestRecoveryKeyAsks(t *testing.T) {
	h, c := newHome(t), newConsole(t)
	h.set("mode", "passphrase")
	var out bytes.Buffer
	cmd := h.command("vault", "recovery-key")
	cmd.Stdout = &out
	c.start(cmd)
	c.expect("A former recovery key opens nothing any more. [y/N] ")
	c.typed("y\n")
	c.expect("Passphrase of keyfob's vault: ")
	c.typed("open sesame\n")
	if code := exitCode(t, cmd); code != 0 || out.String() != fakeRecoveryKey+"\n" {
		t.Errorf("exit code %d, %q: %s", code, out.String(), c.text())
	}
	c.expect("keep it away from this machine")
	if strings.Contains(c.text(), "AAAAA") {
		t.Errorf("the terminal shows %q", c.text())
	}
}

// The end of a terminal's input is no answer, also where Enter is a yes.
func TestEndOfInputIsNoYes(t *testing.T) {
	configure := strings.Fields(dangerous["configure"][0].line)
	for _, one := range []struct {
		args  []string
		asked string
		code  int
	}{
		{configure, "Write that? [Y/n] ", 1},
		{[]string{"remove", "a"}, "[y/N] ", 1},
		{[]string{"import", "dev"}, "[Y/n] ", 1},
		{[]string{"login", "mfa"}, "MFA code for ", 3},
		{[]string{"unlock"}, "Passphrase of keyfob's vault: ", 1},
		{[]string{"add", "new"}, "access key ID", 1},
	} {
		h := dangerousWorld(t, one.args[0])
		if one.args[0] == "unlock" {
			h.set("mode", "passphrase")
		} else {
			h.set("mode", "unlocked")
		}
		before, c := h.files(), newConsole(t)
		cmd := h.command(one.args...)
		c.start(cmd)
		c.expect(one.asked)
		c.typed("\x04") // Ctrl-D
		if code := exitCode(t, cmd); code != one.code {
			t.Errorf("%v: exit code %d: %s", one.args, code, c.text())
		}
		if one.code == 1 {
			c.expect("keyfob: cannot go on: the terminal's input ended")
		}
		h.unharmed(before, map[string]string{"remove": "remove", "import": "add", "unlock": "unlock", "add": "add"}[one.args[0]])
	}
}

// A terminal that goes away at the question is no answer either, for a
// program that outlives that.
func TestHangUpIsNoYes(t *testing.T) {
	h := dangerousWorld(t, "configure")
	before, c := h.files(), newConsole(t)
	cmd := exec.Command("sh", append([]string{"-c", `trap "" HUP; keyfob "$@"; echo $? >"$0"`, h.data + "/ended"}, strings.Fields(dangerous["configure"][0].line)...)...)
	cmd.Env, cmd.Dir = h.env, h.dir
	c.start(cmd)
	c.expect("Write that? [Y/n] ")
	_ = c.keep.Close()
	_ = c.master.Close()
	exitCode(t, cmd)
	if code := strings.TrimSpace(h.read("ended")); code != "1" {
		t.Errorf("it ended with %q", code)
	}
	h.unharmed(before, "")
}

// The change that configure shows is coloured on a terminal alone.
func TestConfigureColoursItsChange(t *testing.T) {
	for _, variable := range []string{"TERM=xterm", "NO_COLOR=1"} {
		h, c := dangerousWorld(t, "configure"), newConsole(t)
		cmd := h.command(strings.Fields(dangerous["configure"][0].line)...)
		cmd.Env = append(cmd.Env, "TERM=xterm", variable)
		c.start(cmd)
		c.expect("Write that?")
		c.typed("n\n")
		exitCode(t, cmd)
		if has := strings.Contains(c.text(), "\x1b[32m+[profile x]\x1b[0m\r\n"); has != (variable == "TERM=xterm") {
			t.Errorf("%s: %q", variable, c.text())
		}
	}
}
