//go:build linux || darwin

package signin

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mfaQuestion is a question with names that try to be more than names.
const mfaQuestion = `{"kind":"mfa","profile":"d_ev\u001b[31m<b>%41\\n","serial":"arn:aws:iam::1:mfa/me","text":"MFA code for arn:aws:iam::1:mfa/me"}`

// assuanScript speaks Assuan as a pinentry does; $1 is what it answers to
// GETPIN, as the text of a shell function body.
func assuanScript(getpin string) string {
	return `echo "$*" >> "$DIR/args"
echo "OK Pleased to meet you, process $$"
while IFS= read -r line; do
	printf '%s\n' "$line" >> "$DIR/talk"
	case "$line" in
	"OPTION no-grab"|SETTIMEOUT*) echo "ERR 83886254 Unknown option <Pinentry>" ;;
	GETPIN) ` + getpin + ` ;;
	BYE) echo "OK closing connection"; echo bye >> "$DIR/talk"; exit 0 ;;
	*) echo "# a comment"; echo OK ;;
	esac
done
`
}

func TestPinentry(t *testing.T) {
	t.Parallel()
	type want struct {
		code  int
		value string
	}
	for name, c := range map[string]struct {
		getpin string
		want   want
	}{
		"answers":          {`echo "S PROGRESS x"; printf 'D 12%%33\nD %%20456\n'; echo OK`, want{0, "123456"}},
		"canceled":         {`echo "ERR 83886179 Operation cancelled <Pinentry>"`, want{0, "-"}},
		"fully canceled":   {`echo "ERR 83886278 Operation fully cancelled <Pinentry>"`, want{0, "-"}},
		"not confirmed":    {`echo "ERR 83886194 Not confirmed <Pinentry>"`, want{0, "-"}},
		"nothing typed":    {`echo OK`, want{0, "-"}},
		"no terminal":      {`echo "S ERROR curses.isatty 83918950"; echo "ERR 83918950 canary Inappropriate ioctl"`, want{3, ""}},
		"dies":             {`exit 2`, want{3, ""}},
		"nonsense":         {`echo canary`, want{3, ""}},
		"too much":         {`i=0; while [ $i -lt 10 ]; do printf 'D %0900d\n' 0; i=$((i+1)); done; echo OK`, want{3, ""}},
		"an endless line":  {`printf 'D %010000d' 0; read -r x`, want{3, ""}},
		"asks back":        {`echo "INQUIRE QUALITY 10"; read -r reply; echo "$reply" >> "$DIR/talk"; echo "D 123456"; echo OK`, want{0, "123456"}},
		"says it was late": {`echo "ERR 83886142 Timeout <Pinentry>"`, want{3, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t).display().program("pinentry", assuanScript(c.getpin))
			r := d.run("ask", mfaQuestion)
			r.want(t, c.want.code, c.want.value)
			if strings.Contains(r.errs, "canary") {
				t.Errorf("what the program said is in the error: %q", r.errs)
			}
			talk := d.file("talk")
			for _, line := range []string{"OPTION no-grab\n", "OPTION lc-ctype=C.UTF-8\n", "SETTITLE keyfob\n", "SETPROMPT MFA code:\n", "GETPIN\n",
				"SETDESC keyfob needs an MFA code%0AProfile: d_ev[31m<b>%2541\\n%0ADevice: arn:aws:iam::1:mfa/me\n"} {
				if !strings.Contains(talk, line) {
					t.Errorf("it was not told %q: %q", line, talk)
				}
			}
			if strings.Contains(talk, "ttyname") || strings.Contains(talk, "SETERROR") || strings.Contains(talk, "password-cache") {
				t.Errorf("it was told %q", talk)
			}
			if d.file("args") != "\n" {
				t.Errorf("its arguments are %q", d.file("args"))
			}
			if name == "asks back" && !strings.Contains(talk, "\nCAN\n") || name == "answers" && !strings.HasSuffix(talk, "bye\n") {
				t.Errorf("the talk ended %q", talk)
			}
		})
	}
}

func TestPinentryIsToldWhyItAsksAgain(t *testing.T) {
	t.Parallel()
	d := newDesk(t).display().program("pinentry", assuanScript(`echo "D 1"; echo OK`))
	d.run("ask", `{"kind":"mfa","profile":"`+strings.Repeat("日", 500)+`","serial":"`+strings.Repeat("%", 500)+`","error":"AWS refused\nthe code"}`).want(t, 0, "1")
	talk := d.file("talk")
	if !strings.Contains(talk, "SETERROR AWS refused the code\n") {
		t.Errorf("%q", talk)
	}
	for line := range strings.Lines(talk) {
		if len(line) > assuanLine {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

func TestAssuanEscapes(t *testing.T) {
	for _, s := range []string{"", "plain", "a%b\nc\rd", "100%25", "日本%", string([]byte{0xff, '%'})} {
		if got := string(assuanUnescape([]byte(assuanEscape(s)))); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
	if got := assuanEscape("SETDESC " + strings.Repeat("%", 1000)); len(got) > assuanLine-1 || !strings.HasSuffix(got, "%25") {
		t.Errorf("%d bytes, ends %q", len(got), got[len(got)-5:])
	}
	if got := string(assuanUnescape([]byte("%zz%4"))); got != "%zz%4" {
		t.Errorf("%q", got)
	}
}

// One that hangs before it asks costs five seconds, and the next way is
// tried.
func TestPinentryThatHangs(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{"greeting": "read -r x; exec sleep 60", "options": "echo OK; exec sleep 60"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sleep, err := exec.LookPath("sleep")
			if err != nil {
				t.Fatal(err)
			}
			d := newDesk(t).display().program("pinentry", strings.ReplaceAll(script, "sleep", sleep)).program("zenity", `echo 654321`).set("PINENTRY_PROGRAM=pinentry")
			r := d.run("ask", mfaQuestion)
			r.want(t, 0, "654321")
			if r.took > pinentryStart+3*time.Second {
				t.Errorf("took %s", r.took)
			}
		})
	}
}

// shellEcho writes every argument on a line of its own.
const shellArgs = `for a in "$@"; do printf '%s\n---\n' "$a"; done > "$DIR/args"
`

func TestZenity(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script string
		code   int
		value  string
	}{
		"answers":    {"echo '123 456'", 0, "123456"},
		"closed":     {"exit 1", 0, "-"},
		"empty":      {"echo", 0, "-"},
		"no display": {"echo '(zenity:1): Gtk-WARNING **: cannot open display: :0' >&2; exit 1", 3, ""},
		"late":       {"exit 5", 3, ""},
		"breaks":     {"echo canary; kill -SEGV $$", 3, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t).display().program("zenity", shellArgs+c.script)
			r := d.run("ask", `{"kind":"mfa","profile":"d_ev\u001b\\n<b>","serial":"s","error":"wrong"}`)
			r.want(t, c.code, c.value)
			want := "--entry\n---\n--hide-text\n---\n--title=keyfob\n---\n--text=keyfob needs an MFA code\nProfile: d__ev\\\\n<b>\nDevice: s\nwrong\nMFA code:\n---\n--timeout=600\n---\n"
			if got := d.file("args"); got != want {
				t.Errorf("arguments %q, want %q", got, want)
			}
			if strings.Contains(r.errs, "canary") {
				t.Errorf("%q", r.errs)
			}
		})
	}
}

func TestKdialog(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{"echo 123456": "123456", "exit 1": "-"} {
		d := newDesk(t).display().set("XDG_CURRENT_DESKTOP=KDE").program("kdialog", shellArgs+script).program("zenity", "echo 1").program("pinentry", "exit 1")
		d.run("ask", `{"kind":"mfa","profile":"d\\nev","serial":"s"}`).want(t, 0, want)
		if got := d.file("args"); got != "--title\n---\nkeyfob\n---\n--password\n---\nkeyfob needs an MFA code\nProfile: d\\\\nev\nDevice: s\nMFA code:\n---\n" {
			t.Errorf("arguments %q", got)
		}
	}
	// Qt without a display is aborted.
	d := newDesk(t).display().set("XDG_CURRENT_DESKTOP=KDE").program("kdialog", "kill -ABRT $$").program("zenity", "echo 222222")
	d.run("ask", `{"kind":"mfa","profile":"dev"}`).want(t, 0, "222222")
}

func TestOsascript(t *testing.T) {
	t.Parallel()
	script := shellArgs + `while IFS= read -r l; do printf '%s\n' "$l" >> "$DIR/script"; done
`
	for end, want := range map[string]string{"echo value:123456": "123456", "echo refused": "-", "echo value:": "-"} {
		d := newDesk(t).program("osascript", script+end)
		d.run("ask", `{"kind":"mfa","profile":"a\"b\\","serial":"\" & (do shell script \"x\") & \"","ways":["osascript"]}`).want(t, 0, want)
		if d.file("args") != "-\n---\n" {
			t.Errorf("arguments %q", d.file("args"))
		}
		if !strings.Contains(d.file("script"), `display dialog "keyfob needs an MFA code\nProfile: a\"b\\\nDevice: \" & (do shell script \"x\") & \"\nMFA code:" with title "keyfob" default answer "" with hidden answer`) {
			t.Errorf("script %q", d.file("script"))
		}
	}
	for _, end := range []string{"echo late", "echo 'execution error: No user interaction allowed. (-1713)' >&2; exit 1"} {
		newDesk(t).program("osascript", script+end).run("ask", `{"kind":"mfa","ways":["osascript"]}`).want(t, 3, "")
	}
}

// The person's own pinentry comes first, whatever else is there.
func TestPinentryProgram(t *testing.T) {
	t.Parallel()
	d := newDesk(t).display().program("mine", assuanScript(`echo "D 111111"; echo OK`)).program("zenity", "echo 1")
	d.set("PINENTRY_PROGRAM="+filepath.Join(d.dir, "bin", "mine")).run("ask", mfaQuestion).want(t, 0, "111111")
	d.set("PINENTRY_PROGRAM=/nonexistent").run("ask", mfaQuestion).want(t, 0, "1")
}

// A pinentry that has no window here is no reason not to ask.
func TestRealPinentriesWithoutTheirDesktop(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pinentry-curses", "pinentry-gnome3"} {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Logf("skipped: %s is not installed", name)
			continue
		}
		d := newDesk(t).display().set("PINENTRY_PROGRAM="+real).program("zenity", "echo 123456")
		d.run("ask", mfaQuestion).want(t, 0, "123456")
	}
}

func TestNobodyCanBeAsked(t *testing.T) {
	t.Parallel()
	stale := newDesk(t).set("DISPLAY=:32765", "WAYLAND_DISPLAY=wayland-gone")
	for name, d := range map[string]*desk{
		"no session": newDesk(t), "stale display": stale, "nonsense display": newDesk(t).set("DISPLAY=\x1b[31m"), "no programs": newDesk(t).display(),
		"GPG_TTY is gone": newDesk(t).set("GPG_TTY=/nonexistent"),
	} {
		t.Run(name, func(t *testing.T) {
			if name != "no programs" {
				for _, p := range []string{"zenity", "kdialog"} {
					d.program(p, `echo x > "$DIR/asked"; exit 1`)
				}
				d.program("pinentry", `echo x > "$DIR/asked"; exit 1`)
			}
			cmd := d.command("ask", mfaQuestion)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			_ = cmd.Run()
			result{code: cmd.ProcessState.ExitCode(), out: out.String(), errs: errs.String()}.want(t, exitNobody, "")
			if d.file("asked") != "" && name != "GPG_TTY is gone" {
				t.Error("a program was started")
			}
		})
	}
}

// sleeper is a zenity that stays, and says who it is.
func sleeper(t *testing.T) string {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	return `echo $$ > "$DIR/pid.new"; ` + mustLook(t, "mv") + ` "$DIR/pid.new" "$DIR/pid"; exec ` + sleep + ` 60`
}

func mustLook(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// pid waits for the dialog to be there.
func (d *desk) pid() int {
	d.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if n, err := strconv.Atoi(strings.TrimSpace(d.file("pid"))); err == nil {
			return n
		}
	}
	d.t.Fatal("no dialog came")
	return 0
}

func (d *desk) gone(pid int) {
	d.t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return
		}
		// A test that runs as process 1 has no one to reap for it.
		if b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && strings.Contains(string(b), ") Z ") {
			return
		}
	}
	d.t.Error("the dialog stayed")
}

func TestSignalsEndTheDialog(t *testing.T) {
	t.Parallel()
	for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: exitFailed, syscall.SIGHUP: exitFailed, syscall.SIGINT: exitDone, syscall.SIGKILL: -1} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			d := newDesk(t).display().program("zenity", sleeper(t))
			cmd := d.command("ask", mfaQuestion)
			var out bytes.Buffer
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pid := d.pid()
			begin := time.Now()
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != code || time.Since(begin) > 3*time.Second {
				t.Errorf("exit code %d, want %d, after %s", got, code, time.Since(begin))
			}
			if want := `{"refused":true}` + "\n"; sig == syscall.SIGINT && out.String() != want || sig != syscall.SIGINT && out.Len() > 0 {
				t.Errorf("standard output %q", out.String())
			}
			if sig != syscall.SIGKILL || isLinux {
				d.gone(pid)
			}
		})
	}
}

func TestQuestionHasALimit(t *testing.T) {
	t.Parallel()
	d := newDesk(t).display().program("zenity", sleeper(t))
	r := d.run("ask", `{"kind":"mfa","profile":"dev","timeout_seconds":1}`)
	r.want(t, exitFailed, "")
	if !strings.Contains(r.errs, "nobody answered in 1s") || r.took > 4*time.Second {
		t.Errorf("%q after %s", r.errs, r.took)
	}
	d.gone(d.pid())
}

// What was typed is in no argument list and no environment of any process
// that runs, and on no standard error.
func TestTheAnswerIsSeenByNobody(t *testing.T) {
	t.Parallel()
	const canary = "canary7391"
	release := `while [ ! -e "$DIR/go" ]; do ` + mustLook(t, "sleep") + ` 0.02; done
`
	for name, script := range map[string]string{"zenity": `echo $$ > "$DIR/pid"; read -r v < "$DIR/typed"; echo "$v"; ` + release,
		"pinentry": assuanScript(`echo $$ > "$DIR/pid"; IFS= read -r v < "$DIR/typed"; echo "D $v"; ` + release + ` echo OK`)} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t).display().program(name, script)
			if err := os.WriteFile(filepath.Join(d.dir, "typed"), []byte(canary+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := d.command("ask", `{"kind":"mfa","profile":"dev"}`)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			d.pid()
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			environs, _ := filepath.Glob("/proc/[0-9]*/environ")
			for _, f := range append(files, environs...) {
				if b, _ := os.ReadFile(f); bytes.Contains(b, []byte(canary)) {
					t.Errorf("the answer is in %s", f)
				}
			}
			if err := os.WriteFile(filepath.Join(d.dir, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			result{code: cmd.ProcessState.ExitCode(), out: out.String(), errs: errs.String()}.want(t, 0, canary)
		})
	}
}

// BenchmarkStart measures the start of the real program, beside that of
// true(1).
func BenchmarkStart(b *testing.B) {
	program := filepath.Join(b.TempDir(), "keyfob-signin")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, "keyfob/cmd/keyfob-signin").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
	}{{"true", []string{"/bin/true"}, 0}, {"usage", []string{program}, exitUsage}, {"notify-nobody", []string{program, "notify"}, exitNobody}, {"ask-nobody", []string{program, "ask"}, exitNobody}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				cmd := exec.Command(c.args[0], c.args[1:]...)
				cmd.Env = []string{"DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null"}
				cmd.Stdin = strings.NewReader(`{"title":"x","kind":"mfa"}`)
				cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
				_ = cmd.Run()
				if got := cmd.ProcessState.ExitCode(); got != c.code {
					b.Fatalf("exit code %d", got)
				}
			}
		})
	}
	if st, err := os.Stat(program); err == nil {
		b.ReportMetric(float64(st.Size()), "bytes")
	}
}
