package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"keyfob/internal/control"
	"keyfob/internal/setup"
)

// answer is what the profile is to have of one question: by its flag, what
// is there already, what the person says; "" for none.
func (w *wizard) answer(q question, def string) (string, error) {
	if given, ok := w.opts.configure.given[q.flag]; ok {
		if given == none && q.optional {
			return "", nil
		}
		if err := q.check(given); err != nil {
			return "", usage(fmt.Sprintf("cannot use --%s %q: %v", q.flag, given, err), "")
		}
		return given, nil
	}
	if old := w.old[q.key]; old != "" && q.check(old) == nil {
		def = old
	}
	switch {
	case w.ask && !q.silent && !(w.opts.yes && (def != "" || q.optional)):
	case def == "" && !q.optional:
		w.missing = append(w.missing, "--"+q.flag)
		return "", nil
	default:
		return def, nil
	}
	text := q.text
	if q.optional && def == "" {
		text += " (Enter for none)"
	}
	got, err := askLine(text, def, func(s string) error {
		if s == "" || s == none {
			if q.optional {
				return nil
			}
			return errors.New("it can't be empty")
		}
		return q.check(s)
	})
	if got == none {
		got = ""
	}
	return got, err
}

// one asks for what a profile of every kind but Identity Center needs.
func (w *wizard) one() ([]setup.Profile, error) {
	p := setup.Profile{Name: w.name, Keep: w.kind.name == kindExisting}
	if len(w.missing) == 0 && w.kind.name == kindUser {
		if err := w.keys(); err != nil {
			return nil, err
		}
	}
	for _, q := range w.questions() {
		value, err := "", error(nil)
		switch {
		case w.kind.name == kindUser && q.flag == askMFA.flag:
			value, err = w.device(q)
		case q.flag == "source-profile":
			value, err = w.sourceProfile(q)
		default:
			value, err = w.answer(q, "")
		}
		if err != nil {
			return nil, err
		}
		if value != "" && isFile(q.key) {
			value = w.filePath(value)
		}
		if value != "" {
			p.Settings = append(p.Settings, setup.Setting{Key: q.key, Value: value})
		} else if w.old[q.key] != "" {
			p.Drop = append(p.Drop, q.key)
		}
	}
	region, err := w.answer(askRegion, w.callersRegion())
	p.Region = region
	return []setup.Profile{p}, err
}

// questions are those of the kind, without the one that another flag takes
// the place of.
func (w *wizard) questions() []question {
	given := w.opts.configure.given
	return slices.DeleteFunc(slices.Clone(w.kind.questions), func(q question) bool {
		switch q.flag {
		case "source-profile":
			return given["credential-source"] != "" || given["source-profile"] == "" && w.old["credential_source"] != ""
		case "credential-source":
			return given["source-profile"] != ""
		case "saml-url":
			return given["saml-process"] != "" || given["saml-url"] == "" && w.old["saml_process"] != ""
		case "saml-process":
			return given["saml-url"] != ""
		}
		return false
	})
}

func (w *wizard) callersRegion() string {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if v := w.getenv(name); setup.Region(v) == nil {
			return v
		}
	}
	return ""
}

// isFile reports whether a setting may be a path, which is written absolute:
// it is the daemon that opens it.
func isFile(key string) bool {
	return key == "roles_anywhere_certificate" || key == "roles_anywhere_private_key" || key == "roles_anywhere_intermediates"
}

func (w *wizard) filePath(value string) string {
	if strings.HasPrefix(value, "vault:") || strings.HasPrefix(value, "pkcs11:") {
		return value
	}
	return w.absolute(value)
}

// sourceProfile has the profile chosen that assumes a role.
func (w *wizard) sourceProfile(q question) (string, error) {
	_, given := w.opts.configure.given[q.flag]
	var rows [][]string
	var names []string
	def := -1
	for name, e := range w.known {
		if name != w.name {
			names = append(names, name)
			_ = e
		}
	}
	slices.Sort(names)
	for i, name := range names {
		e := w.known[name]
		rows = append(rows, []string{name, e.Source, e.Account})
		if name == w.old[q.key] {
			def = i
		}
	}
	if !given && w.ask && !(w.opts.yes && w.old[q.key] != "") && len(names) > 0 && len(names) <= 30 {
		w.write(q.text + ":\n")
		i, err := askOne("Profile", rows, def)
		if err != nil {
			return "", err
		}
		return names[i], nil
	}
	name, err := w.answer(q, "")
	if err == nil && name != "" && name != w.name && w.known[name].Name == "" {
		near := nearest(name, names)
		if near != "" {
			near = "--source-profile " + quoted(near)
		}
		return "", failure("cannot use "+name+" as source: there is no such profile", near)
	}
	return name, err
}

// program is keyfob's own file, as a credential_process names it: the name
// on the PATH where that is the same file, for it outlives an upgrade.
func program() (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("cannot tell where keyfob is: %w", err)
	}
	me, err := os.Stat(own)
	if err != nil {
		return "", fmt.Errorf("cannot tell where keyfob is: %w", err)
	}
	if found, err := exec.LookPath("keyfob"); err == nil && filepath.IsAbs(found) {
		if it, err := os.Stat(found); err == nil && os.SameFile(it, me) {
			return found, nil
		}
	}
	return own, nil
}

// processLine is the credential_process of a profile: with the flags that say which
// keyfob it is, where this one was told.
func (w *wizard) processLine(profile string) (string, error) {
	path, err := program()
	if err != nil {
		return "", err
	}
	var flags []string
	for _, f := range []struct{ name, value string }{{"--config", w.flags.Config}, {"--data-dir", w.flags.DataDir}, {"--socket", w.flags.Socket}, {"--profiles-file", w.flags.ProfilesFile}} {
		if f.value != "" {
			flags = append(flags, f.name, w.absolute(f.value))
		}
	}
	return setup.CredentialProcess(path, profile, flags, runtime.GOOS == "windows")
}

// warnOfPlainKeys says which profiles have keys in plain text, which SDKs
// would use in place of the credential_process.
func (w *wizard) warnOfPlainKeys(all []setup.Profile) {
	s, err := w.settings()
	if err != nil {
		return
	}
	files := []*setup.File{w.config}
	if f, err := setup.Read(s.AWSCredentials); err == nil {
		files = append(files, f)
	}
	for _, p := range all {
		for _, f := range files {
			section := p.Name
			if f == w.config {
				section = setup.SectionName(p.Name)
			}
			there, err := f.Section(section)
			if err != nil {
				continue
			}
			if k, ok := there["aws_access_key_id"]; ok {
				w.notice(fmt.Sprintf("%s has a key in plain text (%s:%d), which SDKs use first", p.Name, f.Path, k.Line))
				w.advise("keyfob import " + quoted(p.Name))
			} else if k, ok := there["role_arn"]; ok && f != w.config {
				w.notice(fmt.Sprintf("%s has role_arn in %s (line %d), which SDKs obey themselves: move it to %s", p.Name, f.Path, k.Line, w.own.Path))
			}
		}
	}
}

// keys puts the user's key pair into the vault, unless it is there.
func (w *wizard) keys() error {
	if w.opts.configure.dryRun {
		return nil
	}
	there := slices.ContainsFunc(w.known[w.name].Origins, func(o control.Origin) bool { return o.Kind == "keystore" })
	if there && !w.opts.force {
		w.notice(w.name + " has its key in the vault already (--force replaces it)")
		return nil
	}
	if w.ask {
		if err := w.takesKeys(w.name); err != nil {
			return err
		}
	}
	pair, err := w.readPair(w.name)
	if err != nil {
		return err
	}
	return w.store(pair)
}

func (w *wizard) store(pair keyPair) error {
	r, err := w.addPair(w.name, pair)
	switch {
	case err != nil:
		return err
	case r.Warning != "":
		w.notice(r.Warning)
	case r.ARN != "":
		w.notice("the key is " + r.ARN + "'s, and in the vault")
	}
	return nil
}

// addPair stores a pair as `keyfob add` does.
func (a *app) addPair(profile string, pair keyPair) (r control.AddResult, err error) {
	ctx, cancel := a.within(awsWait, false)
	defer cancel()
	err = a.call(ctx, control.MethodAdd, control.AddParams{Context: a.environment().Context, Profile: profile,
		AccessKeyID: pair.AccessKeyID, SecretAccessKey: pair.SecretAccessKey, Force: a.opts.force, AllowRoot: a.opts.allowRoot}, &r, a.handler("add"))
	return r, err
}

// device is the MFA device of an IAM user: AWS knows it.
func (w *wizard) device(q question) (string, error) {
	if _, given := w.opts.configure.given[q.flag]; given || w.old[q.key] != "" || w.opts.configure.dryRun || len(w.missing) > 0 {
		return w.answer(q, "")
	}
	c := w.environment().Context
	c.Profile = w.name
	ctx, cancel := context.WithTimeout(context.Background(), awsWait)
	defer cancel()
	var r control.MFADevicesResult
	if err := w.call(ctx, control.MethodMFADevices, control.ProfileParams{Context: c}, &r, w.handler(configuring)); err != nil {
		w.notice("the user's MFA devices can't be seen: " + strings.TrimPrefix(err.Error(), "cannot "))
		return w.answer(q, "")
	}
	if r.Others > 0 && len(r.Serials) == 0 {
		w.notice("the user's security keys are of a kind of which AWS takes no code here")
	}
	switch {
	case len(r.Serials) == 0:
		return "", nil
	case !w.ask || w.opts.yes:
		w.notice("the user has the MFA device " + r.Serials[0] + ", which is not asked for without --mfa-serial")
		return "", nil
	case len(r.Serials) == 1:
		ok, err := askYes("The user has the MFA device "+oneLine(r.Serials[0])+". Ask for its code at each sign-in?", true)
		if !ok || err != nil {
			return "", err
		}
		return r.Serials[0], nil
	}
	rows := [][]string{}
	for _, s := range r.Serials {
		rows = append(rows, []string{s})
	}
	rows = append(rows, []string{"none: ask for no code"})
	w.write("The user's MFA devices:\n")
	i, err := askOne("Which is asked for a code at each sign-in?", rows, 0)
	if err != nil || i == len(r.Serials) {
		return "", err
	}
	return r.Serials[i], nil
}
