package keystoretest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus"
)

const (
	secretsName     = "org.freedesktop.secrets"
	secretsPath     = "/org/freedesktop/secrets"
	loginCollection = dbus.ObjectPath(secretsPath + "/collection/login")
	// guiltRidden is gnome-keyring's interface for tests: it unlocks
	// without a prompt.
	guiltRidden = "org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface"
)

// Bus is a private session bus. It ends with the test, also when the test
// binary is killed: it lives as long as its standard input is open.
type Bus struct {
	Address string
	Dir     string // HOME, XDG_DATA_HOME and XDG_RUNTIME_DIR are in it
	t       testing.TB
	conn    *dbus.Conn
}

// StartBus starts a bus that can start no services (activate false), or
// those that are installed. It skips the test where dbus-run-session is
// missing.
func StartBus(t testing.TB, activate bool) *Bus {
	t.Helper()
	need(t, "dbus-run-session")
	dir, err := os.MkdirTemp("", "bus-") // short, for the names of sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &Bus{Dir: dir, t: t}
	for _, d := range []string{"home", "data", "run"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"--", "sh", "-c", `echo "$DBUS_SESSION_BUS_ADDRESS"; exec cat`}
	if !activate {
		conf := filepath.Join(dir, "bus.conf")
		text := `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:dir=` + dir + `/run</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--config-file=" + conf}, args...)
	}
	cmd := exec.Command("dbus-run-session", args...)
	cmd.Env = b.Env("")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.endActivated()
		_ = in.Close()
		end := time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		defer end.Stop()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-run-session gave no address: %v", err)
	}
	b.Address = strings.TrimSpace(line)
	if b.conn, err = dbus.Dial(b.Address); err == nil {
		if err = b.conn.Auth(nil); err == nil {
			err = b.conn.Hello()
		}
	}
	if err != nil {
		t.Fatalf("cannot connect to the test's bus: %v", err)
	}
	t.Cleanup(func() { _ = b.conn.Close() })
	return b
}

// need skips the test where a program is missing.
func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("skipped: %s is not installed", program)
	}
}

// Env is the environment of a session on this bus, with that DISPLAY.
func (b *Bus) Env(display string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.Dir + "/home", "XDG_DATA_HOME=" + b.Dir + "/data", "XDG_RUNTIME_DIR=" + b.Dir + "/run",
		"XDG_DATA_DIRS=/usr/local/share:/usr/share"}
	if b.Address != "" {
		env = append(env, "DBUS_SESSION_BUS_ADDRESS="+b.Address)
	}
	if display != "" {
		env = append(env, "DISPLAY="+display)
	}
	return env
}

// Use makes this the session of the test's own process, and so of the
// helpers that it starts.
func (b *Bus) Use(t *testing.T, display string) {
	t.Helper()
	t.Setenv("WAYLAND_DISPLAY", "")
	t.Setenv("DISPLAY", "")
	for _, kv := range b.Env(display) {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
}

// Conn is a connection of the test to the bus.
func (b *Bus) Conn() *dbus.Conn { return b.conn }

// owner is the process that owns a name on the bus, 0 for none.
func (b *Bus) owner(name string) (pid uint32) {
	if b.conn == nil {
		return 0
	}
	if b.conn.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixProcessID", 0, name).Store(&pid) != nil {
		return 0
	}
	return pid
}

// endActivated ends the services that the bus has started by itself.
func (b *Bus) endActivated() {
	for _, name := range []string{secretsName, "org.gnome.keyring.SystemPrompter", "org.gnome.keyring.PrivatePrompter"} {
		pid := b.owner(name)
		if pid == 0 || int(pid) == os.Getpid() {
			continue
		}
		_ = syscall.Kill(int(pid), syscall.SIGTERM)
		for i := 0; i < 200 && b.owner(name) == pid; i++ {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// SecretService is a gnome-keyring on a private bus, with an unlocked
// collection "login".
type SecretService struct {
	*Bus
	cmd *exec.Cmd
}

// KeyringPassword opens the test's collection "login".
const KeyringPassword = "test-login-password"

// StartSecretService starts a private bus and a gnome-keyring on it, which
// end with the test. It skips the test where one of the programs is missing.
func StartSecretService(t testing.TB) *SecretService {
	t.Helper()
	need(t, "gnome-keyring-daemon")
	s := &SecretService{Bus: StartBus(t, true)}
	s.Start()
	return s
}

// Start starts gnome-keyring (again), its collection "login" unlocked.
func (s *SecretService) Start() {
	s.t.Helper()
	cmd := exec.Command("gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
	cmd.Env = s.Env("")
	cmd.Stdin = strings.NewReader(KeyringPassword)
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.cmd = cmd
	s.t.Cleanup(func() { s.end(cmd) })
	for end := time.Now().Add(15 * time.Second); s.owner(secretsName) != uint32(cmd.Process.Pid) || s.Locked(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.end(cmd)
			s.t.Fatalf("gnome-keyring-daemon did not come up: %s", errs.String())
		}
	}
}

func (s *SecretService) end(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}
}

// Kill kills gnome-keyring. The bus will start another one, locked, when
// somebody asks for a Secret Service.
func (s *SecretService) Kill() { s.end(s.cmd) }

// KillAny ends whichever Secret Service is there.
func (s *SecretService) KillAny() {
	s.end(s.cmd)
	s.endActivated()
}

// Signal sends gnome-keyring a signal.
func (s *SecretService) Signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Locked reports whether the collection "login" is locked or missing.
func (s *SecretService) Locked() bool {
	v, err := s.conn.Object(secretsName, loginCollection).GetProperty("org.freedesktop.Secret.Collection.Locked")
	if err != nil {
		return true
	}
	locked, ok := v.Value().(bool)
	return locked || !ok
}

// Lock locks the collection "login".
func (s *SecretService) Lock() {
	s.t.Helper()
	var locked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	err := s.conn.Object(secretsName, secretsPath).Call("org.freedesktop.Secret.Service.Lock", 0, []dbus.ObjectPath{loginCollection}).Store(&locked, &prompt)
	if err != nil || !s.Locked() {
		s.t.Fatalf("cannot lock the keyring: %v", err)
	}
}

// Unlock unlocks the collection "login".
func (s *SecretService) Unlock() {
	s.t.Helper()
	service := s.conn.Object(secretsName, secretsPath)
	var out dbus.Variant
	var session dbus.ObjectPath
	if err := service.Call("org.freedesktop.Secret.Service.OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&out, &session); err != nil {
		s.t.Fatalf("cannot open a session: %v", err)
	}
	secret := struct {
		Session     dbus.ObjectPath
		Parameters  []byte
		Value       []byte
		ContentType string
	}{session, []byte{}, []byte(KeyringPassword), "text/plain"}
	if err := service.Call(guiltRidden+".UnlockWithMasterPassword", 0, loginCollection, secret).Err; err != nil || s.Locked() {
		s.t.Fatalf("cannot unlock the keyring: %v", err)
	}
}

// Items lists the labels in the collection "login".
func (s *SecretService) Items() []string {
	s.t.Helper()
	v, err := s.conn.Object(secretsName, loginCollection).GetProperty("org.freedesktop.Secret.Collection.Items")
	if err != nil {
		s.t.Fatal(err)
	}
	var labels []string
	for _, p := range v.Value().([]dbus.ObjectPath) {
		l, err := s.conn.Object(secretsName, p).GetProperty("org.freedesktop.Secret.Item.Label")
		if err != nil {
			s.t.Fatal(err)
		}
		labels = append(labels, fmt.Sprint(l.Value()))
	}
	return labels
}

// DismissPrompts plays the person at the display who closes every prompt of
// the keyring. It returns a function that tells how many there were.
func (b *Bus) DismissPrompts() (count func() int) {
	b.t.Helper()
	p := &prompter{conn: b.conn, seen: make(chan struct{}, 1000)}
	if err := b.conn.Export(p, "/org/gnome/keyring/Prompter", "org.gnome.keyring.internal.Prompter"); err != nil {
		b.t.Fatal(err)
	}
	reply, err := b.conn.RequestName("org.gnome.keyring.SystemPrompter", dbus.NameFlagReplaceExisting|dbus.NameFlagDoNotQueue)
	if err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		b.t.Fatalf("cannot be the prompter: %v, %v", reply, err)
	}
	return func() int { return len(p.seen) }
}

// prompter is the interface org.gnome.keyring.internal.Prompter, as
// gcr-prompter serves it: the keyring announces a callback object, is told
// when it may prompt, describes the prompt, and is told the answer.
type prompter struct {
	conn *dbus.Conn
	seen chan struct{} // one for each prompt that was shown
}

func (p *prompter) ready(sender dbus.Sender, callback dbus.ObjectPath, reply string) {
	// The keyring takes this only after the answer to its own call.
	time.AfterFunc(20*time.Millisecond, func() {
		p.conn.Object(string(sender), callback).Call("org.gnome.keyring.internal.Prompter.Callback.PromptReady", dbus.FlagNoReplyExpected,
			reply, map[string]dbus.Variant{}, "")
	})
}

func (p *prompter) BeginPrompting(callback dbus.ObjectPath, sender dbus.Sender) *dbus.Error {
	p.ready(sender, callback, "")
	return nil
}

func (p *prompter) PerformPrompt(callback dbus.ObjectPath, kind string, properties map[string]dbus.Variant, exchange string, sender dbus.Sender) *dbus.Error {
	select {
	case p.seen <- struct{}{}:
	default:
	}
	p.ready(sender, callback, "no")
	return nil
}

func (p *prompter) StopPrompting(callback dbus.ObjectPath, sender dbus.Sender) *dbus.Error {
	p.conn.Object(string(sender), callback).Call("org.gnome.keyring.internal.Prompter.Callback.PromptDone", dbus.FlagNoReplyExpected)
	return nil
}
