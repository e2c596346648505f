package packaging_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// world is a directory in which a package's script runs: its commands are
// stubs that write down how they were called, its paths are in the directory.
type world struct {
	t       *testing.T
	dir     string
	scripts string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	_, stage := build(t)
	w := &world{t: t, dir: t.TempDir(), scripts: filepath.Join(stage, "scripts")}
	for _, d := range []string{"bin", "run/systemd/system", "var/lib/keyfob", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(w.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// There are two users' systemds; the user keyfob is there when its file is.
	w.stub("systemctl", `case "$*" in *list-units*) printf 'user@1000.service loaded active running x\nuser@1001.service loaded active running x\n';; esac`)
	w.stub("getent", `[ -e "$WORLD/passwd" ]`)
	for _, name := range []string{"adduser", "addgroup", "useradd", "systemd-sysusers"} {
		w.stub(name, `: >"$WORLD/passwd"`)
	}
	for _, name := range []string{"deb-systemd-invoke", "rc-service", "rc-update"} {
		w.stub(name, "")
	}
	return w
}

func (w *world) stub(name, body string) {
	w.t.Helper()
	text := "#!/bin/sh\necho \"" + name + " $*\" >>\"$WORLD/calls\"\n" + body + "\n"
	if err := os.WriteFile(filepath.Join(w.dir, "bin", name), []byte(text), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

// run runs a script as a package manager does, and returns which commands it
// called. Nothing of this machine is touched: the script's own paths are
// replaced.
func (w *world) run(script string, args ...string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.scripts, script))
	if err != nil {
		w.t.Fatal(err)
	}
	text := string(b)
	for _, path := range []string{"/run/systemd/system", "/var/lib/keyfob", "/usr/bin/keyfobd"} {
		text = strings.ReplaceAll(text, path, w.dir+path)
	}
	file := filepath.Join(w.dir, "script")
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		w.t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(w.dir, "calls"))
	cmd := exec.Command("sh", append([]string{file}, args...)...)
	cmd.Env = []string{"PATH=" + filepath.Join(w.dir, "bin") + ":/usr/bin:/bin", "WORLD=" + w.dir}
	if said, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(said)) > 0 {
		w.t.Errorf("%s %v: %v %s", script, args, err, said)
	}
	calls, _ := os.ReadFile(filepath.Join(w.dir, "calls"))
	return string(calls)
}

func (w *world) expect(calls string, has []string, hasNot []string) {
	w.t.Helper()
	for _, h := range has {
		if !strings.Contains(calls, h) {
			w.t.Errorf("no %q in:\n%s", h, calls)
		}
	}
	for _, h := range hasNot {
		if strings.Contains(calls, h) {
			w.t.Errorf("%q in:\n%s", h, calls)
		}
	}
}

var (
	restartsUsers = []string{"systemctl --user --machine=1000@.host try-restart keyfob.service", "systemctl --user --machine=1001@.host try-restart keyfob.service"}
	starts        = []string{" start ", "enable", " restart "}
)

func TestDebScripts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.expect(w.run("deb/postinst", "configure", ""), []string{"adduser ", "daemon-reload"}, append([]string{"restart"}, starts...))
	w.expect(w.run("deb/postinst", "configure", ""), nil, []string{"adduser "}) // once more: nothing
	w.expect(w.run("deb/prerm", "upgrade", "1.2.4-1"), nil, []string{"stop", "disable"})
	w.expect(w.run("deb/postinst", "configure", "1.2.2-1"), append([]string{"deb-systemd-invoke try-restart keyfob.service"}, restartsUsers...), append([]string{"adduser", "stop"}, starts...))
	w.expect(w.run("deb/prerm", "remove"), []string{"disable --now keyfob.socket keyfob.service", "--machine=1001@.host stop keyfob.socket keyfob.service"}, nil)
	w.run("deb/postrm", "remove")
	if _, err := os.Stat(filepath.Join(w.dir, "var/lib/keyfob")); err != nil {
		t.Error("a removal removed the data")
	}
	w.run("deb/postrm", "purge")
	w.run("deb/postrm", "purge")
	if _, err := os.Stat(filepath.Join(w.dir, "var/lib/keyfob")); !os.IsNotExist(err) {
		t.Error("a purge left the data")
	}
	// In a container or chroot no systemd runs, and none is called.
	if err := os.RemoveAll(filepath.Join(w.dir, "run")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"deb/postinst", "configure", ""}, {"deb/postinst", "configure", "1"}, {"deb/prerm", "remove"}, {"deb/postrm", "purge"}} {
		w.expect(w.run(args[0], args[1:]...), nil, []string{"systemctl", "deb-systemd-invoke"})
	}
}

func TestRPMScripts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.expect(w.run("rpm/pre", "1"), []string{"systemd-sysusers -"}, nil)
	w.expect(w.run("rpm/pre", "2"), nil, []string{"systemd-sysusers"})
	w.expect(w.run("rpm/post", "1"), []string{"daemon-reload"}, append([]string{"restart"}, starts...))
	w.expect(w.run("rpm/preun", "1"), nil, []string{"stop", "disable"})
	w.expect(w.run("rpm/post", "2"), append([]string{"systemctl try-restart keyfob.service"}, restartsUsers...), starts)
	w.expect(w.run("rpm/preun", "0"), []string{"disable --now keyfob.socket keyfob.service"}, nil)
	w.run("rpm/postun", "0")
}

func TestAlpineAndArchScripts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.expect(w.run("apk/pre-install"), []string{"addgroup -S keyfob", "adduser -S"}, nil)
	w.expect(w.run("apk/pre-install"), nil, []string{"adduser"})
	w.expect(w.run("apk/post-upgrade"), []string{"rc-service --ifstarted keyfob restart"}, nil)
	w.expect(w.run("apk/pre-deinstall"), []string{"keyfob stop", "rc-update --quiet del keyfob"}, nil)
	w.run("arch/post_install")
	w.expect(w.run("arch/post_upgrade"), restartsUsers, starts)
	w.expect(w.run("arch/pre_remove"), []string{"disable --now"}, nil)
}

// TestRemovalEndsDaemons: those that a command started, and no other process.
func TestRemovalEndsDaemons(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("looks in /proc")
	}
	w := newWorld(t)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	b := read(t, sleep)
	start := func(name string) (*exec.Cmd, chan error) {
		t.Helper()
		path := filepath.Join(w.dir, "usr/bin", name)
		if err := os.WriteFile(path, b, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, "60")
		if err := cmd.Start(); err != nil {
			t.Skipf("a copy of sleep does not run: %v", err) // one program of many names
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd, done
	}
	_, ended := start("keyfobd")
	_, other := start("keyfobd2")
	_ = os.Remove(filepath.Join(w.dir, "usr/bin/keyfobd")) // as after an upgrade
	w.run("deb/prerm", "remove")
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the daemon runs on")
	}
	select {
	case <-other:
		t.Error("another program was ended")
	default:
	}
}

// TestShell checks what bash would only see when it comes there.
func TestShell(t *testing.T) {
	t.Parallel()
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("shellcheck is not installed")
	}
	_, stage := build(t)
	if said, err := exec.Command(shellcheck, "-S", "warning", "build.sh").CombinedOutput(); err != nil {
		t.Errorf("%s", said)
	}
	all, err := filepath.Glob(filepath.Join(stage, "scripts", "*", "*"))
	if err != nil || len(all) < 10 {
		t.Fatalf("%v %v", all, err)
	}
	if said, err := exec.Command(shellcheck, append([]string{"-s", "sh", "-S", "warning"}, all...)...).CombinedOutput(); err != nil {
		t.Errorf("%s", said)
	}
}

// TestTools holds packaging/tools to the rules of the rest: it is a module of
// its own, which ./... does not reach.
func TestTools(t *testing.T) {
	t.Parallel()
	build(t)
	if said, err := exec.Command("go", "-C", "tools", "vet", "./...").CombinedOutput(); err != nil {
		t.Errorf("go vet: %s", said)
	}
	if said, err := exec.Command("gofmt", "-l", "tools", ".").CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("gofmt would change: %s", said)
	}
}
