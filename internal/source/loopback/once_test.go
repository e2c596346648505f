package loopback

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

const consoleURL = "https://signin.aws.example/federation?Action=login&SigninToken=" + canary + "#x"

// ask makes one request as it stands and follows nothing.
func ask(t *testing.T, method, address string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}, Timeout: 5 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, ""
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp, string(b)
}

func redirect(t *testing.T) (r *Redirect, ended func() error, logs *bytes.Buffer) {
	t.Helper()
	r, err := Once(consoleURL)
	if err != nil {
		t.Fatal(err)
	}
	logs = &bytes.Buffer{}
	log := logrus.New()
	log.SetOutput(logs)
	r.Log = logrus.NewEntry(log)
	result := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(func() { cancel(); _ = r.Close() })
	start := sync.OnceFunc(func() { go func() { result <- r.Wait(ctx) }() })
	time.AfterFunc(0, start)
	return r, func() error { start(); return <-result }, logs
}

// TestOnce: what is refused uses nothing up; the right request is sent on,
// once.
func TestOnce(t *testing.T) {
	t.Parallel()
	r, ended, logs := redirect(t)
	if strings.Contains(r.URL(), canary) || !strings.HasPrefix(r.URL(), "http://127.0.0.1:") || len(r.path) < 26 {
		t.Fatalf("the address is %s", r.URL())
	}
	base := "http://" + r.host
	for _, x := range []struct {
		name, method, address string
		change                func(*http.Request)
		status                int
	}{
		{"a guess", "GET", base + "/open/AAAAAAAAAAAAAAAAAAAAAAAAAA", nil, 404},
		{"the icon", "GET", base + "/favicon.ico", nil, 404},
		{"another name", "GET", r.URL(), func(q *http.Request) { q.Host = "rebound.example" }, 400},
		{"another port", "GET", r.URL(), func(q *http.Request) { q.Host = "127.0.0.1:1" }, 400},
		{"no page", "POST", r.URL(), nil, 405},
		{"a look", "HEAD", r.URL(), nil, 405},
		{"a page's script", "GET", r.URL(), func(q *http.Request) { q.Header.Set("Origin", "https://evil.example") }, 403},
		{"a page's link", "GET", r.URL(), func(q *http.Request) { q.Header.Set("Referer", "https://evil.example/") }, 403},
		{"a page's frame", "GET", r.URL(), func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
	} {
		resp, body := ask(t, x.method, x.address, x.change)
		if resp == nil || resp.StatusCode != x.status || resp.Header.Get("Location") != "" || strings.Contains(body, canary) {
			t.Errorf("%s: %+v %q", x.name, resp, body)
		}
	}
	resp, body := ask(t, "GET", r.URL(), func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", "none") })
	if resp == nil || resp.StatusCode != 302 || resp.Header.Get("Location") != consoleURL || resp.Header.Get("Referrer-Policy") != "no-referrer" ||
		resp.Header.Get("Cache-Control") != "no-store" || strings.Contains(body, canary) {
		t.Errorf("the browser got %+v %q", resp, body)
	}
	if err := ended(); err != nil {
		t.Error(err)
	}
	if resp, _ := ask(t, "GET", r.URL(), nil); resp != nil {
		t.Errorf("it answers again: %+v", resp)
	}
	if strings.Contains(logs.String(), canary) || strings.Contains(logs.String(), r.path) || strings.Count(logs.String(), "\n") != 7 {
		t.Errorf("log %s", logs)
	}
	if err := r.Wait(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestOnceIsOnce: of many at a time one is sent on.
func TestOnceIsOnce(t *testing.T) {
	t.Parallel()
	r, ended, _ := redirect(t)
	var sent atomic.Int32
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if resp, _ := ask(t, "GET", r.URL(), nil); resp != nil && resp.StatusCode == 302 {
				sent.Add(1)
			}
		})
	}
	wg.Wait()
	if err := ended(); err != nil || sent.Load() != 1 {
		t.Errorf("%d were sent on, %v", sent.Load(), err)
	}
	// Also one that was accepted before the end and comes after it.
	h := &sender{r: r, path: sha256.Sum256([]byte(r.path)), sent: make(chan struct{})}
	for _, want := range []int{302, 410} {
		rw, req := httptest.NewRecorder(), httptest.NewRequest("GET", r.path, nil)
		req.Host = r.host
		if h.ServeHTTP(rw, req); rw.Code != want || (rw.Header().Get("Location") != "") != (want == 302) {
			t.Errorf("%d, want %d", rw.Code, want)
		}
	}
}

// TestOnceForWhom: who may not have it does not use it up.
func TestOnceForWhom(t *testing.T) {
	t.Parallel()
	r, err := Once(consoleURL)
	if err != nil {
		t.Fatal(err)
	}
	var may atomic.Bool
	r.Allow = func(c net.Conn) bool { return c.LocalAddr().String() == r.host && may.Load() }
	ended := make(chan error, 1)
	go func() { ended <- r.Wait(t.Context()) }()
	for _, want := range []int{403, 302} {
		if resp, _ := ask(t, "GET", r.URL(), nil); resp == nil || resp.StatusCode != want {
			t.Errorf("%+v, want %d", resp, want)
		}
		may.Store(true)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOnceEnds(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "x", "javascript:alert(1)", "file:///etc/passwd", "https:///x", "http://a b/" + canary} {
		if _, err := Once(bad); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	r, err := Once(consoleURL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if resp, _ := ask(t, "GET", r.URL(), nil); resp != nil {
		t.Error("it answers after its time")
	}
	if r, err = Once(consoleURL); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Wait(t.Context()) }()
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
