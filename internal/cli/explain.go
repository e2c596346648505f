package cli

import (
	"encoding/json"
	"strings"

	"keyfob/internal/control"
	"keyfob/profiles"
)

// style draws the texts of package profiles.
func (l look) style() profiles.Style {
	with := func(colour string) func(string) string {
		return func(text string) string { return l.paint(colour, text) }
	}
	return profiles.Style{Name: with(bold), Faint: with(dim), Good: with(green), Bad: with(red)}
}

// explain is `keyfob explain`: of a profile that does not work it shows as
// much as there is, and fails.
func (a *app) explain(in invocation) int {
	const what = "explain the profile"
	c, err := a.context(in)
	if err != nil {
		return a.fail(what, err)
	}
	if a.opts.shadow {
		return a.explainShadow(c)
	}
	raw, x, err := a.explanation(c)
	if err != nil {
		return a.fail(what, err)
	}
	code := exitDone
	if a.opts.json {
		code = a.printJSON(raw)
	} else {
		var b strings.Builder
		shown := x
		shown.Error = nil // it goes to standard error
		shown.Text(&b, a.lookOf(a.Stdout).style())
		code = a.print(b.String())
	}
	if x.Error != nil {
		return a.fail(what, failure(x.Error.Message, x.Error.Hint))
	}
	return code
}

func (a *app) explanation(c control.Context) (raw json.RawMessage, x profiles.Explanation, err error) {
	ctx, cancel := a.within(quickWait, false)
	defer cancel()
	err = a.call(ctx, control.MethodExplain, control.ProfileParams{Context: c}, &raw, a.handler("explain"))
	if err == nil {
		err = json.Unmarshal(raw, &x)
	}
	return raw, x, err
}

// explainShadow is `keyfob explain --shadow`. What an SDK would do depends on
// the files and the environment here, not on the daemon's: it is found out
// here. The daemon is asked for the comparison alone.
func (a *app) explainShadow(c control.Context) int {
	const what = "tell what the SDKs would do"
	set, err := a.readProfiles()
	if err != nil {
		return a.fail(what, err)
	}
	q := profiles.ShadowQuery{Env: a.awsEnvironment()}
	if c.Named {
		q.Profile = c.Profile
	}
	_, x, err := a.explanation(c)
	switch {
	case err == nil:
		q.Keyfob = &x
	case !set.Has(c.Profile):
		return a.fail(what, err)
	default:
		a.notice("cannot compare with keyfob: " + strings.TrimPrefix(err.Error(), "cannot "))
	}
	report := set.Shadow(q)
	if a.opts.json {
		return a.printJSON(report)
	}
	var b strings.Builder
	report.Text(&b, a.lookOf(a.Stdout).style())
	return a.print(b.String())
}

// readProfiles reads the AWS files as programs here would, and keyfob's own.
// vault are the profiles that have keys in the vault, where they are to count.
func (a *app) readProfiles(vault ...string) (*profiles.Set, error) {
	s, err := a.settings()
	if err != nil {
		return nil, err
	}
	held := map[string]profiles.VaultKey{}
	for _, name := range vault {
		held[name] = profiles.VaultKey{}
	}
	in := profiles.Input{
		Vault:           held,
		ConfigFile:      s.AWSConfigFile,
		CredentialsFile: s.AWSCredentials,
		KeyfobFile:      s.ProfilesFile,
		Env:             a.awsEnvironment(),
		Home:            a.getenv("HOME"),
	}
	return profiles.Load(in), nil
}

// awsEnvironment are the variables that AWS SDKs read; of those that stand
// twice the last counts.
func (a *app) awsEnvironment() map[string]string {
	env := map[string]string{}
	for _, entry := range a.Environ {
		if name, value, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, "AWS_") {
			env[name] = value
		}
	}
	return env
}
