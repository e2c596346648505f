package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"keyfob/internal/control"
)

// keyPair is what `add` reads from standard input.
type keyPair struct {
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string `json:"SecretAccessKey"`
	SessionToken    string `json:"SessionToken"`
}

// add is `keyfob add`.
func (a *app) add(in invocation) int {
	const what = "add the keys"
	name, err := a.mustName(in)
	if err != nil {
		return a.fail(what, err)
	}
	if a.stdinIsTerminal() {
		if err := a.takesKeys(name); err != nil {
			return a.fail(what, err)
		}
	}
	pair, err := a.readPair(name)
	if err != nil {
		return a.fail(what, err)
	}
	ctx, cancel := a.within(awsWait, false)
	defer cancel()
	var r control.AddResult
	err = a.call(ctx, control.MethodAdd, control.AddParams{
		Context:         a.environment().Context,
		Profile:         name,
		AccessKeyID:     pair.AccessKeyID,
		SecretAccessKey: pair.SecretAccessKey,
		Force:           a.opts.force,
		AllowRoot:       a.opts.allowRoot,
	}, &r, a.handler("add"))
	var wire *control.Error
	if errors.As(err, &wire) && wire.Code == control.CodeInteraction {
		if k, e := a.keystore(ctx); e == nil {
			if e = a.sameKeystore(what, k); e != nil {
				err = e
			}
		}
	}
	if err != nil {
		return a.fail(what, err)
	}
	switch {
	case r.Warning != "":
		a.notice(r.Warning)
	case !r.Checked:
		a.notice("the keys are stored unchecked")
	}
	if a.opts.json {
		return a.printJSON(r)
	}
	if r.ARN != "" {
		return a.print(fmt.Sprintf("added %s: %s\n", oneLine(name), oneLine(r.ARN)))
	}
	return a.print(fmt.Sprintf("added %s\n", oneLine(name)))
}

// unlocking is how long a vault that is just being opened is waited for
// before somebody is told that it is locked.
const unlocking = 2 * time.Second

// takesKeys returns why the vault would not take keys for the profile, so
// that nobody is asked for a secret in vain.
func (a *app) takesKeys(name string) error {
	ctx, cancel := a.within(quickWait, false)
	defer cancel()
	for patience := time.Now().Add(unlocking); ; {
		k, err := a.keystore(ctx)
		if err == nil {
			err = a.sameKeystore("add the keys", k)
		}
		if err != nil {
			return err
		}
		if !k.Locked {
			break
		}
		if k.Error != "" || time.Now().After(patience) {
			why := "the vault is locked"
			if k.New && k.Backend == backendPassphrase {
				return person("cannot add the keys: the vault has no passphrase yet", "keyfob unlock")
			} else if k.Error != "" {
				why += ": " + control.Reason(k.Error)
			}
			return person("cannot add the keys: "+why, lockedHint(k))
		}
		time.Sleep(50 * time.Millisecond)
	}
	if a.opts.force {
		return nil
	}
	var known control.ListResult
	if err := a.call(ctx, control.MethodList, a.environment(), &known, nil); err != nil {
		return err
	}
	for _, p := range known.Profiles {
		for _, o := range p.Origins {
			if p.Name == name && o.Kind == "keystore" {
				return failure("cannot add the keys: profile "+name+" has keys in the vault already", "--force replaces them")
			}
		}
	}
	return nil
}

// readPair asks for a key pair, or reads it as JSON where standard input is
// not a terminal. Its errors quote nothing of what was read.
func (a *app) readPair(name string) (keyPair, error) {
	var pair keyPair
	if a.stdinIsTerminal() {
		ctx := context.Background()
		var err error
		if pair.AccessKeyID, err = askTerminal(ctx, "AWS access key ID for "+oneLine(name)+": ", true); err == nil {
			pair.SecretAccessKey, err = askTerminal(ctx, "AWS secret access key: ", false)
		}
		if errors.Is(err, errNoTerminal) {
			return pair, person("cannot ask for the keys: there is no terminal", `give {"AccessKeyId": …, "SecretAccessKey": …} on standard input`)
		}
		if err != nil {
			return pair, err
		}
	} else {
		const form = `one object {"AccessKeyId": …, "SecretAccessKey": …}`
		b, err := io.ReadAll(io.LimitReader(a.Stdin, maxLine+1))
		if err != nil {
			return pair, fmt.Errorf("cannot read standard input: %w", err)
		}
		b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
		if len(bytes.TrimSpace(b)) == 0 {
			return pair, failure("cannot add the keys: standard input is empty", form)
		}
		if len(b) > maxLine || json.Unmarshal(b, &pair) != nil {
			return pair, failure("cannot add the keys: standard input is not the JSON that is wanted", form)
		}
		if pair.AccessKeyID == "" || pair.SecretAccessKey == "" {
			return pair, failure("cannot add the keys: standard input lacks AccessKeyId or SecretAccessKey", form)
		}
	}
	pair.AccessKeyID = strings.TrimSpace(pair.AccessKeyID)
	pair.SecretAccessKey = strings.TrimSpace(pair.SecretAccessKey)
	switch {
	case pair.AccessKeyID == "" || pair.SecretAccessKey == "":
		return pair, failure("cannot add the keys: one of them is empty", "")
	case pair.SessionToken != "" || strings.HasPrefix(pair.AccessKeyID, "ASIA"):
		return pair, failure("cannot add temporary keys: the vault keeps long-lived ones", "give a key whose id begins with AKIA")
	}
	return pair, nil
}

// remove is `keyfob remove`.
func (a *app) remove(in invocation) int {
	const what = "remove the keys"
	name, err := a.mustName(in)
	if err != nil {
		return a.fail(what, err)
	}
	if err := a.confirm("Remove the keys of "+name+" from the vault, and its sessions?", "cannot remove the keys of "+name, "keyfob remove "+quoted(name)+" --yes"); err != nil {
		return a.fail(what, err)
	}
	c, err := a.context(in)
	if err != nil {
		return a.fail(what, err)
	}
	return a.plainCall(what, control.MethodRemove, control.ProfileParams{Context: c}, "removed "+name, profileFact{name})
}
