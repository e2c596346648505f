package cli

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// console is a terminal with a session of its own and what was shown on it.
type console struct {
	t      *testing.T
	master *os.File
	keep   *os.File
	name   string
	done   chan struct{}

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
	if err := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	c := &console{t: t, master: master, name: fmt.Sprintf("/dev/pts/%d", n), done: make(chan struct{})}
	// Held open by us as well: a terminal that nobody has open reads as an
	// error between two programs.
	keep, err := os.OpenFile(c.name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	c.keep = keep
	go func() {
		defer close(c.done)
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
		<-c.done
	})
	return c
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown.String()
}

func (c *console) expect(text string) {
	c.t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(c.text(), text); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("the terminal does not show %q but %q", text, c.text())
		}
	}
}

func (c *console) typed(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.master, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *console) echoes() bool {
	tty, err := os.OpenFile(c.name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer tty.Close()
	mode, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		c.t.Fatal(err)
	}
	return mode.Lflag&unix.ECHO != 0
}

// start runs cmd with the console as its controlling terminal, and as its
// standard streams where those are not set.
func (c *console) start(cmd *exec.Cmd) {
	c.t.Helper()
	tty, err := os.OpenFile(c.name, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer tty.Close()
	if cmd.Stdin == nil {
		cmd.Stdin = tty
	}
	if cmd.Stdout == nil {
		cmd.Stdout = tty
	}
	if cmd.Stderr == nil {
		cmd.Stderr = tty
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, tty)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 2 + len(cmd.ExtraFiles)}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cmd.Process.Kill() })
}

func exitCode(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_ = cmd.Wait()
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return -int(s.Signal())
	}
	return cmd.ProcessState.ExitCode()
}

func TestAddAsks(t *testing.T) {
	h, c := newHome(t), newConsole(t)
	h.set("mode", "unlocked")
	var out bytes.Buffer
	cmd := h.command("add", "a")
	cmd.Stdout = &out // a pipe
	c.start(cmd)
	c.expect("AWS access key ID for a: ")
	c.typed("AKIAEXAMPLE\n")
	c.expect("AWS secret access key: ")
	c.typed("canary/SECRET\n")
	if code := exitCode(t, cmd); code != 0 {
		t.Fatalf("exit code %d: %s", code, c.text())
	}
	if !strings.Contains(h.read("asked"), `"access_key_id":"AKIAEXAMPLE","secret_access_key":"canary/SECRET"`) {
		t.Errorf("the daemon was asked %s", h.read("asked"))
	}
	if strings.Contains(c.text(), "canary") || !strings.Contains(c.text(), "AKIAEXAMPLE") {
		t.Errorf("the terminal shows %q", c.text())
	}
	if !strings.HasPrefix(out.String(), "added a") || !c.echoes() {
		t.Errorf("output %q, terminal echoes: %v", out.String(), c.echoes())
	}
}

// Nobody types a secret for a vault that would not take it.
func TestAddAsksNotInVain(t *testing.T) {
	for _, one := range []struct {
		mode, profile string
		code          int
		says          string
	}{
		{"", "a", 3, "keyfob: cannot add the keys: the vault is locked: it is locked\r\nhint: keyfob unlock"},
		{"no-keyring", "a", 3, "keyfob: cannot add the keys: the vault is locked: no keyring answers\r\nhint: keyfob stop; keyfob unlock --keystore passphrase"},
		{"unlocked", "prod", 1, "keyfob: cannot add the keys: profile prod has keys in the vault already"},
	} {
		h, c := newHome(t), newConsole(t)
		h.set("mode", one.mode)
		cmd := h.command("add", one.profile)
		c.start(cmd)
		if code := exitCode(t, cmd); code != one.code {
			t.Errorf("%s: exit code %d", one.profile, code)
		}
		c.expect(one.says)
		if strings.Contains(c.text(), "access key ID") || strings.Contains(h.read("asked"), "add ") {
			t.Errorf("%s: the terminal shows %q", one.profile, c.text())
		}
	}
}

// The program behind credential-process has standard input and output: the
// question goes to the terminal.
func TestCredentialProcessAsksOnTheTerminal(t *testing.T) {
	for name, args := range map[string][]string{"quick": {"credential-process", "mfa"}, "slow": {"credential-process", "mfa", "--interactive", "auto"}} {
		t.Run(name, func(t *testing.T) {
			h, c := newHome(t), newConsole(t)
			if name == "quick" { // it needs a daemon that runs
				if out, err := h.command("status").CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			var out, errs bytes.Buffer
			cmd := h.command(args...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("999999\n"), &out, &errs
			c.start(cmd)
			c.expect("MFA code for arn:aws:iam::1:mfa/u: ")
			c.typed("123456\n")
			if code := exitCode(t, cmd); code != 0 || !strings.HasPrefix(out.String(), `{"Version":1,`) || errs.Len() > 0 {
				t.Fatalf("exit code %d, %q, %q", code, out.String(), errs.String())
			}
			if strings.Contains(c.text(), "123456") || !c.echoes() {
				t.Errorf("the terminal shows %q, echoes: %v", c.text(), c.echoes())
			}
		})
	}
}

// In CI, and where interactive says never, nobody is asked.
func TestNobodyIsAsked(t *testing.T) {
	h, c := newHome(t), newConsole(t)
	for _, cmd := range []*exec.Cmd{h.command("credential-process", "mfa"), h.command("exec", "mfa", "--", "true"), h.command("env", "mfa", "--interactive=never")} {
		if !strings.Contains(strings.Join(cmd.Args, " "), "never") {
			cmd.Env = append(cmd.Env, "CI=true")
		}
		var errs bytes.Buffer
		cmd.Stderr = &errs
		c.start(cmd)
		if code := exitCode(t, cmd); code != 3 || !strings.Contains(errs.String(), "hint: keyfob login mfa") {
			t.Errorf("%v: exit code %d, %q", cmd.Args[1:], code, errs.String())
		}
	}
}

// What is no code is asked again, three times in all; nothing was sent.
func TestMistypedCode(t *testing.T) {
	h, c := newHome(t), newConsole(t)
	cmd := h.command("login", "mfa")
	c.start(cmd)
	for i, text := range []string{"12\n", "12345x\n", "123456\n"} {
		h.eventually("the question is asked", func() bool { return strings.Count(c.text(), "MFA code for ") > i && !c.echoes() })
		c.typed(text)
	}
	if code := exitCode(t, cmd); code != 0 || strings.Count(c.text(), "keyfob: a code has six digits") != 2 {
		t.Errorf("exit code %d, %q", code, c.text())
	}
}

func TestInterruptedQuestion(t *testing.T) {
	h, c := newHome(t), newConsole(t)
	cmd := h.command("login", "mfa")
	c.start(cmd)
	c.expect("MFA code for ")
	h.eventually("the terminal stops echoing", func() bool { return !c.echoes() })
	c.typed("12\x03") // Ctrl-C
	if code := exitCode(t, cmd); code != -int(syscall.SIGINT) {
		t.Errorf("exit code %d", code)
	}
	if !c.echoes() {
		t.Error("the terminal is left without echo")
	}
	h.eventually("the daemon sees that nobody answers any more", func() bool { return strings.Contains(h.read("asked"), "prompt left") })
}

// Ctrl-Z gives the terminal back, and the question is asked again.
func TestStoppedQuestion(t *testing.T) {
	h, c := newHome(t), newConsole(t)
	// The shell is there for its job control.
	cmd := exec.Command("bash", "--norc", "-m", "-c", "keyfob login mfa; echo stopped-$?; fg; echo done-$?")
	cmd.Env = append(h.env, "PS1=", "BASH_SILENCE_DEPRECATION_WARNING=1")
	cmd.Dir = h.dir
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash here")
	}
	c.start(cmd)
	c.expect("MFA code for ")
	h.eventually("the terminal stops echoing", func() bool { return !c.echoes() })
	c.typed("\x1a")
	c.expect("stopped-148")
	h.eventually("the question is asked again", func() bool { return strings.Count(c.text(), "MFA code for ") >= 2 })
	c.typed("123456\n")
	c.expect("done-0")
	if code := exitCode(t, cmd); code != 0 || strings.Contains(c.text(), "123456") {
		t.Errorf("exit code %d, %q", code, c.text())
	}
}

func TestEmptyAnswerRefuses(t *testing.T) {
	h, c := newHome(t), newConsole(t)
	cmd := h.command("login", "mfa")
	c.start(cmd)
	c.expect("MFA code for ")
	c.typed("\n")
	if code := exitCode(t, cmd); code != 3 {
		t.Errorf("exit code %d: %s", code, c.text())
	}
}

func TestRemoveAsks(t *testing.T) {
	for answer, code := range map[string]int{"y\n": 0, "YES\n": 0, "n\n": 1, "\n": 1} {
		h, c := newHome(t), newConsole(t)
		cmd := h.command("remove", "a")
		c.start(cmd)
		c.expect("[y/N] ")
		c.typed(answer)
		if got := exitCode(t, cmd); got != code || strings.Contains(h.read("asked"), "remove ") != (code == 0) {
			t.Errorf("%q: exit code %d, asked %q", answer, got, h.read("asked"))
		}
	}
}

func TestUnlockAsks(t *testing.T) {
	h, c := newHome(t), newConsole(t)
	h.set("mode", "passphrase")
	cmd := h.command("unlock")
	c.start(cmd)
	c.expect("Passphrase of keyfob's vault: ")
	c.typed("open sesame\n")
	if code := exitCode(t, cmd); code != 0 || strings.Contains(c.text(), "sesame") {
		t.Errorf("exit code %d: %s", code, c.text())
	}
}

// Signals that are sent to keyfob alone are passed on, and the grant is
// revoked after them too.
func TestExecPassesSignalsOn(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1} {
		h := newHome(t)
		cmd := h.command("exec", "a", "--", "sh", "-c", fmt.Sprintf(`trap 'exit %d' %d; echo up; while :; do sleep 0.05; done`, 40+int(sig), int(sig)))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if code := exitCode(t, cmd); code != 40+int(sig) {
			t.Errorf("%s: exit code %d", sig, code)
		}
		if !strings.Contains(h.read("asked"), "grant-remove ") {
			t.Errorf("%s: the grant was not revoked: %s", sig, h.read("asked"))
		}
		if left, _ := filepath.Glob(filepath.Join(h.data, "exec", "*")); len(left) > 0 {
			t.Errorf("%s: %v was left", sig, left)
		}
	}
}

// The terminal's own signals reach the program once, and job control works
// as if keyfob were not there.
func TestExecJobControl(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash here")
	}
	h, c := newHome(t), newConsole(t)
	cmd := exec.Command("bash", "--norc", "-m", "-c", "keyfob exec a -- sigcount; echo stopped-$?; fg; echo done-$?")
	cmd.Env = h.env
	cmd.Dir = h.dir
	c.start(cmd)
	c.expect("up")
	c.typed("\x03")
	c.expect("int-1")
	c.typed("\x1a")
	c.expect("stopped-148")
	time.Sleep(100 * time.Millisecond) // a stale stop signal would come about now
	c.typed("\x03")
	c.expect("int-2")
	time.Sleep(50 * time.Millisecond)
	if strings.Contains(c.text(), "int-3") {
		t.Errorf("one Ctrl-C came twice: %q", c.text())
	}
	c.typed("\x1a")
	h.eventually("it stops again", func() bool { return strings.Contains(c.text(), "done-148") })
	_ = cmd.Wait()
}

// A program that stops itself stops the job; continuing the job continues it.
func TestExecProgramStopsItself(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash here")
	}
	h, c := newHome(t), newConsole(t)
	cmd := exec.Command("bash", "--norc", "-m", "-c", `keyfob exec a -- sh -c 'echo up; kill -STOP $$; echo on; exit 6'; echo stopped-$?; fg; echo done-$?`)
	cmd.Env = h.env
	cmd.Dir = h.dir
	c.start(cmd)
	c.expect("stopped-1")
	c.expect("done-6")
	if code := exitCode(t, cmd); code != 0 {
		t.Errorf("exit code %d: %q", code, c.text())
	}
}

// Without job control nobody would continue us: a program that somebody has
// stopped stays stopped, and keyfob waits.
func TestExecStoppedProgramWithoutTerminal(t *testing.T) {
	h := newHome(t)
	cmd := h.command("exec", "a", "--", "sh", "-c", `echo $$; while [ ! -e go ]; do sleep 0.02; done; exit 4`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * settle)
	if !isStopped(pid) || isStopped(cmd.Process.Pid) {
		t.Errorf("the program is stopped: %v, keyfob: %v", isStopped(pid), isStopped(cmd.Process.Pid))
	}
	_ = syscall.Kill(pid, syscall.SIGCONT)
	if err := os.WriteFile(filepath.Join(h.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd); code != 4 {
		t.Errorf("exit code %d", code)
	}
}

// What a killed keyfob left is removed by the next one.
func TestExecSweeps(t *testing.T) {
	h := newHome(t)
	stale := filepath.Join(h.data, "exec", "run-1")
	fresh := filepath.Join(h.data, "exec", "run-2")
	for _, dir := range []string{stale, fresh} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(stale, old, old); err != nil {
		t.Fatal(err)
	}
	used, err := makePrivateFiles(filepath.Join(h.data, "exec"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer used.remove()
	if err := os.Chtimes(used.dir, old, old); err != nil {
		t.Fatal(err)
	}
	if out, err := h.command("exec", "a", "--", "true").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for dir, want := range map[string]bool{stale: false, fresh: true, used.dir: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// A keyfob that is killed leaves its directory to the very next one.
func TestExecSweepsAfterAKill(t *testing.T) {
	h := newHome(t)
	cmd := h.command("exec", "a", "--", "sh", "-c", "echo up; for i in $(seq 500); do [ -e over ] && exit; sleep 0.02; done")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	runs := func() []string {
		found, _ := filepath.Glob(filepath.Join(h.data, "exec", "run-*"))
		return found
	}
	if out, err := h.command("exec", "a", "--", "true").CombinedOutput(); err != nil || len(runs()) != 1 {
		t.Fatalf("beside a running one: %v, %s, %v", err, out, runs())
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if len(runs()) != 1 {
		t.Fatalf("the killed one has left %v", runs())
	}
	if out, err := h.command("exec", "a", "--", "true").CombinedOutput(); err != nil || len(runs()) != 0 {
		t.Errorf("%v, %s, %v", err, out, runs())
	}
	h.finish("over")
}

// A daemon that exec started and that ends while the program runs leaves no
// zombie behind.
func TestExecCollectsTheDaemon(t *testing.T) {
	h := newHome(t)
	cmd := h.command("exec", "a", "--", "sh", "-c", `pid=$(cat `+h.data+`/started); keyfob stop >/dev/null; for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /proc/$pid ] || exit 0; sleep 0.1; done; cat /proc/$pid/status; exit 9`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// finish lets a program of the test end.
func (h *home) finish(file string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, file), nil, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// A person's yes: by number, name or letters, and no by default, at the
// terminal of whoever runs the program that runs us.
func TestConfirm(t *testing.T) {
	for typed, want := range map[string]string{
		"1\n": "once", "h\n": "hour", "Always\n": "always", "4\n": "no", "y\n": "once", "n\n": "no", "\n": "no", "maybe\no\n": "once", "7\n2\n": "hour",
	} {
		h, c := newHome(t), newConsole(t)
		var out, errs bytes.Buffer
		cmd := h.command("credential-process", "p-confirm")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("always\n"), &out, &errs
		c.start(cmd)
		c.expect("keyfob: a program wants the credentials of p-confirm\r\n  /usr/bin/terraform\r\n  1  once: yes, this time\r\n")
		for i, line := range strings.SplitAfter(strings.TrimSuffix(typed, "\n"), "\n") {
			if i > 0 {
				c.expect("that is none of them")
			}
			c.typed(strings.TrimSuffix(line, "\n") + "\n")
		}
		code := exitCode(t, cmd)
		if got := strings.TrimSpace(h.read("answers")); got != "i-confirm value="+want+" refused=false" {
			t.Errorf("%q: the daemon was answered %q, want %s", typed, got, want)
		}
		if wantCode := map[bool]int{true: 3, false: 0}[want == "no"]; code != wantCode || (out.Len() > 0) != (code == 0) {
			t.Errorf("%q: exit code %d, output %q, %q", typed, code, out.String(), errs.String())
		}
	}
}

func TestChoice(t *testing.T) {
	for typed, want := range map[string]string{
		"2\n": "value=arn:aws:iam::1:role/ReadOnly refused=false", "o\n": "value=other refused=false", "\n": "value= refused=true",
		"arn:aws:iam::1:role/a\n": "value=arn:aws:iam::1:role/Admin refused=false", "arn\n\n": "value= refused=true",
	} {
		h, c := newHome(t), newConsole(t)
		cmd := h.command("login", "p-choice")
		c.start(cmd)
		c.expect("keyfob: Which role?\r\n  1  arn:aws:iam::1:role/Admin\r\n")
		c.typed(typed)
		_ = exitCode(t, cmd)
		if got := strings.TrimSpace(h.read("answers")); got != "i-choice "+want {
			t.Errorf("%q: the daemon was answered %q, want %s", typed, got, want)
		}
	}
}

// Under credential-process, whose caller has the streams, what the person
// must see is on the terminal; and the prompt goes when the sign-in is done.
func TestCredentialProcessSignsIn(t *testing.T) {
	t.Run("browser", func(t *testing.T) {
		h, c := newHome(t), newConsole(t)
		var out, errs bytes.Buffer
		cmd := h.command("credential-process", "p-browser")
		cmd.Env = append(cmd.Env, "BROWSER=opener", "DATA="+h.data)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(""), &out, &errs
		c.start(cmd)
		c.expect("https://signin.example/authorize?client=1&state=2\r\n")
		if code := exitCode(t, cmd); code != 0 || !strings.HasPrefix(out.String(), `{"Version":1,`) || errs.Len() > 0 {
			t.Fatalf("exit code %d, %q, %q", code, out.String(), errs.String())
		}
	})
	t.Run("device", func(t *testing.T) {
		h, c := newHome(t), newConsole(t)
		var out, errs bytes.Buffer
		cmd := h.command("credential-process", "p-browser")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(""), &out, &errs
		c.start(cmd)
		c.expect("ABCD-EFGH")
		h.set("come", "")
		if code := exitCode(t, cmd); code != 0 || errs.Len() > 0 {
			t.Fatalf("exit code %d, %q, %q", code, out.String(), errs.String())
		}
	})
	t.Run("code", func(t *testing.T) {
		h, c := newHome(t), newConsole(t)
		cmd := h.command("login", "p-code", "--remote")
		c.start(cmd)
		c.expect("and give the code that the page shows: ")
		h.eventually("the terminal stops echoing", func() bool { return !c.echoes() })
		c.typed("se cret\n")
		if code := exitCode(t, cmd); code != 0 || strings.Contains(c.text(), "se cret") {
			t.Fatalf("exit code %d, %q", code, c.text())
		}
		if !strings.Contains(h.read("answers"), "value=se cret ") {
			t.Errorf("the daemon was answered %q", h.read("answers"))
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		h, c := newHome(t), newConsole(t)
		cmd := h.command("login", "p-device")
		c.start(cmd)
		c.expect("ABCD-EFGH")
		c.typed("\x03")
		if code := exitCode(t, cmd); code != -int(syscall.SIGINT) {
			t.Errorf("exit code %d", code)
		}
		h.eventually("the daemon sees it", func() bool { return strings.Contains(h.read("answers"), "left") })
	})
}

// Without a terminal but on a desktop, dialogs ask.
func TestDialog(t *testing.T) {
	for profile, one := range map[string]struct{ answer, got, asked string }{
		"mfa":       {`{"value":"123456"}`, "", `ask {"kind":"mfa","profile":"mfa","serial":"arn:aws:iam::1:mfa/u","text":"MFA code for arn:aws:iam::1:mfa/u","timeout_seconds":6`},
		"p-confirm": {`{"value":"hour"}`, "i-confirm value=hour refused=false", `"text":"a program wants the credentials of p-confirm`},
		"p-choice":  {`{"refused":true}`, "i-choice value= refused=true", `"choices":["arn:aws:iam::1:role/Admin",`},
	} {
		h := newHome(t)
		desk := filepath.Join(h.dir, "wayland-0")
		l, err := net.Listen("unix", desk)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(h.dir, "answer"), []byte(one.answer), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := h.command("credential-process", profile)
		cmd.Env = append(cmd.Env, "WAYLAND_DISPLAY="+desk, "SIGNIN="+h.dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
		out, err := cmd.Output()
		asked, _ := os.ReadFile(filepath.Join(h.dir, "asked"))
		if !strings.Contains(string(asked), one.asked) || strings.TrimSpace(h.read("answers")) != one.got {
			t.Errorf("%s: %v, %s; asked %s, answered %s", profile, err, out, asked, h.read("answers"))
		}
		// The display is gone, and only its variable is left.
		_ = l.Close()
		cmd = h.command("credential-process", profile)
		cmd.Env = append(cmd.Env, "WAYLAND_DISPLAY="+desk, "DISPLAY=:4711", "SIGNIN="+h.dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Run(); cmd.ProcessState.ExitCode() != 3 {
			t.Errorf("%s: without a display: %v", profile, err)
		}
	}
}
