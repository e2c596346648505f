package cli

import (
	"bytes"
	"strings"
	"testing"
)

// A seed is typed without being seen, and a removal is a person's yes.
func TestMFAAsks(t *testing.T) {
	h, c := newHome(t), newConsole(t)
	var out bytes.Buffer
	cmd := h.command("mfa", "add", "arn:aws:iam::123456789012:mfa/u")
	cmd.Stdout = &out
	c.start(cmd)
	c.expect("Seed of the MFA device")
	c.typed("JBSWY3DPEHPK3PXP\n")
	if code := exitCode(t, cmd); code != 0 || !strings.HasPrefix(out.String(), "added arn:") {
		t.Fatalf("exit code %d: %s", code, c.text())
	}
	if !strings.Contains(h.read("asked"), `"seed":"JBSWY3DPEHPK3PXP"`) || strings.Contains(c.text(), "JBSW") || !c.echoes() {
		t.Errorf("the terminal shows %q, echoes: %v", c.text(), c.echoes())
	}
	for answer, want := range map[string]int{"no": 1, "y": 0} {
		cmd := h.command("mfa", "remove", "arn:aws:iam::123456789012:mfa/u")
		c.start(cmd)
		c.expect("[y/N] ")
		c.typed(answer + "\n")
		if code := exitCode(t, cmd); code != want {
			t.Errorf("%s: exit code %d: %s", answer, code, c.text())
		}
	}
	if n := strings.Count(h.read("asked"), "mfa-remove"); n != 1 {
		t.Errorf("%d removals were asked for", n)
	}
}
