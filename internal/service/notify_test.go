//go:build unix

package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// manager listens as a service manager does.
func listenAsManager(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "kf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

func heard(t *testing.T, c *net.UnixConn, within time.Duration) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	var b [4096]byte
	n, err := c.Read(b[:])
	if err != nil {
		return ""
	}
	return string(b[:n])
}

func TestNotify(t *testing.T) {
	c := listenAsManager(t)
	t.Setenv("WATCHDOG_USEC", "1000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	n := NewNotifier()
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if os.Getenv(name) != "" {
			t.Errorf("%s is left for programs that the daemon runs", name)
		}
	}
	if !n.Listening() || n.watchdog != time.Second {
		t.Fatalf("%+v", n)
	}
	for want, say := range map[string]func() error{
		"READY=1\nSTATUS=serving":      func() error { return n.Ready("serving") },
		"STATUS=a READY=0 b":           func() error { return n.Status("a\nREADY=0\r\nb") },
		"STOPPING=1\nSTATUS=ending":    n.Stopping,
		"RELOADING=1\nMONOTONIC_USEC=": n.Reloading,
	} {
		if err := say(); err != nil {
			t.Error(err)
		}
		if got := heard(t, c, time.Second); got != want && !(strings.HasSuffix(want, "=") && strings.HasPrefix(got, want)) {
			t.Errorf("heard %q, want %q", got, want)
		} else if rest, ok := strings.CutPrefix(got, "RELOADING=1\nMONOTONIC_USEC="); ok && runtime.GOOS == "linux" {
			if v, err := strconv.ParseInt(rest, 10, 64); err != nil || v <= 0 {
				t.Errorf("MONOTONIC_USEC=%s", rest)
			}
		}
	}
	_ = c.Close()
	if err := n.Status("x"); err == nil {
		t.Error("no error although the manager is gone")
	}
}

func TestNobodyListens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	for _, n := range []*Notifier{nil, NewNotifier()} {
		if n.Listening() || n.Ready("x") != nil || n.Reloading() != nil || n.Stopping() != nil {
			t.Error("something was said")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := n.Watch(ctx, func(context.Context) error { t.Error("asked"); return nil }); err != nil {
			t.Error(err)
		}
	}
}

// TestWatchdogBeatsOnlyWhileHealthy: real time, because the beats go through
// a real socket.
func TestWatchdogBeatsOnlyWhileHealthy(t *testing.T) {
	c := listenAsManager(t)
	t.Setenv("WATCHDOG_USEC", "100000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	n := NewNotifier()
	var mode atomic.Int32 // 0 healthy, 1 sick, 2 hanging
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- n.Watch(ctx, func(ctx context.Context) error {
			switch mode.Load() {
			case 1:
				return errors.New("the vault is gone")
			case 2:
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
	}()
	next := func(want string) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
			if strings.HasPrefix(heard(t, c, time.Second), want) {
				return
			}
		}
		t.Errorf("never heard %q", want)
	}
	next("WATCHDOG=1")
	next("WATCHDOG=1")
	for _, m := range []int32{1, 2} {
		mode.Store(m)
		next("STATUS=not healthy: ")
		for range 3 {
			if got := heard(t, c, 300*time.Millisecond); strings.Contains(got, "WATCHDOG=1") {
				t.Errorf("mode %d: a beat: %q", m, got)
			}
		}
	}
	mode.Store(0)
	next("WATCHDOG=1\nSTATUS=healthy again")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestListenersAreTakenOver starts this program with three descriptors, as a
// service manager does.
func TestListenersAreTakenOver(t *testing.T) {
	if os.Getenv("KEYFOB_TEST_ACTIVATED") != "" {
		takeOver(t)
		return
	}
	dir, err := os.MkdirTemp("", "kf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "c.sock")
	u, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	var files []*os.File
	addrs := []string{path}
	f, err := u.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, f)
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		files, addrs = append(files, f), append(addrs, l.Addr().String())
	}
	bad, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode  string
		files []*os.File
	}{{"good", files}, {"bad", append(files[:1:1], bad)}} {
		// LISTEN_PID must be the program's own number: a shell that becomes it knows it.
		cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, self, "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(c.files)), "LISTEN_FDNAMES=control:endpoint:other",
			"KEYFOB_TEST_ACTIVATED="+c.mode, "KEYFOB_TEST_ADDRS="+strings.Join(addrs, ","))
		cmd.ExtraFiles = c.files
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "--- SKIP") {
			t.Errorf("%s: %v\n%s", c.mode, err, out)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the manager's socket was removed: %v", err)
	}
}

func takeOver(t *testing.T) {
	addrs := strings.Split(os.Getenv("KEYFOB_TEST_ADDRS"), ",")
	in, err := Listeners()
	if os.Getenv("KEYFOB_TEST_ACTIVATED") == "bad" {
		wantError(t, err, "hands over")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("LISTEN_FDS") != "" || os.Getenv("LISTEN_PID") != "" {
		t.Error("the variables are left for programs that the daemon runs")
	}
	if l := in.Control("/elsewhere.sock"); l != nil {
		t.Error("a control socket of another path was taken")
	}
	control := in.Control(addrs[0])
	endpoint := in.TCP(addrs[1])
	if control == nil || endpoint == nil {
		t.Fatalf("not there: %v %v, rest %v", control, endpoint, in.Rest())
	}
	if in.TCP(addrs[1]) != nil || in.TCP("nonsense") != nil {
		t.Error("one was given twice")
	}
	if rest := in.Rest(); len(rest) != 1 || rest[0] != fmt.Sprintf("other (%s)", addrs[2]) {
		t.Errorf("rest: %v", rest)
	}
	for _, l := range []net.Listener{control, endpoint} {
		got := make(chan error, 1)
		go func() {
			c, err := l.Accept()
			if err == nil {
				err = c.Close()
			}
			got <- err
		}()
		c, err := net.DialTimeout(l.Addr().Network(), l.Addr().String(), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS == "linux" && l == control {
			if pid := listenerPID(t, c.(*net.UnixConn)); pid != os.Getpid() {
				t.Errorf("clients see the listener of process %d, not of this one, %d", pid, os.Getpid())
			}
		}
		_ = c.Close()
		if err := <-got; err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	var none *Inherited
	if none.Control("/x") != nil || none.TCP("127.0.0.1:80") != nil || none.Rest() != nil || none.Close() != nil {
		t.Error("nil is not empty")
	}
}
