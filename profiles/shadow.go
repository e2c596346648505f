package profiles

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
)

// ShadowQuery asks what the AWS SDKs would do without keyfob.
type ShadowQuery struct {
	// Profile is the name given by AWS_PROFILE; "" leaves it to Env.
	Profile string
	// Env is the environment of the program that has the SDK: AWS_* names
	// are read from it. Of secrets only whether they are set is looked at.
	Env map[string]string
	// Keyfob is what keyfob does with the profile, for the comparison; nil
	// where it isn't known.
	Keyfob *Explanation
}

// ShadowReport is `keyfob explain --shadow --json`.
type ShadowReport struct {
	Profile string         `json:"profile"`
	Clients []ClientShadow `json:"clients"`
}

// ClientShadow is what one SDK does with the profile: where its own order
// finds credentials first, and what they become. Whether what it finds works
// is not judged, only what is found.
type ClientShadow struct {
	Client  string          `json:"client"`  // "go", "botocore", "aws-cli-v2", "js", "java", "rust"
	Name    string          `json:"name"`    // for people
	Profile string          `json:"profile"` // that it reads: a variable may name another
	Chain   []ExplainedLink `json:"chain"`   // the base first; [] where it finds nothing
	// AccessKeyID is the key that the chain begins with, where that is known.
	AccessKeyID string `json:"access_key_id,omitempty"`
	// Keyfob: the credentials come from keyfob all the same, by a
	// credential_process line.
	Keyfob bool `json:"keyfob,omitempty"`
	// Differs: other credentials than keyfob's come out, or none. False also
	// where keyfob's are not known.
	Differs bool     `json:"differs"`
	Refuses string   `json:"refuses,omitempty"` // why it gives no credentials
	Origin  *Origin  `json:"origin,omitempty"`  // where what it refuses stands
	Notes   []string `json:"notes,omitempty"`   // what is known to surprise
}

// Shadow says what each SDK would do. It reads the two AWS files as Load has
// read them; keyfob's own file and the vault are nothing to an SDK.
func (s *Set) Shadow(q ShadowQuery) ShadowReport { return s.shadow(q, s.duplicate()) }

// ShadowAll is Shadow for each of the profiles, named by AWS_PROFILE in an
// otherwise empty environment.
func (s *Set) ShadowAll(names []string) []ShadowReport {
	twice := s.duplicate()
	reports := make([]ShadowReport, 0, len(names))
	for _, name := range names {
		reports = append(reports, s.shadow(ShadowQuery{Profile: name}, twice))
	}
	return reports
}

func (s *Set) shadow(q ShadowQuery, twice *Origin) ShadowReport {
	report := ShadowReport{Profile: q.Profile}
	if report.Profile == "" {
		report.Profile = firstSet(q.Env, "AWS_PROFILE", "AWS_DEFAULT_PROFILE")
	}
	if report.Profile == "" {
		report.Profile = "default"
	}
	for _, m := range shadowModels {
		w := &shadowWorld{set: s, env: q.Env, named: q.Profile, twice: twice}
		w.profile, w.chosen = w.profileFor(m.variables)
		found, refusal := m.resolve(w)
		c := ClientShadow{Client: m.id, Name: m.name, Profile: w.profile, Chain: []ExplainedLink{}, Notes: w.notes}
		if refusal != nil {
			c.Refuses = refusal.why
			if refusal.origin != (Origin{}) {
				c.Origin = &refusal.origin
			}
		} else {
			c.Chain, c.AccessKeyID = found.links, found.keyID
			c.Keyfob = found.keyfob && len(found.links) == 1
		}
		c.Differs = q.Keyfob != nil && !c.Keyfob && !sameSource(c, q.Keyfob)
		report.Clients = append(report.Clients, c)
	}
	return report
}

// sameSource compares an SDK's chain with keyfob's. What keyfob puts between
// (GetSessionToken) changes no identity.
func sameSource(c ClientShadow, x *Explanation) bool {
	if c.Refuses != "" || x.Error != nil {
		return c.Refuses != "" && x.Error != nil
	}
	var ours []ExplainedLink
	for _, l := range x.Chain {
		if l.Kind != KindSessionToken {
			ours = append(ours, l)
		}
	}
	return slices.EqualFunc(ours, c.Chain, func(a, b ExplainedLink) bool {
		return a.Kind == b.Kind && a.RoleARN == b.RoleARN && (a.Kind != KindStaticKeys && a.Kind != KindProcess || a.Origin == b.Origin)
	})
}

// refusal is why an SDK gives no credentials.
type refusal struct {
	why    string
	origin Origin
}

// shadowChain is what an SDK found.
type shadowChain struct {
	links  []ExplainedLink // base first
	keyID  string
	keyfob bool // the base is keyfob itself
}

func (c shadowChain) with(l ExplainedLink) shadowChain {
	c.links = append(slices.Clip(c.links), l)
	return c
}

// shadowWorld is what one SDK sees.
type shadowWorld struct {
	set     *Set
	env     map[string]string
	named   string // by the query
	profile string
	chosen  bool    // somebody chose the profile: it is not the default's default
	twice   *Origin // what stands twice in a file, nil if nothing does
	notes   []string
}

func firstSet(env map[string]string, names ...string) string {
	for _, n := range names {
		if env[n] != "" {
			return env[n]
		}
	}
	return ""
}

// profileFor is the profile that an SDK reads which knows those variables,
// in that order.
func (w *shadowWorld) profileFor(variables []string) (name string, chosen bool) {
	for _, v := range variables {
		value := w.env[v]
		if v == "AWS_PROFILE" && w.named != "" {
			value = w.named
		}
		if value != "" {
			if w.named != "" && value != w.named {
				w.note("%s=%s wins over AWS_PROFILE", v, value)
			}
			return value, true
		}
	}
	return "default", false
}

func (w *shadowWorld) note(format string, args ...any) {
	n := fmt.Sprintf(format, args...)
	if !slices.Contains(w.notes, n) {
		w.notes = append(w.notes, n)
	}
}

// awsFiles are the indexes of Set.files that SDKs read.
const (
	credentialsFile = 1
	configFile      = 2
)

// sdkProfile is a profile as the two AWS files have it, key by key; the
// credentials file wins.
type sdkProfile struct {
	name string
	set  *Set
	secs [3]*section
}

func (w *shadowWorld) read(name string) *sdkProfile {
	p := &sdkProfile{name: name, set: w.set}
	for _, i := range []int{credentialsFile, configFile} {
		p.secs[i] = w.set.files[i].profiles[name]
	}
	return p
}

func (p *sdkProfile) exists() bool { return p.secs != [3]*section{} }

// in is a key of one file.
func (p *sdkProfile) in(i int, key string) (found, bool) {
	if q := p.secs[i].get(key); q != nil {
		return found{q.value, p.set.files[i].origin(p.secs[i], q), i}, true
	}
	return found{}, false
}

// has looks for a key, be it empty.
func (p *sdkProfile) has(key string) (found, bool) {
	if f, ok := p.in(credentialsFile, key); ok {
		return f, true
	}
	return p.in(configFile, key)
}

// get is has for keys that are not empty.
func (p *sdkProfile) get(key string) (found, bool) {
	f, ok := p.has(key)
	return f, ok && f.text != ""
}

func (p *sdkProfile) text(key string) string {
	f, _ := p.get(key)
	return f.text
}

// first is the first of the keys that is set.
func (p *sdkProfile) first(keys ...string) (key string, f found, ok bool) {
	for _, k := range keys {
		if f, ok := p.get(k); ok {
			return k, f, true
		}
	}
	return "", found{}, false
}

var ssoKeys = []string{"sso_session", "sso_start_url", "sso_account_id", "sso_region", "sso_role_name"}

// session is the sso-session section of the config file that p names.
func (p *sdkProfile) session() (name found, s *section, named bool) {
	name, named = p.get("sso_session")
	return name, p.set.files[configFile].sessions[name.text], named
}

func (p *sdkProfile) link(kind Kind, at Origin) ExplainedLink {
	return ExplainedLink{Kind: kind, Profile: p.name, Origin: at}
}

func (p *sdkProfile) role(kind Kind, arn found) ExplainedLink {
	return ExplainedLink{Kind: kind, Profile: p.name, RoleARN: arn.text, Origin: arn.origin}
}

func (p *sdkProfile) static(id found) shadowChain {
	return shadowChain{links: []ExplainedLink{p.link(KindStaticKeys, id.origin)}, keyID: id.text}
}

func (p *sdkProfile) process(line found) shadowChain {
	return shadowChain{links: []ExplainedLink{p.link(KindProcess, line.origin)}, keyfob: p.set.isSelf(line.text)}
}

// duplicate finds a section or a key that stands twice in one of the files,
// as a strict parser sees it; nil where nothing does.
func (s *Set) duplicate() *Origin {
	for _, i := range []int{credentialsFile, configFile} {
		f := s.files[i]
		var names []string
		for name := range f.profiles {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			sec := f.profiles[name]
			for j, h := range sec.headers {
				if slices.ContainsFunc(sec.headers[:j], func(e header) bool { return e.text == h.text }) {
					return &Origin{Kind: f.kind, Name: h.text, File: f.path, Line: h.line}
				}
			}
			for j := range sec.props {
				for k := range sec.props[:j] {
					if sec.props[j].key == sec.props[k].key && sec.props[j].header == sec.props[k].header {
						at := f.origin(sec, &sec.props[j])
						return &at
					}
				}
			}
		}
	}
	return nil
}

// environment's parts that all SDKs share.

// envKeys are the keys of the environment.
func (w *shadowWorld) envKeys(id string) shadowChain {
	return shadowChain{links: []ExplainedLink{{Kind: KindEnvironmentKeys, Origin: fromEnvironment(id)}}, keyID: w.env[id]}
}

func (w *shadowWorld) envWebIdentity() shadowChain {
	return shadowChain{links: []ExplainedLink{{Kind: KindWebIdentity, RoleARN: w.env[envRoleARN], Origin: fromEnvironment(envTokenFile)}}}
}

// remote is the end of every SDK's order: the container's endpoint where a
// variable names one, else the instance metadata unless it is disabled.
func (w *shadowWorld) remote() (shadowChain, *refusal) {
	for _, v := range []string{envContainerRel, envContainerFull} {
		if w.env[v] != "" {
			return shadowChain{links: []ExplainedLink{{Kind: KindContainer, Origin: fromEnvironment(v)}}}, nil
		}
	}
	if strings.EqualFold(w.env[envMetadataDisabled], "true") {
		return shadowChain{}, &refusal{why: "it finds no credentials, and " + envMetadataDisabled + " is true"}
	}
	return shadowChain{links: []ExplainedLink{{Kind: KindIMDS, Origin: Origin{Kind: FromDefault}}}}, nil
}

const envMetadataDisabled = "AWS_EC2_METADATA_DISABLED"

// PlainKey is a long-lived key that stands in plain text in an AWS file.
type PlainKey struct {
	Profile     string
	AccessKeyID string
	Origin      Origin
}

// PlainKeys are the long-lived keys of the two AWS files, in their order of
// profile names. Those with a session token end by themselves.
func (s *Set) PlainKeys() []PlainKey {
	var keys []PlainKey
	for _, name := range s.Names() {
		for _, i := range []int{credentialsFile, configFile} {
			f := s.files[i]
			sec := f.profiles[name]
			id, secret, token := sec.get("aws_access_key_id"), sec.get("aws_secret_access_key"), sec.get("aws_session_token")
			if id != nil && id.value != "" && secret != nil && secret.value != "" && (token == nil || token.value == "") {
				keys = append(keys, PlainKey{Profile: name, AccessKeyID: id.value, Origin: f.origin(sec, id)})
			}
		}
	}
	return keys
}

// ProcessLine is a profile's credential_process in the two AWS files.
type ProcessLine struct {
	Program string // that it runs
	Keyfob  bool   // which is keyfob
	Origin  Origin
}

// ProcessLine returns the credential_process that SDKs see, false if the
// profile has none there.
func (s *Set) ProcessLine(name string) (ProcessLine, bool) {
	f, ok := (&shadowWorld{set: s}).read(name).get("credential_process")
	if !ok {
		return ProcessLine{}, false
	}
	return ProcessLine{Program: programOf(f.text, runtime.GOOS == "windows"), Keyfob: s.isSelf(f.text), Origin: f.origin}, true
}
