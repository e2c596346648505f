package service

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func openAndHandOver(t *testing.T, l *linkLocal, all []netip.Addr) {
	if err := l.up(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	var listeners []*net.TCPListener
	for _, a := range all {
		tcp, err := net.Listen("tcp", netip.AddrPortFrom(a, metadataPort).String())
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		listeners = append(listeners, tcp.(*net.TCPListener))
	}
	dir := filepath.Join("/run", "keyfob-test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	u, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- handOver(ctx, u.(*net.UnixListener), listeners, uint32(os.Getuid())) }()
	for i, a := range all {
		at := netip.AddrPortFrom(a, metadataPort)
		got, err := askHandOver(path, at)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := got.(*net.TCPListener); !ok {
			t.Errorf("the daemon gets a %T, which it can't take over from one endpoint to another", got)
		}
		_ = listeners[i].Close() // what was handed over lives on
		accepted := make(chan error, 1)
		go func() {
			c, err := got.Accept()
			if err == nil {
				_ = c.Close()
			}
			accepted <- err
		}()
		c, err := net.DialTimeout("tcp", at.String(), 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if err := <-accepted; err != nil {
			t.Error(err)
		}
		_ = got.Close()
	}
	if l, err := askHandOver(path, netip.MustParseAddrPort("169.254.170.2:80")); err == nil {
		t.Errorf("another address was handed over: %s", l.Addr())
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// A way that others may write is no way to root's socket.
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := askHandOver(path, netip.AddrPortFrom(all[0], metadataPort)); err == nil || !strings.Contains(err.Error(), "root's alone") {
		t.Errorf("a socket in a directory of all was believed: %v", err)
	}
}

func TestHandOverIsForOneUser(t *testing.T) {
	for _, c := range []struct {
		caller, user uint32
		want         bool
	}{{1000, 1000, true}, {0, 1000, true}, {1001, 1000, false}, {65534, 1000, false}} {
		if mayHandOver(c.caller, c.user) != c.want {
			t.Errorf("%+v", c)
		}
	}
	dir := t.TempDir()
	u, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if os.Getuid() == 0 {
		t.Skip("root gets it in any case; packaging/test tries it with two users")
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- handOver(ctx, u.(*net.UnixListener), nil, uint32(os.Getuid())+1) }()
	c, err := net.Dial("unix", u.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 8)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "-" {
		t.Errorf("%q, %v", b[:n], err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
