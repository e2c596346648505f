//go:build !windows

package daemon

import (
	"os"
	"strings"
	"testing"

	"keyfob/internal/control"
)

// TestRecoveryKey: a recovery key opens a vault whose passphrase is lost, and
// gives it another one; a former recovery key opens nothing.
func TestRecoveryKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	w.must(control.MethodAdd, control.AddParams{Context: w.context(""), Profile: "kept", AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "CANARY-of-the-vault"}, nil)
	keys := [2]control.RecoveryKeyResult{}
	for i := range keys {
		w.must(control.MethodRecoveryKey, control.RecoveryKeyParams{}, &keys[i])
	}
	if keys[0].Key == keys[1].Key || strings.Count(keys[1].Key, "-") != 7 {
		t.Fatal("these are no two recovery keys")
	}
	w.must(control.MethodLock, nil, nil)
	if err := w.try(control.MethodRecoveryKey, control.RecoveryKeyParams{Passphrase: "CANARY-passphrase"}, nil); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("while it is locked by hand: %v", err)
	}
	if err := os.Remove(w.path("passphrase")); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]control.UnlockParams{
		"wrong recovery key":   {Recovery: keys[0].Key, Passphrase: "another"},
		"it is mistyped":       {Recovery: "A" + keys[1].Key, Passphrase: "another"},
		"wrong passphrase":     {Passphrase: "another"},
		"no such file or dire": {},
	} {
		if err := w.try(control.MethodUnlock, want, nil); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("not %q: %v", text, err)
		}
	}
	w.must(control.MethodUnlock, control.UnlockParams{Recovery: strings.ToLower(keys[1].Key), Passphrase: "another"}, nil)
	w.must(control.MethodLock, nil, nil)
	if err := w.try(control.MethodUnlock, control.UnlockParams{Passphrase: "CANARY-passphrase"}, nil); err == nil {
		t.Error("the former passphrase opens it still")
	}
	w.must(control.MethodUnlock, control.UnlockParams{Passphrase: "another"}, nil)
	if err := w.try(control.MethodRecoveryKey, control.RecoveryKeyParams{Passphrase: "wrong"}, nil); err == nil {
		t.Error("a recovery key for a wrong passphrase")
	}
	for _, key := range keys {
		if strings.Contains(w.log.String(), key.Key) {
			t.Error("the log has a recovery key")
		}
	}
}
