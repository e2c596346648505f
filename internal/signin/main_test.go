package signin

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test binary the program itself where a test asks for
// it: the tests look at processes, as keyfob and keyfobd do.
func TestMain(m *testing.M) {
	if os.Getenv("KEYFOB_SIGNIN_TEST") == "program" {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

// desk is a session of a test: its own home, its own programs and no others.
type desk struct {
	t   *testing.T
	dir string
	env []string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "desk-") // short, for the names of sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &desk{t: t, dir: dir}
	for _, sub := range []string{"bin", "home", "run"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d.env = []string{"KEYFOB_SIGNIN_TEST=program", "PATH=" + dir + "/bin", "HOME=" + dir + "/home", "XDG_RUNTIME_DIR=" + dir + "/run", "DIR=" + dir,
		"TERM=xterm", "LANG=C.UTF-8", "GOTRACEBACK=none", "DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null"}
	return d
}

// command is keyfob-signin with that request on standard input.
func (d *desk) command(name, request string) *exec.Cmd {
	d.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.Command(exe, name)
	cmd.Env, cmd.Dir, cmd.Stdin = d.env, d.dir, strings.NewReader(request)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// result is how a command ended.
type result struct {
	code      int
	out, errs string
	took      time.Duration
}

func (d *desk) run(name, request string) result {
	d.t.Helper()
	cmd := d.command(name, request)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	kill := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_ = cmd.Wait()
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String(), time.Since(begin)}
}

// want checks the exit code and, for a question, the answer; "-" is a
// refusal.
func (r result) want(t *testing.T, code int, value string) {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d: %q %q", r.code, code, r.out, r.errs)
	}
	if strings.Count(r.errs, "\n") > 1 || strings.ContainsAny(r.errs, "\x1b\x07\r") {
		t.Errorf("standard error is more than one plain line: %q", r.errs)
	}
	if code != 0 {
		if r.out != "" || !strings.HasPrefix(r.errs, "keyfob-signin: cannot ") {
			t.Errorf("standard output %q, standard error %q", r.out, r.errs)
		}
		return
	}
	if r.errs != "" {
		t.Errorf("standard error %q", r.errs)
	}
	if value == "" {
		if r.out != "" {
			t.Errorf("standard output %q", r.out)
		}
		return
	}
	var a answer
	if err := json.Unmarshal([]byte(r.out), &a); err != nil || !strings.HasSuffix(r.out, "}\n") {
		t.Fatalf("standard output %q: %v", r.out, err)
	}
	if want := (answer{Value: value}); value == "-" && a != (answer{Refused: true}) || value != "-" && a != want {
		t.Errorf("answer %q, want %q", r.out, value)
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, c := range [][2]string{
		{"ask", ""}, {"ask", "canary"}, {"ask", `"canary"`}, {"ask", `{"kind":"mfa"} {}`}, {"ask", `{"kind":"mfa","ways":["canary\u001b[31m"]}`},
		{"ask", `{"kind":"` + strings.Repeat("canary", 20000) + `"}`},
		{"notify", "[]"}, {"notify", "{}"}, {"notify", `{"title":"\u0007\u001b"}`},
	} {
		r := d.run(c[0], c[1])
		r.want(t, exitUsage, "")
		if strings.Contains(r.errs, "canary") && !strings.Contains(c[1], "ways") {
			t.Errorf("the request is in the error: %q", r.errs)
		}
	}
	for _, args := range [][]string{{}, {"other"}, {"ask", "canary"}} {
		cmd := d.command("", "{}")
		cmd.Args = append(cmd.Args[:1], args...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != exitUsage || !strings.Contains(string(out), "\nhint: ") || strings.Contains(string(out), "canary") {
			t.Errorf("%q: exit code %d, %q", args, code, out)
		}
	}
}

func TestPlainTextDoesNothing(t *testing.T) {
	for in, want := range map[string]string{
		"dev":                             "dev",
		"  a \t b\nc ":                    "a b c",
		"\x1b]0;title\x07x\x1b[31m":       "]0;titlex[31m",
		"a\u202eb\u2066c\u200bd\ufeffe":   "abcde",
		"bad\xff\xfeutf8":                 "badutf8",
		"no\u00a0break\u2028line\u0085":   "no break line",
		"Ünïcödé 日本":                      "Ünïcödé 日本",
		"":                                "",
		"123456789012345678901234567890x": "12345678901234567890…",
		"\x00\x7f\u009b31m":               "31m",
	} {
		if got := plain(in, 20); got != want && !(len(in) < 30 && plain(in, 100) == want) {
			t.Errorf("plain(%q) is %q, want %q", in, got, want)
		}
	}
	if got := plainLines("a\n\n\x1bb\r\nc\nd", 10, 3); got != "a\nb\nc" {
		t.Errorf("plainLines: %q", got)
	}
}

func TestPromptNamesKeyfobProfileAndDevice(t *testing.T) {
	p := newPrompt(question{Kind: "mfa", Profile: "de\x1bv", Serial: "arn:aws:iam::1:mfa/me", Text: "MFA code for arn:aws:iam::1:mfa/me", Error: "the code was\nrefused"})
	if want := "keyfob needs an MFA code\nProfile: dev\nDevice: arn:aws:iam::1:mfa/me\nthe code was refused"; p.body() != want {
		t.Errorf("body %q", p.body())
	}
	if p.short != "keyfob needs an MFA code for profile dev of arn:aws:iam::1:mfa/me: " {
		t.Errorf("short %q", p.short)
	}
	p = newPrompt(question{Kind: "other", Profile: "dev", Text: "Which role?"})
	if want := "keyfob needs an answer\nProfile: dev\nWhich role?"; p.body() != want || p.short != "keyfob needs an answer for profile dev, Which role?: " {
		t.Errorf("%q, %q", p.body(), p.short)
	}
	mfa, other := prompt{kind: "mfa"}, prompt{}
	if v, err := mfa.value(" 123 456\n"); v != "123456" || err != nil {
		t.Errorf("%q %v", v, err)
	}
	if v, err := other.value(" pass word \n"); v != " pass word " || err != nil {
		t.Errorf("%q %v", v, err)
	}
	if _, err := mfa.value(" \n"); !errors.Is(err, errRefused) {
		t.Errorf("%v", err)
	}
}
