package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const hostileToml = machineToml + `[[profile]]
name = "bob-guarded"
protected = true
`

// TestMachineAgainstItsUsers: what a user of the machine's daemon could learn
// of others, and what he could take from them.
func TestMachineAgainstItsUsers(t *testing.T) {
	if !inMachine(t) {
		return
	}
	m := newMachine(t, hostileToml)
	config, err := os.ReadFile("/etc/keyfob/aws/config")
	if err != nil {
		t.Fatal(err)
	}
	more := ""
	for _, p := range [][2]string{
		{"rob-db", "source_profile = base"}, {"bob-guarded", "source_profile = base"}, {"alice-mfa", "source_profile = mfabase"}, {"bob-mfa", "source_profile = mfabase"},
		{"bob-web", "web_identity_token_file = /root/HIDDEN/token\nexternal_note = HIDDEN\ns3 =\n  own = HIDDEN\n  addressing_style = path"},
		{"bob-policy", "source_profile = base\nsession_policy = /root/HIDDEN/policy.json"},
		{"bob-anywhere", "roles_anywhere_trust_anchor_arn = arn:aws:rolesanywhere:eu-west-1:222222222222:trust-anchor/a1b2c3d4-5678-90ab-cdef-111111111111\n" +
			"roles_anywhere_profile_arn = arn:aws:rolesanywhere:eu-west-1:222222222222:profile/a1b2c3d4-5678-90ab-cdef-222222222222\nroles_anywhere_certificate = /root/HIDDEN/cert.pem\nroles_anywhere_private_key = /root/HIDDEN/key.pem"},
		{"bob-known", "source_profile = base\nexternal_id = HIDDEN"},
	} {
		more += fmt.Sprintf("[profile %s]\nregion = eu-west-1\nrole_arn = %s\n%s\n", p[0], m.arns["secret"], p[1])
	}
	more += fmt.Sprintf("[profile mfabase]\nregion = eu-west-1\naws_access_key_id = %s\naws_secret_access_key = %s\nmfa_serial = arn:aws:iam::111122223333:mfa/x\n", m.id, m.key)
	m.write("/etc/keyfob/aws/config", string(config)+more)
	m.start()
	m.addKeys()
	for _, part := range []struct {
		name string
		f    func(*testing.T)
	}{
		{"administrators", m.judgeAdministrators}, {"names", m.hideNames}, {"places", m.hidePlaces}, {"links", m.hideNeighbours}, {"containers", m.refuseContainers}, {"grants", m.boundGrants},
		{"lines", m.boundLines}, {"questions", m.boundQuestions}, {"audit", m.boundAudit}, {"console", m.boundConsole}, // which spends bob's minute
	} {
		t.Run(part.name, func(t *testing.T) {
			m.t = t
			part.f(t)
		})
		m.t = t
	}
	if role := m.role(m.must(aliceUser, "credential-process", "--profile", "alice-app")); role != "alice-app" {
		t.Errorf("after all that alice gets %q", role)
	}
}

// judgeAdministrators: who administers the daemon has no more profiles than
// the rules give him, also where another's session is in memory.
func (m *sharedMachine) judgeAdministrators(t *testing.T) {
	m.must(bobUser, "credential-process", "--profile", "bob-app")
	const p = `{"profile":"bob-app","named":true,"profiles":["bob-app"]}`
	for _, uid := range []uint32{carolUser, 0} {
		for _, method := range []string{"credentials", "whoami", "console", "login", "policy", "grant-add"} {
			if out := m.call(uid, method, p); !strings.Contains(out, `"denied"`) {
				t.Errorf("%s of %s: %s", method, userNames[uid], out)
			}
		}
		exec := m.call(uid, "grant-add", strings.Replace(p, "}", `,"for_exec":true}`, 1), "grant-add", `{"profile":"alice-app","named":true,"profiles":["alice-app"],"for_exec":true}`,
			"grant-add", `{"profile":"nobody","named":true,"profiles":["bob-app"],"for_exec":true}`)
		if strings.Count(exec, `"error"`) != 3 {
			t.Errorf("exec of %s: %s", userNames[uid], exec)
		}
	}
	// A grant for any user gives what no rule gives: root's may, because root
	// writes the rules.
	const any = `{"profile":"alice-app","named":true,"profiles":["secret"],"any_user":true}`
	if out := m.call(carolUser, "grant-add", any); !strings.Contains(out, `"denied"`) {
		t.Errorf("a grant of carol's for any user: %s", out)
	}
	if out := m.call(0, "grant-add", any); !strings.Contains(out, `"token"`) {
		t.Errorf("a grant of root's for any user: %s", out)
	}
}

// hideNames: a rule may give names that no profile has; the one that is
// nearest is not told.
func (m *sharedMachine) hideNames(t *testing.T) {
	const p = `{"profile":"bob-db","named":true}`
	for _, method := range []string{"credentials", "explain", "login", "console", "whoami", "policy"} {
		if out := m.call(bobUser, method, p); !strings.Contains(out, `"unknown-profile"`) || strings.Contains(out, "rob-db") {
			t.Errorf("%s: %s", method, out)
		}
	}
	if out := m.call(bobUser, "grant-add", `{"profile":"bob-app","named":true,"profiles":["bob-db"],"for_exec":true}`); strings.Contains(out, "rob-db") {
		t.Errorf("grant-add: %s", out)
	}
	if out := m.call(0, "explain", p); !strings.Contains(out, "did you mean rob-db") {
		t.Errorf("an administrator is told %s", out)
	}
}

// hidePlaces: no method tells where the machine's files are, or shows
// settings that explain does not.
func (m *sharedMachine) hidePlaces(t *testing.T) {
	for _, profile := range []string{"bob-web", "bob-policy", "bob-anywhere", "bob-known"} {
		for _, method := range []string{"credentials", "login", "answer", "console", "whoami", "policy", "explain", "status", "list"} {
			if out := m.call(bobUser, method, fmt.Sprintf(`{"profile":%q,"named":true,"kind":"trust"}`, profile)); strings.Contains(out, "HIDDEN") || strings.Contains(out, "{}") {
				t.Errorf("%s of %s: %s", method, profile, out)
			}
		}
	}
	out := m.pipe(bobUser, []string{`{"id":1,"method":"grant-add","params":{"profile":"bob-app","named":true,"profiles":["bob-web"],"for_exec":true}}`}, 1)
	if strings.Contains(out, "HIDDEN") || !strings.Contains(out, "addressing_style = path") {
		t.Errorf("exec: %s", out)
	}
	var made struct {
		Result struct{ URL, Token string }
	}
	if err := json.Unmarshal([]byte(out[strings.Index(out, "\n")+1:]), &made); err != nil || made.Result.Token == "" {
		t.Fatalf("%v: %s", err, out)
	}
	r := m.as(bobUser, "", nil, "/run/bin/probe", "get", made.Result.URL, "Authorization", made.Result.Token)
	if strings.Contains(r.out, "HIDDEN") || !strings.Contains(r.out, `"status":5`) {
		t.Errorf("its endpoint: %s", r.out)
	}
	if out := m.call(0, "status", "{}"); !strings.Contains(out, "/root/HIDDEN/token") {
		t.Errorf("an administrator is told %s", out)
	}
}

// hideNeighbours: who shares a link with another user's profile is not told
// of that.
func (m *sharedMachine) hideNeighbours(t *testing.T) {
	const p = `{"profile":"%s-mfa","named":true,"may_ask":%t}`
	if out := m.call(bobUser, "credentials", fmt.Sprintf(p, "bob", false)); !strings.Contains(out, "bob-mfa") {
		t.Errorf("bob is told %s", out)
	}
	if out := m.call(aliceUser, "credentials", fmt.Sprintf(p, "alice", false), "status", "{}", "list", "{}"); strings.Contains(out, "bob-mfa") || !strings.Contains(out, "alice-mfa") {
		t.Errorf("alice is told %s", out)
	}
	login := func(uid uint32, name string) (net.Conn, string) {
		c := m.conn(uid)
		fmt.Fprintf(c, "{\"keyfob\":1}\n{\"id\":1,\"method\":\"login\",\"params\":"+p+"}\n", name, true)
		r := bufio.NewReader(c)
		for {
			line, err := r.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, `{"keyfob"`) {
				return c, line
			}
		}
	}
	b, prompt := login(bobUser, "bob")
	defer b.Close()
	if !strings.Contains(prompt, `"profile":"bob-mfa"`) {
		t.Errorf("bob is asked %s", prompt)
	}
	a, prompt := login(aliceUser, "alice")
	defer a.Close()
	if !strings.Contains(prompt, `"profile":"alice-mfa"`) || strings.Contains(prompt, "bob") {
		t.Errorf("alice is asked %s", prompt)
	}
}

// refuseContainers: root of a container is nobody, also where its number is
// root's.
func (m *sharedMachine) refuseContainers(t *testing.T) {
	for name, how := range map[string]*syscall.SysProcAttr{
		"pid":   {Cloneflags: syscall.CLONE_NEWPID},
		"mount": {Cloneflags: syscall.CLONE_NEWNS},
		"user": {Cloneflags: syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: bobUser, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: bobUser, Size: 1}}},
	} {
		for _, method := range []string{"list", "audit", "grant-list", "stop"} {
			cmd := exec.Command("/run/bin/caller", machineSocket, method, "{}")
			cmd.SysProcAttr = how
			if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), `"denied"`) {
				t.Errorf("%s: %s says %s, %v", name, method, out, err)
			}
		}
	}
}

// boundGrants: no note makes the list of grants longer than an answer may be.
func (m *sharedMachine) boundGrants(t *testing.T) {
	const p = `{"id":1,"method":"grant-add","params":{"profile":"bob-app","named":true,"profiles":["bob-app"%s],"for_exec":true,"note":%q}}`
	for what, line := range map[string]string{
		"a note":         fmt.Sprintf(p, "", strings.Repeat("x", 2000)),
		"many profiles":  fmt.Sprintf(p, strings.Repeat(`,"bob-app"`, 2000), ""),
		"a large line":   fmt.Sprintf(p, "", strings.Repeat("x", 600_000)),
		"a name":         fmt.Sprintf(p, `,"bob-`+strings.Repeat("x", 2000)+`"`, ""),
		"a name instead": `{"id":1,"method":"credentials","params":{"profile":"bob-` + strings.Repeat("x", 2000) + `","named":true}}`,
	} {
		if out := m.pipe(bobUser, []string{line}, 1); strings.Contains(out, `"token"`) || len(out) > 1000 {
			t.Errorf("%s: %s", what, out)
		}
	}
	began := time.Now()
	m.must(0, "grant", "list")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("root waits %v for the list", took)
	}
}

// boundLines: long names and long lines take no memory and no log.
func (m *sharedMachine) boundLines(t *testing.T) {
	size := func() int64 {
		st, err := os.Stat("/run/log")
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	before, log := m.rss(), size()
	for i := range 100 {
		m.pipe(bobUser, []string{fmt.Sprintf(`{"id":1,"method":"credentials","params":{"named":true,"profile":"%d%s"}}`, i, strings.Repeat("y", 900_000))}, 1)
		m.pipe(bobUser, []string{fmt.Sprintf(`{"id":1,"method":"credentials","params":{"named":true,"profile":"%d%s"}}`, i, strings.Repeat("y", 100_000))}, 1)
	}
	if now := m.rss(); now > before+60 {
		t.Errorf("it has %d MiB after %d", now, before)
	}
	if grown := size() - log; grown > 200_000 {
		t.Errorf("the log has grown by %d bytes", grown)
	}
}

// boundConsole: each address for a browser is a listener for a minute.
func (m *sharedMachine) boundConsole(t *testing.T) {
	var words []string
	for range 200 {
		words = append(words, "console", `{"profile":"bob-app","named":true,"open":true}`)
	}
	out := m.call(bobUser, words...)
	if n := strings.Count(out, `"url"`); n < 5 || n > 120 || strings.Count(out, `"unavailable"`) < 80 {
		t.Errorf("200 calls are %d addresses: %s", n, out[max(0, len(out)-300):])
	}
	if out := m.call(aliceUser, "whoami", `{"profile":"alice-app","named":true}`); !strings.Contains(out, `"arn"`) {
		t.Errorf("alice: %s", out)
	}
}

// boundQuestions: questions about one user's programs leave room for others'.
func (m *sharedMachine) boundQuestions(t *testing.T) {
	var started []*exec.Cmd
	for i := range 64 {
		program := fmt.Sprintf("/run/bin/p%d", i)
		if err := os.Link("/run/bin/probe", program); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "run", "/run/bin/caller", machineSocket, "credentials", `{"profile":"alice-guarded","named":true,"may_ask":true}`)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: stranger(aliceUser), Pdeathsig: syscall.SIGKILL, Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		started = append(started, cmd)
	}
	defer func() {
		for _, cmd := range started {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			_ = cmd.Wait()
		}
	}()
	waiting := func() int { return strings.Count(m.call(0, "status", "{}"), `"kind":"confirm"`) }
	eventually(t, "alice's questions wait", func() bool { return waiting() >= 16 })
	out := m.call(bobUser, "credentials", `{"profile":"bob-guarded","named":true}`)
	if !strings.Contains(out, "nobody is there to answer") {
		t.Errorf("bob is told %s", out)
	}
	if n := waiting(); n > 17 {
		t.Errorf("%d questions wait", n)
	}
}

// boundAudit: neither many names nor looking often makes many lines.
func (m *sharedMachine) boundAudit(t *testing.T) {
	size := func() int64 {
		st, err := os.Stat("/var/lib/keyfob/audit.jsonl")
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	m.audit(0)
	before := size()
	var lines []string
	for i := range 3000 {
		lines = append(lines, fmt.Sprintf(`{"id":%d,"method":"credentials","params":{"named":true,"profile":"n%d"}}`, i+1, i))
	}
	m.pipe(bobUser, lines, len(lines))
	lines = nil
	for i := range 200 {
		lines = append(lines, fmt.Sprintf(`{"id":%d,"method":"credentials","params":{"named":true,"profile":"one"}}`, 2*i+1), fmt.Sprintf(`{"id":%d,"method":"audit","params":{"limit":1}}`, 2*i+2))
	}
	m.pipe(bobUser, lines, len(lines))
	m.audit(0)
	if grown := size() - before; grown > 30_000 {
		t.Errorf("the log has grown by %d bytes", grown)
	}
}

// rss is the daemon's memory in MiB.
func (m *sharedMachine) rss() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	if err != nil {
		m.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n >> 10
		}
	}
	return 0
}

// conn is a connection to the daemon as a user, made in this process: the
// kernel notes who connects.
func (m *sharedMachine) conn(uid uint32) net.Conn {
	m.t.Helper()
	type made struct {
		c   net.Conn
		err error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its rights
		for _, call := range []uintptr{syscall.SYS_SETRESGID, syscall.SYS_SETRESUID} {
			if _, _, e := syscall.RawSyscall(call, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
				done <- made{nil, e}
				return
			}
		}
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err == nil {
			err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: machineSocket})
		}
		if err != nil {
			done <- made{nil, err}
			return
		}
		f := os.NewFile(uintptr(fd), "control")
		defer f.Close()
		c, err := net.FileConn(f)
		done <- made{c, err}
	}()
	x := <-done
	if x.err != nil {
		m.t.Fatal(x.err)
	}
	_ = x.c.SetDeadline(time.Now().Add(20 * time.Second))
	return x.c
}

// pipe sends lines over one connection without waiting, and returns what is
// replied to so many of them.
func (m *sharedMachine) pipe(uid uint32, lines []string, replies int) string {
	m.t.Helper()
	c := m.conn(uid)
	defer c.Close()
	go func() {
		w := bufio.NewWriter(c)
		fmt.Fprintln(w, `{"keyfob":1}`)
		for _, line := range lines {
			fmt.Fprintln(w, line)
		}
		_ = w.Flush()
	}()
	r := bufio.NewReader(c)
	var out strings.Builder
	for n := 0; n < replies; {
		line, err := r.ReadString('\n')
		if err != nil {
			return out.String() + err.Error()
		}
		out.WriteString(line)
		if strings.Contains(line, `"result"`) || strings.Contains(line, `"error"`) {
			n++
		}
	}
	return out.String()
}
