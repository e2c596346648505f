package interact

import (
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
)

// heard keeps the messages of a log.
type heard struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (h *heard) Levels() []logrus.Level { return logrus.AllLevels }

func (h *heard) Fire(e *logrus.Entry) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	line := e.Level.String() + ": " + e.Message
	if err, ok := e.Data[logrus.ErrorKey].(error); ok {
		line += ": " + err.Error()
	}
	h.lines = append(h.lines, line)
	return nil
}

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines)
}

func newHeard() (*heard, *logrus.Entry) {
	h, l := &heard{}, logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.DebugLevel)
	l.AddHook(h)
	return h, logrus.NewEntry(l)
}

// Each run of a program that is not there is one line in the log.
func TestIdenticalNotificationsWithinAMinuteAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, log := newHeard()
		n := NewNotifier(NotifierConfig{Program: "/nonexistent/keyfob-signin", Environ: []string{}, Log: log})
		defer n.Close(t.Context())
		want := func(count int, why string) {
			t.Helper()
			synctest.Wait()
			if got := len(h.all()); got != count {
				t.Fatalf("%s: %d runs, want %d: %q", why, got, count, h.all())
			}
		}
		for range 100 {
			n.Notify("a", "b")
			synctest.Wait()
		}
		want(1, "identical")
		n.Notify("a", "c")
		want(2, "another body")
		n.Notify("c", "b")
		want(3, "another title")
		time.Sleep(59 * time.Second)
		n.Notify("a", "b")
		want(3, "within the minute")
		time.Sleep(2 * time.Second)
		n.Notify("a", "b")
		want(4, "after a minute")
		time.Sleep(time.Hour)
		n.Notify("x", "")
		n.mu.Lock()
		if len(n.seen) != 1 {
			t.Errorf("%d notifications are remembered", len(n.seen))
		}
		n.mu.Unlock()
	})
}

func TestNotifyAfterClose(t *testing.T) {
	h, log := newHeard()
	n := NewNotifier(NotifierConfig{Program: "/nonexistent/keyfob-signin", Log: log})
	n.Close(t.Context())
	n.Notify("a", "b")
	n.Close(t.Context())
	if got := h.all(); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestSessionEnvironmentHoldsNoSecrets(t *testing.T) {
	got := sessionEnv([]string{"HOME=/h", "PATH=/p", "DISPLAY=:0", "WAYLAND_DISPLAY=w", "DBUS_SESSION_BUS_ADDRESS=d", "XDG_RUNTIME_DIR=/r", "XAUTHORITY=/x", "LANG=l", "LC_ALL=c",
		"PINENTRY_PROGRAM=p", "AWS_SECRET_ACCESS_KEY=canary", "AWS_PROFILE=canary", "KEYFOB_PASSPHRASE=canary", "LD_PRELOAD=canary", "GODEBUG=canary", "https_proxy=http://canary@x", "nonsense"})
	want := []string{"HOME=/h", "PATH=/p", "DISPLAY=:0", "WAYLAND_DISPLAY=w", "DBUS_SESSION_BUS_ADDRESS=d", "XDG_RUNTIME_DIR=/r", "XAUTHORITY=/x", "LANG=l", "LC_ALL=c",
		"PINENTRY_PROGRAM=p", "GOTRACEBACK=none"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
