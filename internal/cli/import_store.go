package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/setup"
)

// store puts each into the vault, by the checks of add. One that AWS refuses
// does not keep the others out.
func (i *importer) store(chosen []found) ([]found, error) {
	var stored []found
	for _, f := range chosen {
		var r control.AddResult
		var err error
		if f.item != "" {
			r, err = i.importOne(f)
		} else {
			r, err = i.addFound(f)
		}
		k := imported{Profile: f.profile, AccessKeyID: f.id, ARN: r.ARN, Stored: err == nil, Checked: r.Checked, Warning: r.Warning}
		var wire *control.Error
		switch {
		case err != nil && !errors.As(err, &wire), err != nil && wire.Code == control.CodeInteraction:
			return nil, err // the vault is locked, the daemon is gone: the others would fail too
		case err != nil:
			k.Error, k.Hint = wire.Message, wire.Hint
			i.say("keyfob: cannot import " + f.profile + ": " + strings.TrimPrefix(strings.TrimPrefix(wire.Message, "cannot add the keys: "), "cannot "))
			i.hint(wire.Hint)
		case !r.Checked:
			i.notice(f.profile + ": " + orText(r.Warning, "the keys are stored unchecked"))
		default:
			if r.Warning != "" {
				i.notice(f.profile + ": " + r.Warning)
			}
			stored = append(stored, f)
		}
		i.result.Keys = append(i.result.Keys, k)
		if err == nil && !i.opts.json {
			i.print(oneLine(strings.TrimSpace("imported "+f.profile+" "+r.ARN)) + "\n")
		}
	}
	return stored, nil
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (i *importer) addFound(f found) (control.AddResult, error) {
	if i.opts.importing.from == fromEnv {
		// These keys are what the check of the environment would refuse.
		ctx, cancel := i.within(awsWait, false)
		defer cancel()
		c := i.environment().Context
		delete(c.Env, "AWS_ACCESS_KEY_ID")
		var r control.AddResult
		err := i.call(ctx, control.MethodAdd, control.AddParams{Context: c, Profile: f.profile, AccessKeyID: f.pair.AccessKeyID,
			SecretAccessKey: f.pair.Secret.Reveal(), Force: i.opts.force, AllowRoot: i.opts.allowRoot}, &r, i.handler("add"))
		return r, err
	}
	return i.addPair(f.profile, keyPair{AccessKeyID: f.pair.AccessKeyID, SecretAccessKey: f.pair.Secret.Reveal()})
}

// afterwards takes the plain text away, of what was stored and checked.
func (i *importer) afterwards(stored []found) error {
	if len(stored) == 0 {
		return nil
	}
	names := make([]string, len(stored))
	for n, f := range stored {
		names[n] = f.profile
	}
	if err := i.connectPrograms(names); err != nil {
		i.notice(strings.TrimPrefix(err.Error(), "cannot ") + "; programs do not find " + strings.Join(names, ", ") + " by the AWS config yet")
		i.advise("keyfob configure " + quoted(names[0]))
		if i.opts.importing.from == fromCredentials {
			return failure("cannot take the keys out of "+i.plain.Path+": programs would have none", "keyfob configure "+quoted(names[0])+" --kind user, then keyfob import --force")
		}
	}
	switch i.opts.importing.from {
	case fromCredentials:
		return i.takeOut(names)
	case fromCSV:
		if len(stored) < len(i.found) {
			i.notice(i.plain.Path + " stays: not all of its keys are in the vault")
			return nil
		}
		return i.offerShred(i.plain.Path, "the CSV file")
	case fromEnv:
		i.advise("unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY, and take them out of your shell's start-up files")
	case fromVault:
		i.notice("aws-vault's own copy is left as it is")
		i.advise("aws-vault remove " + quoted(names[0]) + ", when keyfob serves you")
	}
	return nil
}

// connectPrograms writes the credential_process of the profiles into the AWS
// config, without which programs that had keys in a file would have none.
func (i *importer) connectPrograms(names []string) error {
	w := &wizard{app: i.app}
	s, err := i.settings()
	if err != nil {
		return err
	}
	if w.config, err = setup.Read(s.AWSConfigFile); err != nil {
		return err
	}
	var all []setup.Profile
	for _, name := range names {
		there, err := w.config.Section(setup.SectionName(name))
		if err != nil {
			return err
		}
		if setup.HasSource(there) {
			if i.opts.importing.from == fromCredentials {
				i.notice(name + " has a source of its own in " + w.config.Path + ", which programs use from now on")
				i.advise("keyfob configure " + quoted(name) + " has them ask keyfob")
			}
			continue
		}
		line, err := w.processLine(name)
		if err != nil {
			return err
		}
		all = append(all, setup.Profile{Name: name, Line: line})
	}
	change, err := setup.Lines("import "+strings.Join(names, ", "), w.config, all)
	if err != nil || change.Empty() {
		return err
	}
	j := setup.Journal{Dir: filepath.Join(s.DataDir, "configure")}
	if _, err := j.Apply(change); err != nil {
		return err
	}
	i.notice("programs get " + strings.Join(names, ", ") + " by credential_process now (" + w.config.Path + "); `keyfob configure undo` takes that line back, and the keys stay in the vault")
	return nil
}

// takeOut removes the pairs from the credentials file, and keeps a backup.
func (i *importer) takeOut(names []string) error {
	change, err := setup.WithoutPairs(i.plain, names)
	if err != nil {
		return err
	}
	backup, err := setup.Backup(i.plain, time.Now())
	if err != nil {
		return err
	}
	if err := change.Apply(); err != nil {
		if serr := setup.Shred(backup); serr != nil {
			i.notice("the backup " + backup + " is left")
		}
		return err
	}
	for n := range i.result.Keys {
		k := &i.result.Keys[n]
		k.Removed = k.Stored && slices.Contains(names, k.Profile)
	}
	i.notice(fmt.Sprintf("took the keys of %s out of %s", strings.Join(names, ", "), i.plain.Path))
	i.result.Backup = backup
	gone, err := i.shred(backup, "the backup of the credentials file")
	if gone {
		i.result.Backup = ""
	}
	return err
}

func (i *importer) offerShred(path, what string) error {
	_, err := i.shred(path, what)
	return err
}

// shred asks whether to overwrite and remove what is left in plain text.
func (i *importer) shred(path, what string) (gone bool, err error) {
	do := i.opts.importing.shred
	if !do && !i.opts.importing.keep && !i.opts.yes && i.ask {
		if do, err = askYes("Overwrite and remove "+what+", "+oneLine(path)+"?", false); err != nil {
			return false, err
		}
	}
	if !do {
		i.notice(what + " holds the keys in plain text: " + path)
		return false, nil
	}
	if err := setup.Shred(path); err != nil {
		return false, err
	}
	i.notice("removed " + path + "; but " + setup.ShredLimits)
	return true, nil
}
