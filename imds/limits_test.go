package imds

import (
	"context"
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
	"keyfob/internal/peer"
)

// arriving makes connections of the users that a test names, over pipes.
type arriving struct {
	*pipeListener
	users chan string
}

func (a *arriving) identify(net.Conn) (peer.Caller, error) {
	if uid := <-a.users; uid != "" {
		return peer.Caller{UID: uid, Via: peer.ViaTCP}, nil
	}
	return peer.Caller{}, peer.ErrUnidentified
}

func (a *arriving) from(t *testing.T, uid string) *client {
	a.users <- uid
	c := a.dial(t)
	synctest.Wait()
	return c
}

// open reports whether the server has not closed c.
func open(c *client) bool {
	_ = c.SetReadDeadline(time.Now())
	_, err := c.r.Peek(1)
	_ = c.SetReadDeadline(time.Time{})
	return errors.Is(err, context.DeadlineExceeded) || err != nil && strings.Contains(err.Error(), "timeout")
}

// crowded runs servers with Limits of 16 connections: 4 idle and 12 busy ones
// of one user.
func crowded(t *testing.T, change func(*MetadataConfig), test func(t *testing.T, l []*arriving, get func(uid string) string)) {
	synctest.Test(t, func(t *testing.T) {
		tokens := access.NewTokens([32]byte{1})
		limits := newLimits(16)
		limits.idle = 4
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		var all []*arriving
		for range 2 {
			l := &arriving{newPipes(), make(chan string, 1)}
			cfg := MetadataConfig{
				Listener: l, Profile: "dev", Broker: newBroker(), Facts: testFacts, Limits: limits, identify: l.identify, AllowUnidentified: true,
				Tokens: func() *access.Tokens { return tokens }, Generation: func(string) uint64 { return 7 },
			}
			change(&cfg)
			s := NewMetadata(cfg)
			go func() { done <- s.Run(ctx) }()
			all = append(all, l)
		}
		test(t, all, func(uid string) string {
			token := tokens.Mint(time.Now(), 6*time.Hour, access.Binding{Endpoint: "imds " + pipeAddress, UID: uid, Generation: 7})
			return request("GET", credentialsPath, pipeAddress, withToken(token))
		})
		cancel()
		for range all {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if limits.count != 0 {
			t.Errorf("%d connections are counted after the end", limits.count)
		}
		for uid, u := range limits.users {
			if u.first != nil || u.last != nil || u.count != 0 {
				t.Errorf("user %q still has %d", uid, u.count)
			}
		}
	})
}

// TestLimitArriving: a connection that was just made is not called silent, as
// long as there is another.
func TestLimitArriving(t *testing.T) {
	t.Parallel()
	crowded(t, func(*MetadataConfig) {}, func(t *testing.T, l []*arriving, get func(string) string) {
		var old []*client
		for range 3 {
			old = append(old, l[0].from(t, "1"))
		}
		time.Sleep(arrivingTime)
		first := l[0].from(t, "1")
		for _, c := range old { // all others have said something since they were looked at last
			if got := c.send(t, "GET", get("1")); got.status != 200 {
				t.Fatalf("%+v", got)
			}
		}
		second := l[0].from(t, "1")
		if !open(first) || !open(second) {
			t.Error("a connection that was just made was closed for the next")
		}
		if got := first.send(t, "GET", get("1")); got.status != 200 {
			t.Errorf("%+v", got)
		}
	})
}

// TestLimitIdle: who is over the cap loses the connection that has been silent
// longest, whichever server it is of.
func TestLimitIdle(t *testing.T) {
	t.Parallel()
	crowded(t, func(*MetadataConfig) {}, func(t *testing.T, l []*arriving, get func(string) string) {
		for _, uid := range []string{"1", ""} { // the unidentified are one user
			a, b, c, d := l[0].from(t, uid), l[1].from(t, uid), l[0].from(t, uid), l[1].from(t, uid)
			for _, c := range []*client{a, c} {
				if got := c.send(t, "GET", get(uid)); got.status != 200 {
					t.Fatalf("%+v", got)
				}
			}
			for i, want := range []string{"1011", "1010", "0010", "0010"} {
				time.Sleep(arrivingTime)
				e := l[i%2].from(t, uid)
				defer e.Close()
				got := ""
				for _, c := range []*client{a, b, c, d} {
					got += map[bool]string{true: "1", false: "0"}[open(c)]
				}
				if got != want || !open(e) {
					t.Errorf("user %q, connection %d: open are %s, want %s", uid, i+5, got, want)
				}
			}
		}
		if other := l[0].from(t, "2"); other.send(t, "GET", get("2")).status != 200 {
			t.Error("another user is not served")
		}
	})
}

// TestLimitBusy: connections with a request under way are left alone, up to a
// cap; beyond it the user is told to come again, and others are served.
func TestLimitBusy(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	broker.get = func(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
		if r.Caller.UID == "1" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return broker.warm.Load(), nil
	}
	log, lines := newLog(t)
	crowded(t, func(c *MetadataConfig) { c.Broker, c.Log = broker, log }, func(t *testing.T, l []*arriving, get func(string) string) {
		var waiting []*client
		for range 12 {
			c := l[0].from(t, "1")
			if _, err := io.WriteString(c, get("1")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			waiting = append(waiting, c)
		}
		l[1].users <- "1"
		c := l[1].dial(t)
		if a, err := c.read("GET"); err != nil || a.status != 503 || !a.closed || a.header.Get("Retry-After") != "1" {
			t.Errorf("one too many: %+v, %v", a, err)
		}
		for range 10 {
			other := l[0].from(t, "2")
			if a := other.send(t, "GET", get("2")); a.status != 200 {
				t.Errorf("another user: %+v", a)
			}
		}
		for _, c := range waiting {
			if a, err := c.read("GET"); err != nil || a.status != 503 || a.closed {
				t.Errorf("who waited: %+v, %v", a, err)
			}
		}
		c = l[1].from(t, "1") // they are idle now, and can be spared
		if !open(c) {
			t.Error("a connection is refused although others are idle")
		}
	})
	if n := strings.Count(lines.String(), "too many connections of this user"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// TestLimitAll: when all connections are taken, the user who has most gives
// one up.
func TestLimitAll(t *testing.T) {
	t.Parallel()
	crowded(t, func(*MetadataConfig) {}, func(t *testing.T, l []*arriving, get func(string) string) {
		all := map[string][]*client{}
		for _, uid := range []string{"1", "1", "1", "1", "2", "2", "2", "3", "3", "3", "4", "4", "4", "5", "5", "5"} {
			all[uid] = append(all[uid], l[0].from(t, uid))
		}
		last := l[1].from(t, "6")
		if a := last.send(t, "GET", get("6")); a.status != 200 {
			t.Errorf("%+v", a)
		}
		for uid, clients := range all {
			for i, c := range clients {
				if open(c) == (uid == "1" && i == 0) {
					t.Errorf("connection %d of user %s: open %v", i, uid, open(c))
				}
			}
		}
	})
}

// TestLimitStalled: a client that does not read its answer, or does not send
// the body it announced, counts as idle.
func TestLimitStalled(t *testing.T) {
	t.Parallel()
	crowded(t, func(*MetadataConfig) {}, func(t *testing.T, l []*arriving, get func(string) string) {
		for _, what := range []string{get("1"), request("PUT", "/latest/api/token", pipeAddress, "Content-Length: 5", "X-aws-ec2-metadata-token-ttl-seconds: 60")} {
			var stalled []*client
			for range 4 {
				c := l[0].from(t, "1")
				if _, err := io.WriteString(c, what); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				stalled = append(stalled, c)
			}
			time.Sleep(stalledAfter)
			c := l[0].from(t, "1")
			if a := c.send(t, "GET", get("1")); a.status != 200 {
				t.Errorf("%+v", a)
			}
			if n, _ := io.Copy(io.Discard, stalled[0]); n != 0 {
				t.Errorf("the oldest got %d bytes", n)
			}
			for _, c := range append(stalled, c) {
				c.Close()
			}
			synctest.Wait()
		}
	})
}

// TestLimitUsers: no user is remembered for ever.
func TestLimitUsers(t *testing.T) {
	t.Parallel()
	l := newLimits(8)
	for i := range 10 * maxIdleUsers {
		here, there := net.Pipe()
		c := &conn{Conn: there, raw: there, caller: peer.Caller{UID: fmt.Sprint(i)}}
		if !l.admit(c, time.Now()) {
			t.Fatal("refused")
		}
		l.remove(c)
		l.remove(c) // as when Limits has closed it before
		here.Close()
	}
	if len(l.users) > maxIdleUsers+1 || l.count != 0 {
		t.Errorf("%d users, %d connections", len(l.users), l.count)
	}
}

// TestLimitForgets: a user without connections who is forgotten while a new one
// of theirs is admitted is counted all the same.
func TestLimitForgets(t *testing.T) {
	t.Parallel()
	l := newLimits(8)
	come := func(uid string) *conn {
		_, there := net.Pipe()
		c := &conn{Conn: there, raw: there, caller: peer.Caller{UID: uid}, reading: true}
		if !l.admit(c, time.Now()) {
			t.Fatalf("%s: refused", uid)
		}
		return c
	}
	for i := range 8 {
		come(fmt.Sprint("full", i)) // the table, by users with one connection
	}
	for i := range maxIdleUsers {
		l.users[fmt.Sprint("idle", i)] = newHolder()
	}
	c := come("late")
	if u := l.users["late"]; u == nil || u != c.holder || u.count != 1 {
		t.Errorf("the new connection's user is %+v, counted is %+v", u, c.holder)
	}
	if n := len(l.of(nil)); n != 8 || l.count != 8 {
		t.Errorf("%d connections are known, %d counted, want 8", n, l.count)
	}
}

// fromAddress is a connection of a stranger.
type fromAddress struct {
	net.Conn
	ip string
}

func (f fromAddress) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.ip), Port: 1} }

// TestLimitStrangers: among those whom the kernel does not name the address
// with most connections loses one first, and all of them together lose no
// user's; no address is remembered for ever.
func TestLimitStrangers(t *testing.T) {
	t.Parallel()
	l := newLimits(16) // eight of strangers
	var all []*conn
	come := func(ip, uid string) *conn {
		_, there := net.Pipe()
		f := fromAddress{there, ip}
		c := &conn{Conn: f, raw: f, caller: peer.Caller{UID: uid}, reading: true}
		if !l.admit(c, time.Now()) {
			t.Fatalf("%s, %q: refused", ip, uid)
		}
		all = append(all, c)
		return c
	}
	quiet, own := come("10.0.0.2", ""), come("127.0.0.1", "1000")
	for range 7 {
		come("10.0.0.3", "")
	}
	for i := range 20 {
		come("10.0.0.3", "")
		if late := come(fmt.Sprintf("10.0.1.%d", i%3), ""); late.evicted || quiet.evicted || own.evicted {
			t.Fatalf("after %d: the new one is closed: %v, a quiet container's: %v, a user's: %v", i, late.evicted, quiet.evicted, own.evicted)
		}
		if l.unnamed != 8 {
			t.Fatalf("strangers have %d connections", l.unnamed)
		}
	}
	for _, c := range all {
		l.remove(c)
	}
	if len(l.strangers) != 0 || l.unnamed != 0 || l.count != 0 {
		t.Errorf("%d addresses, %d connections of strangers, %d in all", len(l.strangers), l.unnamed, l.count)
	}
}

// TestLimitsFit: a process that may open few files holds few connections.
func TestLimitsFit(t *testing.T) {
	t.Parallel()
	for files, want := range map[int][3]int{100000: {1024, 1536, 2048}, 1024: {256, 384, 512}, 4: {4, 6, 8}} {
		if l := newLimits(min(maxConnections, files/2)); [3]int{l.idle, l.busy, l.all} != want {
			t.Errorf("with %d files: %d idle, %d busy, %d in all", files, l.idle, l.busy, l.all)
		}
	}
}

// TestSlowIdentification: where it takes long to find out who calls, others
// do not wait for it one after the other.
func TestSlowIdentification(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := NewMetadata(MetadataConfig{Listener: l, Profile: "dev", Facts: testFacts, identify: func(net.Conn) (peer.Caller, error) {
			time.Sleep(100 * time.Millisecond)
			return peer.Caller{UID: "1"}, nil
		}})
		s.acceptors = 4
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		began := time.Now()
		answers := make(chan time.Duration)
		for range 8 {
			c := l.dial(t)
			go func() {
				defer c.Close()
				if _, err := io.WriteString(c, request("GET", "/", pipeAddress)); err == nil {
					_, _ = c.read("GET")
				}
				answers <- time.Since(began)
			}()
		}
		for range 8 {
			if d := <-answers; d > 200*time.Millisecond {
				t.Errorf("answered after %v", d)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestUnread: a request that waits in the kernel to be read is seen; the end
// of a connection is no request.
func TestUnread(t *testing.T) {
	t.Parallel()
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	k, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	within := func(want bool) bool {
		for range 1000 {
			if unread(c) == want {
				return true
			}
			time.Sleep(time.Millisecond)
		}
		return false
	}
	if unread(c) {
		t.Error("silent, and something is unread")
	}
	if _, err := io.WriteString(k, "GET"); err != nil || !within(true) {
		t.Errorf("what was sent is not seen; %v", err)
	}
	own := &conn{Conn: c, raw: c, reading: true}
	if own.waits(time.Now()) {
		t.Error("a connection with a request unread may be closed")
	}
	if _, err := io.ReadFull(c, make([]byte, 3)); err != nil || !within(false) || !own.waits(time.Now()) {
		t.Errorf("what was read is seen still; %v", err)
	}
	k.Close()
	if !within(false) {
		t.Error("an end is taken for a request")
	}
}
