package cli

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"keyfob/internal/control"
	"keyfob/internal/setup"
)

// assigned is one role in one account.
type assigned struct {
	account control.SSOAccount
	role    string
}

// identityCenter signs in, has accounts and roles chosen, and names a
// profile for each.
func (w *wizard) identityCenter() (*setup.Session, []setup.Profile, error) {
	s, err := w.portal()
	if err != nil {
		return nil, nil, err
	}
	c := w.opts.configure
	if !w.ask && !c.all && len(c.accounts)+len(c.roles) == 0 {
		w.missing = append(w.missing, "--all, or --account and --role")
	}
	if err := w.complete(); err != nil {
		return nil, nil, err
	}
	all, err := w.assignments(s)
	if err != nil {
		return nil, nil, err
	}
	chosen, err := w.choose(all)
	if err != nil {
		return nil, nil, err
	}
	region, err := w.answer(askRegion, s.Region)
	if err != nil {
		return nil, nil, err
	}
	names, err := w.names(s, chosen)
	if err != nil {
		return nil, nil, err
	}
	list := make([]setup.Profile, len(chosen))
	for i, x := range chosen {
		list[i] = setup.Profile{Name: names[i], Region: region, Settings: []setup.Setting{
			{Key: "sso_session", Value: s.Name}, {Key: "sso_account_id", Value: x.account.ID}, {Key: "sso_role_name", Value: x.role}}}
	}
	return s, list, nil
}

// portal asks which Identity Center it is. What the files know of one is
// what is offered.
func (w *wizard) portal() (*setup.Session, error) {
	given := w.opts.configure.given
	known := w.sessions()
	if w.name != "" {
		if err := w.readOld(); err != nil {
			return nil, err
		}
	}
	if w.old == nil {
		w.old = map[string]string{}
	}
	offer := setup.Session{}
	for _, s := range known {
		if s.Name == given["sso-session"] || given["start-url"] != "" && strings.TrimRight(s.StartURL, "/") == strings.TrimRight(given["start-url"], "/") {
			offer = s
		}
	}
	if offer.Name == "" && len(known) > 0 && given["start-url"] == "" && given["sso-session"] == "" && w.ask && !w.opts.yes {
		rows := [][]string{}
		for _, s := range known {
			rows = append(rows, []string{s.Name, s.StartURL, s.Region})
		}
		rows = append(rows, []string{"another one"})
		w.write("Which Identity Center?\n")
		i, err := askOne("Sign-in", rows, 0)
		if err != nil {
			return nil, err
		}
		if i < len(known) {
			s := known[i]
			return &s, nil
		}
	}
	if offer.Name != "" {
		w.old["sso_start_url"], w.old["sso_region"], w.old["sso_session"], w.old["sso_registration_scopes"] = offer.StartURL, offer.Region, offer.Name, offer.Scopes
	}
	var s setup.Session
	for _, q := range w.kind.questions {
		def := ""
		if q.key == "sso_session" {
			def = sessionName(s.StartURL)
		}
		got, err := w.answer(q, def)
		if err != nil {
			return nil, err
		}
		switch q.key {
		case "sso_start_url":
			s.StartURL = got
		case "sso_region":
			s.Region = got
		case "sso_session":
			s.Name = got
		case "sso_registration_scopes":
			s.Scopes = got
		}
	}
	if s.Name == "" {
		s.Name = sessionName(s.StartURL)
	}
	return &s, nil
}

// sessionName is a name for a start URL: the first part of its host.
func sessionName(start string) string {
	u, err := url.Parse(start)
	if err != nil {
		return "sso"
	}
	name, _, _ := strings.Cut(u.Hostname(), ".")
	if setup.Name(name) != nil || strings.Trim(name, "0123456789") == "" {
		return "sso"
	}
	return name
}

// sessions are the sso-session sections of the files, complete ones alone.
func (w *wizard) sessions() []setup.Session {
	byName := map[string]*setup.Session{}
	var order []string
	for _, f := range []*setup.File{w.config, w.own} {
		all, err := f.Settings()
		if err != nil {
			continue
		}
		for _, x := range all {
			name, ok := strings.CutPrefix(x.Section, "sso-session ")
			if !ok {
				continue
			}
			s := byName[name]
			if s == nil {
				s = &setup.Session{Name: name}
				byName[name] = s
				order = append(order, name)
			}
			switch x.Key {
			case "sso_start_url":
				s.StartURL = x.Value
			case "sso_region":
				s.Region = x.Value
			case "sso_registration_scopes":
				s.Scopes = x.Value
			}
		}
	}
	var out []setup.Session
	for _, name := range order {
		if s := byName[name]; setup.URL(s.StartURL) == nil && setup.Region(s.Region) == nil {
			out = append(out, *s)
		}
	}
	return out
}

// assignments asks the portal, where the person signs in first if need be.
func (w *wizard) assignments(s *setup.Session) ([]assigned, error) {
	p := control.SSOAccountsParams{Context: w.environment().Context, Session: s.Name, StartURL: s.StartURL, Region: s.Region, Scopes: s.Scopes, Device: w.opts.device}
	set, err := w.settings()
	if err != nil {
		return nil, err
	}
	p.MayAsk = w.mayAsk(set.Interactive)
	ctx, cancel := w.within(awsWait, p.MayAsk)
	defer cancel()
	var r control.SSOAccountsResult
	if err := w.call(ctx, control.MethodSSOAccounts, p, &r, w.handler(configuring)); err != nil {
		return nil, err
	}
	var all []assigned
	for _, a := range r.Accounts {
		for _, role := range a.Roles {
			all = append(all, assigned{a, role})
		}
	}
	slices.SortStableFunc(all, func(x, y assigned) int {
		if c := strings.Compare(strings.ToLower(x.account.Name), strings.ToLower(y.account.Name)); c != 0 {
			return c
		}
		if c := strings.Compare(x.account.ID, y.account.ID); c != 0 {
			return c
		}
		return strings.Compare(x.role, y.role)
	})
	if len(all) == 0 {
		return nil, failure("cannot configure: nothing is assigned to you at "+s.StartURL, "whoever administers it assigns accounts and permission sets")
	}
	return all, nil
}

// choose is what the flags take of all, or the person.
func (w *wizard) choose(all []assigned) ([]assigned, error) {
	c := w.opts.configure
	var found []assigned
	for _, x := range all {
		if matchesOne(c.accounts, x.account.ID, x.account.Name) && matchesOne(c.roles, x.role) {
			found = append(found, x)
		}
	}
	if len(found) == 0 {
		return nil, failure("cannot configure: no account and role that you have is named so by --account and --role", "keyfob configure --kind sso, without them, lists what there is")
	}
	if c.all || !w.ask || len(c.accounts)+len(c.roles) > 0 && (w.opts.yes || len(found) == 1) {
		return found, nil
	}
	rows := make([][]string, len(found))
	for i, x := range found {
		rows[i] = []string{x.account.ID, x.account.Name, x.role}
	}
	picked, err := askMany(rows)
	if err != nil {
		return nil, err
	}
	out := make([]assigned, len(picked))
	for i, n := range picked {
		out[i] = found[n]
	}
	return out, nil
}

// matchesOne reports whether one of the patterns matches one of the words,
// in any case of letters; no pattern matches all.
func matchesOne(patterns []string, words ...string) bool {
	for _, p := range patterns {
		for _, word := range words {
			if ok, err := path.Match(strings.ToLower(p), strings.ToLower(word)); ok && err == nil || strings.EqualFold(p, word) {
				return true
			}
		}
	}
	return len(patterns) == 0
}

// names names the profiles by the template; a profile that is for that very
// account and role keeps its name.
func (w *wizard) names(s *setup.Session, chosen []assigned) ([]string, error) {
	if w.name != "" {
		if len(chosen) > 1 {
			return nil, usage(fmt.Sprintf("cannot name %d profiles %s", len(chosen), w.name), "without a name they are named by --name-template")
		}
		return []string{w.name}, nil
	}
	of := make([]setup.Named, len(chosen))
	for i, x := range chosen {
		of[i] = setup.Named{AccountID: x.account.ID, AccountName: x.account.Name, Role: x.role, Session: s.Name}
	}
	return setup.Names(w.opts.configure.template, of, func(name string, n setup.Named) bool {
		if _, there := w.known[name]; !there {
			return false
		}
		for _, f := range []*setup.File{w.own, w.config} {
			if x, err := f.Section(setup.SectionName(name)); err == nil && x["sso_account_id"].Value == n.AccountID && x["sso_role_name"].Value == n.Role {
				return false
			}
		}
		return true
	})
}
