package loopback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"keyfob/internal/cred"
)

// TestMain: Wait joins whatever it starts.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	state  = "5f0e7b6c-state"
	canary = "CANARY-code-4711"
)

// rig is a Callback that is waited for.
type rig struct {
	*Callback
	t      *testing.T
	host   string
	cancel context.CancelFunc
	logs   bytes.Buffer
	result chan result
}

type result struct {
	values url.Values
	err    error
}

func wait(t *testing.T) *rig {
	t.Helper()
	c, err := Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Callback: c, t: t, result: make(chan result, 1)}
	u, err := url.Parse(c.RedirectURI())
	if err != nil || u.Path != "/oauth/callback" || u.Hostname() != "127.0.0.1" || u.Port() == "0" {
		t.Fatalf("redirect address %s", c.RedirectURI())
	}
	r.host = u.Host
	log := logrus.New()
	log.SetOutput(&r.logs)
	c.Log = logrus.NewEntry(log)
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() {
		v, err := c.Wait(ctx, state)
		r.result <- result{v, err}
	}()
	t.Cleanup(func() { cancel(); _ = c.Close() })
	return r
}

// end is what Wait returned, and the log.
func (r *rig) end() (url.Values, string, error) {
	r.t.Helper()
	select {
	case x := <-r.result:
		return x.values, r.logs.String(), x.err
	case <-time.After(5 * time.Second):
		r.t.Fatal("Wait does not return")
		return nil, "", nil
	}
}

// waits fails when Wait has returned.
func (r *rig) waits() {
	r.t.Helper()
	select {
	case x := <-r.result:
		r.t.Fatalf("Wait returned %v, %v", x.values, x.err)
	default:
	}
}

// raw sends bytes and returns the answer's status and the whole of it.
func (r *rig) raw(request string) (int, string) {
	r.t.Helper()
	c, err := net.Dial("tcp4", r.host)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		r.t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		r.t.Fatalf("%v after %q", err, b)
	}
	var status int
	var minor int
	if _, err := fmt.Sscanf(string(b), "HTTP/1.%d %d", &minor, &status); err != nil {
		r.t.Fatalf("%v in %q", err, b)
	}
	return status, string(b)
}

func (r *rig) get(target string) (int, string) {
	return r.raw("GET " + target + " HTTP/1.1\r\nHost: " + r.host + "\r\n\r\n")
}

func TestOneAnswer(t *testing.T) {
	r := wait(t)
	status, page := r.get("/oauth/callback?code=" + canary + "&state=" + state + "&iss=x")
	v, _, err := r.end()
	if err != nil || v.Get("code") != canary || v.Get("iss") != "x" || status != 200 {
		t.Fatalf("%d, %v, %v", status, v, err)
	}
	for _, want := range []string{"Referrer-Policy: no-referrer", "Cache-Control: no-store", "default-src 'none'", "frame-ancestors 'none'", "X-Content-Type-Options: nosniff", "Connection: close", "close this page"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q: %s", want, page)
		}
	}
	for _, bad := range []string{canary, state, "<script", "href", "src=", "Set-Cookie"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page holds %q: %s", bad, page)
		}
	}
	if c, err := net.Dial("tcp4", r.host); err == nil {
		c.Close()
		t.Error("it still listens")
	}
	if _, err := r.Wait(t.Context(), state); !errors.Is(err, ErrClosed) {
		t.Errorf("a second Wait: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheRedirectMayComeBeforeWait(t *testing.T) {
	c, err := Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	go func() {
		resp, err := (&http.Client{Transport: tr}).Get(c.RedirectURI() + "?code=1&state=" + state)
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	time.Sleep(20 * time.Millisecond) // the connection is in the kernel's queue
	if v, err := c.Wait(t.Context(), state); err != nil || v.Get("code") != "1" {
		t.Fatal(v, err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the browser saw %v", err)
	}
}

func TestAnswersThatSayNo(t *testing.T) {
	r := wait(t)
	if status, page := r.get("/oauth/callback?error=access_denied&error_description=" + canary + "&state=" + state); status != 200 || strings.Contains(page, canary) {
		t.Errorf("%d %s", status, page)
	}
	if _, _, err := r.end(); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	r = wait(t)
	r.get("/oauth/callback?error=server_error&error_description=a%0d%0ab%1b%5b31m+c.&state=" + state)
	_, _, err := r.end()
	var a *AnswerError
	if !errors.As(err, &a) || a.Code != "server_error" || a.Description != "a b [31m c" || strings.ContainsAny(err.Error(), "\r\n\x1b") {
		t.Errorf("%q", err)
	}
}

// TestWhatChangesNothing: none of these ends the wait, and none is repeated
// anywhere.
func TestWhatChangesNothing(t *testing.T) {
	r := wait(t)
	host := "Host: " + r.host + "\r\n"
	ok := "/oauth/callback?code=" + canary + "&state=" + state
	logged := 0
	for _, x := range []struct {
		request string
		status  int
		logged  bool
	}{
		{"GET /favicon.ico HTTP/1.1\r\n" + host + "\r\n", 404, false},
		{"GET / HTTP/1.1\r\n" + host + "\r\n", 404, false},
		{"GET /oauth/callback/ HTTP/1.1\r\n" + host + "\r\n", 404, false},
		{"GET //oauth/callback?code=" + canary + "&state=" + state + " HTTP/1.1\r\n" + host + "\r\n", 404, false},
		{"GET /oauth%2fcallback?code=" + canary + "&state=" + state + " HTTP/1.1\r\n" + host + "\r\n", 404, false},
		{"GET " + ok + "x HTTP/1.1\r\n" + host + "\r\n", 400, true},
		{"GET /oauth/callback?code=" + canary + " HTTP/1.1\r\n" + host + "\r\n", 400, true},
		{"GET /oauth/callback?code=" + canary + "&state= HTTP/1.1\r\n" + host + "\r\n", 400, true},
		{"GET /oauth/callback?error=access_denied&state=" + canary + " HTTP/1.1\r\n" + host + "\r\n", 400, true},
		{"GET " + ok + "&state=" + state + " HTTP/1.1\r\n" + host + "\r\n", 400, true},
		{"GET " + ok + "&code=x HTTP/1.1\r\n" + host + "\r\n", 400, true},
		{"GET " + ok + "&error=access_denied HTTP/1.1\r\n" + host + "\r\n", 400, true},
		{"GET " + ok + ";a=b HTTP/1.1\r\n" + host + "\r\n", 400, true},
		{"GET /oauth/callback?state=" + state + " HTTP/1.1\r\n" + host + "\r\n", 400, true},
		{"GET " + ok + " HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400, true},
		{"GET " + ok + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400, true},
		{"GET " + ok + " HTTP/1.1\r\nHost: localhost:" + strings.Split(r.host, ":")[1] + "\r\n\r\n", 400, true},
		{"GET " + ok + " HTTP/1.1\r\n\r\n", 400, false}, // net/http's own
		{"GET " + ok + " HTTP/1.0\r\n\r\n", 400, true},
		{"GET http://" + r.host + ok + " HTTP/1.1\r\n" + host + "\r\n", 400, true},
		{"HEAD " + ok + " HTTP/1.1\r\n" + host + "\r\n", 405, true},
		{"POST " + ok + " HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n", 405, true},
		{"OPTIONS * HTTP/1.1\r\n" + host + "\r\n", 404, false},
		{"GET " + ok + " HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\nx", 400, true},
		{"GET " + ok + " HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, true},
		{"nonsense\r\n\r\n", 400, false},
	} {
		status, page := r.raw(x.request)
		if status != x.status || strings.Contains(page, canary) || strings.Contains(page, state) {
			t.Errorf("%q: %d, want %d: %s", x.request, status, x.status, page)
		}
		r.waits()
		if x.logged {
			logged++
		}
	}
	if status, _ := r.get("/oauth/callback?code=right&state=" + state); status != 200 {
		t.Error(status)
	}
	v, logs, err := r.end()
	if err != nil || v.Get("code") != "right" {
		t.Errorf("%v, %v", v, err)
	}
	if n := strings.Count(logs, "was refused"); n != logged || strings.Contains(logs, canary) || strings.Contains(logs, state) {
		t.Errorf("%d refusals in the log:\n%s", n, logs)
	}
}

// TestTwoBrowsers: of many right answers one counts, and each browser gets a
// page or a closed door.
func TestTwoBrowsers(t *testing.T) {
	for range 20 {
		r := wait(t)
		var wg sync.WaitGroup
		var mu sync.Mutex
		pages := map[int]int{}
		for i := range 8 {
			wg.Go(func() {
				c, err := net.Dial("tcp4", r.host)
				if err != nil {
					return
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				fmt.Fprintf(c, "GET /oauth/callback?code=c%d&state=%s HTTP/1.1\r\nHost: %s\r\n\r\n", i, state, r.host)
				b, _ := io.ReadAll(c)
				var status int
				_, _ = fmt.Sscanf(string(b), "HTTP/1.1 %d", &status)
				mu.Lock()
				pages[status]++
				mu.Unlock()
			})
		}
		wg.Wait()
		v, _, err := r.end()
		if err != nil || v.Get("code") == "" || pages[200] != 1 {
			t.Fatalf("%v %v, pages %v", v, err, pages)
		}
	}
}

// TestSlowAndIdleClients: neither keeps the answer out, nor Wait from
// returning at once.
func TestSlowAndIdleClients(t *testing.T) {
	r := wait(t)
	for i := range 20 {
		c, err := net.Dial("tcp4", r.host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			_, _ = io.WriteString(c, "GET /oauth/callback?code=1&state="+state+" HTTP/1.1\r\nHo")
		}
	}
	began := time.Now()
	if status, _ := r.get("/oauth/callback?code=1&state=" + state); status != 200 {
		t.Error(status)
	}
	if _, _, err := r.end(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("the answer took %v", d)
	}
}

func TestContextAndClose(t *testing.T) {
	r := wait(t)
	r.cancel()
	if _, _, err := r.end(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if c, err := net.Dial("tcp4", r.host); err == nil {
		c.Close()
		t.Error("it listens after its context ended")
	}
	r = wait(t)
	_ = r.Close()
	if _, _, err := r.end(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	c, err := Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if _, err := c.Wait(t.Context(), state); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	c, _ = Listen(0)
	if _, err := c.Wait(t.Context(), ""); err == nil {
		t.Error("no state is none that can be checked")
	}
	_ = c.Close()
}

func TestPortTakenAndIPv4Only(t *testing.T) {
	r := wait(t)
	port := r.listener.Addr().(*net.TCPAddr).Port
	_, err := Listen(port)
	if !errors.Is(err, ErrPortTaken) || !strings.Contains(err.Error(), fmt.Sprint(port)) || !strings.HasPrefix(err.Error(), "cannot ") || cred.HintOf(err) == "" {
		t.Errorf("%v, hint %q", err, cred.HintOf(err))
	}
	for _, host := range []string{"::1", "127.0.0.2"} {
		if c, err := net.DialTimeout("tcp", net.JoinHostPort(host, fmt.Sprint(port)), time.Second); err == nil {
			c.Close()
			t.Errorf("it listens at %s", host)
		}
	}
	r.cancel()
	r.end()
}

// TestAFloodIsLoggedShortly: a page that guesses fills no disk.
func TestAFloodIsLoggedShortly(t *testing.T) {
	r := wait(t)
	for range 3 * maxLogged {
		r.get("/oauth/callback?code=x&state=wrong")
	}
	r.cancel()
	if _, logs, _ := r.end(); strings.Count(logs, "was refused") != maxLogged || !strings.Contains(logs, "are not logged") {
		t.Error(logs)
	}
}
