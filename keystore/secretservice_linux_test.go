package keystore_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyfob/internal/cred"
	"keyfob/keystore"
	"keyfob/keystore/internal/wire"
	"keyfob/keystore/keystoretest"
)

// unlockedWith opens the vault in dir ("" for a new one) on the platform's
// keyring and unlocks it.
func unlockedWith(t *testing.T, dir, backend string) *keystore.Vault {
	t.Helper()
	v := openVault(t, dir, backend)
	if err := v.Unlock(t.Context(), cred.Secret{}); err != nil {
		t.Fatalf("Unlock: %v", err)
	}
	return v
}

// wantUnlock unlocks and wants that error, with a hint, a vault that is
// locked and unchanged.
func wantUnlock(t *testing.T, v *keystore.Vault, dir string, want error) {
	t.Helper()
	before := tree(t, dir)
	err := v.Unlock(t.Context(), cred.Secret{})
	if !errors.Is(err, want) || !keystore.NeedsPerson(err) || cred.HintOf(err) == "" {
		t.Errorf("Unlock: %v, hint %q; want %v", err, cred.HintOf(err), want)
	}
	if s := v.Status(); !s.Locked || !errors.Is(s.Err, want) {
		t.Errorf("Status: %+v", s)
	}
	sameTree(t, dir, before)
}

// askHelper does one operation of the helper by hand.
func askHelper(t *testing.T, req wire.Request) *wire.Response {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	cmd := exec.Command(helperPath)
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	defer cmd.Wait()
	req.Version = wire.Version
	resp := &wire.Response{}
	if err := wire.Write(ours, req); err != nil {
		t.Fatal(err)
	}
	if err := wire.Read(ours, resp); err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestSecretServiceConforms(t *testing.T) {
	ss := keystoretest.StartSecretService(t)
	ss.Use(t, "")
	keystoretest.Run(t, func(t *testing.T) cred.Store { return unlockedWith(t, "", "auto") })
}

func TestSecretService(t *testing.T) {
	ss := keystoretest.StartSecretService(t)
	ss.Use(t, "")
	dir := filepath.Join(t.TempDir(), "vault")
	v := unlockedWith(t, dir, "auto")
	put(t, v, "key/dev", "value")
	if s := v.Status(); s.Backend != "secret-service" || s.Locked || s.New || s.Err != nil {
		t.Errorf("Status: %+v", s)
	}
	// One item, in the person's own collection.
	items := ss.Items()
	if len(items) != 1 || !strings.HasPrefix(items[0], "vault-") {
		t.Errorf("items: %q", items)
	}
	key := items[0]

	t.Run("again", func(t *testing.T) {
		wantValue(t, unlockedWith(t, dir, "auto"), "key/dev", "value")
		if got := ss.Items(); !slices.Equal(got, items) {
			t.Errorf("items: %q", got)
		}
	})
	t.Run("locked", func(t *testing.T) {
		w := openVault(t, dir, "")
		ss.Lock()
		wantUnlock(t, w, dir, keystore.ErrKeyringLocked)
		fresh := filepath.Join(t.TempDir(), "vault")
		wantUnlock(t, openVault(t, fresh, ""), fresh, keystore.ErrKeyringLocked)
		ss.Unlock()
		if err := w.Unlock(t.Context(), cred.Secret{}); err != nil {
			t.Fatal(err)
		}
		wantValue(t, w, "key/dev", "value")
	})
	t.Run("hangs", func(t *testing.T) {
		w, err := keystore.Open(keystore.Config{Dir: dir, Helper: helperPath, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		ss.Signal(syscall.SIGSTOP)
		wantUnlock(t, w, dir, keystore.ErrTimeout)
		ss.Signal(syscall.SIGCONT)
		if err := w.Unlock(t.Context(), cred.Secret{}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("killed and restarted", func(t *testing.T) {
		w := openVault(t, dir, "")
		ss.Kill()
		// The bus starts a fresh one, which is locked or has nothing.
		before := tree(t, dir)
		err := w.Unlock(t.Context(), cred.Secret{})
		if !errors.Is(err, keystore.ErrKeyMissing) && !errors.Is(err, keystore.ErrKeyringLocked) {
			t.Errorf("Unlock: %v", err)
		}
		t.Logf("a fresh gnome-keyring: %v", err)
		sameTree(t, dir, before)
		ss.KillAny()
		ss.Start()
		if err := w.Unlock(t.Context(), cred.Secret{}); err != nil {
			t.Fatal(err)
		}
		wantValue(t, w, "key/dev", "value")
		put(t, w, "key/two", "2")
		// The vault that was open all the time never noticed.
		wantValue(t, v, "key/two", "2")
	})
	t.Run("item of a newer version", func(t *testing.T) {
		old := askHelper(t, wire.Request{Op: wire.OpGet, Backend: "secret-service", Key: key})
		if old.Code != wire.CodeOK {
			t.Fatalf("get: %s %s", old.Code, old.Message)
		}
		defer askHelper(t, wire.Request{Op: wire.OpSet, Backend: "secret-service", Key: key, Value: old.Value})
		for item, want := range map[string]error{
			"keyfob-master-key-v2:xyz": keystore.ErrNewerVersion,
			"keyfob-master-key-v1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=": keystore.ErrWrongKey,
			"something else": keystore.ErrWrongKey,
		} {
			askHelper(t, wire.Request{Op: wire.OpSet, Backend: "secret-service", Key: key, Value: []byte(item)})
			before := tree(t, dir)
			w := openVault(t, dir, "")
			if err := w.Unlock(t.Context(), cred.Secret{}); !errors.Is(err, want) {
				t.Errorf("Unlock: %v, want %v", err, want)
			}
			sameTree(t, dir, before)
		}
	})
	t.Run("item gone, recovery key brings it back", func(t *testing.T) {
		recovery, err := v.RecoveryKey(t.Context(), cred.Secret{})
		if err != nil {
			t.Fatal(err)
		}
		if r := askHelper(t, wire.Request{Op: wire.OpDelete, Backend: "secret-service", Key: key}); r.Code != wire.CodeOK {
			t.Fatalf("delete: %s %s", r.Code, r.Message)
		}
		w := openVault(t, dir, "")
		wantUnlock(t, w, dir, keystore.ErrKeyMissing)
		if got := ss.Items(); len(got) != 0 {
			t.Errorf("an item was made: %q", got)
		}
		if err := w.UnlockRecovery(t.Context(), recovery, cred.Secret{}); err != nil {
			t.Fatal(err)
		}
		wantValue(t, w, "key/dev", "value")
		wantValue(t, unlockedWith(t, dir, ""), "key/dev", "value")
	})
}

// TestKilledBetweenKeyringAndHeader: an item without a header that knows of
// it is the key of that vault.
func TestKilledBetweenKeyringAndHeader(t *testing.T) {
	ss := keystoretest.StartSecretService(t)
	ss.Use(t, "")
	dir := filepath.Join(t.TempDir(), "vault")
	v := openVault(t, dir, "")
	header := filepath.Join(dir, "vault.json")
	unkeyed, err := os.ReadFile(header)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Unlock(t.Context(), cred.Secret{}); err != nil {
		t.Fatal(err)
	}
	put(t, v, "a", "1")
	record := filepath.Join(dir, "a.rec")
	saved, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(record); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(header, unkeyed, 0o600); err != nil {
		t.Fatal(err)
	}
	w := unlockedWith(t, dir, "")
	if err := os.WriteFile(record, saved, 0o600); err != nil {
		t.Fatal(err)
	}
	wantValue(t, w, "a", "1")
}

func TestAbsentKeyring(t *testing.T) {
	for name, address := range map[string]func(*testing.T) string{
		"no bus":     func(*testing.T) string { return "unix:path=/dev/null" },
		"no socket":  func(t *testing.T) string { return "unix:path=" + t.TempDir() + "/none" },
		"no address": func(*testing.T) string { return "" },
		"a bus without a Secret Service": func(t *testing.T) string {
			return keystoretest.StartBus(t, false).Address
		},
		"a bus that ends at once": func(t *testing.T) string {
			return listen(t, func(c net.Conn) { c.Close() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := address(t)
			t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
			t.Setenv("DBUS_SESSION_BUS_ADDRESS", a)
			if _, err := os.Stat("/run/user/0/bus"); err == nil && a == "" {
				t.Skip("skipped: this session has a bus of its own at its default place")
			}
			dir := filepath.Join(t.TempDir(), "vault")
			v := openVault(t, dir, "auto")
			wantUnlock(t, v, dir, keystore.ErrNoKeyring)
			t.Log(v.Status().Err)
		})
	}
}

// listen is a bus address where f serves each connection.
func listen(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "bus"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { f(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait(); os.RemoveAll(dir) })
	return "unix:path=" + filepath.Join(dir, "bus")
}

// TestHungBus: the bus accepts and never answers, so that the helper hangs
// before its main. That costs the time limit, once for all callers, and
// leaves no process.
func TestHungBus(t *testing.T) {
	var mu sync.Mutex // guards conns
	conns := 0
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", listen(t, func(c net.Conn) {
		mu.Lock()
		conns++
		mu.Unlock()
		defer c.Close()
		b := make([]byte, 1)
		for {
			if _, err := c.Read(b); err != nil { // until the helper is gone
				return
			}
		}
	}))
	dir := filepath.Join(t.TempDir(), "vault")
	v, err := keystore.Open(keystore.Config{Dir: dir, Helper: helperPath, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	begin := time.Now()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			err := v.Unlock(t.Context(), cred.Secret{})
			if !errors.Is(err, keystore.ErrTimeout) || !keystore.NeedsPerson(err) {
				t.Errorf("Unlock: %v, want ErrTimeout", err)
			}
		})
	}
	wg.Wait()
	if d := time.Since(begin); d < 900*time.Millisecond || d > 4*time.Second {
		t.Errorf("a time limit of 1 s took %v", d)
	}
	mu.Lock()
	defer mu.Unlock()
	if conns != 1 {
		t.Errorf("10 callers made %d connections to the bus", conns)
	}
}

// TestDismissed: gnome-keyring asks, and the person closes the prompt.
func TestDismissed(t *testing.T) {
	ss := keystoretest.StartSecretService(t)
	ss.Use(t, ":99")
	dir := filepath.Join(t.TempDir(), "vault")
	put(t, unlockedWith(t, dir, ""), "a", "1")
	prompts := ss.DismissPrompts()
	ss.Lock()
	w := openVault(t, dir, "")
	wantUnlock(t, w, dir, keystore.ErrDismissed)
	if prompts() == 0 {
		t.Error("there was no prompt")
	}
	fresh := filepath.Join(t.TempDir(), "vault")
	wantUnlock(t, openVault(t, fresh, ""), fresh, keystore.ErrDismissed)
	ss.Unlock()
	if err := w.Unlock(t.Context(), cred.Secret{}); err != nil {
		t.Fatal(err)
	}
	wantValue(t, w, "a", "1")
}
