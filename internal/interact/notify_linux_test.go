package interact

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"keyfob/internal/cred"
	"keyfob/keystore/keystoretest"
)

// script is a keyfob-signin of the test: a shell script in a directory of
// its own, whose name it knows as $DIR.
func script(t *testing.T, text string) (program, dir string) {
	t.Helper()
	dir = t.TempDir()
	program = filepath.Join(dir, SigninName)
	if err := os.WriteFile(program, []byte("#!/bin/sh\nDIR='"+dir+"'\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return program, dir
}

func contents(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// alive reports whether a process runs; one that waits to be reaped does not.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestNotifyRunsTheProgram(t *testing.T) {
	program, dir := script(t, `cat >> "$DIR/in"; printf '%s %s %s\n' "$*" "$PWD" "$(ps -o pgid= -p $$ | tr -d ' ')" > "$DIR/args"; env > "$DIR/env"; echo $$ > "$DIR/pid"; sleep 0.3; echo x > "$DIR/done"`)
	h, log := newHeard()
	n := NewNotifier(NotifierConfig{Program: program, Environ: append(os.Environ(), "AWS_SECRET_ACCESS_KEY=canary", "DISPLAY=:7"), Log: log})
	n.Notify("The session of dev ends", "keyfob login dev")
	eventually(t, "it runs", func() bool { return contents(t, dir+"/pid") != "" })
	n.Close(t.Context())
	if contents(t, dir+"/done") == "" {
		t.Error("Close did not wait for what is being shown")
	}
	if got := contents(t, dir+"/in"); got != `{"title":"The session of dev ends","body":"keyfob login dev"}` {
		t.Errorf("standard input %q", got)
	}
	if got, pid := contents(t, dir+"/args"), strings.TrimSpace(contents(t, dir+"/pid")); got != "notify / "+pid+"\n" {
		t.Errorf("arguments, directory and process group: %q; process %s", got, pid)
	}
	if env := contents(t, dir+"/env"); strings.Contains(env, "canary") || !strings.Contains(env, "DISPLAY=:7\n") {
		t.Errorf("environment %q", env)
	}
	if len(h.all()) != 0 {
		t.Errorf("log %q", h.all())
	}
}

// Many at once: never more than two programs, nobody waits, and what is too
// much is dropped.
func TestNotifyNeverBlocks(t *testing.T) {
	program, dir := script(t, `: > "$DIR/run.$$"; set -- "$DIR"/run.*; echo $# >> "$DIR/count"; sleep 0.05; rm "$DIR/run.$$"`)
	h, log := newHeard()
	n := NewNotifier(NotifierConfig{Program: program, Log: log})
	begin := time.Now()
	for i := range 100 {
		n.Notify("a", strconv.Itoa(i))
	}
	if took := time.Since(begin); took > 100*time.Millisecond {
		t.Errorf("100 calls took %s", took)
	}
	eventually(t, "all have run", func() bool { return strings.Count(contents(t, dir+"/count"), "\n") == notifyAtOnce+notifyWaiting })
	n.Close(t.Context())
	if counts := contents(t, dir+"/count"); strings.Trim(counts, "12\n") != "" || !strings.Contains(counts, "2") {
		t.Errorf("programs at once: %q", counts)
	}
	if dropped := h.all(); len(dropped) != 100-notifyAtOnce-notifyWaiting || !strings.Contains(dropped[0], "dropped") {
		t.Errorf("%d dropped: %q", len(dropped), dropped[0])
	}
}

func TestNotifyFailures(t *testing.T) {
	for text, want := range map[string]string{
		"exit 3": "debug: a notification was not shown: nobody is there to see it: keyfob-signin ended with exit code 3",
		"exit 1": "warning: a notification was not shown: keyfob-signin ended with exit code 1",
		"echo 'keyfob-signin: cannot notify: no room' >&2; echo more >&2; exit 1": "warning: a notification was not shown: cannot notify: no room",
		"sleep 60": "warning: a notification was not shown: it did not end in 300ms",
	} {
		program, _ := script(t, text)
		h, log := newHeard()
		n := NewNotifier(NotifierConfig{Program: program, Limit: 300 * time.Millisecond, Log: log})
		n.Notify("a", "b")
		eventually(t, "a line in the log", func() bool { return len(h.all()) == 1 })
		n.Close(t.Context())
		if got := h.all(); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}

// At its limit, and when Close gives up, the program goes with all that it
// has started.
func TestNotifyLeavesNothing(t *testing.T) {
	for _, by := range []string{"limit", "close"} {
		program, dir := script(t, `sleep 60 & echo $$ $! > "$DIR/pids.new"; mv "$DIR/pids.new" "$DIR/pids"; wait`)
		limit := time.Minute
		if by == "limit" {
			limit = 500 * time.Millisecond
		}
		h, log := newHeard()
		n := NewNotifier(NotifierConfig{Program: program, Limit: limit, Log: log})
		n.Notify("a", "b")
		n.Notify("a", "waits")
		n.Notify("a", "waits too")
		var one, two int
		eventually(t, "it runs", func() bool {
			_, err := fmt.Sscan(contents(t, dir+"/pids"), &one, &two)
			return err == nil
		})
		if by == "limit" {
			eventually(t, "they are given up", func() bool { return len(h.all()) == 3 })
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		begin := time.Now()
		n.Close(ctx)
		cancel()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("Close took %s", took)
		}
		eventually(t, "no process is left", func() bool { return !alive(one) && !alive(two) })
		if by == "close" && len(h.all()) != 0 {
			t.Errorf("%q", h.all())
		}
	}
}

func pending() Pending {
	return Pending{ID: "1", Kind: cred.AskMFA, Profile: "dev", Question: cred.Question{Kind: cred.AskMFA, Profile: "dev", Serial: "arn:aws:iam::1:mfa/me", Text: "MFA code"}}
}

func TestDialog(t *testing.T) {
	for text, want := range map[string]struct {
		value string
		err   error
		why   string
	}{
		`cat > "$DIR/in"; echo "$*" > "$DIR/args"; echo '{"value":"canary123"}'`: {value: "canary123"},
		`echo '{"refused":true}'`: {err: ErrRefused},
		`echo '{"value":""}'`:     {err: ErrRefused},
		`echo 'keyfob-signin: cannot ask: nobody can be reached: no desktop' >&2; exit 3`:    {err: ErrNobody, why: "there is no desktop session to ask in: cannot ask: nobody can be reached: no desktop"},
		`echo '{"value":"canary123"}'; echo 'keyfob-signin: cannot ask: broken' >&2; exit 1`: {why: "cannot show a dialog: cannot ask: broken"},
		`echo canary123`: {why: "cannot show a dialog: keyfob-signin gave no answer"},
		`:`:              {why: "cannot show a dialog: keyfob-signin gave no answer"},
	} {
		program, dir := script(t, text)
		h, log := newHeard()
		d := NewDialog(DialogConfig{Program: program, Log: log})
		got, err := d.Prompt(t.Context(), pending())
		if got.Reveal() != want.value || (err == nil) != (want.err == nil && want.why == "") || want.err != nil && !errors.Is(err, want.err) || want.why != "" && err.Error() != want.why {
			t.Errorf("%s: %q, %v", text, got.Reveal(), err)
		}
		if strings.Contains(fmt.Sprint(err, h.all()), "canary") {
			t.Errorf("the answer is in %v or %q", err, h.all())
		}
		if want.value != "" && (contents(t, dir+"/args") != "ask\n" ||
			contents(t, dir+"/in") != `{"kind":"mfa","profile":"dev","serial":"arn:aws:iam::1:mfa/me","text":"MFA code"}`) {
			t.Errorf("%q %q", contents(t, dir+"/args"), contents(t, dir+"/in"))
		}
	}
	if _, err := NewDialog(DialogConfig{Program: "/nonexistent"}).Prompt(t.Context(), pending()); err == nil {
		t.Error("a program that is not there answered")
	}
	var _ Answerer = (*Dialog)(nil)
	var _ Placed = (*Dialog)(nil)
}

// The question is over: the dialog and what it has started go at once.
func TestDialogGoesWithItsQuestion(t *testing.T) {
	program, dir := script(t, `sleep 60 & echo $$ $! > "$DIR/pids.new"; mv "$DIR/pids.new" "$DIR/pids"; wait`)
	q := NewQueue(Config{})
	defer q.Attach([]cred.LinkKey{keyA}, NewDialog(DialogConfig{Program: program}))()
	done := make(chan error, 1)
	go func() {
		_, err := q.Ask(t.Context(), keyA, question("dev"))
		done <- err
	}()
	var one, two int
	eventually(t, "it is asked", func() bool {
		_, err := fmt.Sscan(contents(t, dir+"/pids"), &one, &two)
		return err == nil
	})
	q.Cancel(keyA)
	if err := <-done; !errors.Is(err, ErrObsolete) {
		t.Error(err)
	}
	eventually(t, "no process is left", func() bool { return !alive(one) && !alive(two) })
}

// shower is a notification service that keeps what it is told to show.
type shower struct{ got chan [2]string }

func (s shower) GetCapabilities() ([]string, *dbus.Error) { return []string{"body"}, nil }

func (s shower) Notify(_ string, _ uint32, _, title, body string, _ []string, _ map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	s.got <- [2]string{title, body}
	return 1, nil
}

// TestRealProgram: a Notifier and a Dialog with the real keyfob-signin, a
// real bus and a dialog program of the test.
func TestRealProgram(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, SigninName)
	if out, err := exec.Command("go", "build", "-o", program, "keyfob/cmd/keyfob-signin").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	bus := keystoretest.StartBus(t, false)
	conn, err := dbus.Connect(bus.Address)
	if err != nil {
		t.Fatal(err)
	}
	s := shower{got: make(chan [2]string, 1)}
	if err := conn.Export(s, "/org/freedesktop/Notifications", "org.freedesktop.Notifications"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName("org.freedesktop.Notifications", 0); err != nil {
		t.Fatal(err)
	}
	// Closed, and with its goroutines gone, before goleak looks.
	t.Cleanup(func() { _ = conn.Close() })

	display, err := net.Listen("unix", filepath.Join(bus.Dir, "run", "wayland-7"))
	if err != nil {
		t.Fatal(err)
	}
	defer display.Close()
	bin := t.TempDir()
	zenity := "#!/bin/sh\necho $$ > " + dir + "/pid.new; /bin/mv " + dir + "/pid.new " + dir + "/pid; if [ -e " + dir + "/stay ]; then exec /bin/sleep 60; fi; echo '123 456'\n"
	if err := os.WriteFile(filepath.Join(bin, "zenity"), []byte(zenity), 0o700); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + bin, "HOME=" + dir, "XDG_RUNTIME_DIR=" + bus.Dir + "/run", "WAYLAND_DISPLAY=wayland-7", "DBUS_SESSION_BUS_ADDRESS=" + bus.Address}

	h, log := newHeard()
	n := NewNotifier(NotifierConfig{Program: program, Environ: env, Log: log})
	n.Notify("The session of dev ends soon", "keyfob login dev")
	select {
	case got := <-s.got:
		if got != [2]string{"The session of dev ends soon", "keyfob login dev"} {
			t.Errorf("shown %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("nothing was shown: %q", h.all())
	}
	n.Close(t.Context())

	d := NewDialog(DialogConfig{Program: program, Environ: env, Log: log})
	if got, err := d.Prompt(t.Context(), pending()); err != nil || got.Reveal() != "123456" {
		t.Errorf("%q %v", got.Reveal(), err)
	}

	// The dialog is in the group that is killed.
	if err := errors.Join(os.WriteFile(dir+"/stay", nil, 0o600), os.Remove(dir+"/pid")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := d.Prompt(ctx, pending())
		asked <- err
	}()
	pid := 0
	eventually(t, "the dialog is there", func() bool {
		pid, _ = strconv.Atoi(strings.TrimSpace(contents(t, dir+"/pid")))
		return pid > 0
	})
	if group, err := syscall.Getpgid(pid); err != nil || group == syscall.Getpgrp() {
		t.Errorf("the dialog is in our process group: %v", err)
	}
	begin := time.Now()
	cancel()
	if err := <-asked; !errors.Is(err, context.Canceled) || time.Since(begin) > time.Second {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
	eventually(t, "the dialog is gone", func() bool { return !alive(pid) })

	// Without a session nobody is asked, and that is told.
	d = NewDialog(DialogConfig{Program: program, Environ: []string{"PATH=" + bin, "DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null"}, Log: log})
	if _, err := d.Prompt(t.Context(), pending()); !errors.Is(err, ErrNobody) {
		t.Error(err)
	}
	if got := h.all(); len(got) != 0 {
		t.Errorf("log %q", got)
	}
}
