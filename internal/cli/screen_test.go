//go:build !windows

package cli

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/control"
)

var screenNow = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func manyEntries() []control.ListEntry {
	return []control.ListEntry{
		{Name: "base", Source: "static-keys", Account: "111111111111", KeyAdded: "2025-01-20T00:00:00Z"},
		{Name: "deploy", Source: "assume-role", Account: "222222222222", Session: &control.ListSession{AccessKeyID: "ASIA", Expiration: "2026-03-04T05:57:00Z"}},
		{Name: "grösse-日本", Source: "sso", Account: "333333333333", Session: &control.ListSession{Expiration: "2026-03-04T05:00:00Z"}, Missing: "keyfob login grösse-日本"},
		{Name: "soon", Source: "login", Session: &control.ListSession{Expiration: "2026-03-04T05:09:00Z"}, KeyAdded: "2026-03-01T00:00:00Z"},
		{Name: "broken", Error: "cannot use profile broken: source_profile (/home/someone/.aws/config:12) names none, and there is no such profile"},
	}
}

func TestListScreen(t *testing.T) {
	for width, want := range map[int]string{
		0: `PROFILE      ACCOUNT       SOURCE       SESSION   KEY AGE   MISSING
base         111111111111  static-keys  -         408 days
deploy       222222222222  assume-role  50m left
grösse-日本  333333333333  sso          ended     -         keyfob login grösse-日本
soon         -             login        2m left   3 days
broken       -             -            -         -         cannot use profile broken: source_profile (/home/someone/.aws/config:12) names none, and there is no such profile
`,
		80: `PROFILE      ACCOUNT       SESSION   MISSING
base         111111111111
deploy       222222222222  50m left
grösse-日本  333333333333  ended     keyfob login grösse-日本
soon         -             2m left
broken       -             -         cannot use profile broken: source_profile …
`,
		62: `PROFILE      SESSION   MISSING
base
deploy       50m left
grösse-日本  ended     keyfob login grösse-日本
soon         2m left
broken       -         cannot use profile broken: source_prof…
`,
	} {
		got := listText(manyEntries(), look{width: width}, screenNow)
		if got != want {
			t.Errorf("%d columns wide:\n%s\nwant\n%s", width, got, want)
		}
		for _, line := range strings.Split(got, "\n") {
			if width > 0 && cells(line) > width {
				t.Errorf("%d columns: %q has %d", width, line, cells(line))
			}
		}
	}
	coloured := listText(manyEntries(), look{colour: true}, screenNow)
	for _, want := range []string{"\x1b[32m50m left\x1b[0m", "\x1b[31mended\x1b[0m", "\x1b[33m2m left\x1b[0m", "\x1b[33m408 days\x1b[0m", "\x1b[31mcannot use", "\x1b[33mkeyfob login"} {
		if !strings.Contains(coloured, want) {
			t.Errorf("no %q in %q", want, coloured)
		}
	}
	if strings.Contains(coloured, "\x1b[33m3 days") {
		t.Error("a young key is coloured")
	}
}

// What comes of a file or of the network can't move the cursor.
func TestScreensAreHarmless(t *testing.T) {
	evil := "a\x1b[2J\u202e\r\nb"
	st := &control.StatusResult{Version: evil, Keystore: control.KeystoreStatus{Backend: evil, Error: evil, Locked: true}, Warnings: []string{evil}, ReloadError: evil,
		Endpoints:    []control.EndpointStatus{{Kind: evil, Listen: evil, Profile: evil}},
		Sessions:     []control.SessionStatus{{Profile: evil, LastError: evil, Expiration: evil, NextRefresh: evil}},
		Interactions: []control.InteractionStatus{{ID: evil, Kind: evil, Profile: evil, URL: evil, UserCode: evil, Program: evil, Expires: evil}}}
	checks := []control.Check{{ID: evil, Group: evil, State: evil, Message: evil, File: evil, Line: 1, Fix: evil, Hint: evil, About: evil}}
	o := overview{Version: evil, Problem: evil, Profiles: 1, Daemon: st, Next: []nextStep{{evil, evil}}}
	keys := []control.RotatedKey{{Profile: evil, User: evil, Old: evil, New: evil, Skipped: evil, Also: []string{evil}}}
	for name, text := range map[string]string{
		"list":     listText([]control.ListEntry{{Name: evil, Source: evil, Account: evil, Missing: evil, Session: &control.ListSession{Expiration: evil}}}, look{}, screenNow),
		"status":   statusText(st, look{}, screenNow),
		"doctor":   doctorText(checks, look{}, false),
		"overview": o.text(look{}),
		"rotate":   rotatedText(keys, look{}),
	} {
		if strings.ContainsAny(text, "\x1b\r") {
			t.Errorf("%s: %q", name, text)
		}
	}
}

func TestCells(t *testing.T) {
	for text, want := range map[string]int{"": 0, "abc": 3, "größe": 5, "日本": 4, "e\u0301": 1, "👍": 2, "→": 1, "…": 1, "한글": 4} {
		if got := cells(text); got != want {
			t.Errorf("cells(%q) = %d, want %d", text, got, want)
		}
		for n := 1; n < want; n++ {
			if c := cut(text, n); cells(c) > n || !strings.HasSuffix(c, "…") {
				t.Errorf("cut(%q, %d) = %q", text, n, c)
			}
		}
	}
}

func TestStatusScreen(t *testing.T) {
	st := &control.StatusResult{Version: "1.2.3", PID: 7, UptimeSeconds: 90061, Keystore: control.KeystoreStatus{Backend: "secret-service"},
		Sessions: []control.SessionStatus{
			{Profile: "deploy", AccessKeyID: "ASIA1", AccountID: "222222222222", Expiration: "2026-03-04T05:57:00Z", NextRefresh: "2026-03-04T05:30:00Z", Callers: 3},
			{Profile: "sso", AccessKeyID: "ASIA2", Expiration: "2026-03-04T07:07:00Z", NextRefresh: "2026-03-04T05:00:00Z", NeedsPerson: true, EndsAt: "2026-03-04T09:06:07Z"}},
	}
	want := `keyfobd 1.2.3, pid 7, up 25h01m
vault: secret-service, unlocked

PROFILE  ACCOUNT       ACCESS KEY  SESSION      REFRESH  CALLERS  PROBLEM
deploy   222222222222  ASIA1       50m left     in 23m   3
sso      -             ASIA2       2h 00m left  now      0        you must sign in again in 4h 00m
`
	if got := statusText(st, look{}, screenNow); got != want {
		t.Errorf("status is\n%s\nwant\n%s", got, want)
	}
}

// A question that can't be answered here is left as it is.
func TestAnswerLeavesTheQuestion(t *testing.T) {
	h := newHome(t)
	cmd := h.command("answer", "i2")
	cmd.Stdin = strings.NewReader("once\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // without a terminal, wherever the test runs
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 3 || !strings.Contains(string(out), "it is answered at a terminal, and there is none\nhint: keyfob answer i2 in a terminal\n") {
		t.Errorf("%v: %s", err, out)
	}
	if asked := h.read("asked"); strings.Contains(asked, "answer ") || !strings.Contains(asked, "status ") {
		t.Errorf("the daemon was asked %s", asked)
	}
}
