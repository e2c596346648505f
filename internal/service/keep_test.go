//go:build unix

package service

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var oddArgs = []string{"--config", `/x y/$HOME/100%/$$/%%/a"b\c'd;<&>#`, "--data-dir", "/d", "--socket", `/s\`}

func TestWrittenArgumentsAreReadBack(t *testing.T) {
	c := Config{Program: `/opt/a b$c%d;e/keyfobd`, Args: oddArgs, Env: []string{"PATH=/e f"}, Getenv: func(string) string { return "/home/you" }}
	want := append([]string{c.Program}, c.args()...)
	plist, err := c.launchdText()
	if err != nil {
		t.Fatal(err)
	}
	unit := unitArgs(marked(c.unitText()))
	unit[0] = c.Program // in which a $ is one
	for host, got := range map[string][]string{"systemd": unit, "launchd": plistArgs(plist)} {
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
	var line []string
	for _, a := range c.args() {
		line = append(line, windowsArg(a))
	}
	if got := taskLine(utf16LE(c.taskText("S-1"))); got != strings.Join(line, " ") {
		t.Errorf("windows: %s, want %s", got, line)
	}
	if unitArgs("") != nil || plistArgs("<plist>") != nil || taskLine([]byte("x")) != "" {
		t.Error("nothing is something")
	}
}

// An upgrade is a plain install: the daemon stays with its vault and settings.
func TestAnotherInstallKeepsWhereThingsAre(t *testing.T) {
	for platform, become := range map[string]func(*world){
		"systemd": func(*world) {},
		"launchd": func(w *world) { w.become("launchd", map[string]string{"launchctl": fakeLaunchctl}) },
	} {
		t.Run(platform, func(t *testing.T) {
			w := newWorld(t, false)
			become(w)
			env := map[string]string{"HOME": "/home/you"}
			w.c.Getenv = func(name string) string { return env[name] }
			file := filepath.Join(w.units, serviceUnit)
			if platform == "launchd" {
				file = filepath.Join(w.root, "home/you/Library/LaunchAgents", Label+".plist")
			}
			text := func() string {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			dir := t.TempDir()
			mine, other := filepath.Join(dir, "my 100%.toml"), filepath.Join(dir, "other.toml")
			for _, f := range []string{mine, other} {
				if err := os.WriteFile(f, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			install := func(args ...string) string {
				t.Helper()
				var said bytes.Buffer
				if err := Main(t.Context(), w.c, append([]string{"install"}, args...), &said, &said); err != nil {
					t.Fatal(err)
				}
				return said.String()
			}
			if said := install("--config", mine, "--data-dir", "/home/you/vault"); strings.Contains(said, "keeps") {
				t.Errorf("%s", said)
			}
			before := text()
			w.set("loaded", "")
			said := install()
			if text() != before || !strings.Contains(said, "note: keeps --config "+mine+" of the installed service") || !strings.Contains(said, "keeps --data-dir /home/you/vault") || !strings.Contains(said, "installed and runs") {
				t.Errorf("%s\n%s", said, text())
			}
			if said := install("--data-dir", "/home/you/vault"); text() != before || strings.Contains(said, "keeps --data-dir") {
				t.Errorf("%s\n%s", said, text())
			}
			if said := install("--config", other); strings.Contains(text(), mine) || strings.Contains(text(), "my 100") || !strings.Contains(text(), other) || strings.Contains(said, "keeps --config") {
				t.Errorf("%s\n%s", said, text())
			}
			env["KEYFOB_CONFIG"] = mine // it counts as a flag does
			if said := install(); strings.Contains(text(), other) || strings.Contains(said, "keeps --config") {
				t.Errorf("%s\n%s", said, text())
			}
			w.mustUninstall()
			delete(env, "KEYFOB_CONFIG")
			if said := install(); strings.Contains(said, "keeps") || strings.Contains(text(), "--config") {
				t.Errorf("%s\n%s", said, text())
			}
		})
	}
}
