package cli

import (
	"errors"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"keyfob/internal/control"
	"keyfob/internal/setup"
)

const importing = "import"

// Where keys are imported from.
const (
	fromCredentials, fromVault, fromCSV, fromEnv = "credentials", "aws-vault", "csv", "env"
)

// foreignBackends are the stores that aws-vault can be told to use.
var foreignBackends = []string{"keychain", "wincred", "secret-service", "kwallet", "pass", "file", "keyctl"}

// importOptions are the flags of `keyfob import`.
type importOptions struct {
	from, file             string
	backend, dir, keychain string
	all, shred, keep       bool
	dryRun                 bool
}

func importFlags(o *options, fs *flag.FlagSet) {
	i := &o.importing
	fs.StringVar(&i.from, "from", fromCredentials, "`source`: credentials (the AWS credentials file), aws-vault, csv or env")
	fs.StringVar(&i.file, "file", "", "`file` of --from csv, or another credentials file")
	fs.BoolVar(&i.all, "all", false, "every key pair that is there")
	fs.BoolVar(&i.shred, "shred", false, "overwrite and remove the plain text that is left: the backup, or the CSV file")
	fs.BoolVar(&i.keep, "keep", false, "leave the backup, or the CSV file, without asking")
	fs.StringVar(&i.backend, "backend", "", "aws-vault: its `backend`: "+alternatives(foreignBackends))
	fs.StringVar(&i.dir, "dir", "", "aws-vault: `directory` of its backend file or pass")
	fs.StringVar(&i.keychain, "keychain", "", "aws-vault: `name` of its keychain, Secret Service collection or pass prefix")
	fs.BoolVar(&o.force, "force", false, "replace key pairs that are in the vault")
	fs.BoolVar(&o.allowRoot, "allow-root", false, "take the key of an account's root user")
	fs.BoolVar(&i.dryRun, "dry-run", false, "list what there is and import nothing")
}

// found is one key pair that can be imported.
type found struct {
	profile string
	id      string // of the key, "" where it is not known before
	place   string // FILE:LINE, for people
	pair    setup.Pair
	item    string // of another program's store
	held    bool   // the vault has a pair for the profile
}

// imported is one key of `keyfob import --json`.
type imported struct {
	Profile     string `json:"profile"`
	AccessKeyID string `json:"access_key_id,omitempty"`
	ARN         string `json:"arn,omitempty"`
	Stored      bool   `json:"stored"`
	Checked     bool   `json:"checked"`
	Removed     bool   `json:"removed"` // from the file
	Error       string `json:"error,omitempty"`
	Hint        string `json:"hint,omitempty"`
	Warning     string `json:"warning,omitempty"`
}

// importResult is `keyfob import --json`.
type importResult struct {
	Keys   []imported   `json:"keys"`
	Left   []setup.Left `json:"left"`
	Backup string       `json:"backup,omitempty"`
}

// importer is one run of `keyfob import`.
type importer struct {
	*app
	names  []string // that were asked for, none for all
	ask    bool
	known  map[string]control.ListEntry
	found  []found
	result importResult
	plain  *setup.File // what the keys are in, nil where it is no file
	pass   string      // of aws-vault's files
}

// importKeys is `keyfob import [P …]`.
func (a *app) importKeys(in invocation) int {
	i := &importer{app: a, names: slices.Clone(in.args), ask: a.canAsk(), known: map[string]control.ListEntry{}}
	i.result = importResult{Keys: []imported{}, Left: []setup.Left{}}
	err := i.run()
	if errors.Is(err, errNoTerminal) {
		err = person("cannot ask: the terminal is gone", "keyfob import --all --yes")
	}
	if err != nil {
		return a.fail(importing, err)
	}
	failed := 0
	for _, k := range i.result.Keys {
		if k.Error != "" {
			failed++
		}
	}
	if a.opts.json && a.printJSON(i.result) != exitDone {
		return exitFailed
	}
	if failed > 0 {
		return exitFailed
	}
	return exitDone
}

func (i *importer) run() error {
	o := i.opts.importing
	if i.rawenv(execFilesVar) != "" && o.from != fromCSV {
		return failure("cannot import under keyfob exec: its AWS files are copies that go with it", "run it in a shell of its own")
	}
	if err := i.checkFlags(); err != nil {
		return err
	}
	if err := i.look(); err != nil {
		return err
	}
	if err := i.narrow(); err != nil {
		return err
	}
	i.show()
	if o.dryRun {
		return nil
	}
	chosen, err := i.choose()
	if err != nil || len(chosen) == 0 {
		return err
	}
	stored, err := i.store(chosen)
	if err != nil {
		return err
	}
	return i.afterwards(stored)
}

func (i *importer) checkFlags() error {
	o := i.opts.importing
	if err := amongWords("--from", o.from, []string{fromCredentials, fromVault, fromCSV, fromEnv}); err != nil {
		return err
	}
	switch {
	case o.shred && o.keep:
		return usage("cannot use both --shred and --keep", "")
	case o.from != fromVault && (o.backend != "" || o.dir != "" || o.keychain != ""):
		return usage("cannot use --backend, --dir or --keychain with --from "+o.from, "--from aws-vault")
	case o.backend != "" && !slices.Contains(foreignBackends, o.backend):
		return amongWords("--backend", o.backend, foreignBackends)
	case o.file != "" && (o.from == fromVault || o.from == fromEnv):
		return usage("cannot use --file with --from "+o.from, "")
	case o.from == fromCSV && o.file == "":
		return usage("cannot import from a CSV file without --file", "keyfob import --from csv --file FILE [--profile P]")
	case !i.ask && !i.opts.yes && !o.dryRun:
		return usage("cannot import: nobody can be asked which keys, and whether to", "keyfob import --all --yes, or keyfob import P --yes")
	case !i.ask && !o.all && len(i.names) == 0 && !o.dryRun && o.from != fromEnv && !(o.from == fromCSV && i.flags.Profile != ""):
		return usage("cannot import: nobody can be asked which keys", "--all, or the names of the profiles")
	}
	return nil
}

// look finds what there is. It also makes sure of the daemon and of the
// vault, before anybody is asked anything.
func (i *importer) look() error {
	ctx, cancel := i.within(quickWait, false)
	defer cancel()
	var all control.ListResult
	where := i.environment()
	if i.opts.importing.from == fromEnv {
		delete(where.Env, "AWS_ACCESS_KEY_ID")
	}
	if err := i.call(ctx, control.MethodList, where, &all, i.handler(importing)); err != nil {
		return err
	}
	for _, p := range all.Profiles {
		i.known[p.Name] = p
	}
	var err error
	switch i.opts.importing.from {
	case fromCredentials:
		err = i.lookCredentials()
	case fromCSV:
		err = i.lookCSV()
	case fromEnv:
		err = i.lookEnvironment()
	case fromVault:
		err = i.lookVault()
	}
	for n := range i.found {
		f := &i.found[n]
		f.held = slices.ContainsFunc(i.known[f.profile].Origins, func(o control.Origin) bool { return o.Kind == "keystore" })
	}
	return err
}

func (i *importer) lookCredentials() error {
	s, err := i.settings()
	if err != nil {
		return err
	}
	path := s.AWSCredentials
	if i.opts.importing.file != "" {
		path = i.absolute(i.opts.importing.file)
	}
	if i.plain, err = setup.Read(path); err != nil {
		return err
	}
	if i.plain.Missing {
		return failure("cannot import: there is no "+path, "--from csv, env or aws-vault")
	}
	pairs, left, err := setup.Credentials(i.plain)
	if err != nil {
		return err
	}
	i.result.Left = append(i.result.Left, left...)
	i.add(pairs)
	if len(pairs) == 0 {
		return failure("cannot import: "+path+" holds no long-lived key pair", "")
	}
	return nil
}

func (i *importer) add(pairs []setup.Pair) {
	for _, p := range pairs {
		place := ""
		if p.File != "" {
			place = fmt.Sprintf("%s:%d", p.File, p.Line)
		}
		if len(p.Also) > 0 {
			place += ", the same key as " + strings.Join(p.Also, ", ")
		}
		i.found = append(i.found, found{profile: p.Profile, id: p.AccessKeyID, place: place, pair: p})
	}
}

func (i *importer) lookCSV() (err error) {
	if i.plain, err = setup.Read(i.absolute(i.opts.importing.file)); err != nil {
		return err
	}
	if i.plain.Missing {
		return failure("cannot import: there is no "+i.plain.Path, "")
	}
	pairs, err := setup.CSV(i.plain)
	if err != nil {
		return err
	}
	if name := i.flags.Profile; name != "" {
		if len(pairs) > 1 {
			return usage(fmt.Sprintf("cannot name %d key pairs %s", len(pairs), name), "without --profile they are named after their users")
		}
		pairs[0].Profile = name
	}
	for n := range pairs {
		if pairs[n].Profile != "" {
			continue
		}
		if !i.ask {
			return usage("cannot import: the file names no user to name a profile after", "--profile P")
		}
		if pairs[n].Profile, err = askLine("Name of the profile for "+pairs[n].AccessKeyID, "", setup.Name); err != nil {
			return err
		}
	}
	i.add(pairs)
	return nil
}

func (i *importer) lookEnvironment() error {
	pair, err := setup.Environment(i.getenv)
	if err != nil {
		return failure(err.Error(), "")
	}
	pair.Profile = i.flags.Profile
	if len(i.names) == 1 && pair.Profile == "" {
		pair.Profile, i.names = i.names[0], nil
	}
	if pair.Profile == "" {
		if !i.ask {
			return usage("cannot import from the environment without a profile's name", "keyfob import --from env P")
		}
		if pair.Profile, err = askLine("Name of the profile", "", setup.Name); err != nil {
			return err
		}
	}
	i.add([]setup.Pair{pair})
	i.found[0].place = "AWS_ACCESS_KEY_ID"
	return nil
}

// narrow leaves what was asked for by name.
func (i *importer) narrow() error {
	if i.flags.Profile != "" && i.opts.importing.from != fromEnv && i.opts.importing.from != fromCSV {
		i.names = append(i.names, i.flags.Profile)
	}
	if len(i.names) == 0 {
		return nil
	}
	var there []string
	for _, f := range i.found {
		there = append(there, f.profile)
	}
	for _, name := range i.names {
		if slices.Contains(there, name) {
			continue
		}
		for _, l := range i.result.Left {
			if l.Profile == name {
				return failure(fmt.Sprintf("cannot import %s (%s:%d): %s", name, l.File, l.Line, l.Why), "")
			}
		}
		hint := "keyfob import --dry-run lists what there is"
		if near := nearest(name, there); near != "" {
			hint = "keyfob import " + quoted(near)
		}
		return failure("cannot import "+name+": it has no long-lived key pair there", hint)
	}
	i.found = slices.DeleteFunc(i.found, func(f found) bool { return !slices.Contains(i.names, f.profile) })
	i.result.Left = []setup.Left{}
	return nil
}

// rows are what there is, for people.
func (i *importer) rows() [][]string {
	rows := make([][]string, len(i.found))
	for n, f := range i.found {
		state := ""
		if f.held {
			state = "(in the vault already)"
		}
		rows[n] = []string{f.profile, f.id, f.place, state}
	}
	return rows
}

// show lists what there is and what is left where it is.
func (i *importer) show() {
	for _, l := range i.result.Left {
		i.notice(fmt.Sprintf("%s stays (%s:%d): %s", l.Profile, l.File, l.Line, l.Why))
	}
	if !i.opts.importing.dryRun {
		return
	}
	for _, f := range i.found {
		i.result.Keys = append(i.result.Keys, imported{Profile: f.profile, AccessKeyID: f.id})
	}
	if !i.opts.json {
		i.print(numbered(i.rows(), nil))
	}
}

// choose is what is imported of what there is.
func (i *importer) choose() ([]found, error) {
	all := i.opts.importing.all || len(i.names) > 0 || len(i.found) == 1
	chosen := i.found
	if !all {
		picked, err := askMany(i.rows())
		if err != nil {
			return nil, err
		}
		chosen = nil
		for _, n := range picked {
			chosen = append(chosen, i.found[n])
		}
	} else if !i.opts.yes {
		i.write(numbered(i.rows(), nil))
	}
	if !i.opts.force {
		for _, f := range chosen {
			if f.held {
				i.notice(f.profile + " is in the vault already, and stays as it is there and here")
				i.advise("keyfob import " + quoted(f.profile) + " --force replaces the one in the vault")
			}
		}
		chosen = slices.DeleteFunc(slices.Clone(chosen), func(f found) bool { return f.held })
	}
	for _, f := range chosen {
		if len(f.pair.Also) > 0 && i.opts.yes { // else the list has said it
			i.notice(f.profile + " has the same key as " + strings.Join(f.pair.Also, ", "))
		}
	}
	if len(chosen) == 0 || i.opts.yes {
		return chosen, nil
	}
	ok, err := askYes("Check these keys with AWS and move them into the vault?", true)
	if err == nil && !ok {
		err = failure("cannot import: you said no", "")
	}
	return chosen, err
}

// defaultBackend is that of aws-vault here.
func defaultBackend() string {
	switch runtime.GOOS {
	case "darwin":
		return "keychain"
	case "windows":
		return "wincred"
	}
	return "secret-service"
}
