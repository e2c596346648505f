//go:build unix

package service

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const fakeOpenRC = `#!/bin/sh
echo "${0##*/} $*" >>"$STATE/log"
if [ -e "$STATE/fail" ]; then
	IFS='|' read -r what text <"$STATE/fail"
	[ "$what" = "$3" ] && echo "$text" >&2 && exit 1
fi
case "${0##*/} $*" in
"rc-service keyfob status") [ -e "$STATE/active" ] && echo ' * status: started' || { echo ' * status: stopped'; exit 3; } ;;
"rc-service --quiet keyfob start" | "rc-service --quiet keyfob restart")
	touch "$STATE/active"
	[ ! -e "$STATE/complaint" ] || cat "$STATE/complaint" >>"$UNITS/var/log/keyfob/keyfobd.log"
	;;
"rc-service --quiet keyfob stop") rm -f "$STATE/active" ;;
"rc-update add keyfob default") mkdir -p "$UNITS/etc/runlevels/default"; ln -sf /etc/init.d/keyfob "$UNITS/etc/runlevels/default/keyfob" ;;
"rc-update delete keyfob default") rm -rf "$UNITS/etc/runlevels" ;;
useradd*) echo 'keyfob:x:999:999::/:' >>"$UNITS/etc/passwd" ;;
esac
exit 0
`

// openRCWorld is one where OpenRC runs, and a daemon answers that has this
// test's process id.
func openRCWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, true)
	w.become("openrc", map[string]string{"rc-service": fakeOpenRC, "rc-update": fakeOpenRC, "useradd": fakeOpenRC})
	for _, dir := range []string{"etc/init.d", "run/keyfob", "var/log/keyfob", fmt.Sprintf("proc/%d", os.Getpid())} {
		if err := os.MkdirAll(filepath.Join(w.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.runs(w.c.Program)
	return w
}

// runs says which program the daemon runs.
func (w *world) runs(program string) {
	w.t.Helper()
	exe := filepath.Join(w.root, fmt.Sprintf("proc/%d/exe", os.Getpid()))
	_ = os.Remove(exe)
	if err := os.Symlink(program, exe); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) answers() {
	w.t.Helper()
	l, err := net.Listen("unix", filepath.Join(w.root, "run/keyfob/keyfob.sock"))
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if line, err := bufio.NewReader(c).ReadString('\n'); err == nil && strings.HasPrefix(line, `{"keyfob":1`) {
				_, _ = fmt.Fprintf(c, `{"keyfob":1,"version":"1.2.3","pid":%d}`+"\n", os.Getpid())
			}
			_ = c.Close()
		}
	}()
	w.t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
}

// scripts are what is left of OpenRC's files.
func (w *world) scripts() []string {
	return slices.DeleteFunc(w.files(), func(f string) bool {
		return !strings.HasPrefix(f, "etc/init.d/") && !strings.HasPrefix(f, "etc/runlevels/")
	})
}

func (w *world) script(text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.root, "etc/init.d/keyfob"), []byte(text), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

func TestOpenRC(t *testing.T) {
	w := openRCWorld(t)
	w.answers()
	w.mustInstall()
	got := w.told()
	if len(got) != 3 || !strings.HasPrefix(got[0], "useradd --system ") || got[1] != "rc-update add keyfob default" || got[2] != "rc-service --quiet keyfob start" {
		t.Errorf("told %q", got)
	}
	if st, err := os.Stat(filepath.Join(w.root, "etc/init.d/keyfob")); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", st, err)
	}
	if p, err := w.manager().PlanInstall(t.Context()); err != nil || !p.Empty() {
		t.Errorf("a second install: %v %v", p, err)
	}
	if s, err := w.manager().Status(t.Context()); err != nil || !s.Running || !s.Enabled || s.PID != os.Getpid() || s.State != "started" || s.Problem != "" {
		t.Errorf("%+v, %v", s, err)
	}
	w.told()
	w.runs(w.c.Program + " (deleted)")
	w.mustInstall()
	if got := w.told(); !slices.Equal(got, []string{"rc-service --quiet keyfob restart"}) {
		t.Errorf("a replaced program: told %q", got)
	}
	w.runs(w.c.Program)
	w.c.Args = []string{"--log-level", "debug"}
	w.mustInstall()
	if got := w.told(); !slices.Equal(got, []string{"rc-service --quiet keyfob restart"}) {
		t.Errorf("upgrade: told %q", got)
	}
	w.mustUninstall()
	if left := w.scripts(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for _, odd := range []string{"/opt/$x/keyfobd", "/opt/a b/keyfobd"} {
		w.c.Program = odd
		wantError(t, w.install(), "OpenRC script")
	}
}

// OpenRC calls a daemon started that ends at once.
func TestOpenRCDaemonThatDoesNotStart(t *testing.T) {
	w := openRCWorld(t)
	log := filepath.Join(w.root, "var/log/keyfob/keyfobd.log")
	if err := os.WriteFile(log, []byte("keyfobd: cannot do what it could not last year\nhint: old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.set("complaint", "{\"level\":\"info\"}\nkeyfobd: cannot use /etc/keyfob/config.toml:1: nonsense is no setting\nhint: remove it\n")
	err := w.install()
	wantError(t, err, "cannot start the service: the daemon does not start: cannot use /etc/keyfob/config.toml:1: nonsense is no setting")
	if hint := err.(*Error).Hint(); hint != "remove it" {
		t.Errorf("hint %q", hint)
	}
	if left := w.scripts(); len(left) > 0 || w.has("active") {
		t.Errorf("left: %v, active %v", left, w.has("active"))
	}
	w.unset("complaint")
	w.set("fail", "start| * ERROR: keyfob needs service(s) net")
	wantError(t, w.install(), "cannot finish rc-service --quiet keyfob start: keyfob needs service(s) net")
}

func TestOpenRCSaysWhy(t *testing.T) {
	for out, want := range map[string]string{
		" * Caching service dependencies ... [ ok ]\nService `keyfob' needs non existent service `x'\n * ERROR: keyfob needs service(s) x": "keyfob needs service(s) x",
		"\n * Something is not enabled\n\n * failed to start keyfob\n   [ !! ]\n * ERROR: keyfob failed to start":                          "Something is not enabled",
		" * ERROR: keyfob failed to start": "keyfob failed to start",
		"":                                 "",
	} {
		if got := openrcError(out); got != want {
			t.Errorf("%q: %q, want %q", out, got, want)
		}
	}
}

// What a package brought is used, and stays with the package.
func TestOpenRCPackagesScriptStays(t *testing.T) {
	w := openRCWorld(t)
	w.answers()
	w.script(w.c.openrcPackageText())
	w.mustInstall()
	if got := w.told(); len(got) != 3 || got[1] != "rc-update add keyfob default" || got[2] != "rc-service --quiet keyfob start" {
		t.Errorf("told %q", got)
	}
	if b, err := os.ReadFile(filepath.Join(w.root, "etc/init.d/keyfob")); err != nil || string(b) != w.c.openrcPackageText() {
		t.Errorf("the package's script was written: %v", err)
	}
	p, err := w.manager().PlanUninstall(t.Context())
	if err != nil || !strings.Contains(p.String(), "belongs to a package") || strings.Contains(p.String(), "remove "+w.root) {
		t.Errorf("%v, %v", p, err)
	}
	if err := w.manager().Uninstall(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if got := w.told(); !slices.Equal(got, []string{"rc-service --quiet keyfob stop", "rc-update delete keyfob default"}) {
		t.Errorf("told %q", got)
	}
	if left := w.scripts(); !slices.Equal(left, []string{"etc/init.d/keyfob"}) {
		t.Errorf("left: %v", left)
	}
	if p, err := w.manager().PlanUninstall(t.Context()); err != nil || !p.Empty() {
		t.Errorf("a second uninstall: %v, %v", p, err)
	}
	// What of ours is there without it goes, whatever the package's does.
	link := filepath.Join(w.root, "etc/init.d", linkLocalScript)
	if err := os.WriteFile(link, []byte(w.c.linkLocalOpenRCText(nil, "", false)), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, purge := range []bool{false, true} {
		w.c.Purge = purge
		if p, err := w.manager().PlanUninstall(t.Context()); err != nil || !strings.Contains(p.String(), "remove "+link) || !strings.Contains(p.String(), "belongs to a package") {
			t.Errorf("purge %v: %v, %v", purge, p, err)
		}
	}
	w.c.Purge = false
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	// Of another program it is in the way, and stays too.
	w.c.Program = "/opt/keyfob/keyfobd"
	wantError(t, w.install(), "something that keyfob did not make")
	w.mustUninstall()
	if left := w.scripts(); !slices.Equal(left, []string{"etc/init.d/keyfob"}) {
		t.Errorf("left: %v", left)
	}
}

// The machine's metadata address goes with the machine's daemon.
func TestOpenRCUninstallTakesLinkLocalAlong(t *testing.T) {
	w := openRCWorld(t)
	w.answers()
	w.mustInstall()
	for forUser, stays := range map[string]bool{"alice": true, "": false} {
		script := filepath.Join(w.root, "etc/init.d", linkLocalScript)
		if err := os.WriteFile(script, []byte(w.c.linkLocalOpenRCText(nil, forUser, false)), 0o755); err != nil {
			t.Fatal(err)
		}
		p, err := w.manager().PlanUninstall(t.Context())
		if err != nil || strings.Contains(p.String(), "remove "+script) == stays {
			t.Errorf("of %q: %v, %v", forUser, p, err)
		}
	}
}

// TestOpenRCScript does with the script what OpenRC's own does, where it was
// built with capabilities and where it was not.
func TestOpenRCScript(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skipf("%s: needs sh", t.Name())
	}
	bin := t.TempDir()
	c := Config{Program: "/opt/kf/keyfobd", System: true, Args: []string{"--config", `/x y/it's $HOME`}, Env: []string{"PATH=" + bin + ":/bin:/usr/bin:/a'b"}}
	text := c.openrcText()
	if !strings.HasPrefix(text, "#!/sbin/openrc-run\n") {
		t.Errorf("no interpreter in the first line:\n%s", text)
	}
	if ours, untouched := madeBy(text); !ours || !untouched {
		t.Error("the script is not known as ours")
	}
	if ours, _ := madeBy(c.openrcPackageText()); ours || !strings.HasPrefix(c.openrcPackageText(), "#!/sbin/openrc-run\n"+openrcPackaged+"\n") {
		t.Error("the package's script is not known as the package's")
	}
	const daemon = "/opt/kf/keyfobd\nrun\n--service\n--system\n--config\n/x y/it's $HOME\n"
	for _, c := range []struct{ name, supervise, want string }{
		{"with", "true", "--no-new-privs --capabilities ^cap_sys_ptrace,^cap_dac_read_search,^cap_net_bind_service keyfob:keyfob\n" + daemon},
		{"without either", "false", " keyfob:keyfob\n" + daemon},
		{"without", "false", " \n" + bin + "/setpriv\n--reuid=keyfob\n--regid=keyfob\n--init-groups\n--no-new-privs\n" +
			"--inh-caps=+sys_ptrace,+dac_read_search,+net_bind_service\n--ambient-caps=+sys_ptrace,+dac_read_search,+net_bind_service\n" + daemon},
	} {
		for name, text := range map[string]string{"supervise-daemon": c.supervise, "setpriv": map[bool]string{true: "false", false: "true"}[c.name == "without either"]} {
			if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\nexec "+text+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		before := "checkpath() { :; }\newarn() { :; }\nset -eu\nRC_SVCNAME=keyfob\n"
		after := "\nstart_pre\necho \"${supervise_daemon_args-} ${command_user-}\"\neval printf '%s\\\\n' $command $command_args\n"
		out, err := exec.Command(sh, "-c", before+text+after).CombinedOutput()
		if err != nil || string(out) != c.want {
			t.Errorf("%s: %v: got %q, want %q", c.name, err, out, c.want)
		}
	}
}

// Root may open the log: its directory is not the daemon's, and without its
// file nothing is started.
func TestOpenRCLogIsNotInADirectoryOfTheDaemons(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skipf("%s: needs sh", t.Name())
	}
	bin := t.TempDir()
	for name, text := range map[string]string{"supervise-daemon": "false", "setpriv": "true"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\nexec "+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text := Config{Program: "/opt/kf/keyfobd", System: true}.openrcText()
	for _, c := range []struct{ broken, want string }{
		{"none", "started"},
		{"/var/log/keyfob", "refused"},
		{"/var/log/keyfob/keyfobd.log", "refused"},
	} {
		before := "checkpath() { echo \"$@\"; case $* in *' " + c.broken + "') return 1 ;; esac; }\newarn() { :; }\nPATH=" + bin + ":$PATH\nRC_SVCNAME=keyfob\n"
		out, err := exec.Command(sh, "-c", before+text+"\nstart_pre && echo started || echo refused\n").CombinedOutput()
		if err != nil || !strings.HasSuffix(string(out), "\n"+c.want+"\n") || !strings.Contains(string(out), "\n--directory --mode 0750 --owner root:keyfob /var/log/keyfob\n") {
			t.Errorf("%s: %v: %s", c.broken, err, out)
		}
		if c.broken == "none" && !strings.Contains(string(out), "\n--file --mode 0640 --owner keyfob:keyfob /var/log/keyfob/keyfobd.log\n") {
			t.Errorf("%s", out)
		}
	}
}

func TestLinkLocalOpenRC(t *testing.T) {
	const fake = `#!/bin/sh
echo "${0##*/} $*" >>"$STATE/log"
case "${0##*/} $*" in
"rc-service keyfob-link-local status") [ -e "$STATE/active" ] || exit 3 ;;
"rc-service --quiet keyfob-link-local start") touch "$STATE/active" ;;
"rc-service --quiet keyfob-link-local stop") rm -f "$STATE/active" ;;
"rc-update add keyfob-link-local default") mkdir -p "$UNITS/etc/runlevels/default"; touch "$UNITS/etc/runlevels/default/keyfob-link-local" ;;
"rc-update delete keyfob-link-local default") rm -rf "$UNITS/etc/runlevels" ;;
esac
exit 0
`
	w := newWorld(t, true)
	w.become("openrc", map[string]string{"rc-service": fake, "rc-update": fake})
	c := LinkLocalConfig{Config: w.c, User: "root", IPv4Only: true}
	c.Force = true
	c.System = false
	l, err := newLinkLocal(c)
	if err != nil {
		t.Fatal(err)
	}
	told := func() []string {
		return slices.DeleteFunc(w.log(), func(l string) bool { return strings.HasSuffix(l, "status") })
	}
	p, err := l.planEnable(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := told(); !slices.Equal(got, []string{"rc-update add keyfob-link-local default", "rc-service --quiet keyfob-link-local start"}) {
		t.Errorf("told %q", got)
	}
	if was, err := l.host.standing(); err != nil || !was.is || was.forUser != "root" {
		t.Errorf("%+v, %v", was, err)
	}
	if p, err := l.planEnable(t.Context(), nil); err != nil || !p.Empty() {
		t.Errorf("a second enable: %v %v", p, err)
	}
	if p, err = l.planDisable(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := p.runAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := told(); !slices.Equal(got, []string{"rc-service --quiet keyfob-link-local stop", "rc-update delete keyfob-link-local default"}) {
		t.Errorf("told %q", got)
	}
	if left := w.files(); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}
