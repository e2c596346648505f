//go:build unix

package service

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyfob/internal/settings"
)

// A person's service runs with the settings file that the install was given,
// wherever its flag stood, and with the socket that this file names.
func TestInstallWritesTheSettingsFileDown(t *testing.T) {
	w := newWorld(t, false)
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("mine.toml", []byte("socket = \"/home/you/s.sock\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := w.c
	c.Getenv = func(name string) string {
		return map[string]string{"HOME": "/home/you", "KEYFOB_LOG_LEVEL": "of no use to the service"}[name]
	}
	install := func(args ...string) error { return Main(t.Context(), c, args, io.Discard, io.Discard) }
	unit := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(w.units, name))
		return string(b)
	}
	for _, args := range [][]string{{"install", "--config", "mine.toml"}, {"--config=mine.toml", "install"}, {"--config", "mine.toml", "install"}} {
		if err := install(args...); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		if text := unit("keyfob.service"); !strings.Contains(text, "run --service --config "+real+"/mine.toml\n") {
			t.Errorf("%q: %s", args, text)
		}
		if text := unit("keyfob.socket"); !strings.Contains(text, "\nListenStream=/home/you/s.sock\n") {
			t.Errorf("%q: %s", args, text)
		}
		w.mustUninstall()
	}

	// What the daemon would refuse is refused before anything is written.
	var bad *settings.Error
	if err := install("install", "--config", "missing.toml"); !errors.As(err, &bad) || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile("mine.toml", []byte("nonsense = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := install("install", "--config", "mine.toml"); !errors.As(err, &bad) || bad.Line != 1 {
		t.Errorf("%v", err)
	}
	var usage *UsageError
	for _, flag := range settingFlags {
		if err := install("install", "--"+flag, "x"); !errors.As(err, &usage) || !strings.Contains(usage.Hint(), "config.toml") {
			t.Errorf("--%s: %v", flag, err)
		}
	}
	if left := w.files(); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

func TestPlaces(t *testing.T) {
	t.Chdir("/")
	for _, c := range []struct {
		args string
		want settings.Flags
	}{
		{"install", settings.Flags{}},
		{"--config x/c.toml install --data-dir=/d", settings.Flags{Config: "/x/c.toml", DataDir: "/d"}},
		{"install --socket /s --keystore pass --passphrase-file p --profiles-file /f", settings.Flags{Socket: "/s", Keystore: "pass", PassphraseFile: "/p", ProfilesFile: "/f"}},
		{"install --system", settings.Flags{System: true}},
		{"install --config", settings.Flags{}},
	} {
		if got := Places(strings.Fields(c.args)); got != c.want {
			t.Errorf("%s: %+v", c.args, got)
		}
	}
}

// keyfobd removes the machine's vault for nobody who has not said yes.
func TestPurgeIsNotUnasked(t *testing.T) {
	w := newWorld(t, true)
	vault := filepath.Join(w.root, "var/lib/keyfob/vault")
	if err := os.MkdirAll(vault, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct {
		also          string
		refused, gone bool
	}{{"", true, false}, {"--dry-run", false, false}, {"--yes", false, true}} {
		var bad *UsageError
		err := Main(t.Context(), w.c, append([]string{"uninstall", "--system", "--purge"}, strings.Fields(one.also)...), io.Discard, io.Discard)
		if errors.As(err, &bad) != one.refused || one.refused && bad.Hint() != "keyfobd service uninstall --system --purge --yes" || !one.refused && err != nil {
			t.Errorf("%q: %v", one.also, err)
		}
		if _, err := os.Stat(vault); (err != nil) != one.gone {
			t.Errorf("%q: the vault: %v", one.also, err)
		}
	}
}
