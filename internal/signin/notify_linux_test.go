package signin

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"keyfob/keystore/keystoretest"
)

// notifications is a notification service written for these tests.
type notifications struct {
	conn   *dbus.Conn
	able   []string
	hangs  bool
	refuse bool

	mu    sync.Mutex // guards shown
	shown []shown
}

type shown struct {
	app, icon, title, body, args string
	urgency                      byte
}

func (n *notifications) GetCapabilities() ([]string, *dbus.Error) { return n.able, nil }

func (n *notifications) Notify(sender dbus.Sender, app string, _ uint32, icon, title, body string, _ []string, hints map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	if n.hangs {
		<-n.conn.Context().Done()
	}
	if n.refuse {
		return 0, dbus.NewError("org.example.Refused", []any{"no \x1b[31mroom"})
	}
	var pid uint32
	_ = n.conn.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixProcessID", 0, string(sender)).Store(&pid)
	args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	urgency, _ := hints["urgency"].Value().(byte)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shown = append(n.shown, shown{app, icon, title, body, string(args), urgency})
	return uint32(len(n.shown)), nil
}

func (n *notifications) list() []shown {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]shown(nil), n.shown...)
}

// serve puts the service on the bus.
func (n *notifications) serve(t *testing.T, address string) *notifications {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	n.conn = conn
	if err := conn.Export(n, notifyPath, notifyName); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(notifyName, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("%v %v", reply, err)
	}
	return n
}

// request is a notification as keyfob-signin reads it.
func request(title, body string) string {
	b, _ := json.Marshal(notification{title, body})
	return string(b)
}

func TestNotifyOnTheSessionBus(t *testing.T) {
	t.Parallel()
	for _, able := range [][]string{{"body"}, {"actions", "body", "body-markup"}} {
		bus := keystoretest.StartBus(t, false)
		service := (&notifications{able: able}).serve(t, bus.Address)
		d := newDesk(t).set("DBUS_SESSION_BUS_ADDRESS="+bus.Address).program("notify-send", `echo "$*" > "$DIR/argv"`)
		d.run("notify", request("The session of canary\x1b[31m-title ends", "a < b & c\n\x07canary-body\u202e\n<b>x</b>")).want(t, exitDone, "")
		got := service.list()
		if len(got) != 1 {
			t.Fatalf("shown: %+v", got)
		}
		body := "a < b & c\ncanary-body\n<b>x</b>"
		if len(able) > 1 {
			body = "a &lt; b &amp; c\ncanary-body\n&lt;b&gt;x&lt;/b&gt;"
		}
		if s := got[0]; s.title != "The session of canary[31m-title ends" || s.body != body || s.app != "keyfob" || s.urgency != 1 {
			t.Errorf("shown: %+v", s)
		}
		if got[0].args == "" || strings.Contains(got[0].args, "canary") || d.file("argv") != "" {
			t.Errorf("argument list: %q %q", got[0].args, d.file("argv"))
		}
	}
}

// The bus is found beside the runtime directory too, as on a systemd
// machine.
func TestNotifyFindsTheBus(t *testing.T) {
	t.Parallel()
	bus := keystoretest.StartBus(t, false)
	service := (&notifications{}).serve(t, bus.Address)
	path, _, _ := strings.Cut(strings.TrimPrefix(bus.Address, "unix:path="), ",")
	for _, address := range []string{"", "autolaunch:"} {
		d := newDesk(t).set("DBUS_SESSION_BUS_ADDRESS=" + address)
		if err := os.Symlink(path, filepath.Join(d.dir, "run", "bus")); err != nil {
			t.Fatal(err)
		}
		d.run("notify", request("x", "")).want(t, exitDone, "")
	}
	if len(service.list()) != 2 {
		t.Errorf("shown: %+v", service.list())
	}
}

func TestNotifyNobody(t *testing.T) {
	t.Parallel()
	empty := keystoretest.StartBus(t, false) // a bus where nobody shows notifications
	gone := filepath.Join(t.TempDir(), "gone")
	l, err := net.Listen("unix", gone)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	closes, err := net.Listen("unix", filepath.Join(t.TempDir(), "closes"))
	if err != nil {
		t.Fatal(err)
	}
	defer closes.Close()
	go func() {
		for {
			c, err := closes.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	for name, address := range map[string]string{
		"no service": empty.Address, "no address": "", "autolaunch": "autolaunch:", "autolaunch in a list": "autolaunch:;autolaunch:scope=*user", "dead": "unix:path=" + gone,
		"missing": "unix:path=/nonexistent/bus", "null": noBus, "nonsense": "\x1b[31m", "closes": "unix:path=" + closes.Addr().String(),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); err == nil && (address == "" || strings.HasPrefix(address, "autolaunch")) {
				t.Skip("skipped: this machine has a session bus of its own")
			}
			d := newDesk(t).set("DBUS_SESSION_BUS_ADDRESS="+address).program("dbus-launch", `echo x > "$DIR/launched"; exit 1`).
				program("notify-send", `echo x > "$DIR/launched"`)
			r := d.run("notify", request("x", "y"))
			r.want(t, exitNobody, "")
			if d.file("launched") != "" {
				t.Error("another program was started")
			}
			if r.took > 2*time.Second {
				t.Errorf("took %s", r.took)
			}
		})
	}
}

func TestNotifyFails(t *testing.T) {
	t.Parallel()
	hung, err := net.Listen("unix", filepath.Join(t.TempDir(), "hung"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hung.Close() }) // it is never accepted from
	busy, refusing := keystoretest.StartBus(t, false), keystoretest.StartBus(t, false)
	(&notifications{hangs: true}).serve(t, busy.Address)
	(&notifications{refuse: true}).serve(t, refusing.Address)
	for name, address := range map[string]string{"hung bus": "unix:path=" + hung.Addr().String(), "hung service": busy.Address, "refuses": refusing.Address} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newDesk(t).set("DBUS_SESSION_BUS_ADDRESS="+address).run("notify", request("x", "y"))
			r.want(t, exitFailed, "")
			if r.took > notifyLimit+2*time.Second {
				t.Errorf("took %s", r.took)
			}
			if name == "refuses" && !strings.Contains(r.errs, "org.example.Refused") {
				t.Errorf("%q", r.errs)
			}
		})
	}
}
