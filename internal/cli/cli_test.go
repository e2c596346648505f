//go:build !windows

package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// home is a place for one test's keyfob and its fake daemon.
type home struct {
	t    *testing.T
	dir  string
	data string
	env  []string
}

func newHome(t *testing.T) *home {
	t.Helper()
	dir, err := os.MkdirTemp("", "kf") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	h := &home{t: t, dir: dir, data: filepath.Join(dir, "d", "keyfob")}
	if err := os.MkdirAll(h.data, 0o700); err != nil {
		t.Fatal(err)
	}
	h.env = []string{
		"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir,
		"XDG_RUNTIME_DIR=" + filepath.Join(dir, "r"), "XDG_CONFIG_HOME=" + filepath.Join(dir, "c"), "XDG_DATA_HOME=" + filepath.Join(dir, "d"),
		"DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null", "GORACE=atexit_sleep_ms=0",
	}
	t.Cleanup(func() {
		stopFakes(dir)
		_ = os.RemoveAll(dir)
	})
	return h
}

func (h *home) command(args ...string) *exec.Cmd {
	h.t.Helper()
	path, err := exec.LookPath("keyfob")
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = slices.Clone(h.env)
	cmd.Dir = h.dir
	return cmd
}

func (h *home) set(file, text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.data, file), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *home) read(file string) string {
	b, _ := os.ReadFile(filepath.Join(h.data, file))
	return string(b)
}

// eventually waits for what another process does.
func (h *home) eventually(what string, is func() bool) {
	h.t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("it did not happen that %s", what)
		}
	}
}

func TestTwentyStartsOneDaemon(t *testing.T) {
	h := newHome(t)
	h.set("mode", "slow")
	var wg sync.WaitGroup
	for i := range 20 {
		cmd := h.command("credential-process", "a")
		if i%2 == 1 {
			cmd = h.command("status", "--json")
		}
		wg.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "ASIAEXAMPLE") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(h.read("started"), "\n"); n != 1 {
		t.Errorf("%d daemons were started", n)
	}
}

// keyfob runs for every signature of some SDKs. These would make its start
// slow (net and os/user with cgo link it dynamically, twice the time), or
// put secrets' keepers into a program that needs none.
func TestDependencies(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "keyfob/cmd/keyfob")
	cmd.Env = append(os.Environ(), "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("the go command cannot list: %v", err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 20 {
		t.Fatalf("only %d dependencies were listed", len(deps))
	}
	for _, dep := range deps {
		for _, banned := range []string{
			"net", "net/http", "crypto", "crypto/tls", "os/user", "runtime/cgo", "regexp", "text/template", "log/slog",
			"github.com/99designs/keyring", "github.com/aws/aws-sdk-go-v2", "github.com/spf13/cobra", "github.com/sirupsen/logrus",
		} {
			if dep == banned || strings.HasPrefix(dep, banned+"/") && strings.Contains(banned, ".") {
				t.Errorf("keyfob depends on %s", dep)
			}
		}
	}
	for _, dep := range deps {
		if rest, ok := strings.CutPrefix(dep, "keyfob/"); ok &&
			!slices.Contains([]string{"cmd/keyfob", "internal/atomicfile", "internal/cli", "internal/control", "internal/hot", "internal/hot/early", "internal/settings", "internal/setup", "internal/watch", "profiles"}, rest) {
			t.Errorf("keyfob depends on %s", dep)
		}
	}
}

// What runs before keyfob's packages are initialised waits for as little as
// possible.
func TestHotImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-f", `{{join .Imports " "}}`, "keyfob/internal/hot", "keyfob/internal/hot/early")
	cmd.Env = append(os.Environ(), "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("the go command cannot list: %v", err)
	}
	for _, imported := range strings.Fields(string(out)) {
		if !slices.Contains([]string{"runtime", "syscall", "unsafe", "keyfob/internal/hot"}, imported) {
			t.Errorf("hot imports %s, which puts off its turn", imported)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"credential-process", "status", "stop", "list", "login", "logout", "exec"}
	for word, want := range map[string]string{
		"stauts": "status", "sttaus": "status", "lst": "list", "LIST": "list", "cred": "credential-process",
		"credentials-process": "credential-process", "exce": "exec", "zzzzzz": "", "x": "", "logn": "login",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestExpiry(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "1s": time.Second,
		"": -1, "0": -1, "-1h": -1, "1x": -1, "d": -1, "+1d": -1, "99999999d": -1, "1.5d": -1, "1ms": -1,
	} {
		var e expiry
		err := e.Set(s)
		if want < 0 {
			if err == nil {
				t.Errorf("%q was taken as %s", s, time.Duration(e))
			}
		} else if err != nil || time.Duration(e) != want {
			t.Errorf("%q is %s, %v", s, time.Duration(e), err)
		}
	}
}

// hostile are values that a shell would make something else of, or run.
var hostile = []string{
	`a'b"c$(d)\e`, "$(touch ran)", "`touch ran`", `${HOME}`, "!!", "a;touch ran", "a&&touch ran", "two\nlines\n", "tab\there", "*", "~", "-n", `\`, `'`, `"`, `\'`, `''`, "größe 日本", "#x", " lead and trail ", "%PATH%", "$Env:PATH", "it\u2019s \u2018so\u201a\u201b", "x\r",
}

// TestShellQuoting runs what env prints in the shells that are here: each
// value arrives as it is, and an empty one unsets.
func TestShellQuoting(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "pwsh"} {
		program, err := exec.LookPath(shell)
		if err != nil {
			continue // the same text is compared below
		}
		print, _ := shellPrinter(shell)
		for _, value := range hostile {
			dir := t.TempDir()
			text, err := print([]variable{{"X", value}, {"Y", ""}})
			if err != nil && shell == "pwsh" && strings.ContainsAny(value, "\r\n") {
				continue // it is refused
			}
			if err != nil {
				t.Fatal(err)
			}
			echo := map[string]string{"bash": `printf %s "$X${Y-unset}"`, "zsh": `printf %s "$X${Y-unset}"`, "fish": `printf %s "$X"; set -q Y; or printf unset`, "pwsh": `[Console]::Write($Env:X + $(if ($null -eq $Env:Y) {"unset"}))`}[shell]
			cmd := exec.Command(program, "-c", text+echo)
			cmd.Env = []string{"Y=old", "PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8"}
			cmd.Dir = dir
			if out, err := cmd.Output(); err != nil || string(out) != value+"unset" {
				t.Errorf("%s made %q of %q, %v", shell, out, value, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
				t.Errorf("%s ran %q", shell, value)
			}
		}
	}
	const awkward = `a'b"c$(d)\e`
	vars := []variable{{"X", awkward}, {"Y", ""}}
	for shell, want := range map[string]string{
		"fish":       `set -gx X 'a\'b"c$(d)\\e'` + "\nset -e Y\n",
		"powershell": `$Env:X = 'a''b"c$(d)\e'` + "\nRemove-Item -ErrorAction SilentlyContinue Env:Y\n",
	} {
		print, _ := shellPrinter(shell)
		if got, err := print(vars); err != nil || got != want {
			t.Errorf("%s: got %q, want %q, %v", shell, got, want, err)
		}
	}
	ps, _ := shellPrinter("powershell")
	if got, err := ps([]variable{{"X", "it\u2019s"}}); err != nil || got != "$Env:X = 'it\u2019\u2019s'\n" {
		t.Errorf("powershell: got %q, %v", got, err)
	}
	for _, shell := range []string{"cmd", "dotenv"} {
		print, _ := shellPrinter(shell)
		if got, err := print(vars); err == nil {
			t.Errorf("%s took what it can't quote: %q", shell, got)
		}
	}
}
