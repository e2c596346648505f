package access

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
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

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// The test binary is also the stranger: it tries to connect or to read, as
// KEYFOB_TEST_ACT says, tells what came of it, and stays until its standard
// input ends.
func TestMain(m *testing.M) {
	if act := os.Getenv("KEYFOB_TEST_ACT"); act != "" {
		what, target, _ := strings.Cut(act, "|")
		var err error
		if what == "read" {
			_, err = os.ReadFile(target)
		} else {
			_, err = net.Dial(what, target)
		}
		fmt.Println("done:", err)
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// loopback is a connection of this process to itself; the second is the
// accepted end.
func loopback(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l := listenTCP(t)
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, accept(t, l)
}

func listenTCP(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// stranger runs act in a process with attr and returns what came of it.
func stranger(t *testing.T, act string, attr *syscall.SysProcAttr) (pid int, said string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "keyfob-access-") // every user may enter it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "stranger")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, b, 0o755), os.Chmod(program, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = []string{"KEYFOB_TEST_ACT=" + act, "GORACE=atexit_sleep_ms=0"}
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("%s: this machine does not permit such a process: %v", t.Name(), err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("stranger: %q, %v", line, err)
	}
	return cmd.Process.Pid, strings.TrimSpace(line)
}

const secondUser = "54321" // nobody's on any machine that the tests run on

func asSecondUser(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("%s: needs root", t.Name())
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
}

// A second user connects to the port with a token and a grant that he stole,
// and reads what the files let him: nothing is his.
func TestSecondUserGetsNothing(t *testing.T) {
	attr := asSecondUser(t)
	l := listenTCP(t)
	via := cred.Endpoint{Kind: cred.ViaIMDS, Listen: l.Addr().String()}
	grants := cred.Endpoint{Kind: cred.ViaContainer, Listen: l.Addr().String()}
	r, err := NewRules(RulesConfig{Owner: peer.Self(), Endpoints: []EndpointRule{{Kind: via.Kind, Listen: via.Listen, Profile: "app"}, {Kind: grants.Kind, Listen: grants.Listen}}})
	if err != nil {
		t.Fatal(err)
	}
	resolver := peer.NewResolver()
	defer resolver.Close()

	pid, said := stranger(t, "tcp4|"+l.Addr().String(), attr)
	if said != "done: <nil>" {
		t.Fatal(said)
	}
	thief, err := resolver.Of(accept(t, l))
	if err != nil || thief.UID != secondUser {
		t.Fatalf("%+v, %v", thief, err)
	}
	if p, err := thief.Program(t.Context()); err != nil || p.PID != pid {
		t.Errorf("program is %+v, %v", p, err)
	}
	now := time.Now()
	if err := r.Check(thief, "app", via); !errors.Is(err, cred.ErrDenied) {
		t.Errorf("the port: %v", err)
	}
	tokens := NewTokens([32]byte{1})
	stolen := tokens.Mint(now, time.Hour, Binding{Endpoint: via.Listen, UID: peer.Self()})
	if _, err := tokens.Verify(stolen, now, Binding{Endpoint: via.Listen, UID: thief.UID}); !errors.Is(err, ErrBadToken) {
		t.Errorf("a stolen token: %v", err)
	}

	dir := filepath.Join(realDir(t), "grants")
	g := OpenGrants(newMemory(), dir)
	for _, relative := range []bool{false, true} {
		grant, token := add(t, g, GrantSpec{UID: peer.Self(), Relative: relative})
		found, err := g.ByToken(token, now)
		if relative {
			found, err = g.ByPath(grant.ID, now)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := r.CheckGrant(thief, found, "app", grants); !errors.Is(err, cred.ErrDenied) {
			t.Errorf("a stolen grant: %v", err)
		}
		if _, said := stranger(t, "read|"+grant.TokenFile, attr); !strings.Contains(said, "permission denied") {
			t.Errorf("the token file: %s", said)
		}
		mine, err := peer.Of(func() net.Conn { _, s := loopback(t); return s }())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.CheckGrant(mine, found, "app", grants); err != nil {
			t.Errorf("the owner himself: %v", err.(*Denied).Reason)
		}
	}

	// Also where directories above let everybody in, the file does not.
	open, err := os.MkdirTemp("", "keyfob-open-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(open)
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	_, _ = add(t, g, GrantSpec{UID: peer.Self(), TokenFile: filepath.Join(open, "token")})
	if _, said := stranger(t, "read|"+filepath.Join(open, "token"), attr); !strings.Contains(said, "permission denied") {
		t.Errorf("a token file in an open directory: %s", said)
	}

	// A socket of the owner's alone; and where it is open to all, the rules
	// say no.
	socket := filepath.Join(open, "s")
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := os.Chmod(socket, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, said := stranger(t, "unix|"+socket, attr); !strings.Contains(said, "permission denied") {
		t.Errorf("the socket: %s", said)
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, said := stranger(t, "unix|"+socket, attr); said != "done: <nil>" {
		t.Fatal(said)
	}
	_ = u.SetDeadline(time.Now().Add(10 * time.Second))
	c, err := u.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if thief, err = resolver.Of(c); err != nil || thief.UID != secondUser {
		t.Fatalf("%+v, %v", thief, err)
	}
	for _, kind := range []string{cred.ViaProcess, cred.ViaExec, cred.ViaEnv, cred.ViaLogin} {
		if err := r.Check(thief, "app", cred.Endpoint{Kind: kind}); !errors.Is(err, cred.ErrDenied) {
			t.Errorf("the open socket, %s: %v", kind, err)
		}
	}
}

// A process of the owner in another namespace is nobody at every rule.
func TestForeignNamespaceIsNobody(t *testing.T) {
	l := listenTCP(t)
	imds := cred.Endpoint{Kind: cred.ViaIMDS, Listen: l.Addr().String()}
	container := cred.Endpoint{Kind: cred.ViaContainer, Listen: l.Addr().String()}
	self := peer.Self()
	rules := func(unidentified bool, profiles ...ProfileRule) *RuleSet {
		r, err := NewRules(RulesConfig{Owner: self, Profiles: profiles, Endpoints: []EndpointRule{
			{Kind: imds.Kind, Listen: imds.Listen, Profile: "app", AllowUsers: []string{self}, AllowUnidentified: unidentified, Users: []EndpointUser{{self, "mine"}}},
			{Kind: container.Kind, Listen: container.Listen, AllowUnidentified: unidentified},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for name, attr := range map[string]*syscall.SysProcAttr{
		"at home": {},
		"mount":   {Cloneflags: syscall.CLONE_NEWNS},
		"rootless container": {Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, said := stranger(t, "tcp4|"+l.Addr().String(), attr); said != "done: <nil>" {
				t.Fatal(said)
			}
			resolver := peer.NewResolver()
			defer resolver.Close()
			c, err := resolver.Of(accept(t, l))
			if err != nil || c.UID != self {
				t.Fatalf("%+v, %v", c, err)
			}
			home := name == "at home"
			strict, lax := rules(false), rules(true)
			for what, got := range map[string]bool{
				"check":                     strict.Check(c, "app", imds) == nil,
				"without a rule":            strict.Check(c, "app", cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:1"}) == nil,
				"a grant":                   strict.CheckGrant(c, &Grant{Profiles: []string{"app"}, UID: self}, "app", container) == nil,
				"a grant of his, lax":       lax.CheckGrant(c, &Grant{Profiles: []string{"app"}, UID: self}, "app", container) == nil,
				"anybody's grant":           strict.CheckGrant(c, &Grant{Profiles: []string{"app"}, UID: self, AnyUser: true}, "app", container) == nil,
				"lax, a profile's users":    rules(true, ProfileRule{Name: "*", AllowUsers: []string{self}}).Check(c, "app", imds) == nil,
				"lax, a line of the user's": lax.ProfileFor(c, imds) == "mine",
			} {
				if got != home {
					t.Errorf("%s: %v", what, got)
				}
			}
			if err := lax.Check(c, "app", imds); err != nil {
				t.Errorf("lax: %v", err.(*Denied).Reason)
			}
			if got := lax.ProfileFor(c, imds); !home && got != "app" {
				t.Errorf("is served %q", got)
			}
		})
	}
}

// What counts is the file that runs: one that was put in its place since is
// not it, and one with another content is not it either.
func TestProgramByHash(t *testing.T) {
	path := filepath.Join(realDir(t), "tool")
	caller := running(t, path, "")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	right, wrong := hex.EncodeToString(sum[:]), strings.Repeat("0", 64)
	check := func(c peer.Caller, programs ...Program) error {
		t.Helper()
		r, err := NewRules(RulesConfig{Owner: c.UID, Profiles: []ProfileRule{{Name: "*", AllowPrograms: programs}}})
		if err != nil {
			t.Fatal(err)
		}
		return r.Check(c, "app", imds)
	}
	for _, test := range []struct {
		name     string
		programs []Program
		ok       bool
	}{
		{"right", []Program{{path, right}}, true},
		{"right in capitals", []Program{{path, strings.ToUpper(right)}}, true},
		{"wrong", []Program{{path, wrong}}, false},
		{"one of two", []Program{{path, wrong}, {path, right}}, true},
		{"wrong, and any content", []Program{{path, wrong}, {path, ""}}, true},
		{"right content, another path", []Program{{path + "2", right}}, false},
	} {
		if err := check(caller, test.programs...); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	// A newer file at the path: what runs is not at the path any more.
	newer := running(t, path, "newer")
	if err := check(caller, Program{path, right}); err == nil {
		t.Error("a program whose file was replaced")
	}
	if err := check(newer, Program{path, right}); err == nil {
		t.Error("the newer file under the older hash")
	}
	caller.Start++
	if err := check(caller, Program{path, right}); err == nil {
		t.Error("another process under the number")
	}
}

func TestGetentAndID(t *testing.T) {
	dir := realDir(t)
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	id := script("id", `case "$1 $2 $3" in "-G -- bob"|"-G -- 1007") echo 1007 50 60;; *) exit 1;; esac`)
	for _, test := range []struct {
		name, getent, uid, want string
	}{
		{"a user", `[ "$1 $2" = "passwd 1007" ] && echo 'bob:x:1007:1007:Bob,,,:/home/bob:/bin/sh'`, "1007", "1007 50 60"},
		{"none", `exit 2`, "1007", ""},
		{"a user whose name is the number", `echo '1007:x:5:5::/:/bin/sh'`, "1007", ""},
		{"rubbish", `echo hello`, "1007", ""},
		{"nothing", ``, "1007", ""},
		{"a name that is an option", `echo -- '-a:x:1007:5::/:/bin/sh'`, "1007", ""},
		{"another name", `echo 'eve:x:1007:5::/:/bin/sh'`, "1007", ""}, // id knows bob alone
	} {
		n := &nss{getent: script("getent", test.getent), id: id}
		got, err := n.groups(t.Context(), test.uid)
		if strings.Join(got, " ") != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v", test.name, got, err)
		}
	}
	n := &nss{getent: script("getent", `echo 'bob:x:1007:1007::/:/bin/sh'`), id: script("id2", `echo 50 sixty`)}
	if got, err := n.groups(t.Context(), "1007"); err == nil {
		t.Errorf("rubbish of id: %q", got)
	}
	// The machine's own tools, for the user who runs this.
	own := newNSS()
	if _, err := os.Stat(own.id); err == nil {
		got, err := own.groups(t.Context(), peer.Self())
		want, err2 := exec.Command(own.id, "-G").Output()
		if err == nil && err2 == nil && os.Getuid() != 0 && string(bytes.TrimSpace(want)) != strings.Join(got, " ") {
			t.Errorf("groups are %q, id says %q", got, want)
		}
		if err != nil {
			t.Logf("own user: %v", err)
		}
	}

	for text, want := range map[string]bool{
		"passwd: files\ngroup: files\n": false, "passwd: files systemd\n": true, "group: files [NOTFOUND=return] sss": true, "hosts: files dns": false,
		"": false, "# group: ldap\ngroup: files # ldap\n": false, "initgroups: sss": true, "passwd:ldap": true, "group: files [SUCCESS=merge]": false,
	} {
		path := filepath.Join(dir, "nsswitch.conf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := beyondFiles(path); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if beyondFiles(filepath.Join(dir, "none")) {
		t.Error("no file")
	}
}

// With every kind of rule at once, a caller who is known costs no memory.
func TestChecksAllocateNothing(t *testing.T) {
	_, server := loopback(t)
	resolver := peer.NewResolver()
	defer resolver.Close()
	c, err := resolver.Of(server)
	if err != nil {
		t.Skipf("%s: %v", t.Name(), err)
	}
	p, err := c.Program(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sum, err := c.ProgramSHA256(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	everything(t, p.Exe, hex.EncodeToString(sum[:]), func(r *RuleSet, g *Grant) {
		for name, f := range map[string]func(){
			"Check": func() { err = r.Check(c, "prod-app", imds) }, "CheckGrant": func() { err = r.CheckGrant(c, g, "prod-app", container) },
			"ProfileFor": func() { _ = r.ProfileFor(c, imds) }, "Policy": func() { _ = r.Policy("prod-app") }, "Protected": func() { _ = r.Protected("prod-app") },
		} {
			if n := testing.AllocsPerRun(100, f); n != 0 || err != nil {
				t.Errorf("%s: %v allocations, %v", name, n, err)
			}
		}
	})
}

// everything calls f with rules of every kind that let the process's user in,
// by group, and a grant of his.
func everything(t testing.TB, exe, sum string, f func(*RuleSet, *Grant)) {
	programs := []Program{{Path: "/opt/other"}, {Path: exe, SHA256: sum}}
	r := withGroups(t, RulesConfig{Owner: "4294967000", Endpoints: []EndpointRule{
		{Kind: imds.Kind, Listen: imds.Listen, Profile: "app", AllowUsers: []string{"1"}, AllowGroups: []string{"50"}, AllowPrograms: programs, Users: []EndpointUser{{peer.Self(), "prod-app"}}},
		{Kind: container.Kind, Listen: container.Listen, AllowGroups: []string{"50"}},
	}, Profiles: []ProfileRule{
		{Name: "prod-*", AllowGroups: []string{"50"}, AllowPrograms: programs, Protected: true, Policy: cred.SessionPolicy{ARNs: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}}},
		{Name: "*", AllowGroups: []string{"60", "50"}},
	}}, map[string][]string{peer.Self(): {"7", "50"}})
	f(r, &Grant{ID: "1", Profiles: []string{"prod-app"}, UID: peer.Self(), Confirmed: true})
}

func BenchmarkEverything(b *testing.B) {
	_, server := loopback(b)
	resolver := peer.NewResolver()
	defer resolver.Close()
	c, err := resolver.Of(server)
	if err != nil {
		b.Skip(err)
	}
	p, err := c.Program(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	sum, err := c.ProgramSHA256(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	everything(b, p.Exe, hex.EncodeToString(sum[:]), func(r *RuleSet, g *Grant) {
		for name, f := range map[string]func() error{
			"Check": func() error { return r.Check(c, "prod-app", imds) }, "CheckGrant": func() error { return r.CheckGrant(c, g, "prod-app", container) },
		} {
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	})
}
