package imds

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/peer"
)

// secureCrowd is what containers do that hold connections to a TLS endpoint.
// Each leaves c open.
var secureCrowd = []struct {
	name string
	do   func(c *client, hello []byte, cfg *tls.Config) error
}{
	{"silent", func(*client, []byte, *tls.Config) error { return nil }},
	{"half a hello", func(c *client, hello []byte, _ *tls.Config) error {
		_, err := c.Write(hello[:len(hello)/2])
		return err
	}},
	{"half-open: a hello, and its answer unread", func(c *client, hello []byte, _ *tls.Config) error {
		_, err := c.Write(hello)
		return err
	}},
	{"half-open: a hello, and its answer read", func(c *client, hello []byte, _ *tls.Config) error {
		if _, err := c.Write(hello); err != nil {
			return err
		}
		_, err := c.r.Peek(1)
		return err
	}},
	{"whole handshakes, and no more", func(c *client, _ []byte, cfg *tls.Config) error {
		return tls.Client(c.Conn, cfg).Handshake()
	}},
}

// TestSecureCrowd: one container that holds ten thousand connections to a TLS
// endpoint, in whatever state of the handshake, takes the service neither from
// another container nor from the machine's own users at a plain endpoint.
func TestSecureCrowd(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skipf("%s: needs Linux, for 127.0.0.2 and /proc", t.Name())
	}
	want := 10000
	switch {
	case raceEnabled: // which makes a handshake ten times as dear
		want = 500
	case testing.Short():
		want = 2000
	}
	n := min(want, maxOpenFiles()-200)
	server := startCrowd(t, "TestSecureCrowdServer")
	said := strings.Fields(server.address)
	address, plain, token := said[0], said[1], said[2]
	pemBytes, err := base64.StdEncoding.DecodeString(said[3])
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: secureName}
	cfg.RootCAs.AppendCertsFromPEM(pemBytes)
	hello := clientHello(t)
	var tokens [3]string
	for user := 1; user < 3; user++ {
		c, err := tryFrom(0, user, plain)
		if err != nil {
			t.Fatal(err)
		}
		tokens[user] = c.send(t, "PUT", request("PUT", "/latest/api/token", plain, "X-aws-ec2-metadata-token-ttl-seconds: 21600")).body
		c.Close()
	}
	before := residentMB(t, server.pid)
	during := func(round int, hold func()) string {
		both := make(chan string)
		held := make(chan struct{})
		go func() { both <- secureDuring(t, round, address, token, cfg, func() { <-held }) }()
		own := serveDuring(t, round, plain, tokens, func() { defer close(held); hold() })
		return <-both + "; at the plain endpoint " + own
	}
	moment := func() { time.Sleep(500 * time.Millisecond) }
	t.Logf("alone: %s", during(0, moment))
	for round, kind := range secureCrowd {
		var held []*client
		var failed int
		began := time.Now()
		served := during(round+1, func() {
			held, failed = gather(round+1, n, address, func(c *client) error {
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				return kind.do(c, hello, cfg)
			})
		})
		rss, opened := residentMB(t, server.pid), time.Since(began)
		t.Logf("%s: %d connections in %v (%d were closed at once); meanwhile %s; %d MB resident, %d before", kind.name, len(held), opened.Round(time.Millisecond), failed, served, rss, before)
		if rss >= 100 && !raceEnabled {
			t.Errorf("%s: %d MB resident", kind.name, rss)
		}
		for _, c := range held {
			_ = c.Close()
		}
	}
}

// secureDuring asks for credentials as another container, over fresh
// connections, while hold runs.
func secureDuring(t *testing.T, round int, address, token string, cfg *tls.Config, hold func()) string {
	done := make(chan struct{})
	go func() { defer close(done); hold() }()
	var took []time.Duration
	for {
		select {
		case <-done:
			slices.Sort(took)
			if len(took) == 0 {
				t.Error("another container was not served once")
				return ""
			}
			p99 := took[len(took)*99/100]
			if p99 > 3*time.Second {
				t.Errorf("another container waited %v", p99)
			}
			return fmt.Sprintf("another container %d times, p99 %v", len(took), p99.Round(10*time.Microsecond))
		default:
		}
		began := time.Now()
		c, err := tryFrom(round, 2, address)
		if err != nil {
			t.Errorf("another container: %v", err)
			return ""
		}
		_ = c.SetDeadline(began.Add(5 * time.Second))
		secured := tls.Client(c.Conn, cfg)
		s := &client{secured, bufio.NewReader(secured)}
		_, err = io.WriteString(s, request("GET", "/v1/credentials/dev", secureName, authorization(token)))
		var a answer
		if err == nil {
			a, err = s.read("GET")
		}
		_ = s.Close()
		if err != nil || a.status != 200 {
			t.Errorf("another container got %d, %v, after %v", a.status, err, time.Since(began))
			return ""
		}
		took = append(took, time.Since(began))
		time.Sleep(time.Millisecond)
	}
}

// TestSecureCrowdServer is the server's process: a TLS endpoint for strangers,
// and a plain one of the same daemon.
func TestSecureCrowdServer(t *testing.T) {
	if os.Getenv("KEYFOB_TEST_CROWD_SERVER") == "" {
		t.Skip("this is a part of other tests")
	}
	runtime.GOMAXPROCS(1) // as the daemon does
	resolver := peer.NewResolver()
	defer resolver.Close()
	limits := NewLimits()
	s := newSecure(t, func(c *ContainerConfig) {
		c.Limits, c.AllowUnidentified = limits, true
		c.identify = func(c net.Conn) (peer.Caller, error) {
			if _, err := resolver.Of(c); err != nil { // for what it costs
				return peer.Caller{}, err
			}
			return peer.Caller{}, peer.ErrUnidentified
		}
	})
	tokens := access.NewTokens([32]byte{1})
	plain := metadataServer(t, func(c *MetadataConfig) {
		c.Limits, c.identify = limits, byAddress
		c.Tokens = func() *access.Tokens { return tokens }
	})
	fmt.Println(s.address, plain, s.token, base64.StdEncoding.EncodeToString(s.chain))
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(in.Text())
	}
}
