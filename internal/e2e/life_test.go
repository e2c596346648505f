//go:build !windows

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
)

// TestACallersPipeEnds: a caller that captures standard output, as botocore
// does, sees its end although the daemon that the command started lives on.
func TestACallersPipeEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(".aws/credentials", fmt.Sprintf("[base]\naws_access_key_id = %s\naws_secret_access_key = %s\n", w.keyID, w.secret))
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer outR.Close()
	extraR, extraW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer extraR.Close()
	cmd := w.command(filepath.Join(bin, "keyfob"), "credential-process", "--profile", "deploy")
	cmd.Stdout, cmd.Stderr = outW, outW
	cmd.ExtraFiles = []*os.File{extraW} // a descriptor that the caller forgot to close
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	outW.Close()
	extraW.Close()
	for _, r := range []*os.File{outR, extraR} {
		if err := r.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := io.ReadAll(outR)
	if err != nil {
		t.Fatalf("standard output does not end: %v", err)
	}
	if _, err := io.ReadAll(extraR); err != nil {
		t.Errorf("the daemon holds a descriptor of its caller: %v", err)
	}
	if err := cmd.Wait(); err != nil || !bytes.Contains(out, []byte(`"AccessKeyId"`)) {
		t.Fatalf("%v: %s", err, out)
	}
	if w.daemonPID() == 0 {
		t.Error("no daemon lives on, the test proves nothing")
	}
}

// TestTwentyCommandsStartOneDaemon counts the daemons that twenty commands
// started together leave.
func TestTwentyCommandsStartOneDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var wg sync.WaitGroup
	pids := make([]int, 20)
	for i := range pids {
		wg.Go(func() {
			r := w.run(nil, "status", "--json")
			var s status
			if err := json.Unmarshal([]byte(r.out), &s); err != nil || r.code != 0 {
				t.Errorf("exit %d, %q, %q", r.code, r.out, r.err)
			}
			pids[i] = s.PID
		})
	}
	wg.Wait()
	for _, pid := range pids {
		if pid != pids[0] || pid == 0 {
			t.Fatalf("the commands spoke to different daemons: %v", pids)
		}
	}
	starts := strings.Count(w.read("data/keyfobd.log"), "keyfobd is ready")
	if starts != 1 {
		t.Errorf("%d daemons were started", starts)
	}
}

func (w *world) read(p string) string {
	w.t.Helper()
	b, err := os.ReadFile(w.path(p))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// TestADaemonTakesOnlyWhatIsAllowedFromItsStarter looks into the environment
// and the descriptors of a daemon started on demand.
func TestADaemonTakesOnlyWhatIsAllowedFromItsStarter(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("there is no /proc to look into")
	}
	if os.Geteuid() != 0 {
		t.Skip("the daemon is not dumpable: only root can read its environment")
	}
	w := newWorld(t)
	w.env["AWS_ACCESS_KEY_ID"] = "AKIACANARYCANARY0000"
	w.env["AWS_SECRET_ACCESS_KEY"] = "CANARY-secret"
	w.env["AWS_PROFILE"] = "deploy"
	w.env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = "http://127.0.0.1:1/"
	w.env["LD_PRELOAD_CANARY"] = "x"
	w.env["RANDOM_VARIABLE"] = "x"
	w.run(nil, "status")
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", w.daemonPID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, banned := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER", "LD_PRELOAD", "RANDOM_VARIABLE", "KEYFOB_READY_FD"} {
		// The ready descriptor's variable was taken back by the daemon, but
		// /proc shows the environment of the start.
		if banned != "KEYFOB_READY_FD" && bytes.Contains(env, []byte(banned)) {
			t.Errorf("the daemon's environment has %s", banned)
		}
	}
	if !bytes.Contains(env, []byte("AWS_ENDPOINT_URL=")) || !bytes.Contains(env, []byte("HOME=")) {
		t.Errorf("the daemon's environment lacks what it needs: %q", env)
	}
	for fd, want := range map[int]string{0: "/dev/null", 1: "", 2: w.path("data/keyfobd.log")} {
		got, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", w.daemonPID(), fd))
		if err != nil || want != "" && got != want {
			t.Errorf("descriptor %d is %q, %v", fd, got, err)
		}
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", w.daemonPID())); err != nil || cwd != "/" {
		t.Errorf("working directory %q, %v", cwd, err)
	}
}

// TestARestartCostsNothing: sessions are in the vault, so that neither a
// stop nor a SIGKILL costs a call to AWS, nor changes what is handed out.
func TestARestartCostsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addKeys("base")
	first := w.credentials("deploy")
	calls := w.aws.Count("AssumeRole")
	if calls != 2 {
		t.Fatalf("a chain of two roles cost %d AssumeRole calls", calls)
	}
	w.must(nil, "stop")
	if again := w.credentials("deploy"); again != first {
		t.Errorf("other credentials after a stop: %v, %v", again.AccessKeyId, first.AccessKeyId)
	}
	w.killDaemon()
	if again := w.credentials("deploy"); again != first {
		t.Errorf("other credentials after a SIGKILL: %v, %v", again.AccessKeyId, first.AccessKeyId)
	}
	if n := w.aws.Count("AssumeRole"); n != calls {
		t.Errorf("the restarts cost %d calls", n-calls)
	}
}

// TestFiftyRolesOneCode: fifty roles over one MFA session are one
// GetSessionToken and one code, also after a restart.
func TestFiftyRolesOneCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	serial := "arn:aws:iam::" + fakeaws.DefaultAccount + ":mfa/alice"
	conf := "[profile base]\nregion = eu-central-1\nmfa_serial = " + serial + "\n"
	for i := range 50 {
		arn := w.aws.AddRole(fakeaws.RoleSpec{Account: "222222222222", Name: fmt.Sprintf("r%d", i), Trust: []fakeaws.Trust{{Principals: []string{fakeaws.DefaultAccount}, MFA: true}}})
		conf += fmt.Sprintf("[profile r%d]\nrole_arn = %s\nsource_profile = base\n", i, arn)
	}
	w.write(".aws/config", conf)
	w.addKeys("base")

	r := w.run(nil, "credential-process", "--profile", "r0")
	if r.code != 3 || !strings.Contains(r.err, "hint: keyfob login r0") {
		t.Errorf("without a person: exit %d, %q", r.code, r.err)
	}
	wrong := w.run([]byte("000000\n"), "login", "r0")
	if wrong.code == 0 || !strings.Contains(wrong.err, "MFA") {
		t.Errorf("a wrong code: exit %d, %q", wrong.code, wrong.err)
	}
	w.must([]byte(w.aws.MFACode(serial)+"\n"), "login", "r0")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() { w.credentials(fmt.Sprintf("r%d", i)) })
	}
	wg.Wait()
	good := func() (n int) {
		for _, c := range w.aws.Calls("GetSessionToken") {
			if c.Issued != "" {
				n++
			}
		}
		return n
	}
	if good() != 1 || w.aws.Count("GetSessionToken") != 2 {
		t.Errorf("%d sessions of %d calls, want 1 of 2", good(), w.aws.Count("GetSessionToken"))
	}
	roles := w.aws.Count("AssumeRole")
	w.killDaemon()
	w.credentials("r7")
	if good() != 1 || w.aws.Count("AssumeRole") != roles {
		t.Errorf("after a restart: %d sessions, %d more AssumeRole calls", good(), w.aws.Count("AssumeRole")-roles)
	}
}

// TestCredentialsChangeUnderALongJob: with short lifetimes a program under
// exec sees new credentials and never ones that AWS refuses.
func TestCredentialsChangeUnderALongJob(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	w := newWorld(t)
	w.addKeys("base")
	w.aws.SetLifetime(8 * time.Second)
	script := `set -eu
for _ in $(seq 1 60); do
  doc=$(curl -sSf -H "Authorization: $(cat "$AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")" "$AWS_CONTAINER_CREDENTIALS_FULL_URI" | tr , '\n')
  get() { printf '%s' "$doc" | sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p"; }
  printf 'user = "%s:%s"\nheader = "x-amz-security-token: %s"\n' "$(get AccessKeyId)" "$(get SecretAccessKey)" "$(get Token)" |
    curl -sSf -o /dev/null -K - --aws-sigv4 aws:amz:eu-west-1:sts -d 'Action=GetCallerIdentity&Version=2011-06-15' "$AWS_ENDPOINT_URL/"
  get AccessKeyId
  echo
  sleep 0.25
done`
	w.write("job.sh", script)
	r := w.run(nil, "exec", "deploy", "--", "bash", w.path("job.sh"))
	ids := map[string]bool{}
	for _, id := range strings.Fields(r.out) {
		ids[id] = true
	}
	if r.code != 0 || len(ids) < 3 {
		t.Errorf("exit %d after %d different keys: %s", r.code, len(ids), r.err)
	}
	if strings.Contains(w.run(nil, "grant", "list").out, "deploy") {
		t.Error("the grant of exec outlives its program")
	}
}

// TestOneMoreRole: --role-arn on a profile without a role takes the profile's
// own credentials as its source, at each exit, and the grant of exec keeps it.
func TestOneMoreRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addKeys("base")
	r := w.must(nil, "exec", "base", "--role-arn", entryARN, "--", "sh", "-c",
		`curl -sSf -H "Authorization: $(cat "$AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")" "$AWS_CONTAINER_CREDENTIALS_FULL_URI"`)
	if !strings.Contains(r.out, entryARN) {
		t.Errorf("exec --role-arn gave %q", r.out[:min(len(r.out), 60)])
	}
	d := w.parse(w.must(nil, "credential-process", "--profile", "base", "--role-arn", entryARN))
	if !strings.Contains(r.out, d.AccessKeyId) {
		t.Error("credential-process and exec have different sessions of one role")
	}
	var x struct {
		Chain []struct {
			Kind    string
			RoleARN string `json:"role_arn"`
		}
	}
	if err := json.Unmarshal([]byte(w.must(nil, "explain", "base", "--role-arn", entryARN, "--json").out), &x); err != nil {
		t.Fatal(err)
	}
	if last := x.Chain[len(x.Chain)-1]; last.RoleARN != entryARN {
		t.Errorf("explain --role-arn ends in %+v", last)
	}
}

// TestNothingIsReadableAtRest: after a life with secrets, no file of the
// person's home and no log shows one.
func TestNothingIsReadableAtRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addKeys("base")
	d := w.credentials("deploy")
	w.must(nil, "explain", "deploy", "--json")
	w.must(nil, "status", "--json")
	w.run(nil, "credential-process", "--profile", "nobody")
	w.must(nil, "stop")
	canaries := []string{w.secret, d.SecretAccessKey, d.SessionToken, "CANARY-passphrase"}
	files := 0
	err := filepath.WalkDir(w.home, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || p == w.path("passphrase") {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		files++
		for _, c := range canaries {
			if bytes.Contains(b, []byte(c)) {
				t.Errorf("%s holds a secret", p)
			}
		}
		if st, err := e.Info(); err == nil && strings.HasPrefix(p, w.path("data")) && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the permissions %v", p, st.Mode().Perm())
		}
		return nil
	})
	if err != nil || files < 5 {
		t.Errorf("%d files were read: %v", files, err)
	}
}

// TestBadInput: each gets its exit code, one clear line, and where something
// helps a hint.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addKeys("base")
	check := func(name string, r result, code int, want ...string) {
		t.Helper()
		if r.code != code {
			t.Errorf("%s: exit %d, want %d: %s", name, r.code, code, r.err)
		}
		if r.out != "" {
			t.Errorf("%s: standard output has %q", name, r.out)
		}
		lines := strings.Split(strings.TrimRight(r.err, "\n"), "\n")
		if !strings.HasPrefix(lines[0], "keyfob: cannot ") && code != 2 || len(lines) > 2 || len(lines) == 2 && !strings.HasPrefix(lines[1], "hint: ") {
			t.Errorf("%s: not one line and a hint: %q", name, r.err)
		}
		for _, s := range want {
			if !strings.Contains(r.err, s) {
				t.Errorf("%s: %q does not name %q", name, r.err, s)
			}
		}
	}
	check("an unknown profile", w.run(nil, "credential-process", "--profile", "deplyo"), 1, "deplyo", "deploy")
	check("an unknown command", w.run(nil, "lsit"), 2, "list")
	check("keys twice", w.run(w.keysJSON(), "add", "base"), 1, "--force")
	check("half a pair", w.run([]byte(`{"AccessKeyId":"AKIAIOSFODNN7EXAMPLE"}`), "add", "other"), 1, "SecretAccessKey")
	check("a wrong secret", w.run([]byte(fmt.Sprintf(`{"AccessKeyId":%q,"SecretAccessKey":"wrong"}`, w.keyID)), "add", "other"), 1, "secret")
	check("remove without a person", w.run(nil, "remove", "base"), 2, "--yes")
	check("another file than the daemon's", w.with("AWS_CONFIG_FILE", "/elsewhere/config", "credential-process", "--profile", "deploy"), 1, "AWS_CONFIG_FILE")
	check("another endpoint than the daemon's", w.with("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "credential-process", "--profile", "deploy"), 1, "AWS_ENDPOINT_URL")
	check("foreign keys and no profile", w.with("AWS_ACCESS_KEY_ID", "AKIAFOREIGNFOREIGN00", "credential-process"), 1, "AWS_ACCESS_KEY_ID")

	w.aws.AddRole(fakeaws.RoleSpec{ARN: "arn:aws:iam::222222222222:role/closed", Trust: []fakeaws.Trust{}})
	w.appendConfig("[profile closed]\nrole_arn = arn:aws:iam::222222222222:role/closed\nsource_profile = base\n" +
		"[profile lost]\nrole_arn = arn:aws:iam::222222222222:role/x\nsource_profile = nowhere\n" +
		"[profile half]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n" +
		"[profile a]\nrole_arn = arn:aws:iam::222222222222:role/x\nsource_profile = b\n[profile b]\nrole_arn = arn:aws:iam::222222222222:role/x\nsource_profile = a\n")
	check("a role that trusts nobody", w.run(nil, "credential-process", "--profile", "closed"), 1, "role/closed", "user/alice", "trust policy")
	check("a source that is not there", w.run(nil, "credential-process", "--profile", "lost"), 1, "nowhere", ".aws/config:")
	check("half a pair in a file", w.run(nil, "credential-process", "--profile", "half"), 1, "aws_secret_access_key", ".aws/config:")
	check("a cycle", w.run(nil, "credential-process", "--profile", "a"), 1, "a", "b", ".aws/config:")

	w.appendConfig("this is no line of the grammar\n")
	good := w.run(nil, "credential-process", "--profile", "deploy")
	if good.code != 0 {
		t.Errorf("a bad edit took the good settings away: %s", good.err)
	}
	if s := w.status(); !strings.Contains(s.ReloadError, ".aws/config:") {
		t.Errorf("status does not name the bad edit: %+v", s.ReloadError)
	}
	w.must(nil, "stop")
	check("a malformed file at the start", w.run(nil, "credential-process", "--profile", "deploy"), 1, ".aws/config:")
}

// with runs keyfob with one more variable.
func (w *world) with(name, value string, args ...string) result {
	w.t.Helper()
	cmd := w.command(filepath.Join(bin, "keyfob"), args...)
	cmd.Env = append(w.environ(), name+"="+value)
	return w.finish(cmd)
}

func (w *world) appendConfig(text string) {
	w.t.Helper()
	w.write(".aws/config", w.read(".aws/config")+text)
}

// TestAStartThatFailsSaysWhy: the person who ran the command reads the
// daemon's reason, at once.
func TestAStartThatFailsSaysWhy(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		name string
		make func(w *world)
		code int
		want []string
	}{
		{"an unknown setting", func(w *world) { w.write("config/keyfob/config.toml", "data_dir = \"/x\"\nkeystroke = 1\n") }, 1, []string{"config.toml:2", "keystroke"}},
		{"a port in use", func(w *world) { w.env["KEYFOB_IMDS"] = taken.Addr().String() }, 1, []string{taken.Addr().String(), "in use"}},
		{"a long socket", func(w *world) { w.env["KEYFOB_SOCKET"] = w.path(strings.Repeat("s", 120)) }, 1, []string{"socket", "bytes"}},
		{"an open data directory", func(w *world) {
			if err := os.Mkdir(w.path("data"), 0o755); err != nil {
				w.t.Fatal(err)
			}
		}, 1, []string{"data", "chmod 700"}},
		{"an unknown keystore", func(w *world) { w.env["KEYFOB_KEYSTORE"] = "drawer" }, 1, []string{"drawer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.make(w)
			begin := time.Now()
			r := w.run(nil, "status")
			if r.code != c.code || r.out != "" {
				t.Errorf("exit %d, printed %q", r.code, r.out)
			}
			for _, s := range c.want {
				if !strings.Contains(r.err, s) {
					t.Errorf("%q does not name %q", r.err, s)
				}
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("it took %v to say so", took)
			}
		})
	}
}

// TestAWrongPassphraseLeavesTheDaemonUp: degraded, not dead; unlock mends it.
func TestAWrongPassphraseLeavesTheDaemonUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addKeys("base")
	w.credentials("deploy")
	w.must(nil, "stop")
	w.write("passphrase", "not the passphrase")
	r := w.run(nil, "credential-process", "--profile", "deploy")
	if r.code != 3 || !strings.Contains(r.err, "passphrase") || !strings.Contains(r.err, "hint: keyfob unlock") {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
	if s := w.status(); !s.Keystore.Locked || !strings.Contains(s.Keystore.Error, "passphrase") {
		t.Errorf("status: %+v", s.Keystore)
	}
	if r := w.run([]byte("still not\n"), "unlock"); r.code != 3 {
		t.Errorf("a wrong passphrase by hand: exit %d, %q", r.code, r.err)
	}
	w.must([]byte("CANARY-passphrase\n"), "unlock")
	w.credentials("deploy")
	if n := w.aws.Count("AssumeRole"); n != 2 {
		t.Errorf("%d AssumeRole calls, the sessions were not found again", n)
	}
	w.must(nil, "lock")
	if r := w.run(nil, "credential-process", "--profile", "deploy"); r.code != 3 || !strings.Contains(r.err, "keyfob unlock") {
		t.Errorf("locked by hand: exit %d, %q", r.code, r.err)
	}
	w.must([]byte("CANARY-passphrase\n"), "unlock")
	w.credentials("deploy")
}

// TestANewerVaultIsLeftAlone.
func TestANewerVaultIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addKeys("base")
	w.must(nil, "stop")
	header := w.read("data/vault/vault.json")
	var h map[string]any
	if err := json.Unmarshal([]byte(header), &h); err != nil {
		t.Fatal(err)
	}
	h["version"] = 99
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	w.write("data/vault/vault.json", string(b))
	if r := w.run(nil, "status"); r.code == 0 || !strings.Contains(r.err, "newer") {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
	if got := w.read("data/vault/vault.json"); got != string(b) {
		t.Error("the newer vault was changed")
	}
	w.write("data/vault/vault.json", header)
	w.credentials("deploy")
}

// TestNoNetworkAndAWrongClock: what is wrong is said, and how much.
func TestNoNetworkAndAWrongClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	w.env["AWS_ENDPOINT_URL"] = "http://" + closed.Addr().String()
	r := w.run(w.keysJSON(), "add", "base")
	if r.code != 0 || !strings.Contains(r.err, "unchecked") {
		t.Errorf("add without a network: exit %d, %q", r.code, r.err)
	}
	r = w.run(nil, "credential-process", "--profile", "deploy")
	if r.code != 1 || !strings.Contains(r.err, "refuses the connection") {
		t.Errorf("no network: exit %d, %q", r.code, r.err)
	}
	w.must(nil, "stop")

	w.env["AWS_ENDPOINT_URL"] = w.url
	w.aws.SetClock(4 * time.Minute)
	w.credentials("deploy")
	if s := w.status(); len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "4m0s behind AWS's") {
		t.Errorf("a clock that AWS still takes: %q", s.Warnings)
	}
	w.aws.SetClock(-40 * time.Minute)
	r = w.run(nil, "credential-process", "--profile", "entry", "--role-arn", deployARN)
	if r.code != 1 || !strings.Contains(r.err, "clock") || !strings.Contains(r.err, "40m0s") {
		t.Errorf("a clock that AWS refuses: exit %d, %q", r.code, r.err)
	}
}

// TestASecondDaemonIsRefused names the socket and the first one's pid.
func TestASecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(nil, "status")
	first := w.daemonPID()
	r := w.finish(w.command(filepath.Join(bin, "keyfobd"), "run"))
	if r.code != 1 || !strings.Contains(r.err, w.path("s")) || !strings.Contains(r.err, fmt.Sprint(first)) {
		t.Errorf("exit %d, %q; the first is %d", r.code, r.err, first)
	}
	w.killDaemon()
	if _, err := os.Stat(w.path("s")); errors.Is(err, os.ErrNotExist) {
		t.Error("no stale socket was left, the test proves nothing")
	}
	w.must(nil, "status")
}

// TestASignalEndsTheDaemonCleanly: SIGTERM joins everything, removes the
// socket and exits 0.
func TestASignalEndsTheDaemonCleanly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cmd := w.command(filepath.Join(bin, "keyfobd"), "run")
	var errb bytes.Buffer
	cmd.Stderr = &errb
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.ExtraFiles, cmd.Env = []*os.File{wr}, append(cmd.Env, "KEYFOB_READY_FD=3")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wr.Close()
	if word, err := io.ReadAll(r); err != nil || string(word) != "ok\n" {
		t.Fatalf("the daemon said %q, %v", word, err)
	}
	w.must(nil, "status")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, errb.String())
	}
	if _, err := os.Stat(w.path("s")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestOneProcessor: the daemon's goroutines run on one processor at a time;
// speed.md's figures are from that.
func TestOneProcessor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("config/keyfob/config.toml", "[metrics]\nlisten = 'unix:"+w.path("metrics")+"'\n")
	w.must(nil, "status")
	c, err := net.Dial("unix", w.path("metrics"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	text, err := io.ReadAll(c)
	if err != nil || !bytes.Contains(text, []byte("\ngo_sched_gomaxprocs_threads 1\n")) {
		t.Errorf("%v\n%s", err, text)
	}
}
