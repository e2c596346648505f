package profiles

// Listed is one profile of `keyfob list`.
type Listed struct {
	Name    string
	Origins []Origin // the vault, then the section headers by precedence
	Source  Kind     // what the profile itself is: its last link, "" when it has none
	Account string   // twelve digits, "" where nothing tells before a call
	Err     *Error   // why it does not work
}

// List returns all profiles by name, as they are when named by a flag.
func (s *Set) List() []Listed {
	names := s.Names()
	list := make([]Listed, 0, len(names))
	for _, name := range names {
		p, err := s.Resolve(Query{Profile: name, ProfileOrigin: Origin{Kind: FromFlag, Name: "--profile"}})
		if err != nil {
			continue // Names has no unknown ones
		}
		l := Listed{Name: name, Origins: s.origins(name), Err: p.Err}
		if n := len(p.Chain); n > 0 {
			last := p.Chain[n-1]
			if last.Kind == KindSessionToken && n > 1 {
				last = p.Chain[n-2] // keys, whatever is made of them
			}
			l.Source = last.Kind
		}
		if other, asks := s.handsOver(p); asks {
			// For keyfob it is nothing, for programs it is another profile.
			l.Source, l.Err = KindProcess, other
		}
		l.Account = p.account()
		list = append(list, l)
	}
	return list
}

// handsOver reports whether a profile has no source but a line that runs
// keyfob for another profile, and what is wrong with that one.
func (s *Set) handsOver(p *Profile) (wrong *Error, asks bool) {
	if p.Err == nil || !p.Err.NoSource || len(p.Skipped) == 0 {
		return nil, false
	}
	line, _ := p.Get("credential_process")
	name := asksFor(line.Value)
	if name == "" || name == p.Name {
		return nil, false
	}
	other, err := s.Resolve(Query{Profile: name, ProfileOrigin: line.Origin})
	if err != nil {
		return fault(line.Origin, "cannot use profile %s: its credential_process asks keyfob for %s, and there is no such profile", p.Name, name), true
	}
	return other.Err, true
}

func (s *Set) origins(name string) []Origin {
	v := s.view(name)
	var origins []Origin
	if v.inVault {
		origins = append(origins, v.keystoreOrigin())
	}
	for i, sec := range v.secs {
		if sec != nil {
			origins = append(origins, s.files[i].headerOrigin(sec))
		}
	}
	return origins
}

// account is the account that the profile's credentials belong to, as far
// as the files tell.
func (p *Profile) account() string {
	if n := len(p.Chain); n > 0 {
		last := p.Chain[n-1]
		for _, arn := range []string{last.RoleARN, last.Params["login_session"], last.Params["mfa_serial"]} {
			if a := arnField(arn, 4); a != "" {
				return a
			}
		}
		if a := last.Params["sso_account_id"]; a != "" {
			return a
		}
	}
	a, _ := p.Get("aws_account_id")
	return a.Value
}
