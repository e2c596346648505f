package imds

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/peer"
)

// byAddress tells users apart by the loopback address that they come from.
func byAddress(c net.Conn) (peer.Caller, error) {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil || host == "127.0.0.9" {
		return peer.Caller{}, peer.ErrUnidentified
	}
	return peer.Caller{UID: strings.TrimPrefix(host, "127.0.0."), Via: peer.ViaTCP}, nil
}

// dialFrom connects from 127.0.0.<user>.
func dialFrom(t testing.TB, user, address string) *client {
	t.Helper()
	c, err := tryFrom(user, address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func tryFrom(user, address string) (*client, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0." + user)}, KeepAlive: -1, Timeout: 5 * time.Second}
	c, err := d.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReaderSize(c, 16)}, nil
}

// crowd is what clients do that hold connections. Each leaves c open.
var crowd = []struct {
	name string
	do   func(c *client, address, token string) error
}{
	{"silent", func(*client, string, string) error { return nil }},
	{"half a header", func(c *client, address, _ string) error {
		_, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n", address)
		return err
	}},
	{"half-closed", func(c *client, address, _ string) error {
		if _, err := io.WriteString(c, "GET / HT"); err != nil {
			return err
		}
		return c.Conn.(*net.TCPConn).CloseWrite()
	}},
	{"idle after an answer", func(c *client, address, token string) error {
		if _, err := io.WriteString(c, request("GET", credentialsPath, address, withToken(token))); err != nil {
			return err
		}
		_, err := c.r.Peek(1)
		return err
	}},
	{"a body that does not come", func(c *client, address, _ string) error {
		_, err := io.WriteString(c, request("PUT", "/latest/api/token", address, "Content-Length: 5", "X-aws-ec2-metadata-token-ttl-seconds: 60"))
		return err
	}},
	{"answers unread", func(c *client, address, token string) error {
		// The answers fill what the kernel keeps for it.
		if err := c.Conn.(*net.TCPConn).SetReadBuffer(1 << 10); err != nil {
			return err
		}
		_, err := io.WriteString(c, strings.Repeat(request("GET", credentialsPath, address, withToken(token)), 40))
		return err
	}},
}

// TestCrowd: one client that holds thousands of connections open, in whatever
// way, takes the service from nobody: not from other users, not from its own
// user's other programs. The server is a process of its own, whose memory is
// measured.
func TestCrowd(t *testing.T) {
	if os.Getenv("KEYFOB_TEST_CROWD") != "" {
		serveCrowd(t)
		return
	}
	if runtime.GOOS != "linux" {
		t.Skipf("%s: needs Linux, for 127.0.0.2 and /proc", t.Name())
	}
	want := 10000
	if testing.Short() {
		want = 2000
	}
	n := min(want, maxOpenFiles()-200)
	if n < want {
		t.Logf("%d connections instead of %d, because this process may not open more files", n, want)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.timeout=3m")
	cmd.Env = append(os.Environ(), "KEYFOB_TEST_CROWD=1")
	cmd.Stderr = os.Stderr
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = stdin.Close()
		if _, err := io.Copy(io.Discard, stdout); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSpace(line)
	token := func(user string) string {
		c := dialFrom(t, user, address)
		defer c.Close()
		return c.send(t, "PUT", request("PUT", "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: 21600")).body
	}
	tokens := map[string]string{"1": token("1"), "2": token("2")}
	before := residentMB(t, cmd.Process.Pid)

	for _, kind := range crowd {
		held := make([]*client, 0, n)
		began := time.Now()
		failed := 0
		served := serveDuring(t, address, tokens, func() {
			var wg sync.WaitGroup
			var mu sync.Mutex // guards held and failed
			for part := range 8 {
				wg.Go(func() {
					for i := part; i < n; i += 8 {
						c, err := tryFrom("1", address)
						if err == nil {
							err = kind.do(c, address, tokens["1"])
						}
						mu.Lock()
						if c != nil {
							held = append(held, c)
						}
						if err != nil {
							failed++ // it was closed meanwhile, as it should be
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
		})
		rss := residentMB(t, cmd.Process.Pid)
		t.Logf("%s: %d connections in %v (%d were closed at once); %s; %d MB resident, %d before", kind.name, len(held), time.Since(began).Round(time.Millisecond), failed, served, rss, before)
		if rss >= 100 && !raceEnabled {
			t.Errorf("%s: %d MB resident", kind.name, rss)
		}
		for _, c := range held {
			_ = c.Close()
		}
	}
}

// serveDuring asks for credentials as the same and as another user, over
// fresh connections, while hold runs and a moment longer.
func serveDuring(t *testing.T, address string, tokens map[string]string, hold func()) string {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); hold(); time.Sleep(200 * time.Millisecond) }()
	var wg sync.WaitGroup
	var took [3][]time.Duration
	for user, name := range []string{1: "the same user", 2: "another user"} {
		if name == "" {
			continue
		}
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				uid := strconv.Itoa(user)
				began := time.Now()
				c, err := tryFrom(uid, address)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				_ = c.SetDeadline(began.Add(5 * time.Second))
				_, err = io.WriteString(c, request("GET", credentialsPath, address, withToken(tokens[uid])))
				var a answer
				if err == nil {
					a, err = c.read("GET")
				}
				_ = c.Close()
				if err != nil || a.status != 200 {
					t.Errorf("%s got %d, %v, after %v", name, a.status, err, time.Since(began))
					return
				}
				took[user] = append(took[user], time.Since(began))
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
	text := ""
	for user, name := range []string{1: "the same user", 2: "another user"} {
		if all := took[user]; len(all) > 0 {
			slices.Sort(all)
			p99 := all[len(all)*99/100]
			text += fmt.Sprintf("%s %d times, p99 %v; ", name, len(all), p99.Round(10*time.Microsecond))
			if limit := 500 * time.Millisecond; p99 > limit && !raceEnabled { // the Go SDK's patience
				t.Errorf("%s waited %v", name, p99)
			}
		}
	}
	return strings.TrimSuffix(text, "; ")
}

// serveCrowd is the process that TestCrowd measures.
func serveCrowd(t *testing.T) {
	tokens := access.NewTokens([32]byte{1})
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewMetadata(MetadataConfig{
		Listener: l, Profile: "dev", Broker: newBroker(), Facts: testFacts, identify: byAddress,
		Tokens: func() *access.Tokens { return tokens }, Generation: func(string) uint64 { return 7 },
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	fmt.Println(l.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func residentMB(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	var kb int
	if _, err := fmt.Sscan(after, &kb); err != nil {
		t.Fatal(err)
	}
	return kb >> 10
}
