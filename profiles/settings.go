package profiles

import (
	"fmt"
	"slices"
	"strings"
)

// candidate is one value of a setting in one layer.
type candidate struct {
	value  string
	origin Origin
	block  []prop // sub-properties: then value is empty
	hidden bool   // of [default] below [profile default]: never wins
}

// child returns the candidates that a block has for one sub-property, the
// last one first.
func (c candidate) child(key string) []candidate {
	var cs []candidate
	for i := len(c.block) - 1; i >= 0; i-- {
		if p := c.block[i]; p.key == key {
			o := c.origin
			o.Line = int(p.line)
			cs = append(cs, candidate{value: p.value, origin: o})
		}
	}
	return cs
}

// shown is a losing block as one value.
func (c candidate) shown() string {
	if len(c.block) == 0 {
		return c.value
	}
	lines := make([]string, len(c.block))
	for i, p := range c.block {
		lines[i] = p.key + " = " + redact(p.key, p.value)
	}
	return strings.Join(lines, "\n")
}

// collector gathers the candidates of all settings of a profile.
type collector struct {
	names []string
	cands map[string][]candidate
	done  map[string]*Setting
}

func (c *collector) add(name string, cand candidate) {
	cs := c.cands[name]
	if cs == nil {
		c.names = append(c.names, name)
	}
	c.cands[name] = append(cs, cand)
}

func (c *collector) addSection(prefix string, f *file, s *section, hidden bool) {
	if s == nil {
		return
	}
	for i := len(s.props) - 1; i >= 0; i-- {
		p := &s.props[i]
		c.add(prefix+p.key, candidate{value: p.value, origin: f.origin(s, p), block: p.block, hidden: hidden})
	}
}

// settings lists every key found in any layer for the asked profile, by
// name. environmentKeys says that the environment's pair comes first.
func (v *view) settings(q Query, environmentKeys bool) ([]Setting, []string) {
	c := &collector{cands: make(map[string][]candidate, 16), done: make(map[string]*Setting, 16)}
	if q.Region != "" {
		c.add("region", candidate{value: q.Region, origin: Origin{Kind: FromFlag, Name: "--region"}})
	}
	if q.CallerRegion != "" {
		c.add("region", candidate{value: q.CallerRegion, origin: fromEnvironment(q.CallerVar)})
	}
	if v.role != "" {
		c.add("role_arn", candidate{value: v.role, origin: Origin{Kind: FromFlag, Name: "--role-arn"}})
	}
	env := &v.set.env
	for _, s := range settingVariables {
		for _, cand := range env.settings[s.setting] {
			if s.setting == "region" && cand.value == q.CallerRegion && cand.origin.Name == q.CallerVar {
				continue // the caller and the daemon have the same variable
			}
			c.add(s.setting, cand)
		}
	}
	if environmentKeys {
		for i, name := range []string{envAccessKeyID, envSecretKey, envSessionToken} {
			if val := env.value(name); val != "" {
				c.add(credentialKeys[i], candidate{value: val, origin: fromEnvironment(name)})
			}
		}
	}
	if v.inVault {
		c.add(credentialKeys[0], candidate{value: v.vault.AccessKeyID, origin: v.keystoreOrigin()})
		c.add(credentialKeys[1], candidate{value: Redacted, origin: v.keystoreOrigin()})
	}
	for i, f := range v.set.files {
		c.addSection("", f, v.secs[i], false)
		c.addSection("", f, v.bare[i], true)
	}
	if name := v.text("sso_session"); name != "" {
		session := v.set.ssoSession(name)
		for i, f := range v.set.files {
			c.addSection("", f, session.secs[i], false)
		}
	}
	if name := v.text("services"); name != "" {
		services := v.set.services(name)
		for i, f := range v.set.files {
			c.addSection("services.", f, services.secs[i], false)
		}
	}
	warnings := c.decide(v.credentialWinner(environmentKeys))
	c.serviceEndpoints(env)

	list := make([]Setting, 0, len(c.done))
	for _, s := range c.done {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b Setting) int { return strings.Compare(a.Name, b.Name) })
	return list, warnings
}

// credentialWinner is the origin of the layer whose key pair counts.
func (v *view) credentialWinner(environmentKeys bool) Origin {
	if environmentKeys {
		return fromEnvironment(envAccessKeyID)
	}
	switch i := v.keyLayer(); {
	case i < 0:
		return v.keystoreOrigin()
	case i < len(v.secs):
		for _, key := range credentialKeys {
			if p := v.secs[i].get(key); p != nil {
				return v.set.files[i].origin(v.secs[i], p)
			}
		}
	}
	return Origin{}
}

// decide turns candidates into settings.
func (c *collector) decide(credentials Origin) []string {
	var warnings []string
	for _, name := range c.names {
		cs := c.cands[name]
		win := slices.IndexFunc(cs, func(x candidate) bool { return !x.hidden })
		if isCredentialKey(name) && win >= 0 {
			win = slices.IndexFunc(cs, func(x candidate) bool { return !x.hidden && x.origin.Kind == credentials.Kind })
			if win < 0 { // the layer that wins has no session token: the others' does not complete it
				cs = append([]candidate{{origin: credentials}}, cs...)
				win = 0
			}
		}
		if win < 0 {
			warnings = append(warnings, fmt.Sprintf("%s: %s in [default] is not used: [profile default] hides it", place(cs[0].origin), name))
			continue
		}
		winner := cs[win]
		rest := slices.Delete(slices.Clone(cs), win, win+1)
		if winner.value == "" && winner.block == nil && strings.HasPrefix(name, "sso_") {
			// an empty key of a profile leaves the word to its sso-session
			if i := slices.IndexFunc(rest, func(x candidate) bool {
				return !x.hidden && x.value != "" && strings.HasPrefix(x.origin.Name, "[sso-session")
			}); i >= 0 {
				winner, rest[i] = rest[i], winner
			}
		}
		if winner.block == nil {
			c.finish(name, winner, rest)
			continue
		}
		seen := map[string]bool{}
		for _, p := range winner.block {
			if seen[p.key] {
				continue
			}
			seen[p.key] = true
			mine := winner.child(p.key)
			losers := mine[1:]
			for _, r := range rest {
				if r.block == nil {
					losers = append(losers, r)
				} else {
					losers = append(losers, r.child(p.key)...)
				}
			}
			c.finish(name+"."+p.key, mine[0], losers)
		}
		for _, r := range rest {
			for _, p := range r.block {
				if !seen[p.key] {
					warnings = append(warnings, fmt.Sprintf("%s:%d: %s.%s is not used: the block at %s replaces the whole one", r.origin.File, p.line, name, p.key, place(winner.origin)))
				}
			}
		}
	}
	return warnings
}

func (c *collector) finish(name string, winner candidate, losers []candidate) {
	if s := c.done[name]; s != nil { // `a.b = x` beside a block of a with b
		s.Shadows = append(s.Shadows, Shadow{Value: redact(name, winner.value), Origin: winner.origin})
		return
	}
	s := &Setting{Name: name, Value: redact(name, winner.value), Origin: winner.origin, Shadows: make([]Shadow, 0, len(losers))}
	for _, l := range losers {
		s.Shadows = append(s.Shadows, Shadow{Value: redact(name, l.shown()), Origin: l.origin})
	}
	c.done[name] = s
}

// serviceEndpoints puts the variables over the services sections:
// AWS_ENDPOINT_URL_STS, then AWS_ENDPOINT_URL, then the files
// (https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html).
func (c *collector) serviceEndpoints(env *environment) {
	over := func(name string, cand candidate) {
		s := c.done[name]
		if s == nil {
			c.done[name] = &Setting{Name: name, Value: cand.value, Origin: cand.origin, Shadows: []Shadow{}}
			return
		}
		s.Shadows = append([]Shadow{{Value: s.Value, Origin: s.Origin}}, s.Shadows...)
		s.Value, s.Origin = cand.value, cand.origin
	}
	if all := env.settings["endpoint_url"]; len(all) > 0 {
		for name := range c.done {
			if strings.HasPrefix(name, "services.") && strings.HasSuffix(name, ".endpoint_url") {
				over(name, all[0])
			}
		}
	}
	for name, cs := range env.settings {
		if strings.HasPrefix(name, "services.") {
			over(name, cs[0])
		}
	}
}

// redact hides what must not be shown. An empty value hides nothing.
func redact(name, value string) string {
	if value == "" {
		return ""
	}
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	switch name {
	case "aws_secret_access_key", "aws_session_token", "aws_security_token", "oidc_client_secret":
		return Redacted
	case "roles_anywhere_certificate", "roles_anywhere_private_key":
		return redactPIN(value)
	}
	return value
}

// redactPIN hides the PIN that a pkcs11: URI may carry (RFC 7512, pin-value).
func redactPIN(value string) string {
	const attribute = "pin-value="
	i := strings.Index(value, attribute)
	if i < 0 || !strings.HasPrefix(value, "pkcs11:") {
		return value
	}
	i += len(attribute)
	end := strings.IndexAny(value[i:], "&;?")
	if end < 0 {
		return value[:i] + Redacted
	}
	return value[:i] + Redacted + redactPIN("pkcs11:" + value[i+end:])[len("pkcs11:"):]
}

// Get returns a setting by name; false when no layer has it.
func (p *Profile) Get(name string) (Setting, bool) {
	i, ok := slices.BinarySearchFunc(p.Settings, name, func(s Setting, n string) int { return strings.Compare(s.Name, n) })
	if !ok {
		return Setting{}, false
	}
	return p.Settings[i], true
}
