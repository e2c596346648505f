package signin

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// console is a pseudo-terminal and what was shown on it.
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
		t.Skipf("skipped: no terminals here: %v", err)
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
		t.Skipf("skipped: no terminals here: %v %v", cerr, err)
	}
	c := &console{t: t, master: master, name: "/dev/pts/" + strconv.Itoa(n)}
	// Held open: a terminal that nobody has open reads as an error.
	keep, err := os.OpenFile(c.name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("skipped: no terminals here: %v", err)
	}
	// A window that curses can draw in.
	_ = unix.IoctlSetWinsize(int(keep.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
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

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown.String()
}

func (c *console) eventually(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("not in time: %s; the terminal shows %q", what, c.text())
		}
	}
}

func (c *console) expect(text string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("the terminal shows %q", text), func() bool { return strings.Contains(c.text(), text) })
}

func (c *console) typed(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.master, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *console) modes() unix.Termios {
	c.t.Helper()
	tty, err := os.OpenFile(c.name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer tty.Close()
	mode, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		c.t.Fatal(err)
	}
	return *mode
}

func (c *console) echoes() bool { return c.modes().Lflag&unix.ECHO != 0 }

// start runs cmd with the console as its controlling terminal and none of
// its standard streams.
func (c *console) start(cmd *exec.Cmd) (out, errs *bytes.Buffer) {
	c.t.Helper()
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, errs
	c.login(cmd)
	return out, errs
}

// login runs cmd with the console as its controlling terminal, and as its
// standard streams where they are not set.
func (c *console) login(cmd *exec.Cmd) {
	c.t.Helper()
	tty, err := os.OpenFile(c.name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer tty.Close()
	for _, std := range []*io.Writer{&cmd.Stdout, &cmd.Stderr} {
		if *std == nil {
			*std = tty
		}
	}
	if cmd.Stdin == nil {
		cmd.Stdin = tty
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, tty)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 2 + len(cmd.ExtraFiles)}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cmd.Process.Kill() })
}

func ended(cmd *exec.Cmd, out, errs *bytes.Buffer) result {
	kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_ = cmd.Wait()
	return result{code: cmd.ProcessState.ExitCode(), out: out.String(), errs: errs.String()}
}

const terminalQuestion = `{"kind":"mfa","profile":"d\u001b[31mev","serial":"arn:aws:iam::1:mfa/me","error":"the code was refused"}`

func TestTerminal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ typed, value string }{
		"code": {"123 456\n", "123456"}, "nothing": {"\n", "-"}, "Ctrl-D": {"\x04", "-"}, "Ctrl-C": {"12\x03", "-"}, "corrected": {"9\x7f123456\r", "123456"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, c2 := newDesk(t), newConsole(t)
			before := c2.modes()
			cmd := d.command("ask", terminalQuestion)
			out, errs := c2.start(cmd)
			c2.expect("keyfob: the code was refused\r\nkeyfob needs an MFA code for profile d[31mev of arn:aws:iam::1:mfa/me: ")
			c2.eventually("no echo", func() bool { return !c2.echoes() })
			c2.typed(c.typed)
			ended(cmd, out, errs).want(t, exitDone, c.value)
			if strings.Contains(c2.text(), "123") || strings.Contains(c2.text(), "\x1b") {
				t.Errorf("the terminal shows %q", c2.text())
			}
			if c2.modes() != before {
				t.Error("the terminal's modes were changed")
			}
		})
	}
}

// A signal, and the limit, give the terminal back.
func TestTerminalIsGivenBack(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, 0} {
		d, c := newDesk(t), newConsole(t)
		cmd := d.command("ask", strings.Replace(terminalQuestion, "{", `{"timeout_seconds":1,`, 1))
		if sig != 0 {
			cmd = d.command("ask", terminalQuestion)
		}
		out, errs := c.start(cmd)
		c.eventually("no echo", func() bool { return !c.echoes() })
		if sig != 0 {
			_ = cmd.Process.Signal(sig)
		}
		ended(cmd, out, errs).want(t, exitFailed, "")
		if !c.echoes() {
			t.Errorf("%s: the terminal is left without echo", sig)
		}
	}
}

// Stopped and continued, it asks again: the shell has had the terminal
// meanwhile.
func TestTerminalAfterAStop(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("skipped: bash is not installed")
	}
	d, c := newDesk(t), newConsole(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.dir+"/question", []byte(terminalQuestion), 0o600); err != nil {
		t.Fatal(err)
	}
	// The shell is there for its job control.
	cmd := exec.Command("bash", "--norc", "-m", "-c", `"$EXE" ask < question > answer; echo stopped-$?; fg; echo done-$?`)
	cmd.Env, cmd.Dir = append(d.env, "EXE="+exe), d.dir
	c.login(cmd)
	c.eventually("no echo", func() bool { return !c.echoes() })
	c.expect("keyfob needs")
	c.typed("\x1a")
	c.expect("stopped-148")
	c.eventually("the question is asked again", func() bool { return strings.Count(c.text(), "keyfob needs") >= 2 && !c.echoes() })
	c.typed("123456\n")
	c.expect("done-0")
	_ = cmd.Wait()
	if d.file("answer") != `{"value":"123456"}`+"\n" || strings.Contains(c.text(), "123456") {
		t.Errorf("%q %q", d.file("answer"), c.text())
	}
}

// In the background of a terminal nobody is asked: reading would stop us.
func TestTerminalOfAnotherProgram(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("skipped: bash is not installed")
	}
	d, c := newDesk(t), newConsole(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "--norc", "-m", "-c", `echo '{"kind":"mfa"}' > q; "$EXE" ask < q > answer 2> errs & wait %1; echo ended-$?`)
	cmd.Env, cmd.Dir = append(d.env, "EXE="+exe), d.dir
	c.login(cmd)
	c.expect("ended-3")
	_ = cmd.Wait()
	if d.file("answer") != "" || !strings.Contains(d.file("errs"), "nobody can be reached") {
		t.Errorf("%q %q", d.file("answer"), d.file("errs"))
	}
}

// The real pinentry-curses, on the controlling terminal and on one that
// GPG_TTY names.
func TestPinentryCurses(t *testing.T) {
	t.Parallel()
	real, err := exec.LookPath("pinentry-curses")
	if err != nil {
		t.Skip("skipped: pinentry-curses is not installed")
	}
	for name, c := range map[string]struct{ typed, value string }{"code": {"123456\r", "123456"}, "cancel": {"12\t\t\r", "-"}, "nothing": {"\r", "-"}} {
		for _, where := range []string{"own", "GPG_TTY"} {
			t.Run(name+" "+where, func(t *testing.T) {
				t.Parallel()
				d, con := newDesk(t), newConsole(t)
				before := con.modes()
				if err := os.Symlink(real, d.dir+"/bin/pinentry-curses"); err != nil {
					t.Fatal(err)
				}
				cmd := d.command("ask", `{"kind":"mfa","profile":"d_ev%","serial":"arn:aws:iam::1:mfa/me","ways":["pinentry-curses"]}`)
				var out, errs *bytes.Buffer
				if where == "own" {
					out, errs = con.start(cmd)
				} else {
					cmd = d.command("ask", `{"kind":"mfa","profile":"d_ev%","serial":"arn:aws:iam::1:mfa/me"}`)
					cmd.Env = append(cmd.Env, "GPG_TTY="+con.name)
					cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
					out, errs = &bytes.Buffer{}, &bytes.Buffer{}
					cmd.Stdout, cmd.Stderr = out, errs
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = cmd.Process.Kill() })
				}
				con.expect("keyfob needs an MFA code")
				con.expect("Profile: d_ev%")
				con.expect("MFA code:")
				con.eventually("no echo", func() bool { return !con.echoes() })
				con.typed(c.typed)
				ended(cmd, out, errs).want(t, exitDone, c.value)
				if strings.Contains(con.text(), "123456") {
					t.Errorf("the terminal shows %q", con.text())
				}
				if con.modes() != before {
					t.Error("the terminal's modes were changed")
				}
			})
		}
	}
}
