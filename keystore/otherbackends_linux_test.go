package keystore_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"keyfob/internal/cred"
	"keyfob/keystore"
	"keyfob/keystore/internal/wire"
	"keyfob/keystore/keystoretest"
)

// itemKey is the name of the keyring item of the vault in dir.
func itemKey(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "vault.json"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`"id": "([0-9a-f]{32})"`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no id in %s", b)
	}
	return "vault-" + string(m[1])
}

// TestKeyctl uses the kernel's keyring of the user, and removes its item.
func TestKeyctl(t *testing.T) {
	probe := askHelper(t, wire.Request{Op: wire.OpGet, Backend: "keyctl", Key: "vault-" + strings.Repeat("0", 32)})
	if probe.Code != wire.CodeNotFound {
		t.Skipf("skipped: the kernel's keyring (keyctl) can't be used here: %s %s", probe.Code, probe.Message)
	}
	dir := filepath.Join(t.TempDir(), "vault")
	v := unlockedWith(t, dir, "keyctl")
	key := itemKey(t, dir)
	forget := func() {
		askHelper(t, wire.Request{Op: wire.OpDelete, Backend: "keyctl", Key: key})
	}
	t.Cleanup(forget)
	put(t, v, "a", "1")
	wantValue(t, unlockedWith(t, dir, ""), "a", "1")
	if w := v.Warning(); !strings.Contains(w, "reboot") || v.Status().Warning != w {
		t.Errorf("Warning: %q", w)
	}
	// As after a reboot.
	forget()
	wantUnlock(t, openVault(t, dir, ""), dir, keystore.ErrKeyMissing)
}

// TestPass uses a password store and a GPG key of its own.
func TestPass(t *testing.T) {
	for _, p := range []string{"pass", "gpg", "gpgconf"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("skipped: %s is not installed", p)
		}
	}
	home, err := os.MkdirTemp("", "gpg-") // short, for the agent's socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	t.Setenv("HOME", home)
	t.Setenv("GNUPGHOME", home)
	t.Setenv("PASSWORD_STORE_DIR", filepath.Join(home, "store"))
	t.Cleanup(func() { _ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() })
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	run("gpg", "--batch", "--passphrase", "", "--quick-generate-key", "keyfob-test@example.com", "default", "default", "never")
	run("pass", "init", "keyfob-test@example.com")
	dir := filepath.Join(t.TempDir(), "vault")
	put(t, unlockedWith(t, dir, "pass"), "a", "1")
	if _, err := os.Stat(filepath.Join(home, "store", "keyfob", itemKey(t, dir)+".gpg")); err != nil {
		t.Error(err)
	}
	wantValue(t, unlockedWith(t, dir, ""), "a", "1")
	keystoretest.Run(t, func(t *testing.T) cred.Store { return unlockedWith(t, "", "pass") })
	// Without its GPG key the store can't be read.
	if err := os.Rename(filepath.Join(home, "private-keys-v1.d"), filepath.Join(home, "away")); err != nil {
		t.Fatal(err)
	}
	run("gpgconf", "--kill", "all")
	wantUnlock(t, openVault(t, dir, ""), dir, keystore.ErrKeyringLocked)
	t.Setenv("PASSWORD_STORE_DIR", filepath.Join(home, "other"))
	wantUnlock(t, openVault(t, dir, ""), dir, keystore.ErrKeyMissing)
}

// TestPassMissing: without the program there is no keyring.
func TestPassMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	dir := filepath.Join(t.TempDir(), "vault")
	v := openVault(t, dir, "pass")
	wantUnlock(t, v, dir, keystore.ErrNoKeyring)
	if err := v.Status().Err; errors.Is(err, keystore.ErrHelper) || !strings.Contains(err.Error(), "pass") {
		t.Error(err)
	}
}
