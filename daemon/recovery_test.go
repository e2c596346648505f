//go:build !windows

package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"keyfob/internal/control"
	"keyfob/internal/cred"
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
		w.must(control.MethodRecoveryKey, control.RecoveryKeyParams{Passphrase: "CANARY-passphrase"}, &keys[i])
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

// TestRecoveryKeyNeedsAPerson: a program that does not know the vault's
// passphrase gets no recovery key unless a person says yes, and what is on
// paper stays good; the audit log has each yes and no.
func TestRecoveryKeyNeedsAPerson(t *testing.T) {
	t.Parallel()
	w := newWorld(t) // the daemon reads the passphrase from a file
	w.start()
	var kept, got control.RecoveryKeyResult
	w.must(control.MethodRecoveryKey, control.RecoveryKeyParams{Passphrase: "CANARY-passphrase"}, &kept)
	ask := func(mayAsk bool, answer string, seen *[]control.Prompt) error {
		return w.asking(control.MethodRecoveryKey, control.RecoveryKeyParams{MayAsk: mayAsk}, &got, answering(answer, seen))
	}
	var seen []control.Prompt
	if err := ask(false, cred.ConfirmOnce, &seen); code(err) != control.CodeInteraction || len(seen) > 0 || got.Key != "" || !strings.Contains(hintIn(err), "in a terminal") {
		t.Fatalf("where nobody can be asked: %v, %+v", err, seen)
	}
	if err := ask(true, cred.ConfirmOnce, &seen); err != nil || len(seen) != 1 || seen[0].Kind != cred.AskConfirm || !strings.Contains(seen[0].Text, "former recovery key opens nothing") || seen[0].Program == "" {
		t.Fatalf("a yes: %v, %+v", err, seen)
	}
	kept = got

	// The question waits for `keyfob answer` too, and is nobody else's.
	waits, over := make(chan struct{}), make(chan error, 1)
	go func() {
		over <- w.asking(control.MethodRecoveryKey, control.RecoveryKeyParams{MayAsk: true}, &kept, func(e control.Event) (*control.Answer, error) {
			if e.Prompt != nil {
				close(waits)
			}
			return nil, nil
		})
	}()
	<-waits
	if err := ask(true, cred.ConfirmOnce, &seen); code(err) != control.CodeInteraction || len(seen) != 1 {
		t.Errorf("a second one at once: %v, %+v", err, seen)
	}
	if s := w.status(); len(s.Interactions) != 1 || s.Interactions[0].Profile != "the vault" || s.Interactions[0].Waiting != 1 {
		t.Errorf("status: %+v", s.Interactions)
	}
	if err := w.asking(control.MethodAnswer, control.AnswerParams{}, nil, answering(cred.ConfirmOnce, &seen)); err != nil || len(seen) != 2 {
		t.Errorf("answer: %v, %+v", err, seen)
	}
	if err := <-over; err != nil || kept.Key == got.Key {
		t.Fatalf("after the answer: %v", err)
	}

	got.Key = ""
	if err := ask(true, cred.ConfirmNo, &seen); code(err) != control.CodeDenied || got.Key != "" || len(seen) != 3 {
		t.Errorf("a no: %v", err)
	}
	if err := ask(true, cred.ConfirmOnce, &seen); code(err) != control.CodeInteraction || len(seen) != 3 {
		t.Errorf("soon after a no: %v", err)
	}
	if err := w.try(control.MethodRecoveryKey, control.RecoveryKeyParams{Passphrase: "wrong"}, nil); code(err) != control.CodeInteraction {
		t.Errorf("a wrong passphrase: %v", err)
	}
	if s := w.status(); len(s.Interactions) != 0 {
		t.Errorf("a question is left: %+v", s.Interactions)
	}
	w.must(control.MethodLock, nil, nil)
	w.must(control.MethodUnlock, control.UnlockParams{Recovery: kept.Key}, nil)

	count := map[string]int{}
	var r control.AuditResult
	w.must(control.MethodAudit, control.AuditParams{}, &r)
	for _, raw := range r.Entries {
		var e struct {
			Event, Reason string
			Count         int
			Caller        struct{ UID string }
		}
		if err := json.Unmarshal(raw, &e); err != nil || e.Caller.UID != fmt.Sprint(os.Geteuid()) {
			t.Errorf("%s: %v", raw, err)
		}
		count[e.Event+": "+e.Reason] += e.Count
	}
	for what, n := range map[string]int{
		"recovery-key: the vault's passphrase was given":           1,
		"recovery-key: a person said yes":                          2,
		"refusal: a recovery key: nobody is there to answer":       1,
		"refusal: a recovery key: a person said no":                1,
		"refusal: a recovery key: wrong passphrase":                1,
		"refusal: a recovery key: another one waits for an answer": 1,
	} {
		if count[what] != n {
			t.Errorf("%d entries %q, want %d: %v", count[what], what, n, count)
		}
	}
}

func hintIn(err error) string {
	var e *control.Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}
