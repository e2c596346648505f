//go:build !windows

package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/cred"
)

const readOnly = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}]}`

// shortReadOnly is readOnly as it is sent.
var shortReadOnly = strings.ReplaceAll(readOnly, " ", "")

const readOnlyARN = "arn:aws:iam::aws:policy/ReadOnlyAccess"

func hasPolicy(v url.Values) bool {
	return v.Get("Policy") == shortReadOnly && v.Get("PolicyArns.member.1.arn") == readOnlyARN
}

func code(err error) control.Code {
	var e *control.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return control.Code(fmt.Sprint(err))
}

// TestPolicies: an endpoint, a command and a grant hand out the same role
// with less, each as its own session; a rule does so at every exit; a changed
// policy file makes another session.
func TestPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := freePort(t), freePort(t)
	policy := "policy = 'ro.json'\npolicy_arns = ['" + readOnlyARN + "']\n"
	w.write("config/keyfob/ro.json", readOnly)
	w.config(endpointToml(a, "app") + policy + "[[endpoint]]\nkind = 'container'\nlisten = '" + b + "'\n[[profile]]\nname = 'th*'\nsession_policy = 'ro.json'\nsession_policy_arns = ['" + readOnlyARN + "']\n")
	w.start()
	narrow := dialIMDS(t, a).keyID("app")
	if !strings.HasPrefix(narrow, "ASIAAPP") {
		t.Fatalf("the endpoint serves %s", narrow)
	}
	var wide, again, ruled control.CredentialsResult
	w.must(control.MethodCredentials, control.CredentialsParams{Context: w.context("app")}, &wide)
	own := control.SessionPolicy{Policy: readOnly, PolicyARNs: []string{readOnlyARN}}
	w.must(control.MethodCredentials, control.CredentialsParams{Context: w.context("app"), SessionPolicy: own}, &again)
	w.must(control.MethodCredentials, control.CredentialsParams{Context: w.context("three")}, &ruled)
	if wide.AccessKeyID == narrow || again.AccessKeyID != narrow {
		t.Errorf("without a policy %s, by the endpoint %s, by the command %s", wide.AccessKeyID, narrow, again.AccessKeyID)
	}
	narrowed := 0
	for _, v := range w.sts.asked("app") {
		if hasPolicy(v) {
			narrowed++
		} else if v.Get("Policy") != "" {
			t.Errorf("another policy: %v", v)
		}
	}
	if calls := w.sts.asked("three"); narrowed != 1 || len(calls) != 1 || !hasPolicy(calls[0]) {
		t.Errorf("app was asked for with the policy %d times; three: %v", narrowed, calls)
	}
	for _, bad := range []control.SessionPolicy{{Policy: "[]"}, {Policy: "{}"}, {PolicyARNs: []string{"arn:aws:s3:::x"}},
		{Policy: `{"Statement":"` + strings.Repeat("x", 2048) + `"}`}} {
		if err := w.try(control.MethodCredentials, control.CredentialsParams{Context: w.context("app"), SessionPolicy: bad}, nil); code(err) != control.CodeUsage {
			t.Errorf("%+v: %v", bad, err)
		}
	}

	var g control.GrantResult
	w.must(control.MethodGrantAdd, control.GrantParams{Context: w.context("app"), Profiles: []string{"app"}, SessionPolicy: own}, &g)
	token, err := os.ReadFile(g.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequest("GET", g.URL, nil)
	req.Header.Set("Authorization", string(token))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc struct{ AccessKeyId string }
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil || doc.AccessKeyId != narrow {
		t.Errorf("the grant opens %+v, %v", doc, err)
	}

	w.write("config/keyfob/ro.json", `{"Statement":[]}`)
	w.must(control.MethodReload, nil, nil)
	if id := dialIMDS(t, a).keyID("app"); id == narrow || !strings.HasPrefix(id, "ASIAAPP") {
		t.Errorf("with another policy the endpoint serves %s", id)
	}
}

// TestProfileOfUser: a user's own line wins over the endpoint's profile, and
// a reload changes it on open connections.
func TestProfileOfUser(t *testing.T) {
	t.Parallel()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	a := freePort(t)
	line := "[[endpoint.user]]\nuser = '" + me.Uid + "'\nprofile = 'two'\n[endpoint.metadata]\ninstance_id = 'i-0123456789abcdef0'\nregion = 'eu-south-1'\n"
	w.config(endpointToml(a, "app") + line)
	w.start()
	k := dialIMDS(t, a)
	if id := k.keyID("two"); !strings.HasPrefix(id, "ASIATWO") {
		t.Errorf("the user is served %s", id)
	}
	for path, want := range map[string]string{"instance-id": "i-0123456789abcdef0", "placement/region": "eu-south-1"} {
		if code, body := k.get("/latest/meta-data/" + path); code != 200 || body != want {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	w.config(endpointToml(a, "app"))
	w.must(control.MethodReload, nil, nil)
	if role := k.role(); role != "app" {
		t.Errorf("without the line: %s", role)
	}
}

// answering answers prompts with one value.
func answering(value string, seen *[]control.Prompt) func(control.Event) (*control.Answer, error) {
	return func(e control.Event) (*control.Answer, error) {
		if e.Prompt == nil {
			return nil, nil
		}
		*seen = append(*seen, *e.Prompt)
		return &control.Answer{Value: value}, nil
	}
}

// TestProtected: a program gets a protected profile when a person says yes:
// at the command, by `answer`, for an endpoint's client, for a grant.
func TestProtected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := freePort(t)
	w.config(endpointToml(a, "app") + "[[endpoint]]\nkind = 'container'\nlisten = '" + freePort(t) + "'\n[[profile]]\nname = 't*'\nprotected = true\n[[profile]]\nname = 'app'\nprotected = true\n")
	w.start()
	get := func(profile string, mayAsk bool, answer string) ([]control.Prompt, error) {
		var seen []control.Prompt
		c := w.context(profile)
		c.MayAsk = mayAsk
		err := w.asking(control.MethodCredentials, control.CredentialsParams{Context: c}, nil, answering(answer, &seen))
		return seen, err
	}
	if seen, err := get("two", true, cred.ConfirmOnce); err != nil || len(seen) != 1 || seen[0].Kind != cred.AskConfirm || len(seen[0].Choices) != 4 || seen[0].Program == "" {
		t.Fatalf("once: %v, %+v", err, seen)
	}
	if _, err := get("two", false, ""); code(err) != control.CodeInteraction {
		t.Errorf("once is used up: %v", err)
	}
	s := w.status()
	if len(s.Interactions) != 1 || s.Interactions[0].Kind != cred.AskConfirm || s.Interactions[0].Program == "" {
		t.Fatalf("status: %+v", s.Interactions)
	}
	if err := w.try(control.MethodAnswer, control.AnswerParams{Interaction: "0123"}, nil); code(err) != control.CodeNotFound {
		t.Errorf("an answer to nothing: %v", err)
	}
	var seen []control.Prompt
	if err := w.asking(control.MethodAnswer, control.AnswerParams{Interaction: s.Interactions[0].ID}, nil, answering(cred.ConfirmHour, &seen)); err != nil || len(seen) != 1 {
		t.Fatalf("answer: %v, %+v", err, seen)
	}
	if seen, err := get("two", false, ""); err != nil || len(seen) != 0 {
		t.Errorf("within the hour: %v, %+v", err, seen)
	}
	if _, err := get("three", true, cred.ConfirmNo); code(err) != control.CodeDenied {
		t.Errorf("no: %v", err)
	}

	// An endpoint's client waits until somebody answers.
	k := dialIMDS(t, a)
	if code, body := k.get(credentialsPath + "app"); code == 200 && strings.Contains(body, "ASIA") {
		t.Fatalf("the endpoint serves without a yes: %s", body)
	}
	w.eventually("the question is there", func() bool { return len(w.status().Interactions) == 1 })
	seen = nil
	if err := w.asking(control.MethodAnswer, control.AnswerParams{}, nil, answering(cred.ConfirmAlways, &seen)); err != nil || len(seen) != 1 || seen[0].Profile != "app" {
		t.Fatalf("answer: %v, %+v", err, seen)
	}
	if id := k.keyID("app"); !strings.HasPrefix(id, "ASIAAPP") {
		t.Errorf("after the yes the endpoint serves %s", id)
	}

	// A grant is confirmed when it is made.
	grant := control.GrantParams{Context: w.context("two"), Profiles: []string{"two", "three"}}
	if err := w.try(control.MethodGrantAdd, grant, nil); code(err) != control.CodeDenied {
		t.Errorf("a grant in spite of a no: %v", err)
	}
	grant.Profiles = []string{"two"}
	w.must(control.MethodGrantAdd, grant, nil)

	w.must(control.MethodLogout, control.ProfileParams{Context: w.context("two")}, nil)
	if _, err := get("two", false, ""); code(err) != control.CodeInteraction {
		t.Errorf("a logout leaves the yes: %v", err)
	}
}

// TestAuditAndMetrics: hand-outs and refusals of every exit are recorded and
// counted; the chain is whole, over a reload with other sizes too.
func TestAuditAndMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, m := freePort(t), freePort(t)
	w.config(endpointToml(a, "app") + "[metrics]\nlisten = '" + m + "'\n[[profile]]\nname = 'three'\nallow_users = ['54321']\n")
	w.start()
	id := dialIMDS(t, a).keyID("app")
	w.must(control.MethodCredentials, control.CredentialsParams{Context: w.context("two")}, nil)
	w.must(control.MethodGrantAdd, control.GrantParams{Context: w.context("two"), ForExec: true, Profiles: []string{"two"}}, nil)
	if err := w.try(control.MethodCredentials, control.CredentialsParams{Context: w.context("three"), Via: "env"}, nil); code(err) != control.CodeDenied {
		t.Fatal(err)
	}
	w.config(endpointToml(a, "app") + "[metrics]\nlisten = '" + m + "'\n[audit]\nmax_size = '1MiB'\n")
	w.must(control.MethodReload, nil, nil)
	w.must(control.MethodCredentials, control.CredentialsParams{Context: w.context("three")}, nil)

	var page control.AuditResult
	w.must(control.MethodAudit, control.AuditParams{}, &page)
	var got []string
	for _, raw := range page.Entries {
		var e struct{ Event, Profile, Endpoint, Reason string }
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		exit, _, _ := strings.Cut(e.Endpoint, " ")
		got = append(got, e.Event+" "+e.Profile+" "+exit)
		if e.Event == "refusal" && e.Reason == "" {
			t.Errorf("a refusal without a reason: %s", raw)
		}
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{"handout app imds", "handout two credential-process", "handout two exec", "refusal three env", "handout three credential-process"} {
		if !strings.Contains(all, want) {
			t.Errorf("no entry %q among\n%s", want, all)
		}
	}
	page = control.AuditResult{}
	w.must(control.MethodAudit, control.AuditParams{AccessKeyID: id}, &page)
	if len(page.Entries) != 1 {
		t.Errorf("by the key's id: %d entries", len(page.Entries))
	}
	if err := w.try(control.MethodAudit, control.AuditParams{Since: "yesterday"}, nil); code(err) != control.CodeUsage {
		t.Errorf("a bad time: %v", err)
	}
	var report control.AuditVerifyResult
	w.must(control.MethodAuditVerify, nil, &report)
	if !report.OK || report.Entries < 5 {
		t.Errorf("verify: %+v", report)
	}
	if strings.Contains(w.read("data/audit.jsonl"), "CANARY") {
		t.Error("the audit log has a secret")
	}

	resp, err := http.Get("http://" + m + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := new(strings.Builder)
	_ = resp.Write(b)
	for _, want := range []string{`keyfob_handouts_total{exit="imds"} 1`, `keyfob_refusals_total{exit="env"} 1`, "keyfob_vault_locked 0", `keyfob_endpoints{kind="imds"} 1`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	w.config(endpointToml(a, "app") + "[audit]\nenabled = false\n")
	w.must(control.MethodReload, nil, nil)
	w.eventually("the metrics listener is closed", func() bool {
		c, err := net.Dial("tcp", m)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
}

// TestExecEndsWithItsKeyfob: a killed keyfob takes its grant and its private
// files with it.
func TestExecEndsWithItsKeyfob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	// Stands for keyfob exec: the daemon knows the process by its connection.
	cmd := exec.Command(filepath.Join(bin, "keyfobd"))
	cmd.Env = append(w.env, actVar+"=exec "+w.path("s")+" "+w.sts.URL+" "+w.path("data/exec"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 256)
	n, _ := out.Read(line)
	if string(line[:n]) != "ready\n" {
		t.Fatalf("it says %q", line[:n])
	}
	var list control.GrantListResult
	w.must(control.MethodGrantList, nil, &list)
	if len(list.Grants) != 1 {
		t.Fatalf("grants: %+v", list)
	}
	_ = cmd.Process.Signal(syscall.SIGKILL)
	start := time.Now()
	w.eventually("the grant is revoked", func() bool {
		list = control.GrantListResult{}
		w.must(control.MethodGrantList, nil, &list)
		return len(list.Grants) == 0
	})
	if took := time.Since(start); took > 2500*time.Millisecond {
		t.Errorf("it took %s", took)
	}
	w.eventually("the private files are removed", func() bool {
		left, _ := filepath.Glob(w.path("data/exec/run-*"))
		return len(left) == 0
	})
	_ = cmd.Wait()
}

// TestRemovedEndpointAnswersWhatIsUnderWay: a container request that waits
// for STS is answered although its endpoint is gone.
func TestRemovedEndpointAnswersWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := freePort(t)
	w.config("[[endpoint]]\nkind = 'container'\nlisten = '" + a + "'\n")
	w.start()
	var g control.GrantResult
	w.must(control.MethodGrantAdd, control.GrantParams{Context: w.context("app"), Profiles: []string{"app"}}, &g)
	token, err := os.ReadFile(g.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	hold := w.sts.hold()
	type answer struct {
		code int
		body string
		err  error
	}
	done := make(chan answer, 1)
	conn, err := net.Dial("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	k := newKept(t, conn)
	go func() {
		code, body, err := k.do("GET", "/v1/credentials/app", "Authorization: "+string(token))
		done <- answer{code, body, err}
	}()
	w.eventually("STS is asked", func() bool { return len(w.sts.asked("app")) == 1 })
	w.config("")
	w.must(control.MethodReload, nil, nil)
	if c, err := net.Dial("tcp", a); err == nil {
		_ = c.Close()
		t.Error("the removed endpoint accepts")
	}
	close(hold)
	if r := <-done; r.err != nil || r.code != 200 || !strings.Contains(r.body, "ASIAAPP") {
		t.Errorf("the request under way: %+v", r)
	}
}

// TestValidate: nonsense is refused, with its line; what belongs to the
// answers is a warning.
func TestValidate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	imds := endpointToml("127.0.0.1:9911", "app")
	w.write("config/keyfob/long.json", `{"Statement":"`+strings.Repeat("x", 2048)+`"}`)
	for _, c := range []struct {
		text, want string
		code       int
	}{
		{imds, "ok\n", 0},
		{endpointToml("127.0.0.1:9911", "nobody"), "warning: the endpoint 127.0.0.1:9911 serves the profile nobody, which is in no file and not in the vault\nok\n", 0},
		{imds + "policy = 'missing.json'\n", "config.toml:5:", 1},
		{imds + "policy = 'long.json'\n", "2048", 1},
		{"[[profile]]\nname = 'x'\nsession_policy = '../keyfob'\n", "config.toml:3:", 1},
		{imds + "hosts = ['a/b']\n", "config.toml:5:", 1},
		{imds + "allow_users = ['no-such-user']\n", "config.toml:5: allow_users", 1},
		{"[[profile]]\nname = 'x'\n[[profile]]\nname = 'y'\nallow_groups = ['no-such-group']\n", "config.toml:5: allow_groups", 1},
		{imds + imds, "config.toml:7:", 1},
		{"[metrics]\nlisten = '0.0.0.0:1'\n", "config.toml:2:", 1},
	} {
		w.config(c.text)
		out, code := w.once("validate")
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d, %s", c.text, code, out)
		}
	}
	if _, err := os.Stat(w.path("data")); err == nil {
		t.Error("validate made the data directory")
	}
	w.write(".aws/config", "not a line\n")
	w.config(imds)
	if out, code := w.once("validate"); code != 0 || !strings.Contains(out, "warning: ") {
		t.Errorf("a broken AWS file: exit %d, %s", code, out)
	}
}

// TestListOfANestedChain: hundreds of profiles, each the source of the next,
// are listed in a moment once they were read.
func TestListOfANestedChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text := "[profile base]\nregion = eu-central-1\n[profile p0]\nsource_profile = base\nrole_arn = arn:aws:iam::222222222222:role/p0\n"
	for i := 1; i < 300; i++ {
		text += fmt.Sprintf("[profile p%d]\nsource_profile = p%d\nrole_arn = arn:aws:iam::222222222222:role/p%d\n", i, i-1, i)
	}
	w.write(".aws/config", text)
	w.start()
	list := func() time.Duration {
		var r control.ListResult
		start := time.Now()
		w.must(control.MethodList, control.Context{Env: map[string]string{"AWS_ENDPOINT_URL": w.sts.URL}}, &r)
		if len(r.Profiles) != 301 {
			t.Fatalf("%d profiles", len(r.Profiles))
		}
		return time.Since(start)
	}
	w.eventually("the vault is open", func() bool { return !w.status().Keystore.Locked })
	first := list()
	again := list()
	t.Logf("first %s, again %s", first, again)
	if again > first/3 && again > 100*time.Millisecond {
		t.Errorf("the list took %s, then %s", first, again)
	}
}

// TestStatusAdvertises: the end that status tells is the one that is handed
// out.
func TestStatusAdvertises(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	var r control.CredentialsResult
	w.must(control.MethodCredentials, control.CredentialsParams{Context: w.context("app")}, &r)
	c := w.context("app")
	c.RoleARN = "arn:aws:iam::222222222222:role/other"
	var other control.CredentialsResult
	w.must(control.MethodCredentials, control.CredentialsParams{Context: c}, &other)
	want := map[string]string{r.AccessKeyID: r.Expiration, other.AccessKeyID: other.Expiration}
	s := w.status()
	if len(s.Sessions) != 2 {
		t.Fatalf("sessions: %+v", s.Sessions)
	}
	for _, x := range s.Sessions {
		if x.Expiration != want[x.AccessKeyID] {
			t.Errorf("status says %s of %s, handed out was %s", x.Expiration, x.AccessKeyID, want[x.AccessKeyID])
		}
	}
}

// TestLogoutOfTheEnvironmentsKeys: without a profile's name the session of
// the daemon's own keys is forgotten.
func TestLogoutOfTheEnvironmentsKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env = append(w.env, "AWS_ACCESS_KEY_ID=AKIAI44QH8DHBEXAMPLE", "AWS_SECRET_ACCESS_KEY=CANARY-environment")
	w.start()
	c := control.Context{Profile: "default", Env: map[string]string{"AWS_ENDPOINT_URL": w.sts.URL, "AWS_ACCESS_KEY_ID": "AKIAI44QH8DHBEXAMPLE"}}
	var a, b control.CredentialsResult
	w.must(control.MethodCredentials, control.CredentialsParams{Context: c}, &a)
	w.must(control.MethodLogout, control.ProfileParams{Context: c}, nil)
	w.must(control.MethodCredentials, control.CredentialsParams{Context: c}, &b)
	if a.AccessKeyID == b.AccessKeyID {
		t.Errorf("the session outlives its logout: %s", b.AccessKeyID)
	}
}

// TestCorruptWarningEnds: the warning of a damaged record goes when its keys
// are added again, or removed.
func TestCorruptWarningEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	add := func(force bool) {
		w.must(control.MethodAdd, control.AddParams{Context: w.context(""), Profile: "vaulted", AccessKeyID: "AKIAI44QH8DHBEXAMPLE", SecretAccessKey: "CANARY-added", Force: force}, nil)
	}
	warned := func() bool { return strings.Contains(strings.Join(w.status().Warnings, "\n"), "corrupt record") }
	damage := func() {
		if err := os.WriteFile(w.path("data/vault/key+vaulted.rec"), []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = w.try(control.MethodCredentials, control.CredentialsParams{Context: w.context("vaulted")}, nil)
		w.must(control.MethodReload, nil, nil)
		w.eventually("the damage is shown", warned)
	}
	add(false)
	damage()
	add(true)
	if warned() {
		t.Error("the warning stays after the keys were added again")
	}
	damage()
	w.must(control.MethodRemove, control.ProfileParams{Context: w.context("vaulted")}, nil)
	if warned() {
		t.Error("the warning stays after the keys were removed")
	}
}
