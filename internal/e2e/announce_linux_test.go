package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus"

	"keyfob/internal/fakeaws"
	"keyfob/keystore/keystoretest"
)

// desktop is a notification service (Desktop Notifications Specification).
type desktop struct{ shown chan string }

func (d *desktop) Notify(_ string, _ uint32, _, summary, body string, _ []string, _ map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	d.shown <- summary + "\n" + body
	return 1, nil
}

func (d *desktop) GetCapabilities() ([]string, *dbus.Error) { return []string{"body"}, nil }

func (d *desktop) GetServerInformation() (name, vendor, version, spec string, err *dbus.Error) {
	return "test", "keyfob", "1", "1.2", nil
}

// TestThePersonIsToldInTime: before a session ends that only a person can
// renew, they see one notification, and status says so.
func TestThePersonIsToldInTime(t *testing.T) {
	t.Parallel()
	bus := keystoretest.StartBus(t, false)
	d := &desktop{shown: make(chan string, 10)}
	if err := bus.Conn().Export(d, "/org/freedesktop/Notifications", "org.freedesktop.Notifications"); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.Conn().RequestName("org.freedesktop.Notifications", dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	for _, kv := range bus.Env("") {
		if v, ok := strings.CutPrefix(kv, "DBUS_SESSION_BUS_ADDRESS="); ok {
			w.env["DBUS_SESSION_BUS_ADDRESS"] = v
		}
	}
	serial := "arn:aws:iam::" + fakeaws.DefaultAccount + ":mfa/alice"
	w.write(".aws/config", strings.Replace(w.read(".aws/config"), "[profile base]\n", "[profile base]\nmfa_serial = "+serial+"\n", 1))
	w.addKeys("base")
	w.aws.SetLifetime(24 * time.Second)
	begin := time.Now()
	w.must([]byte(w.aws.MFACode(serial)+"\n"), "login", "deploy")
	end := begin.Add(24 * time.Second)
	var text string
	select {
	case text = <-d.shown:
	case <-time.After(24 * time.Second):
		t.Fatal("nobody was told")
	}
	if now := time.Now(); now.After(end) || now.Before(begin.Add(10*time.Second)) {
		t.Errorf("told %v after the sign-in, which lasts 24 s", now.Sub(begin))
	}
	if !strings.Contains(text, "deploy") || !strings.Contains(text, "keyfob login deploy") {
		t.Errorf("the notification says %q", text)
	}
	warned := strings.Join(w.status().Warnings, "\n")
	if !strings.Contains(warned, "keyfob login deploy") {
		t.Errorf("status says %q", warned)
	}
	select {
	case again := <-d.shown:
		t.Errorf("told twice: %q", again)
	case <-time.After(3 * time.Second):
	}
}
