package keystore

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

func FuzzFileName(f *testing.F) {
	for _, s := range []string{"a", "key/dev", "CON", "con", "com1", "~x", "", "..", "%2f", "Ü", strings.Repeat("x", 101), strings.Repeat("X", 34), "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// s as a record's name.
		if s != "" && len(s) <= maxName {
			file := fileName(s)
			stem, ok := strings.CutSuffix(file, recordSuffix)
			if !ok || len(stem) > maxStem || strings.ToLower(file) != file || strings.Trim(file, "abcdefghijklmnopqrstuvwxyz0123456789-_+%~.") != "" ||
				strings.Contains(stem, ".") || reservedOnWindows(stem) {
				t.Fatalf("fileName(%q) = %q is not safe", s, file)
			}
			name, hashed, ok := recordName(file)
			if !ok || !hashed && name != s {
				t.Fatalf("fileName(%q) = %q, which reads as %q, %v", s, file, name, ok)
			}
			if r, ok := corruptOf(file + corruptMark + "1700000000"); !ok || r != file {
				t.Fatalf("%q set aside is not known again: %q", file, r)
			}
		}
		// s as a file's name.
		if name, hashed, ok := recordName(s); ok && !hashed && fileName(name) != s {
			t.Fatalf("recordName(%q) = %q, whose file is %q", s, name, fileName(name))
		}
	})
}

func TestFileNames(t *testing.T) {
	for name, want := range map[string]string{
		"key/dev": "key+dev.rec",
		"key/Dev": "key+%44ev.rec",
		"con":     "%63on.rec",
		"lpt3":    "%6cpt3.rec",
		"CON":     "%43%4f%4e.rec",
		"a.b":     "a%2eb.rec",
		"..":      "%2e%2e.rec",
		"é":       "%c3%a9.rec",
	} {
		if got := fileName(name); got != want {
			t.Errorf("fileName(%q) = %q, want %q", name, got, want)
		}
	}
	for _, file := range []string{
		"", ".rec", "x", "A.rec", "x.rec.corrupt-1", "%4.rec", "%6G.rec", "%61.rec" /* a has a shorter form */, "%2F.rec",
		"vault.json", "~.rec", "~00.rec", "con.rec", "a b.rec", ".tmp-1", "~" + strings.Repeat("0", 63) + "G.rec",
	} {
		if name, _, ok := recordName(file); ok {
			t.Errorf("recordName(%q) = %q, want none", file, name)
		}
	}
}

func testSeal(t testing.TB) (*unlocked, vaultID) {
	t.Helper()
	id := vaultID{1, 2, 3}
	u, err := newUnlocked(bytes.Repeat([]byte{7}, masterSize), id)
	if err != nil {
		t.Fatal(err)
	}
	return u, id
}

// FuzzRecord: whatever stands in a file, it is refused in one of the ways
// that Get knows, or it is what was sealed.
func FuzzRecord(f *testing.F) {
	u, id := testSeal(f)
	good := sealRecord(u.aead, id, "key/dev", []byte("the value"))
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(recordMagic))
	f.Add([]byte(recordMagic + "\x02and more"))
	f.Add([]byte(recordMagic + "\x01\xff\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		value, err := openRecord(u.aead, id, "key/dev", bytes.Clone(b))
		if err == nil {
			// Nothing else was ever sealed.
			if string(value) != "the value" {
				t.Fatalf("%x was opened as %q", b, value)
			}
			return
		}
		if _, bad := isBad(err); !bad && !errors.Is(err, ErrNewerVersion) {
			t.Fatalf("an error of neither kind: %v", err)
		}
	})
}

func TestRecordIsBound(t *testing.T) {
	u, id := testSeal(t)
	good := sealRecord(u.aead, id, "key/dev", []byte("the value"))
	if v, err := openRecord(u.aead, id, "key/dev", bytes.Clone(good)); err != nil || string(v) != "the value" {
		t.Fatalf("openRecord: %q, %v", v, err)
	}
	for i := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			if _, err := openRecord(u.aead, id, "key/dev", b); err == nil {
				t.Fatalf("byte %d with bit %d turned over was opened", i, bit)
			}
		}
	}
	for n := range good {
		if _, err := openRecord(u.aead, id, "key/dev", bytes.Clone(good[:n])); err == nil {
			t.Fatalf("the first %d bytes were opened", n)
		}
	}
	// Under another name, also when the name in the file is changed too.
	if _, err := openRecord(u.aead, id, "key/prd", bytes.Clone(good)); err == nil {
		t.Error("it was opened as another record")
	}
	forged := bytes.Replace(bytes.Clone(good), []byte("key/dev"), []byte("key/prd"), 1)
	if _, err := openRecord(u.aead, id, "key/prd", forged); err == nil {
		t.Error("it was opened with its name changed")
	}
	if _, err := openRecord(u.aead, vaultID{9}, "key/dev", bytes.Clone(good)); err == nil {
		t.Error("it was opened in another vault")
	}
	again := sealRecord(u.aead, id, "key/dev", []byte("the value"))
	at := recordHead + len("key/dev")
	if bytes.Equal(good[at:at+chacha20poly1305.NonceSizeX], again[at:at+chacha20poly1305.NonceSizeX]) {
		t.Error("a nonce was used twice")
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte(`{"version":1,"id":"00112233445566778899aabbccddeeff"}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"id":"00112233445566778899aabbccddeeff","backend":"passphrase","check":"AAAAAAAAAAAAAAAAAAAAAA==","passphrase":{"argon2id":{"time":1,"memory_kib":8192,"threads":1,"salt":"AAAAAAAAAAAAAAAAAAAAAA=="},"sealed":""}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewerVersion) {
				t.Fatalf("an error of neither kind: %v", err)
			}
			return
		}
		if h.keyed() && h.Backend == BackendPassphrase && (!h.Passphrase.KDF.Valid() || len(h.Passphrase.Sealed) != wrappedSize) {
			t.Fatal("a header whose key can't be unwrapped was taken")
		}
	})
}

func TestItemFormat(t *testing.T) {
	master := newMaster()
	got, err := decodeItem(encodeItem(master))
	if err != nil || !bytes.Equal(got, master) {
		t.Fatalf("decodeItem: %x, %v", got, err)
	}
	for item, want := range map[string]error{
		"keyfob-master-key-v2:AAAA": ErrNewerVersion,
		"keyfob-master-key-v1:AAAA": ErrWrongKey,
		"":                          ErrWrongKey,
		"something else":            ErrWrongKey,
		"keyfob-master-key-v1":      ErrWrongKey,
	} {
		if _, err := decodeItem([]byte(item)); !errors.Is(err, want) {
			t.Errorf("decodeItem(%q): %v, want %v", item, err, want)
		}
	}
}

func TestBackends(t *testing.T) {
	for _, c := range []struct{ setting, goos, want string }{
		{"auto", "linux", "secret-service"}, {"", "darwin", "keychain"}, {"auto", "windows", "wincred"},
		{"passphrase", "windows", "passphrase"}, {"keyctl", "linux", "keyctl"}, {"pass", "darwin", "pass"},
	} {
		if got, err := concreteBackend(c.setting, c.goos); got != c.want || err != nil {
			t.Errorf("concreteBackend(%q, %s) = %q, %v; want %q", c.setting, c.goos, got, err, c.want)
		}
	}
	for _, c := range []struct{ setting, goos string }{{"auto", "plan9"}, {"wincred", "linux"}, {"file", "linux"}, {"pass", "windows"}, {"keychain", "linux"}} {
		if got, err := concreteBackend(c.setting, c.goos); !errors.Is(err, ErrBackend) {
			t.Errorf("concreteBackend(%q, %s) = %q, %v; want ErrBackend", c.setting, c.goos, got, err)
		}
	}
}

// TestHelperEnv: the helper gets what keyrings need, no secret, and always a
// bus address that keeps the keyring library from starting a bus.
func TestHelperEnv(t *testing.T) {
	environ := []string{"HOME=/h", "PATH=/p", "AWS_SECRET_ACCESS_KEY=canary", "KEYFOB_PASSPHRASE=canary", "XDG_RUNTIME_DIR=/none",
		"DBUS_SESSION_BUS_ADDRESS=unix:path=/real", "GNUPGHOME=/g", "LD_PRELOAD=canary", "GODEBUG=x", "DISPLAY=:0"}
	has := func(env []string, kv string) bool {
		for _, e := range env {
			if e == kv {
				return true
			}
		}
		return false
	}
	for backend, bus := range map[string]string{
		BackendSecretService: "unix:path=/real", BackendKWallet: "unix:path=/real",
		BackendKeyctl: "unix:path=/dev/null", BackendPass: "unix:path=/dev/null", "": "unix:path=/dev/null",
	} {
		env := helperEnv(backend, environ, "linux", 4242424)
		if !has(env, "DBUS_SESSION_BUS_ADDRESS="+bus) {
			t.Errorf("%s: no bus address %s in %q", backend, bus, env)
		}
		for _, want := range []string{"HOME=/h", "PATH=/p", "GNUPGHOME=/g", "DISPLAY=:0", "GOTRACEBACK=none"} {
			if !has(env, want) {
				t.Errorf("%s: %s is missing", backend, want)
			}
		}
		for _, e := range env {
			if strings.Contains(e, "canary") || strings.HasPrefix(e, "GODEBUG") {
				t.Errorf("%s: %s was passed on", backend, e)
			}
		}
	}
	if env := helperEnv(BackendSecretService, []string{"DBUS_SESSION_BUS_ADDRESS=autolaunch:"}, "linux", 4242424); !has(env, "DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null") {
		t.Errorf("without a bus: %q", env)
	}
}
