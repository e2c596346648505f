package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
)

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
