package cli

import (
	"errors"
	"fmt"
	"path/filepath"
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
		return amongWords("--kind", given, names)
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
		return failure("cannot take over profile "+w.name+": "+w.config.Path+" does not say where its credentials come from", "keyfob configure "+quoted(w.name)+" --kind role, for one")
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
			w.print(paintDiff(diff, w.lookOf(w.Stdout)))
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
			w.write(paintDiff(diff, w.lookOf(w.Stderr)))
		}
		if !w.opts.yes {
			ok, err := askYes("Write that?", true)
			if errors.Is(err, errInputEnded) {
				return failure(err.Error()+", and no file was changed", w.keysStay())
			}
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
	w.advise(strings.ReplaceAll(w.kind.next, " P", " "+quoted(out.Profiles[0])))
	return nil
}

// paintDiff colours the lines that come and those that go.
func paintDiff(diff string, l look) string {
	if !l.colour {
		return diff
	}
	var b strings.Builder
	for line := range strings.Lines(diff) {
		text, end := strings.TrimSuffix(line, "\n"), line[len(strings.TrimSuffix(line, "\n")):]
		switch {
		case strings.HasPrefix(text, "+++ "), strings.HasPrefix(text, "--- "):
			text = l.paint(bold, text)
		case strings.HasPrefix(text, "+"):
			text = l.paint(green, text)
		case strings.HasPrefix(text, "-"):
			text = l.paint(red, text)
		}
		b.WriteString(text + end)
	}
	return b.String()
}

// keysStay tells who breaks off that the vault holds what was added.
func (w *wizard) keysStay() string {
	if w.kind.name == kindUser {
		return "the keys are in the vault; this takes them out: keyfob remove " + quoted(w.name)
	}
	return ""
}
