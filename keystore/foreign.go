package keystore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	"keyfob/internal/cred"
	"keyfob/keystore/internal/wire"
)

// FromAWSVault is the one program whose key pairs can be read.
const FromAWSVault = wire.AWSVault

// BackendFile is a backend of other programs alone: files, each sealed with
// a passphrase.
const BackendFile = "file"

// ErrTemporary: the item holds temporary credentials, which the vault does
// not keep.
var ErrTemporary = errors.New("the keys are temporary: they carry a session token")

// Foreign is where another program keeps long-lived key pairs.
type Foreign struct {
	From       string      // FromAWSVault
	Backend    string      // as 99designs/keyring names them; "" for the platform's
	Dir        string      // of the backends file and pass; absolute, or "" for pass's own
	Keychain   string      // of macOS; else the Secret Service's collection or pass's prefix; "" for the program's own
	Passphrase cred.Secret // of the backend file
}

func (f Foreign) request(op string) (wire.Request, error) {
	if f.From != FromAWSVault {
		return wire.Request{}, cred.WithHint(fmt.Errorf("cannot read the keys of %q: there is no such program: %w", f.From, cred.ErrConfig), FromAWSVault)
	}
	r := wire.Request{Op: op, Backend: f.Backend, Foreign: &wire.Foreign{From: f.From, Dir: f.Dir, Keychain: f.Keychain}}
	if r.Backend == "" {
		b, err := concreteBackend(BackendAuto, runtime.GOOS)
		if err != nil {
			return r, err
		}
		r.Backend = b
	}
	switch _, known := platformsOf(r.Backend); {
	case r.Backend == BackendFile && !filepath.IsAbs(f.Dir):
		return r, fmt.Errorf("cannot read the keys of %s: the directory of its files is not named: %w", f.From, cred.ErrConfig)
	case r.Backend == BackendFile && f.Passphrase.IsZero() && op == wire.OpForeignPair:
		return r, fmt.Errorf("cannot read the keys of %s: %w", f.From, ErrPassphraseNeeded)
	case r.Backend == BackendFile:
		r.Passphrase = f.Passphrase.AppendReveal(nil)
	case !known || r.Backend == BackendPassphrase:
		return r, cred.WithHint(fmt.Errorf("cannot read the keys of %s: there is no backend %q: %w", f.From, r.Backend, ErrBackend), "one of keychain, wincred, secret-service, kwallet, keyctl, pass, file")
	default:
		if _, err := concreteBackend(r.Backend, runtime.GOOS); err != nil {
			return r, err
		}
	}
	return r, nil
}

// ForeignNames lists the names of another program's key pairs, without
// reading one. Sessions and tokens are none. Errors: those of a keyring, as
// Unlock's; ErrBackend, cred.ErrConfig.
func (v *Vault) ForeignNames(ctx context.Context, f Foreign) ([]string, error) {
	resp, err := v.foreign(ctx, f, wire.OpForeignNames, "")
	if err != nil {
		return nil, err
	}
	return resp.Names, nil
}

// ForeignPair reads one of another program's key pairs. Errors: those of
// ForeignNames; cred.ErrNotFound, ErrTemporary, ErrWrongPassphrase.
func (v *Vault) ForeignPair(ctx context.Context, f Foreign, name string) (cred.Credentials, error) {
	resp, err := v.foreign(ctx, f, wire.OpForeignPair, name)
	if err != nil {
		return cred.Credentials{}, err
	}
	defer clear(resp.Value)
	var p wire.Pair
	if json.Unmarshal(resp.Value, &p) != nil || p.AccessKeyID == "" {
		return cred.Credentials{}, fmt.Errorf("%w: it gave no key pair", ErrHelper)
	}
	if p.Temporary {
		return cred.Credentials{}, fmt.Errorf("cannot read %s of %s: %w", printable(name), f.From, ErrTemporary)
	}
	return cred.Credentials{AccessKeyID: p.AccessKeyID, SecretAccessKey: cred.NewSecret(p.SecretAccessKey)}, nil
}

func (v *Vault) foreign(ctx context.Context, f Foreign, op, name string) (*wire.Response, error) {
	req, err := f.request(op)
	if err != nil {
		return nil, err
	}
	defer clear(req.Passphrase)
	req.Key = name
	ctx, cancel := context.WithTimeoutCause(ctx, v.helper.timeout, ErrTimeout)
	defer cancel()
	what := "list the keys of " + f.From
	if name != "" {
		what = "read " + printable(name) + " of " + f.From
	}
	resp, err := v.helper.call(ctx, req)
	if err == nil {
		err = refusal(resp)
		switch resp.Code {
		case wire.CodeNotFound:
			err = cred.ErrNotFound
		case wire.CodeWrongPass:
			err = ErrWrongPassphrase
		}
	}
	if err == nil {
		return resp, nil
	}
	err = fmt.Errorf("cannot %s from %s: %w", what, req.Backend, err)
	switch {
	case errors.Is(err, ErrTimeout):
		return nil, cred.WithHint(err, "see whether a prompt of the keyring waits for an answer")
	case errors.Is(err, ErrNoKeyring):
		return nil, cred.WithHint(err, "--backend names the one that "+f.From+" uses here")
	case errors.Is(err, ErrKeyringLocked):
		return nil, cred.WithHint(err, "unlock the keyring first")
	case errors.Is(err, ErrWrongPassphrase):
		return nil, cred.WithHint(err, "it is the passphrase of "+f.From+"'s files, not that of keyfob's vault")
	}
	return nil, err
}
