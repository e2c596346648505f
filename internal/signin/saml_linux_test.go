package signin

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"keyfob/internal/fakeaws"
)

const awsSAML = "https://signin.aws.amazon.com/saml"

// The assertion is taken and does not reach the address it is posted to,
// whichever of AWS's addresses that is.
func TestSAMLAssertionIsTakenBeforeItLeaves(t *testing.T) {
	p := newPerson(t)
	aws, idp := provider(t, fakeaws.SignInAuto, nil)
	for _, c := range []struct{ acs, endpoint string }{
		{"", idp + "/saml"}, {idp + "/saml/acs/SAMLSP1", idp + "/saml"},
		{awsSAML, awsSAML}, {"https://eu-west-1.signin.aws.amazon.com/saml", awsSAML}, {"https://signin.amazonaws.cn/saml", idp + "/saml"},
	} {
		if c.acs != "" && !strings.HasPrefix(c.acs, "http://") { // the fake's own page takes only its own
			aws.AddSAML(fakeaws.SAMLSpec{Roles: []string{testRole}, ACS: c.acs})
			c.acs = ""
		}
		page := idp + "/saml/idp/idp"
		if c.acs != "" {
			page += "?acs=" + url.QueryEscape(c.acs)
		}
		assertion := p.signIn(p.request(page, c.endpoint, func(q *samlRequest) { q.Headless = true })).assertion(t)
		doc, err := base64.StdEncoding.DecodeString(assertion)
		if err != nil || !strings.HasPrefix(string(doc), "<samlp:Response ") || !strings.HasSuffix(string(doc), "</samlp:Response>") || !strings.Contains(string(doc), testRole) {
			t.Errorf("%v: the answer is no SAML response: %.60q", c, doc)
		}
		p.nowhere(assertion)
	}
	if n := aws.Count("SAMLSignIn"); n != 0 {
		t.Errorf("%d assertions left the browser", n)
	}
	if st, err := os.Stat(p.data); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

// nowhere makes sure that an assertion is in no file of the browser's and in
// no argument list.
func (p *person) nowhere(assertion string) {
	p.t.Helper()
	// The signature is in the middle; the ends are the same for all.
	doc, _ := base64.StdEncoding.DecodeString(assertion)
	var canaries [][]byte
	for _, part := range []string{assertion[len(assertion)/2:][:60], url.QueryEscape(assertion)[len(assertion)/2:][:60], string(doc[len(doc)/2:][:60])} {
		canaries = append(canaries, []byte(part))
		wide := make([]byte, 0, 2*len(part))
		for _, c := range utf16.Encode([]rune(part)) {
			wide = append(wide, byte(c), byte(c>>8))
		}
		canaries = append(canaries, wide)
	}
	look := func(where string, b []byte) {
		for i, c := range canaries {
			if bytes.Contains(b, c) {
				p.t.Errorf("the assertion (form %d) is in %s", i, where)
			}
		}
	}
	look("arguments", p.witnessed)
	files := 0
	err := filepath.WalkDir(p.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil //nolint:nilerr // files go while we look
		}
		files++
		b, _ := os.ReadFile(path)
		look(path, b)
		return nil
	})
	if err != nil || files < 10 {
		p.t.Errorf("%d files were looked at: %v", files, err)
	}
}

// The person signs in by a form; the next sign-in needs neither a window nor
// the person, for as long as the provider knows the cookie.
func TestSAMLCookiesLast(t *testing.T) {
	p := newPerson(t)
	aws, idp := provider(t, fakeaws.SignInForm, nil)
	page := idp + "/saml/idp/idp"
	v := p.start(p.request(page, idp+"/saml", withPort))
	p.hands(page, chromedp.SendKeys("#username", "bob"), chromedp.SendKeys("#password", fakeaws.SignInPassword), chromedp.Click("#submit"))
	first := v.end().assertion(t)
	window := func(q *samlRequest) { q.Headless = false } // and there is no desktop
	second := p.signIn(p.request(page, idp+"/saml", window))
	if second.assertion(t) == first {
		t.Error("the assertion is the first one")
	}
	if n := aws.Count("logins:saml"); n != 1 {
		t.Errorf("%d people typed a password", n)
	}
	if n := aws.Count("SAMLSignIn"); n != 0 {
		t.Errorf("%d assertions left the browser", n)
	}
	aws.ForgetLogins()
	third := p.signIn(p.request(page, idp+"/saml", window))
	third.want(t, exitNobody, "")
	if !strings.Contains(third.errs, "there is no desktop session") || third.took > silentLimit+closeGrace {
		t.Errorf("%q after %s", third.errs, third.took)
	}
	t.Logf("by cookie %s, given up %s", second.took.Round(10*time.Millisecond), third.took.Round(10*time.Millisecond))
}

// On a desktop the person gets a window, also where the try without one
// came to nothing; closing it is a refusal.
func TestSAMLInAWindow(t *testing.T) {
	p := newPerson(t)
	p.screen()
	aws, idp := provider(t, fakeaws.SignInForm, nil)
	page := idp + "/saml/idp/idp"
	window := func(q *samlRequest) { q.Headless = false; withPort(q) }
	signIn := []chromedp.Action{chromedp.SendKeys("#username", "bob"), chromedp.SendKeys("#password", fakeaws.SignInPassword), chromedp.Click("#submit")}
	v := p.start(p.request(page, idp+"/saml", window))
	p.hands(page, signIn...)
	r := v.end()
	p.nowhere(r.assertion(t))
	// Nothing is asked.
	r = p.signIn(p.request(page, idp+"/saml", window))
	p.nowhere(r.assertion(t))
	aws.ForgetLogins()
	v = p.start(p.request(page, idp+"/saml", window))
	p.eventually("the window is there", p.windowed)
	p.hands(page, cdppage.Close())
	r = v.end()
	if r.code != exitDone || r.out != "{\"refused\":true}\n" {
		t.Errorf("%+v", r)
	}
}

// windowed reports whether a browser with a window runs.
func (p *person) windowed() bool {
	for _, pid := range p.browsers() {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if bytes.Contains(b, []byte("--remote-debugging-pipe")) && !bytes.Contains(b, []byte("--headless")) && !bytes.Contains(b, []byte("--type=")) {
			return true
		}
	}
	return false
}

// Without a desktop, and without a browser that was ever here, nothing is
// started.
func TestSAMLWithoutADesktop(t *testing.T) {
	p := newPerson(t)
	r := p.signIn(p.request("http://127.0.0.1:1/", awsSAML, func(q *samlRequest) { q.Headless = false }))
	r.want(t, exitNobody, "")
	if r.took > time.Second || !strings.Contains(r.errs, "there is no desktop session") {
		t.Errorf("%q after %s", r.errs, r.took)
	}
}

// idpPages is an identity provider with habits of its own. It counts what
// arrives at its address for assertions.
type idpPages struct {
	*httptest.Server
	arrived   atomic.Int32
	assertion string
}

func newIDPPages(t *testing.T, size int) *idpPages {
	t.Helper()
	s := &idpPages{assertion: base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("canary?>~"), size/12))}
	form := func(action, fields string) string {
		return `<body onload="document.forms[0].submit()"><form method="post" action="` + action + `" ` + fields + `<input type=hidden name=RelayState value="a&amp;b"></form>`
	}
	post := func(action string) string {
		return form(action, `><input type=hidden name=SAMLResponse value="`+html.EscapeString(s.assertion)+`">`)
	}
	mux := http.NewServeMux()
	page := func(path string, fn func(w http.ResponseWriter, r *http.Request) string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = fmt.Fprint(w, "<!DOCTYPE html>", fn(w, r))
		})
	}
	target := func() string { return s.URL + "/saml" }
	page("/saml", func(_ http.ResponseWriter, r *http.Request) string {
		_ = r.ParseForm()
		if r.PostForm.Get("SAMLResponse") != "" {
			s.arrived.Add(1)
		}
		if r.Method == http.MethodPost || r.URL.Query().Has("seen") {
			return post(target())
		}
		return ""
	})
	page("/plain", func(http.ResponseWriter, *http.Request) string { return post(target()) })
	page("/lines", func(http.ResponseWriter, *http.Request) string {
		return form(target(), `><textarea name=SAMLResponse>`+s.assertion[:76]+"\n"+s.assertion[76:]+"\n</textarea>")
	})
	page("/cached", func(w http.ResponseWriter, _ *http.Request) string {
		w.Header().Set("Cache-Control", "public, max-age=86400")
		return post(target())
	})
	// The form goes to another frame's, another window's, or another
	// server's care first.
	other := func(path string) string { return strings.Replace(s.URL, "127.0.0.1", "localhost", 1) + path }
	page("/frame", func(http.ResponseWriter, *http.Request) string {
		return `<iframe src="` + other("/plain") + `"></iframe>`
	})
	page("/top", func(http.ResponseWriter, *http.Request) string {
		return `<iframe src="` + other("/totop") + `"></iframe>`
	})
	page("/totop", func(http.ResponseWriter, *http.Request) string {
		return form(target(), `target=_top><input type=hidden name=SAMLResponse value="`+s.assertion+`">`)
	})
	page("/popup", func(http.ResponseWriter, *http.Request) string { return `<script>window.open("/plain")</script>` })
	page("/hop", func(http.ResponseWriter, *http.Request) string { return post("/hopped") })
	page("/hopped", func(w http.ResponseWriter, r *http.Request) string {
		w.Header().Set("Location", target())
		w.WriteHeader(http.StatusTemporaryRedirect)
		return ""
	})
	// The address is asked for other things before.
	page("/before", func(http.ResponseWriter, *http.Request) string { return form(target(), `>`) })
	page("/get", func(http.ResponseWriter, *http.Request) string { return `<script>location="/saml?seen"</script>` })
	// A session that ends with the browser, as most providers' do.
	page("/session", func(w http.ResponseWriter, r *http.Request) string {
		for _, name := range []string{"__Host-idp", "idp"} {
			if c, err := r.Cookie(name); err == nil && c.Value == "signed-in" {
				return post(target())
			}
		}
		http.SetCookie(w, &http.Cookie{Name: "idp", Value: "signed-in", Path: "/session", HttpOnly: true, SameSite: http.SameSiteLaxMode})
		return `<a id=go href="/session">go on</a>`
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// However the provider's page gets the assertion to the address, it is taken,
// whole, and does not arrive.
func TestSAMLHabitsOfProviders(t *testing.T) {
	p := newPerson(t)
	s := newIDPPages(t, 99_000)
	for _, path := range []string{"/plain", "/lines", "/cached", "/frame", "/top", "/popup", "/hop", "/before", "/get"} {
		t.Run(path[1:], func(t *testing.T) {
			p.t, p.desk.t = t, t
			got := p.signIn(p.request(s.URL+path, s.URL+"/saml", func(q *samlRequest) { q.BrowserArgs = append(q.BrowserArgs, "--disable-popup-blocking") })).assertion(t)
			if got != s.assertion {
				t.Errorf("%d characters, want %d", len(got), len(s.assertion))
			}
			if n := s.arrived.Load(); n != 0 {
				t.Errorf("%d assertions left the browser", n)
			}
			p.nowhere(got)
		})
	}
	p.t, p.desk.t = t, t
}

// A session cookie of the provider's survives the browser's end.
func TestSAMLSessionCookiesLast(t *testing.T) {
	p := newPerson(t)
	s := newIDPPages(t, 1200)
	v := p.start(p.request(s.URL+"/session", s.URL+"/saml", withPort))
	p.hands(s.URL+"/session", chromedp.Click("#go"))
	v.end().assertion(t)
	r := p.signIn(p.request(s.URL+"/session", s.URL+"/saml", func(q *samlRequest) { q.Headless = false }))
	r.assertion(t)
}

// The person presses Deny, reads that they may not, and closes the browser:
// its page, or the program.
func TestSAMLClosedByThePerson(t *testing.T) {
	_, idp := provider(t, fakeaws.SignInClick, nil)
	page := idp + "/saml/idp/idp"
	for name, actions := range map[string][]chromedp.Action{
		"page":           {cdppage.Close()},
		"program":        {cdpbrowser.Close()},
		"denied program": {chromedp.Click("#deny"), chromedp.WaitVisible("#note"), cdpbrowser.Close()},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPerson(t)
			v := p.start(p.request(page, idp+"/saml", withPort))
			p.hands(page, actions...)
			if r := v.end(); r.code != exitDone || r.out != "{\"refused\":true}\n" || r.errs != "" {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("allowed", func(t *testing.T) {
		p := newPerson(t)
		v := p.start(p.request(page, idp+"/saml", withPort))
		p.hands(page, chromedp.Click("#allow"))
		v.end().assertion(t)
	})
}

// The time limit, a signal, and Ctrl-C end the browser.
func TestSAMLEndsWithItsBrowser(t *testing.T) {
	_, idp := provider(t, fakeaws.SignInWait, nil)
	page := idp + "/saml/idp/idp"
	p := newPerson(t)
	r := p.signIn(p.request(page, idp+"/saml", func(q *samlRequest) { q.TimeoutSeconds = 3 }))
	r.want(t, exitFailed, "")
	if r.took > 6*time.Second || !strings.Contains(r.errs, "nobody signed in within 3s") {
		t.Errorf("%q after %s", r.errs, r.took)
	}
	if n := p.browsers(); len(n) > 0 {
		t.Errorf("browsers are left: %v", n)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGKILL} {
		v := p.start(p.request(page, idp+"/saml", withPort))
		p.hands(page, chromedp.WaitVisible("#wait"))
		begin := time.Now()
		_ = v.cmd.Process.Signal(sig)
		r := v.end()
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("%s: ended after %s", sig, took)
		}
		switch sig {
		case syscall.SIGTERM:
			r.want(t, exitFailed, "")
		case syscall.SIGINT:
			if r.code != exitDone || r.out != "{\"refused\":true}\n" {
				t.Errorf("%s: %+v", sig, r)
			}
		}
		if sig == syscall.SIGKILL { // the browser ends by itself
			p.eventually("the browser ends", func() bool { return len(p.browsers()) == 0 })
		}
		if n := p.browsers(); len(n) > 0 {
			t.Errorf("%s: browsers are left: %v", sig, n)
		}
	}
}

// A browser that dies is no refusal.
func TestSAMLBrowserDies(t *testing.T) {
	_, idp := provider(t, fakeaws.SignInWait, nil)
	page := idp + "/saml/idp/idp"
	p := newPerson(t)
	v := p.start(p.request(page, idp+"/saml", withPort))
	p.hands(page, chromedp.WaitVisible("#wait"))
	for _, pid := range p.browsers() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	r := v.end()
	r.want(t, exitFailed, "")
	if !strings.Contains(r.errs, "chromium ended by itself (signal: killed)") {
		t.Errorf("%q", r.errs)
	}
}

func TestSAMLPageThatCannotBeOpened(t *testing.T) {
	p := newPerson(t)
	r := p.signIn(p.request("http://127.0.0.1:1/?canary", awsSAML, nil))
	r.want(t, exitFailed, "")
	if !strings.Contains(r.errs, "127.0.0.1:1: net::ERR_") || strings.Contains(r.errs, "canary") {
		t.Errorf("%q", r.errs)
	}
}

// Two sign-ins with one profile come one after the other.
func TestSAMLOneBrowserAtATime(t *testing.T) {
	aws, idp := provider(t, fakeaws.SignInWait, nil)
	page := idp + "/saml/idp/idp"
	p := newPerson(t)
	first := p.start(p.request(page, idp+"/saml", withPort))
	p.hands(page, chromedp.WaitVisible("#wait"))
	second := p.start(p.request(page, idp+"/saml", nil))
	third := p.signIn(p.request(page, idp+"/saml", func(q *samlRequest) { q.TimeoutSeconds = 1 }))
	third.want(t, exitFailed, "")
	if !strings.Contains(third.errs, "another sign-in has the browser of keyfob") {
		t.Errorf("%q", third.errs)
	}
	aws.SetSignIn(fakeaws.SignInSAML, fakeaws.SignInAuto)
	first.end().assertion(t)
	second.end().assertion(t)
}

func TestSAMLWithoutABrowser(t *testing.T) {
	d := newDesk(t)
	request := `{"profile":"dev","url":"https://idp.example.com/","saml_endpoint":"` + awsSAML + `","browser_dir":"` + d.dir + `/browser","timeout_seconds":10}`
	r := d.run("saml", request)
	r.want(t, exitNobody, "")
	if !strings.Contains(r.errs, "install Google Chrome, Chromium or Microsoft Edge") {
		t.Errorf("%q", r.errs)
	}
	if _, err := os.Stat(d.dir + "/browser"); err == nil {
		t.Error("a directory was made for nothing")
	}
	// One that ends at once.
	d.program("chromium", "exit 7")
	r = d.run("saml", strings.Replace(request, `"profile"`, `"headless":true,"profile"`, 1))
	r.want(t, exitNobody, "")
	if !strings.Contains(r.errs, "chromium does not start (exit status 7)") || os.Geteuid() == 0 && !strings.Contains(r.errs, "--no-sandbox") {
		t.Errorf("%q", r.errs)
	}
	// One that says nothing.
	d.program("chromium", "/bin/sleep 100 & echo $! >"+d.dir+"/pid; wait")
	r = d.run("saml", strings.Replace(request, `"timeout_seconds":10`, `"headless":true,"timeout_seconds":1`, 1))
	r.want(t, exitFailed, "")
	pid := strings.TrimSpace(d.file("pid"))
	if b, err := os.ReadFile("/proc/" + pid + "/stat"); pid == "" || err == nil && !bytes.Contains(b, []byte(") Z ")) {
		t.Errorf("its child %q lives: %s", pid, b)
	}
}

func TestSAMLBadRequests(t *testing.T) {
	d := newDesk(t).program("chromium", "exit 7")
	for _, request := range []string{
		"", "canary", `{}`,
		`{"url":"file:///canary","saml_endpoint":"` + awsSAML + `","browser_dir":"/x"}`,
		`{"url":"https://idp.example.com/","saml_endpoint":"canary","browser_dir":"/x"}`,
		`{"url":"https://idp.example.com/","saml_endpoint":"https://signin.aws.amazon.com","browser_dir":"/x"}`,
		`{"url":"https://idp.example.com/","saml_endpoint":"` + awsSAML + `","browser_dir":"canary"}`,
	} {
		r := d.run("saml", request)
		r.want(t, exitUsage, "")
		if strings.Contains(r.errs, "canary") {
			t.Errorf("the request is in the error: %q", r.errs)
		}
	}
}
