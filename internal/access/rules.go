package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// RulesConfig is what NewRules makes a RuleSet of.
type RulesConfig struct {
	Owner     string // uid of the daemon, as peer.Self returns it
	Endpoints []EndpointRule
	Profiles  []ProfileRule
}

// EndpointRule says who may use one endpoint (CONTRACT.md §9).
type EndpointRule struct {
	Kind    string // cred.ViaIMDS or cred.ViaContainer
	Listen  string // as in the Endpoint of its requests
	Profile string // for whom no line of Users names another; it decides nothing here
	// Users are the [[endpoint.user]] lines: who gets another profile there.
	// They let nobody in.
	Users []EndpointUser
	// AllowUsers are names or decimal ids (on Windows names or SIDs), and
	// AllowGroups likewise; who is in either may. Both nil is the owner
	// alone, an empty list is nobody.
	AllowUsers, AllowGroups []string
	// AllowPrograms nil is every program.
	AllowPrograms []Program
	// AllowUnidentified lets in who can't be identified.
	AllowUnidentified bool
}

// EndpointUser gives one user of an endpoint a profile of his own.
type EndpointUser struct{ User, Profile string }

// Program is one of AllowPrograms: an absolute path and, in hex, the SHA-256
// that the file has, "" for whatever it holds.
type Program struct{ Path, SHA256 string }

// ProfileRule says who may have the credentials of some profiles, at every
// exit, and on what terms.
type ProfileRule struct {
	// Name is a profile's name, in which * stands for any characters and ?
	// for any one.
	Name                    string
	AllowUsers, AllowGroups []string  // as in EndpointRule, but nil adds no condition
	AllowPrograms           []Program // as in EndpointRule
	Protected               bool      // a person confirms each program (Consents)
	Policy                  cred.SessionPolicy
}

// Denied is a refusal by the rules. Its text is the same for every reason,
// so that a caller learns nothing about rules and profiles; Reason is for
// the log. errors.Is(err, cred.ErrDenied) holds.
type Denied struct{ Reason string }

func (d *Denied) Error() string        { return cred.ErrDenied.Error() }
func (d *Denied) Is(target error) bool { return target == cred.ErrDenied }

// RuleSet is a set of rules, ready to be asked. It is immutable.
type RuleSet struct {
	owner     string
	endpoints []endpointRule
	profiles  []profileRule
	members   *members // who is in which group
}

type endpointRule struct {
	kind, listen string
	condition
	unidentified bool
	profile      string
	users        []userProfile
}

type userProfile struct{ uid, profile string }

type profileRule struct {
	pattern string
	condition
	protected bool
	policy    string // by SessionPolicy.Encode
}

// condition is what endpoints' and profiles' rules have in common.
type condition struct {
	anyUser    bool     // no list of users or groups was given
	uids, gids []string // who may
	anyProgram bool     // no list of programs was given
	programs   []program
}

// program is one of a list of programs.
type program struct {
	paths  []string // absolute; with symbolic links followed, too
	hashed bool
	sum    [sha256.Size]byte
}

// NewRules checks the rules and makes them ready: names of users and groups
// become ids, and symbolic links in paths of programs are followed (the
// kernel names a program by its real path). Its errors name the rule.
func NewRules(cfg RulesConfig) (*RuleSet, error) {
	r := &RuleSet{owner: cfg.Owner, members: newMembers()}
	for _, e := range cfg.Endpoints {
		what := fmt.Sprintf("endpoint %s %s", e.Kind, e.Listen)
		if r.endpoint(cred.Endpoint{Kind: e.Kind, Listen: e.Listen}) != nil {
			return nil, fmt.Errorf("cannot use two rules for one listener: %s", what)
		}
		c, err := newCondition(what, e.AllowUsers, e.AllowGroups, e.AllowPrograms)
		if err != nil {
			return nil, err
		}
		rule := endpointRule{kind: e.Kind, listen: e.Listen, condition: c, unidentified: e.AllowUnidentified, profile: e.Profile}
		if rule.users, err = newUserProfiles(what, e.Users); err != nil {
			return nil, err
		}
		r.endpoints = append(r.endpoints, rule)
	}
	for _, p := range cfg.Profiles {
		if p.Name == "" {
			return nil, errors.New("cannot use a profile rule without a name")
		}
		c, err := newCondition("profile "+p.Name, p.AllowUsers, p.AllowGroups, p.AllowPrograms)
		if err != nil {
			return nil, err
		}
		r.profiles = append(r.profiles, profileRule{pattern: p.Name, condition: c, protected: p.Protected, policy: p.Policy.Encode()})
	}
	return r, nil
}

func newUserProfiles(what string, users []EndpointUser) ([]userProfile, error) {
	var list []userProfile
	for _, u := range users {
		uid, err := userID(u.User)
		switch {
		case err != nil:
			return nil, fmt.Errorf("cannot use a user line of %s: %w", what, err)
		case u.Profile == "":
			return nil, fmt.Errorf("cannot use the line of user %s of %s: it names no profile", u.User, what)
		case slices.ContainsFunc(list, func(l userProfile) bool { return l.uid == uid }):
			return nil, fmt.Errorf("cannot use two lines for one user of %s: %s", what, u.User)
		}
		list = append(list, userProfile{uid: uid, profile: u.Profile})
	}
	return list, nil
}

func newCondition(what string, users, groups []string, programs []Program) (condition, error) {
	c := condition{anyUser: users == nil && groups == nil, anyProgram: programs == nil}
	for _, name := range users {
		uid, err := userID(name)
		if err != nil {
			return c, fmt.Errorf("cannot use allow_users of %s: %w", what, err)
		}
		c.uids = append(c.uids, uid)
	}
	for _, name := range groups {
		gid, err := groupID(name)
		if err != nil {
			return c, fmt.Errorf("cannot use allow_groups of %s: %w", what, err)
		}
		c.gids = append(c.gids, gid)
	}
	for _, p := range programs {
		made, err := newProgram(p)
		if err != nil {
			return c, fmt.Errorf("cannot use allow_programs of %s: %w", what, err)
		}
		c.programs = append(c.programs, made)
	}
	return c, nil
}

func newProgram(p Program) (program, error) {
	if !filepath.IsAbs(p.Path) {
		return program{}, fmt.Errorf("%q is not an absolute path", p.Path)
	}
	path := filepath.Clean(p.Path)
	made := program{paths: []string{path}, hashed: p.SHA256 != ""}
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
		made.paths = append(made.paths, real)
	}
	if made.hashed {
		sum, err := hex.DecodeString(p.SHA256)
		if err != nil || len(sum) != sha256.Size {
			return program{}, fmt.Errorf("the sha256 of %s is not 64 hexadecimal digits", p.Path)
		}
		made.sum = [sha256.Size]byte(sum)
	}
	return made, nil
}

// ProfileFor is the profile that an endpoint serves to the caller: that of
// the [[endpoint.user]] line with his user, else the endpoint's; "" when
// there is no such endpoint. It says nothing of whether the caller may have
// it.
func (r *RuleSet) ProfileFor(c peer.Caller, via cred.Endpoint) string {
	rule := r.endpoint(via)
	if rule == nil {
		return ""
	}
	if c.Identified() {
		for i := range rule.users {
			if rule.users[i].uid != c.UID {
				continue
			}
			if c.AtHome(context.Background()) != nil { // bounds itself
				break // nobody, and not the user
			}
			return rule.users[i].profile
		}
	}
	return rule.profile
}

// Policy is the session policy under which the rules hand out the profile,
// by SessionPolicy.Encode, "" for none. Where two rules put different ones on
// it, Check refuses the profile: together they would allow what each of them
// alone forbids.
func (r *RuleSet) Policy(profile string) string {
	policy, _ := r.policy(profile)
	return policy
}

// policy is the first policy that a rule puts on the profile; same is whether
// all that do put the same.
func (r *RuleSet) policy(profile string) (policy string, same bool) {
	same = true
	for i := range r.profiles {
		p := &r.profiles[i]
		if p.policy == "" || p.policy == policy || !match(p.pattern, profile) {
			continue
		}
		same = policy == ""
		if !same {
			break
		}
		policy = p.policy
	}
	return policy, same
}

// Protected reports whether a person must confirm each program that wants
// the profile.
func (r *RuleSet) Protected(profile string) bool {
	for i := range r.profiles {
		if r.profiles[i].protected && match(r.profiles[i].pattern, profile) {
			return true
		}
	}
	return false
}

// Check says whether the caller may have the profile's credentials at this
// exit: nil, or a *Denied. The endpoint's rule and every rule whose name
// matches the profile must say yes.
//
// Where nothing names the users, they are the owner alone. At an endpoint
// that means its own allow_users (and an endpoint without a rule is the
// owner's); on the control socket, which has no rule of its own, the
// profile's allow_users.
//
// A process in another user, pid or mount namespace is unidentified, whatever
// its user. To see that of a TCP peer on Linux, and to see the program that a
// rule wants, its process is looked for once per connection, which may cost
// milliseconds (peer.Caller.Program); after that Check reads no file and
// allocates nothing for who is allowed. A rule by group looks the user's
// groups up once a minute.
func (r *RuleSet) Check(c peer.Caller, profile string, via cred.Endpoint) error {
	return r.check(c, profile, via, false)
}

// check is Check; opened says that something stronger than the default of
// the endpoint says whom it is open for: a grant for any user.
func (r *RuleSet) check(c peer.Caller, profile string, via cred.Endpoint, opened bool) error {
	rule := r.endpoint(via)
	anybody := rule != nil && rule.unidentified
	if !c.Identified() && !anybody {
		return &Denied{Reason: "the caller could not be identified"}
	}
	err := r.judge(c, profile, via, rule, opened)
	if !c.Identified() || err != nil && !anybody {
		return err
	}
	// Where the process lives is looked at last: it costs the most.
	if home := c.AtHome(context.Background()); home != nil { // bounds itself
		if !anybody {
			return &Denied{Reason: home.Error()}
		}
		return r.judge(peer.Caller{}, profile, via, rule, opened)
	}
	return err
}

// judge is check of a caller whose user, if he has one, is a fact.
func (r *RuleSet) judge(c peer.Caller, profile string, via cred.Endpoint, rule *endpointRule, opened bool) error {
	// The users. named is whether some rule that matches names them.
	named := opened
	if rule != nil {
		switch {
		case !rule.anyUser:
			named = true
			if c.Identified() {
				if err := rule.allows(c.UID, r.members); err != nil {
					return &Denied{Reason: "the endpoint: " + err.Error()}
				}
			}
		case !c.Identified():
			named = true // allow_unidentified = true
		}
	}
	program := rule != nil && !rule.anyProgram
	for i := range r.profiles {
		p := &r.profiles[i]
		if !match(p.pattern, profile) {
			continue
		}
		program = program || !p.anyProgram
		if p.anyUser {
			continue
		}
		if err := p.allows(c.UID, r.members); err != nil {
			return &Denied{Reason: "the profile rule " + p.pattern + ": " + err.Error()}
		}
		named = named || isControl(via)
	}
	if !named && (r.owner == "" || c.UID != r.owner) {
		return &Denied{Reason: "only the daemon's own user is allowed"}
	}
	if _, same := r.policy(profile); !same {
		return &Denied{Reason: "two profile rules put different session policies on this profile"}
	}

	if !program {
		return nil
	}
	return r.checkProgram(c, profile, rule)
}

func (r *RuleSet) checkProgram(c peer.Caller, profile string, rule *endpointRule) error {
	p, err := c.Program(context.Background()) // bounds itself
	if err != nil {
		return &Denied{Reason: "there is a rule by program: " + err.Error()}
	}
	if rule != nil && !rule.anyProgram {
		if err := rule.allowsProgram(c, p.Exe); err != nil {
			return &Denied{Reason: "the endpoint: " + err.Error()}
		}
	}
	for i := range r.profiles {
		q := &r.profiles[i]
		if q.anyProgram || !match(q.pattern, profile) {
			continue
		}
		if err := q.allowsProgram(c, p.Exe); err != nil {
			return &Denied{Reason: "the profile rule " + q.pattern + ": " + err.Error()}
		}
	}
	return nil
}

func (r *RuleSet) endpoint(via cred.Endpoint) *endpointRule {
	for i := range r.endpoints {
		e := &r.endpoints[i]
		if e.kind == via.Kind && e.listen == via.Listen {
			return e
		}
	}
	return nil
}

// isControl reports whether the exit is the control socket.
func isControl(via cred.Endpoint) bool {
	switch via.Kind {
	case cred.ViaProcess, cred.ViaExec, cred.ViaEnv, cred.ViaLogin, cred.ViaConsole, cred.ViaWhoami:
		return true
	}
	return false
}

var errUser = errors.New("allow_users and allow_groups do not have this user")

// allows returns nil when the user is named or is in a group that is, else
// the reason.
func (c *condition) allows(uid string, m *members) error {
	if uid == "" {
		return errUser
	}
	if slices.Contains(c.uids, uid) {
		return nil
	}
	if len(c.gids) == 0 {
		return errUser
	}
	in, err := m.in(uid, c.gids)
	if err != nil {
		return err
	}
	if !in {
		return errUser
	}
	return nil
}

// allowsProgram returns nil when the program is listed, else the reason. The
// file is read only where its content matters.
func (c *condition) allowsProgram(caller peer.Caller, exe string) error {
	listed := false
	for i := range c.programs {
		p := &c.programs[i]
		if !slices.Contains(p.paths, exe) {
			continue
		}
		if !p.hashed {
			return nil
		}
		sum, err := caller.ProgramSHA256(context.Background()) // bounds itself
		if err != nil {
			return fmt.Errorf("allow_programs wants a hash of %s: %w", exe, err)
		}
		if sum == p.sum {
			return nil
		}
		listed = true
	}
	if listed {
		return fmt.Errorf("allow_programs has %s with another sha256", exe)
	}
	return fmt.Errorf("allow_programs does not have %s", exe)
}

// match reports whether name has the form of pattern. A slash is a character
// like any other: a rule must not miss a profile because of its name.
func match(pattern, name string) bool {
	p, n := 0, 0
	star, from := -1, 0 // the last *, and where in name it was last tried to end
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && pattern[p] == '?':
			p++
			n += runeLen(name[n:])
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

func runeLen(s string) int {
	for i := range s {
		if i > 0 {
			return i
		}
	}
	return len(s)
}
