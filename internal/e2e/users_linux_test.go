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

	"keyfob/internal/fakeaws"
)

// stranger is a user that no database of this machine knows.
func stranger(uid uint32) *syscall.Credential { return &syscall.Credential{Uid: uid, Gid: uid} }

const strangerID = 54321

// openWorld is a world whose home another user can look into, and a copy of
// probe that he can run.
func openWorld(t *testing.T) (w *world, probe string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root runs programs as another user")
	}
	w = newWorld(t)
	dir := w.path("programs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	probe = copyProgram(t, filepath.Join(bin, "probe"), filepath.Join(dir, "probe"))
	for _, d := range []string{w.home, filepath.Dir(w.home), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return w, probe
}

func copyProgram(t testing.TB, from, to string) string {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(to+".new", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
	return to
}

// nothing fails the test when an answer holds what a credential is made of.
func nothing(t *testing.T, what string, p probed) {
	t.Helper()
	for _, secret := range []string{"SecretAccessKey", "AKIA", "ASIA", "\"Token\""} {
		if strings.Contains(p.Body, secret) {
			t.Errorf("%s: got credentials: %d %q", what, p.Status, p.Body)
			return
		}
	}
	if p.Status == 200 {
		t.Errorf("%s: 200 %q", what, p.Body)
	}
}

// whose is the role of the credentials in an answer, as AWS says it; "" for
// an answer without any.
func (w *world) whose(p probed) string {
	w.t.Helper()
	if p.Status != 200 {
		return ""
	}
	var a answer
	a.take([]byte(p.Body))
	s, ok := w.aws.Session(a.ID)
	if a.Err != "" || !ok {
		return ""
	}
	if err := identity(w.url, a); err != nil {
		w.t.Errorf("AWS does not take them: %v", err)
	}
	_, rest, _ := strings.Cut(s.ARN, ":assumed-role/")
	role, _, _ := strings.Cut(rest, "/")
	return role
}

// TestAnotherUserGetsNothing: not by the control socket, not by the ports,
// not with a token or a grant that he has stolen.
func TestAnotherUserGetsNothing(t *testing.T) {
	t.Parallel()
	w, probe := openWorld(t)
	w.write("config/keyfob/config.toml", imdsToml+"[[endpoint]]\nkind = \"container\"\nlisten = \"127.0.0.1:0\"\n")
	w.addKeys("base")
	w.credentials("deploy")
	imds := w.imds()
	g := w.grant("deploy")
	rel := w.grant("deploy", "--relative")
	own := w.grant("deploy", "--token-file", w.path("programs/token"))
	relative := "http://" + host(g.URL[:strings.Index(g.URL, "/v1/")]) + rel.RelativeURI
	token := w.file(g.TokenFile)
	who := stranger(strangerID)
	as := func(args ...string) probed { return w.probeBy(who, probe, args...) }

	// That each of these works for the owner is what makes the rest a proof.
	code, imdsToken := request(t, "PUT", imds+"/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "600")
	if code != 200 {
		t.Fatalf("token: %d", code)
	}
	const path = "/latest/meta-data/iam/security-credentials/deploy"
	for what, p := range map[string]probed{
		"metadata":      w.probe("imds", imds),
		"token":         w.probe("get", imds+path, "X-aws-ec2-metadata-token", imdsToken),
		"grant":         w.probe("get", g.URL, "Authorization", token),
		"relative":      w.probe("get", relative),
		"grant in file": w.probe("get", own.URL, "Authorization", w.file(own.TokenFile)),
	} {
		if w.whose(p) != "deploy" {
			t.Errorf("%s: the owner gets %+v", what, p)
		}
	}
	if p := w.probe("control", w.path("s"), "deploy", w.url); !strings.Contains(p.Body, "SecretAccessKey") {
		t.Errorf("the control socket says %+v", p)
	}

	// Files.
	for _, f := range []string{g.TokenFile, own.TokenFile, w.path("passphrase"), w.path("data/audit.jsonl"), w.path("data/keyfobd.log"), w.path("data/exec-port"), w.path(".aws/config")} {
		if _, err := os.Stat(f); err != nil {
			continue
		}
		if p := as("read", f); p.Err == "" {
			t.Errorf("he reads %s", f)
		}
	}
	// The control socket: closed by its mode, and by its peer's credentials
	// where somebody has opened it.
	nothingSaid := func(what string) {
		t.Helper()
		p := as("control", w.path("s"), "deploy", w.url)
		nothing(t, what, p)
		if strings.Contains(p.Body, "deploy") || strings.Contains(p.Body, "mismatch") {
			t.Errorf("%s: it tells %q", what, p.Body)
		}
	}
	nothingSaid("the control socket")
	st, err := os.Stat(w.path("s"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the control socket has mode %v, %v", st.Mode(), err)
	}
	if err := os.Chmod(w.path("s"), 0o666); err != nil {
		t.Fatal(err)
	}
	nothingSaid("the control socket, opened")
	if err := os.Chmod(w.path("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The ports.
	list := imds + "/latest/meta-data/iam/security-credentials/"
	for what, p := range map[string]probed{
		"a token of his own":    as("imds", imds),
		"no token":              as("get", imds+path),
		"a stolen token":        as("get", imds+path, "X-aws-ec2-metadata-token", imdsToken),
		"a stolen token, list":  as("get", list, "X-aws-ec2-metadata-token", imdsToken),
		"no grant":              as("get", g.URL),
		"a stolen grant":        as("get", g.URL, "Authorization", token),
		"a stolen grant, again": as("get", own.URL, "Authorization", w.file(own.TokenFile)),
		"a relative path":       as("get", relative),
		"an unknown profile":    as("get", strings.Replace(g.URL, "deploy", "none", 1), "Authorization", token),
	} {
		nothing(t, what, p)
		if p.Status < 400 || p.Status > 499 {
			t.Errorf("%s: %+v", what, p)
		}
	}
	known, unknown := as("get", g.URL, "Authorization", token), as("get", strings.Replace(g.URL, "deploy", "none", 1), "Authorization", token)
	if known.Status != unknown.Status || known.Body != unknown.Body {
		t.Errorf("he learns which profiles there are: %+v, %+v", known, unknown)
	}
	eventually(t, "the refusals are in the audit log", func() bool {
		n := 0
		for _, e := range w.audit("--event", "refusal") {
			if e.Caller.UID == fmt.Sprint(strangerID) {
				n++
			}
		}
		return n >= 2
	})
	for _, e := range w.audit("--event", "handout") {
		if e.Caller.UID != "0" {
			t.Errorf("handed out: %+v", e)
		}
	}
	// What he does keeps nobody else out.
	if w.whose(w.probe("imds", imds)) != "deploy" {
		t.Error("the owner is not served any more")
	}
}

// TestUsersByName: allow_users, allow_groups and lines for one user let in
// exactly who is named, from the reload on; each gets his own role.
func TestUsersByName(t *testing.T) {
	t.Parallel()
	w, probe := openWorld(t)
	bobARN := w.aws.AddRole(fakeaws.RoleSpec{Account: "222222222222", Name: "bobs", Trust: []fakeaws.Trust{{Principals: []string{fakeaws.DefaultAccount}}}})
	w.appendConfig("\n[profile bobs-app]\nrole_arn = " + bobARN + "\nsource_profile = base\n")
	port := quietPort(t)
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	toml := func(more string) {
		t.Helper()
		w.write("config/keyfob/config.toml", fmt.Sprintf("[[endpoint]]\nkind = \"imds\"\nlisten = %q\nprofile = \"deploy\"\n", listen)+more)
		if w.daemonPID() != 0 {
			w.must(nil, "reload")
		}
	}
	toml("")
	w.addKeys("base")
	w.credentials("deploy")
	w.credentials("bobs-app")
	const system = 1 // the user daemon and his group, of every Unix
	who := map[string]*syscall.Credential{
		"root": nil, "54321": stranger(strangerID), "54322": stranger(strangerID + 1), "daemon": stranger(system),
		// In the group by his process alone: the database does not say so.
		"54323 with daemon's group": {Uid: strangerID + 2, Gid: strangerID + 2, Groups: []uint32{system}},
	}
	check := func(when string, want map[string]string) {
		t.Helper()
		for name, c := range who {
			var got string
			for end := time.Now().Add(5 * time.Second); ; time.Sleep(200 * time.Millisecond) { // 503 is "not yet"
				p := w.probeBy(c, probe, "imds", "http://"+listen)
				got = w.whose(p)
				if got == want[name] && p.Status != 503 || time.Now().After(end) {
					break
				}
			}
			if got != want[name] {
				t.Errorf("%s: %s gets %q, and should get %q", when, name, got, want[name])
			}
		}
	}
	check("without a rule", map[string]string{"root": "deploy"})
	toml("allow_users = [\"54321\"]\n")
	check("allow_users", map[string]string{"54321": "deploy"})
	toml("allow_users = [\"root\", \"54321\", \"54322\"]\n[[endpoint.user]]\nuser = \"54321\"\nprofile = \"bobs-app\"\n")
	check("a line for a user", map[string]string{"root": "deploy", "54321": "bobs", "54322": "deploy"})
	toml("[[endpoint.user]]\nuser = \"54321\"\nprofile = \"bobs-app\"\n")
	check("a line lets nobody in", map[string]string{"root": "deploy"})
	toml("allow_groups = [\"daemon\"]\n")
	check("allow_groups", map[string]string{"daemon": "deploy"})
	toml("allow_groups = [\"daemon\"]\nallow_users = [\"0\"]\n")
	check("either", map[string]string{"daemon": "deploy", "root": "deploy"})
	toml("allow_users = []\n")
	check("nobody", nil)
	// The profile's own rule counts as well.
	toml("allow_users = [\"0\", \"54321\"]\n[[profile]]\nname = \"dep*\"\nallow_users = [\"54321\"]\n")
	check("endpoint and profile", map[string]string{"54321": "deploy"})
	toml("")
	check("without a rule again", map[string]string{"root": "deploy"})
}

// TestAGrantForAnyUser: who has the token may, whoever that is; no other
// grant opens anything for him.
func TestAGrantForAnyUser(t *testing.T) {
	t.Parallel()
	w, probe := openWorld(t)
	w.write("config/keyfob/config.toml", "[[endpoint]]\nkind = \"container\"\nlisten = \"127.0.0.1:0\"\n")
	w.addKeys("base")
	g := w.grant("deploy", "--any-user")
	token := w.file(g.TokenFile)
	p := w.probeBy(stranger(strangerID), probe, "get", g.URL, "Authorization", token)
	if w.whose(p) != "deploy" {
		t.Errorf("%+v", p)
	}
	nothing(t, "another profile", w.probeBy(stranger(strangerID), probe, "get", strings.Replace(g.URL, "deploy", "entry", 1), "Authorization", token))
	// Relative and for any user: still an identified caller among the
	// endpoint's users.
	rel := w.grant("deploy", "--any-user", "--relative")
	base := g.URL[:strings.Index(g.URL, "/v1/")]
	if p := w.probe("get", base+rel.RelativeURI); w.whose(p) != "deploy" {
		t.Errorf("%+v", p)
	}
	w.must(nil, "grant", "remove", g.ID)
	if p := w.probeBy(stranger(strangerID), probe, "get", g.URL, "Authorization", token); p.Status != 401 {
		t.Errorf("after it was revoked: %+v", p)
	}
	var list struct{ Grants []grantResult }
	if err := json.Unmarshal([]byte(w.must(nil, "grant", "list", "--json").out), &list); err != nil || len(list.Grants) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}
