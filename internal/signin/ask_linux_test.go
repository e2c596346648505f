package signin

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestOrderOfWays(t *testing.T) {
	for _, c := range []struct {
		kind string
		kde  bool
		want string
	}{
		{"mfa", false, "zenity pinentry kdialog"}, {"mfa", true, "kdialog pinentry zenity"},
		{"passphrase", false, "pinentry zenity kdialog"}, {"passphrase", true, "pinentry kdialog zenity"},
	} {
		if got := strings.Join(windowWays(c.kind, c.kde), " "); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	if got := strings.Join(preferring("mine", []string{"zenity", "pinentry", "terminal"}), " "); got != "pinentry zenity terminal" {
		t.Errorf("%s", got)
	}
}

// The dialogs find the bus of the session, or one that fails at once: never
// none, because then they would start one.
func TestDialogsAlwaysHaveABusAddress(t *testing.T) {
	t.Parallel()
	for have, want := range map[string]string{"": noBus, "autolaunch:": noBus, "unix:path=/x/y": "unix:path=/x/y"} {
		if _, err := os.Stat("/run/user/" + strconv.Itoa(os.Getuid()) + "/bus"); err == nil && want == noBus {
			continue
		}
		d := newDesk(t).display().set("DBUS_SESSION_BUS_ADDRESS="+have).program("zenity", `echo "$DBUS_SESSION_BUS_ADDRESS" > "$DIR/bus"; echo 1`)
		d.run("ask", mfaQuestion).want(t, 0, "1")
		if got := strings.TrimSpace(d.file("bus")); got != want {
			t.Errorf("%q: the dialog has the address %q", have, got)
		}
	}
}

// The script of a notification is on standard input. It is for macOS; the
// program here is the test's.
func TestNotifyByAppleScript(t *testing.T) {
	d := newDesk(t).program("osascript", shellArgs+`while IFS= read -r l; do printf '%s\n' "$l" >> "$DIR/script"; done`)
	t.Setenv("PATH", d.dir+"/bin")
	t.Setenv("DIR", d.dir)
	if err := showByAppleScript(t.Context(), notification{`a "b" \`, "one\ntwo"}); err != nil {
		t.Fatal(err)
	}
	if got := d.file("script"); got != `display notification "one\ntwo" with title "a \"b\" \\"`+"\n" || d.file("args") != "-\n---\n" {
		t.Errorf("script %q, arguments %q", got, d.file("args"))
	}
}
