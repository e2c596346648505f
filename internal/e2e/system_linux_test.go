package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

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
