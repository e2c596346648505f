package awsclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"keyfob/profiles"
)

// hang accepts connections and never says anything.
func hang(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func endpoint(u string) profiles.Client {
	return profiles.Client{Region: "us-east-1", EndpointURL: map[string]string{"sts": u}}
}

func TestNoAnswer(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	bundle := ca.file(t)
	secure := func(cfg *tls.Config) profiles.Client {
		c := endpoint(serve(t, cfg, answerIdentity).URL)
		c.CABundle = bundle
		return c
	}
	cert := func(a *authority, until time.Time, names ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{a.leaf(t, until, names...)}}
	}
	later := time.Now().Add(time.Hour)
	old := cert(ca, later, "127.0.0.1")
	old.MaxVersion = tls.VersionTLS11
	old.MinVersion = tls.VersionTLS10
	plain := serve(t, nil, answerIdentity)
	closer := serve(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		c.Close()
	})
	dead := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}()
	noHost := NewPool(PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }, Dial: func(_ context.Context, n, a string) (net.Conn, error) {
		h, _, _ := net.SplitHostPort(a)
		return nil, &net.OpError{Op: "dial", Net: n, Err: &net.DNSError{Err: "no such host", Name: h, IsNotFound: true}}
	}})
	for name, x := range map[string]struct {
		c          profiles.Client
		pool       *Pool
		text, hint string
	}{
		"unknown host":      {profiles.Client{Region: "eu-west-9"}, noHost, "there is no host sts.eu-west-9.amazonaws.com", "region"},
		"refused":           {endpoint("http://" + dead), nil, dead + " refuses the connection", "endpoint_url"},
		"unknown authority": {secure(cert(stranger, later, "127.0.0.1")), nil, "signed by an unknown authority", "AWS_CA_BUNDLE"},
		"wrong name":        {secure(cert(ca, later, "example.org")), nil, "is for another name", "endpoint_url"},
		"ended certificate": {secure(cert(ca, time.Now().Add(-time.Minute), "127.0.0.1")), nil, "has expired or is not yet valid", "clock"},
		"TLS 1.1":           {secure(old), nil, "TLS with 127.0.0.1", ""},
		"plain HTTP":        {endpoint("https://" + plain.addr()), nil, "does not speak TLS", "https://"},
		"closed at once":    {endpoint(closer.URL), nil, "closed the connection without an answer", ""},
	} {
		pool := x.pool
		if pool == nil {
			pool = direct(t, "")
		}
		seen, err := call(t, x.c, Options{Pool: pool})
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		f := Explain(err, seen)
		oneLine(t, f)
		if f.Kind != Unreachable || f.Status != 0 || f.Code != "" || !strings.Contains(f.Text, x.text) || !strings.Contains(f.Hint, x.hint) {
			t.Errorf("%s: kind %d, status %d, %q, hint %q\n%v", name, f.Kind, f.Status, f.Text, f.Hint, err)
		}
	}
}

func TestTimeLimitAndCancel(t *testing.T) {
	client := func(ctx context.Context) (*Seen, error) {
		seen := new(Seen)
		c, err := STS(ctx, endpoint("http://"+hang(t)), nil, Options{Pool: direct(t, ""), Seen: seen})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.GetCallerIdentity(ctx, nil)
		return seen, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	seen, err := client(ctx)
	if f := Explain(err, seen); f.Kind != Unreachable || !strings.Contains(f.Text, "did not answer in time") || !errors.Is(f.Err, context.DeadlineExceeded) {
		t.Errorf("time limit: %+v", f)
	}
	ctx, cancel = context.WithCancel(t.Context())
	go func() { time.Sleep(30 * time.Millisecond); cancel() }()
	seen, err = client(ctx)
	if f := Explain(err, seen); f.Kind != Cancelled || !errors.Is(f.Err, context.Canceled) {
		t.Errorf("cancel: %+v", f)
	}
}

func TestForeignAnswers(t *testing.T) {
	portal := "<!DOCTYPE html><html><body>Sign in to <b>Airport WiFi</b></body></html>"
	for name, x := range map[string]struct {
		status     int
		ctype      string
		body       string
		kind       Kind
		text, hint string
	}{
		"portal":              {200, "text/html; charset=utf-8", portal, Foreign, "web page (HTTP 200)", "captive portal"},
		"portal called XML":   {200, "text/xml", portal, Foreign, "web page (HTTP 200)", "captive portal"},
		"half an answer":      {200, "text/xml", identityAnswer[:100], Foreign, "half an answer", ""},
		"forbidden by others": {403, "text/plain", "blocked by policy " + canarySecret, Foreign, "HTTP 403 Forbidden, not as AWS does", ""},
		"forbidden page":      {403, "text/html", portal, Foreign, "web page (HTTP 403)", "captive portal"},
		"unavailable":         {503, "text/plain", "upstream down", Busy, "HTTP 503 Service Unavailable", ""},
		"rate":                {429, "text/plain", "slow", Busy, "HTTP 429", ""},
		"proxy's 407":         {407, "text/plain", "", Foreign, "wants a user and a password", "HTTPS_PROXY"},
	} {
		up := serve(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", x.ctype)
			w.WriteHeader(x.status)
			_, _ = io.WriteString(w, x.body)
		})
		seen, err := call(t, endpoint(up.URL), Options{Pool: direct(t, "")})
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		f := Explain(err, seen, canarySecret)
		oneLine(t, f)
		if f.Kind != x.kind || f.Status != x.status || !strings.Contains(f.Text, x.text) || !strings.Contains(f.Hint, x.hint) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestAnswerIsBounded(t *testing.T) {
	sent := make(chan int, 1)
	up := serve(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<GetCallerIdentityResponse><GetCallerIdentityResult>")
		n, chunk := 0, bytes.Repeat([]byte("<a>x</a>"), 8192)
		for n < 64<<20 {
			k, err := w.Write(chunk)
			if n += k; err != nil {
				break
			}
		}
		sent <- n
	})
	seen, err := call(t, endpoint(up.URL), Options{Pool: direct(t, "")})
	if f := Explain(err, seen); err == nil || f.Kind != Foreign || !strings.Contains(f.Text, "more than 1 MiB") {
		t.Fatalf("%+v", f)
	}
	if n := <-sent; n >= 64<<20 {
		t.Errorf("%d bytes were taken", n)
	}
}

func awsError(code, message string) string {
	return fmt.Sprintf(`<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>1</RequestId></ErrorResponse>`, code, message)
}

func TestAnswersOfAWS(t *testing.T) {
	for name, x := range map[string]struct {
		status        int
		code, message string
		kind          Kind
		text          string
	}{
		"refusal":    {403, "AccessDenied", "User: x is not\n authorized.", Refused, "AWS answered AccessDenied: User: x is not authorized"},
		"throttling": {400, "Throttling", "Rate exceeded", Busy, "limits the rate"},
		"outage":     {503, "ServiceUnavailable", "", Busy, "error of its own (ServiceUnavailable, HTTP 503)"},
		"old":        {403, "SignatureDoesNotMatch", "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z", Clock, "refuses the time"},
		"early":      {403, "SignatureDoesNotMatch", "Signature not yet current: 1 is still later than 2", Clock, "refuses the time"},
		"signature":  {403, "SignatureDoesNotMatch", "The Canonical String for this request should have been 'POST / x-amz-security-token:" + canaryToken + "'", Refused, "AWS answered SignatureDoesNotMatch"},
		"quoting":    {400, "ValidationError", "Value '" + canarySecret + "' at 'x' failed", Refused, "Value '[redacted]' at"},
		"controls":   {400, "ValidationError", "a&#9;b \u009b31m c", Refused, "a b 31m c"},
	} {
		up := serve(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(x.status)
			_, _ = io.WriteString(w, awsError(x.code, x.message))
		})
		seen, err := call(t, endpoint(up.URL), Options{Pool: direct(t, "")})
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		f := Explain(err, seen, canarySecret)
		oneLine(t, f)
		if f.Kind != x.kind || f.Status != x.status || f.Code != x.code || !strings.Contains(f.Text, x.text) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// proxy is a CONNECT proxy that answers status, and tunnels to to on 200.
func proxy(t *testing.T, status int, to string) *upstream {
	t.Helper()
	return serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || status != 200 {
			w.WriteHeader(status)
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			w.WriteHeader(502)
			return
		}
		defer out.Close()
		w.WriteHeader(200)
		in, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer in.Close()
		go func() { _, _ = io.Copy(out, buf); out.Close() }()
		_, _ = io.Copy(in, out)
	})
}

func via(t *testing.T, proxyURL string) *Pool {
	t.Helper()
	u, err := url.Parse(proxyURL)
	if err != nil {
		t.Fatal(err)
	}
	p := NewPool(PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return u, nil }})
	t.Cleanup(p.CloseIdle)
	return p
}

func TestProxies(t *testing.T) {
	ca := newAuthority(t)
	up := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, time.Now().Add(time.Hour), "sts.eu-west-1.amazonaws.com")}}, answerIdentity)
	c := profiles.Client{Region: "eu-west-1", CABundle: ca.file(t)}
	good := proxy(t, 200, up.addr())
	if _, err := call(t, c, Options{Pool: via(t, good.URL)}); err != nil {
		t.Fatal(err)
	}
	if r := good.requests(); len(r) != 1 || r[0].Host != "sts.eu-west-1.amazonaws.com:443" {
		t.Errorf("the proxy was asked for %v", r)
	}
	forbids, asks := proxy(t, 403, ""), proxy(t, 407, "")
	for _, x := range []struct{ url, text string }{
		{"http://u:" + canarySecret + "@" + forbids.addr(), "the proxy " + forbids.addr() + " answered 403 Forbidden for sts.eu-west-1.amazonaws.com"},
		{asks.URL, "the proxy " + asks.addr() + " wants a user and a password"},
		{"http://127.0.0.1:1", "the proxy 127.0.0.1:1 refuses the connection"},
	} {
		seen, err := call(t, c, Options{Pool: via(t, x.url)})
		if err == nil {
			t.Fatal("no error")
		}
		f := Explain(err, seen)
		oneLine(t, f)
		if f.Kind != Unreachable || f.Status != 0 || f.Text != x.text || !strings.Contains(f.Hint, "HTTPS_PROXY") {
			t.Errorf("%+v, want %q", f, x.text)
		}
	}
}

// TestProxyOfTheEnvironment runs itself with HTTPS_PROXY, which a process
// reads once.
func TestProxyOfTheEnvironment(t *testing.T) {
	if bundle := os.Getenv("AWSCLIENT_TEST_BUNDLE"); bundle != "" {
		var dialled []string
		pool := NewPool(PoolConfig{Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
			if dialled = append(dialled, a); strings.Contains(a, "amazonaws") {
				return nil, errors.New("direct")
			}
			return (&net.Dialer{}).DialContext(ctx, n, a)
		}})
		defer pool.CloseIdle()
		if _, err := call(t, profiles.Client{Region: "eu-west-1", CABundle: bundle}, Options{Pool: pool}); err != nil {
			t.Fatal(err)
		}
		if _, err := call(t, profiles.Client{Region: "eu-west-2", CABundle: bundle}, Options{Pool: pool}); err == nil || len(dialled) != 2 || dialled[1] != "sts.eu-west-2.amazonaws.com:443" {
			t.Fatalf("NO_PROXY was not honoured: %v %v", dialled, err)
		}
		return
	}
	ca := newAuthority(t)
	up := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, time.Now().Add(time.Hour), "sts.eu-west-1.amazonaws.com")}}, answerIdentity)
	px := proxy(t, 200, up.addr())
	cmd := exec.Command(os.Args[0], "-test.run=^TestProxyOfTheEnvironment$", "-test.v")
	cmd.Env = append(os.Environ(), "HTTPS_PROXY="+px.URL, "HTTP_PROXY=http://127.0.0.1:1", "NO_PROXY=sts.eu-west-2.amazonaws.com", "no_proxy=", "https_proxy=", "http_proxy=",
		"AWSCLIENT_TEST_BUNDLE="+ca.file(t))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if r := px.requests(); len(r) != 1 || r[0].Host != "sts.eu-west-1.amazonaws.com:443" {
		t.Errorf("the proxy was asked for %v", r)
	}
}

func TestClock(t *testing.T) {
	ca := newAuthority(t)
	off := 10 * time.Minute
	var dates []time.Time
	h := func(w http.ResponseWriter, r *http.Request) {
		signed, _ := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		dates = append(dates, signed)
		w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
		answerIdentity(w, r)
	}
	up := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, time.Now().Add(time.Hour), "sts.eu-west-1.amazonaws.com")}}, h)
	c := profiles.Client{Region: "eu-west-1", CABundle: ca.file(t)}
	pool := direct(t, up.addr())
	near := func(a, b time.Duration) bool { d := a - b; return d < 5*time.Second && d > -5*time.Second }
	for i, want := range []time.Duration{0, off} { // the second is signed with AWS's time
		seen, err := call(t, c, Options{Pool: pool})
		if err != nil {
			t.Fatal(err)
		}
		if f := seen.Facts(); !f.DateKnown || !near(f.Skew, off) {
			t.Errorf("skew %v", f.Skew)
		}
		if d := time.Until(dates[i]); !near(d, want) {
			t.Errorf("call %d was signed %v from now, want %v", i, d, want)
		}
	}
	off = 59 * time.Second
	seen, err := call(t, c, Options{Pool: pool})
	if f := seen.Facts(); err != nil || !f.DateKnown || f.Skew != 0 || pool.Skew("sts.eu-west-1.amazonaws.com") != 0 {
		t.Errorf("within a minute: %+v %v", f, err)
	}
	if s := ClockText(7*time.Minute + 300*time.Millisecond); s != "the clock of this machine is 7m0s behind AWS's" {
		t.Error(s)
	}
	if s := ClockText(-2 * time.Hour); s != "the clock of this machine is 2h0m0s ahead of AWS's" {
		t.Error(s)
	}
}
