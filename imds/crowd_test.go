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
	ip := c.RemoteAddr().(*net.TCPAddr).IP.To4()
	return peer.Caller{UID: strconv.Itoa(int(ip[3])), Via: peer.ViaTCP}, nil
}

// tryFrom connects from 127.0.<round>.<user>: each round has ports of its own.
func tryFrom(round, user int, address string) (*client, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(round), byte(user))}, KeepAlive: -1, Timeout: 5 * time.Second, Control: lateBind}
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
	server := startCrowd(t, "TestCrowdServer")
	address := server.address
	var tokens [3]string
	for user := 1; user < 3; user++ {
		c, err := tryFrom(0, user, address)
		if err != nil {
			t.Fatal(err)
		}
		tokens[user] = c.send(t, "PUT", request("PUT", "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: 21600")).body
		c.Close()
	}
	before := residentMB(t, server.pid)
	moment := func() { time.Sleep(500 * time.Millisecond) }
	t.Logf("alone: %s", serveDuring(t, 0, address, tokens, moment))

	for round, kind := range crowd {
		var held []*client
		var failed int
		began := time.Now()
		served := serveDuring(t, round+1, address, tokens, func() {
			held, failed = gather(round+1, n, address, func(c *client) error { return kind.do(c, address, tokens[1]) })
		})
		rss, opened := residentMB(t, server.pid), time.Since(began)
		then := serveDuring(t, round+1, address, tokens, moment)
		t.Logf("%s: %d connections in %v (%d were closed at once); meanwhile %s; then %s; %d MB resident, %d before", kind.name, len(held), opened.Round(time.Millisecond), failed, served, then, rss, before)
		if rss >= 100 && !raceEnabled {
			t.Errorf("%s: %d MB resident", kind.name, rss)
		}
		for _, c := range held {
			_ = c.Close()
		}
	}
}

// gather opens n connections of user 1, eight at a time, does something with
// each, and keeps them open. failed is how many were closed meanwhile, as they
// should be.
func gather(round, n int, address string, do func(*client) error) (held []*client, failed int) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards held and failed
	for part := range 8 {
		wg.Go(func() {
			for i := part; i < n; i += 8 {
				c, err := tryFrom(round, 1, address)
				if err == nil {
					err = do(c)
				}
				mu.Lock()
				if c != nil {
					held = append(held, c)
				}
				if err != nil {
					failed++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return held, failed
}

// serveDuring asks for credentials as the same and as another user, over
// fresh connections, while hold runs and a moment longer.
func serveDuring(t *testing.T, round int, address string, tokens [3]string, hold func()) string {
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
				began := time.Now()
				c, err := tryFrom(round, user, address)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				_ = c.SetDeadline(began.Add(5 * time.Second))
				_, err = io.WriteString(c, request("GET", credentialsPath, address, withToken(tokens[user])))
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
			if p99 > 2*time.Second { // an idle machine has some 20 ms
				t.Errorf("%s waited %v", name, p99)
			}
		}
	}
	return strings.TrimSuffix(text, "; ")
}

// crowdServer is a server in a process of its own.
type crowdServer struct {
	address string
	pid     int
	tell    func(command string) // see TestCrowdServer
}

// startCrowd starts the test that is the server's process; its first line is
// where it listens.
func startCrowd(t *testing.T, test string) crowdServer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+test+"$", "-test.timeout=3m")
	cmd.Env = append(os.Environ(), "KEYFOB_TEST_CROWD_SERVER=1")
	cmd.Stderr = os.Stderr
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(stdout)
	t.Cleanup(func() {
		_ = stdin.Close()
		_, _ = io.Copy(io.Discard, said)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	line := func() string {
		text, err := said.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(text)
	}
	return crowdServer{line(), cmd.Process.Pid, func(command string) {
		if _, err := fmt.Fprintln(stdin, command); err != nil {
			t.Fatal(err)
		}
		if text := line(); text != command {
			t.Fatalf("%s: %s", command, text)
		}
	}}
}

// TestCrowdServer is the server's process. It obeys the lines that it reads:
// "few" leaves it few files, "fill" opens files until there is none left,
// "free" closes these.
func TestCrowdServer(t *testing.T) {
	if os.Getenv("KEYFOB_TEST_CROWD_SERVER") == "" {
		t.Skip("this is a part of other tests")
	}
	tokens := access.NewTokens([32]byte{1})
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	resolver := peer.NewResolver()
	defer resolver.Close()
	s := NewMetadata(MetadataConfig{
		Listener: l, Profile: "dev", Broker: newBroker(), Facts: testFacts,
		identify: func(c net.Conn) (peer.Caller, error) {
			if _, err := resolver.Of(c); err != nil { // for what it costs
				return peer.Caller{}, err
			}
			return byAddress(c)
		},
		Tokens: func() *access.Tokens { return tokens }, Generation: func(string) uint64 { return 7 },
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	fmt.Println(l.Addr())
	var files []*os.File
	for in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println(in.Text()) {
		switch in.Text() {
		case "few":
			if err := allowFiles(100); err != nil {
				t.Error(err)
			}
		case "fill":
			for {
				f, err := os.Open(os.DevNull)
				if err != nil {
					break
				}
				files = append(files, f)
			}
		case "free":
			for _, f := range files {
				f.Close()
			}
			files = nil
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNoDescriptors: a process that may open no more files closes connections
// that can be spared; when there are none it waits, and serves again
// afterwards.
func TestNoDescriptors(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skipf("%s: needs Linux, for 127.0.0.2", t.Name())
	}
	server := startCrowd(t, "TestCrowdServer")
	ask := func(within time.Duration) error {
		c, err := tryFrom(0, 2, server.address)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(within))
		if _, err := io.WriteString(c, request("PUT", "/latest/api/token", server.address, "X-aws-ec2-metadata-token-ttl-seconds: 60")); err != nil {
			return err
		}
		a, err := c.read("PUT")
		if err == nil && a.status != 200 {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	}
	server.tell("few")
	for range 300 {
		c, err := tryFrom(0, 1, server.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 20 {
		if err := ask(5 * time.Second); err != nil {
			t.Errorf("while another user holds 300 connections of a process with 100 files: %v", err)
		}
	}
	// Files that no connection has: nothing can be spared.
	server.tell("fill")
	for range 50 { // what was accepted before is closed for this
		server.tell("fill")
		if err := ask(100 * time.Millisecond); err != nil {
			break
		}
	}
	server.tell("fill")
	if err := ask(200 * time.Millisecond); err == nil {
		t.Error("served without a file to be had")
	}
	server.tell("free")
	for range 20 {
		if err := ask(5 * time.Second); err != nil {
			t.Errorf("afterwards: %v", err)
		}
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
