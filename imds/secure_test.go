package imds

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/peer"
)

// testCertificate is signed by itself. change changes what it says.
func testCertificate(t testing.TB, change func(*x509.Certificate), names ...string) (c *Certificate, roots *x509.CertPool, chain, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			x.IPAddresses = append(x.IPAddresses, ip)
		} else {
			x.DNSNames = append(x.DNSNames, n)
		}
	}
	if change != nil {
		change(x)
	}
	der, err := x509.CreateCertificate(rand.Reader, x, x, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	chain, key = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(chain)
	c, err = NewCertificate(chain, key)
	if err != nil && change == nil {
		t.Fatal(err)
	}
	return c, roots, chain, key
}

const secureName = "keyfob.internal"

// secure is a container endpoint that speaks TLS, with a grant's token.
type secure struct {
	t       testing.TB
	server  *Server
	address string
	token   string
	roots   *x509.CertPool
	log     *syncBuffer
	grants  *access.Grants
	chain   []byte
}

func newSecure(t testing.TB, change func(*ContainerConfig)) *secure {
	t.Helper()
	s := &secure{t: t, grants: newGrants(t)}
	var c *Certificate
	c, s.roots, s.chain, _ = testCertificate(t, nil, secureName, "*.wild.internal", "127.0.0.1")
	_, s.token = addGrant(t, s.grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self(), AnyUser: true})
	cfg := ContainerConfig{Broker: newBroker(), Grants: s.grants, Certificate: c}
	cfg.Log, s.log = newLog(t)
	if change != nil {
		change(&cfg)
	}
	if cfg.Listener == nil {
		l, err := Listen(context.Background(), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listener = l
	}
	s.server = NewContainer(cfg)
	s.address = start(t, s.server)
	return s
}

// config is a client's, by the name that the certificate has.
func (s *secure) config() *tls.Config {
	return &tls.Config{RootCAs: s.roots, ServerName: secureName, NextProtos: []string{"h2", "http/1.1"}}
}

func (s *secure) dial(cfg *tls.Config) *client {
	s.t.Helper()
	c := dial(s.t, s.address)
	secured := tls.Client(c.Conn, cfg)
	if err := secured.Handshake(); err != nil {
		s.t.Fatal(err)
	}
	return &client{secured, bufio.NewReader(secured)}
}

func (s *secure) ask(host string, headers ...string) answer {
	s.t.Helper()
	c := s.dial(s.config())
	defer c.Close()
	return c.send(s.t, "GET", request("GET", "/v1/credentials/dev", host, headers...))
}

// TestSecure: over TLS a grant opens what it opens over plain http, and
// nothing less does; the caller is the one of the socket.
func TestSecure(t *testing.T) {
	t.Parallel()
	s := newSecure(t, nil)
	_, other := addGrant(t, s.grants, access.GrantSpec{Profiles: []string{"other"}, UID: peer.Self(), AnyUser: true})
	_, theirs := addGrant(t, s.grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "4242"})
	_, mine := addGrant(t, s.grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self()})
	for _, c := range []struct {
		what, token string
		status      int
	}{
		{"its token", s.token, 200}, {"its user's token", mine, 200}, {"no token", "", 401}, {"a wrong one", s.token + "x", 401},
		{"one for another profile", other, 403}, {"another user's", theirs, 403},
	} {
		a := s.ask(secureName, authorization(c.token))
		if a.status != c.status || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %+v", c.what, a)
		}
		if holds := strings.Contains(a.body, canarySecret); holds != (c.status == 200) {
			t.Errorf("%s: the answer holds a secret: %v", c.what, holds)
		}
	}
	// Many on one connection, plain ones and others, and all at once.
	c := s.dial(s.config())
	defer c.Close()
	if got := c.Conn.(*tls.Conn).ConnectionState(); got.Version != tls.VersionTLS13 || got.NegotiatedProtocol != "http/1.1" {
		t.Errorf("the connection is %+v", got)
	}
	plain := request("GET", "/v1/credentials/dev", secureName, authorization(s.token))
	unusual := request("GET", "/v1/credentials/dev", secureName, authorization(s.token), "X-Whatever: 1")
	for _, text := range []string{plain, plain, unusual, plain} {
		if a := c.send(t, "GET", text); a.status != 200 || !strings.Contains(a.body, canarySecret) {
			t.Errorf("%q: %+v", text, a)
		}
	}
	for range 5 {
		if _, err := io.WriteString(c, plain); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if a, err := c.read("GET"); err != nil || a.status != 200 {
			t.Errorf("pipelined: %+v, %v", a, err)
		}
	}
	// Bytes one by one, each in a record of its own.
	d := s.dial(s.config())
	defer d.Close()
	for i := range plain {
		if _, err := io.WriteString(d, plain[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := d.read("GET"); err != nil || a.status != 200 {
		t.Errorf("byte by byte: %+v, %v", a, err)
	}
	// Package net/http is a client too.
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}, ForceAttemptHTTP2: true}}
	defer h.CloseIdleConnections()
	r, _ := http.NewRequest("GET", "https://"+s.address+"/v1/credentials/dev", nil)
	r.Header.Set("Authorization", s.token)
	answer, err := h.Do(r)
	if err != nil || answer.StatusCode != 200 || answer.ProtoMajor != 1 {
		t.Fatalf("net/http: %+v, %v", answer, err)
	}
	_ = answer.Body.Close()
	noSecret(t, "the log", s.log.String())
}

// TestSecureUnidentified: whom the kernel does not name is served where the
// endpoint says so, and by an anybody's grant alone.
func TestSecureUnidentified(t *testing.T) {
	t.Parallel()
	for _, allowed := range []bool{false, true} {
		s := newSecure(t, func(c *ContainerConfig) { c.identify, c.AllowUnidentified = nobody, allowed })
		_, mine := addGrant(t, s.grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self()})
		want := map[bool]int{false: 403, true: 200}[allowed]
		if a := s.ask(secureName, authorization(s.token)); a.status != want {
			t.Errorf("allow_unidentified = %v: %d", allowed, a.status)
		}
		if a := s.ask(secureName, authorization(mine)); a.status != 403 {
			t.Errorf("allow_unidentified = %v, a user's grant: %d", allowed, a.status)
		}
	}
}

// TestSecureGuard: Host is a name of the certificate or one of hosts, and
// nothing else: not the listening address by itself, not localhost.
func TestSecureGuard(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.2:0")
	s := newSecure(t, func(c *ContainerConfig) { c.Listener, c.Hosts = l, []string{"alias.internal"} })
	port := l.Addr().(*net.TCPAddr).Port
	for host, status := range map[string]int{
		secureName: 200, fmt.Sprintf("%s:%d", secureName, port): 200, "KEYFOB.internal": 200, "127.0.0.1": 200,
		"a.wild.internal": 200, "alias.internal": 200, fmt.Sprintf("a.wild.internal:%d", port): 200,
		"127.0.0.2": 403, fmt.Sprintf("127.0.0.2:%d", port): 403, "localhost": 403, fmt.Sprintf("localhost:%d", port): 403,
		"evil.example": 403, "wild.internal": 403, "a.b.wild.internal": 403, "*.wild.internal": 403, secureName + ":443": 403, "x." + secureName: 403, "": 400,
	} {
		if a := s.ask(host, authorization(s.token)); a.status != status {
			t.Errorf("Host %q: %d, want %d", host, a.status, status)
		}
	}
	for _, header := range []string{"Origin: https://" + secureName, "Referer: x", "Sec-Fetch-Mode: cors", "X-Forwarded-For: 1.2.3.4", "Via: x"} {
		if a := s.ask(secureName, authorization(s.token), header); a.status != 403 {
			t.Errorf("%s: %d", header, a.status)
		}
	}
	// A client that asks for another name, and does not look at what it gets.
	cfg := &tls.Config{InsecureSkipVerify: true, ServerName: "evil.example"}
	c := s.dial(cfg)
	defer c.Close()
	if names := c.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].DNSNames; names[0] != secureName {
		t.Errorf("it was shown %v", names)
	}
	if a := c.send(t, "GET", request("GET", "/v1/credentials/dev", "evil.example", authorization(s.token))); a.status != 403 {
		t.Errorf("another name in TLS and in Host: %d", a.status)
	}
}

// TestSecureAndPlain: each of the two, where the other is spoken, gets an
// answer that says so and no secret; so does whatever is neither.
func TestSecureAndPlain(t *testing.T) {
	t.Parallel()
	s := newSecure(t, nil)
	a := raw(t, s.address, "GET", request("GET", "/v1/credentials/dev", s.address, authorization(s.token)))
	if a.status != 400 || !strings.Contains(a.body, "https") || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("plain http to TLS: %+v", a)
	}
	if !strings.Contains(s.log.String(), "speaks https alone") {
		t.Errorf("the log says %s", s.log)
	}
	for _, text := range []string{"SSH-2.0-x\r\n", "\x00\x00\x00\x00\x00\x00", "\x16\x03\x01\xff\xff" + strings.Repeat("x", 100), "\x80\x2e\x01\x03\x01", "GET"} {
		c := dial(t, s.address)
		_, _ = io.WriteString(c, text)
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		got, _ := io.ReadAll(c)
		if len(got) > 7 { // an alert
			t.Errorf("%q is answered %q", text, got)
		}
		_ = c.Close()
	}

	log, text := newLog(t)
	address := containerServer(t, func(c *ContainerConfig) { c.Grants, c.Log = s.grants, log })
	begin := time.Now()
	c := dial(t, address)
	defer c.Close()
	err := tls.Client(c.Conn, s.config()).Handshake()
	var header tls.RecordHeaderError
	if !errors.As(err, &header) || string(header.RecordHeader[:]) != "HTTP/" || time.Since(begin) > 2*time.Second {
		t.Errorf("TLS to plain http: %v after %s", err, time.Since(begin))
	}
	if !strings.Contains(text.String(), "has no certificate") {
		t.Errorf("the log says %s", text)
	}
}

// TestSecureProtocol: old versions, HTTP/2 alone, an HTTP/2 preface inside,
// and a client that does not trust us get nothing.
func TestSecureProtocol(t *testing.T) {
	t.Parallel()
	s := newSecure(t, nil)
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.1":           func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
		"HTTP/2 alone":      func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"no such authority": func(c *tls.Config) { c.RootCAs = x509.NewCertPool() },
		"another name":      func(c *tls.Config) { c.ServerName = "other.internal" },
	} {
		c := dial(t, s.address)
		cfg := s.config()
		change(cfg)
		if err := tls.Client(c.Conn, cfg).Handshake(); err == nil {
			t.Errorf("%s: the handshake succeeds", name)
		}
		_ = c.Close()
	}
	// One of a kind a minute, so that nobody fills the log.
	if n := strings.Count(s.log.String(), "connection refused"); n > 1 {
		t.Errorf("%d lines in the log: %s", n, s.log)
	}
	twelve := s.config()
	twelve.MaxVersion = tls.VersionTLS12
	c := s.dial(twelve)
	defer c.Close()
	if a := c.send(t, "GET", request("GET", "/v1/credentials/dev", secureName, authorization(s.token))); a.status != 200 {
		t.Errorf("TLS 1.2: %+v", a)
	}
	h2 := s.dial(s.config())
	defer h2.Close()
	if a := h2.send(t, "GET", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); a.status < 400 {
		t.Errorf("an HTTP/2 preface: %+v", a)
	}
	resumed := s.config()
	resumed.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		c := s.dial(resumed)
		if a := c.send(t, "GET", request("GET", "/v1/credentials/dev", secureName, authorization(s.token))); a.status != 200 || c.Conn.(*tls.Conn).ConnectionState().DidResume {
			t.Errorf("a second connection resumes the first: %+v", a)
		}
		_ = c.Close()
	}
}

// TestSecureConfigure: a renewed certificate is shown from the next
// connection on, and open ones serve on; with TLS switched on or off those
// made in the other way get one refusal and end.
func TestSecureConfigure(t *testing.T) {
	t.Parallel()
	s := newSecure(t, nil)
	get := request("GET", "/v1/credentials/dev", secureName, authorization(s.token))
	old := s.dial(s.config())
	defer old.Close()
	if a := old.send(t, "GET", get); a.status != 200 {
		t.Fatalf("%+v", a)
	}
	renewed, roots, _, _ := testCertificate(t, nil, secureName, "new.internal")
	s.server.Configure(Live{Certificate: renewed})
	if a := old.send(t, "GET", get); a.status != 200 {
		t.Errorf("an open connection after the renewal: %+v", a)
	}
	c := dial(t, s.address)
	if err := tls.Client(c.Conn, s.config()).Handshake(); err == nil {
		t.Error("the old certificate is shown")
	}
	_ = c.Close()
	s.roots = roots
	if a := s.ask("new.internal", authorization(s.token)); a.status != 200 {
		t.Errorf("by the new name: %+v", a)
	}
	if a := s.ask("127.0.0.1", authorization(s.token)); a.status != 403 {
		t.Errorf("by a name of the old certificate: %d", a.status)
	}

	s.server.Configure(Live{})
	if a := old.send(t, "GET", get); a.status != 403 || !a.closed {
		t.Errorf("TLS after it was switched off: %+v", a)
	}
	plain := dial(t, s.address)
	defer plain.Close()
	toPlain := request("GET", "/v1/credentials/dev", s.address, authorization(s.token))
	if a := plain.send(t, "GET", toPlain); a.status != 200 {
		t.Errorf("plain http: %+v", a)
	}
	s.server.Configure(Live{Certificate: renewed})
	if a := plain.send(t, "GET", toPlain); a.status != 403 || !a.closed {
		t.Errorf("plain http after TLS was switched on: %+v", a)
	}
	if a := s.ask(secureName, authorization(s.token)); a.status != 200 {
		t.Errorf("TLS again: %+v", a)
	}
}

// TestNewCertificate: two files that are not what they should be are refused,
// and the error says why.
func TestNewCertificate(t *testing.T) {
	t.Parallel()
	_, _, chain, key := testCertificate(t, nil, secureName)
	_, _, _, otherKey := testCertificate(t, nil, secureName)
	_, _, nameless, namelessKey := testCertificate(t, func(*x509.Certificate) {})
	_, _, clients, clientsKey := testCertificate(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, secureName)
	for name, c := range map[string]struct {
		chain, key []byte
		want       string
	}{
		"another key":     {chain, otherKey, "not that of the certificate"},
		"no key":          {chain, nil, "no certificate with its key"},
		"no certificate":  {nil, key, "no certificate with its key"},
		"exchanged":       {key, chain, "no certificate with its key"},
		"broken":          {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), key, ""},
		"no name":         {nameless, namelessKey, "no name and no address"},
		"not for servers": {clients, clientsKey, "not for servers"},
	} {
		cert, err := NewCertificate(c.chain, c.key)
		if err == nil || cert != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if h, ok := err.(interface{ Hint() string }); !ok || h.Hint() == "" {
			t.Errorf("%s: %T has no hint", name, err)
		}
	}
}
