package cli

import (
	"context"
	"errors"
	"os"
	"strings"

	"keyfob/internal/control"
)

// awsVault is where aws-vault keeps its keys: by our flags, else by its own
// variables, else by its defaults.
func (i *importer) awsVault() control.ForeignKeysParams {
	o := i.opts.importing
	p := control.ForeignKeysParams{From: fromVault, Backend: o.backend, Dir: o.dir, Keychain: o.keychain}
	or := func(value *string, variable string) {
		if *value == "" {
			*value = i.getenv(variable)
		}
	}
	or(&p.Backend, "AWS_VAULT_BACKEND")
	if p.Backend == "" {
		p.Backend = defaultBackend()
	}
	switch p.Backend {
	case "file":
		or(&p.Dir, "AWS_VAULT_FILE_DIR")
		if p.Dir == "" {
			p.Dir = "~/.awsvault/keys"
		}
	case "pass":
		or(&p.Dir, "AWS_VAULT_PASS_PASSWORD_STORE_DIR")
		or(&p.Keychain, "AWS_VAULT_PASS_PREFIX")
	case "keychain":
		or(&p.Keychain, "AWS_VAULT_KEYCHAIN_NAME")
	case "secret-service":
		or(&p.Keychain, "AWS_VAULT_SECRET_SERVICE_COLLECTION_NAME")
	}
	if p.Dir != "" {
		p.Dir = i.absolute(p.Dir)
	}
	return p
}

// lookVault lists aws-vault's key pairs. They are not read before they are
// chosen.
func (i *importer) lookVault() error {
	p := i.awsVault()
	if p.Backend == "file" {
		if _, err := os.Stat(p.Dir); err != nil {
			return failure("cannot import from aws-vault: there is no "+p.Dir, "--dir names its directory, --backend its other stores")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), unlockWait)
	defer cancel()
	var r control.ForeignKeysResult
	if err := i.call(ctx, control.MethodForeignKeys, p, &r, i.handler(importing)); err != nil {
		return err
	}
	for _, name := range r.Names {
		i.found = append(i.found, found{profile: name, item: name, place: "aws-vault, " + p.Backend})
	}
	if len(i.found) == 0 {
		return failure("cannot import from aws-vault: its "+p.Backend+" holds no key pair", "--backend and --dir name another of its stores")
	}
	return nil
}

// importOne has the daemon copy one of aws-vault's pairs: it never comes
// here.
func (i *importer) importOne(f found) (control.AddResult, error) {
	p := i.awsVault()
	var r control.AddResult
	if p.Backend == "file" && i.pass == "" {
		var err error
		if i.pass, err = i.filePassphrase(); err != nil {
			return r, err
		}
	}
	p.Passphrase = i.pass
	ctx, cancel := context.WithTimeout(context.Background(), unlockWait)
	defer cancel()
	err := i.call(ctx, control.MethodImportKey, control.ImportKeyParams{ForeignKeysParams: p, Name: f.item, Profile: f.profile,
		Force: i.opts.force, AllowRoot: i.opts.allowRoot}, &r, i.handler(importing))
	return r, err
}

// filePassphrase is that of aws-vault's files: its own variable, a person,
// or a line of standard input.
func (i *importer) filePassphrase() (string, error) {
	if pass := i.rawenv("AWS_VAULT_FILE_PASSPHRASE"); pass != "" {
		return pass, nil
	}
	const hint = "give it as a line of standard input, or in AWS_VAULT_FILE_PASSPHRASE"
	var pass string
	var err error
	if i.stdinIsTerminal() {
		pass, err = askTerminal(context.Background(), "Passphrase of aws-vault's files: ", false)
	} else {
		pass, err = (&lineSource{from: i.Stdin}).next()
	}
	if errors.Is(err, errNoTerminal) || err == nil && strings.TrimSpace(pass) == "" {
		return "", person("cannot import from aws-vault: its files need a passphrase", hint)
	}
	return pass, err
}
