package imds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

func TestWhole(t *testing.T) {
	t.Parallel()
	for b, want := range map[string]bool{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":     true,
		"GET / HTTP/1.1\r\n\r\n":                true,
		"":                                      false,
		"\r\n":                                  false,
		"\r\n\r\n":                              false,
		"GET / HTTP/1.1\r\nHost: a\r\n":         false,
		"GET / HTTP/1.1\r\nHost: a\r\n\r":       false,
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nG":    false,
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n": false,
		"GET / HTTP/1.1\nHost: a\n\n":           false,
		"GET / HTTP/1.1\r\nHost: a\n\r\n":       false,
		"GET / HTTP/1.1\r\nHost: a\r\n\n":       false,
		"GET / HTTP/1.1\nHost: a\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n":    false,
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nH: a\r\n\r\n": false,
	} {
		if whole([]byte(b)) != want {
			t.Errorf("%q: %v", b, !want)
		}
	}
}

// repeats runs a server and tells how many answers it has repeated.
func repeats(t *testing.T, change func(*MetadataConfig)) (address string, repeated func() int) {
	tokens := access.NewTokens([32]byte{1})
	cfg := MetadataConfig{
		Listener: listen(t, "127.0.0.1:0"), Profile: "dev", Broker: newBroker(), Facts: testFacts,
		Tokens: func() *access.Tokens { return tokens }, Generation: func(string) uint64 { return 7 },
	}
	change(&cfg)
	s := NewMetadata(cfg)
	address = start(t, s)
	return address, func() int { return int(s.repeated.Load()) }
}

// maxTries is when a test gives up waiting for an answer to be repeated. A
// request of which net/http got a byte early is not, and that is a matter of
// luck.
const maxTries = 5000

// TestRepeated: the answers to the same bytes are the same, whoever gave
// them.
func TestRepeated(t *testing.T) {
	t.Parallel()
	for _, v1 := range []bool{false, true} {
		address, repeated := repeats(t, func(c *MetadataConfig) { c.IMDSv1 = v1 })
		headers := []string{"User-Agent: x"}
		if !v1 {
			headers = append(headers, withToken(newToken(t, address)))
		}
		r := request("GET", credentialsPath, address, headers...)
		c := dial(t, address)
		defer c.Close()
		first := c.send(t, "GET", r)
		if first.status != 200 {
			t.Fatal(first.status)
		}
		for n := 0; n < 10 || repeated() == 0 && n < maxTries; n++ {
			a := c.send(t, "GET", r)
			if _, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", a.header.Get("Date")); err != nil {
				t.Error(err)
			}
			if v1 != (a.header.Get(headerTTL) == "") {
				t.Errorf("TTL header is %q", a.header.Get(headerTTL))
			}
			a.header.Del("Date")
			first.header.Del("Date")
			a.header.Del(headerTTL)
			first.header.Del(headerTTL)
			if fmt.Sprint(a) != fmt.Sprint(first) {
				t.Errorf("repeated answer is %+v, want %+v", a, first)
			}
		}
		if repeated() == 0 {
			t.Error("nothing was repeated")
		}
	}
}

// TestRepeatJudges: what can have changed between two equal requests is
// judged for each.
func TestRepeatJudges(t *testing.T) {
	t.Parallel()
	tokens := access.NewTokens([32]byte{1})
	current := tokens
	generation := uint64(7)
	facts := testFacts("")
	broker := newBroker()
	var rule error
	address, repeated := repeats(t, func(c *MetadataConfig) {
		c.Tokens = func() *access.Tokens { return current }
		c.Generation = func(string) uint64 { return generation }
		c.Facts = func(string) Facts { return facts }
		c.Broker = broker
		c.Check = func(peer.Caller, string, cred.Endpoint) error { return rule }
	})
	r := request("GET", credentialsPath, address, withToken(newToken(t, address)))
	c := dial(t, address)
	defer c.Close()
	expect := func(when string, status int, text string) {
		t.Helper()
		for i := range 4 {
			if a := c.send(t, "GET", r); a.status != status || !strings.Contains(a.body, text) {
				t.Errorf("%s, request %d: %d %.80q", when, i, a.status, a.body)
			}
		}
	}
	const good = "ASIAEXAMPLEEXAMPLE12"
	again := func() {
		t.Helper()
		before := repeated()
		for n := 0; repeated() == before; n++ {
			if expect("good", 200, good); n > maxTries {
				t.Fatal("nothing is repeated any more")
			}
		}
	}
	again()
	generation++
	expect("after a logout", 401, "Unauthorized")
	generation--
	again()
	current = access.NewTokens([32]byte{2})
	expect("with another key", 401, "Unauthorized")
	current = nil
	expect("without a key", 401, "Unauthorized")
	current = tokens
	again()
	rule = cred.ErrDenied
	expect("refused by the rules", 403, "Forbidden")
	rule = nil
	again()
	facts.RoleName = "other"
	expect("another role", 404, "Not Found")
	facts.RoleName = testRole
	again()
	for name, e := range map[string]struct {
		err    error
		status int
		text   string
	}{
		"denied":      {cred.ErrDenied, 403, "Forbidden"},
		"unavailable": {cred.ErrUnavailable, 503, "Unavailable"},
		"refused":     {&cred.UpstreamError{Refused: true, Message: "AWS says no"}, 200, "AWS says no"},
	} {
		broker.get = func(context.Context, cred.Request) (*cred.Snapshot, error) { return nil, e.err }
		expect(name, e.status, e.text)
		broker.get = nil
		again()
	}
	next := *snapshot(time.Hour)
	next.AccessKeyID = "ASIANEXT"
	broker.warm.Store(&next)
	expect("after a refresh", 200, "ASIANEXT")
	broker.warm.Store(&cred.Snapshot{Credentials: cred.Credentials{AccessKeyID: "AKIA", SecretAccessKey: cred.NewSecret(canarySecret)}})
	expect("with long-lived keys", 503, "Unavailable")
}

// TestRepeatWaits: a repeated request that finds nothing waits like any other.
func TestRepeatWaits(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	inBubble(t, func(c *MetadataConfig) { c.Broker = broker }, func(t *testing.T, l *pipeListener, token string, _ func()) {
		c := l.dial(t)
		defer c.Close()
		r := request("GET", credentialsPath, pipeAddress, withToken(token))
		for range 4 {
			if a := c.send(t, "GET", r); a.status != 200 {
				t.Fatal(a.status)
			}
		}
		broker.get = func(ctx context.Context, _ cred.Request) (*cred.Snapshot, error) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(100 * time.Millisecond):
				return broker.warm.Load(), nil
			}
		}
		began := time.Now()
		if a := c.send(t, "GET", r); a.status != 200 || time.Since(began) != 100*time.Millisecond {
			t.Errorf("%d after %v", a.status, time.Since(began))
		}
		broker.get = func(ctx context.Context, _ cred.Request) (*cred.Snapshot, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		began = time.Now()
		if a := c.send(t, "GET", r); a.status != 503 || time.Since(began) != 250*time.Millisecond {
			t.Errorf("%d after %v", a.status, time.Since(began))
		}
		broker.get = nil
		// A connection that only ever repeats ends when it is idle, and not
		// before; its token ends too.
		for range 3 {
			for range 4 {
				time.Sleep(idleTimeout * 7 / 8)
				if a := c.send(t, "GET", r); a.status != 200 {
					t.Fatal(a.status)
				}
			}
		}
		began = time.Now()
		_, _ = io.Copy(io.Discard, c)
		if d := time.Since(began); d > idleTimeout || d < idleTimeout*15/16-time.Second {
			t.Errorf("closed after %v", d)
		}
	})
}

// TestRepeatExpires: a token that only ever opens repeated answers ends by
// the clock.
func TestRepeatExpires(t *testing.T) {
	t.Parallel()
	inBubble(t, func(*MetadataConfig) {}, func(t *testing.T, l *pipeListener, _ string, _ func()) {
		c := l.dial(t)
		defer c.Close()
		token := c.send(t, "PUT", request("PUT", "/latest/api/token", pipeAddress, "X-aws-ec2-metadata-token-ttl-seconds: 60")).body
		r := request("GET", credentialsPath, pipeAddress, withToken(token))
		for second := range 64 {
			a := c.send(t, "GET", r)
			want, left := 200, fmt.Sprint(60-second)
			if second >= 60 {
				want, left = 401, ""
			}
			if a.status != want || a.header.Get(headerTTL) != left {
				t.Errorf("after %d s: %d with %q seconds left", second, a.status, a.header.Get(headerTTL))
			}
			if d, err := time.Parse(time.RFC1123, a.header.Get("Date")); err != nil || !d.Equal(time.Now().UTC().Truncate(time.Second)) {
				t.Errorf("after %d s: Date is %q", second, a.header.Get("Date"))
			}
			time.Sleep(time.Second)
		}
	})
}

// TestRepeatStops: the end of the server waits for a repeated answer that a
// client is slow to read.
func TestRepeatStops(t *testing.T) {
	t.Parallel()
	inBubble(t, func(*MetadataConfig) {}, func(t *testing.T, l *pipeListener, token string, stop func()) {
		c := l.dial(t)
		defer c.Close()
		r := request("GET", credentialsPath, pipeAddress, withToken(token))
		for range 4 {
			if a := c.send(t, "GET", r); a.status != 200 {
				t.Fatal(a.status)
			}
		}
		if _, err := io.WriteString(c, r); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		answers := make(chan error, 1)
		go func() {
			time.Sleep(time.Second)
			a, err := c.read("GET")
			if err == nil && a.status != 200 {
				err = errors.New("no answer")
			}
			answers <- err
		}()
		stop()
		if err := <-answers; err != nil {
			t.Error(err)
		}
	})
}

// TestRepeatAgrees: whatever came before on a connection, in however many
// pieces, an answer is that of a connection of its own.
func TestRepeatAgrees(t *testing.T) {
	t.Parallel()
	address, repeated := repeats(t, func(c *MetadataConfig) {})
	token := newToken(t, address)
	good := request("GET", credentialsPath, address, withToken(token))
	requests := []string{
		good, // most often
		strings.Replace(good, token, flip(token[3])+token[1:], 1),
		strings.Replace(good, "security-credentials/deploy", "security-credentials/deplox", 1),
		strings.Replace(good, "Host: 127", "Host: 128", 1),
		strings.Replace(good, "GET", "PUT", 1),
		strings.Replace(good, "GET", "HEAD", 1),
		strings.Replace(good, "X-aws", "x-aws", 1),
		strings.Replace(good, "\r\n\r\n", "\r\nOrigin: x\r\n\r\n", 1),
		strings.Replace(good, "\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n", 1),
		strings.ReplaceAll(good, "\r\n", "\n"),
		strings.Replace(good, "security-credentials", "security-credentials-extended", 1),
		request("GET", "/latest/meta-data/iam/security-credentials/", address, withToken(token)),
		request("PUT", "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: 60", "Content-Length: 3") + "abc",
	}
	want := map[string]answer{}
	method := func(r string) string { return strings.SplitN(r, " ", 2)[0] }
	for _, r := range requests {
		want[r] = raw(t, address, method(r), r)
	}
	same := func(a, b answer) bool {
		return a.status == b.status && (a.body == b.body || len(a.body) == 56) && a.closed == b.closed && a.header.Get("Content-Type") == b.header.Get("Content-Type") &&
			a.header.Get("Content-Length") == b.header.Get("Content-Length") && (a.header.Get(headerTTL) == "") == (b.header.Get(headerTTL) == "")
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		c := dial(t, address)
		for range 30 {
			var batch []string
			for range 1 + random.IntN(20)/19 { // now and then two in one write
				batch = append(batch, requests[max(0, random.IntN(3*len(requests))-2*len(requests))])
			}
			bytes := strings.Join(batch, "")
			cut := len(bytes)
			if random.IntN(20) == 0 {
				cut = random.IntN(len(bytes))
			}
			if _, err := io.WriteString(c, bytes[:cut]); err != nil {
				t.Fatal(err)
			}
			if cut < len(bytes) {
				time.Sleep(time.Duration(random.IntN(300)) * time.Microsecond)
				if _, err := io.WriteString(c, bytes[cut:]); err != nil {
					t.Fatal(err)
				}
			}
			for _, r := range batch {
				a, err := c.read(method(r))
				if err != nil || !same(a, want[r]) {
					t.Fatalf("%q was answered %+v (%v), alone %+v", r, a, err, want[r])
				}
			}
		}
		c.Close()
	}
	if repeated() == 0 {
		t.Error("nothing was repeated")
	}
}

// TestRepeatPieces: only a piece that is one request is taken for one.
func TestRepeatPieces(t *testing.T) {
	t.Parallel()
	inBubble(t, func(*MetadataConfig) {}, func(t *testing.T, l *pipeListener, token string, _ func()) {
		good := request("GET", credentialsPath, pipeAddress, withToken(token))
		c := l.dial(t)
		for i, step := range []struct {
			request string
			status  int
		}{{good, 200}, {good + "GET ", 200}, {good + "GET ", 400}} { // "GET GET /latest…"
			if a := c.send(t, "GET", step.request); a.status != step.status {
				t.Errorf("with a beginning behind it, request %d: %d", i, a.status)
			}
		}
		c.Close()
		const cut = 7
		for times := range 4 {
			c = l.dial(t)
			for range times + 1 {
				if _, err := io.WriteString(c, good[:cut]); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if a := c.send(t, "GET", good[cut:]); a.status != 200 {
					t.Fatal(a.status)
				}
			}
			if a := c.send(t, "GET", good[cut:]); a.status != 400 {
				t.Errorf("half a request, after %d whole ones: %d", times+1, a.status)
			}
			c.Close()
		}
	})
}

// TestRepeatLoad: many connections that repeat while the server ends lose
// nothing but whole requests.
func TestRepeatLoad(t *testing.T) {
	t.Parallel()
	tokens := access.NewTokens([32]byte{1})
	l := listen(t, "127.0.0.1:0")
	s := NewMetadata(MetadataConfig{
		Listener: l, Profile: "dev", Broker: newBroker(), Facts: testFacts,
		Tokens: func() *access.Tokens { return tokens }, Generation: func(string) uint64 { return 7 },
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	address := l.Addr().String()
	r := request("GET", credentialsPath, address, withToken(newToken(t, address)))
	var open []*conn
	var once sync.Once
	var wg sync.WaitGroup
	for range 4 {
		c := dial(t, address)
		defer c.Close()
		wg.Go(func() {
			for n := 0; ; n++ {
				if _, err := io.WriteString(c, r); err != nil {
					return
				}
				if _, err := c.r.Peek(1); err != nil {
					var network net.Error
					if errors.As(err, &network) && network.Timeout() {
						t.Error("no answer, and no end")
					}
					return // closed between two requests
				}
				if a, err := c.read("GET"); err != nil || a.status != 200 {
					t.Errorf("request %d: %d %v", n, a.status, err)
					return
				}
				if n == 200 {
					once.Do(func() { open = s.limits.of(s); cancel() })
				}
			}
		})
	}
	wg.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, c := range open {
		if out := c.out[:cap(c.out)]; len(out) == 0 || strings.Trim(string(out), "\x00") != "" {
			t.Errorf("an answer was not cleared: %d bytes", len(out))
		}
	}
}
