package logging

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"

	"golang.org/x/sys/windows/svc/eventlog"
)

// events keeps what would be written, as "id text".
type events []string

func (e *events) add(id uint32, text string) error {
	*e = append(*e, fmt.Sprintf("%d %s", id, text))
	return nil
}
func (e *events) Info(id uint32, text string) error    { return e.add(id, text) }
func (e *events) Warning(id uint32, text string) error { return e.add(id, text) }
func (e *events) Error(id uint32, text string) error   { return e.add(id, text) }
func (e *events) Close() error                         { return nil }

func TestEventsAreTheLogsWarningsAndErrors(t *testing.T) {
	var got events
	var file bytes.Buffer
	log, err := New(&file, "debug", "json")
	if err != nil {
		t.Fatal(err)
	}
	log.AddHook(&EventLog{to: &got, also: []string{"keyfobd is ready"}})
	log.Debug("a detail")
	log.WithField(Profile, "app").Info("session refreshed")
	log.Info("keyfobd is ready")
	log.Warn("upstream answered SecretAccessKey=" + canary)
	log.WithField(Reason, "x").Error("cannot refresh")
	lines := strings.Split(strings.TrimSpace(file.String()), "\n")
	if len(lines) != 5 {
		t.Fatalf("the file has %d lines:\n%s", len(lines), file.String())
	}
	want := events{"1 " + lines[2], "2 " + lines[3], "3 " + lines[4]}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("events:\n%s\nwant the file's lines:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if strings.Contains(strings.Join(got, ""), "CANARY") {
		t.Error("an event shows a secret")
	}
}

func TestAFailureBeforeTheLogIsAnEvent(t *testing.T) {
	var got events
	(&EventLog{to: &got}).Failed("keyfobd: cannot start: passphrase=" + canary + "\nhint: x\n")
	if len(got) != 1 || got[0] != "3 keyfobd: cannot start: passphrase=[redacted]\nhint: x" {
		t.Errorf("events: %q", got)
	}
}

func TestAStormIsLeftToTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got events
		l := &EventLog{to: &got}
		for range 10 * eventsMost {
			l.Failed("x")
		}
		if len(got) != eventsMost+1 || !strings.Contains(got[eventsMost], "log file") {
			t.Fatalf("%d events, the last one %q", len(got), got[len(got)-1])
		}
		time.Sleep(time.Minute)
		l.Failed("x")
		if len(got) != eventsMost+2 {
			t.Errorf("%d events after a minute", len(got))
		}
	})
}

func TestEventTextsSuitEventViewer(t *testing.T) {
	for in, want := range map[string]string{
		"a line\n":                  "a line",
		"[fe80::1%12]:80 and %2F %": "[fe80::1% 12]:80 and % 2F %",
		"a\x00b":                    "ab",
	} {
		if got := eventText(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	long := eventText(strings.Repeat("a€", eventLongest))
	if n := len(utf16.Encode([]rune(long))); n > 31839 || strings.ContainsRune(long, '�') {
		t.Errorf("%d characters, or one cut through", n)
	}
}

func TestEventsGoToTheApplicationLog(t *testing.T) {
	l, err := OpenEventLog()
	if err != nil {
		t.Fatal(err)
	}
	to := l.to.(*eventlog.Log)
	for _, write := range []func(uint32, string) error{to.Info, to.Warning, to.Error} {
		if err := write(eventInfo, "a test of keyfob"); err != nil {
			t.Error(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
