package service

import (
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files of packaging/ anew")

// packagingFiles are the files that packages install, by their place below
// packaging/. They are the templates, for programs in /usr/bin.
func packagingFiles(t *testing.T) map[string]string {
	t.Helper()
	user := Config{Program: "/usr/bin/keyfobd"}
	system := Config{Program: "/usr/bin/keyfobd", System: true}
	mac := Config{Program: "/opt/homebrew/bin/keyfobd", Getenv: func(string) string { return "/Users/you" }}
	macSystem := Config{Program: "/usr/local/bin/keyfobd", System: true}
	agent, err := mac.launchdText()
	if err != nil {
		t.Fatal(err)
	}
	daemon, err := macSystem.launchdText()
	if err != nil {
		t.Fatal(err)
	}
	windows := Config{Program: `C:\Program Files\keyfob\keyfobd.exe`}
	both := []netip.Addr{netip.MustParseAddr(metadataIPv4), netip.MustParseAddr(metadataIPv6)}
	return map[string]string{
		"systemd/system/keyfob.service":                   system.unitText(),
		"systemd/system/keyfob.socket":                    system.socketText(),
		"systemd/system/keyfob.service.d/passphrase.conf": render("systemd-passphrase.conf", map[string]string{"CREDENTIAL": "/etc/credstore.encrypted/keyfob.passphrase"}),
		"systemd/user/keyfob.service":                     user.unitText(),
		"systemd/user/keyfob.socket":                      user.socketText(),
		"systemd/sysusers.conf":                           render("sysusers.conf", nil),
		"openrc/keyfob":                                   system.openrcPackageText(),
		// What keyfob link-local enable writes; no package installs it.
		"systemd/link-local/keyfob-link-local.service":  system.linkLocalUnitText(both, false),
		"systemd/link-local/machine/keyfob-imds.socket": system.imdsSocketText(both, ""),
		"systemd/link-local/person/keyfob-imds.socket":  system.imdsSocketText(both, "alice"),
		"systemd/link-local/person/keyfob-imds.service": system.handOverText("alice"),
		"openrc/link-local/machine/keyfob-link-local":   system.linkLocalOpenRCText(both, "", false),
		"openrc/link-local/person/keyfob-link-local":    system.linkLocalOpenRCText(both, "alice", false),
		"launchd/link-local/machine.plist":              macSystem.linkLocalPlist(both, "", false),
		"launchd/link-local/person.plist":               macSystem.linkLocalPlist(both, "alice", false),
		"launchd/agent.plist":                           agent,
		"launchd/daemon.plist":                          daemon,
		"windows/logon-task.xml":                        windows.taskText("S-1-5-21-1-2-3-1001"),
	}
}

func notOnWindows(t *testing.T, why string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip(why)
	}
}

func TestPackagingFilesAreTheTemplates(t *testing.T) {
	notOnWindows(t, "the templates are of other systems")
	for name, want := range packagingFiles(t) {
		path := filepath.Join("..", "..", "packaging", filepath.FromSlash(name))
		if strings.Contains(want, "@") && !strings.Contains(name, "passphrase") {
			for _, at := range []string{"@EXEC@", "@KEYFOBD@", "@SOCKET@", "@ARGS@", "@LABEL@", "@ENV@", "@LOG@", "@LISTEN@", "@WHOSE@", "@EXECSTOP@"} {
				if strings.Contains(want, at) {
					t.Errorf("%s: %s is not filled in", name, at)
				}
			}
		}
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			mode := fs.FileMode(0o644)
			if strings.HasPrefix(name, "openrc") {
				mode = 0o755
			}
			if err := os.WriteFile(path, []byte(want), mode); err != nil {
				t.Fatal(err)
			}
			continue
		}
		have, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ReplaceAll(string(have), "\r\n", "\n") != want {
			t.Errorf("%s is not what the templates give: go test ./internal/service -run Packaging -update", name)
		}
	}
}

func TestSystemUnitIsHardenedAndNotBlind(t *testing.T) {
	notOnWindows(t, "the unit is of another system")
	text := Config{Program: "/usr/bin/keyfobd", System: true}.unitText()
	for _, line := range []string{"Type=notify", "WatchdogSec=150", "Restart=on-failure", "User=keyfob", "NoNewPrivileges=yes", "ProtectSystem=strict",
		"StateDirectory=keyfob", "RuntimeDirectory=keyfob", "RuntimeDirectoryPreserve=yes", "LimitCORE=0", "NoExecPaths=/", "ExecPaths=/usr/bin/keyfobd /usr/bin/keyfob-keyring"} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the unit lacks %s", line)
		}
	}
	for _, setting := range []string{"PrivateUsers", "PrivateNetwork", "PrivatePIDs", "DynamicUser"} {
		if strings.Contains(text, "\n"+setting+"=") {
			t.Errorf("the unit has %s, which hides callers", setting)
		}
	}
}

// TestSystemdAcceptsTheUnits asks the real systemd-analyze.
func TestSystemdAcceptsTheUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skipf("%s: needs systemd-analyze", t.Name())
	}
	for _, system := range []bool{true, false} {
		for _, odd := range []string{"bin", "a b$c%d;e"} {
			dir := filepath.Join(t.TempDir(), odd)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, p := range []string{"keyfobd", "keyfob-keyring"} {
				if err := os.WriteFile(filepath.Join(dir, p), []byte("#!/bin/sh\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			c := Config{System: system, Program: filepath.Join(dir, "keyfobd"), Args: []string{"--config", `/x y/$HOME/100%/a"b\c`}, Env: []string{`PATH=/a b:/c%d:/e\f`}}
			units := t.TempDir()
			service, socket := filepath.Join(units, serviceUnit), filepath.Join(units, socketUnit)
			for path, text := range map[string]string{service: c.unitText(), socket: c.socketText()} {
				if err := os.WriteFile(path, []byte(marked(text)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			scope := "--user"
			if system {
				scope = "--system"
			}
			cmd := exec.Command("systemd-analyze", scope, "--man=no", "verify", service, socket)
			cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Contains(string(out), units) {
				t.Errorf("verify (system %v, %s): %v\n%s", system, odd, err, out)
			}
			if system {
				out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", service).CombinedOutput()
				if err != nil {
					t.Errorf("exposure above 2.0: %v\n%s", err, out)
				}
			}
		}
	}
}

func TestXMLIsWellFormed(t *testing.T) {
	notOnWindows(t, "the plist is of another system")
	odd := `/Applications/<a> & "b"'s/keyfobd`
	mac := Config{Program: odd, Args: []string{"--config", "a&b"}, Env: []string{"PATH=/a<b"}, Getenv: func(string) string { return "/Users/a&b" }}
	plist, err := mac.launchdText()
	if err != nil {
		t.Fatal(err)
	}
	task := strings.Replace(mac.taskText("S-1-5-18"), "UTF-16", "UTF-8", 1)
	for name, text := range map[string]string{"plist": plist, "task": task} {
		d := xml.NewDecoder(strings.NewReader(text))
		var all strings.Builder
		for {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, text)
			}
			if chars, ok := tok.(xml.CharData); ok {
				all.Write(chars)
			}
		}
		if !strings.Contains(all.String(), odd) {
			t.Errorf("%s: the program's path was changed:\n%s", name, text)
		}
	}
	if ours, untouched := madeBy(plist); !ours || !untouched {
		t.Error("the plist is not known as ours")
	}
}

func TestMarkTellsEdits(t *testing.T) {
	text := marked("[Unit]\nDescription=x\n")
	for _, c := range []struct {
		text            string
		ours, untouched bool
	}{
		{text, true, true}, {text + "# more\n", true, false}, {strings.Replace(text, "x", "y", 1), true, false}, {"[Unit]\n", false, false}, {"", false, false},
	} {
		if ours, untouched := madeBy(c.text); ours != c.ours || untouched != c.untouched {
			t.Errorf("%q: ours %v, untouched %v", c.text, ours, untouched)
		}
	}
}

func TestQuoting(t *testing.T) {
	notOnWindows(t, "the files are of other systems")
	for in, want := range map[string]string{
		"/usr/bin/x": "/usr/bin/x", "a b": `"a b"`, "100%": "100%%", `a\b`: `"a\\b"`, `a"b`: `"a\"b"`, "a$b": "a$$b", "": `""`, "a;b": `"a;b"`,
	} {
		if got := unitArg(in); got != want {
			t.Errorf("unitArg(%q) = %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{`a b`: `"a b"`, `C:\x y\`: `"C:\x y\\"`, `a"b`: `"a\"b"`, `a\"b`: `"a\\\"b"`, "": `""`, "plain": "plain"} {
		if got := windowsArg(in); got != want {
			t.Errorf("windowsArg(%q) = %s, want %s", in, got, want)
		}
	}
	if _, err := New(Config{Program: "/a\nb/keyfobd", Platform: "systemd", Getenv: os.Getenv}); err == nil {
		t.Error("a line break in a path was accepted")
	}
	m, err := New(Config{Program: `/a"b/keyfobd`, Platform: "systemd", Root: t.TempDir(), System: true, Getenv: os.Getenv})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.PlanInstall(t.Context()); err == nil || !strings.Contains(err.Error(), "in its path") {
		t.Errorf("a path that systemd refuses: %v", err)
	}
}

func TestNoServiceManager(t *testing.T) {
	notOnWindows(t, "Windows has one")
	for _, platform := range []string{"unix-systemv", "windows"} {
		if platform == runtime.GOOS {
			continue
		}
		_, err := New(Config{Program: "/usr/bin/keyfobd", Platform: platform, Getenv: os.Getenv})
		wantError(t, err, "no service manager")
	}
	_, err := New(Config{Program: "/usr/bin/keyfobd", Platform: "openrc", Getenv: os.Getenv})
	wantError(t, err, "OpenRC has none")
}

func wantError(t *testing.T, err error, words string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Text, words) || !strings.HasPrefix(e.Text, "cannot ") || e.Help == "" || strings.Contains(e.Text, "\n") {
		t.Errorf("error %q (%+v), want one line with %q and a hint", err, e, words)
	}
}

func TestMainRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, args := range [][]string{{}, {"reinstall"}, {"install", "--sytem"}, {"logs", "--lines", "x"}, {"logs", "--lines"}, {"start", "stop"}} {
		err := Main(context.Background(), Config{}, args, io.Discard, io.Discard)
		var usage *UsageError
		if !errors.As(err, &usage) || usage.Hint() == "" {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestLastLines(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{{"a\nb\nc\n", 2, "b\nc\n"}, {"a\nb\nc", 2, "b\nc"}, {"a\n", 5, "a\n"}, {"", 5, ""}, {"a\nb\n", 1, "b\n"}} {
		if got := string(lastLines([]byte(c.in), c.n)); got != c.want {
			t.Errorf("%q, %d: %q", c.in, c.n, got)
		}
	}
}

func TestEnvironTakesOnlyWhatIsNamed(t *testing.T) {
	env := Environ(false, []string{"HOME=/h", "AWS_PROFILE=p", "AWS_ACCESS_KEY_ID=AKIA", "AWS_WEB_IDENTITY_TOKEN_FILE=/t", "KEYFOB_KEYSTORE=pass", "https_proxy=x",
		"AWS_ENDPOINT_URL_STS=e", "KEYFOB_READY_FD=9", "LD_PRELOAD=/evil", "BROKEN"})
	if got := strings.Join(env, " "); got != "HOME=/h KEYFOB_KEYSTORE=pass https_proxy=x AWS_ENDPOINT_URL_STS=e" {
		t.Errorf("%s", got)
	}
	if runtime.GOOS == "linux" {
		env = Environ(true, []string{"HOME=/home/evil", "XDG_CONFIG_HOME=/home/evil/.config"})
		if got := strings.Join(env, " "); got != "HOME=/var/lib/keyfob XDG_CONFIG_HOME=/etc XDG_DATA_HOME=/var/lib XDG_RUNTIME_DIR=/run" {
			t.Errorf("%s", got)
		}
	}
}
