package signin

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// noBus is an address that fails at once. Without any address, libraries of
// dialogs would start a bus of their own and leave it behind.
const noBus = "unix:path=/dev/null"

// busAddress is the session bus's address, "" if there is none. It starts
// no bus.
func busAddress() string {
	if a := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); a != "" && !strings.Contains(a, "autolaunch:") {
		return a
	}
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/run/user/" + strconv.Itoa(os.Getuid())} {
		if dir == "" {
			continue
		}
		path := filepath.Join(dir, "bus")
		if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
			return "unix:path=" + escapeBusValue(path)
		}
	}
	return ""
}

// escapeBusValue escapes a value of an address as the D-Bus specification
// says.
func escapeBusValue(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte(`-_/\*.`, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteString("%" + strconv.FormatUint(uint64(c)|0x100, 16)[1:])
	}
	return b.String()
}

// childEnv is the environment of dialogs: ours, and always with a bus
// address.
func childEnv() []string {
	address := busAddress()
	if address == "" {
		address = noBus
	}
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "DBUS_SESSION_BUS_ADDRESS=") {
			env = append(env, kv)
		}
	}
	return append(env, "DBUS_SESSION_BUS_ADDRESS="+address)
}

// graphical reports whether a display answers. The variables alone say
// little: a tmux keeps them from a session that has ended, and a dialog that
// finds no display ends like one that the person closed.
func graphical(ctx context.Context) bool {
	answers := func(network, address string) bool {
		d := net.Dialer{Timeout: 2 * time.Second}
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	}
	if w := os.Getenv("WAYLAND_DISPLAY"); w != "" {
		if !filepath.IsAbs(w) {
			w = filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), w)
		}
		if filepath.IsAbs(w) && answers("unix", w) {
			return true
		}
	}
	display := os.Getenv("DISPLAY")
	i := strings.LastIndexByte(display, ':')
	if i < 0 {
		return false
	}
	host, number := display[:i], display[i+1:]
	number, _, _ = strings.Cut(number, ".")
	n, err := strconv.ParseUint(number, 10, 15)
	if err != nil {
		return false
	}
	if host == "" || host == "unix" {
		path := "/tmp/.X11-unix/X" + number
		return answers("unix", path) || answers("unix", "@"+path)
	}
	return answers("tcp", net.JoinHostPort(strings.Trim(host, "[]"), strconv.FormatUint(6000+n, 10)))
}
