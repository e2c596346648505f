package e2e

import (
	"strings"
	"testing"
	"time"

	"keyfob/keystore/keystoretest"
)

// TestARealKeyring: the main job with the master key in a Secret Service;
// what happens when that is locked, and when it is not there.
func TestARealKeyring(t *testing.T) {
	t.Parallel()
	s := keystoretest.StartSecretService(t)
	w := newWorld(t)
	w.env["KEYFOB_KEYSTORE"] = "" // auto: the platform's
	w.env["KEYFOB_PASSPHRASE_FILE"] = ""
	for _, kv := range s.Env("") {
		k, v, _ := strings.Cut(kv, "=")
		w.env[k] = v
	}
	w.env["HOME"], w.env["XDG_DATA_HOME"], w.env["XDG_CONFIG_HOME"] = w.home, w.path("share"), w.path("config")
	w.addKeys("base")
	first := w.credentials("deploy")
	if st := w.status(); st.Keystore.Backend != "secret-service" || st.Keystore.Locked {
		t.Errorf("keystore: %+v", st.Keystore)
	}
	if items := s.Items(); len(items) != 1 {
		t.Errorf("the keyring has the items %v", items)
	}
	w.must(nil, "stop")
	if again := w.credentials("deploy"); again != first {
		t.Error("other credentials after a restart")
	}

	w.must(nil, "stop")
	s.Lock()
	r := w.run(nil, "credential-process", "--profile", "deploy")
	if r.code != 3 || !strings.Contains(r.err, "locked") || !strings.Contains(r.err, "\nhint: ") {
		t.Errorf("a locked keyring: exit %d, %q", r.code, r.err)
	}
	s.Unlock()
	w.must(nil, "unlock")
	if again := w.credentials("deploy"); again != first {
		t.Error("other credentials after the keyring was unlocked")
	}

	w.must(nil, "stop")
	w.env["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/dev/null"
	r = w.run(nil, "credential-process", "--profile", "deploy")
	if r.code != 3 || !strings.Contains(r.err, "keyring") {
		t.Errorf("no keyring: exit %d, %q", r.code, r.err)
	}
}

// TestAKeyringThatComesLater: a daemon without a keyring lives, says what it
// lacks, and goes on by itself once there is one.
func TestAKeyringThatComesLater(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the daemon looks once a minute")
	}
	s := keystoretest.StartSecretService(t)
	w := newWorld(t)
	w.env["KEYFOB_KEYSTORE"] = ""
	w.env["KEYFOB_PASSPHRASE_FILE"] = ""
	for _, kv := range s.Env("") {
		k, v, _ := strings.Cut(kv, "=")
		w.env[k] = v
	}
	w.env["HOME"], w.env["XDG_DATA_HOME"], w.env["XDG_CONFIG_HOME"] = w.home, w.path("share"), w.path("config")
	w.addKeys("base")
	first := w.credentials("deploy")
	w.must(nil, "stop")
	s.Lock()
	if r := w.run(nil, "credential-process", "--profile", "deploy"); r.code != 3 {
		t.Fatalf("with a locked keyring: exit %d, %q", r.code, r.err)
	}
	pid := w.daemonPID()
	s.Unlock() // nobody tells the daemon
	for end := time.Now().Add(100 * time.Second); w.status().Keystore.Locked; time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("after 100 s: %+v", w.status().Keystore)
		}
	}
	if again := w.credentials("deploy"); again != first || w.daemonPID() != pid {
		t.Errorf("other credentials or another daemon: pid %d, %d", w.daemonPID(), pid)
	}
}
