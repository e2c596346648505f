package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/settings"
	"keyfob/keystore"
	"keyfob/profiles"
)

// finding is one thing that validate tells.
type finding struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// findings are all of them: with a problem the daemon would not start, or
// would not take the settings at a reload; a warning only its answers would
// show.
type findings struct {
	OK       bool      `json:"ok"`
	Config   string    `json:"config"` // the file, whether it exists or not
	Problems []finding `json:"problems"`
	Warnings []finding `json:"warnings"`
}

// errProblems: validate has told what is wrong.
var errProblems = errors.New("cannot use the settings")

// validate checks the settings as run would take them, and what they name,
// and tells of everything in one go: on w, a line each, or as JSON. With a
// problem it returns an error.
func validate(flags settings.Flags, environ []string, asJSON bool, w io.Writer) error {
	env := environment(environ)
	f := look(flags, env)
	f.OK = len(f.Problems) == 0
	if asJSON {
		b, err := json.MarshalIndent(f, "", "  ")
		if err == nil {
			_, err = fmt.Fprintf(w, "%s\n", b)
		}
		if err != nil {
			return err
		}
	} else {
		for _, x := range f.Warnings {
			fmt.Fprintln(w, "warning: "+x.text())
		}
		for _, x := range f.Problems {
			fmt.Fprintln(w, "error: "+x.text())
			if x.Hint != "" {
				fmt.Fprintln(w, "  hint: "+oneText(x.Hint))
			}
		}
		if f.OK {
			fmt.Fprintln(w, "ok")
		}
	}
	switch n := len(f.Problems); {
	case n == 1:
		return fmt.Errorf("%w: one problem", errProblems)
	case n > 1:
		return fmt.Errorf("%w: %d problems", errProblems, n)
	}
	return nil
}

func (x *finding) text() string {
	switch {
	case x.File != "" && x.Line > 0:
		return fmt.Sprintf("%s:%d: %s", x.File, x.Line, x.Message)
	case x.File != "":
		return x.File + ": " + x.Message
	}
	return x.Message
}

func (f *findings) problem(err error) {
	var set *settings.Error
	if errors.As(err, &set) {
		f.Problems = append(f.Problems, finding{set.File, set.Line, oneText(set.Message), set.Help})
		return
	}
	f.Problems = append(f.Problems, finding{Message: oneText(err.Error()), Hint: hintOf(err)})
}

func (f *findings) warn(format string, args ...any) {
	f.Warnings = append(f.Warnings, finding{Message: oneText(fmt.Sprintf(format, args...))})
}

// look finds all that can be found without starting anything.
func look(flags settings.Flags, env map[string]string) *findings {
	f := &findings{Problems: []finding{}, Warnings: []finding{}}
	s, errs := settings.Check(flags, func(name string) string { return env[name] })
	for _, e := range errs {
		f.problem(e)
	}
	if s == nil {
		return f
	}
	f.Config = s.ConfigFile
	c := &config{Settings: s}
	for _, path := range c.files() {
		if err := c.checkFiles(path); err != nil {
			f.problem(err)
		}
	}
	if _, err := c.newAdmins(); err != nil {
		f.problem(err)
	}
	for _, err := range c.makeRules(func(string) {}) {
		f.problem(err)
	}
	for _, rule := range c.unjudged {
		f.problem(rule)
	}
	f.lookAtProfiles(c, env)
	return f
}

// lookAtProfiles warns of what only answers would show: keyfobd starts
// whatever the AWS files hold.
func (f *findings) lookAtProfiles(c *config, env map[string]string) {
	set := loadProfiles(c, env, vaultNames(c.Settings))
	broken := false
	for _, state := range set.Files() {
		if state.Err != nil {
			broken = true
			f.Warnings = append(f.Warnings, finding{state.Err.File, state.Err.Line, oneText(state.Err.Message), state.Err.Hint()})
		}
	}
	for _, l := range set.List() {
		if l.Err != nil && !broken {
			f.Warnings = append(f.Warnings, finding{l.Err.File, l.Err.Line, "profile " + l.Name + ": " + oneText(l.Err.Message), l.Err.Hint()})
		}
	}
	for i := range c.endpoints {
		e := &c.endpoints[i]
		for _, name := range e.profiles() {
			if !set.Has(name) {
				f.warn("the endpoint %s serves the profile %s, which is in no file and not in the vault", e.Listen, name)
			}
		}
		if text := e.certificateWarning(time.Now()); text != "" {
			f.warn("%s", text)
		}
		if file := e.Metadata.UserDataFile; file != "" {
			if _, err := os.Stat(file); err != nil {
				f.warn("the endpoint %s: user_data_file: %v", e.Listen, err)
			}
		}
	}
	for _, text := range policyProblems(set, c) {
		f.warn("%s", text)
	}
	if !c.System {
		return
	}
	if len(c.rules) == 0 {
		f.warn("no [[profile]] rule gives any user of this machine a profile")
	}
	for _, name := range set.Names() {
		p, err := set.Resolve(named(name))
		if err != nil || p.Err != nil {
			continue
		}
		for _, link := range p.Chain {
			if err := c.mayRun(link); err != nil && link.Profile == name {
				f.warn("%v", err)
			}
		}
	}
}

// makeRules makes rules of the endpoints and the [[profile]] tables, and
// returns all that is wrong with them. reading is told of each policy's file
// before it is read.
func (c *config) makeRules(reading func(path string)) (errs []error) {
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	for _, e := range c.Endpoints {
		policy, err := c.policy(e.Key()+".policy", e.Policy, e.PolicyARNs, reading)
		note(err)
		certificate, err := c.certificate(&e, reading)
		note(err)
		c.endpoints = append(c.endpoints, endpointConfig{Endpoint: e, policy: policy.Encode(), certificate: certificate})
	}
	for _, r := range c.ProfileRules {
		policy, err := c.policy(r.Key()+".session_policy", r.SessionPolicy, r.SessionPolicyARNs, reading)
		note(err)
		c.rules = append(c.rules, access.ProfileRule{Name: r.Name, AllowUsers: r.AllowUsers, AllowGroups: r.AllowGroups,
			AllowPrograms: accessPrograms(r.AllowPrograms), Protected: r.Protected, Policy: policy})
	}
	seen := map[string]bool{}
	for _, r := range c.rulePlaces() {
		if _, err := access.NewRules(r.RulesConfig); err != nil {
			note(c.badRule(r.key, err))
			continue
		}
		for _, why := range r.Unjudgeable() {
			seen[why] = true
			c.unjudged = append(c.unjudged, c.badRule(r.key, errors.New(why)))
		}
	}
	if len(errs) > 0 {
		return errs
	}
	for _, why := range c.allRules().Unjudgeable() { // what two rules say together
		if !seen[why] {
			c.unjudged = append(c.unjudged, c.badRule("", errors.New(why)))
		}
	}
	return nil
}

// vaultNames lists the profiles with keys in the vault, without making one.
func vaultNames(s *settings.Settings) map[string]profiles.VaultKey {
	keys := map[string]profiles.VaultKey{}
	dir := filepath.Join(s.DataDir, "vault")
	if _, err := os.Stat(filepath.Join(dir, "vault.json")); err != nil {
		return keys
	}
	v, err := keystore.Open(keystore.Config{Dir: dir, Backend: s.Keystore})
	if err != nil {
		return keys
	}
	defer v.Close()
	names, err := v.List(context.Background(), keyRecords)
	if err != nil {
		return keys
	}
	for _, name := range names {
		keys[strings.TrimPrefix(name, keyRecords)] = profiles.VaultKey{}
	}
	return keys
}
