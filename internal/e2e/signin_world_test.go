//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
)

// person is a world with a person in it, who has a browser; and all that AWS
// gives or is given and nobody may see is noted.
type person struct {
	*world
	secrets *secrets
	args    *arguments
	said    []string // what commands printed to standard error
}

const startURL = "https://d-1234567890.awsapps.com/start"

// newPerson makes one without profiles. The browser does what a plain GET
// does; config is added to ~/.aws/config.
func newPerson(t *testing.T, config string) *person {
	t.Helper()
	p := &person{world: newWorld(t), secrets: &secrets{seen: map[string]string{}}}
	p.secrets.next = p.aws.Handler()
	front := httptest.NewServer(p.secrets)
	t.Cleanup(front.Close)
	p.url = front.URL
	p.env["AWS_ENDPOINT_URL"] = p.url
	p.env["AWS_REGION"] = "eu-west-1"
	p.env["KEYFOB_INTERACTIVE"] = "auto"
	p.env["KEYFOB_SIGNIN_TIMEOUT"] = "40s"
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl on the PATH")
	}
	p.browser("exec '" + curl + "' --noproxy '*' -s -L -o /dev/null --max-time 20 \"$1\"")
	b := p.file(p.path(".aws/config"))
	p.write(".aws/config", b+"\n"+config)
	p.args = watchArguments(t)
	t.Cleanup(p.shown)
	return p
}

// browser sets what $BROWSER does with "$1".
func (p *person) browser(script string) {
	p.write("browser", "#!/bin/sh\necho $$ >>"+p.path("opened")+"\n"+script+"\n")
	if err := os.Chmod(p.path("browser"), 0o700); err != nil {
		p.t.Fatal(err)
	}
	p.env["BROWSER"] = p.path("browser")
}

// tabs is how often a browser was opened so far.
func (p *person) tabs() int {
	b, _ := os.ReadFile(p.path("opened"))
	return bytes.Count(b, []byte("\n"))
}

// wantTabs fails unless so many were opened since.
func (p *person) wantTabs(since, n int, when string) {
	p.t.Helper()
	if got := p.tabs() - since; got != n {
		p.t.Errorf("%s: %d tabs, want %d", when, got, n)
	}
}

// do is run, with what it said kept.
func (p *person) do(stdin []byte, args ...string) result {
	p.t.Helper()
	r := p.run(stdin, args...)
	p.said = append(p.said, r.err)
	return r
}

// good is do for what has to succeed.
func (p *person) good(stdin []byte, args ...string) result {
	p.t.Helper()
	r := p.do(stdin, args...)
	if r.code != 0 {
		p.t.Fatalf("keyfob %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r
}

// uses takes a profile's credentials and asks AWS whose they are.
func (p *person) uses(profile, role string) document {
	p.t.Helper()
	d := p.parse(p.good(nil, "credential-process", "--profile", profile))
	p.belongs(d, role)
	return d
}

func (p *person) belongs(d document, role string) {
	p.t.Helper()
	s, ok := p.aws.Session(d.AccessKeyId)
	if !ok || !strings.Contains(s.ARN, role) {
		p.t.Fatalf("the session is %+v, wanted one of %s", s, role)
	}
}

// refusal looks at a failure: its exit code, one line `keyfob: cannot …`
// and at most one line `hint: …` at the end, with these parts in them.
func (p *person) refusal(r result, code int, parts ...string) {
	p.t.Helper()
	p.said = append(p.said, r.err)
	if r.code != code {
		p.t.Errorf("exit %d, want %d: %q", r.code, code, r.err)
	}
	if r.out != "" {
		p.t.Errorf("a failure printed %q", r.out)
	}
	lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
	said, hints := 0, 0
	for i, l := range lines {
		switch {
		case strings.HasPrefix(l, "keyfob: cannot "):
			if said++; i < len(lines)-2 {
				p.t.Errorf("more than a hint follows the message in %q", r.err)
			}
		case strings.HasPrefix(l, "hint: "):
			if hints++; i != len(lines)-1 || said != 1 {
				p.t.Errorf("the hint is not the last line of %q", r.err)
			}
		case said > 0:
			p.t.Errorf("line %q after the message", l)
		}
	}
	if said != 1 || hints > 1 {
		p.t.Errorf("%d messages and %d hints: %q", said, hints, r.err)
	}
	for _, part := range parts {
		if !strings.Contains(r.err, part) {
			p.t.Errorf("%q is missing in %q", part, r.err)
		}
	}
}

// bad is refusal for what shows no prompt: nothing but the message and its
// hint.
func (p *person) bad(r result, code int, parts ...string) {
	p.t.Helper()
	p.refusal(r, code, parts...)
	if n := strings.Count(r.err, "\n"); !strings.HasPrefix(r.err, "keyfob: cannot ") || n > 2 {
		p.t.Errorf("not one line and its hint: %q", r.err)
	}
}

// onTerminal runs keyfob with a terminal, and what it prints captured.
func (p *person) onTerminal(c *console, args ...string) result {
	p.t.Helper()
	r := c.run(p.command(p.keyfob(), args...))()
	p.said = append(p.said, r.err)
	return r
}

// metadata asks the metadata endpoint for credentials, for up to 20 s.
func (p *person) metadata(at string) document {
	p.t.Helper()
	var last string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		token, _ := p.call("PUT", at+"/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
		const list = "/latest/meta-data/iam/security-credentials/"
		role, code := p.call("GET", at+list, "X-aws-ec2-metadata-token", token)
		if code != 200 {
			last = fmt.Sprint(code, role)
			continue
		}
		body, code := p.call("GET", at+list+role, "X-aws-ec2-metadata-token", token)
		var d struct{ Code, AccessKeyId, SecretAccessKey, Token string } //nolint:revive // the names of the wire form
		if last = fmt.Sprint(code, body); code == 200 && json.Unmarshal([]byte(body), &d) == nil && d.Code == "Success" {
			return document{AccessKeyId: d.AccessKeyId, SecretAccessKey: d.SecretAccessKey, SessionToken: d.Token}
		}
	}
	p.t.Fatalf("the metadata endpoint gives no credentials: %s", last)
	return document{}
}

func (p *person) call(method, address string, header ...string) (string, int) {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, address, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b), resp.StatusCode
}

// again ends the daemon with SIGKILL; the next command starts another.
func (p *person) again() {
	p.t.Helper()
	p.killDaemon()
}

// shown looks for secrets where none may be: the daemon's log, what commands
// said, the arguments of all programs, and the data directory.
func (p *person) shown() {
	places := map[string]string{"standard error": strings.Join(p.said, "\n"), "an argument list": p.args.stop()}
	err := filepath.WalkDir(p.home, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil //nolint:nilerr // gone meanwhile
		}
		rel, _ := filepath.Rel(p.home, path)
		if !strings.HasPrefix(rel, "data/") && !strings.HasPrefix(rel, "config/") || strings.HasPrefix(rel, "data/browser/") {
			return nil
		}
		if b, err := os.ReadFile(path); err == nil {
			places[rel] = string(b)
		}
		return nil
	})
	if err != nil {
		p.t.Error(err)
	}
	if places["data/keyfobd.log"] == "" {
		p.t.Error("there is no log to look at")
	}
	n := 0
	for secret, what := range p.secrets.all() {
		n++
		for place, text := range places {
			if strings.Contains(text, secret) {
				p.t.Errorf("%s is shown in %s", what, place)
			}
		}
	}
	p.t.Logf("%d secrets looked for in %d places", n, len(places))
}

// secrets stands before the fake AWS and notes what is secret in what is
// asked and answered.
type secrets struct {
	next http.Handler

	mu   sync.Mutex // guards seen
	seen map[string]string
}

// secretNames are the members, elements and parameters that hold one.
var secretNames = []string{"accesstoken", "refreshtoken", "idtoken", "clientsecret", "secretaccesskey", "sessiontoken", "token", "devicecode",
	"code", "codeverifier", "samlresponse", "samlassertion", "webidentitytoken", "assertion", "tokencode"}

var secretXML = regexp.MustCompile(`<(SecretAccessKey|SessionToken)>([^<]+)<`)

func (s *secrets) note(name, value string) {
	short := strings.ToLower(strings.ReplaceAll(name, "_", ""))
	// error codes and MFA codes are too short to be looked for
	if len(value) < 16 || !slices.Contains(secretNames, short) || short == "code" && strings.HasSuffix(value, "Exception") {
		return
	}
	s.mu.Lock()
	s.seen[value] = name
	s.mu.Unlock()
}

func (s *secrets) all() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]string{}
	for v, name := range s.seen {
		all[v] = name
	}
	return all
}

func (s *secrets) values(v any) {
	switch v := v.(type) {
	case map[string]any:
		for name, x := range v {
			if text, ok := x.(string); ok {
				s.note(name, text)
			}
			s.values(x)
		}
	case []any:
		for _, x := range v {
			s.values(x)
		}
	}
}

func (s *secrets) body(b []byte) {
	var v any
	if json.Unmarshal(b, &v) == nil {
		s.values(v)
		return
	}
	for _, m := range secretXML.FindAllStringSubmatch(string(b), -1) {
		s.note(m[1], m[2])
	}
	if form, err := url.ParseQuery(string(b)); err == nil {
		s.query(form)
	}
}

func (s *secrets) query(form url.Values) {
	for name, all := range form {
		for _, v := range all {
			s.note(name, v)
		}
	}
}

func (s *secrets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if b, err := io.ReadAll(r.Body); err == nil {
		s.body(b)
		r.Body = io.NopCloser(bytes.NewReader(b))
	}
	k := &keeper{ResponseWriter: w}
	defer func() {
		s.body(k.b.Bytes())
		if to, err := url.Parse(w.Header().Get("Location")); err == nil {
			s.query(to.Query())
		}
	}()
	s.next.ServeHTTP(k, r)
}

// keeper keeps what is answered.
type keeper struct {
	http.ResponseWriter
	b bytes.Buffer
}

func (k *keeper) Write(b []byte) (int, error) {
	k.b.Write(b)
	return k.ResponseWriter.Write(b)
}

func (k *keeper) Unwrap() http.ResponseWriter { return k.ResponseWriter }

// arguments collects the argument lists of this machine's programs.
type arguments struct {
	end  chan struct{}
	done chan struct{}
	all  map[string]bool // of the collector until done
}

func watchArguments(t *testing.T) *arguments {
	a := &arguments{end: make(chan struct{}), done: make(chan struct{}), all: map[string]bool{}}
	go func() {
		defer close(a.done)
		// a look at each program every 50 ms: what runs for less may be
		// missed, what waits for a person is seen
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-a.end:
				return
			case <-tick.C:
			}
			names, _ := os.ReadDir("/proc")
			for _, e := range names {
				if _, err := strconv.Atoi(e.Name()); err == nil {
					if b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline"); err == nil {
						a.all[string(b)] = true
					}
				}
			}
		}
	}()
	t.Cleanup(func() { a.stop() })
	return a
}

// stop ends the collector and returns what it saw.
func (a *arguments) stop() string {
	select {
	case <-a.end:
	default:
		close(a.end)
	}
	<-a.done
	var b strings.Builder
	for line := range a.all {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// chromium makes $BROWSER a headless Chromium that is ended with the test.
func (p *person) chromium() {
	p.t.Helper()
	path := findChromium(p.t)
	dir, err := os.MkdirTemp("", "keyfob-e2e-chromium-")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		for _, pid := range strings.Fields(p.opened()) {
			// each is a session of its own; its children are of its group
			if n, err := strconv.Atoi(pid); err == nil && n > 1 {
				_ = syscall.Kill(-n, syscall.SIGKILL)
			}
		}
		for range 50 {
			if os.RemoveAll(dir) == nil {
				return
			}
			time.Sleep(100 * time.Millisecond) // its last children still write
		}
		p.t.Error("cannot remove " + dir)
	})
	p.browser("export HOME=" + dir + "\nexec " + path + " --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking " +
		"--disable-component-update --disable-sync --no-proxy-server --user-data-dir=" + dir + "/$$ \"$1\" >/dev/null 2>&1")
}

func (p *person) opened() string {
	b, _ := os.ReadFile(p.path("opened"))
	return string(b)
}

func findChromium(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("there is no Chromium on the PATH")
	return ""
}

// directory is an Identity Center with a person who has two roles.
func directory() fakeaws.SSOSpec {
	return fakeaws.SSOSpec{Accounts: []fakeaws.SSOAccount{{Roles: []fakeaws.SSORole{{Name: "Developer"}, {Name: "ReadOnly"}}}}}
}

const ssoConfig = `[sso-session corp]
sso_region = eu-west-1
sso_start_url = ` + startURL + `
sso_registration_scopes = sso:account:access

[profile dev]
region = eu-west-1
sso_session = corp
sso_account_id = 111122223333
sso_role_name = Developer

[profile reader]
region = eu-west-1
sso_session = corp
sso_account_id = 111122223333
sso_role_name = ReadOnly

[profile old]
region = eu-west-1
sso_region = eu-west-1
sso_start_url = ` + startURL + `
sso_account_id = 111122223333
sso_role_name = Developer

[profile above]
region = eu-west-1
role_arn = ` + entryARN + `
source_profile = dev
`
