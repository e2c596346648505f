package keystore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"keyfob/internal/cred"
	"keyfob/keystore"
)

// tree is the content of every file below dir.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

func sameTree(t testing.TB, dir string, before map[string]string) {
	t.Helper()
	after := tree(t, dir)
	delete(before, "vault.lock")
	delete(after, "vault.lock")
	if len(after) != len(before) {
		t.Errorf("there were %d files and are %d", len(before), len(after))
	}
	for name, b := range before {
		if after[name] != b {
			t.Errorf("%s was changed", name)
		}
	}
}

func TestOpenIsPrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes are not Windows's")
	}
	dir := filepath.Join(t.TempDir(), "data", "vault")
	v := passphraseVault(t, dir)
	put(t, v, "a", "1")
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v; want mode 0700", d, info.Mode(), err)
		}
	}
	for name := range tree(t, dir) {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, info.Mode(), err)
		}
	}
}

func TestOpenRefusesPermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes are not Windows's")
	}
	for _, mode := range []os.FileMode{0o755, 0o750, 0o701, 0o770, 0o777} {
		dir := filepath.Join(t.TempDir(), "vault")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		_, err := keystore.Open(keystore.Config{Dir: dir, Backend: "passphrase"})
		if !errors.Is(err, keystore.ErrPermissions) || !strings.Contains(err.Error(), dir) || cred.HintOf(err) != "chmod 700 "+dir {
			t.Errorf("mode %o: %v, hint %q", mode, err, cred.HintOf(err))
		}
		if n := len(tree(t, dir)); n != 0 {
			t.Errorf("mode %o: %d files were made", mode, n)
		}
	}
}

// TestHeaders: a header that is newer, damaged, or lost is an error of its
// own, and nothing is changed.
func TestHeaders(t *testing.T) {
	made := filepath.Join(t.TempDir(), "vault")
	v := passphraseVault(t, made)
	put(t, v, "key/dev", "value")
	good := tree(t, made)
	head := good["vault.json"]
	for _, c := range []struct {
		name, header string // header "" removes it
		want         error
	}{
		{"newer", strings.Replace(head, `"version": 1`, `"version": 2`, 1), keystore.ErrNewerVersion},
		{"newer and strange", `{"version": 7, "id": {"x": []}, "check": 5}`, keystore.ErrNewerVersion},
		{"empty", "{}", keystore.ErrCorrupt},
		{"cut off", head[:len(head)/2], keystore.ErrCorrupt},
		{"no JSON", "\x00\x00\x00", keystore.ErrCorrupt},
		{"version 0", strings.Replace(head, `"version": 1`, `"version": 0`, 1), keystore.ErrCorrupt},
		{"bad id", regexp.MustCompile(`"id": "..`).ReplaceAllString(head, `"id": "zz`), keystore.ErrCorrupt},
		{"huge memory", regexp.MustCompile(`"memory_kib": \d+`).ReplaceAllString(head, `"memory_kib": 4294967295`), keystore.ErrCorrupt},
		{"lost", "", keystore.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "vault")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			for n, b := range good {
				files[n] = b
			}
			files["vault.json"] = c.header
			if c.header == "" {
				delete(files, "vault.json")
			}
			files[".tmp-1"] = "left over"
			for n, b := range files {
				if err := os.WriteFile(filepath.Join(dir, n), []byte(b), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := keystore.Open(keystore.Config{Dir: dir, Backend: "passphrase"})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("Open: %v, want %v and the path", err, c.want)
			}
			sameTree(t, dir, files)
		})
	}
	t.Run("forgot its key", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "vault")
		if err := os.CopyFS(dir, os.DirFS(made)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		id := regexp.MustCompile(`"id": "[0-9a-f]+"`).FindString(head)
		if err := os.WriteFile(filepath.Join(dir, "vault.json"), []byte(`{"version": 1, `+id+`}`), 0o600); err != nil {
			t.Fatal(err)
		}
		before := tree(t, dir)
		v := openVault(t, dir, "passphrase")
		if err := v.Unlock(t.Context(), cred.NewSecret("new")); !errors.Is(err, keystore.ErrCorrupt) {
			t.Errorf("Unlock: %v, want ErrCorrupt", err)
		}
		sameTree(t, dir, before)
	})
}

func TestNewerRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	v := passphraseVault(t, dir)
	put(t, v, "key/dev", "value")
	file := filepath.Join(dir, "key+dev.rec")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[4]++
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	_, err = v.Get(t.Context(), "key/dev")
	if !errors.Is(err, keystore.ErrNewerVersion) || errors.Is(err, cred.ErrNotFound) || !strings.Contains(err.Error(), "key/dev") {
		t.Errorf("Get: %v, want ErrNewerVersion", err)
	}
	sameTree(t, dir, before)
	if s := v.Status(); len(s.Corrupt) != 0 {
		t.Errorf("Status: %+v", s)
	}
}

func TestCorruptRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	logger, hook := test.NewNullLogger()
	v, err := keystore.Open(keystore.Config{Dir: dir, Backend: "passphrase", Helper: helperPath, Log: logrus.NewEntry(logger)})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := v.Unlock(t.Context(), cred.NewSecret(testPassphrase)); err != nil {
		t.Fatal(err)
	}
	put(t, v, "key/dev", "value of dev")
	put(t, v, "key/prod", "value of prod")
	devFile, prodFile := filepath.Join(dir, "key+dev.rec"), filepath.Join(dir, "key+prod.rec")
	good, err := os.ReadFile(devFile)
	if err != nil {
		t.Fatal(err)
	}
	prod, err := os.ReadFile(prodFile)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for i, c := range []struct {
		name    string
		content []byte
	}{
		{"flipped", flipped}, {"empty", nil}, {"cut off", good[:20]}, {"zeros", make([]byte, len(good))}, {"another record", prod},
		{"too long", make([]byte, 2<<20)}, {"of an older time", append(good[:4:4], append([]byte{0}, good[5:]...)...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			hook.Reset()
			if err := os.WriteFile(devFile, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := v.Get(t.Context(), "key/dev")
			var ce *keystore.CorruptError
			if !errors.As(err, &ce) || !errors.Is(err, cred.ErrNotFound) || !errors.Is(err, keystore.ErrCorrupt) || errors.Is(err, cred.ErrLocked) {
				t.Fatalf("Get: %v, want a CorruptError", err)
			}
			if !regexp.MustCompile(`^key\+dev\.rec\.corrupt-\d{10}$`).MatchString(filepath.Base(ce.File)) || !strings.Contains(err.Error(), "key/dev") {
				t.Errorf("set aside as %s: %v", ce.File, err)
			}
			if b, err := os.ReadFile(ce.File); err != nil || !bytes.Equal(b, c.content) {
				t.Errorf("what was set aside is not what was there: %v", err)
			}
			if e := hook.LastEntry(); e == nil || e.Level != logrus.ErrorLevel || e.Data["file"] != ce.File {
				t.Errorf("logged: %+v", e)
			}
			if s := v.Status(); len(s.Corrupt) != i+1 || !slices.Contains(s.Corrupt, filepath.Base(ce.File)) {
				t.Errorf("Status: %+v", s)
			}
			// It stays away, and says why, until it is put again.
			if _, err := v.Get(t.Context(), "key/dev"); !errors.Is(err, cred.ErrNotFound) || !errors.Is(err, keystore.ErrCorrupt) {
				t.Errorf("second Get: %v", err)
			}
			if names, _ := v.List(t.Context(), ""); !slices.Equal(names, []string{"key/prod"}) {
				t.Errorf("List: %q", names)
			}
			wantValue(t, v, "key/prod", "value of prod")
			put(t, v, "key/dev", "value of dev")
			wantValue(t, v, "key/dev", "value of dev")
		})
	}
	again := openVault(t, dir, "")
	if s := again.Status(); len(s.Corrupt) != 7 {
		t.Errorf("Status after opening again: %+v", s)
	}
	if err := v.Delete(t.Context(), "key/dev"); err != nil {
		t.Fatal(err)
	}
	if s := v.Status(); len(s.Corrupt) != 0 {
		t.Errorf("Status after Delete: %+v", s)
	}
	if _, err := v.Get(t.Context(), "key/dev"); errors.Is(err, keystore.ErrCorrupt) || !errors.Is(err, cred.ErrNotFound) {
		t.Errorf("Get after Delete: %v", err)
	}
}

// TestSwappedFiles: neither a record of this vault nor one of the same name
// from another vault is taken for a record.
func TestSwappedFiles(t *testing.T) {
	dir, dir2 := filepath.Join(t.TempDir(), "vault"), filepath.Join(t.TempDir(), "vault")
	v, other := passphraseVault(t, dir), passphraseVault(t, dir2)
	put(t, v, "key/a", "value a")
	put(t, v, "key/b", "value b")
	put(t, other, "key/a", "value of the other vault")
	copyFile := func(from, to string) {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(filepath.Join(dir, "key+a.rec"), filepath.Join(dir, "key+b.rec"))
	if s, err := v.Get(t.Context(), "key/b"); !errors.Is(err, keystore.ErrCorrupt) {
		t.Errorf("record a as b: %d bytes, %v", s.Len(), err)
	}
	copyFile(filepath.Join(dir2, "key+a.rec"), filepath.Join(dir, "key+a.rec"))
	if s, err := v.Get(t.Context(), "key/a"); !errors.Is(err, keystore.ErrCorrupt) {
		t.Errorf("a record of another vault: %d bytes, %v", s.Len(), err)
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	v := passphraseVault(t, dir)
	put(t, v, "key/a", "1")
	put(t, v, "key/b", "2")
	v.Lock()
	if s := v.Status(); !s.Locked || s.Backend != "passphrase" || s.New {
		t.Errorf("Status: %+v", s)
	}
	if _, err := v.Get(t.Context(), "key/a"); !errors.Is(err, cred.ErrLocked) {
		t.Errorf("Get: %v", err)
	}
	if err := v.Put(t.Context(), "key/a", cred.NewSecret("3")); !errors.Is(err, cred.ErrLocked) {
		t.Errorf("Put: %v", err)
	}
	if names, err := v.List(t.Context(), "key/"); err != nil || !slices.Equal(names, []string{"key/a", "key/b"}) {
		t.Errorf("List: %q, %v", names, err)
	}
	if err := v.Delete(t.Context(), "key/b"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if err := v.Unlock(t.Context(), cred.NewSecret(testPassphrase)); err != nil {
		t.Fatal(err)
	}
	wantValue(t, v, "key/a", "1")
	if s := v.Status(); s.Locked || s.Err != nil {
		t.Errorf("Status: %+v", s)
	}
}

func TestPassphrases(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "vault")
	v := openVault(t, dir, "passphrase")
	if s := v.Status(); !s.New || !s.Locked {
		t.Errorf("Status of a new vault: %+v", s)
	}
	err := v.Unlock(t.Context(), cred.Secret{})
	if !errors.Is(err, keystore.ErrPassphraseNeeded) || !keystore.NeedsPerson(err) || cred.HintOf(err) == "" {
		t.Errorf("Unlock without a passphrase: %v, hint %q", err, cred.HintOf(err))
	}
	if s := v.Status(); !s.New {
		t.Error("a key was made without a passphrase")
	}
	if err := v.Unlock(t.Context(), cred.NewSecret(testPassphrase)); err != nil {
		t.Fatal(err)
	}
	put(t, v, "a", "1")
	v.Lock()
	before := tree(t, dir)
	err = v.Unlock(t.Context(), cred.NewSecret("another"))
	if !errors.Is(err, keystore.ErrWrongPassphrase) || !keystore.NeedsPerson(err) {
		t.Errorf("Unlock with another passphrase: %v", err)
	}
	if s := v.Status(); !s.Locked || !errors.Is(s.Err, keystore.ErrWrongPassphrase) {
		t.Errorf("Status: %+v", s)
	}
	sameTree(t, dir, before)

	file := filepath.Join(t.TempDir(), "passphrase")
	open := func(file string, pass cred.Secret) *keystore.Vault {
		v, err := keystore.Open(keystore.Config{Dir: dir, Helper: helperPath, PassphraseFile: file, Passphrase: pass})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { v.Close() })
		return v
	}
	bad := cred.NewSecret("bad")
	for _, end := range []string{"", "\n", "\r\n"} {
		if err := os.WriteFile(file, []byte(testPassphrase+end), 0o600); err != nil {
			t.Fatal(err)
		}
		v := open(file, bad)
		if err := v.Unlock(t.Context(), cred.Secret{}); err != nil {
			t.Errorf("with a file that ends in %q: %v", end, err)
		}
	}
	if err := open(file, cred.Secret{}).Unlock(t.Context(), bad); !errors.Is(err, keystore.ErrWrongPassphrase) {
		t.Errorf("the given passphrase does not come first: %v", err)
	}
	if err := open("", cred.NewSecret(testPassphrase)).Unlock(t.Context(), cred.Secret{}); err != nil {
		t.Errorf("by the setting: %v", err)
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		logger, hook := test.NewNullLogger()
		v, err := keystore.Open(keystore.Config{Dir: dir, Helper: helperPath, PassphraseFile: file, Log: logrus.NewEntry(logger)})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		if err := v.Unlock(t.Context(), cred.Secret{}); err != nil {
			t.Error(err)
		}
		if e := hook.LastEntry(); e == nil || e.Level != logrus.WarnLevel || e.Data["file"] != file {
			t.Errorf("logged of a file that everybody can read: %+v", e)
		}
	}
	gone := filepath.Join(t.TempDir(), "gone")
	if err := open(gone, cred.NewSecret(testPassphrase)).Unlock(t.Context(), cred.Secret{}); err == nil || !strings.Contains(err.Error(), gone) {
		t.Errorf("with a file that is missing: %v", err)
	}
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(file, cred.Secret{}).Unlock(t.Context(), cred.Secret{}); !errors.Is(err, keystore.ErrPassphraseNeeded) {
		t.Errorf("with an empty file: %v", err)
	}
}

// TestBackendIsRemembered: the vault keeps to the backend that it was made
// with, from its first key on and not before.
func TestBackendIsRemembered(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	if runtime.GOOS == "linux" {
		if s := openVault(t, dir, "auto").Status(); s.Backend != "secret-service" {
			t.Errorf("Status: %+v", s)
		}
		if s := openVault(t, dir, "pass").Status(); s.Backend != "pass" {
			t.Errorf("Status: %+v", s)
		}
	}
	put(t, passphraseVault(t, dir), "a", "1")
	auto := openVault(t, dir, "auto")
	if err := auto.Unlock(t.Context(), cred.NewSecret(testPassphrase)); err != nil {
		t.Fatal(err)
	}
	wantValue(t, auto, "a", "1")
	if s := auto.Status(); s.Backend != "passphrase" {
		t.Errorf("Status: %+v", s)
	}
	_, err := keystore.Open(keystore.Config{Dir: dir, Backend: "pass"})
	if !errors.Is(err, keystore.ErrBackend) || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("Open with another backend: %v", err)
	}
}

// TestReplacedVault: a vault that was removed and made anew under an open
// one is not written into.
func TestReplacedVault(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	v := passphraseVault(t, dir)
	put(t, v, "a", "1")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := v.Put(t.Context(), "a", cred.NewSecret("2")); err == nil {
		t.Error("Put into a vault that is gone")
	}
	put(t, passphraseVault(t, dir), "a", "new")
	before := tree(t, dir)
	if err := v.Put(t.Context(), "a", cred.NewSecret("2")); !errors.Is(err, keystore.ErrReplaced) {
		t.Errorf("Put: %v, want ErrReplaced", err)
	}
	if _, err := v.Get(t.Context(), "a"); !errors.Is(err, keystore.ErrReplaced) {
		t.Errorf("Get: %v, want ErrReplaced", err)
	}
	sameTree(t, dir, before)
}

func TestRecovery(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "vault")
	v := passphraseVault(t, dir)
	put(t, v, "a", "1")
	if _, err := v.RecoveryKey(t.Context(), cred.NewSecret("another")); !errors.Is(err, keystore.ErrWrongPassphrase) {
		t.Errorf("RecoveryKey with another passphrase: %v", err)
	}
	first, err := v.RecoveryKey(t.Context(), cred.NewSecret(testPassphrase))
	if err != nil {
		t.Fatal(err)
	}
	key, err := v.RecoveryKey(t.Context(), cred.NewSecret(testPassphrase))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^([A-Z2-7]{5}-){7}[A-Z2-7]{5}$`).MatchString(key.Reveal()) || key.Equal(first) {
		t.Errorf("it has %d characters and another form, or is the first again", key.Len())
	}
	w := openVault(t, dir, "")
	for _, wrong := range []string{"", "x", first.Reveal(), key.Reveal()[:40], key.Reveal() + "A", mistype(key.Reveal()), strings.Repeat("AAAAA-", 8)} {
		if err := w.UnlockRecovery(t.Context(), cred.NewSecret(wrong), cred.Secret{}); !errors.Is(err, keystore.ErrWrongRecoveryKey) || !w.Status().Locked {
			t.Errorf("a wrong key of %d bytes: %v", len(wrong), err)
		}
	}
	// As people type it, with a new passphrase.
	typed := strings.ToLower(strings.ReplaceAll(key.Reveal(), "-", " ")) + "\n"
	if err := w.UnlockRecovery(t.Context(), cred.NewSecret(typed), cred.NewSecret("new")); err != nil {
		t.Fatal(err)
	}
	wantValue(t, w, "a", "1")
	x := openVault(t, dir, "")
	if err := x.Unlock(t.Context(), cred.NewSecret(testPassphrase)); !errors.Is(err, keystore.ErrWrongPassphrase) {
		t.Errorf("the old passphrase: %v", err)
	}
	if err := x.Unlock(t.Context(), cred.NewSecret("new")); err != nil {
		t.Errorf("the new passphrase: %v", err)
	}
	wantValue(t, x, "a", "1")
	if err := openVault(t, filepath.Join(t.TempDir(), "v"), "passphrase").UnlockRecovery(t.Context(), key, cred.Secret{}); !errors.Is(err, keystore.ErrWrongRecoveryKey) {
		t.Errorf("in a vault without one: %v", err)
	}
}

// mistype changes the first character of a recovery key.
func mistype(key string) string {
	if key[0] == 'A' {
		return "B" + key[1:]
	}
	return "A" + key[1:]
}

func TestSweep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	passphraseVault(t, dir)
	if err := os.WriteFile(filepath.Join(dir, ".tmp-123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	openVault(t, dir, "")
	if _, there := tree(t, dir)[".tmp-123"]; there {
		t.Error("what a killed writer left is still there")
	}
}

func TestClose(t *testing.T) {
	v := passphraseVault(t, "")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := v.Unlock(t.Context(), cred.NewSecret(testPassphrase)); !errors.Is(err, keystore.ErrClosed) {
		t.Errorf("Unlock: %v", err)
	}
	if _, err := v.Get(t.Context(), "a"); !errors.Is(err, cred.ErrLocked) {
		t.Errorf("Get: %v", err)
	}
}
