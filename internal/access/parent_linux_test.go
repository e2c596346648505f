package access

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// A real keyfob is judged by the program that started it, whatever stands
// between that and the AWS client's settings.
func TestRealKeyfobIsJudgedByItsParent(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skipf("%s: needs sh", t.Name())
	}
	if sh, err = filepath.EvalSymlinks(sh); err != nil {
		t.Fatal(err)
	}
	dir := realDir(t)
	keyfob := filepath.Join(dir, "bin", "keyfob")
	if out, err := exec.Command("go", "build", "-o", keyfob, "keyfob/cmd/keyfob").CombinedOutput(); err != nil {
		t.Skipf("%s: cannot build keyfob: %v\n%s", t.Name(), err, out)
	}
	socket := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	resolver := peer.NewResolver()
	defer resolver.Close()
	env := []string{"HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "KEYFOB_SOCKET=" + socket,
		"DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null", "PATH=/usr/bin:/bin", "CI=1"}
	line := keyfob + " credential-process --profile app"
	// start runs the command and returns keyfob as the socket has it.
	start := func(t *testing.T, name string, args ...string) (peer.Caller, *exec.Cmd) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = dir, env
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = l.SetDeadline(time.Now().Add(20 * time.Second))
		go func() { _ = cmd.Wait() }() // an orphan waits for that
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		caller, err := resolver.Of(c)
		if err != nil {
			t.Fatal(err)
		}
		// Before the connection ends: it would start a daemon.
		t.Cleanup(func() { _ = syscall.Kill(caller.PID, syscall.SIGKILL) })
		if caller.Exe != keyfob {
			t.Fatalf("the caller is %+v", caller)
		}
		return caller, cmd
	}
	judge := func(c peer.Caller, program string) error {
		r, err := NewRules(RulesConfig{Owner: peer.Self(), Profiles: []ProfileRule{{Name: "app", AllowPrograms: []Program{{Path: program}}}}})
		if err != nil {
			t.Fatal(err)
		}
		return r.Check(c, "app", cred.Endpoint{Kind: cred.ViaProcess})
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}

	t.Run("started by the client", func(t *testing.T) {
		c, _ := start(t, keyfob, "credential-process", "--profile", "app")
		if c.Parent == nil || c.Parent.PID != os.Getpid() {
			t.Fatalf("parent is %+v", c.Parent)
		}
		if err := judge(c, self); err != nil {
			t.Error(err.(*Denied).Reason)
		}
		for _, other := range []string{sh, keyfob} {
			if err := judge(c, other); !errors.Is(err, cred.ErrDenied) {
				t.Errorf("%s: %v", other, err)
			}
		}
	})
	t.Run("by a shell that becomes it", func(t *testing.T) {
		c, cmd := start(t, sh, "-c", "exec "+line)
		if c.Parent == nil || c.Parent.PID != os.Getpid() || c.PID != cmd.Process.Pid {
			t.Errorf("%+v, parent %+v", c, c.Parent)
		}
		if err := judge(c, self); err != nil {
			t.Error(err.(*Denied).Reason)
		}
	})
	t.Run("by a shell that stays", func(t *testing.T) {
		c, cmd := start(t, sh, "-c", line+"; exit $?")
		if c.Parent == nil || c.Parent.PID != cmd.Process.Pid || c.Parent.Exe != sh {
			t.Errorf("parent is %+v", c.Parent)
		}
		if err := judge(c, sh); err != nil {
			t.Error(err.(*Denied).Reason)
		}
		if err := judge(c, self); !errors.Is(err, cred.ErrDenied) {
			t.Errorf("the shell's parent: %v", err)
		}
	})
	t.Run("by one that has ended", func(t *testing.T) {
		c, cmd := start(t, sh, "-c", "(while [ -e /proc/$$/stat ]; do sleep 0.01; done; exec "+line+") & exit 0")
		if c.Parent != nil && (c.Parent.PID == cmd.Process.Pid || c.Parent.PID == os.Getpid()) {
			t.Errorf("parent is %+v", c.Parent)
		}
		if c.Parent != nil && c.Parent.Exe == sh {
			t.Skipf("%s: orphans go to a shell here", t.Name())
		}
		for _, program := range []string{sh, self} {
			if err := judge(c, program); !errors.Is(err, cred.ErrDenied) {
				t.Errorf("%s: %v", program, err)
			}
		}
	})
	t.Run("by one that has ended, whose number is another's", func(t *testing.T) {
		const last = "/proc/sys/kernel/ns_last_pid"
		if b, err := os.ReadFile(last); err != nil || os.WriteFile(last, b, 0) != nil {
			t.Skipf("%s: numbers can't be chosen here", t.Name())
		}
		// keyfob starts once the file is there.
		flag := filepath.Join(dir, "go")
		cmd := exec.Command(sh, "-c", "(while [ ! -e "+flag+" ]; do sleep 0.01; done; exec "+line+") & exit 0")
		cmd.Dir, cmd.Env = dir, env
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		gone := cmd.Process.Pid
		var heir *exec.Cmd
		for try := 0; heir == nil && try < 50; try++ {
			if err := os.WriteFile(last, []byte(strconv.Itoa(gone-1)), 0); err != nil {
				break
			}
			sleep := exec.Command("sleep", "60")
			if err := sleep.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = sleep.Process.Kill()
				_ = sleep.Wait()
			}()
			if sleep.Process.Pid == gone {
				heir = sleep
			}
		}
		if err := os.WriteFile(flag, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = l.SetDeadline(time.Now().Add(20 * time.Second))
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		c, err := resolver.Of(conn)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = syscall.Kill(c.PID, syscall.SIGKILL) }()
		if heir == nil {
			t.Skipf("%s: other processes took the number each time", t.Name())
		}
		exe, err := os.Readlink("/proc/" + strconv.Itoa(gone) + "/exe")
		if err != nil || c.Parent != nil && c.Parent.PID == gone {
			t.Errorf("parent is %+v, the heir is %s, %v", c.Parent, exe, err)
		}
		if err := judge(c, exe); !errors.Is(err, cred.ErrDenied) || !strings.HasPrefix(exe, "/") {
			t.Errorf("as %s: %v", exe, err)
		}
	})
}
