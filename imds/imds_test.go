package imds

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

func TestMain(m *testing.M) {
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"} {
		os.Unsetenv(name)
	}
	os.Setenv("NO_PROXY", "*")
	os.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/dev/null")
	os.Exit(m.Run())
}

const (
	canarySecret = "canarySecretKey/abcdefghijklmnopqrstuvwxyz"
	testRole     = "deploy"
	testAccount  = "123456789012"
	testRoleARN  = "arn:aws:iam::123456789012:role/team/deploy"
)

var canaryToken = "canarySessionToken" + strings.Repeat("FwoGZXIvYXdzEBYaD", 55)

// snapshot makes credentials that end after life, counted from now.
func snapshot(life time.Duration) *cred.Snapshot {
	now := time.Now()
	return &cred.Snapshot{
		Credentials: cred.Credentials{
			AccessKeyID:     "ASIAEXAMPLEEXAMPLE12",
			SecretAccessKey: cred.NewSecret(canarySecret),
			SessionToken:    cred.NewSecret(canaryToken),
			Expires:         now.Add(life).UTC(),
			AccountID:       testAccount,
			RoleARN:         testRoleARN,
		},
		Fetched: now,
	}
}

// fakeBroker answers with what get says, or with a warm snapshot.
type fakeBroker struct {
	warm  atomic.Pointer[cred.Snapshot]
	get   func(ctx context.Context, r cred.Request) (*cred.Snapshot, error)
	calls atomic.Int64
}

func newBroker() *fakeBroker {
	b := &fakeBroker{}
	b.warm.Store(snapshot(time.Hour))
	return b
}

func (b *fakeBroker) Get(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
	b.calls.Add(1)
	if b.get != nil {
		return b.get(ctx, r)
	}
	return b.warm.Load(), nil
}

func newLog(t testing.TB) (*logrus.Entry, *syncBuffer) {
	b := &syncBuffer{}
	l := logrus.New()
	l.SetOutput(b)
	l.SetLevel(logrus.DebugLevel)
	l.SetFormatter(&logrus.JSONFormatter{})
	return logrus.NewEntry(l), b
}

// syncBuffer is a buffer that is written and read at once.
type syncBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func testFacts(string) Facts {
	return Facts{
		RoleName: testRole, AccountID: testAccount, Region: "eu-central-1", Hostname: "laptop.example.net", LocalIPv4: "10.1.2.3",
		PendingTime: time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC),
	}
}

// testMachine is what a server finds out of its machine.
var testMachine = machine{id: "0123456789abcdef0123456789abcdef", hostname: "box", ipv4: "10.9.8.7", mac: "02:00:5e:00:53:01"}

// start runs a server until the test ends, and checks that Run then returns
// nil.
func start(t testing.TB, s *Server) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	return s.listener.Addr().String()
}

// metadataServer runs a metadata server with real tokens and the real look at
// the peer; change changes its configuration.
func metadataServer(t testing.TB, change func(*MetadataConfig)) string {
	t.Helper()
	tokens := access.NewTokens([32]byte{1})
	cfg := MetadataConfig{
		Profile:    "dev",
		Broker:     newBroker(),
		Tokens:     func() *access.Tokens { return tokens },
		Generation: func(string) uint64 { return 7 },
		Facts:      testFacts,
		machine:    func() machine { return testMachine },
	}
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
	return start(t, NewMetadata(cfg))
}

// answer is a response, read whole.
type answer struct {
	status int
	header http.Header
	body   string
	closed bool
}

// raw sends bytes on a new connection and reads one response to it.
func raw(t testing.TB, address, method, request string) answer {
	t.Helper()
	c := dial(t, address)
	defer c.Close()
	return c.send(t, method, request)
}

type client struct {
	net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, address string) *client {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{c, bufio.NewReader(c)}
}

func (c *client) send(t testing.TB, method, request string) answer {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	a, err := c.read(method)
	if err != nil {
		t.Fatalf("no answer to %.300q: %v", request, err)
	}
	return a
}

func (c *client) read(method string) (answer, error) {
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), resp.Close}, err
}

// request writes a request as a plain client does.
func request(method, path, host string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, host)
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return b.String() + "\r\n"
}

func get(t testing.TB, address, path string, headers ...string) answer {
	t.Helper()
	return raw(t, address, "GET", request("GET", path, address, headers...))
}

// newToken makes a token as a client does.
func newToken(t testing.TB, address string) string {
	t.Helper()
	a := raw(t, address, "PUT", request("PUT", "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: 21600"))
	if a.status != 200 {
		t.Fatalf("token: %d %s", a.status, a.body)
	}
	return a.body
}

func withToken(token string) string { return "X-aws-ec2-metadata-token: " + token }

const credentialsPath = "/latest/meta-data/iam/security-credentials/" + testRole

// noSecret fails when a canary shows.
func noSecret(t testing.TB, where, text string) {
	t.Helper()
	if strings.Contains(text, "canary") {
		t.Errorf("%s holds a secret: %.200q", where, text)
	}
}

func someone(uid string) func(net.Conn) (peer.Caller, error) {
	return func(net.Conn) (peer.Caller, error) { return peer.Caller{UID: uid, PID: 1, Via: "tcp"}, nil }
}

func nobody(net.Conn) (peer.Caller, error) { return peer.Caller{}, peer.ErrUnidentified }

func netListen6() (net.Listener, error) { return net.Listen("tcp", "[::1]:0") }
