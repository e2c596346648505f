package signin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"runtime"
	"strings"
	"time"
)

// samlRequest is the request of "saml".
type samlRequest struct {
	Profile        string   `json:"profile"`
	URL            string   `json:"url"`
	SAMLEndpoint   string   `json:"saml_endpoint"`
	BrowserDir     string   `json:"browser_dir"`
	Headless       bool     `json:"headless"`
	BrowserArgs    []string `json:"browser_args"`
	TimeoutSeconds int      `json:"timeout_seconds"`
}

// samlAnswer is what "saml" prints.
type samlAnswer struct {
	Assertion string `json:"assertion,omitempty"`
	Refused   bool   `json:"refused,omitempty"`
}

const (
	// silentLimit bounds the try without a window, and silentIdle how long
	// a page may stand still in it: one that asks the person something does.
	silentLimit = 10 * time.Second
	silentIdle  = 1500 * time.Millisecond
	// windowsGone is how long a browser without any window may go on: one
	// page may close while the next opens.
	windowsGone = time.Second
)

var (
	// errTooLate: nobody signed in within the time limit.
	errTooLate = errors.New("nobody signed in")
	// errAsks: the sign-in needs the person, and this browser has no window.
	errAsks = errors.New("the identity provider asks for something")
)

// doSAML signs in at the identity provider and prints the assertion.
func doSAML(ctx context.Context, q samlRequest, out io.Writer) error {
	limit := askLimit
	if q.TimeoutSeconds > 0 {
		limit = min(time.Duration(q.TimeoutSeconds)*time.Second, 24*time.Hour)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w within %s", errTooLate, limit))
	defer cancel()
	assertion, err := samlSignIn(ctx, q)
	switch {
	case err == nil:
		return writeJSON(out, samlAnswer{Assertion: assertion})
	case errors.Is(err, errRefused), errors.Is(context.Cause(ctx), errInterrupted):
		return writeJSON(out, samlAnswer{Refused: true})
	}
	return err
}

// samlSignIn tries without a window where a browser has signed in before: its
// cookies may be enough. Otherwise the person gets a window.
func samlSignIn(ctx context.Context, q samlRequest) (string, error) {
	targets, err := newTargets(q.SAMLEndpoint)
	if err != nil {
		return "", err
	}
	if _, err := webURL("url", q.URL); err != nil {
		return "", err
	}
	if _, err := findBrowser(); err != nil {
		return "", err
	}
	dir, err := openBrowserDir(ctx, q.BrowserDir)
	if err != nil {
		return "", err
	}
	defer dir.close()
	runtime.LockOSThread() // see prepare
	defer runtime.UnlockOSThread()
	s := samlVisit{url: q.URL, targets: targets, args: q.BrowserArgs}
	if q.Headless {
		s.headless = true
		return s.run(ctx, dir)
	}
	if dir.used {
		silent := s
		silent.headless, silent.silent = true, true
		switch assertion, err := silent.run(ctx, dir); {
		case err == nil:
			return assertion, nil
		case ctx.Err() != nil, errors.Is(err, errNobody):
			return "", err
		}
	}
	if !graphical(ctx) {
		return "", noBrowser("there is no desktop session for the browser's window")
	}
	return s.run(ctx, dir)
}

// samlVisit is one run of a browser.
type samlVisit struct {
	url      string
	targets  []target
	args     []string
	headless bool
	silent   bool // give up as soon as the person would have to do something

	b       *browser
	agent   string          // of the browser with a window
	pages   map[string]bool // sessions of pages
	loading map[string]bool // frames
	first   string          // session of the first page
	opened  int             // number of the command that opened url
}

// run drives one browser until it has the assertion. Errors: errRefused when
// the person closed it; errAsks for a silent one; errNobody when it does not
// start; ctx's cause.
func (v *samlVisit) run(ctx context.Context, dir *browserDir) (assertion string, err error) {
	v.pages, v.loading = map[string]bool{}, map[string]bool{}
	if v.silent {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, silentLimit, errAsks)
		defer cancel()
	}
	if v.b, err = startBrowser(dir, v.headless, v.args); err != nil {
		return "", err
	}
	defer func() {
		grace := closeGrace
		if ctx.Err() != nil && !v.silent {
			grace = abandonGrace
		}
		v.b.end(grace)
	}()
	assertion, err = v.wait(ctx)
	if errors.Is(err, errGone) {
		return "", v.b.failure(ctx, v.first != "")
	}
	if err != nil {
		return "", err
	}
	v.leave(ctx)
	return assertion, nil
}

// wait attaches to every page and frame, opens the URL, and waits for the
// assertion.
func (v *samlVisit) wait(ctx context.Context) (string, error) {
	t := v.b.tools
	var version struct {
		UserAgent string `json:"userAgent"`
	}
	if err := t.call(ctx, "", "Browser.getVersion", nil, &version); err != nil {
		return "", err
	}
	// A provider that finds the same cookies in "another browser" may end
	// the session, or warn the person of a stranger.
	v.agent = strings.Replace(version.UserAgent, "HeadlessChrome", "Chrome", 1)
	if v.silent {
		var jar struct {
			Cookies []struct{} `json:"cookies"`
		}
		if err := t.call(ctx, "", "Storage.getCookies", nil, &jar); err != nil || len(jar.Cookies) == 0 {
			return "", errors.Join(err, errAsks)
		}
	}
	if err := t.call(ctx, "", "Target.setAutoAttach", autoAttach, nil); err != nil {
		return "", err
	}
	// still ends a wait in which nothing may happen any more.
	still, why := time.NewTimer(time.Hour), error(nil)
	still.Stop()
	defer still.Stop()
	for {
		m, err := v.nextBefore(ctx, still, why)
		if err != nil {
			return "", err
		}
		switch m.Method {
		case "Target.attachedToTarget":
			still.Stop()
			v.attached(ctx, m)
		case "Target.detachedFromTarget":
			if v.detached(m) && len(v.pages) == 0 {
				why = errRefused // on macOS a browser without windows goes on
				still.Reset(windowsGone)
			}
		case "Page.frameStartedLoading", "Page.frameStoppedLoading", "Page.frameDetached":
			still.Stop()
			if v.loads(m) && v.silent {
				why = errAsks
				still.Reset(silentIdle)
			}
		case "Fetch.requestPaused":
			assertion, err := v.paused(ctx, m)
			if err != nil || assertion != "" {
				return assertion, err
			}
		case "":
			if err := v.notOpened(m); err != nil {
				return "", err
			}
		}
	}
}

// nextBefore is the next message, or why when the timer ends first.
func (v *samlVisit) nextBefore(ctx context.Context, still *time.Timer, why error) (message, error) {
	t := v.b.tools
	if len(t.early) > 0 {
		m := t.early[0]
		t.early = t.early[1:]
		return m, nil
	}
	select {
	case m, ok := <-t.messages:
		if !ok {
			return message{}, errGone
		}
		return m, nil
	case <-still.C:
		return message{}, why
	case <-ctx.Done():
		return message{}, context.Cause(ctx)
	}
}

// autoAttach attaches to pages and to frames that have a process of their
// own, before they load anything.
var autoAttach = map[string]any{"autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true,
	"filter": []map[string]any{{"type": "page"}, {"type": "iframe"}, {"exclude": true}}}

// attached has a new page or frame watched before it may run.
func (v *samlVisit) attached(ctx context.Context, m message) {
	var p struct {
		SessionID  string `json:"sessionId"`
		TargetInfo struct {
			Type string `json:"type"`
		} `json:"targetInfo"`
	}
	if json.Unmarshal(m.Params, &p) != nil || p.SessionID == "" {
		return
	}
	t, page := v.b.tools, p.TargetInfo.Type == "page"
	var patterns []map[string]string
	for _, target := range v.targets {
		patterns = append(patterns, map[string]string{"urlPattern": target.pattern(), "requestStage": "Request"})
	}
	t.send(p.SessionID, "Fetch.enable", map[string]any{"patterns": patterns})
	t.send(p.SessionID, "Target.setAutoAttach", autoAttach)
	if v.headless {
		t.send(p.SessionID, "Emulation.setUserAgentOverride", map[string]any{"userAgent": v.agent})
	}
	if v.silent && page {
		t.send(p.SessionID, "Page.enable", nil)
	}
	t.send(p.SessionID, "Runtime.runIfWaitingForDebugger", nil)
	if !page {
		return
	}
	v.pages[p.SessionID] = true
	if v.first == "" {
		v.first = p.SessionID
		// Answered, it has all of the above in effect.
		_ = t.call(ctx, v.first, "Page.enable", nil, nil)
		v.opened = t.send(v.first, "Page.navigate", map[string]any{"url": v.url})
	}
}

// loads keeps count of the frames that are loading and reports whether none
// is any more.
func (v *samlVisit) loads(m message) bool {
	var p struct {
		FrameID string `json:"frameId"`
	}
	_ = json.Unmarshal(m.Params, &p)
	if m.Method == "Page.frameStartedLoading" {
		v.loading[p.FrameID] = true
	} else {
		delete(v.loading, p.FrameID)
	}
	return len(v.loading) == 0
}

// detached forgets a session and reports whether it was a page.
func (v *samlVisit) detached(m message) bool {
	var p struct {
		SessionID string `json:"sessionId"`
	}
	_ = json.Unmarshal(m.Params, &p)
	page := v.pages[p.SessionID]
	delete(v.pages, p.SessionID)
	return page
}

// notOpened is why the URL can't be opened, where no person sees the page
// that says so.
func (v *samlVisit) notOpened(m message) error {
	var r struct {
		ErrorText string `json:"errorText"`
	}
	if !v.headless || m.ID != v.opened || json.Unmarshal(m.Result, &r) != nil || r.ErrorText == "" || r.ErrorText == "net::ERR_ABORTED" {
		return nil
	}
	host := ""
	if u, err := url.Parse(v.url); err == nil {
		host = u.Host
	}
	return fmt.Errorf("the browser can't open the page of %s: %s", plain(host, 100), plain(r.ErrorText, 100))
}

// paused judges a request that waits for our word. One that carries an
// assertion to AWS does not leave; every other one goes on.
func (v *samlVisit) paused(ctx context.Context, m message) (string, error) {
	var p struct {
		RequestID string `json:"requestId"`
		NetworkID string `json:"networkId"`
		Request   struct {
			URL         string `json:"url"`
			Fragment    string `json:"urlFragment"`
			Method      string `json:"method"`
			PostData    string `json:"postData"`
			HasPostData bool   `json:"hasPostData"`
			Entries     []struct {
				Bytes string `json:"bytes"`
			} `json:"postDataEntries"`
		} `json:"request"`
	}
	if err := json.Unmarshal(m.Params, &p); err != nil {
		return "", errors.New("the browser's word is not understood")
	}
	assertion := ""
	if u, err := url.Parse(p.Request.URL); err == nil && p.Request.Method == "POST" && v.watches(u) {
		body := p.Request.PostData
		if body == "" {
			for _, e := range p.Request.Entries {
				part, _ := base64.StdEncoding.DecodeString(e.Bytes)
				body += string(part)
			}
		}
		assertion = samlResponse(body)
	}
	t := v.b.tools
	if assertion == "" {
		t.send(m.SessionID, "Fetch.continueRequest", map[string]any{"requestId": p.RequestID})
		return "", nil
	}
	// Aborted, the navigation leaves the page where it was: nothing is
	// written into the profile's history of what was posted.
	t.send(m.SessionID, "Fetch.failRequest", map[string]any{"requestId": p.RequestID, "errorReason": "Aborted"})
	return assertion, nil
}

func (v *samlVisit) watches(u *url.URL) bool {
	for _, t := range v.targets {
		if t.is(u) {
			return true
		}
	}
	return false
}

// donePage is what the window shows while the browser closes.
const donePage = "data:text/html;charset=utf-8,<!DOCTYPE html><title>keyfob</title><body style='font-family:sans-serif;margin:4em'><h1>Signed in</h1><p>keyfob has what it needs. This window closes by itself."

// leave replaces the provider's page, which holds the assertion in a form,
// and has the session's cookies last.
func (v *samlVisit) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for session := range v.pages {
		_ = v.b.tools.call(ctx, session, "Page.navigate", map[string]any{"url": donePage}, nil)
	}
	v.keepCookies(ctx)
}
