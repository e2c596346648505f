package profiles

import (
	"fmt"
	"slices"
	"strings"
)

// step is a link and the profile whose settings made it.
type step struct {
	Link
	v *view
}

// resolver works on one query.
type resolver struct {
	set      *Set
	p        *Profile
	touched  [3]bool // files that have one of the sections that were read
	warnings []string
}

// Resolve finds out what a profile is: its settings with their origins, and
// the chain of links that gives its credentials. The error is an *Error
// with Unknown set, when no layer has such a profile. A profile that can't
// work is returned with Err set, and as much of Settings and Chain as can be
// told; its Chain must not be used then.
func (s *Set) Resolve(q Query) (*Profile, error) {
	name := q.Profile
	if name == "" {
		name = "default"
	}
	r := &resolver{set: s, p: &Profile{Name: name}}
	v := s.view(name)
	v.role = q.RoleARN

	implicit := q.ProfileOrigin.Kind != FromFlag
	env := &s.env
	environmentKeys := implicit && (env.value(envAccessKeyID) != "" || env.value(envSecretKey) != "")
	webIdentity := implicit && !environmentKeys && env.value(envTokenFile) != ""

	missing := !v.exists()
	if missing && !(name == "default" && (environmentKeys || webIdentity)) {
		if err := s.Err(); err != nil {
			// the profile may stand where the file can't be read
			r.p.Settings, r.p.Err = []Setting{}, err
			return r.p, nil
		}
		return nil, s.unknown(name)
	}

	var settingWarnings []string
	r.p.Settings, settingWarnings = v.settings(q, environmentKeys)
	for i := range r.p.Settings {
		if f := &r.p.Settings[i]; f.Name == "credential_process" && s.isSelf(f.Value) {
			f.Skipped = keyfobItself
		}
	}
	r.touch(&v.layers)

	var steps []step
	var err *Error
	switch {
	case environmentKeys:
		steps, err = r.environmentChain(v)
	case webIdentity:
		steps, err = r.environmentWebIdentity(v)
	default:
		steps, err = r.profileChain(v)
	}
	if err == nil {
		steps, err = r.sessionToken(steps)
	}
	if err == nil {
		err = r.narrow(v, steps, q)
	}
	if err == nil {
		err = r.clients(steps, q)
	}
	protected, notBool := v.boolean("protected")
	if err == nil {
		err = notBool
	}
	r.p.Protected = protected || notBool != nil
	r.p.Err = err
	for i, f := range s.files {
		if f.err != nil && (f.whole || r.touched[i]) {
			r.p.Err = f.err
			break
		}
	}
	r.p.Chain = make([]Link, 0, len(steps))
	for _, st := range steps {
		r.p.Chain = append(r.p.Chain, st.Link)
	}
	if region, ok := r.p.Get("region"); ok {
		r.p.Region = region.Value
	}
	for i := len(s.files) - 1; i >= 0; i-- {
		r.p.Warnings = append(r.p.Warnings, s.files[i].warnings...)
	}
	r.p.Warnings = append(r.p.Warnings, settingWarnings...)
	r.p.Warnings = append(r.p.Warnings, r.warnings...)
	return r.p, nil
}

func (s *Set) unknown(name string) *Error {
	e := &Error{Message: "cannot find profile " + quoteName(name), Unknown: true, Help: "keyfob list"}
	for _, f := range s.files {
		if line, ok := f.skipped[name]; ok {
			e.Help = fmt.Sprintf("%s:%d: a profile of this file is written [profile %s]", f.path, line, name)
			return e
		}
	}
	if near := nearest(name, s.Names()); near != "" && near != name {
		e.Nearest, e.Help = near, "did you mean "+near+"?"
	}
	return e
}

// quoteName makes a name that may come from anywhere fit for one line.
func quoteName(name string) string {
	if validName(name) {
		return name
	}
	return fmt.Sprintf("%q", name)
}

func (r *resolver) touch(l *layers) {
	for i, s := range l.secs {
		if s != nil {
			r.touched[i] = true
		}
	}
}

func (r *resolver) warn(format string, args ...any) {
	w := fmt.Sprintf(format, args...)
	if !slices.Contains(r.warnings, w) {
		r.warnings = append(r.warnings, w)
	}
}

// environmentChain is the chain of the daemon's own key pair: it never
// completes a profile's role; only --role-arn goes on top.
func (r *resolver) environmentChain(v *view) ([]step, *Error) {
	link, err := r.environmentKeys(v, fromEnvironment(envAccessKeyID))
	if err != nil {
		return nil, err
	}
	steps := []step{link}
	if v.role == "" {
		return steps, nil
	}
	role, err := r.assumeRole(v)
	if err != nil {
		return steps, err
	}
	return append(steps, role), nil
}

func (r *resolver) environmentKeys(v *view, origin Origin) (step, *Error) {
	env := &r.set.env
	id, secret := env.value(envAccessKeyID), env.value(envSecretKey)
	if id == "" || secret == "" {
		if id == "" && secret == "" {
			return step{}, fault(origin, "cannot use profile %s: credential_source (%s) is Environment, and %s and %s are not set", v.name, place(origin), envAccessKeyID, envSecretKey)
		}
		have, lack := envAccessKeyID, envSecretKey
		if id == "" {
			have, lack = lack, have
		}
		return step{}, fault(origin, "cannot use the keys of the environment: %s is set and %s is not", have, lack)
	}
	return step{v: v, Link: Link{
		Kind: KindEnvironmentKeys, Profile: v.name, Origin: origin,
		Params:  map[string]string{"aws_access_key_id": id, "layer": string(FromEnvironment)},
		Secrets: &Keys{AccessKeyID: id, secret: secret, sessionToken: env.value(envSessionToken)},
	}}, nil
}

// environmentWebIdentity is AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE.
func (r *resolver) environmentWebIdentity(v *view) ([]step, *Error) {
	env := &r.set.env
	arn := env.value(envRoleARN)
	if arn == "" {
		return nil, &Error{Message: "cannot use " + envTokenFile + ": " + envRoleARN + " is not set"}
	}
	params := map[string]string{"role_arn": arn, "web_identity_token_file": r.set.expandHome(env.value(envTokenFile)), "duration_seconds": "3600"}
	if n := env.value(envSessionName); n != "" {
		params["role_session_name"] = n
	}
	steps := []step{{v: v, Link: Link{Kind: KindWebIdentity, Profile: v.name, RoleARN: arn, Origin: fromEnvironment(envTokenFile), Params: params}}}
	if v.role == "" {
		return steps, nil
	}
	role, err := r.assumeRole(v)
	if err != nil {
		return steps, err
	}
	return append(steps, role), nil
}

// profileChain is the chain of the profile asked for.
func (r *resolver) profileChain(v *view) ([]step, *Error) {
	if err := r.cycle(v); err != nil {
		return nil, err
	}
	steps, err := r.chain(v, true)
	if err == nil {
		_, err = v.duration(roleDuration) // also where no link asks for it
	}
	return steps, err
}

// cycle follows source_profile before anything else ends a chain: members
// with static keys do not make a cycle right. A profile that names itself
// takes its own credentials, which is no cycle when it has some.
func (r *resolver) cycle(v *view) *Error {
	path := []string{v.name}
	origins := map[string]Origin{} // of each member's source_profile
	for at := v; ; {
		source, ok := at.get("source_profile")
		role, hasRole := at.get("role_arn")
		if !ok || !hasRole {
			return nil
		}
		if source.text == at.name {
			if r.hasOwn(at) {
				return nil
			}
			return conflict(fmt.Sprintf("cannot use profile %s: %s is the profile itself, which has no credentials of its own for %s", at.name, said("source_profile", source), said("role_arn", role)), source.origin, role.origin)
		}
		origins[at.name] = source.origin
		if i := slices.Index(path, source.text); i >= 0 {
			loop := append(path[i:], source.text)
			return conflict(fmt.Sprintf("cannot use profile %s: its source profiles form a cycle: %s: %s and %s", v.name, strings.Join(loop, " -> "),
				said("source_profile", found{origin: origins[loop[0]]}), said("source_profile", source)), origins[loop[0]], source.origin)
		}
		path = append(path, source.text)
		at = r.set.view(source.text)
		if !at.exists() {
			return nil // told with its place by chain
		}
	}
}

// hasOwn reports whether a profile has credentials of its own, below any
// role.
func (r *resolver) hasOwn(v *view) bool {
	if k, err := v.keys(); k != nil || err != nil {
		return true
	}
	if f, ok := v.get("credential_process"); ok && !r.set.isSelf(f.text) {
		return true
	}
	_, login := v.get("login_session")
	_, sso := v.anySSO()
	return login || sso
}

// chain makes the links of one profile, base first. A profile reached as a
// source gives its static keys when it has some: its role is not applied.
func (r *resolver) chain(v *view, asked bool) ([]step, *Error) {
	keys, err := v.keys()
	if err != nil {
		return nil, err
	}
	if asked {
		r.halfPairs(v)
	}
	if f, ok := v.get("credential_process"); ok && r.set.isSelf(f.text) {
		r.p.Skipped = append(r.p.Skipped, Skipped{Profile: v.name, Origin: f.origin, Why: keyfobItself})
	}
	for _, key := range []string{"include_profile", "parent_profile"} {
		if f, ok := v.get(key); ok {
			r.warn("%s: %s is aws-vault's and is not followed: nothing is taken from %s", place(f.origin), key, quoteName(f.text))
		}
	}
	if !asked && keys != nil {
		return []step{r.staticKeys(v, keys)}, nil
	}
	if err := r.contradictions(v, keys); err != nil {
		return nil, err
	}
	role, hasRole := v.get("role_arn")
	source, hasSource := v.get("source_profile")
	if hasSource && !hasRole {
		r.warn("%s: source_profile without role_arn is not used", place(source.origin))
	}
	if !hasRole {
		if key, ok := v.roleSource(); ok && strings.HasPrefix(key, "saml_") && v.role == "" {
			st, err := r.roleFrom(v, key, found{})
			if err != nil {
				return nil, err
			}
			return []step{st}, nil
		}
		return r.own(v, keys)
	}

	var below []step
	if hasSource {
		below, err = r.sourceChain(v, source, keys)
	} else if from, ok := v.get("credential_source"); ok {
		below, err = r.credentialSource(v, from)
	} else if k, ok := v.roleSource(); ok {
		st, err := r.roleFrom(v, k, role)
		if err != nil {
			return nil, err
		}
		return []step{st}, nil
	} else {
		below, err = r.own(v, keys) // --role-arn: contradictions has refused the others
	}
	link, linkErr := r.assumeRole(v)
	if err == nil {
		err = linkErr
	}
	if linkErr != nil {
		return below, err
	}
	return append(below, link), err
}

// sourceChain is the chain of a source_profile.
func (r *resolver) sourceChain(v *view, source found, keys *staticKeys) ([]step, *Error) {
	if source.text == v.name {
		return r.own(v, keys)
	}
	s := r.set.view(source.text)
	if !s.exists() {
		if err := r.set.Err(); err != nil {
			return nil, err
		}
		e := fault(source.origin, "cannot use profile %s: %s names %s, and there is no such profile", v.name, said("source_profile", source), quoteName(source.text))
		if e.Help = r.set.unknown(source.text).Help; e.Help == "keyfob list" {
			e.Help = "keyfob add " + source.text
		}
		return nil, e
	}
	r.touch(&s.layers)
	return r.chain(s, false)
}

// own is the profile's credentials without a role: static keys, SSO,
// login_session, credential_process.
func (r *resolver) own(v *view, keys *staticKeys) ([]step, *Error) {
	if keys != nil {
		return []step{r.staticKeys(v, keys)}, nil
	}
	st, incomplete, err := r.sso(v)
	if err != nil {
		return nil, err
	}
	if st != nil {
		return []step{*st}, nil
	}
	if f, ok := v.get("login_session"); ok {
		return []step{{v: v, Link: Link{Kind: KindLogin, Profile: v.name, Origin: f.origin, Params: map[string]string{"login_session": f.text}}}}, nil
	}
	skipped := false
	if f, ok := v.get("credential_process"); ok {
		if !r.set.isSelf(f.text) {
			return []step{{v: v, Link: Link{Kind: KindProcess, Profile: v.name, Origin: f.origin, Params: map[string]string{"credential_process": f.text}}}}, nil
		}
		skipped = true
	}
	if incomplete != nil {
		return nil, incomplete
	}
	e := fault(v.headerOrigin(), "cannot find credentials for profile %s: it has no keys, no role and no sign-in", v.name)
	if skipped {
		e = fault(v.headerOrigin(), "cannot find credentials for profile %s: its credential_process is keyfob itself, and keyfob has no keys, role or sign-in for it", v.name)
	}
	e.NoSource = true
	return nil, e.withHelp("keyfob add " + v.name)
}

// LoginLink is the link of a console sign-in (`aws login`) for a profile that
// has no source of credentials yet: login_session is empty, because nobody
// knows before the sign-in who it will be. The error is that of Resolve, or
// says that the profile has a source.
func (s *Set) LoginLink(q Query) (Link, error) {
	p, err := s.Resolve(q)
	if err != nil {
		return Link{}, err
	}
	if p.Err == nil || !p.Err.NoSource {
		return Link{}, fmt.Errorf("profile %s has credentials of its own", q.Profile)
	}
	v := s.view(q.Profile)
	link := Link{Kind: KindLogin, Profile: v.name, Origin: v.headerOrigin(), Params: map[string]string{"login_session": ""}}
	c, cerr := v.client()
	if cerr != nil {
		return Link{}, cerr
	}
	if q.Region != "" {
		c.Region = q.Region
	}
	if c.Region == "" {
		c.Region = partitionRegions["aws"]
	}
	link.Client = c
	return link, nil
}

// halfPairs warns of half a pair in a layer that does not win.
func (r *resolver) halfPairs(v *view) {
	for i := v.keyLayer() + 1; i >= 0 && i < len(v.secs); i++ {
		if _, err := v.keysIn(i); err != nil {
			r.warn("%s:%d: half a key pair, which is not used", err.File, err.Line)
		}
	}
}

// contradictions refuses what can be read in two ways.
func (r *resolver) contradictions(v *view, keys *staticKeys) *Error {
	refuse := func(a string, fa found, b string, fb found, why string) *Error {
		return conflict(fmt.Sprintf("cannot use profile %s: %s and %s %s", v.name, said(a, fa), said(b, fb), why), fa.origin, fb.origin)
	}
	const exclude = "exclude each other"
	var roleSources []string
	for _, key := range []string{"source_profile", "credential_source", "web_identity_token_file"} {
		if _, ok := v.get(key); ok {
			roleSources = append(roleSources, key)
		}
	}
	roleSources = append(roleSources, v.keyfobSources()...)
	if len(roleSources) > 1 {
		a, b := roleSources[0], roleSources[1]
		fa, _ := v.get(a)
		fb, _ := v.get(b)
		return refuse(a, fa, b, fb, exclude)
	}
	if err := r.sessionMismatch(v); err != nil {
		return err
	}
	role, hasRole := v.get("role_arn")
	if !hasRole {
		for _, key := range roleSources {
			// A SAML assertion names the roles that there are: a person chooses.
			if f, _ := v.get(key); key != "source_profile" && !strings.HasPrefix(key, "saml_") {
				return fault(f.origin, "cannot use profile %s: %s needs role_arn", v.name, said(key, f))
			}
		}
		return nil
	}
	if len(roleSources) > 0 || v.role != "" {
		return nil
	}
	itself := "source_profile = " + v.name
	if keys != nil {
		return refuse("role_arn", role, "aws_access_key_id", found{origin: keys.origin}, "do not say whether the role is to be assumed with the keys").withHelp(itself)
	}
	if key, ok := v.anySSO(); ok {
		f, _ := v.get(key)
		return refuse("role_arn", role, key, f, "do not say whether the role is to be assumed with the sign-in").withHelp(itself)
	}
	e := fault(role.origin, "cannot use profile %s: %s needs source_profile, credential_source or another source", v.name, said("role_arn", role))
	for _, key := range []string{"login_session", "credential_process"} {
		if f, ok := v.get(key); ok && !(key == "credential_process" && r.set.isSelf(f.text)) {
			return e.withHelp(itself)
		}
	}
	return e
}
