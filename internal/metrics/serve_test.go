package metrics

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server on setting; it ends with the test.
func serve(t *testing.T, setting string) net.Listener {
	t.Helper()
	l, err := Listen(t.Context(), setting)
	if err != nil {
		t.Fatal(err)
	}
	m, _ := full()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Serve(ctx, l); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return l
}

// ask sends raw bytes on a fresh connection and returns the answer.
func ask(t *testing.T, l net.Listener, raw string) (status int, header http.Header, body string) {
	t.Helper()
	network, addr := l.Addr().Network(), l.Addr().String()
	if u, ok := l.(*unixListener); ok {
		addr = u.path
	}
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func TestGuard(t *testing.T) {
	l := serve(t, "127.0.0.1:0")
	host := l.Addr().String()
	_, port, _ := net.SplitHostPort(host)
	get := func(host, more string) string {
		return "GET /metrics HTTP/1.1\r\nHost: " + host + "\r\n" + more + "\r\n"
	}
	for _, c := range []struct {
		raw    string
		status int
	}{
		{get(host, ""), 200},
		{get("127.0.0.1", ""), 200},
		{get("localhost:"+port, ""), 200},
		{get("LocalHost", ""), 200},
		{get("[::1]:"+port, ""), 200},
		{get(host, "Accept: application/openmetrics-text;version=1.0.0\r\nUser-Agent: Prometheus/3\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n"), 200},
		{strings.Replace(get(host, ""), "/metrics", "/metrics?name[]=x", 1), 200},
		{get("evil.example:"+port, ""), 403},
		{get("localhost.evil.example", ""), 403},
		{get("127.0.0.1:1", ""), 403},
		{get("169.254.169.254", ""), 403},
		{get("0.0.0.0", ""), 403},
		{get("", ""), 403},
		{get(host, "Origin: http://localhost\r\n"), 403},
		{get(host, "origin: null\r\n"), 403},
		{get(host, "Referer: http://x/\r\n"), 403},
		{get(host, "Sec-Fetch-Mode: navigate\r\n"), 403},
		{get(host, "X-Forwarded-For: 1.2.3.4\r\n"), 403},
		{get(host, "Via: 1.1 proxy\r\n"), 403},
		{get(host, "Forwarded: for=1.2.3.4\r\n"), 403},
		{get(host, "X-HTTP-Method-Override: GET\r\n"), 403},
		{"GET http://" + host + "/metrics HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403},
		{"OPTIONS * HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403},
		{"GET /metrics HTTP/1.1\r\n\r\n", 400}, // no Host at all
		{get(host, "Host: "+host+"\r\n"), 400},
		{get(host, "Content-Length: 1\r\n") + "x", 400},
		{get(host, "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400},
		{strings.Replace(get(host, ""), "GET", "POST", 1), 405},
		{strings.Replace(get(host, ""), "/metrics", "/", 1), 404},
		{strings.Replace(get(host, ""), "/metrics", "/metrics/", 1), 404},
		{strings.Replace(get(host, ""), "/metrics", "//metrics", 1), 404},
		{strings.Replace(get(host, ""), "/metrics", "/x/../metrics", 1), 404},
		{strings.Replace(get(host, ""), "/metrics", "/%6detrics", 1), 404},
		{strings.Replace(get(host, ""), "/metrics", "/debug/pprof/", 1), 404},
	} {
		name := c.raw
		if len(name) > 90 {
			name = name[:90]
		}
		status, header, body := ask(t, l, c.raw)
		if status != c.status {
			t.Errorf("%q: %d, want %d", name, status, c.status)
		}
		if (status == 200) != strings.Contains(body, "keyfob_build_info") {
			t.Errorf("%q: %d with the body %q", name, status, body)
		}
		if status == 200 {
			if got := header.Get("Content-Type"); got != "text/plain; version=0.0.4; charset=utf-8" {
				t.Errorf("Content-Type %q", got)
			}
			if _, err := parse([]byte(body)); err != nil {
				t.Error(err)
			}
		}
	}
	resp, err := http.Head("http://" + host + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != 405 {
		t.Errorf("HEAD: %d", resp.StatusCode)
	}
}

func TestUnixSocket(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions of a socket are those of its directory here")
	}
	dir, err := os.MkdirTemp("", "keyfob-metrics-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "m.sock")
	l := serve(t, "unix:"+path)
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	if status, _, body := ask(t, l, "GET /metrics HTTP/1.1\r\nHost: anything\r\n\r\n"); status != 200 || !strings.Contains(body, "keyfob_sessions 3\n") {
		t.Errorf("%d %s", status, body)
	}
	if status, _, _ := ask(t, l, "GET /metrics HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\n\r\n"); status != 403 {
		t.Errorf("with an Origin: %d", status)
	}
	if _, err := Listen(t.Context(), "unix:"+path); err == nil || !strings.Contains(err.Error(), "another program listens there") {
		t.Errorf("a second listener: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("something is left beside the socket: %v", entries)
	}
	// A socket that a killed daemon left is replaced, and removed at the end.
	stale := filepath.Join(dir, "stale.sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	_ = old.Close()
	again, err := Listen(t.Context(), "unix:"+stale)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
	if _, err := os.Lstat(stale); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), "unix:"+file); err == nil {
		t.Error("a file was replaced by a socket")
	}
}

func TestListenRefuses(t *testing.T) {
	for _, s := range []string{"", "0.0.0.0:0", ":0", "192.0.2.1:0", "[::]:0", "localhost:0", "unix:relative", "unix:", "127.0.0.1"} {
		if l, err := Listen(t.Context(), s); err == nil {
			_ = l.Close()
			t.Errorf("%q was accepted", s)
		} else if !strings.HasPrefix(err.Error(), "cannot listen on ") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestIdleConnections: whoever holds connections open holds no more than so
// many, and the end does not wait for them.
func TestIdleConnections(t *testing.T) {
	l := serve(t, "127.0.0.1:0")
	var held []net.Conn
	for range maxConns {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// One request each, so that all are known to be accepted.
		fmt.Fprintf(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
		t.Error("one connection too many was answered")
	}
	_ = held[0].Close()
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		_ = c.Close()
		if err == nil && resp.StatusCode == 200 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no connection is free again")
		}
	}
}
