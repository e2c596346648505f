package peer

import (
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

// A service manager's sandbox gives the daemon a mount namespace of its own,
// and its callers stay in that of PID 1. A caller in a third one is in a
// container.
func TestCallersOutsideTheSandbox(t *testing.T) {
	path := os.Getenv("KEYFOB_TEST_SANDBOX")
	if path != "" {
		insideSandbox(t, path)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("KEYFOB_TEST_MACHINE") == "" {
		needRoot(t)
		// A machine of its own: this test is its PID 1.
		cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), "KEYFOB_TEST_MACHINE=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), "--- SKIP") {
			t.Skipf("%s: this machine does not permit it: %v\n%s", t.Name(), err, out)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Skipf("%s: %v", t.Name(), err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Skipf("%s: %v", t.Name(), err)
	}
	dir, err := os.MkdirTemp("", "kf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "s")
	server := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=30s")
	server.Env = append(os.Environ(), "KEYFOB_TEST_SANDBOX="+path)
	server.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	var out strings.Builder
	server.Stdout, server.Stderr = &out, &out
	if err := server.Start(); err != nil {
		t.Skipf("%s: this machine does not permit it: %v", t.Name(), err)
	}
	// One caller from outside, one from a mount namespace of its own; both
	// stay until the server has looked.
	for _, flags := range []uintptr{0, syscall.CLONE_NEWNS} {
		for end := time.Now().Add(10 * time.Second); ; {
			c, err := net.Dial("unix", path)
			if err == nil {
				_ = c.Close()
				break
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		client := exec.Command(self)
		client.Env = []string{"KEYFOB_TEST_DIAL=unix|" + path, "GORACE=atexit_sleep_ms=0"}
		client.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		stdin, err := client.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stdin.Close(); _ = client.Wait() })
		time.Sleep(200 * time.Millisecond) // so that the server sees the callers in this order
	}
	if err := server.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
}

// insideSandbox is the daemon. The probes of the test that only connect and
// leave are nobody by the time they are looked at, or this test's process.
func insideSandbox(t *testing.T, path string) {
	r := resolver(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var verdicts []string
	for range 4 { // probe, caller outside, probe, caller in a container
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got, err := r.Of(c)
		switch {
		case err == nil && got.UID == Self():
			verdicts = append(verdicts, "known")
		case errors.Is(err, ErrUnidentified) && strings.Contains(err.Error(), "mnt namespace"):
			verdicts = append(verdicts, "container")
		default:
			t.Errorf("%+v, %v", got, err)
		}
	}
	if got := strings.Join(verdicts, " "); got != "known known known container" {
		t.Errorf("got %s", got)
	}
}
