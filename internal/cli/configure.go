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

const configuring = "configure"

// wizard is one run of `keyfob configure`.
type wizard struct {
	*app
	in      invocation
	ask     bool // a person can be asked
	kind    kind
	name    string // the profile, "" where there are several
	own     *setup.File
	config  *setup.File
	known   map[string]control.ListEntry
	old     map[string]string // what the files say of the profile
	missing []string          // flags that nobody could be asked for
	journal setup.Journal
}

// configured is `keyfob configure --json`.
type configured struct {
	Profiles []string `json:"profiles"`
	Files    []string `json:"files"`          // that were written
	Undo     int      `json:"undo,omitempty"` // of `keyfob configure undo --list`
	Diff     string   `json:"diff,omitempty"` // with --dry-run
}

// configure is `keyfob configure [P]`.
func (a *app) configure(in invocation) int {
	w, err := a.newWizard(in)
	if err == nil {
		err = w.run()
	}
	if errors.Is(err, errNoTerminal) {
		err = person("cannot ask: the terminal is gone", "keyfob configure --help lists the flags that take the place of answers")
	}
	if err != nil {
		return a.fail(configuring, err)
	}
	return exitDone
}

// newWizard finds out what there is, before anybody is asked anything.
func (a *app) newWizard(in invocation) (*wizard, error) {
	w := &wizard{app: a, in: in, ask: a.canAsk(), known: map[string]control.ListEntry{}}
	if a.rawenv(execFilesVar) != "" {
		return nil, failure("cannot configure under keyfob exec: its AWS config is a copy that goes with it", "run it in a shell of its own")
	}
	var err error
	if w.name, err = a.named(in); err != nil {
		return nil, err
	}
	if w.name != "" {
		if err := setup.Name(w.name); err != nil && !strings.Contains(w.name, " ") {
			return nil, usage(fmt.Sprintf("cannot use the name %q: %v", w.name, err), "")
		}
	}
	if err := setup.CheckTemplate(a.opts.configure.template); err != nil {
		return nil, usage(fmt.Sprintf("cannot use --name-template %q: %v", a.opts.configure.template, err), setup.DefaultTemplate)
	}
	s, err := a.settings()
	if err != nil {
		return nil, err
	}
	w.journal = setup.Journal{Dir: filepath.Join(s.DataDir, "configure")}
	ctx, cancel := a.within(quickWait, false)
	defer cancel()
	var v control.VersionResult
	if err := a.call(ctx, control.MethodVersion, control.Empty{}, &v, nil); err != nil {
		return nil, err
	}
	if v.ProfilesFile == "" {
		v.ProfilesFile = s.ProfilesFile
	}
	var all control.ListResult
	if err := a.call(ctx, control.MethodList, a.environment(), &all, a.handler(configuring)); err != nil {
		return nil, err
	}
	for _, p := range all.Profiles {
		w.known[p.Name] = p
	}
	if w.own, err = setup.Read(v.ProfilesFile); err != nil {
		return nil, err
	}
	if w.config, err = setup.Read(s.AWSConfigFile); err != nil {
		return nil, err
	}
	for _, f := range []*setup.File{w.own, w.config} {
		if _, err := f.Settings(); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *wizard) run() error {
	if err := w.chooseKind(); err != nil {
		return err
	}
	if w.kind.name != kindSSO {
		if err := w.chooseName(); err != nil {
			return err
		}
	}
	if !w.ask && !w.opts.yes && !w.opts.configure.dryRun {
		w.missing = append(w.missing, "--yes")
	}
	if err := w.strays(); err != nil {
		return err
	}
	var session *setup.Session
	var all []setup.Profile
	var err error
	if w.kind.name == kindSSO {
		session, all, err = w.identityCenter()
	} else {
		all, err = w.one()
	}
	if err == nil {
		err = w.complete()
	}
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].Line, err = w.processLine(all[i].Name); err != nil {
			return err
		}
	}
	title := "configure " + all[0].Name
	if len(all) > 1 {
		title = fmt.Sprintf("configure %d profiles", len(all))
	}
	change, notes, err := setup.Make(title, w.own, w.config, session, all)
	if err != nil {
		return err
	}
	return w.finish(change, notes, all)
}

// complete refuses to go on without answers that nobody could be asked for.
func (w *wizard) complete() error {
	if len(w.missing) == 0 {
		return nil
	}
	slices.Sort(w.missing)
	return usage("cannot configure without asking, and nobody can be asked: missing are "+strings.Join(slices.Compact(w.missing), ", "), "keyfob configure --help")
}

func (w *wizard) chooseKind() error {
	all := kinds()
	if given := w.opts.configure.kind; given != "" {
		for _, k := range all {
			if given == k.name || given == k.also {
				w.kind = k
				return nil
			}
		}
		var names []string
		for _, k := range all {
			names = append(names, k.name)
		}
		hint := "one of " + strings.Join(names, ", ")
		if near := nearest(given, names); near != "" {
			hint = "--kind " + near
		}
		return usage(fmt.Sprintf("cannot use --kind %q: there is no such kind", given), hint)
	}
	if !w.ask {
		w.missing = append(w.missing, "--kind")
		if w.name == "" {
			w.missing = append(w.missing, "the profile's name (P)")
		}
		if !w.opts.yes && !w.opts.configure.dryRun {
			w.missing = append(w.missing, "--yes")
		}
		return w.complete()
	}
	if w.name == "" || !w.hasSource() {
		all = slices.DeleteFunc(all, func(k kind) bool { return k.name == kindExisting })
	}
	rows := make([][]string, len(all))
	def := -1
	for i, k := range all {
		rows[i] = []string{k.label}
		if k.name == kindExisting {
			def = i
		}
	}
	head := "Where do the credentials come from?\n"
	if w.name != "" {
		head = "Where do the credentials of " + w.name + " come from?\n"
	}
	w.write(head)
	i, err := askOne("Kind", rows, def)
	if err == nil {
		w.kind = all[i]
	}
	return err
}

// hasSource reports whether the AWS config says where the profile's
// credentials come from, and not that it is keyfob.
func (w *wizard) hasSource() bool {
	there, err := w.config.Section(setup.SectionName(w.name))
	return err == nil && setup.HasSource(there)
}

func (w *wizard) chooseName() error {
	if w.name == "" && !w.ask {
		w.missing = append(w.missing, "the profile's name (P)")
		return nil
	}
	if w.name == "" {
		def := ""
		if _, there := w.known["default"]; !there {
			def = "default"
		}
		var err error
		if w.name, err = askLine("Name of the profile", def, setup.Name); err != nil {
			return err
		}
	}
	if w.kind.name == kindExisting && !w.hasSource() {
		return failure("cannot take over profile "+w.name+": "+w.config.Path+" does not say where its credentials come from", "keyfob configure "+w.name+" --kind role, for one")
	}
	return w.readOld()
}

// readOld reads what the files say of the profile: the answers that are
// there already.
func (w *wizard) readOld() error {
	w.old = map[string]string{}
	for _, f := range []*setup.File{w.config, w.own} { // the latter wins
		there, err := f.Section(setup.SectionName(w.name))
		if err != nil {
			return err
		}
		for key, s := range there {
			w.old[key] = s.Value
		}
	}
	return nil
}

// strays refuses flags of another kind: what they say would be lost.
func (w *wizard) strays() error {
	for name := range w.opts.configure.given {
		if name == askRegion.flag || slices.ContainsFunc(w.kind.questions, func(q question) bool { return q.flag == name }) {
			continue
		}
		return usage(fmt.Sprintf("cannot use --%s with --kind %s", name, w.kind.name), "keyfob configure --help")
	}
	c := w.opts.configure
	if w.kind.name != kindSSO && (c.all || len(c.accounts) > 0 || len(c.roles) > 0) {
		return usage("cannot use --all, --account or --role with --kind "+w.kind.name, "they choose among Identity Center's accounts and roles")
	}
	return nil
}

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
			near = "--source-profile " + near
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

// finish shows the change, asks, and makes it.
func (w *wizard) finish(change *setup.Change, notes []string, all []setup.Profile) error {
	out := configured{Profiles: []string{}, Files: []string{}}
	for _, p := range all {
		out.Profiles = append(out.Profiles, p.Name)
	}
	diff := change.Diff()
	if w.opts.configure.dryRun {
		if w.opts.json {
			out.Diff = diff
			w.printJSON(out)
		} else {
			w.print(diff)
		}
		return nil
	}
	for _, n := range notes {
		w.notice(n)
	}
	w.warnOfPlainKeys(all)
	if change.Empty() {
		w.notice("nothing has to change: " + strings.Join(out.Profiles, ", "))
	} else {
		if !w.opts.quiet || !w.opts.yes {
			w.write(diff)
		}
		if !w.opts.yes {
			ok, err := askYes("Write that?", true)
			if err != nil {
				return err
			}
			if !ok {
				return failure("cannot configure: you said no, and no file was changed", w.keysStay())
			}
		}
		e, err := w.journal.Apply(change)
		if err != nil {
			return err
		}
		out.Undo = e.ID
		for _, f := range change.Files {
			out.Files = append(out.Files, f.File.Path)
		}
	}
	if w.opts.json {
		w.printJSON(out)
		return nil
	}
	for _, name := range out.Profiles {
		w.print("configured " + oneLine(name) + "\n")
	}
	if out.Undo > 0 {
		w.notice("`keyfob configure undo` takes it back")
	}
	w.hint(strings.ReplaceAll(w.kind.next, " P", " "+out.Profiles[0]))
	return nil
}

// keysStay tells who breaks off that the vault holds what was added.
func (w *wizard) keysStay() string {
	if w.kind.name == kindUser {
		return "the keys are in the vault: keyfob remove " + w.name
	}
	return ""
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
				w.hint("keyfob import " + p.Name)
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
