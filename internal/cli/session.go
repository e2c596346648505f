package cli

import (
	"context"
	"errors"
	"fmt"

	"keyfob/internal/control"
)

// plainCall is a command whose result is that it is done.
func (a *app) plainCall(what, method string, params any, done string) int {
	ctx, cancel := a.within(awsWait, false)
	defer cancel()
	if err := a.call(ctx, method, params, nil, a.handler(what)); err != nil {
		return a.fail(what, err)
	}
	if done == "" {
		return exitDone
	}
	return a.print(oneLine(done) + "\n")
}

// login is `keyfob login`.
func (a *app) login(in invocation) int {
	const what = "sign in"
	c, err := a.context(in)
	if err != nil {
		return a.fail(what, err)
	}
	c.MayAsk = true // it is what login is for; standard input may answer
	ctx, cancel := context.WithTimeout(context.Background(), a.signInWait())
	defer cancel()
	var r control.LoginResult
	err = a.call(ctx, control.MethodLogin, control.LoginParams{Context: c, Force: a.opts.force}, &r, a.handler("login"))
	if err != nil {
		return a.fail(what, err)
	}
	if a.opts.json {
		return a.printJSON(r)
	}
	text := "signed in to " + r.Profile
	if r.Already {
		text = r.Profile + " has a valid session"
	}
	if r.Expiration != "" {
		text += " until " + localTime(r.Expiration)
	}
	return a.print(oneLine(text) + "\n")
}

// logout is `keyfob logout`.
func (a *app) logout(in invocation) int {
	c, err := a.context(in)
	if err != nil {
		return a.fail("sign out", err)
	}
	return a.plainCall("sign out", control.MethodLogout, control.ProfileParams{Context: c}, "signed out of "+c.Profile)
}

func (a *app) lock(invocation) int {
	return a.plainCall("lock", control.MethodLock, control.Empty{}, "locked")
}

func (a *app) reload(invocation) int {
	return a.plainCall("reload", control.MethodReload, control.Empty{}, "reloaded")
}

// unlock is `keyfob unlock`. Only a vault with a passphrase needs to be told
// one; a keyring asks by itself.
func (a *app) unlock(invocation) int {
	const what = "unlock the vault"
	ctx, cancel := context.WithTimeout(context.Background(), unlockWait)
	defer cancel()
	var st control.StatusResult
	if err := a.call(ctx, control.MethodStatus, control.Empty{}, &st, nil); err != nil {
		return a.fail(what, err)
	}
	var p control.UnlockParams
	if st.Keystore.Backend == "passphrase" {
		var err error
		if a.stdinIsTerminal() {
			p.Passphrase, err = askPassphrase(ctx, st.Keystore.New)
		} else {
			// An empty input leaves it to the daemon's passphrase file.
			p.Passphrase, err = (&lineSource{from: a.Stdin}).next()
		}
		if errors.Is(err, errNoTerminal) {
			err = person("cannot ask for the passphrase: there is no terminal", "give it as one line on standard input")
		}
		if err != nil {
			return a.fail(what, err)
		}
	}
	if err := a.call(ctx, control.MethodUnlock, p, nil, a.handler("unlock")); err != nil {
		return a.fail(what, err)
	}
	return a.print("unlocked\n")
}

// askPassphrase asks for the vault's passphrase; for a new vault twice, since
// what is given becomes the one that opens it.
func askPassphrase(ctx context.Context, isNew bool) (string, error) {
	if !isNew {
		return askTerminal(ctx, "Passphrase of keyfob's vault: ", false)
	}
	first, err := askTerminal(ctx, "New passphrase for keyfob's vault: ", false)
	if err != nil {
		return "", err
	}
	second, err := askTerminal(ctx, "The same once more: ", false)
	if err != nil {
		return "", err
	}
	if first != second {
		return "", failure("cannot make the vault: the two passphrases differ", "")
	}
	return first, nil
}

// stop is `keyfob stop`. It starts no daemon to end it.
func (a *app) stop(invocation) int {
	const what = "stop keyfobd"
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	client, err := a.dial(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		a.say("keyfob: keyfobd is not running")
		return exitDone
	}
	if err == nil {
		err = a.end(ctx, client)
	}
	if err != nil {
		return a.fail(what, err)
	}
	return a.print(fmt.Sprintf("stopped keyfobd (pid %d)\n", client.Server().PID))
}
