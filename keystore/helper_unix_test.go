//go:build unix

package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/keystore"
)

// fakeHelper writes a shell script that stands for keyfob-keyring. $REAL is
// the real one, which inherits the channel when it is exec'd.
func fakeHelper(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fake-keyring")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nREAL='"+helperPath+"'\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func openWith(t *testing.T, dir, helper string, timeout time.Duration) *keystore.Vault {
	t.Helper()
	v, err := keystore.Open(keystore.Config{Dir: dir, Backend: "passphrase", Helper: helper, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func runs(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(b), "run")
}

// TestUnlockIsShared: any number of callers cost one run of the helper, and
// reading costs none.
func TestUnlockIsShared(t *testing.T) {
	dir, count := filepath.Join(t.TempDir(), "vault"), filepath.Join(t.TempDir(), "count")
	put(t, passphraseVault(t, dir), "a", "1")
	v := openWith(t, dir, fakeHelper(t, "echo run >> "+count+"\nsleep 0.2\nexec $REAL"), 0)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := v.Unlock(t.Context(), cred.NewSecret(testPassphrase)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for range 10 {
		wantValue(t, v, "a", "1")
	}
	if n := runs(t, count); n != 1 {
		t.Errorf("20 callers and 10 reads ran the helper %d times", n)
	}
	// Another passphrase is another question.
	v.Lock()
	right, wrong := make(chan error, 1), make(chan error, 1)
	go func() { wrong <- v.Unlock(t.Context(), cred.NewSecret("another")) }()
	time.Sleep(50 * time.Millisecond) // the wrong one flies first, mostly
	go func() { right <- v.Unlock(t.Context(), cred.NewSecret(testPassphrase)) }()
	if err := <-right; err != nil {
		t.Errorf("the right passphrase: %v", err)
	}
	if err := <-wrong; err != nil && !errors.Is(err, keystore.ErrWrongPassphrase) {
		t.Errorf("the wrong passphrase: %v", err)
	}
}

// TestHangingHelper: a helper that hangs costs the time limit; it and what
// it started are gone then, and the next one can succeed.
func TestHangingHelper(t *testing.T) {
	dir, pids, hang := filepath.Join(t.TempDir(), "vault"), filepath.Join(t.TempDir(), "pids"), filepath.Join(t.TempDir(), "hang")
	put(t, passphraseVault(t, dir), "a", "1")
	if err := os.WriteFile(hang, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	v := openWith(t, dir, fakeHelper(t, "test -e "+hang+" || exec $REAL\necho $$ >> "+pids+"\nsleep 1000 & echo $! >> "+pids+"\nwait"), 1500*time.Millisecond)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := v.Unlock(ctx, cred.NewSecret(testPassphrase)); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, keystore.ErrTimeout) {
		t.Errorf("a caller in a hurry: %v", err)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("a caller in a hurry waited %v", d)
	}
	err := v.Unlock(t.Context(), cred.NewSecret(testPassphrase))
	if !errors.Is(err, keystore.ErrTimeout) || !keystore.NeedsPerson(err) {
		t.Errorf("Unlock: %v, want ErrTimeout", err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("the time limit of 1.5 s took %v", d)
	}
	if s := v.Status(); !s.Locked || !errors.Is(s.Err, keystore.ErrTimeout) {
		t.Errorf("Status: %+v", s)
	}
	if n := allGone(t, pids); n != 2 {
		t.Errorf("%d processes were started, want 2: both callers share one run", n)
	}
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	if err := v.Unlock(t.Context(), cred.NewSecret(testPassphrase)); err != nil {
		t.Fatal(err)
	}
	wantValue(t, v, "a", "1")
}

// allGone waits until every process listed in file has ended, and counts
// them.
func allGone(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b))
	for _, f := range fields {
		var pid int
		if _, err := fmt.Sscan(f, &pid); err != nil || pid < 2 {
			t.Fatalf("bad pid %q", f)
		}
		for end := time.Now().Add(3 * time.Second); running(pid); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("process %d is still there", pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
				break
			}
		}
	}
	return len(fields)
}

// running reports whether a process is there and no zombie.
func running(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// TestLockAndCloseDuringUnlock: neither waits for a keyring, and the vault
// stays locked.
func TestLockAndCloseDuringUnlock(t *testing.T) {
	dir, started := filepath.Join(t.TempDir(), "vault"), filepath.Join(t.TempDir(), "started")
	put(t, passphraseVault(t, dir), "a", "1")
	waitStarted := func() {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if b, _ := os.ReadFile(started); len(b) > 1 {
				return
			}
			if time.Now().After(end) {
				t.Fatal("the helper was not started")
			}
		}
	}
	v := openWith(t, dir, fakeHelper(t, "echo $$ > "+started+"\nsleep 0.3\nexec $REAL"), 0)
	done := make(chan error, 1)
	go func() { done <- v.Unlock(t.Context(), cred.NewSecret(testPassphrase)) }()
	waitStarted()
	v.Lock()
	if err := <-done; !errors.Is(err, cred.ErrLocked) || !v.Status().Locked {
		t.Errorf("Unlock over a Lock: %v", err)
	}

	if err := os.Remove(started); err != nil {
		t.Fatal(err)
	}
	w := openWith(t, dir, fakeHelper(t, "echo $$ > "+started+"\nsleep 1000"), time.Minute)
	go func() { done <- w.Unlock(t.Context(), cred.NewSecret(testPassphrase)) }()
	waitStarted()
	begin := time.Now()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, keystore.ErrClosed) {
		t.Errorf("Unlock over a Close: %v", err)
	}
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("Close took %v", d)
	}
	allGone(t, started)
}

// TestBrokenHelpers: whatever the helper does, the error says that it was
// the helper.
func TestBrokenHelpers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	passphraseVault(t, dir)
	for name, script := range map[string]string{
		"ends at once":    "exit 0",
		"fails":           "exit 3",
		"crashes":         "kill -SEGV $$",
		"garbage":         "echo garbage >&3",
		"half a line":     `printf '{"version":1' >&3`,
		"too long":        "head -c 100000 /dev/zero | tr '\\0' ' ' >&3",
		"other version":   `echo '{"version":9,"code":"ok"}' >&3`,
		"a short key":     `echo '{"version":1,"code":"ok","value":"AAAA"}' >&3`,
		"refuses":         `echo '{"version":1,"code":"refused","message":"no"}' >&3`,
		"waits afterward": `echo '{"version":1,"code":"refused","message":"no"}' >&3; exec 3>&-; sleep 1000`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := openWith(t, dir, fakeHelper(t, script), 20*time.Second)
			if err := v.Unlock(t.Context(), cred.NewSecret(testPassphrase)); !errors.Is(err, keystore.ErrHelper) {
				t.Errorf("Unlock: %v, want ErrHelper", err)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		v := openWith(t, dir, filepath.Join(t.TempDir(), "none"), 0)
		if err := v.Unlock(t.Context(), cred.NewSecret(testPassphrase)); !errors.Is(err, keystore.ErrHelper) || !strings.Contains(err.Error(), "none") {
			t.Errorf("Unlock: %v", err)
		}
	})
	t.Run("not found", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		v := openWith(t, dir, "", 0)
		if err := v.Unlock(t.Context(), cred.NewSecret(testPassphrase)); !errors.Is(err, keystore.ErrHelper) || cred.HintOf(err) == "" {
			t.Errorf("Unlock: %v", err)
		}
	})
	t.Run("on PATH", func(t *testing.T) {
		t.Setenv("PATH", filepath.Dir(helperPath))
		v := openWith(t, dir, "", 0)
		if err := v.Unlock(t.Context(), cred.NewSecret(testPassphrase)); err != nil {
			t.Errorf("Unlock: %v", err)
		}
	})
}
