//go:build unix

package service

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const fakeLaunchctl = `#!/bin/sh
echo "$*" >>"$STATE/log"
if [ -e "$STATE/fail" ]; then
	IFS='|' read -r what text <"$STATE/fail"
	[ "$what" = "$1" ] && echo "$text" >&2 && exit 5
fi
case $1 in
print)
	[ -e "$STATE/loaded" ] || { echo 'Could not find service "org.keyfob.keyfobd" in domain for port' >&2; exit 113; }
	printf 'gui/1234/org.keyfob.keyfobd = {\n\tstate = running\n\n\tpid = 4321\n\tlast exit code = (never exited)\n}\n'
	;;
bootstrap) touch "$STATE/loaded" ;;
bootout) rm -f "$STATE/loaded" ;;
esac
exit 0
`

func (w *world) become(platform string, programs map[string]string) {
	w.t.Helper()
	bin := w.t.TempDir()
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	w.t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	w.t.Setenv("UNITS", w.root)
	w.c.Platform = platform
}

// told is log without what only asks.
func (w *world) told() []string {
	return slices.DeleteFunc(w.log(), func(l string) bool {
		return strings.HasPrefix(l, "print") || l == "rc-service keyfob status"
	})
}

func (w *world) mustUninstall() {
	w.t.Helper()
	p, err := w.manager().PlanUninstall(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.manager().Uninstall(w.t.Context(), p); err != nil {
		w.t.Fatal(err)
	}
}

func TestLaunchd(t *testing.T) {
	w := newWorld(t, false)
	w.become("launchd", map[string]string{"launchctl": fakeLaunchctl})
	plist := filepath.Join(w.root, "home/you/Library/LaunchAgents/org.keyfob.keyfobd.plist")
	w.mustInstall()
	want := []string{"enable gui/1234/org.keyfob.keyfobd", "bootstrap gui/1234 " + plist}
	if got := w.told(); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if p, err := w.manager().PlanInstall(t.Context()); err != nil || !p.Empty() {
		t.Errorf("a second install: %v %v", p, err)
	}
	w.told()
	w.c.Program = "/opt/new/keyfobd"
	w.mustInstall()
	if got, want := w.told(), []string{"bootout gui/1234/org.keyfob.keyfobd", "bootstrap gui/1234 " + plist}; !slices.Equal(got, want) {
		t.Errorf("upgrade: told %q, want %q", got, want)
	}
	if s, err := w.manager().Status(t.Context()); err != nil || !s.Running || s.PID != 4321 || s.State != "running" {
		t.Errorf("%+v, %v", s, err)
	}
	for verb, want := range map[string]string{"restart": "kickstart -k gui/1234/org.keyfob.keyfobd", "stop": "bootout gui/1234/org.keyfob.keyfobd"} {
		w.set("loaded", "")
		w.told()
		if err := w.manager().control(t.Context(), verb); err != nil {
			t.Error(err)
		}
		if got := w.told(); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: told %q", verb, got)
		}
	}
	w.mustUninstall()
	if left := w.files(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	w.set("fail", "bootstrap|Bootstrap failed: 125: Domain does not support specified action")
	wantError(t, w.install(), "not logged in at the screen")
	if left := w.files(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestTailFollows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	wantError(t, tail(t.Context(), &bytes.Buffer{}, path, LogOptions{Lines: 1}), "cannot read the log")
	if err := os.WriteFile(path, []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- tail(ctx, out, path, LogOptions{Lines: 1, Follow: true}) }()
	read := func(want string) {
		t.Helper()
		_ = r.SetReadDeadline(time.Now().Add(5 * time.Second))
		b := make([]byte, len(want))
		if n, err := r.Read(b); err != nil || string(b[:n]) != want {
			t.Errorf("read %q, %v, want %q", b[:n], err, want)
		}
	}
	read("two\n")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("three\n"); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	read("three\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("four\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	read("four\n")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTaskFileIsUTF16(t *testing.T) {
	b := utf16LE("a\nü")
	if want := []byte{0xff, 0xfe, 'a', 0, '\r', 0, '\n', 0, 0xfc, 0}; !bytes.Equal(b, want) || binary.LittleEndian.Uint16(b) != 0xfeff {
		t.Errorf("% x", b)
	}
}

// What enable wrote tells what was enabled, on every platform.
func TestLinkLocalFilesAreReadBack(t *testing.T) {
	both := []netip.Addr{netip.MustParseAddr(metadataIPv4), netip.MustParseAddr(metadataIPv6)}
	for _, forUser := range []string{"", "alice", "1007"} {
		c := Config{Program: "/usr/bin/keyfobd", System: true}
		for name, text := range map[string]string{"openrc": c.linkLocalOpenRCText(both, forUser, true), "launchd": c.linkLocalPlist(both, forUser, false)} {
			who, addrs := wordsOf(text)
			if who != forUser || !slices.Equal(addrs, both) {
				t.Errorf("%s: read %q %v of\n%s", name, who, addrs, text)
			}
			if ours, untouched := madeBy(text); !ours || !untouched {
				t.Errorf("%s is not known as ours", name)
			}
		}
	}
}

func TestLinkLocalLaunchd(t *testing.T) {
	w := newWorld(t, true)
	w.become("launchd", map[string]string{"launchctl": strings.ReplaceAll(fakeLaunchctl, "gui/1234/org.keyfob.keyfobd", "system/org.keyfob.link-local")})
	c := LinkLocalConfig{Config: w.c, User: "root", IPv4Only: true}
	c.Force = true
	c.System = false
	l, err := newLinkLocal(c)
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.planEnable(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	plist := filepath.Join(w.root, "Library/LaunchDaemons/org.keyfob.link-local.plist")
	if got := w.told(); !slices.Equal(got, []string{"enable system/org.keyfob.link-local", "bootstrap system " + plist}) {
		t.Errorf("told %q", got)
	}
	if p, err = l.planDisable(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := p.runAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.told(); !slices.Equal(got, []string{"bootout system/org.keyfob.link-local"}) {
		t.Errorf("told %q", got)
	}
	if left := w.files(); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}
