package signin

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

const testRole = "arn:aws:iam::444455556666:role/Reader"

// person is a session in which a real browser, without a window, can be
// driven.
type person struct {
	*desk
	data string // the browser's directory
}

func newPerson(t *testing.T) *person {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "google-chrome-stable", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Skip("skipped: chromium is not installed")
	}
	p := &person{desk: newDesk(t)}
	p.data = filepath.Join(p.dir, "data", "browser")
	p.program("chromium", "PATH=/usr/local/bin:/usr/bin:/bin exec "+program+` "$@"`+"\n")
	t.Cleanup(func() {
		if left := p.browsers(); len(left) > 0 {
			t.Errorf("browsers are left: %v", left)
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			p.eventually("they end", func() bool { return len(p.browsers()) == 0 })
		}
	})
	return p
}

// browsers are the processes with this test's directory in their arguments.
func (p *person) browsers() []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(p.data)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func (p *person) eventually(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	p.t.Fatalf("it never came to this: %s", what)
}

// request is one for a sign-in without a window; change may change it.
func (p *person) request(url, endpoint string, change func(*samlRequest)) string {
	p.t.Helper()
	q := samlRequest{Profile: "dev", URL: url, SAMLEndpoint: endpoint, BrowserDir: p.data, Headless: true, TimeoutSeconds: 40,
		BrowserArgs: []string{"--no-sandbox", "--disable-gpu", "--disable-quic", "--proxy-server=direct://"}}
	if change != nil {
		change(&q)
	}
	b, err := json.Marshal(q)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// assertion is the one in an answer.
func (r result) assertion(t *testing.T) string {
	t.Helper()
	var a samlAnswer
	if err := json.Unmarshal([]byte(r.out), &a); r.code != exitDone || err != nil || a.Refused || r.errs != "" {
		t.Fatalf("exit code %d, %.200q, %q", r.code, r.out, r.errs)
	}
	return a.Assertion
}

func provider(t *testing.T, mode fakeaws.SignInMode, change func(*fakeaws.SAMLSpec)) (*fakeaws.Server, string) {
	t.Helper()
	aws, url := fakeawstest.Start(t)
	spec := fakeaws.SAMLSpec{Roles: []string{testRole}, ACS: url + "/saml"}
	if change != nil {
		change(&spec)
	}
	aws.AddSAML(spec)
	aws.SetSignIn(fakeaws.SignInSAML, mode)
	return aws, url
}

func TestSAMLAssertionIsTakenBeforeItLeaves(t *testing.T) {
	p := newPerson(t)
	aws, url := provider(t, fakeaws.SignInAuto, nil)
	r := p.run("saml", p.request(url+"/saml/idp/idp", url+"/saml", nil))
	assertion := r.assertion(t)
	if !strings.HasPrefix(assertion, "PHNhbWxw") {
		t.Errorf("the answer is no SAML response: %.40q", assertion)
	}
	t.Log(r.took, aws.Counters())
}
