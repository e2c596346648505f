package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the client: with KEYFOB_TEST_DIAL set it connects,
// says so, and stays until its standard input ends.
func TestMain(m *testing.M) {
	if target := os.Getenv("KEYFOB_TEST_DIAL"); target != "" {
		network, address, _ := strings.Cut(target, "|")
		if os.Getenv("KEYFOB_TEST_WAIT") != "" { // for a first byte on standard input
			_, _ = os.Stdin.Read(make([]byte, 1))
		}
		c, err := net.Dial(network, address)
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println("connected")
		if next := os.Getenv("KEYFOB_TEST_EXEC"); next != "" { // becomes this program, with a connection of its own
			_, _ = os.Stdin.Read(make([]byte, 1))
			fmt.Println("error:", syscall.Exec(next, []string{next}, []string{"KEYFOB_TEST_DIAL=" + target}))
			os.Exit(1)
		}
		_, _ = io.Copy(io.Discard, os.Stdin)
		c.Close()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// publicDir is a directory that every user may enter.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keyfob-peer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// publicSelf is a copy of the test binary that every user may run.
func publicSelf(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(publicDir(t), "client")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// client starts a process that connects, and returns it once it has.
func client(t testing.TB, l net.Listener, attr *syscall.SysProcAttr) *exec.Cmd {
	t.Helper()
	cmd, connected := clientLater(t, l, attr)
	connected()
	return cmd
}

// clientLater starts such a process, which waits: connected lets it connect
// and waits until it has.
func clientLater(t testing.TB, l net.Listener, attr *syscall.SysProcAttr) (cmd *exec.Cmd, connected func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if attr != nil && attr.Credential != nil {
		self = publicSelf(t)
	}
	cmd = exec.Command(self)
	cmd.Dir = "/"
	cmd.Env = []string{"KEYFOB_TEST_DIAL=" + l.Addr().Network() + "|" + l.Addr().String(), "KEYFOB_TEST_WAIT=1", "GORACE=atexit_sleep_ms=0"}
	cmd.SysProcAttr = attr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
			t.Skipf("%s: this machine does not permit such a process: %v", t.Name(), err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	return cmd, func() {
		t.Helper()
		if _, err := stdin.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(stdout).ReadString('\n')
		if err != nil || line != "connected\n" {
			t.Fatalf("client: %q, %v", line, err)
		}
	}
}

func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	address := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "dual": "[::]:0"}[network]
	if network == "unix" {
		address = filepath.Join(publicDir(t), "s")
	}
	if network == "dual" {
		network = "tcp"
	}
	l, err := net.Listen(network, address)
	if err != nil {
		if network == "tcp6" || network == "tcp" {
			t.Skipf("%s: no IPv6 here: %v", t.Name(), err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if network == "unix" {
		if err := os.Chmod(address, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func accept(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	type deadliner interface{ SetDeadline(time.Time) error }
	if err := l.(deadliner).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func resolver(t testing.TB) *Resolver {
	r := NewResolver()
	t.Cleanup(func() { r.Close() })
	return r
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("%s: needs root", t.Name())
	}
}

func TestUnixPeer(t *testing.T) {
	l := listen(t, "unix")
	cmd := client(t, l, nil)
	got, err := resolver(t).Of(accept(t, l))
	if err != nil {
		t.Fatal(err)
	}
	self, _ := os.Executable()
	start, err := StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	myStart, _ := StartTime(os.Getpid())
	if got.UID != Self() || got.PID != cmd.Process.Pid || got.Exe != self || got.Via != ViaUnix || got.Start != start {
		t.Errorf("got %+v, want uid %s pid %d exe %s start %d", got, Self(), cmd.Process.Pid, self, start)
	}
	want := Process{PID: os.Getpid(), Start: myStart, Exe: self}
	if got.Parent == nil || *got.Parent != want {
		t.Errorf("parent is %+v, want %+v", got.Parent, want)
	}
	p, err := got.Program(context.Background())
	if err != nil || p != want {
		t.Errorf("Program is %+v, %v; want the parent %+v", p, err, want)
	}
	if !Alive(got.PID, got.Start) || Alive(got.PID, got.Start+1) {
		t.Error("Alive does not judge by start time")
	}
}

func TestUnixPeerThatEndedIsUnidentified(t *testing.T) {
	l := listen(t, "unix")
	cmd := client(t, l, nil)
	c := accept(t, l)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got, err := resolver(t).Of(c); !errors.Is(err, ErrUnidentified) || got != (Caller{}) {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestTCPPeer(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			l := listen(t, network)
			cmd := client(t, l, nil)
			got, err := resolver(t).Of(accept(t, l))
			if err != nil {
				t.Fatal(err)
			}
			if got.UID != Self() || got.Via != ViaTCP || got.PID != 0 || got.Exe != "" {
				t.Errorf("got %+v", got)
			}
			self, _ := os.Executable()
			start, _ := StartTime(cmd.Process.Pid)
			want := Process{PID: cmd.Process.Pid, Start: start, Exe: self}
			for range 2 { // found, then remembered
				if p, err := got.Program(context.Background()); err != nil || p != want {
					t.Errorf("Program is %+v, %v; want %+v", p, err, want)
				}
			}
		})
	}
}

// An IPv4 client of a listener on [::], and an IPv6 socket that connects to
// ::ffff:127.0.0.1, both appear with IPv4 addresses.
func TestTCPPeerMapped(t *testing.T) {
	for _, network := range []string{"dual", "tcp4"} {
		l := listen(t, network)
		port := l.Addr().(*net.TCPAddr).Port
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Skipf("%s: no IPv6 here: %v", t.Name(), err)
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrInet6{Port: port, Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}); err != nil {
			t.Fatal(err)
		}
		got, err := resolver(t).Of(accept(t, l))
		if err != nil || got.UID != Self() {
			t.Errorf("%s: %+v, %v", network, got, err)
		}
	}
}

func TestTCPPeerHalfClosedIsKnownAndClosedIsNot(t *testing.T) {
	l := listen(t, "tcp4")
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server := accept(t, l)
	r := resolver(t)
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := r.Of(server); err != nil || got.UID != Self() {
		t.Errorf("half closed: %+v, %v", got, err)
	}
	c.Close()
	if got, err := r.Of(server); !errors.Is(err, ErrUnidentified) || got.Identified() {
		t.Errorf("closed: %+v, %v", got, err)
	}
	server.Close() // the client's TIME_WAIT remains
	local, _ := addrPort(c.LocalAddr())
	remote, _ := addrPort(c.RemoteAddr())
	if sock, err := r.sys.diag.find(local, remote); !errors.Is(err, ErrUnidentified) {
		t.Errorf("in TIME_WAIT: %+v, %v", sock, err)
	}
}

// A client that is gone must not be taken for whoever listens on its port
// now: the kernel's look-up falls back to listeners.
func TestTCPPeerGoneWhosePortIsListenedOn(t *testing.T) {
	for _, where := range []string{"127.0.0.1", "0.0.0.0"} {
		l := listen(t, "tcp4")
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server := accept(t, l)
		_ = c.(*net.TCPConn).SetLinger(0) // ends without TIME_WAIT
		c.Close()
		port := strconv.Itoa(c.LocalAddr().(*net.TCPAddr).Port)
		lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		}}
		other, err := lc.Listen(context.Background(), "tcp4", net.JoinHostPort(where, port))
		if err != nil {
			t.Skipf("%s: the port is taken: %v", t.Name(), err)
		}
		defer other.Close()
		if got, err := resolver(t).Of(server); !errors.Is(err, ErrUnidentified) || got.Identified() {
			t.Errorf("%s: %+v, %v", where, got, err)
		}
	}
}

func TestAnotherUser(t *testing.T) {
	needRoot(t)
	for _, network := range []string{"unix", "tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			l := listen(t, network)
			cmd := client(t, l, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}})
			got, err := resolver(t).Of(accept(t, l))
			if err != nil || got.UID != "54321" {
				t.Fatalf("%+v, %v", got, err)
			}
			p, err := got.Program(context.Background())
			want := cmd.Process.Pid
			if network == "unix" {
				want = os.Getpid()
			}
			if err != nil || p.PID != want {
				t.Errorf("Program is %+v, %v; want pid %d", p, err, want)
			}
		})
	}
}

func TestOverflowUserIsUnidentified(t *testing.T) {
	needRoot(t)
	for _, network := range []string{"unix", "tcp4"} {
		l := listen(t, network)
		client(t, l, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
		if got, err := resolver(t).Of(accept(t, l)); !errors.Is(err, ErrUnidentified) || got != (Caller{}) {
			t.Errorf("%s: %+v, %v", network, got, err)
		}
	}
}

func TestForeignNamespaceIsUnidentified(t *testing.T) {
	userNS := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	rootless := *userNS // as a rootless container: all three
	rootless.Cloneflags |= syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	for _, test := range []struct {
		name string
		attr *syscall.SysProcAttr
	}{
		{"user", userNS},
		{"pid", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}},
		{"mnt", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}},
		{"rootless container", &rootless},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, network := range []string{"unix", "tcp4"} {
				l := listen(t, network)
				client(t, l, test.attr)
				got, err := resolver(t).Of(accept(t, l))
				if network == "tcp4" {
					// the user alone is known until the process is looked for
					if err != nil || got.UID != Self() {
						t.Errorf("tcp: %+v, %v", got, err)
					}
					if err := got.AtHome(context.Background()); !errors.Is(err, ErrUnidentified) {
						t.Errorf("tcp: at home: %v", err)
					}
					_, err = got.Program(context.Background())
				} else if got != (Caller{}) {
					t.Errorf("%s: got %+v", network, got)
				}
				if !errors.Is(err, ErrUnidentified) {
					t.Errorf("%s: error is %v", network, err)
				}
			}
		})
	}
}

func TestWhatIsNoPeer(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if got, err := Of(a); !errors.Is(err, ErrUnidentified) || got != (Caller{}) {
		t.Errorf("net.Pipe: %+v, %v", got, err)
	}
	if _, err := Of(nil); !errors.Is(err, ErrUnidentified) {
		t.Errorf("nil: %v", err)
	}
	r := resolver(t)
	for _, remote := range []string{"192.0.2.1:1", "127.0.0.1:1", "[2001:db8::1]:1"} {
		local := "127.0.0.1:9"
		if strings.HasPrefix(remote, "[") {
			local = "[::1]:9"
		}
		if _, err := r.sys.diag.find(netip.MustParseAddrPort(remote), netip.MustParseAddrPort(local)); !errors.Is(err, ErrUnidentified) {
			t.Errorf("%s: %v", remote, err)
		}
	}
}

type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

func TestWrappedConnection(t *testing.T) {
	l := listen(t, "tcp4")
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := Of(wrapped{wrapped{accept(t, l)}}); err != nil || got.UID != Self() {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestResolverReopensAndIsShared(t *testing.T) {
	l := listen(t, "tcp4")
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server := accept(t, l)
	r := resolver(t)
	if _, err := r.Of(server); err != nil {
		t.Fatal(err)
	}
	r.sys.diag.mu.Lock()
	null, err := unix.Open("/dev/null", unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	if err := unix.Dup3(null, r.sys.diag.fd, unix.O_CLOEXEC); err != nil { // broken behind its back
		t.Fatal(err)
	}
	r.sys.diag.mu.Unlock()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if got, err := r.Of(server); err != nil || got.UID != Self() {
					t.Errorf("%+v, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Of(server); err != nil {
		t.Errorf("after Close: %v", err)
	}
}

func TestProgramEndsWithItsContextAndSearchesAgain(t *testing.T) {
	l := listen(t, "tcp4")
	client(t, l, nil)
	got, err := resolver(t).Of(accept(t, l))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := got.Program(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := got.Program(context.Background()); err != nil {
		t.Errorf("then: %v", err)
	}
}

func TestProgramOfAnEndedClient(t *testing.T) {
	l := listen(t, "tcp4")
	cmd := client(t, l, nil)
	got, err := resolver(t).Of(accept(t, l))
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if p, err := got.Program(context.Background()); !errors.Is(err, ErrNoProgram) {
		t.Errorf("%+v, %v", p, err)
	}
}
