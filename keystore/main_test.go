package keystore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"keyfob/internal/cred"
	"keyfob/keystore"
	"keyfob/keystore/keystoretest"
)

// helperPath is the keyfob-keyring that TestMain built.
var helperPath string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if role := os.Getenv("KEYSTORE_TEST_ROLE"); role != "" {
		return child(role)
	}
	// No test touches the real session.
	for k, v := range map[string]string{"DBUS_SESSION_BUS_ADDRESS": "unix:path=/dev/null", "DISPLAY": "", "WAYLAND_DISPLAY": ""} {
		if err := os.Setenv(k, v); err != nil {
			panic(err)
		}
	}
	dir, err := os.MkdirTemp("", "keystore-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if helperPath, err = keystoretest.BuildHelper(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

const testPassphrase = "canary-passphrase-Zm9vYmFy"

// passphraseVault opens the vault in dir ("" for a new one), unlocked.
func passphraseVault(t testing.TB, dir string) *keystore.Vault {
	t.Helper()
	v := openVault(t, dir, keystore.BackendPassphrase)
	if err := v.Unlock(t.Context(), cred.NewSecret(testPassphrase)); err != nil {
		t.Fatalf("Unlock: %v", err)
	}
	return v
}

// openVault opens the vault in dir ("" for a new one), locked.
func openVault(t testing.TB, dir, backend string) *keystore.Vault {
	t.Helper()
	if dir == "" {
		dir = filepath.Join(t.TempDir(), "vault")
	}
	v, err := keystore.Open(keystore.Config{Dir: dir, Backend: backend, Helper: helperPath})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return v
}

func put(t testing.TB, s cred.Store, name, value string) {
	t.Helper()
	if err := s.Put(t.Context(), name, cred.NewSecret(value)); err != nil {
		t.Fatalf("Put(%q): %v", name, err)
	}
}

func wantValue(t testing.TB, s cred.Store, name, want string) {
	t.Helper()
	got, err := s.Get(t.Context(), name)
	if err != nil || got.Reveal() != want {
		t.Fatalf("Get(%q) = %d bytes, %v; want the %d bytes that were put", name, got.Len(), err, len(want))
	}
}
