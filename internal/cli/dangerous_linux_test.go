package cli

import (
	"bytes"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// dangerous are the steps that destroy or change what a person would miss, by
// their command: what is typed without --yes, what is asked then on a
// terminal, and the method by which the daemon would be told to do it ("" for
// what keyfob does itself).
var dangerous = map[string][]struct {
	line, asked, method string
}{
	"remove":     {{"remove a", "Remove the keys of a from the vault", "remove"}, {"remove --profile a", "Remove the keys of a", "remove"}},
	"mfa remove": {{"mfa remove arn:aws:iam::123456789012:mfa/u", "Remove the seed of arn:", "mfa-remove"}, {"mfa remove --profile a", "Remove the seed of the MFA device of a", "mfa-remove"}},
	"certificate remove": {{"certificate remove host", "Remove the certificate and key host", "certificate-remove"},
		{"certificate remove ./cert.pem", "Remove the passphrase of /", "certificate-remove"}},
	"rotate":             {{"rotate --due 90d", "delete the old ones in AWS?", "rotate"}},
	"configure":          {{"configure x --kind role --role-arn arn:aws:iam::123456789012:role/r --source-profile a --external-id none --mfa-serial none --region eu-west-1", "Write that?", ""}},
	"vault recovery-key": {{"vault recovery-key", "A former recovery key opens nothing any more", "recovery-key"}},
	"configure undo":     {{"configure undo", "Take back", ""}, {"configure undo --forget", "forget how to undo", ""}},
	"import":             {{"import dev", "move them into the vault?", "add"}, {"import --all", "move them into the vault?", "add"}},
	"service":            {{"service uninstall --system --purge", "Remove the machine's keyfob with its vault", "uninstall"}},
}

func TestDangerousStepsAsk(t *testing.T) {
	for _, c := range commands() {
		if has := (&app{}).flagSet(c).Lookup("yes") != nil; has != (dangerous[c.name] != nil) {
			t.Errorf("keyfob %s has --yes: %v, and the table of dangerous steps has it: %v", c.name, has, !has)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(dangerous)) {
		for _, step := range dangerous[name] {
			t.Run(step.line, func(t *testing.T) {
				t.Run("nobody to ask", func(t *testing.T) {
					h := dangerousWorld(t, name)
					before := h.files()
					cmd := h.command(strings.Fields(step.line)...)
					cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
					var said bytes.Buffer
					cmd.Stdin, cmd.Stderr = strings.NewReader("y\ny\n"), &said
					if out, _ := cmd.Output(); cmd.ProcessState.ExitCode() != exitUsage || len(out) > 0 {
						t.Errorf("it ended with %v\n%s%s", cmd.ProcessState, out, said.String())
					}
					if text := said.String(); !strings.HasPrefix(text, "keyfob: cannot ") || !strings.Contains(text, "nobody can be asked") || !strings.Contains(text, "--yes") && !strings.Contains(text, "--help") {
						t.Errorf("it says %q", text)
					}
					h.unharmed(before, step.method)
				})
				t.Run("somebody says no", func(t *testing.T) {
					h := dangerousWorld(t, name)
					before := h.files()
					tty := newConsole(t)
					cmd := h.command(strings.Fields(step.line)...)
					tty.start(cmd)
					tty.expect(step.asked)
					tty.typed("n\r")
					if code := exitCode(t, cmd); code != exitFailed {
						t.Errorf("it ended with %d: %s", code, tty.text())
					}
					tty.expect("you said no")
					h.unharmed(before, step.method)
				})
				t.Run("interactive never", func(t *testing.T) {
					h := dangerousWorld(t, name)
					before := h.files()
					tty := newConsole(t)
					cmd := h.command(append([]string{"--interactive", "never"}, strings.Fields(step.line)...)...)
					tty.start(cmd)
					if code := exitCode(t, cmd); code != exitUsage {
						t.Errorf("it ended with %d: %s", code, tty.text())
					}
					h.unharmed(before, step.method)
				})
				t.Run("told", func(t *testing.T) {
					h := dangerousWorld(t, name)
					before := h.files()
					cmd := h.command(append(strings.Fields(step.line), "--yes")...)
					if name == "vault recovery-key" {
						cmd.Stdin = strings.NewReader("open sesame\n")
					}
					if out, err := cmd.CombinedOutput(); err != nil && name != "rotate" { // of whose keys one fails
						t.Fatalf("%v: %s", err, out)
					}
					if !h.harmed(before, step.method) {
						t.Error("nothing was done: this test proves nothing")
					}
				})
			})
		}
	}
}

func dangerousWorld(t *testing.T, command string) *home {
	h := newHome(t)
	h.jsonWorld()
	h.json("list", "")                   // a daemon
	if command == "vault recovery-key" { // with a keyring it is the daemon that asks
		h.set("mode", "passphrase")
	}
	if command == "configure undo" {
		h.json(strings.TrimSuffix(jsonLines["configure"].line, " --json"), "")
	}
	return h
}

// files are what a person has: by name, with what is in them.
func (h *home) files() map[string]string {
	out := map[string]string{}
	for _, name := range []string{".aws/config", ".aws/credentials", "c/keyfob/profiles", "cert.pem"} {
		out[name] = h.file(filepath.Join(h.dir, name))
	}
	undo, _ := exec.Command("sh", "-c", `cat "$0"/configure/*`, h.data).Output()
	out["undo"] = string(undo)
	return out
}

// harmed reports whether a file has changed, or the daemon was told to do
// what the method does.
func (h *home) harmed(before map[string]string, method string) bool {
	if method == "uninstall" { // the fake service says so
		return true
	}
	asked := method != "" && strings.Contains("\n"+h.read("asked"), "\n"+method+" ")
	return asked || !maps.Equal(before, h.files())
}

func (h *home) unharmed(before map[string]string, method string) {
	h.t.Helper()
	if method != "uninstall" && h.harmed(before, method) {
		h.t.Errorf("it was done: %v, the daemon was asked\n%s", h.files(), h.read("asked"))
	}
}
