//go:build unix

package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// What no error and no log may show.
var canaries = []string{
	"wJalrXUtnFEMI/K7MDENG/bPxRfiCYCANARYKEY1", "FwoGZXIvYXdzECANARY2TOKEN//////////wEaDH", "hunter2-CANARY-in-the-line",
	"cAnArY4FromTheEnvironment", "314159",
}

type world struct {
	*Runner
	logs *bytes.Buffer
}

func newWorld(env ...string) *world {
	w := &world{logs: &bytes.Buffer{}}
	log := logrus.New()
	log.SetOutput(w.logs)
	log.SetLevel(logrus.TraceLevel)
	w.Runner = New(Config{Environ: append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/"}, env...), Timeout: 10 * time.Second, Log: logrus.NewEntry(log)})
	return w
}

func (w *world) line(t *testing.T, line string) (string, error) {
	t.Helper()
	out, err := w.Run(t.Context(), Program{Name: "credential_process of dev", Line: line})
	w.clean(t, err)
	return out.Reveal(), err
}

// clean looks for canaries wherever a person may look.
func (w *world) clean(t *testing.T, err error) {
	t.Helper()
	seen := w.logs.String()
	for e := err; e != nil; e = errors.Unwrap(e) {
		seen += fmt.Sprintf("%v %+v %#v", e, e, e)
	}
	for _, c := range canaries {
		if strings.Contains(seen, c) {
			t.Errorf("%s is shown in %s", c, seen)
		}
	}
}

func (w *world) fails(t *testing.T, p Program, reason Reason, code int, parts ...string) *Error {
	t.Helper()
	if p.Name == "" {
		p.Name = "credential_process of dev"
	}
	out, err := w.Run(t.Context(), p)
	w.clean(t, err)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v, %T", err, err)
	}
	if e.Reason != reason || e.Code != code || !out.IsZero() {
		t.Errorf("reason %v, code %d: %v", e.Reason, e.Code, e)
	}
	if !strings.HasPrefix(e.Error(), p.Name) || strings.ContainsAny(e.Error(), "\n\r") {
		t.Errorf("%q", e.Error())
	}
	for _, part := range parts {
		if !strings.Contains(e.Error(), part) {
			t.Errorf("%q is missing in %q", part, e)
		}
	}
	return e
}

func TestProgramGetsAScrubbedEnvironment(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	w := newWorld("HOME="+home, "LANG=de_DE.UTF-8", "LC_ALL=C", "XDG_RUNTIME_DIR=/run/x", "HTTPS_PROXY=http://p", "AWS_CONFIG_FILE=/c",
		"AWS_REGION=eu-west-1", "AWS_ENDPOINT_URL_STS=http://x", "KEYFOB_SOCKET=/s", "KEYFOB_CALL_DEPTH=2",
		"AWS_ACCESS_KEY_ID="+canaries[3], "AWS_SECRET_ACCESS_KEY="+canaries[3], "AWS_SESSION_TOKEN="+canaries[3], "AWS_PROFILE=p", "AWS_DEFAULT_PROFILE=p",
		"AWS_ROLE_ARN=r", "AWS_WEB_IDENTITY_TOKEN_FILE=f", "AWS_CONTAINER_CREDENTIALS_FULL_URI=u", "AWS_EC2_METADATA_SERVICE_ENDPOINT=u",
		"KEYFOB_PASSPHRASE="+canaries[3], "KEYFOB_PASSPHRASE_FILE=f", "KEYFOB_EXEC_FILES=f", "KEYFOB_OUTER_AWS_CONFIG_FILE=f", "KEYFOB_READY_FD=3",
		"LD_PRELOAD=", "GITHUB_TOKEN="+canaries[3], "SSH_AUTH_SOCK=/a")
	out, err := w.line(t, "env; pwd; cat; echo end")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for _, want := range []string{"HOME=" + home, "LANG=de_DE.UTF-8", "LC_ALL=C", "XDG_RUNTIME_DIR=/run/x", "HTTPS_PROXY=http://p", "AWS_CONFIG_FILE=/c",
		"AWS_REGION=eu-west-1", "AWS_ENDPOINT_URL_STS=http://x", "KEYFOB_SOCKET=/s", "KEYFOB_CALL_DEPTH=3", "PATH=" + os.Getenv("PATH"), home, "end"} {
		name, _, _ := strings.Cut(want, "=")
		allowed[name] = true
		if !strings.Contains(out, want+"\n") {
			t.Errorf("%s is missing in\n%s", want, out)
		}
	}
	for _, name := range []string{"PWD", "OLDPWD", "SHLVL", "_", "KEYFOB_CALL_ID"} {
		allowed[name] = true
	}
	for _, line := range strings.Split(out, "\n") {
		if name, _, ok := strings.Cut(line, "="); ok && !allowed[name] {
			t.Errorf("%s is passed on", name)
		}
	}
}

func TestDepthAndHomeWithoutAny(t *testing.T) {
	t.Parallel()
	r := New(Config{Environ: []string{"AWS_PROFILE=x"}})
	out, err := r.Run(t.Context(), Program{Name: "x", Line: `echo "$KEYFOB_CALL_DEPTH ${HOME:+home} ${PATH:+path}"; pwd`})
	if err != nil || !strings.HasPrefix(out.Reveal(), "1 home path\n/") {
		t.Errorf("%q %v", out.Reveal(), err)
	}
}

func TestArgumentsHaveNoShell(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "show"), []byte("#!/bin/sh\nprintf '%s|' \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := New(Config{Environ: []string{"PATH=relative:" + dir, "HOME=/"}})
	out, err := r.Run(t.Context(), Program{Name: "x", Args: []string{"show", "a b", "$HOME;*", ""}})
	if err != nil || out.Reveal() != "a b|$HOME;*||" {
		t.Errorf("%q %v", out.Reveal(), err)
	}
	w := &world{Runner: r, logs: &bytes.Buffer{}}
	w.fails(t, Program{Args: []string{"not-there"}}, NotFound, 0, "there is no such program on PATH")
	w.fails(t, Program{Args: []string{"/not/there/" + canaries[2]}}, NotFound, 0, "there is no such program")
	w.fails(t, Program{}, NotStarted, 0, "empty")
}

func TestEndsAreToldInWords(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.fails(t, Program{Line: "echo " + canaries[0] + "; echo " + canaries[1] + " >&2; exit 3"}, Exited, 3, "ended with exit code 3")
	w.fails(t, Program{Line: "/not/there --password " + canaries[2]}, NotFound, 127, "the shell found no such program")
	w.fails(t, Program{Line: "/etc/passwd"}, Exited, 126, "may not run")
	w.fails(t, Program{Line: "kill -SEGV $$"}, Killed, 0, "signal segmentation fault")
	if !strings.Contains(w.logs.String(), "stderr") {
		t.Errorf("the log has no standard error: %s", w.logs)
	}
}

func TestStandardErrorIsMasked(t *testing.T) {
	t.Parallel()
	out := []byte(`{"a":"short12x"}`)
	for in, want := range map[string]string{
		"cannot open /usr/lib/thing.json: no such file\nusage: x [-h]": "cannot open /usr/lib/thing.json: no such file usage: x [-h]",
		"key " + canaries[0] + " token=" + canaries[1] + ";":           "key [redacted] [redacted];",
		"code 314159, 12 and 2024-01-02":                               "code [redacted], 12 and 2024-01-02",
		"it is short12x\x1b[31m":                                       "it is [redacted] [31m",
		"Warning: Deprecated option":                                   "Warning: Deprecated option",
		"CORRECTHORSEBATTERY":                                          "[redacted]",
	} {
		if got := maskErrors([]byte(in), out); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if strings.Contains(maskErrors([]byte(strings.Repeat(canaries[0], 3)), nil), "CANARY") {
		t.Error("a repeated key is shown")
	}
}

func TestQuietAboveDebug(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.log.Logger.SetLevel(logrus.InfoLevel)
	_, err := w.line(t, "echo anything >&2; exit 1")
	if err == nil || w.logs.Len() != 0 {
		t.Errorf("%v %s", err, w.logs)
	}
}

func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld()
	for _, line := range []string{"yes " + canaries[0], "yes " + canaries[0] + " >&2", "yes & yes & wait", "head -c 1048577 /dev/zero"} {
		began := time.Now()
		w.fails(t, Program{Line: line}, TooMuch, 0, "1048576 bytes")
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: ended after %s", line, took)
		}
	}
	out, err := w.Run(t.Context(), Program{Name: "x", Line: "head -c 1048576 /dev/zero; head -c 1048576 /dev/zero >&2"})
	if err != nil || out.Len() != 1<<20 {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
}

func TestTimeLimits(t *testing.T) {
	t.Parallel()
	w := newWorld()
	began := time.Now()
	w.fails(t, Program{Line: "echo " + canaries[0] + "; sleep 1000", Timeout: 200 * time.Millisecond}, TimedOut, 0, "did not end within 200ms")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := w.Run(ctx, Program{Name: "x", Line: "sleep 1000"})
	var e *Error
	if !errors.As(err, &e) || e.Reason != TimedOut || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	_, err = w.Run(ctx, Program{Name: "x", Line: "true"})
	if !errors.As(err, &e) || e.Reason != TimedOut {
		t.Errorf("after the deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := w.Run(ctx, Program{Name: "x", Line: "sleep 1000"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestNothingOfUsIsLeft(t *testing.T) { // not parallel: it counts goroutines
	w := newWorld()
	w.Runner.SetTimeout(300 * time.Millisecond)
	_, _ = w.Run(t.Context(), Program{Name: "x", Line: "true"})
	before, files := runtime.NumGoroutine(), openFiles(t)
	for _, line := range []string{"true", "exit 1", "sleep 1000", "yes", "sleep 1000 & echo x", "exec >&- 2>&-; sleep 1000", "/not/there"} {
		_, _ = w.Run(t.Context(), Program{Name: "x", Line: line})
	}
	_, _ = w.Run(t.Context(), Program{Name: "x", Args: []string{"/not/there"}})
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, before %d", after, before)
	}
	if now := openFiles(t); now > files {
		t.Errorf("%d open files, before %d", now, files)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Skip("there is no /dev/fd")
	}
	return len(names)
}
