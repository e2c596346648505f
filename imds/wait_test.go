package imds

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/cred"
)

// pipeListener is a listener inside a synctest bubble, where time is exact.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipeListener {
	return &pipeListener{make(chan net.Conn), make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.closed:
		return net.ErrClosed
	default:
		close(l.closed)
		return nil
	}
}

func (l *pipeListener) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9911}
}

// dial returns the client's end of a new connection.
func (l *pipeListener) dial(t testing.TB) *client {
	t.Helper()
	here, there := net.Pipe()
	select {
	case l.conns <- there:
	case <-l.closed:
		t.Fatal("the listener is closed")
	}
	return &client{here, bufio.NewReader(here)}
}

const pipeAddress = "127.0.0.1:9911"

// inBubble runs a metadata server in a bubble.
func inBubble(t *testing.T, change func(*MetadataConfig), test func(t *testing.T, l *pipeListener, token string, stop func())) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		tokens := access.NewTokens([32]byte{1})
		cfg := MetadataConfig{
			Listener: l, Profile: "dev", Broker: newBroker(), Facts: testFacts, identify: someone("1000"),
			Tokens: func() *access.Tokens { return tokens }, Generation: func(string) uint64 { return 7 },
		}
		change(&cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		s := NewMetadata(cfg)
		go func() { done <- s.Run(ctx) }()
		token := tokens.Mint(time.Now(), 6*time.Hour, access.Binding{Endpoint: "imds " + pipeAddress, UID: "1000", Generation: 7})
		stopped := false
		stop := func() {
			if stopped {
				return
			}
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run returned %v", err)
			}
		}
		test(t, l, token, stop)
		stop()
	})
}

// TestWait: a request that finds nothing waits 250 ms, no more.
func TestWait(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	broker.get = func(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	inBubble(t, func(c *MetadataConfig) { c.Broker = broker }, func(t *testing.T, l *pipeListener, token string, _ func()) {
		c := l.dial(t)
		defer c.Close()
		for range 2 {
			began := time.Now()
			a := c.send(t, "GET", request("GET", credentialsPath, pipeAddress, withToken(token)))
			if took := time.Since(began); took != 250*time.Millisecond {
				t.Errorf("took %v", took)
			}
			if a.status != 503 || a.header.Get("Retry-After") != "1" || !strings.Contains(a.body, "503 - Service Unavailable") || a.closed {
				t.Errorf("answer is %+v", a)
			}
		}
		// The names need no credentials.
		began := time.Now()
		a := c.send(t, "GET", request("GET", "/latest/meta-data/iam/security-credentials/", pipeAddress, withToken(token)))
		if a.status != 200 || a.body != testRole || time.Since(began) != 0 {
			t.Errorf("list: %+v after %v", a, time.Since(began))
		}
	})
}

// TestWaitEnds: credentials that come in time are served, and a broker that
// looks at the deadline sees it.
func TestWaitEnds(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	var seen context.Context
	warm := false
	broker.get = func(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
		seen = ctx
		if d, ok := ctx.Deadline(); !ok || time.Until(d) != 250*time.Millisecond || ctx.Err() != nil {
			t.Errorf("deadline is %v %v, error %v", d, ok, ctx.Err())
		}
		time.Sleep(200 * time.Millisecond)
		if err := ctx.Err(); err != nil {
			t.Errorf("after 200 ms: %v", err)
		}
		if warm {
			ctx.Done()
			return snapshot(time.Hour), nil
		}
		child, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		select {
		case <-child.Done():
			if !errors.Is(child.Err(), context.DeadlineExceeded) {
				t.Errorf("child ended with %v", child.Err())
			}
		case <-time.After(100 * time.Millisecond):
			t.Error("the deadline passed unnoticed")
		}
		return snapshot(time.Hour), nil
	}
	inBubble(t, func(c *MetadataConfig) { c.Broker = broker }, func(t *testing.T, l *pipeListener, token string, _ func()) {
		c := l.dial(t)
		defer c.Close()
		for _, warm = range []bool{false, true} {
			if a := c.send(t, "GET", request("GET", credentialsPath, pipeAddress, withToken(token))); a.status != 200 {
				t.Errorf("answer is %+v", a)
			}
			if seen.Err() == nil {
				t.Error("the context outlives its request")
			}
		}
	})
}

// TestWaitNoTimer: an Err without a Done sees the deadline too.
func TestWaitNoTimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithCancel(t.Context())
		w := &waiting{Context: parent, deadline: time.Now().Add(time.Second)}
		if w.Err() != nil {
			t.Error(w.Err())
		}
		time.Sleep(time.Second)
		if !errors.Is(w.Err(), context.DeadlineExceeded) {
			t.Error(w.Err())
		}
		w = &waiting{Context: parent, deadline: time.Now().Add(time.Second)}
		cancel()
		if !errors.Is(w.Err(), context.Canceled) {
			t.Error(w.Err())
		}
		w.end()
	})
}

// TestGone: a client that leaves ends its wait.
func TestGone(t *testing.T) {
	t.Parallel()
	left := make(chan time.Duration, 1)
	broker := newBroker()
	broker.get = func(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
		began := time.Now()
		<-ctx.Done()
		left <- time.Since(began)
		return nil, ctx.Err()
	}
	inBubble(t, func(c *MetadataConfig) { c.Broker = broker }, func(t *testing.T, l *pipeListener, token string, _ func()) {
		c := l.dial(t)
		if _, err := io.WriteString(c, request("GET", credentialsPath, pipeAddress, withToken(token))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		c.Close()
		if d := <-left; d != 100*time.Millisecond {
			t.Errorf("the wait ended after %v", d)
		}
	})
}

// TestSlowClients: a header that does not end and a connection that says
// nothing are closed in time.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	inBubble(t, func(*MetadataConfig) {}, func(t *testing.T, l *pipeListener, token string, _ func()) {
		closedAfter := func(c *client) time.Duration {
			began := time.Now()
			_, _ = io.Copy(io.Discard, c)
			return time.Since(began)
		}
		c := l.dial(t)
		if d := closedAfter(c); d != readHeaderTimeout {
			t.Errorf("a silent connection was closed after %v", d)
		}
		c = l.dial(t)
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n", pipeAddress)
		if d := closedAfter(c); d != readHeaderTimeout {
			t.Errorf("half a header was dropped after %v", d)
		}
		// The same on a connection that has had an answer.
		c = l.dial(t)
		good := request("GET", credentialsPath, pipeAddress, withToken(token))
		for range 3 {
			if a := c.send(t, "GET", good); a.status != 200 {
				t.Fatal(a.status)
			}
			time.Sleep(idleTimeout - time.Second)
		}
		if a := c.send(t, "GET", good); a.status != 200 {
			t.Fatal(a.status)
		}
		fmt.Fprintf(c, "GET / HTTP/1.1\r\n")
		if d := closedAfter(c); d != readHeaderTimeout {
			t.Errorf("half a second header was dropped after %v", d)
		}
		c = l.dial(t)
		if a := c.send(t, "GET", good); a.status != 200 {
			t.Fatal(a.status)
		}
		if d := closedAfter(c); d != idleTimeout {
			t.Errorf("an idle connection was closed after %v", d)
		}
		// A body that does not come.
		c = l.dial(t)
		began := time.Now()
		a := c.send(t, "PUT", request("PUT", "/latest/api/token", pipeAddress, "Content-Length: 3", "X-aws-ec2-metadata-token-ttl-seconds: 60"))
		if a.status != 400 || !a.closed || time.Since(began) != bodyTimeout {
			t.Errorf("a missing body: %+v after %v", a, time.Since(began))
		}
		c.Close()
		// A client that does not read.
		c = l.dial(t)
		began = time.Now()
		fmt.Fprint(c, good)
		time.Sleep(writeTimeout + time.Second)
		if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
			t.Errorf("after %v there were %d bytes, %v", time.Since(began), n, err)
		}
		// A body does not leave its time limit behind.
		c = l.dial(t)
		if a := c.send(t, "PUT", request("PUT", "/latest/api/token", pipeAddress, "Content-Length: 3", "X-aws-ec2-metadata-token-ttl-seconds: 60")+"abc"); a.status != 200 {
			t.Errorf("PUT with a body: %+v", a)
		}
		time.Sleep(idleTimeout - time.Second)
		if a := c.send(t, "GET", good); a.status != 200 {
			t.Errorf("then: %+v", a)
		}
		c.Close()
	})
}

// TestStop: Run answers what is in flight, for at most five seconds.
func TestStop(t *testing.T) {
	t.Parallel()
	release := 0 * time.Second
	broker := newBroker()
	broker.get = func(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
		select { // a broker that looks at the connection alone, not at the deadline
		case <-ctx.(*waiting).Context.Done():
			return nil, ctx.(*waiting).Context.Err()
		case <-time.After(release):
			return snapshot(time.Hour), nil
		}
	}
	change := func(c *MetadataConfig) { c.Broker = broker }
	for _, c := range []struct {
		release, took time.Duration
		answered      bool
	}{{3 * time.Second, 3 * time.Second, true}, {time.Minute, drainTimeout, false}} {
		release = c.release
		inBubble(t, change, func(t *testing.T, l *pipeListener, token string, stop func()) {
			flying, idle, silent := l.dial(t), l.dial(t), l.dial(t)
			if a := idle.send(t, "GET", request("GET", "/latest/", pipeAddress, withToken(token))); a.status != 200 {
				t.Fatal(a.status)
			}
			if _, err := io.WriteString(flying, request("GET", credentialsPath, pipeAddress, withToken(token))); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			answers := make(chan bool, 1)
			go func() {
				a, err := flying.read("GET")
				answers <- err == nil && a.status == 200
			}()
			began := time.Now()
			stop()
			// net/http looks every half second whether all are done.
			if took := time.Since(began); took < c.took || took > c.took+time.Second {
				t.Errorf("stopping took %v", took)
			}
			if got := <-answers; got != c.answered {
				t.Errorf("answered: %v, want %v", got, c.answered)
			}
			for name, other := range map[string]*client{"idle": idle, "silent": silent} {
				if _, err := other.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("the %s connection: %v", name, err)
				}
			}
			select {
			case <-l.closed:
			default:
				t.Error("the listener is open")
			}
		})
	}
}

// TestStopStuck: a client that does not read its answer does not hold Run,
// and one that the broker holds does: Run joins.
func TestStopStuck(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	broker.get = func(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
		time.Sleep(8 * time.Second)
		return nil, cred.ErrUnavailable
	}
	for path, want := range map[string]time.Duration{"/latest/": drainTimeout, credentialsPath: 8 * time.Second} {
		inBubble(t, func(c *MetadataConfig) { c.Broker = broker }, func(t *testing.T, l *pipeListener, token string, stop func()) {
			c := l.dial(t)
			defer c.Close()
			if _, err := io.WriteString(c, request("GET", path, pipeAddress, withToken(token))); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			began := time.Now()
			stop()
			if took := time.Since(began); took != want {
				t.Errorf("%s: stopping took %v, want %v", path, took, want)
			}
		})
	}
}

// TestKeptExpiry: on a kept connection a token ends by the clock, and so does
// the margin of the credentials.
func TestKeptExpiry(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	inBubble(t, func(c *MetadataConfig) { c.Broker = broker }, func(t *testing.T, l *pipeListener, token string, _ func()) {
		s := snapshot(3 * time.Minute)
		broker.warm.Store(s)
		c := l.dial(t)
		defer c.Close()
		short := c.send(t, "PUT", request("PUT", "/latest/api/token", pipeAddress, "X-aws-ec2-metadata-token-ttl-seconds: 60")).body
		began := time.Now()
		for _, step := range []struct {
			at     time.Duration
			token  string
			status int
			left   string
			ends   time.Time
		}{
			{0, short, 200, "60", s.Expires.Add(-time.Minute)},
			{59 * time.Second, short, 200, "1", s.Expires.Add(-time.Minute)},
			{60 * time.Second, short, 401, "", time.Time{}},
			{119 * time.Second, token, 200, "21481", s.Expires.Add(-time.Minute)},
			{120 * time.Second, token, 200, "21480", s.Expires},
			{150 * time.Second, token, 200, "21450", s.Expires},
		} {
			time.Sleep(step.at - time.Since(began))
			a := c.send(t, "GET", request("GET", credentialsPath, pipeAddress, withToken(step.token)))
			if a.status != step.status || a.header.Get(headerTTL) != step.left {
				t.Errorf("after %v: %d with %q seconds left", step.at, a.status, a.header.Get(headerTTL))
			}
			if a.status == 200 && !strings.Contains(a.body, stamp(step.ends)) {
				t.Errorf("after %v: %s, want the end %s", step.at, a.body, stamp(step.ends))
			}
		}
	})
}

// TestStopAtOnce: with nothing in flight Run ends at once, also while
// connections are open that never said anything, or half a request.
func TestStopAtOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(*MetadataConfig) {}, func(t *testing.T, l *pipeListener, token string, stop func()) {
		c := l.dial(t)
		defer c.Close()
		half := l.dial(t)
		defer half.Close()
		if _, err := io.WriteString(half, "GET / HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("stopping took %v", took)
		}
	})
}

// TestListenerFails: Run says why, and joins.
func TestListenerFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := NewMetadata(MetadataConfig{Listener: l, Profile: "dev", Facts: testFacts, identify: someone("1000")})
		done := make(chan error, 1)
		go func() { done <- s.Run(t.Context()) }()
		c := l.dial(t)
		synctest.Wait()
		l.Close()
		if err := <-done; err == nil || !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "cannot serve imds on 127.0.0.1:9911: ") {
			t.Errorf("Run returned %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection: %v", err)
		}
	})
}

// TestErrors: one mapping, both forms.
func TestErrors(t *testing.T) {
	t.Parallel()
	refused := &cred.UpstreamError{Op: "AssumeRole", Code: "AccessDenied", Status: 403, Refused: true, Message: `cannot assume "deploy": AWS says no`, Help: "ask for sts:AssumeRole", Err: errors.New("canary cause")}
	for _, c := range []struct {
		name              string
		err               error
		imds, container   int
		code, says, never string
	}{
		{"denied", fmt.Errorf("x: %w", cred.ErrDenied), 403, 403, "AccessDenied", "denied", "x:"},
		{"rule", &access.Denied{Reason: "canary rule"}, 403, 403, "AccessDenied", "denied", "canary"},
		{"unknown", fmt.Errorf("%w: canary", cred.ErrUnknownProfile), 404, 403, "AccessDenied", "denied", "canary"},
		{"refused", refused, 200, 403, "AssumeRoleUnauthorizedAccess", "sts:AssumeRole", "canary"},
		{"wrapped refusal", fmt.Errorf("cannot get dev: %w", refused), 200, 403, "AssumeRoleUnauthorizedAccess", "cannot get dev", "canary"},
		{"upstream", &cred.UpstreamError{Op: "AssumeRole"}, 503, 503, "Unavailable", "AWS gave no answer", "canary"},
		{"unavailable", cred.ErrUnavailable, 503, 503, "Unavailable", "not available", "canary"},
		{"person", &cred.InteractionError{Profile: "dev"}, 503, 503, "Unavailable", "keyfob login dev", "canary"},
		{"locked", cred.ErrLocked, 503, 503, "Unavailable", "locked", "canary"},
		{"config", fmt.Errorf("%w: f:3", cred.ErrConfig), 503, 503, "Unavailable", "f:3", "canary"},
		{"late", context.DeadlineExceeded, 503, 503, "Unavailable", "not available", "canary"},
		{"other", errors.New("canary"), 503, 503, "Unavailable", "not available", "canary"},
	} {
		now := time.Now()
		f := faultOf(c.err, metadataForm, now)
		if f.status != c.imds {
			t.Errorf("%s: imds %d, want %d", c.name, f.status, c.imds)
		}
		if (f.document != nil) != (c.imds == 200) {
			t.Errorf("%s: document is %s", c.name, f.document)
		}
		if c.imds == 200 {
			var d map[string]string
			if err := json.Unmarshal(f.document, &d); err != nil || len(d) != 3 || d["Code"] != c.code || !strings.Contains(d["Message"], c.says) || d["LastUpdated"] != stamp(now) {
				t.Errorf("%s: document is %s", c.name, f.document)
			}
		}
		f = faultOf(c.err, containerForm, now)
		body := string(object(f))
		if f.status != c.container || f.code != c.code || !strings.Contains(body, c.says) || strings.Contains(body+string(f.document), c.never) {
			t.Errorf("%s: container %d %s", c.name, f.status, body)
		}
	}
}

// TestServedErrors: the same over connections, with the metadata's answers.
func TestServedErrors(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	var result error
	broker.get = func(context.Context, cred.Request) (*cred.Snapshot, error) { return nil, result }
	log, lines := newLog(t)
	address := metadataServer(t, func(c *MetadataConfig) { c.Broker = broker; c.Log = log })
	token := newToken(t, address)

	result = &cred.UpstreamError{Op: "AssumeRole", Code: "AccessDenied", Refused: true, Message: "cannot assume deploy", Err: errors.New("canary")}
	a := get(t, address, credentialsPath, withToken(token))
	var d document
	if err := json.Unmarshal([]byte(a.body), &d); err != nil {
		t.Fatal(err)
	}
	if a.status != 200 || a.header.Get("Content-Type") != "text/plain" || d.Code != "AssumeRoleUnauthorizedAccess" || d.Message != "cannot assume deploy" ||
		d.AccessKeyId+d.SecretAccessKey+d.Token+d.Expiration != "" || strings.Contains(a.body, "AccessKeyId") {
		t.Errorf("refused: %+v", a)
	}
	result = cred.ErrDenied
	if a := get(t, address, credentialsPath, withToken(token)); a.status != 403 || !strings.Contains(a.body, "403 - Forbidden") {
		t.Errorf("denied: %+v", a)
	}
	result = cred.ErrUnknownProfile
	if a := get(t, address, credentialsPath, withToken(token)); a.status != 404 {
		t.Errorf("unknown: %+v", a)
	}
	result = cred.ErrLocked
	if a := get(t, address, credentialsPath, withToken(token)); a.status != 503 || a.header.Get("Retry-After") != "1" {
		t.Errorf("locked: %+v", a)
	}
	noSecret(t, "the log", lines.String())

	// What must never be handed out.
	for name, s := range map[string]*cred.Snapshot{
		"nothing":    nil,
		"empty":      {},
		"long-lived": {Credentials: cred.Credentials{AccessKeyID: "AKIA", SecretAccessKey: cred.NewSecret(canarySecret)}},
		"endless":    {Credentials: cred.Credentials{AccessKeyID: "ASIA", SecretAccessKey: cred.NewSecret(canarySecret), SessionToken: cred.NewSecret(canaryToken)}},
	} {
		broker.get = func(context.Context, cred.Request) (*cred.Snapshot, error) { return s, nil }
		a := get(t, address, credentialsPath, withToken(token))
		noSecret(t, name, a.body)
		if a.status != 503 {
			t.Errorf("%s: %+v", name, a)
		}
	}
}
