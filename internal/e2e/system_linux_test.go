package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
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

// TestMachine: one daemon gives each user of a machine what the rules give
// him, by every way in, and nothing of anybody else.
func TestMachine(t *testing.T) {
	if !inMachine(t) {
		return
	}
	m := newMachine(t, machineToml)
	m.start()
	m.addKeys()

	part := func(name string, f func(*testing.T)) {
		t.Run(name, func(t *testing.T) {
			m.t = t
			f(t)
		})
		m.t = t
	}
	part("users", m.testUsers)
	part("admins", m.testAdmins)
	part("grants", m.testGrants)
	part("exec", m.testExec)
	part("hostile", m.testHostile)
	part("interactions", m.testInteractions)
	part("flood", m.testFlood)
	part("files", m.testFiles)
}

func (m *sharedMachine) testUsers(t *testing.T) {
	for _, c := range []struct {
		uid     uint32
		profile string
		mine    []string
		others  []string
	}{
		{aliceUser, "alice-app", []string{"alice-app", "alice-guarded", "program", "shared"}, []string{"bob-app", "secret", "base", "none"}},
		{bobUser, "bob-app", []string{"bob-app", "shared"}, []string{"alice-app", "secret", "base", "none", "alice-none"}},
		{carolUser, "", nil, []string{"bob-app", "secret", "none", "shared"}},
	} {
		if c.profile != "" {
			if role := m.role(m.must(c.uid, "credential-process", "--profile", c.profile)); role != c.profile {
				t.Errorf("%s gets %q", userNames[c.uid], role)
			}
			if role := m.role(m.must(c.uid, "credential-process")); role != "shared" {
				t.Errorf("%s gets %q without a name", userNames[c.uid], role)
			}
			if out := m.must(c.uid, "env", c.profile); !strings.Contains(out, "AWS_SESSION_TOKEN") {
				t.Errorf("env: %q", out)
			}
			p := m.probe(c.uid, "imds", "http://169.254.169.254")
			if p.Status != 200 || m.role(p.Body) != c.profile {
				t.Errorf("%s gets at the metadata address: %+v", userNames[c.uid], p)
			}
			var who struct{ Arn string }
			if json.Unmarshal([]byte(m.must(c.uid, "whoami", c.profile, "--json")), &who) != nil || !strings.Contains(who.Arn, c.profile) {
				t.Errorf("whoami: %+v", who)
			}
			if out := m.must(c.uid, "explain", c.profile, "--json"); !strings.Contains(out, m.arns[c.profile]) || strings.Contains(out, m.id) {
				t.Errorf("explain: %s", out)
			}
			if out := m.must(c.uid, "console", c.profile, "--print"); !strings.HasPrefix(out, "http") {
				t.Errorf("console: %q", out)
			}
		}
		if c.uid == carolUser {
			continue // an administrator sees all, and has no more than the rules give
		}
		var list struct {
			Profiles []struct{ Name string }
		}
		if err := json.Unmarshal([]byte(m.must(c.uid, "list", "--json")), &list); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range list.Profiles {
			names = append(names, p.Name)
		}
		if strings.Join(names, " ") != strings.Join(c.mine, " ") {
			t.Errorf("%s is shown %q", userNames[c.uid], names)
		}
		status := m.must(c.uid, "status", "--json")
		for _, name := range c.others {
			if strings.Contains(status, name+`"`) && name != "none" {
				t.Errorf("%s sees %s in %s", userNames[c.uid], name, status)
			}
		}
		var st struct {
			Sessions []struct {
				Profile string
				Callers int
			}
			Warnings []string
		}
		if err := json.Unmarshal([]byte(status), &st); err != nil || len(st.Sessions) == 0 {
			t.Fatalf("%s: %v", status, err)
		}
		for _, s := range st.Sessions {
			if s.Callers != 0 {
				t.Errorf("%s is told of callers: %+v", userNames[c.uid], s)
			}
		}
		// What he may not have and what is not there look alike.
		for _, verb := range []string{"credential-process", "explain", "env", "whoami", "console", "login"} {
			said := map[string]bool{}
			for _, name := range c.others {
				args := []string{verb, name}
				if verb == "credential-process" {
					args = []string{verb, "--profile", name}
				}
				said[strings.ReplaceAll(m.denied(c.uid, args...), name, "P")] = true
			}
			if len(said) != 1 {
				t.Errorf("%s of %s says: %v", verb, userNames[c.uid], said)
			}
		}
		// His own entries alone, and not why he was refused.
		for _, e := range m.audit(c.uid) {
			if e.Caller.UID != fmt.Sprint(c.uid) || e.Reason != "" {
				t.Errorf("%s is shown %+v", userNames[c.uid], e)
			}
		}
	}
	// A program's profile: no program is run, and it is said.
	if r := m.keyfob(aliceUser, "credential-process", "--profile", "program"); r.code != 1 || !strings.Contains(r.err, "does not work") {
		t.Errorf("a program: exit %d, %q", r.code, r.err)
	}
	if _, err := os.Stat("/run/home/ran"); err == nil {
		t.Error("the program was run")
	}
	if out := m.must(0, "explain", "program"); !strings.Contains(out, "process") {
		t.Errorf("%q", out)
	}
}

type machineEntry struct {
	Event, Profile, Reason string
	Caller                 struct{ UID, User string }
}

func (m *sharedMachine) audit(uid uint32, args ...string) (list []machineEntry) {
	m.t.Helper()
	out := m.must(uid, append([]string{"audit", "--json"}, args...)...)
	var all struct{ Entries []machineEntry }
	if err := json.Unmarshal([]byte(out), &all); err == nil && all.Entries != nil {
		return all.Entries
	}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var e machineEntry
		if line != "" && json.Unmarshal([]byte(line), &e) == nil && e.Event != "" {
			list = append(list, e)
		}
	}
	return list
}

// probe runs probe as a user.
func (m *sharedMachine) probe(uid uint32, args ...string) (p probed) {
	m.t.Helper()
	for range 20 {
		r := m.as(uid, "", nil, "/run/bin/probe", args...)
		if err := json.Unmarshal([]byte(r.out), &p); err != nil {
			m.t.Fatalf("%q: %v", r.out, err)
		}
		if p.Status != 503 {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	return p
}

func (m *sharedMachine) testAdmins(t *testing.T) {
	for _, uid := range []uint32{0, carolUser} {
		out := m.must(uid, "list", "--json")
		for _, name := range []string{"base", "secret", "alice-app", "bob-app"} {
			if !strings.Contains(out, `"`+name+`"`) {
				t.Errorf("%s is not shown %s", userNames[uid], name)
			}
		}
		m.must(uid, "reload")
		m.denied(uid, "credential-process", "--profile", "secret") // the rules give it to nobody
		if len(m.audit(uid)) == 0 {
			t.Errorf("%s sees no audit entries", userNames[uid])
		}
	}
	m.must(carolUser, "lock")
	if r := m.keyfob(aliceUser, "credential-process", "--profile", "alice-app"); r.code != 3 {
		t.Errorf("locked: exit %d, %q", r.code, r.err)
	}
	m.must(carolUser, "unlock")
	if role := m.role(m.must(aliceUser, "credential-process", "--profile", "alice-app")); role != "alice-app" {
		t.Errorf("after unlock: %q", role)
	}
	for _, uid := range []uint32{aliceUser, bobUser} {
		for _, args := range [][]string{{"reload"}, {"lock"}, {"logout", "shared"}, {"remove", "base", "--yes"}, {"audit", "verify"}, {"mfa", "list"}, {"login", "shared", "--force"}} {
			m.denied(uid, args...)
		}
	}
}

type machineGrant struct {
	ID, URL   string
	TokenFile string `json:"token_file"`
}

func (m *sharedMachine) grant(uid uint32, args ...string) (g machineGrant) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.must(uid, append([]string{"grant", "add", "--json"}, args...)...)), &g); err != nil {
		m.t.Fatal(err)
	}
	return g
}

func (m *sharedMachine) testGrants(t *testing.T) {
	g := m.grant(aliceUser, "alice-app")
	token, err := os.ReadFile(g.TokenFile)
	if err != nil || strings.HasPrefix(g.TokenFile, "/var/lib") {
		t.Fatalf("%+v: %v", g, err)
	}
	if st, err := os.Stat(g.TokenFile); err != nil || st.Mode().Perm() != 0o600 || st.Sys().(*syscall.Stat_t).Uid != aliceUser {
		t.Errorf("the token's file: %v, %v", st, err)
	}
	if p := m.probe(aliceUser, "get", g.URL, "Authorization", string(token)); m.role(p.Body) != "alice-app" {
		t.Errorf("alice gets %+v", p)
	}
	if p := m.probe(bobUser, "get", g.URL, "Authorization", string(token)); p.Status != 403 {
		t.Errorf("bob gets %+v", p)
	}
	if out := m.must(bobUser, "grant", "list", "--json"); strings.Contains(out, g.ID) {
		t.Errorf("bob sees alice's grant: %s", out)
	}
	mine, none := m.keyfob(bobUser, "grant", "remove", g.ID), m.keyfob(bobUser, "grant", "remove", strings.Repeat("0", 32))
	if mine.code != 1 || none.code != 1 || strings.ReplaceAll(mine.err, g.ID, "") != strings.ReplaceAll(none.err, strings.Repeat("0", 32), "") {
		t.Errorf("bob removes alice's grant: %+v, %+v", mine, none)
	}
	if out := m.must(aliceUser, "grant", "list", "--json"); !strings.Contains(out, g.ID) {
		t.Errorf("alice does not see it: %s", out)
	}
	m.denied(aliceUser, "grant", "add", "alice-app", "--any-user")
	m.denied(aliceUser, "grant", "add", "alice-app,bob-app")
	m.denied(bobUser, "grant", "add", "bob-app") // the container endpoint is not for him
	// A file that the daemon could write and he could not.
	if out := m.call(aliceUser, "grant-add", `{"profiles":["alice-app"],"profile":"alice-app","named":true,"token_file":"/var/lib/keyfob/audit.jsonl"}`); strings.Contains(out, "audit.jsonl") {
		t.Errorf("a file of his choice: %s", out)
	}
	m.must(aliceUser, "grant", "remove", g.ID)
	if p := m.probe(aliceUser, "get", g.URL, "Authorization", string(token)); p.Status != 401 {
		t.Errorf("after it was revoked: %+v", p)
	}
}

func (m *sharedMachine) testExec(t *testing.T) {
	for uid, profile := range map[uint32]string{aliceUser: "alice-app", bobUser: "bob-app"} {
		r := m.keyfob(uid, "exec", profile, "--", "/bin/sh", "-c", `exec /run/bin/probe get "$AWS_CONTAINER_CREDENTIALS_FULL_URI" Authorization "$(cat "$AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")"`)
		var p probed
		if json.Unmarshal([]byte(r.out), &p) != nil || m.role(p.Body) != profile {
			t.Errorf("%s: exit %d, %s%s", userNames[uid], r.code, r.out, r.err)
		}
		eventually(t, "the grant is revoked", func() bool {
			return !strings.Contains(m.must(0, "grant", "list", "--json"), `"exec, pid`)
		})
		left, _ := filepath.Glob("/run/home/" + userNames[uid] + "/.local/share/keyfob/*/*")
		if len(left) > 1 || len(left) == 1 && !strings.HasSuffix(left[0], ".lock") {
			t.Errorf("left behind: %q", left)
		}
	}
}

func (m *sharedMachine) testHostile(t *testing.T) {
	// Variables and files of his own choice.
	evil := []string{"AWS_CONFIG_FILE=/run/home/bob/evil", "AWS_SHARED_CREDENTIALS_FILE=/run/home/bob/evil", "AWS_ENDPOINT_URL=http://127.0.0.1:1", "AWS_CA_BUNDLE=/run/home/bob/evil",
		"AWS_REGION=evil", "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=x", "KEYFOB_CONFIG=/run/home/bob/config.toml", "KEYFOB_DATA_DIR=/run/home/bob/data",
		"KEYFOB_PROFILES_FILE=/run/home/bob/evil", "KEYFOB_KEYSTORE=pass", "AWS_ROLE_ARN=" + m.arns["secret"], "AWS_WEB_IDENTITY_TOKEN_FILE=/run/home/bob/evil", "KEYFOB_SOCKET=" + machineSocket}
	m.write("/run/home/bob/evil", fmt.Sprintf("[profile bob-app]\nrole_arn = %s\nsource_profile = base\ncredential_process = touch /run/home/bob/ran\n[profile shared]\nrole_arn = %s\nsource_profile = base\n", m.arns["secret"], m.arns["secret"]))
	m.write("/run/home/bob/config.toml", "[[profile]]\nname = \"*\"\nallow_users = [\"bob\"]\n")
	if r := m.as(bobUser, "", evil, "/run/bin/keyfob", "credential-process", "--profile", "bob-app"); r.code != 0 || m.role(r.out) != "bob-app" {
		t.Errorf("with an environment: exit %d, %q, %q", r.code, m.role(r.out), r.err)
	}
	if r := m.as(bobUser, "", append(evil, "AWS_PROFILE=secret"), "/run/bin/keyfob", "credential-process"); r.code != 4 {
		t.Errorf("AWS_PROFILE: exit %d, %q", r.code, r.err)
	}
	// Another role with what is below his own.
	m.denied(bobUser, "credential-process", "--profile", "bob-app", "--role-arn", m.arns["secret"])
	for what, words := range map[string][]string{
		"a role by call":     {"credentials", fmt.Sprintf(`{"profile":"bob-app","named":true,"role_arn":%q}`, m.arns["secret"])},
		"in capitals":        {"credentials", fmt.Sprintf(`{"profile":"bob-app","named":true,"ROLE_ARN":%q}`, m.arns["secret"])},
		"twice":              {"credentials", `{"profile":"bob-app","named":true,"profile":"secret"}`},
		"exec for another":   {"grant-add", `{"profile":"bob-app","named":true,"profiles":["secret"],"for_exec":true}`},
		"exec for two":       {"grant-add", `{"profile":"bob-app","named":true,"profiles":["bob-app","alice-app"],"for_exec":true}`},
		"grant of a role":    {"grant-add", fmt.Sprintf(`{"profile":"bob-app","named":true,"profiles":["bob-app"],"for_exec":true,"role_arn":%q}`, m.arns["secret"])},
		"console of another": {"console", `{"profile":"secret","named":true}`},
		"switch role":        {"console", `{"profile":"alice-app","named":true,"switch_role":true}`},
	} {
		out := m.call(bobUser, words...)
		if !strings.Contains(out, `"denied"`) || strings.Contains(out, "ASIA") || strings.Contains(out, "arn:") {
			t.Errorf("%s: %s", what, out)
		}
	}
	// Every method of administrators, and one that is not there.
	for _, method := range []string{"add", "remove", "logout", "lock", "unlock", "stop", "reload", "audit-verify", "mfa-add", "mfa-list", "mfa-remove", "mfa-code", "mfa-devices",
		"rotate", "doctor", "shadow", "sso-accounts", "foreign-keys", "import-key", "certificate-add", "certificate-list", "certificate-remove"} {
		out := m.call(bobUser, method, `{"profile":"bob-app","named":true,"passphrase":"x"}`)
		if !strings.Contains(out, `"denied"`) && !strings.Contains(out, "does not know it") {
			t.Errorf("%s: %s", method, out)
		}
	}
	if out := m.call(bobUser, "no-such-method", `{}`); !strings.Contains(out, `"protocol"`) {
		t.Errorf("an unknown method: %s", out)
	}
	// Many policies would be many sessions.
	var words []string
	for i := range 40 {
		words = append(words, "credentials", fmt.Sprintf(`{"profile":"bob-app","named":true,"policy":"{\"Statement\":[],\"Id\":\"%d\"}"}`, i))
	}
	if out := m.call(bobUser, words...); strings.Count(out, "different ones") != 8 {
		t.Errorf("40 policies: %s", out)
	}
	regions := len(m.aws.Calls("AssumeRole"))
	words = nil
	for i := range 20 {
		words = append(words, "credentials", fmt.Sprintf(`{"profile":"bob-app","named":true,"region":"eu-x-%d"}`, i))
	}
	m.call(bobUser, words...)
	if n := len(m.aws.Calls("AssumeRole")); n != regions {
		t.Errorf("20 regions are %d calls", n-regions)
	}
	// His own daemon's socket squatted by another user, and the machine's.
	if out := m.must(0, "status", "--json"); !strings.Contains(out, `"callers"`) {
		t.Errorf("%s", out)
	}
	m.testSquatting(t)
}

// testSquatting: a socket where keyfob looks for a daemon, served by somebody
// else, is told nothing.
func (m *sharedMachine) testSquatting(t *testing.T) {
	squat := func(socket string) (said func() string) {
		t.Helper()
		cmd := exec.Command("/run/bin/caller", "serve", socket, `{"id":1,"result":{"Version":1,"AccessKeyId":"EVIL","SecretAccessKey":"EVIL","SessionToken":"EVIL"}}`)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: stranger(bobUser), Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(out)
		if line, _ := r.ReadString('\n'); line != "ready\n" {
			t.Fatalf("the squatter says %q", line)
		}
		return func() string {
			_ = cmd.Process.Kill()
			b, _ := io.ReadAll(r)
			_ = cmd.Wait()
			_ = os.Remove(socket)
			return string(b)
		}
	}
	dir := "/run/home/open"
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	said := squat(dir + "/s")
	r := m.as(aliceUser, "", []string{"KEYFOB_SOCKET=" + dir + "/s"}, "/run/bin/keyfob", "credential-process", "--profile", "alice-app")
	if heard := said(); r.code != 1 || strings.Contains(r.out, "EVIL") || !strings.Contains(r.err, "another user") || heard != "" {
		t.Errorf("a socket of bob's: exit %d, %q, %q; it was told %q", r.code, r.out, r.err, heard)
	}
	// In the machine's own directory, were it ever open: its owner counts.
	m.stop()
	if err := os.Chmod("/run/keyfob", 0o777); err != nil {
		t.Fatal(err)
	}
	said = squat(machineSocket)
	r = m.keyfob(aliceUser, "credential-process", "--profile", "alice-app")
	if heard := said(); r.code == 0 || strings.Contains(r.out, "EVIL") || heard != "" {
		t.Errorf("the machine's socket, squatted: exit %d, %q, %q; it was told %q", r.code, r.out, r.err, heard)
	}
	if err := os.Chmod("/run/keyfob", 0o755); err != nil {
		t.Fatal(err)
	}
	m.start()
	if role := m.role(m.must(aliceUser, "credential-process", "--profile", "alice-app")); role != "alice-app" {
		t.Errorf("after a restart: %q", role)
	}
}

// testInteractions: whether a program may have a protected profile is asked
// of its own user.
func (m *sharedMachine) testInteractions(t *testing.T) {
	if r := m.keyfob(aliceUser, "credential-process", "--profile", "alice-guarded"); r.code != 3 {
		t.Fatalf("exit %d, %q", r.code, r.err)
	}
	var st struct{ Interactions []struct{ ID, Kind string } }
	if err := json.Unmarshal([]byte(m.must(aliceUser, "status", "--json")), &st); err != nil || len(st.Interactions) != 1 {
		t.Fatalf("alice sees %+v, %v", st, err)
	}
	id := st.Interactions[0].ID
	if out := m.must(bobUser, "status", "--json"); strings.Contains(out, id) {
		t.Errorf("bob sees it: %s", out)
	}
	mine, none := m.call(bobUser, "answer", fmt.Sprintf(`{"interaction":%q}`, id)), m.call(bobUser, "answer", `{"interaction":"00000000"}`)
	if !strings.Contains(mine, `"not-found"`) || strings.ReplaceAll(mine, id, "00000000") != none {
		t.Errorf("bob answers it: %s, %s", mine, none)
	}
	if out := m.call(bobUser, "answer", `{}`); !strings.Contains(out, "no question waits") {
		t.Errorf("bob answers the oldest: %s", out)
	}
}

// testFlood: what one user does keeps nobody else out.
func (m *sharedMachine) testFlood(t *testing.T) {
	cmd := exec.Command("/run/bin/caller", "flood", machineSocket, "500", "4s")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: stranger(bobUser), Pdeathsig: syscall.SIGKILL}
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var worst time.Duration
	answers := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); answers++ {
		began := time.Now()
		if role := m.role(m.must(aliceUser, "credential-process", "--profile", "alice-app")); role != "alice-app" {
			t.Errorf("alice gets %q", role)
		}
		worst = max(worst, time.Since(began))
	}
	_ = cmd.Wait()
	t.Logf("bob opened %s connections; alice had %d answers, the slowest in %v", strings.TrimSpace(out.String()), answers, worst)
	if answers < 5 || worst > 2*time.Second {
		t.Errorf("alice was kept out: %d answers, the slowest in %v", answers, worst)
	}
	if role := m.role(m.must(bobUser, "credential-process", "--profile", "bob-app")); role != "bob-app" {
		t.Errorf("bob gets %q afterwards", role)
	}
}

// testFiles: files that a user could write are not taken.
func (m *sharedMachine) testFiles(t *testing.T) {
	if err := os.Chown("/etc/keyfob/aws/config", bobUser, bobUser); err != nil {
		t.Fatal(err)
	}
	m.write("/run/home/x", "") // nothing of the daemon's
	if r := m.keyfob(0, "reload"); r.code != 1 || !strings.Contains(r.err, "belongs to user") {
		t.Errorf("reload: exit %d, %q", r.code, r.err)
	}
	if role := m.role(m.must(aliceUser, "credential-process", "--profile", "alice-app")); role != "alice-app" {
		t.Errorf("what was read before: %q", role)
	}
	m.stop()
	cmd := exec.Command("/run/bin/keyfobd", "run", "--system")
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	r := (&world{t: t}).finish(cmd)
	if r.code != 1 || !strings.Contains(r.err, "/etc/keyfob/aws/config belongs to user 60102") {
		t.Errorf("start: exit %d, %q", r.code, r.err)
	}
	if err := os.Chown("/etc/keyfob/aws/config", 0, 0); err != nil {
		t.Fatal(err)
	}
	m.start()
}

// TestMachineWithALockedVault: what needs no vault is served without it.
func TestMachineWithALockedVault(t *testing.T) {
	if !inMachine(t) {
		return
	}
	m := newMachine(t, "default_profile = \"web\"\n[[profile]]\nname = \"web\"\nallow_users = [\"alice\"]\n")
	if err := os.Remove("/run/credentials/passphrase"); err != nil {
		t.Fatal(err)
	}
	id, key := m.aws.AddUser(fakeaws.UserSpec{Name: "filed"})
	m.write("/etc/keyfob/aws/config", fmt.Sprintf("[profile web]\nregion = eu-west-1\nrole_arn = %s\nsource_profile = filed\n[profile filed]\naws_access_key_id = %s\naws_secret_access_key = %s\n", m.arns["alice-app"], id, key))
	m.start()
	if role := m.role(m.must(aliceUser, "credential-process")); role != "alice-app" {
		t.Errorf("alice gets %q", role)
	}
	var st struct{ Keystore struct{ Locked bool } }
	if err := json.Unmarshal([]byte(m.must(0, "status", "--json")), &st); err != nil || !st.Keystore.Locked {
		t.Errorf("%+v, %v", st, err)
	}
}
