package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test binary the program itself when it is told to, so
// that a real process is tested.
func TestMain(m *testing.M) {
	if os.Getenv("FAKEAWS_IS_MAIN") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	errs  *strings.Builder
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.CommandContext(t.Context(), self, args...), errs: &strings.Builder{}}
	p.cmd.Env = append(os.Environ(), "FAKEAWS_IS_MAIN=1")
	p.cmd.Stderr = p.errs
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	return p
}

// exit waits for the end and returns the exit code.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	_, _ = io.Copy(io.Discard, p.out)
	done := make(chan struct{})
	go func() { defer close(done); _ = p.cmd.Wait() }()
	select {
	case <-done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		t.Fatal("the program does not end")
		return -1
	}
}

type line struct {
	URL    string `json:"url"`
	TLSURL string `json:"tls_url"`
	CAFile string `json:"ca_file"`
	Admin  string `json:"admin"`
	Users  []struct {
		Name            string `json:"name"`
		AccessKeyID     string `json:"access_key_id"`
		SecretAccessKey string `json:"secret_access_key"`
		MFA             []struct {
			Serial string `json:"serial"`
			Seed   string `json:"seed"`
		} `json:"mfa"`
	} `json:"users"`
	Roles []string `json:"roles"`
}

func (p *process) ready(t *testing.T) line {
	t.Helper()
	text, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("no ready line: %v: %s", err, p.errs)
	}
	var l line
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return l
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close() //nolint:errcheck // read only
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestDefaultWorldAndSignal(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	p := start(t, "--tls", "127.0.0.1:0", "--ca-file", ca)
	l := p.ready(t)
	if len(l.Users) != 1 || l.Users[0].SecretAccessKey == "" || len(l.Users[0].MFA) != 1 || l.Users[0].MFA[0].Seed == "" || len(l.Roles) != 4 {
		t.Errorf("ready line: %+v", l)
	}
	if b, err := os.ReadFile(ca); err != nil || !strings.HasPrefix(string(b), "-----BEGIN CERTIFICATE") || !strings.HasPrefix(l.TLSURL, "https://127.0.0.1:") {
		t.Errorf("authority: %v, %s", err, l.TLSURL)
	}
	if status, body := get(t, l.URL+"/?Action=GetCallerIdentity&Version=2011-06-15"); status != 403 || !strings.Contains(body, "MissingAuthenticationToken") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := get(t, l.Admin+"/counters"); status != 200 || !strings.Contains(body, `"GetCallerIdentity":1`) {
		t.Errorf("%d %s", status, body)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Skipf("no SIGTERM here: %v", err)
	}
	if code := p.exit(t); code != 0 || p.errs.String() != "" {
		t.Errorf("exit %d, %s", code, p.errs)
	}
}

func TestStateFileAndStdin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(file, []byte(`{"users":[{"name":"zoe","access_key_id":"AKIAEXAMPLEEXAMPLE77","secret_access_key":"s"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "--state", file, "--until-stdin-closes")
	if l := p.ready(t); len(l.Users) != 1 || l.Users[0].Name != "zoe" || l.Users[0].AccessKeyID != "AKIAEXAMPLEEXAMPLE77" || len(l.Roles) != 0 {
		t.Errorf("ready line: %+v", l)
	}
	_ = p.stdin.Close()
	if code := p.exit(t); code != 0 {
		t.Errorf("exit %d, %s", code, p.errs)
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--nonsense"}, 2, "nonsense"},
		{[]string{"extra"}, 2, "wrong usage"},
		{[]string{"--tls", "127.0.0.1:0"}, 2, "--ca-file"},
		{[]string{"--state", "/nonexistent.json"}, 1, "/nonexistent.json"},
		{[]string{"--listen", "256.0.0.1:1"}, 1, "256.0.0.1:1"},
	} {
		p := start(t, c.args...)
		if code := p.exit(t); code != c.code || !strings.Contains(p.errs.String(), c.want) {
			t.Errorf("%v: exit %d, %s", c.args, code, p.errs)
		}
	}
}
