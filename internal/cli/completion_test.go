//go:build !windows

package cli

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"keyfob/internal/control"
	"keyfob/internal/settings"
)

// openFlags take a value that nobody can list: everything else that takes one
// is completed. A flag that is new stands in neither, until somebody decides.
var openFlags = []string{
	"config", "data-dir", "socket", "profiles-file", "passphrase-file", "file", "dir", "token-file", "policy", "assertion-file",
	"intermediates", "passphrase-credential", // paths: the shell completes them
	"imds", "container", "region", "role-arn", "policy-arn", "note", "program", "access-key-id", "limit", "lines", "user", "keychain", "service",
	"role-session-name", "duration-seconds", "external-id", "start-url", "sso-region", "sso-session", "scopes", "issuer", "client-id", "oidc-scopes",
	"redirect-port", "saml-url", "saml-process", "principal-arn", "trust-anchor-arn", "profile-arn", "account", "role", "name-template",
}

// asksDaemon are completed from what a daemon knows: here none runs.
var asksDaemon = []string{"profile", "source-profile", "certificate", "private-key"}

func TestEveryFlagIsCompleted(t *testing.T) {
	a := &app{Process: Process{Environ: []string{"HOME=" + t.TempDir()}}}
	for _, c := range append(commands(), nil) {
		name := ""
		if c != nil {
			name = c.name
		}
		a.flagSet(c).VisitAll(func(f *flag.Flag) {
			switch {
			case isSwitch(f), slices.Contains(asksDaemon, f.Name):
			case slices.Contains(openFlags, f.Name):
				if len(a.values(name, f.Name)) > 0 {
					t.Errorf("--%s of %q counts as open, and has values", f.Name, name)
				}
			case len(a.values(name, f.Name)) == 0:
				t.Errorf("--%s of %q has no values to complete: is it open?", f.Name, name)
			}
		})
	}
}

// What is offered is taken: each value of a closed set passes the flag's own
// check, and something else does not.
func TestOfferedValuesAreTaken(t *testing.T) {
	a := &app{}
	checks := map[string]func(string) error{
		"kind":              func(v string) error { return (&wizard{app: withKind(v)}).chooseKind() },
		"credential-source": oneOf(credentialSources...),
		"event":             func(v string) error { return amongWords("--event", v, auditEvents) },
		"shell": func(v string) error {
			if _, ok := shellPrinter(v); !ok {
				return errors.New("no printer")
			}
			return nil
		},
		"from":    func(v string) error { return withImport(importOptions{from: v, file: "x", dryRun: true}, v) },
		"backend": func(v string) error { return withImport(importOptions{from: fromVault, backend: v, dryRun: true}, "") },
		"expires": new(expiry).Set, "due": new(expiry).Set, "duration": new(sessionLength).Set,
	}
	for name, check := range checks {
		for _, c := range a.values("", name) {
			if err := check(c.word); err != nil {
				t.Errorf("--%s offers %q: %v", name, c.word, err)
			}
		}
		if err := check("no-such-thing"); err == nil {
			t.Errorf("--%s takes anything: this test proves nothing", name)
		}
	}
	for _, name := range []string{"keystore", "interactive", "log-level", "log-format"} {
		for _, c := range append(a.values("", name), candidate{word: "no-such-thing"}) {
			variable := "KEYFOB_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
			dir := t.TempDir()
			_, err := settings.Load(settings.Flags{}, func(v string) string { return map[string]string{"HOME": dir, variable: c.word}[v] })
			if (err != nil) != (c.word == "no-such-thing") {
				t.Errorf("--%s %s: %v", name, c.word, err)
			}
		}
	}
}

func withKind(kind string) *app {
	a := &app{}
	a.opts.configure.kind = kind
	return a
}

func withImport(o importOptions, from string) error {
	a := &app{}
	if from == fromVault || from == fromEnv {
		o.file = "" // not with these
	}
	a.opts.importing = o
	return (&importer{app: a}).checkFlags()
}

// Who may use a socket that can't be opened, and what to do, stands in the
// hint.
func TestUnreachableSockets(t *testing.T) {
	denied := fmt.Errorf("cannot connect to /s: %w", syscall.EACCES)
	if !errors.Is(denied, fs.ErrPermission) {
		t.Fatal("EACCES is no permission error")
	}
	for _, c := range []struct {
		name, socket string
		explicit     bool
		err          error
		hint         string
	}{
		{"the machine's", "/run/keyfob/keyfob.sock", false, denied, "keyfob service install --system --force"},
		{"the machine's, named", "/run/keyfob/keyfob.sock", true, denied, "keyfob service install --system --force"},
		{"a named one", "/s", true, denied, "without --socket and KEYFOB_SOCKET"},
		{"the usual one", "/s", false, denied, "XDG_RUNTIME_DIR and HOME"},
		{"another user's", "/s", true, fmt.Errorf("cannot trust /s: %w (uid 7)", control.ErrNotTrusted), "nothing was sent to it"},
		{"broken", "/s", true, fmt.Errorf("cannot connect to /s: %w", syscall.EIO), ""},
	} {
		a := &app{socket: c.socket, cached: &settings.Settings{SystemSocket: "/run/keyfob/keyfob.sock", Socket: "/s", SocketExplicit: c.explicit}}
		got := a.whyUnreachable(c.err)
		if got.Error() != c.err.Error() || !strings.Contains(hintOf(got), c.hint) || (c.hint == "") != (hintOf(got) == "") {
			t.Errorf("%s: %v, hint %q, want %q in it", c.name, got, hintOf(got), c.hint)
		}
	}
	if os.Geteuid() == 0 {
		return // whom nothing is denied
	}
	h := newHome(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	out, err := h.command("list", "--socket", dir+"/s").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "permission denied\nhint: a daemon serves its own user alone") {
		t.Errorf("%v: %s", err, out)
	}
}
