//go:build linux || darwin

package control

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// listenAsOther is the test program run as another user: it listens on the
// socket and ends with its standard input.
func listenAsOther(socket string) {
	l, err := net.Listen("unix", socket)
	if err == nil {
		err = os.Chmod(socket, 0o777)
	}
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return
	}
	defer l.Close()
	os.Stdout.WriteString("ready\n")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// A socket that somebody else made in our place is told nothing.
func TestServerOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be another user")
	}
	dir, err := os.MkdirTemp("", "control") // not below t.TempDir, which others may not enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "server")
	b, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(program, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "CONTROL_TEST_LISTEN="+socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("cannot be another user here: %v", err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	line := make([]byte, 100)
	n, _ := out.Read(line)
	if string(line[:n]) != "ready\n" {
		t.Fatalf("the server says %q", line[:n])
	}
	if _, err := Dial(t.Context(), socket); !errors.Is(err, ErrNotTrusted) || !strings.Contains(err.Error(), "54321") {
		t.Errorf("Dial: %v", err)
	}
}

func TestSystemOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keyfob")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if got := systemOwner(dir); got != -1 {
		t.Errorf("a directory that all may write to has the owner %d", got)
	}
	if got := systemOwner(filepath.Join(dir, "none")); got != -1 {
		t.Errorf("no directory has the owner %d", got)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/", link); err != nil {
		t.Fatal(err)
	}
	if got := systemOwner(link); got != -1 {
		t.Errorf("a link has the owner %d", got)
	}
}

// A daemon whose queue is full is waited for.
func TestFullQueue(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	var held []*Client
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	full := false
	for range 8 {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		c, err := Dial(ctx, socket)
		cancel()
		if err != nil {
			full = errors.Is(err, context.DeadlineExceeded)
			break
		}
		held = append(held, c)
	}
	if !full {
		t.Skip("this system says no at once, or has a longer queue")
	}
	time.AfterFunc(100*time.Millisecond, func() {
		if conn, _, err := syscall.Accept(fd); err == nil {
			_ = syscall.Close(conn)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := Dial(ctx, socket)
	if err != nil {
		t.Fatalf("after one was accepted: %v", err)
	}
	held = append(held, c)
}
