package daemon

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"keyfob/internal/audit"
	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
	"keyfob/keystore"
)

// theVault stands where other questions name a profile.
const theVault = "the vault"

// recoveryQuestion is the key of the question whether somebody gets a
// recovery key.
var recoveryQuestion = cred.KeyOf("recovery-key", nil, cred.LinkKey{})

// recoveryCoolDown is how long after a no nobody else is asked about.
const recoveryCoolDown = time.Minute

// recoveryAsking is the one question about a recovery key that waits. Two are
// never one: a yes is for whom it names.
type recoveryAsking struct {
	mu    sync.Mutex // guards what follows
	busy  bool
	again time.Time // when the next one may be asked, after a no
}

// begin takes the place. why is what stands in the way, "" for nothing.
func (x *recoveryAsking) begin() (why string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	left := time.Until(x.again)
	switch {
	case x.busy:
		return "another one waits for an answer"
	case left > 0:
		return "the last one was refused, and it is asked again in " + left.Round(time.Second).String()
	}
	x.busy = true
	return ""
}

func (x *recoveryAsking) end(refused bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.busy = false
	if refused {
		x.again = time.Now().Add(recoveryCoolDown)
	}
}

// recoveryKey makes a second way into the vault, for a person to write down.
// It opens everything, past protected profiles and the keyring's own
// question, and ends the one that a person may have on paper. So a person
// agrees: by the vault's passphrase, or by a yes.
func (d *daemon) recoveryKey(c *call) (any, error) {
	p, err := decode[control.RecoveryKeyParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	st := d.vault.Status()
	passphrase := cred.NewSecret(p.Passphrase)
	why := "the vault's passphrase was given"
	if st.Backend != keystore.BackendPassphrase || passphrase.IsZero() {
		switch {
		case st.New:
			return nil, cred.WithHint(errors.New("cannot make a recovery key: the vault has no key yet"), "keyfob unlock")
		case st.Backend == keystore.BackendPassphrase && d.conf().PassphraseFile == "" && d.opt.Settings.PassphraseFile == "":
			return nil, noPassphrase() // before a person is asked in vain
		}
		if err := d.askRecovery(c, p.MayAsk); err != nil {
			return nil, err
		}
		why = "a person said yes"
		// The file that the daemon reads proves nothing of who asks.
		if passphrase, err = d.filedPassphrase(); err != nil {
			return nil, err
		}
	}
	key, err := d.vault.RecoveryKey(c.ctx, passphrase)
	switch { // an open vault is not what is missing
	case errors.Is(err, keystore.ErrPassphraseNeeded):
		return nil, noPassphrase()
	case errors.Is(err, keystore.ErrWrongPassphrase):
		d.refusedRecovery(c, "wrong passphrase")
		return nil, &control.Error{Code: control.CodeInteraction, Message: "cannot make a recovery key: wrong passphrase", Hint: "keyfob vault recovery-key"}
	case err != nil:
		return nil, err
	}
	d.recorder().Record(cred.Event{Kind: audit.EventRecoveryKey, Via: cred.Endpoint{Kind: "control"}, Caller: c.caller.Caller, Reason: why})
	d.log.Warn("a recovery key was made: a former one opens the vault no more")
	return control.RecoveryKeyResult{Key: key.Reveal()}, nil
}

func noPassphrase() error {
	return &control.Error{Code: control.CodeInteraction, Message: "cannot make a recovery key: the vault's passphrase is needed", Hint: "give it as one line on standard input"}
}

// askRecovery asks a person whether the caller gets a recovery key; nil is a
// yes. Whoever asks says whether a person is there, as for a protected
// profile.
func (d *daemon) askRecovery(c *call, mayAsk bool) error {
	nobody := func(why, hint string) error {
		d.refusedRecovery(c, why)
		return &control.Error{Code: control.CodeInteraction, Message: "cannot make a recovery key: a person must agree: " + why, Hint: hint}
	}
	if !mayAsk {
		return nobody("nobody is there to answer", d.recoveryHint())
	}
	if why := d.recovery.begin(); why != "" {
		return nobody(why, "keyfob answer")
	}
	refused := false
	defer func() { d.recovery.end(refused) }()
	// What is left of the question is nobody's: a later yes would be for
	// somebody else.
	defer d.queue.Cancel(recoveryQuestion)

	watched, stop := c.conn.Watch(c.ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(watched, d.conf().SignInTimeout)
	defer cancel()
	defer d.queue.Attach([]cred.LinkKey{recoveryQuestion}, c.terminal(theVault))()
	program := programOf(ctx, c.caller.Caller)
	answer, err := d.queue.Ask(ctx, recoveryQuestion, cred.Question{
		Kind: cred.AskConfirm, Profile: theVault, Program: program,
		Text:    "Make a recovery key for the vault? A former recovery key opens nothing any more. It is for " + program,
		Choices: []string{cred.ConfirmOnce, cred.ConfirmNo},
	})
	var person *cred.InteractionError
	switch {
	case err == nil && answer.Reveal() == cred.ConfirmOnce:
		return nil
	case err == nil:
		refused = true
		d.refusedRecovery(c, "a person said no")
		return &control.Error{Code: control.CodeDenied, Message: "cannot make a recovery key: a person said no"}
	case errors.As(err, &person), errors.Is(err, context.DeadlineExceeded):
		refused = true // or left open, which is asked again as late
		return nobody("nobody said yes", d.recoveryHint())
	}
	d.refusedRecovery(c, "the question was left without an answer")
	return fmt.Errorf("cannot make a recovery key: %w", err)
}

// recoveryHint is what to do where nobody can be asked.
func (d *daemon) recoveryHint() string {
	if d.vault.Status().Backend == keystore.BackendPassphrase {
		return "keyfob vault recovery-key in a terminal, or the vault's passphrase as one line on standard input"
	}
	return "keyfob vault recovery-key in a terminal"
}

// programOf names who asks for a person to read.
func programOf(ctx context.Context, who peer.Caller) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	p, err := who.Program(ctx)
	if err != nil {
		return "a program that can't be told, process " + strconv.Itoa(who.PID)
	}
	name := p.Exe
	for _, r := range name {
		if !strconv.IsPrint(r) {
			name = strconv.Quote(name)
			break
		}
	}
	return name
}

// refusedRecovery records that somebody did not get a recovery key.
func (d *daemon) refusedRecovery(c *call, why string) {
	d.recorder().Record(cred.Event{Kind: cred.EventRefusal, Via: cred.Endpoint{Kind: "control"}, Caller: c.caller.Caller, Reason: "a recovery key: " + why})
}
