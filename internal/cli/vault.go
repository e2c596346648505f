package cli

import (
	"context"
	"errors"

	"keyfob/internal/control"
)

// recoveryKeyMade is what --json says of a recovery key.
type recoveryKeyMade struct {
	RecoveryKey string `json:"recovery_key"` // secret; kept nowhere
}

// recoveryKey is `keyfob vault recovery-key`. The key alone goes to standard
// output: it is for a person to write down, and nothing keeps it.
func (a *app) recoveryKey(invocation) int {
	const what = "make a recovery key"
	set, err := a.settings()
	if err != nil {
		return a.fail(what, err)
	}
	p := control.RecoveryKeyParams{MayAsk: a.mayAsk(set.Interactive)}
	ctx, cancel := a.within(unlockWait, p.MayAsk)
	defer cancel()
	k, err := a.keystore(ctx)
	if err != nil {
		return a.fail(what, err)
	}
	if k.New { // before a secret is asked for in vain
		return a.fail(what, person("cannot make a recovery key: the vault has no key yet", lockedHint(k)))
	}
	if k.Backend == backendPassphrase { // with a keyring the daemon itself asks, whatever --yes says
		if err := a.confirm("Make a recovery key for the vault? A former recovery key opens nothing any more.",
			"cannot make a recovery key", "keyfob vault recovery-key --yes"); err != nil {
			return a.fail(what, err)
		}
		if p.Passphrase, err = a.vaultPassphrase(ctx, false); err != nil {
			return a.fail(what, err)
		}
	}
	var r control.RecoveryKeyResult
	if err := a.call(ctx, control.MethodRecoveryKey, p, &r, a.handler("vault")); err != nil {
		return a.fail(what, err)
	}
	var code int
	if a.opts.json {
		code = a.printJSON(recoveryKeyMade{r.Key})
	} else {
		code = a.print(oneLine(r.Key) + "\n")
	}
	if code == exitDone {
		a.notice("write it down and keep it away from this machine: whoever has it and the vault's files opens the vault. It is shown this once, and a former one opens nothing any more")
	}
	return code
}

// backendPassphrase is the keystore that has no keyring.
const backendPassphrase = "passphrase"

// keystore is the state of the daemon's vault.
func (a *app) keystore(ctx context.Context) (control.KeystoreStatus, error) {
	var st control.StatusResult
	err := a.call(ctx, control.MethodStatus, control.Empty{}, &st, nil)
	return st.Keystore, err
}

// unlock is `keyfob unlock`. Only a vault with a passphrase needs to be told
// one; a keyring asks by itself.
func (a *app) unlock(invocation) int {
	const what = "unlock the vault"
	ctx, cancel := context.WithTimeout(context.Background(), unlockWait)
	defer cancel()
	k, err := a.keystore(ctx)
	if err == nil {
		err = a.sameKeystore(what, k)
	}
	if err != nil {
		return a.fail(what, err)
	}
	var p control.UnlockParams
	switch {
	case a.opts.recovery:
		p, err = a.readRecovery(ctx, k)
	case k.Backend == backendPassphrase:
		p.Passphrase, err = a.vaultPassphrase(ctx, k.New)
	}
	if err == nil {
		err = a.call(ctx, control.MethodUnlock, p, nil, a.handler("unlock"))
	}
	if err != nil {
		return a.fail(what, err)
	}
	return a.done("unlocked", struct{}{})
}

// vaultPassphrase asks for the vault's passphrase, or reads it as one line of
// a standard input that is no terminal. An empty one leaves it to the
// daemon's passphrase file (and, for a recovery key, to a person's yes).
func (a *app) vaultPassphrase(ctx context.Context, isNew bool) (pass string, err error) {
	switch {
	case !a.stdinIsTerminal():
		return (&lineSource{from: a.Stdin}).next()
	case isNew:
		pass, err = askTwice(ctx, "New passphrase for keyfob's vault: ", "cannot make the vault")
	default:
		pass, err = askTerminal(ctx, "Passphrase of keyfob's vault: ", false)
	}
	if errors.Is(err, errNoTerminal) {
		err = person("cannot ask for the passphrase: there is no terminal", "give it as one line on standard input")
	}
	return pass, err
}

// readRecovery asks for a recovery key and, where the vault has a passphrase,
// for another one in its place; of a standard input that is no terminal they
// are two lines. An empty passphrase keeps the former.
func (a *app) readRecovery(ctx context.Context, k control.KeystoreStatus) (p control.UnlockParams, err error) {
	again := k.Backend == backendPassphrase
	if a.stdinIsTerminal() {
		p.Recovery, err = askTerminal(ctx, "Recovery key of keyfob's vault: ", false)
		if err == nil && p.Recovery != "" && again {
			p.Passphrase, err = askTwice(ctx, "New passphrase for keyfob's vault (Enter keeps the former): ", "cannot unlock the vault")
		}
	} else {
		lines := &lineSource{from: a.Stdin}
		p.Recovery, err = lines.next()
		if err == nil && again {
			p.Passphrase, err = lines.next()
		}
	}
	switch {
	case errors.Is(err, errNoTerminal):
		err = person("cannot ask for the recovery key: there is no terminal", "give it as the first line of standard input, and a new passphrase as the second")
	case err == nil && p.Recovery == "":
		err = person("cannot unlock the vault: no recovery key was given", "keyfob unlock --recovery")
	}
	return p, err
}

// askTwice asks for a new passphrase, which becomes the one that opens the
// vault; an empty one only once. cannot begins the refusal of two that differ.
func askTwice(ctx context.Context, question, cannot string) (string, error) {
	first, err := askTerminal(ctx, question, false)
	if err != nil || first == "" {
		return "", err
	}
	second, err := askTerminal(ctx, "The same once more: ", false)
	if err != nil {
		return "", err
	}
	if first != second {
		return "", failure(cannot+": the two passphrases differ", "")
	}
	return first, nil
}

// sameKeystore refuses where a vault stays locked because the daemon has
// another keystore than the one that is named here: it was started before.
func (a *app) sameKeystore(what string, k control.KeystoreStatus) error {
	s, err := a.settings()
	if err != nil {
		return err
	}
	if !k.Locked || k.Backend == "" || s.Keystore == "" || s.Keystore == "auto" || s.Keystore == k.Backend || a.socket == s.SystemSocket && !s.SocketExplicit {
		return nil
	}
	from := "keystore.backend"
	switch {
	case a.flags.Keystore != "":
		from = "--keystore"
	case a.getenv("KEYFOB_KEYSTORE") != "":
		from = "KEYFOB_KEYSTORE"
	}
	return failure("cannot "+what+": "+from+" is "+s.Keystore+" here, and the running daemon was started with "+k.Backend, "keyfob stop")
}

// lockedHint is what opens a locked vault.
func lockedHint(k control.KeystoreStatus) string {
	if k.Hint != "" {
		return k.Hint
	}
	return "keyfob unlock"
}
