package keystore_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/keystore"
	"keyfob/keystore/internal/wire"
	"keyfob/keystore/keystoretest"
)

// forms are the spellings in which a secret could leak.
func forms(secret string) []string {
	b := []byte(secret)
	return []string{secret, base64.StdEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b), hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b))}
}

// leaks fails the test if text holds one of the secrets in any form.
func leaks(t *testing.T, where, text string, secrets map[string]string) {
	t.Helper()
	for what, s := range secrets {
		for _, f := range forms(s) {
			if strings.Contains(text, f) {
				t.Errorf("%s holds the %s", where, what)
			}
		}
	}
}

// TestCanaries: the master key, the passphrase, the recovery key and the
// records are in no file, log line, error, argument or environment.
func TestCanaries(t *testing.T) {
	ss := keystoretest.StartSecretService(t)
	ss.Use(t, "")
	const record = "canary-record-c2VjcmV0"
	t.Setenv("KEYFOB_PASSPHRASE", testPassphrase)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "canary-environment-key")
	seen := filepath.Join(t.TempDir(), "seen")
	// The helper's arguments and environment, before it runs and as the
	// kernel shows them while it runs.
	spy := fakeHelper(t, "tr '\\0' '\\n' < /proc/$$/cmdline >> "+seen+"\ntr '\\0' '\\n' < /proc/$$/environ >> "+seen+"\nenv >> "+seen+"\nexec $REAL")

	for _, backend := range []string{"passphrase", "secret-service"} {
		t.Run(backend, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "vault")
			var log bytes.Buffer
			logger := logrus.New()
			logger.SetOutput(&log)
			logger.SetLevel(logrus.TraceLevel)
			v, err := keystore.Open(keystore.Config{Dir: dir, Backend: backend, Helper: spy, Log: logrus.NewEntry(logger), Passphrase: cred.NewSecret(testPassphrase)})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			if err := v.Unlock(t.Context(), cred.Secret{}); err != nil {
				t.Fatal(err)
			}
			put(t, v, "key/dev", record)
			recovery, err := v.RecoveryKey(t.Context(), cred.Secret{})
			if err != nil {
				t.Fatal(err)
			}
			secrets := map[string]string{"record": record, "passphrase": testPassphrase, "recovery key": recovery.Reveal(), "environment's key": "canary-environment-key"}
			if backend == "secret-service" {
				r := askHelper(t, wire.Request{Op: wire.OpGet, Backend: backend, Key: ss.Items()[0]})
				_, text, ok := strings.Cut(string(r.Value), ":")
				master, err := base64.StdEncoding.DecodeString(text)
				if !ok || err != nil || len(master) != 32 {
					t.Fatalf("no master key: %s %v", r.Code, err)
				}
				secrets["master key"] = string(master)
				// That the search finds what is there.
				if !strings.Contains(string(r.Value), forms(string(master))[1]) {
					t.Fatal("the search is blind")
				}
			}
			var errs strings.Builder
			note := func(err error) {
				fmt.Fprintf(&errs, "%v\n%+v\n%#v\n%s\n", err, err, err, cred.HintOf(err))
			}
			v.Lock()
			note(v.Unlock(t.Context(), cred.NewSecret("another")))
			note(v.UnlockRecovery(t.Context(), cred.NewSecret(recovery.Reveal()+"A"), cred.NewSecret(testPassphrase)))
			if err := v.UnlockRecovery(t.Context(), recovery, cred.NewSecret(testPassphrase)); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "key+dev.rec")
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)-1] ^= 1
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = v.Get(t.Context(), "key/dev")
			note(err)
			note(v.Put(t.Context(), strings.Repeat("x", 2000), cred.NewSecret(record)))
			put(t, v, "key/dev", record)
			fmt.Fprintf(&errs, "%v %+v %#v", v.Status(), v.Status(), v)

			leaks(t, "an error", errs.String(), secrets)
			leaks(t, "the log", log.String(), secrets)
			if log.Len() == 0 {
				t.Error("nothing was logged: the search is blind")
			}
			err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				b, err := os.ReadFile(p)
				leaks(t, p, string(b), secrets)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			s, err := os.ReadFile(seen)
			if err != nil || !bytes.Contains(s, []byte("PATH=")) || !bytes.Contains(s, []byte("fake-keyring")) {
				t.Fatalf("the spy saw nothing: %v", err)
			}
			leaks(t, "the helper's arguments or environment", string(s), secrets)
		})
	}
}

// TestHelperIsClosed: a running helper makes no core file, and another
// program of the same user can't read its memory.
func TestHelperIsClosed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	passphraseVault(t, dir)
	pidFile := filepath.Join(t.TempDir(), "pid")
	v := openWith(t, dir, fakeHelper(t, "echo $$ > "+pidFile+"\nexec $REAL"), 0)
	done := make(chan error, 1)
	go func() { done <- v.Unlock(t.Context(), cred.NewSecret(testPassphrase)) }()
	defer func() { <-done }()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b, _ := os.ReadFile(pidFile)
		pid := strings.TrimSpace(string(b))
		// What is not dumpable hides its exe from its own user too.
		if comm, err := os.ReadFile("/proc/" + pid + "/comm"); pid == "" || err != nil || strings.TrimSpace(string(comm)) != "keyfob-keyring" {
			continue
		}
		limits, err := os.ReadFile("/proc/" + pid + "/limits")
		if err != nil {
			continue
		}
		for _, l := range strings.Split(string(limits), "\n") {
			rest, ok := strings.CutPrefix(l, "Max core file size")
			if f := strings.Fields(rest); !ok || f[0] != "0" || f[1] != "0" {
				continue
			}
			// Its files in /proc belong to root then.
			info, err := os.Stat("/proc/" + pid + "/limits")
			if os.Geteuid() == 0 || err == nil && info.Sys().(*syscall.Stat_t).Uid == 0 {
				return
			}
		}
	}
	t.Error("no helper was seen that is closed to core files and to its own user")
}

// TestHelperDiesWithItsParent: the helper of a daemon that is killed while
// the bus hangs does not stay.
func TestHelperDiesWithItsParent(t *testing.T) {
	dir, pidFile := filepath.Join(t.TempDir(), "vault"), filepath.Join(t.TempDir(), "pid")
	passphraseVault(t, dir)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "KEYSTORE_TEST_ROLE=unlock", "KEYSTORE_TEST_DIR="+dir, "KEYSTORE_TEST_HELPER="+fakeHelper(t, "echo $$ > "+pidFile+"\nexec sleep 1000"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(pidFile); err == nil && len(b) > 1 {
			break
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) || time.Now().After(end) {
			t.Fatalf("the helper was not started: %v", err)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	allGone(t, pidFile)
}
