//go:build unix

package service

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"keyfob/internal/atomicfile"
)

// fakeSystemctl keeps what it is told in files of $STATE: enabled, active,
// log, and fails as $STATE/fail says, "VERB|TEXT".
const fakeSystemctl = `#!/bin/sh
echo "$*" >>"$STATE/log"
[ "$1" = --user ] && shift
verb=$1
if [ -e "$STATE/fail" ]; then
	IFS='|' read -r what text <"$STATE/fail"
	if [ "$what" = "$verb" ] || [ "$what" = any ]; then
		echo "$text" >&2
		exit 1
	fi
fi
has() { [ -e "$STATE/$1" ] && echo "$2" || echo "$3"; }
case $verb in
show)
	for unit; do :; done
	file=$UNITS/$unit
	echo "Id=$unit"
	echo "LoadState=$(cat "$STATE/load" 2>/dev/null || { [ -e "$file" ] && echo loaded || echo not-found; })"
	echo "ActiveState=$(has active active inactive)"
	echo "SubState=$(has active running dead)"
	echo "UnitFileState=$(has enabled enabled disabled)"
	echo "MainPID=0"
	echo "Result=success"
	echo "FragmentPath=$file"
	echo "NeedDaemonReload=$(has stale yes no)"
	;;
enable | reenable) touch "$STATE/enabled" ;;
disable) rm -f "$STATE/enabled" ;;
start | restart) touch "$STATE/active" ;;
stop) rm -f "$STATE/active" ;;
esac
exit 0
`

// world is a machine with a fake systemctl, for the service of a user or of
// the machine.
type world struct {
	t           *testing.T
	root, state string
	units       string
	c           Config
}

func newWorld(t *testing.T, system bool) *world {
	t.Helper()
	w := &world{t: t, root: t.TempDir(), state: t.TempDir()}
	bin := t.TempDir()
	for name, text := range map[string]string{"systemctl": fakeSystemctl, "systemd-sysusers": "#!/bin/sh\necho sysusers \"$*\" >>\"$STATE/log\"\n", "journalctl": "#!/bin/sh\necho \"$*\"\n"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.c = Config{System: system, Program: "/usr/local/bin/keyfobd", Platform: "systemd", Root: w.root, UID: 1234,
		Getenv: func(name string) string { return map[string]string{"HOME": "/home/you"}[name] }}
	w.units = filepath.Join(w.root, "home/you/.config/systemd/user")
	if system {
		w.units = filepath.Join(w.root, "etc/systemd/system")
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("STATE", w.state)
	t.Setenv("UNITS", w.units)
	return w
}

func (w *world) manager() *Manager {
	w.t.Helper()
	m, err := New(w.c)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) set(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.state, name), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) unset(name string) { _ = os.Remove(filepath.Join(w.state, name)) }

func (w *world) has(name string) bool {
	_, err := os.Stat(filepath.Join(w.state, name))
	return err == nil
}

// log is what systemctl was told since the last time, less its questions.
func (w *world) log() []string {
	b, _ := os.ReadFile(filepath.Join(w.state, "log"))
	w.unset("log")
	var told []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "--user ")
		if !strings.HasPrefix(line, "show ") {
			told = append(told, line)
		}
	}
	return told
}

// files are the files below the root.
func (w *world) files() []string {
	var all []string
	_ = filepath.WalkDir(w.root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(w.root, path)
			all = append(all, rel)
		}
		return nil
	})
	return all
}

func (w *world) install() error {
	w.t.Helper()
	p, err := w.manager().PlanInstall(w.t.Context())
	if err != nil {
		return err
	}
	return w.manager().Install(w.t.Context(), p)
}

func (w *world) mustInstall() {
	w.t.Helper()
	if err := w.install(); err != nil {
		w.t.Fatal(err)
	}
}

func TestInstallAndUninstall(t *testing.T) {
	for _, system := range []bool{false, true} {
		w := newWorld(t, system)
		w.c.Root = w.root
		other := filepath.Join(w.units, "other.service")
		if err := os.MkdirAll(w.units, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(other, []byte("[Service]\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		plan, err := w.manager().PlanInstall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text := plan.String()
		for _, word := range []string{"write " + filepath.Join(w.units, serviceUnit), "write " + filepath.Join(w.units, socketUnit), "daemon-reload", "enable", "start"} {
			if !strings.Contains(text, word) {
				t.Errorf("the plan does not say %q:\n%s", word, text)
			}
		}
		if got := w.files(); len(got) != 1 {
			t.Errorf("a plan wrote: %v", got)
		}
		w.log()
		w.mustInstall()
		want := []string{"daemon-reload", "enable keyfob.service keyfob.socket", "start keyfob.socket keyfob.service"}
		if system {
			want = append([]string{"sysusers keyfob.conf"}, want...)
		}
		if got := w.log(); !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		if system { // systemd-sysusers would have
			if err := os.WriteFile(filepath.Join(w.root, "etc/passwd"), []byte("root:x:0:0\nkeyfob:x:999:999::/:\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if p, err := w.manager().PlanInstall(t.Context()); err != nil || !p.Empty() {
			t.Errorf("a second install: %v, %v", p, err)
		}
		p, err := w.manager().PlanUninstall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.log()
		if err := w.manager().Uninstall(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if got, want := w.log(), []string{"stop keyfob.socket keyfob.service", "disable keyfob.service keyfob.socket", "daemon-reload"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		left := slices.DeleteFunc(w.files(), func(f string) bool { return f == "etc/passwd" })
		if len(left) != 1 || filepath.Base(left[0]) != "other.service" {
			t.Errorf("left: %v", left)
		}
		if p, err := w.manager().PlanUninstall(t.Context()); err != nil || !p.Empty() {
			t.Errorf("a second uninstall: %v, %v", p, err)
		}
	}
}

func TestUpgradeRestartsInPlace(t *testing.T) {
	w := newWorld(t, false)
	w.mustInstall()
	w.c.Program = "/opt/new/keyfobd"
	w.log()
	w.mustInstall()
	if got, want := w.log(), []string{"daemon-reload", "reenable keyfob.service keyfob.socket", "restart keyfob.service"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	w.c.Socket = "/run/user/1234/other.sock"
	w.mustInstall()
	if got := w.log(); !slices.Contains(got, "stop keyfob.service keyfob.socket") {
		t.Errorf("another socket: told %q", got)
	}
	w.set("stale", "")
	w.mustInstall()
	if got, want := w.log(), []string{"daemon-reload", "restart keyfob.service"}; !slices.Equal(got, want) {
		t.Errorf("a unit that was not loaded again: told %q, want %q", got, want)
	}
}

func TestHalfDoneInstallIsMended(t *testing.T) {
	w := newWorld(t, false)
	w.mustInstall()
	path := filepath.Join(w.units, serviceUnit)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, broken := range map[string][]byte{"empty": nil, "cut": whole[:len(whole)/2]} {
		if err := os.WriteFile(path, broken, 0o644); err != nil {
			t.Fatal(err)
		}
		w.unset("enabled") // an enable that failed
		w.unset("active")
		w.mustInstall()
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, whole) || !w.has("enabled") || !w.has("active") {
			t.Errorf("%s: not mended: %v", name, err)
		}
	}
}

func TestWhatIsNotOursStays(t *testing.T) {
	w := newWorld(t, false)
	if err := os.MkdirAll(w.units, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.units, serviceUnit)
	if err := os.WriteFile(path, []byte("[Service]\nExecStart=/bin/mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.install(), "did not make")
	p, err := w.manager().PlanUninstall(t.Context())
	if err != nil || strings.Contains(p.String(), "remove "+path) || len(p.Notes) == 0 {
		t.Errorf("uninstall: %v\n%s", err, p)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.mustInstall()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(b, "# mine\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.install(), "edited by hand")
	w.c.Force = true
	w.mustInstall()
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, b) {
		t.Errorf("--force: %v", err)
	}
}

func TestMaskedUnit(t *testing.T) {
	w := newWorld(t, false)
	if err := os.MkdirAll(w.units, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.units, serviceUnit)
	if err := os.Symlink("/dev/null", path); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.install(), "masked")
	if to, err := os.Readlink(path); err != nil || to != "/dev/null" {
		t.Errorf("the mask is gone: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.set("load", "masked\n") // at run time
	wantError(t, w.install(), "masked")
	wantError(t, w.manager().Start(t.Context()), "masked")
}

// TestFailuresAreWordsAndUndone: each thing that systemctl can say, when it
// says so, and that nothing stays behind.
func TestFailuresAreWordsAndUndone(t *testing.T) {
	for _, c := range []struct {
		name, fail, words string
		system            bool
	}{
		{"no systemd", "any|System has not been booted with systemd as init system (PID 1). Can't operate.", "does not run on this machine", false},
		{"no bus", "any|Failed to connect to bus: No medium found", "lingering is off", false},
		{"no bus variables", "any|Failed to connect to bus: $DBUS_SESSION_BUS_ADDRESS and $XDG_RUNTIME_DIR not defined (consider using --machine=<user>@.host --user to connect to bus of other user)", "lingering is off", false},
		{"no bus of the machine", "any|Failed to connect to bus: Host is down", "cannot reach systemd", true},
		{"not permitted", "daemon-reload|Failed to reload daemon: Interactive authentication required.", "does not permit", true},
		{"access denied", "enable|Failed to enable unit: Access denied", "does not permit", true},
		{"read-only", "enable|Failed to enable unit: File /etc/systemd/system/sockets.target.wants/keyfob.socket: Read-only file system", "Read-only", true},
		{"masked", "start|Failed to start keyfob.service: Unit keyfob.service is masked.", "masked", false},
		{"does not start", "start|Job for keyfob.service failed because the control process exited with error code.", "does not start", false},
		{"something else", "enable|Failed to enable unit: The moon is full", "The moon is full", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.system)
			w.set("fail", c.fail)
			err := w.install()
			if err == nil || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %q", err, c.words)
			}
			if c.name != "something else" {
				wantError(t, err, c.words)
			}
			if left := w.files(); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if w.has("enabled") || w.has("active") {
				t.Error("it is still enabled or active")
			}
			if made, err := os.ReadDir(w.root); err != nil || len(made) > 0 {
				t.Errorf("directories that it made are left: %v", made)
			}
		})
	}
}

func TestFailedUpgradeGoesBack(t *testing.T) {
	w := newWorld(t, false)
	w.mustInstall()
	path := filepath.Join(w.units, serviceUnit)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w.c.Program = "/opt/new/keyfobd"
	w.set("fail", "restart|Job for keyfob.service failed because the control process exited with error code.")
	w.log()
	wantError(t, w.install(), "does not start")
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, old) {
		t.Errorf("the old unit is not back: %v", err)
	}
	if got := w.log(); len(got) < 2 || !slices.Equal(got[len(got)-2:], []string{"daemon-reload", "restart keyfob.service"}) || !w.has("enabled") {
		t.Errorf("told %q", got)
	}
}

func TestUnwritableDirectories(t *testing.T) {
	if os.Getuid() == 0 {
		// Root may write anywhere but here.
		err := atomicfile.Write("/proc/keyfob-test", []byte("x"), atomicfile.Options{Mode: 0o644})
		if err == nil {
			t.Fatal("/proc took a file")
		}
	} else {
		w := newWorld(t, false)
		if err := os.Chmod(w.root, 0o500); err != nil {
			t.Fatal(err)
		}
		wantError(t, w.install(), "permission denied")
	}
	for errno, words := range map[syscall.Errno]string{syscall.EROFS: "read-only", syscall.EACCES: "permission denied", syscall.ENOSPC: "no space"} {
		wantError(t, fileError("write", "/etc/x", &fs.PathError{Op: "open", Path: "/etc/x", Err: errno}), words)
	}
}

func TestPrivilege(t *testing.T) {
	w := newWorld(t, true)
	w.c.Root = ""
	for _, do := range []func() error{
		func() error { _, err := w.manager().PlanInstall(t.Context()); return err },
		func() error { _, err := w.manager().PlanUninstall(t.Context()); return err },
		func() error { return w.manager().Stop(t.Context()) },
	} {
		wantError(t, do(), "takes root")
	}
	w = newWorld(t, false)
	w.c.UID = 0
	w.c.Getenv = func(name string) string { return map[string]string{"HOME": "/root", "SUDO_USER": "you"}[name] }
	wantError(t, w.install(), "root's own service")
}

func TestControlStatusAndLogs(t *testing.T) {
	w := newWorld(t, false)
	wantError(t, w.manager().Start(t.Context()), "not installed")
	if s, err := w.manager().Status(t.Context()); err != nil || s.Installed || s.State != "not installed" {
		t.Errorf("%+v, %v", s, err)
	}
	w.mustInstall()
	w.log()
	m := w.manager()
	for verb, do := range map[string]func(context.Context) error{"start keyfob.socket keyfob.service": m.Start, "stop keyfob.socket keyfob.service": m.Stop, "restart keyfob.service": m.Restart} {
		if err := do(t.Context()); err != nil {
			t.Error(err)
		}
		if got := w.log(); !slices.Equal(got, []string{verb}) {
			t.Errorf("told %q, want %q", got, verb)
		}
	}
	w.set("active", "")
	s, err := m.Status(t.Context())
	if err != nil || !s.Installed || !s.Enabled || !s.Running || s.Problem != "" {
		t.Errorf("%+v, %v", s, err)
	}
	var out bytes.Buffer
	if err := m.Logs(t.Context(), &out, LogOptions{Lines: 7}); err != nil || !strings.Contains(out.String(), "--lines=7") || !strings.Contains(out.String(), "--user-unit=keyfob.service") {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestRoomIsMadeBeforeAStart(t *testing.T) {
	w := newWorld(t, false)
	asked := 0
	w.c.MakeRoom = func(context.Context) error {
		asked++
		if w.has("active") {
			t.Error("asked after the start")
		}
		return nil
	}
	w.mustInstall()
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

func TestPackagedUnitIsUsed(t *testing.T) {
	w := newWorld(t, false)
	w.c.Program = "/usr/bin/keyfobd"
	dir := filepath.Join(w.root, "usr/lib/systemd/user")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{serviceUnit: w.c.unitText(), socketUnit: w.c.socketText()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("UNITS", dir)
	before := w.files()
	w.mustInstall()
	if got := w.files(); !slices.Equal(got, before) {
		t.Errorf("wrote beside the package's units: %v", got)
	}
	if got, want := w.log(), []string{"enable keyfob.service keyfob.socket", "start keyfob.socket keyfob.service"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestUninstallWithoutSystemd: what an install left is removed although
// nobody answers, with the links of enable.
func TestUninstallWithoutSystemd(t *testing.T) {
	w := newWorld(t, false)
	w.mustInstall()
	wants := filepath.Join(w.units, "default.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{serviceUnit: filepath.Join(w.units, serviceUnit), "other.service": "/usr/lib/systemd/user/other.service"} {
		if err := os.Symlink(to, filepath.Join(wants, name)); err != nil {
			t.Fatal(err)
		}
	}
	w.set("fail", "any|Failed to connect to bus: No medium found")
	p, err := w.manager().PlanUninstall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.manager().Uninstall(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if left := w.files(); len(left) != 1 || filepath.Base(left[0]) != "other.service" {
		t.Errorf("left: %v", left)
	}
}

func TestPassphraseCredential(t *testing.T) {
	w := newWorld(t, true)
	w.c.PassphraseCredential = "/etc/credstore.encrypted/100%.cred"
	w.mustInstall()
	path := filepath.Join(w.units, "keyfob.service.d/passphrase.conf")
	b, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(b), "\nLoadCredentialEncrypted=keyfob.passphrase:/etc/credstore.encrypted/100%%.cred\n") {
		t.Errorf("%v:\n%s", err, b)
	}
	w.c.PassphraseCredential = ""
	w.mustInstall()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("an upgrade lost the passphrase: %v", err)
	}
	p, err := w.manager().PlanUninstall(t.Context())
	if err != nil || !strings.Contains(p.String(), "remove "+path+"\n") || !strings.Contains(p.String(), "remove "+filepath.Dir(path)+"\n") {
		t.Errorf("uninstall: %v\n%s", err, p)
	}
	w.c.System, w.c.PassphraseCredential = false, "/x"
	_, err = New(w.c)
	wantError(t, err, "systemd credential")
}

// TestSystemctlIsMissing: PATH has none.
func TestSystemctlIsMissing(t *testing.T) {
	w := newWorld(t, false)
	t.Setenv("PATH", t.TempDir())
	if _, err := exec.LookPath("systemctl"); err == nil {
		t.Skipf("%s: systemctl is found without a PATH", t.Name())
	}
	wantError(t, w.install(), "does not run on this machine")
}

func TestInstallWritesTheEnvironmentDown(t *testing.T) {
	w := newWorld(t, false)
	env := map[string]string{"HOME": "/home/you", "PATH": "/home/you/bin:rel:/usr/bin:/usr/bin", "KEYFOB_DATA_DIR": "/home/you/vault"}
	w.c.Getenv = func(name string) string { return env[name] }
	install := func(args ...string) error {
		var out, said bytes.Buffer
		return Main(t.Context(), w.c, append([]string{"install"}, args...), &out, &said)
	}
	if err := install("--socket", "/home/you/s.sock"); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(w.units, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if text := read("keyfob.service"); !strings.Contains(text, "run --service --socket /home/you/s.sock --data-dir /home/you/vault\n") {
		t.Errorf("%s", text)
	}
	if text := read("keyfob.socket"); !strings.Contains(text, "\nListenStream=/home/you/s.sock\n") {
		t.Errorf("%s", text)
	}
	if text := read("keyfob.service.d/path.conf"); !strings.Contains(text, "\nEnvironment=PATH=/home/you/bin:/usr/bin\n") {
		t.Errorf("%s", text)
	}
	// A poorer PATH, as cron has it, takes nothing away; a new directory counts.
	env["PATH"] = "/usr/bin"
	if err := install("--socket", "/home/you/s.sock"); err != nil {
		t.Fatal(err)
	}
	if text := read("keyfob.service.d/path.conf"); !strings.Contains(text, "PATH=/home/you/bin:/usr/bin\n") {
		t.Errorf("a poorer PATH replaced it: %s", text)
	}
	env["PATH"] = "/usr/bin:/opt/new/100%"
	if err := install("--socket", "/home/you/s.sock"); err != nil {
		t.Fatal(err)
	}
	if text := read("keyfob.service.d/path.conf"); !strings.Contains(text, "PATH=/usr/bin:/opt/new/100%%\n") {
		t.Errorf("%s", text)
	}
	w.log()
	if err := install("--socket", "/home/you/s.sock"); err != nil || len(w.log()) != 0 {
		t.Errorf("a second install does something: %v", err)
	}
	w.mustUninstall()
	if left := w.files(); len(left) != 0 {
		t.Errorf("left %q", left)
	}
	var usage *UsageError
	if err := install("--system", "--config", "/x"); !errors.As(err, &usage) || usage.Hint() == "" {
		t.Errorf("%v", err)
	}
}

func TestPurgeRemovesAll(t *testing.T) {
	w := newWorld(t, true)
	w.c.Env = nil
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "userdel"), []byte("#!/bin/sh\necho userdel \"$*\" >>\"$STATE/log\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for path, text := range map[string]string{"etc/passwd": "keyfob:x:999:999::/:\n", "var/lib/keyfob/vault/keys": "x", "etc/keyfob/config.toml": "", "etc/other": ""} {
		full := filepath.Join(w.root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.mustInstall()
	w.mustUninstall()
	if left := w.files(); !slices.Contains(left, "var/lib/keyfob/vault/keys") || !slices.Contains(left, "etc/keyfob/config.toml") {
		t.Errorf("an uninstall removed data: %q", left)
	}
	w.log()
	w.c.Purge = true
	w.mustUninstall() // also where nothing is installed any more
	if left := w.files(); !slices.Equal(left, []string{"etc/other", "etc/passwd"}) {
		t.Errorf("left %q", left)
	}
	if told := w.log(); !slices.Equal(told, []string{"userdel keyfob"}) {
		t.Errorf("told %q", told)
	}
	w.c.System = false
	_, err := w.manager().PlanUninstall(t.Context())
	wantError(t, err, "own vault")
}
