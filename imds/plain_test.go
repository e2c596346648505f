package imds

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// What plain takes for a request net/http takes for the same request, with
// nothing before, behind or beside it.
func FuzzPlain(f *testing.F) {
	for _, s := range append(slices.Clone(plainRequests), unplainRequests...) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := newPlain(t.Context())
		if !p.read(bytes.Clone(b)) {
			return
		}
		rest := bufio.NewReader(bytes.NewReader(b))
		r, err := http.ReadRequest(rest)
		if err != nil {
			t.Fatalf("%q: net/http says %v", b, err)
		}
		if body, err := io.ReadAll(r.Body); err != nil || len(body) > 0 || r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
			t.Errorf("%q has a body: %q, %v", b, body, err)
		}
		if n := rest.Buffered(); n > 0 {
			t.Errorf("%q: %d bytes are behind it", b, n)
		}
		if p.r.Method != r.Method || p.r.RequestURI != r.RequestURI || p.r.Host != r.Host || p.r.Close != r.Close ||
			r.ProtoMajor != 1 || r.ProtoMinor != 1 || r.URL.Path != p.r.RequestURI || r.URL.RawQuery != "" {
			t.Errorf("%q is %s %s of %s, close %v; to net/http %s %s of %s, close %v", b,
				p.r.Method, p.r.RequestURI, p.r.Host, p.r.Close, r.Method, r.RequestURI, r.Host, r.Close)
		}
		if !maps.EqualFunc(p.r.Header, r.Header, slices.Equal[[]string]) {
			t.Errorf("%q has %v; to net/http %v", b, p.r.Header, r.Header)
		}
		if name := refuses(p.r.Header); name != "" {
			t.Errorf("%q has the header %s, which the guard refuses", b, name)
		}
	})
}

var plainRequests = []string{
	"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET //latest/meta-data/ HTTP/1.1\r\nhost:127.0.0.1:9911\r\n\r\n",
	"GET /latest/../x HTTP/1.1\r\nHost: [::1]:80 \t\r\nuser-AGENT: a b; c\r\n\r\n",
	"GET / HTTP/1.1\r\nx-AWS-ec2-metadata-TOKEN: a==\r\nHost: a\r\nConnection: close\r\nAccept: */*\r\n\r\n",
	"PUT /latest/api/token HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n",
	"GET /v1/credentials/p HTTP/1.1\r\nHost: a\r\nAuthorization: \r\nConnection: Keep-Alive\r\n\r\n",
}

var unplainRequests = []string{
	"", "\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: \r\n\r\n",
	"GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\nG",
	"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
	"GET / HTTP/1.0\r\nHost: a\r\n\r\n", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\n\r\n", "get / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?a HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /%2e HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nAccept: a\r\naccept: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nOrigin: b\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nVia: b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nAccept: a\r\n b\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nAccept\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nAccept: a\tb\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nAccept: \xc3\xa9\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nAccept: a\rb\r\n\r\n",
}

func TestPlain(t *testing.T) {
	t.Parallel()
	p := newPlain(t.Context())
	for _, s := range plainRequests {
		if !p.read([]byte(s)) {
			t.Errorf("%q is not plain", s)
		}
	}
	for _, s := range unplainRequests {
		if p.read([]byte(s)) {
			t.Errorf("%q is plain", s)
		}
	}
	many := "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("Accept: a\r\n", maxPlainHeaders) + "\r\n"
	if p.read([]byte(many)) {
		t.Error("a request of many headers is plain")
	}
	p.read([]byte(plainRequests[3]))
	p.answer.Header().Set("X", "canary")
	_, _ = io.WriteString(&p.answer, "canary")
	p.forget()
	if left := p.answer.append(nil, "", false); bytes.Contains(append(left, p.answer.body[:cap(p.answer.body)]...), []byte("canary")) {
		t.Errorf("kept of the last answer: %q", left)
	}
	if len(p.r.Header) > 0 || p.r.Host != "" || p.r.RequestURI != "" || strings.Join(p.values[:], "") != "" {
		t.Errorf("kept of the last client: %+v", p.r)
	}
}

// other makes a request one that net/http reads: no plain one has this header.
func other(request string) string {
	return strings.Replace(request, "\r\n\r\n", "\r\nX-Other: 1\r\n\r\n", 1)
}

// TestPlainAgrees: an answer is the same whoever has read the request.
func TestPlainAgrees(t *testing.T) {
	t.Parallel()
	inBubble(t, func(*MetadataConfig) {}, func(t *testing.T, l *pipeListener, token string, _ func()) {
		for _, r := range []struct{ method, path, header string }{
			{"GET", credentialsPath, withToken(token)},
			{"GET", credentialsPath, withToken("wrong")},
			{"GET", credentialsPath, "Accept: */*"},
			{"GET", "/latest/meta-data/iam/security-credentials/", withToken(token)},
			{"GET", "/latest/meta-data/", withToken(token)},
			{"GET", "//latest/meta-data", withToken(token)},
			{"GET", "/nowhere", withToken(token)},
			{"GET", "/latest/api/token", withToken(token)},
			{"PUT", "/latest/meta-data/", withToken(token)},
			{"PUT", "/latest/api/token", "Accept: */*"},
			{"GET", "/latest/user-data", withToken(token)},
			{"GET", "/latest/dynamic/instance-identity/document", withToken(token)},
			{"GET", "/latest/", withToken(token) + "\r\nConnection: close"},
		} {
			var got [2]answer
			for i, text := range []string{request(r.method, r.path, pipeAddress, r.header), other(request(r.method, r.path, pipeAddress, r.header))} {
				c := l.dial(t)
				got[i] = c.send(t, r.method, text)
				c.Close()
			}
			if fmt.Sprint(got[0]) != fmt.Sprint(got[1]) {
				t.Errorf("%s %s:\n%+v\nby net/http:\n%+v", r.method, r.path, got[0], got[1])
			}
		}
	})
}

// TestHandOver: one connection, plain requests and others, and one in pieces.
func TestHandOver(t *testing.T) {
	t.Parallel()
	inBubble(t, func(*MetadataConfig) {}, func(t *testing.T, l *pipeListener, token string, _ func()) {
		good := request("GET", credentialsPath, pipeAddress, withToken(token))
		list := request("GET", "/latest/", pipeAddress, withToken(token))
		for at := 1; at < len(good); at += 7 {
			c := l.dial(t)
			for _, text := range []string{list, good, good} {
				if a := c.send(t, "GET", text); a.status != 200 || a.closed {
					t.Fatalf("%+v", a)
				}
			}
			_, _ = io.WriteString(c, good[:at])
			synctest.Wait()
			if a := c.send(t, "GET", good[at:]); a.status != 200 || a.closed {
				t.Fatalf("in pieces of %d bytes: %+v", at, a)
			}
			for _, text := range []string{other(list), list, good} {
				if a := c.send(t, "GET", text); a.status != 200 || a.closed {
					t.Fatalf("then: %+v", a)
				}
			}
			c.Close()
		}
	})
}

// TestEarly: what a client sends while it waits for an answer is its next
// request.
func TestEarly(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	broker.get = func(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
			return snapshot(time.Hour), nil
		}
	}
	inBubble(t, func(c *MetadataConfig) { c.Broker = broker }, func(t *testing.T, l *pipeListener, token string, _ func()) {
		good := request("GET", credentialsPath, pipeAddress, withToken(token))
		c := l.dial(t)
		defer c.Close()
		go func() {
			for range 3 {
				_, _ = io.WriteString(c, good)
			}
		}()
		for i := range 3 {
			if a, err := c.read("GET"); err != nil || a.status != 200 {
				t.Fatalf("answer %d: %+v, %v", i, a, err)
			}
		}
	})
}

// TestPanic: a handler that panics ends its connection and no more.
func TestPanic(t *testing.T) {
	t.Parallel()
	log, logged := test.NewNullLogger()
	broker := newBroker()
	broken := true
	broker.get = func(context.Context, cred.Request) (*cred.Snapshot, error) {
		if broken {
			panic("CANARY")
		}
		return snapshot(time.Hour), nil
	}
	inBubble(t, func(c *MetadataConfig) { c.Broker, c.Log = broker, logrus.NewEntry(log) }, func(t *testing.T, l *pipeListener, token string, _ func()) {
		good := request("GET", credentialsPath, pipeAddress, withToken(token))
		c := l.dial(t)
		if _, err := io.WriteString(c, good); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		if e := logged.LastEntry(); e == nil || e.Level != logrus.ErrorLevel {
			t.Errorf("logged: %+v", e)
		}
		broken = false
		c = l.dial(t)
		defer c.Close()
		if a := c.send(t, "GET", good); a.status != 200 {
			t.Errorf("then: %+v", a)
		}
	})
}

// TestExpect: who is given a token is announced, once as long as it is one
// program's, and nobody else is.
func TestExpect(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex // guards expected and who
	var expected []peer.Caller
	who := peer.Caller{UID: "1000", PID: 1, Exe: "/bin/a", Via: "tcp"}
	var whoErr error
	inBubble(t, func(c *MetadataConfig) {
		c.Expect = func(c peer.Caller) { mu.Lock(); expected = append(expected, c); mu.Unlock() }
		c.identify = func(net.Conn) (peer.Caller, error) { mu.Lock(); defer mu.Unlock(); return who, whoErr }
	}, func(t *testing.T, l *pipeListener, token string, _ func()) {
		for _, step := range []struct {
			as     peer.Caller
			err    error
			text   string
			status int
			want   int // announced so far
		}{
			{who, nil, request("GET", "/latest/", pipeAddress, withToken(token)), 200, 0},
			{who, nil, request("PUT", "/latest/api/token", pipeAddress), 400, 0},
			{who, nil, request("PUT", "/latest/api/token", pipeAddress, "X-aws-ec2-metadata-token-ttl-seconds: 60"), 200, 1},
			{who, nil, request("PUT", "/latest/api/token", pipeAddress, "X-aws-ec2-metadata-token-ttl-seconds: 60"), 200, 1},
			{peer.Caller{UID: "1000", PID: 1, Start: 9, Exe: "/bin/a", Via: "tcp"}, nil, request("PUT", "/latest/api/token", pipeAddress, "X-aws-ec2-metadata-token-ttl-seconds: 60"), 200, 2},
			{who, peer.ErrUnidentified, request("PUT", "/latest/api/token", pipeAddress, "X-aws-ec2-metadata-token-ttl-seconds: 60"), 403, 2},
		} {
			mu.Lock()
			who, whoErr = step.as, step.err
			mu.Unlock()
			c := l.dial(t)
			a := c.send(t, "GET", step.text)
			c.Close()
			mu.Lock()
			if a.status != step.status || len(expected) != step.want {
				t.Errorf("%.60q: %d, %d announced, want %d and %d", step.text, a.status, len(expected), step.status, step.want)
			}
			mu.Unlock()
		}
	})
}
