package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// A daemon for all users of a machine runs in a machine of its own: a network
// and a mount namespace in which /etc, /run and /var/lib are ours, with three
// users that are nowhere else. The test runs itself again in it.

const (
	keyfobUser = 60100
	aliceUser  = 60101
	bobUser    = 60102
	carolUser  = 60103
	devGroup   = 60110
	opsGroup   = 60111
)

var userNames = map[uint32]string{0: "root", keyfobUser: "keyfob", aliceUser: "alice", bobUser: "bob", carolUser: "carol"}

// inMachine reports whether this is the machine. If not, it runs the test in
// one.
func inMachine(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideVariable) == t.Name() {
		furnish(t)
		return true
	}
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root makes namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip (iproute2) is not installed")
	}
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	// As releases are built: with cgo a daemon can't give back capabilities.
	static := t.TempDir()
	build := exec.Command("go", "build", "-o", static+"/", "keyfob/cmd/...", "keyfob/internal/e2e/testdata/caller", "keyfob/internal/e2e/testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=4m")
	cmd.Env = append(os.Environ(), insideVariable+"="+t.Name(), binVariable+"="+static)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil && len(out) == 0:
		t.Skipf("namespaces can't be made here: %v", err)
	case err != nil:
		t.Errorf("inside: %v\n%s", err, out)
	case testing.Verbose():
		t.Logf("inside:\n%s", out)
	}
	return false
}

// furnish makes the machine's own /etc, /run and /var/lib, its users and
// addresses.
func furnish(t *testing.T) {
	t.Helper()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID, "mode=0755"))
	for _, dir := range []string{"/run/bin", "/run/varlib", "/run/home"} {
		must(os.Mkdir(dir, 0o755))
	}
	run("cp", "-a", "/etc", "/run/etc")
	must(unix.Mount("/run/etc", "/etc", "", unix.MS_BIND, ""))
	must(unix.Mount("/run/varlib", "/var/lib", "", unix.MS_BIND, ""))
	var passwd, group strings.Builder
	for uid, name := range userNames {
		if uid == 0 {
			continue
		}
		fmt.Fprintf(&passwd, "%s:x:%d:%d::/run/home/%s:/bin/sh\n", name, uid, uid, name)
		fmt.Fprintf(&group, "%s:x:%d:\n", name, uid)
		must(os.Mkdir("/run/home/"+name, 0o700))
		must(os.Chown("/run/home/"+name, int(uid), int(uid)))
	}
	fmt.Fprintf(&group, "dev:x:%d:bob\nkfops:x:%d:carol\n", devGroup, opsGroup)
	for file, text := range map[string]string{"/etc/passwd": passwd.String(), "/etc/group": group.String()} {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		must(err)
		_, err = f.WriteString(text)
		must(err)
		must(f.Close())
	}
	for _, name := range []string{"keyfob", "keyfobd", "keyfob-keyring", "keyfob-signin", "probe", "caller"} {
		copyProgram(t, filepath.Join(bin, name), "/run/bin/"+name)
	}
	for dir, uid := range map[string]int{"/run/keyfob": keyfobUser, "/var/lib/keyfob": keyfobUser, "/run/credentials": 0, "/etc/keyfob": 0, "/etc/keyfob/aws": 0} {
		must(os.MkdirAll(dir, 0o755))
		must(os.Chown(dir, uid, uid))
	}
	must(os.Chmod("/var/lib/keyfob", 0o700))
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"addr", "add", "169.254.169.254/32", "dev", "lo"}} {
		run("ip", args...)
	}
}

const machineSocket = "/run/keyfob/keyfob.sock"

// sharedMachine is the namespace with its daemon.
type sharedMachine struct {
	t    *testing.T
	aws  *fakeaws.Server
	url  string
	id   string
	key  string
	arns map[string]string
	cmd  *exec.Cmd
}

const machineToml = `default_profile = "shared"
[system]
admin_groups = ["kfops"]
[[endpoint]]
kind = "imds"
listen = "169.254.169.254:80"
profile = "shared"
allow_users = ["alice", "bob"]
[[endpoint.user]]
user = "alice"
profile = "alice-app"
[[endpoint.user]]
user = "bob"
profile = "bob-app"
[[endpoint]]
kind = "container"
listen = "127.0.0.1:9911"
allow_users = ["alice"]
[[profile]]
name = "alice-*"
allow_users = ["alice"]
[[profile]]
name = "bob-*"
allow_groups = ["dev"]
[[profile]]
name = "shared"
allow_users = ["alice", "bob"]
[[profile]]
name = "alice-guarded"
protected = true
[[profile]]
name = "program"
allow_users = ["alice"]
`

func newMachine(t *testing.T, toml string) *sharedMachine {
	t.Helper()
	m := &sharedMachine{t: t, arns: map[string]string{}}
	m.aws, m.url = fakeawstest.Start(t)
	m.id, m.key = m.aws.AddUser(fakeaws.UserSpec{Name: "machine"})
	config := "[profile base]\nregion = eu-central-1\nexternal_note = CANARY-of-base\n"
	for _, name := range []string{"alice-app", "alice-guarded", "bob-app", "shared", "secret"} {
		m.arns[name] = m.aws.AddRole(fakeaws.RoleSpec{Account: "222222222222", Name: name, Trust: []fakeaws.Trust{{Principals: []string{fakeaws.DefaultAccount}}}})
		config += fmt.Sprintf("[profile %s]\nregion = eu-west-1\nrole_arn = %s\nsource_profile = base\n", name, m.arns[name])
	}
	config += "[profile program]\ncredential_process = touch /run/home/ran\n"
	m.write("/etc/keyfob/aws/config", config)
	m.write("/etc/keyfob/config.toml", toml)
	m.write("/run/credentials/passphrase", "CANARY-passphrase")
	if err := os.Chown("/run/credentials/passphrase", keyfobUser, keyfobUser); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("/run/credentials/passphrase", 0o400); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.stop)
	return m
}

func (m *sharedMachine) write(path, text string) {
	m.t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		m.t.Fatal(err)
	}
}

// start runs the daemon as its unit does: as its own user, with the unit's
// capabilities, and an environment that tries to lead it astray.
func (m *sharedMachine) start() {
	m.t.Helper()
	m.cmd = exec.Command("/run/bin/keyfobd", "run", "--service", "--system")
	m.cmd.Env = []string{"PATH=/usr/bin:/bin", "AWS_ENDPOINT_URL=" + m.url, "CREDENTIALS_DIRECTORY=/run/credentials", "KEYFOB_FEDERATION_ENDPOINT=" + m.url + "/federation", "DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null",
		"HOME=/run/home/alice", "XDG_CONFIG_HOME=/run/home/alice", "XDG_DATA_HOME=/run/home/alice", "AWS_PROFILE=alice", "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=x"}
	m.cmd.Dir = "/"
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: keyfobUser, Gid: keyfobUser},
		AmbientCaps: []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_NET_BIND_SERVICE}, Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile("/run/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	m.cmd.Stderr = log
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	_ = log.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("unix", machineSocket); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			b, _ := os.ReadFile("/run/log")
			m.t.Fatalf("keyfobd does not serve: %s", b)
		}
	}
}

func (m *sharedMachine) stop() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	_ = m.cmd.Wait()
	m.cmd = nil
	b, _ := os.ReadFile("/run/log")
	if strings.Contains(string(b), "CANARY") || strings.Contains(string(b), m.key) {
		m.t.Error("the log has a secret")
	}
	if m.t.Failed() {
		lines := strings.Split(string(b), "\n")
		m.t.Logf("the log:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
}

// as runs a program as a user, with more in its environment.
func (m *sharedMachine) as(uid uint32, stdin string, env []string, name string, args ...string) result {
	m.t.Helper()
	home := "/run/home/" + userNames[uid]
	if uid == 0 {
		home = "/run/home"
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append([]string{"HOME=" + home, "PATH=/run/bin:/usr/bin:/bin", "CI=1", "DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null"}, env...)
	cmd.Dir = home
	cmd.Stdin = strings.NewReader(stdin)
	credential := &syscall.Credential{Uid: uid, Gid: uid}
	switch uid {
	case bobUser:
		credential.Groups = []uint32{devGroup}
	case carolUser:
		credential.Groups = []uint32{opsGroup}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	return (&world{t: m.t}).finish(cmd)
}

func (m *sharedMachine) keyfob(uid uint32, args ...string) result {
	m.t.Helper()
	return m.as(uid, "", nil, "/run/bin/keyfob", args...)
}

func (m *sharedMachine) must(uid uint32, args ...string) string {
	m.t.Helper()
	r := m.keyfob(uid, args...)
	if r.code != 0 {
		m.t.Fatalf("%s: keyfob %v: exit %d, %s%s", userNames[uid], args, r.code, r.out, r.err)
	}
	return r.out
}

// denied wants exit 4 and nothing that tells what there is.
func (m *sharedMachine) denied(uid uint32, args ...string) string {
	m.t.Helper()
	r := m.keyfob(uid, args...)
	if r.code != 4 || r.out != "" {
		m.t.Errorf("%s: keyfob %v: exit %d, %q %q", userNames[uid], args, r.code, r.out, r.err)
	}
	return r.err
}

// call is a raw call of a hostile client.
func (m *sharedMachine) call(uid uint32, words ...string) string {
	m.t.Helper()
	r := m.as(uid, "", nil, "/run/bin/caller", append([]string{machineSocket}, words...)...)
	return r.out + r.err
}

// role is the role of a credential_process document.
func (m *sharedMachine) role(doc string) string {
	m.t.Helper()
	var d document
	if json.Unmarshal([]byte(doc), &d) != nil {
		return ""
	}
	s, ok := m.aws.Session(d.AccessKeyId)
	if !ok {
		return ""
	}
	_, rest, _ := strings.Cut(s.ARN, ":assumed-role/")
	role, _, _ := strings.Cut(rest, "/")
	return role
}

func (m *sharedMachine) addKeys() {
	m.t.Helper()
	if r := m.as(0, fmt.Sprintf(`{"AccessKeyId":%q,"SecretAccessKey":%q}`, m.id, m.key), nil, "/run/bin/keyfob", "add", "base"); r.code != 0 {
		m.t.Fatalf("add: exit %d, %s", r.code, r.err)
	}
}
