package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// console is a terminal and what was shown on it.
type console struct {
	t      *testing.T
	master *os.File
	name   string

	mu    sync.Mutex // guards shown
	shown bytes.Buffer
}

func newConsole(t *testing.T) *console {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if cerr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); cerr != nil || err != nil {
		t.Skipf("no terminals here: %v %v", cerr, err)
	}
	c := &console{t: t, master: master, name: fmt.Sprintf("/dev/pts/%d", n)}
	// Held open here as well: one that nobody has open reads as an error.
	keep, err := os.OpenFile(c.name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1024)
		for {
			n, err := master.Read(b)
			c.mu.Lock()
			c.shown.Write(b[:n])
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = keep.Close()
		_ = master.Close()
		<-done
	})
	return c
}

// expect waits for a text and forgets what was shown up to it.
func (c *console) expect(text string) {
	c.t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c.mu.Lock()
		i := bytes.Index(c.shown.Bytes(), []byte(text))
		all := c.shown.String()
		if i >= 0 {
			c.shown.Next(i + len(text))
		}
		c.mu.Unlock()
		if i >= 0 {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("the terminal does not show %q but %q", text, all)
		}
	}
}

func (c *console) typed(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.master, text); err != nil {
		c.t.Fatal(err)
	}
}

// run starts a command with this as its controlling terminal; what it prints
// is not shown on it. wait returns what it left behind.
func (c *console) run(cmd *exec.Cmd) (wait func() result) {
	c.t.Helper()
	tty, err := os.OpenFile(c.name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer tty.Close()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	kill := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	wait = sync.OnceValue(func() result {
		defer kill.Stop()
		_ = cmd.Wait()
		return result{out: out.String(), err: errs.String(), code: cmd.ProcessState.ExitCode()}
	})
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		wait()
	})
	return wait
}

// answer has `keyfob answer` put what waits to a person, who types.
func (w *world) answer(t *testing.T, c *console, id, typed string) result {
	t.Helper()
	args := []string{"answer"}
	if id != "" {
		args = append(args, id)
	}
	wait := c.run(w.command(w.keyfob(), args...))
	c.expect("1 to 4")
	c.typed(typed + "\n")
	return wait()
}

func (w *world) keyfob() string { return strings.TrimSuffix(bin, "/") + "/keyfob" }
