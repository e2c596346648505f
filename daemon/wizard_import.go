package daemon

import (
	"encoding/json"
	"errors"
	"fmt"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/keystore"
)

// foreignStore is where the keys of another program are, as a call names it.
func foreignStore(p control.ForeignKeysParams) keystore.Foreign {
	return keystore.Foreign{From: p.From, Backend: p.Backend, Dir: p.Dir, Keychain: p.Keychain, Passphrase: cred.NewSecret(p.Passphrase)}
}

// foreignKeys lists the names of the key pairs that another program keeps in
// a keyring. It is read because a person asked for it, and then alone.
func (d *daemon) foreignKeys(c *call) (any, error) {
	p, err := decode[control.ForeignKeysParams](c)
	if err != nil {
		return nil, err
	}
	names, err := d.vault.ForeignNames(c.ctx, foreignStore(p))
	if err != nil {
		return nil, foreignError(err)
	}
	if names == nil {
		names = []string{}
	}
	return control.ForeignKeysResult{Names: names}, nil
}

// importKey copies one of them into the vault, by the way of add.
func (d *daemon) importKey(c *call) (any, error) {
	p, err := decode[control.ImportKeyParams](c)
	if err != nil {
		return nil, err
	}
	if p.Name == "" || p.Profile == "" {
		return nil, &control.Error{Code: control.CodeUsage, Message: "cannot import: a name and a profile are needed"}
	}
	keys, err := d.vault.ForeignPair(c.ctx, foreignStore(p.ForeignKeysParams), p.Name)
	if err != nil {
		return nil, foreignError(err)
	}
	params, err := json.Marshal(control.AddParams{Context: d.ownContext(), Profile: p.Profile, AccessKeyID: keys.AccessKeyID,
		SecretAccessKey: keys.SecretAccessKey.Reveal(), Force: p.Force, AllowRoot: p.AllowRoot})
	if err != nil {
		return nil, fmt.Errorf("cannot import %s: it holds no key pair", p.Name) // the encoder's words could quote it
	}
	defer clear(params)
	adding := *c
	adding.params = params
	return d.add(&adding)
}

// ownContext is the context of a caller whose environment is the daemon's:
// what import-key does depends on no file of its caller's.
func (d *daemon) ownContext() control.Context {
	c := control.Context{Named: true, Env: map[string]string{}}
	for name, value := range d.env {
		c.Env[name] = value
	}
	delete(c.Env, "AWS_ACCESS_KEY_ID")
	c.Env["AWS_CONFIG_FILE"], c.Env["AWS_SHARED_CREDENTIALS_FILE"] = d.conf().AWSConfigFile, d.conf().AWSCredentials
	return c
}

// foreignError gives what another program's keyring answers its code.
func foreignError(err error) error {
	code := control.Code("")
	switch {
	case errors.Is(err, cred.ErrNotFound):
		code = control.CodeNotFound
	case errors.Is(err, cred.ErrConfig), errors.Is(err, keystore.ErrBackend):
		code = control.CodeUsage
	default:
		return err
	}
	return &control.Error{Code: code, Message: sentence(err, "import"), Hint: hintOf(err)}
}
