//go:build !windows

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// bin is where TestMain built the programs.
var bin string

// binVariable tells a test that starts itself again where they are.
const binVariable = "KEYFOB_TEST_BIN"

func TestMain(m *testing.M) {
	if os.Getenv("TEST_STS") != "" {
		os.Exit(m.Run()) // this process is TestGoClient alone
	}
	if len(os.Args) > 1 {
		switch os.Args[1] { // this process is a program that a test runs
		case goClientArg:
			os.Exit(goClient(os.Args[2:]))
		case jobArg:
			os.Exit(goJob(os.Args[2:]))
		}
	}
	if bin = os.Getenv(binVariable); bin != "" {
		os.Exit(m.Run()) // one test alone, in a namespace
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "keyfob-e2e-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "keyfob/cmd/...", "keyfob/internal/e2e/testdata/probe")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "cannot build the programs:", err)
			return 1
		}
		bin = dir
		return m.Run()
	}())
}

// lookAtSources reads every directory of the module: go test keeps results
// by what a test itself has looked at, and does not know of the programs.
func lookAtSources() error {
	return filepath.WalkDir("../..", func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && len(e.Name()) > 2 && e.Name()[0] == '.' {
			return fs.SkipDir
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		return err
	})
}

const (
	entryARN  = "arn:aws:iam::222222222222:role/entry"
	deployARN = "arn:aws:iam::222222222222:role/deploy"
	imdsToml  = "[[endpoint]]\nkind = \"imds\"\nlisten = \"127.0.0.1:0\"\nprofile = \"deploy\"\n"
)

// world is one person's machine: a home, a fake AWS, and a daemon that is
// started by the first command and ended with the test.
type world struct {
	t      testing.TB
	home   string
	aws    *fakeaws.Server
	url    string
	keyID  string
	secret string
	env    map[string]string
}

// newWorld makes a home with the chain base -> entry -> deploy in
// ~/.aws/config, and a passphrase vault.
func newWorld(t testing.TB) *world {
	t.Helper()
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, home: t.TempDir()}
	w.aws, w.url = fakeawstest.Start(t)
	w.keyID, w.secret = w.aws.AddUser(fakeaws.UserSpec{Name: "alice", MFA: []fakeaws.MFASpec{{}}})
	w.aws.AddRole(fakeaws.RoleSpec{ARN: entryARN, MaxSessionDuration: 43200, Trust: []fakeaws.Trust{{Principals: []string{fakeaws.DefaultAccount}}}})
	w.aws.AddRole(fakeaws.RoleSpec{ARN: deployARN, MaxSessionDuration: 43200, Trust: []fakeaws.Trust{{Principals: []string{entryARN}}}})
	w.env = map[string]string{
		"HOME":                     w.home,
		"PATH":                     bin + ":" + os.Getenv("PATH"),
		"XDG_CONFIG_HOME":          w.path("config"),
		"XDG_DATA_HOME":            w.path("share"),
		"KEYFOB_DATA_DIR":          w.path("data"),
		"KEYFOB_SOCKET":            w.path("s"),
		"KEYFOB_KEYSTORE":          "passphrase",
		"KEYFOB_PASSPHRASE_FILE":   w.path("passphrase"),
		"KEYFOB_INTERACTIVE":       "never",
		"DBUS_SESSION_BUS_ADDRESS": "unix:path=/dev/null",
		"AWS_ENDPOINT_URL":         w.url,
	}
	w.write("passphrase", "CANARY-passphrase")
	w.write(".aws/config", fmt.Sprintf(`[profile base]
region = eu-central-1

[profile entry]
role_arn = %s
source_profile = base

[profile deploy]
region = eu-west-1
role_arn = %s
source_profile = entry

[profile app]
region = eu-west-1
credential_process = %s credential-process --profile deploy
`, entryARN, deployARN, filepath.Join(bin, "keyfob")))
	t.Cleanup(w.end)
	return w
}

// end stops whatever daemon runs, and makes sure that it is gone.
func (w *world) end() {
	pid := w.daemonPID()
	w.run(nil, "stop")
	if pid > 0 {
		for range 100 {
			if syscall.Kill(pid, 0) != nil || zombie(pid) {
				break
			}
			time.Sleep(50 * time.Millisecond) // another process's end tells nobody but its parent
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if w.t.Failed() {
		if b, err := os.ReadFile(w.path("data/keyfobd.log")); err == nil {
			lines := strings.Split(string(b), "\n")
			w.t.Logf("the daemon's log:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	}
}

func (w *world) path(p string) string { return filepath.Join(w.home, p) }

func (w *world) write(p, text string) {
	w.t.Helper()
	p = w.path(p)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) environ(more ...string) []string {
	var env []string
	for k, v := range w.env {
		if v != "" {
			env = append(env, k+"="+v)
		}
	}
	return append(env, more...)
}

// result is what a program left behind.
type result struct {
	out, err string
	code     int
}

func (w *world) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = w.environ()
	cmd.Dir = w.home
	return cmd
}

// finish runs a command to its end, within a time limit.
func (w *world) finish(cmd *exec.Cmd) result {
	w.t.Helper()
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	timer := time.AfterFunc(90*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	r := result{out: out.String(), err: errb.String(), code: cmd.ProcessState.ExitCode()}
	if err != nil && r.code == 0 {
		w.t.Errorf("%v: %v", cmd.Args, err)
	}
	return r
}

// run runs keyfob with the given standard input (nil: empty).
func (w *world) run(stdin []byte, args ...string) result {
	w.t.Helper()
	cmd := w.command(filepath.Join(bin, "keyfob"), args...)
	cmd.Stdin = bytes.NewReader(stdin)
	return w.finish(cmd)
}

// must is run for what has to succeed.
func (w *world) must(stdin []byte, args ...string) result {
	w.t.Helper()
	r := w.run(stdin, args...)
	if r.code != 0 {
		w.t.Fatalf("keyfob %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r
}

// addKeys puts alice's keys into the vault under a profile.
func (w *world) addKeys(profile string) {
	w.t.Helper()
	w.must(w.keysJSON(), "add", profile)
}

func (w *world) keysJSON() []byte {
	return []byte(fmt.Sprintf(`{"AccessKeyId":%q,"SecretAccessKey":%q}`, w.keyID, w.secret))
}

type document struct {
	Version                                    int
	AccessKeyId, SecretAccessKey, SessionToken string //nolint:revive // the names of the wire form
	Expiration                                 time.Time
	AccountId                                  string
}

// credentials runs credential-process and reads its document.
func (w *world) credentials(profile string) document {
	w.t.Helper()
	return w.parse(w.must(nil, "credential-process", "--profile", profile))
}

func (w *world) parse(r result) document {
	w.t.Helper()
	var d document
	if err := json.Unmarshal([]byte(r.out), &d); err != nil || d.Version != 1 || d.SessionToken == "" {
		w.t.Fatalf("credential-process printed %q: %v", r.out, err)
	}
	return d
}

type status struct {
	PID      int
	Keystore struct {
		Backend, Error string
		Locked         bool
	}
	Endpoints []struct{ Kind, Listen, Profile string }
	Sessions  []struct {
		Profile                 string
		AccessKeyID             string `json:"access_key_id"`
		Expiration, NextRefresh string
		LastError               string `json:"last_error"`
	}
	Interactions []struct{ ID, Kind, Profile string }
	Warnings     []string
	ReloadError  string `json:"reload_error"`
}

func (w *world) status() status {
	w.t.Helper()
	var s status
	if err := json.Unmarshal([]byte(w.must(nil, "status", "--json").out), &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// daemonPID is the running daemon's, 0 for none. It starts none.
func (w *world) daemonPID() int {
	b, err := os.ReadFile(w.path("s.lock"))
	if err != nil {
		return 0
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil || syscall.Kill(pid, 0) != nil {
		return 0
	}
	return pid
}

// killDaemon ends the daemon with SIGKILL and waits for its end.
func (w *world) killDaemon() {
	w.t.Helper()
	pid := w.daemonPID()
	if pid == 0 {
		w.t.Fatal("no daemon runs")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
	w.gone(pid)
}

// gone waits until a process that is nobody's child here has ended.
func (w *world) gone(pid int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if syscall.Kill(pid, 0) != nil || zombie(pid) {
			return
		}
		time.Sleep(20 * time.Millisecond) // another process's end tells nobody but its parent
	}
	w.t.Fatalf("process %d does not end", pid)
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(b, []byte(") "))
	return bytes.HasPrefix(rest, []byte("Z"))
}

// imds is the address of the metadata endpoint.
func (w *world) imds() string {
	w.t.Helper()
	for _, e := range w.status().Endpoints {
		if e.Kind == "imds" {
			return "http://" + e.Listen
		}
	}
	w.t.Fatal("there is no metadata endpoint")
	return ""
}
