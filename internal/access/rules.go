package access

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

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
	Profile string // which it serves; it decides nothing here
	// AllowUsers are names or decimal ids (on Windows names or SIDs). nil
	// is the owner alone, an empty list is nobody.
	AllowUsers []string
	// AllowPrograms are absolute paths. nil is every program.
	AllowPrograms []string
	// AllowUnidentified lets in who can't be identified.
	AllowUnidentified bool
}

// ProfileRule says who may have the credentials of some profiles, at every
// exit.
type ProfileRule struct {
	// Name is a profile's name, in which * stands for any characters and ?
	// for any one.
	Name          string
	AllowUsers    []string // as in EndpointRule, but nil adds no condition
	AllowPrograms []string // as in EndpointRule
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
}

type endpointRule struct {
	kind, listen string
	condition
	unidentified bool
}

type profileRule struct {
	pattern string
	condition
}

// condition is what endpoints' and profiles' rules have in common.
type condition struct {
	anyUser    bool     // no list of users was given
	users      []string // uids
	anyProgram bool     // no list of programs was given
	programs   []string // absolute paths
}

// NewRules checks the rules and makes them ready: names of users become
// uids, and symbolic links in paths of programs are followed (the kernel
// names a program by its real path). Its errors name the rule.
func NewRules(cfg RulesConfig) (*RuleSet, error) {
	r := &RuleSet{owner: cfg.Owner}
	for _, e := range cfg.Endpoints {
		what := fmt.Sprintf("endpoint %s %s", e.Kind, e.Listen)
		if r.endpoint(cred.Endpoint{Kind: e.Kind, Listen: e.Listen}) != nil {
			return nil, fmt.Errorf("cannot use two rules for one listener: %s", what)
		}
		c, err := newCondition(what, e.AllowUsers, e.AllowPrograms)
		if err != nil {
			return nil, err
		}
		r.endpoints = append(r.endpoints, endpointRule{kind: e.Kind, listen: e.Listen, condition: c, unidentified: e.AllowUnidentified})
	}
	for _, p := range cfg.Profiles {
		if p.Name == "" {
			return nil, errors.New("cannot use a profile rule without a name")
		}
		c, err := newCondition("profile "+p.Name, p.AllowUsers, p.AllowPrograms)
		if err != nil {
			return nil, err
		}
		r.profiles = append(r.profiles, profileRule{pattern: p.Name, condition: c})
	}
	return r, nil
}

func newCondition(what string, users, programs []string) (condition, error) {
	c := condition{anyUser: users == nil, anyProgram: programs == nil}
	for _, name := range users {
		uid, err := userID(name)
		if err != nil {
			return c, fmt.Errorf("cannot use allow_users of %s: %w", what, err)
		}
		c.users = append(c.users, uid)
	}
	for _, path := range programs {
		if !filepath.IsAbs(path) {
			return c, fmt.Errorf("cannot use allow_programs of %s: %q is not an absolute path", what, path)
		}
		path = filepath.Clean(path)
		c.programs = append(c.programs, path)
		if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
			c.programs = append(c.programs, real)
		}
	}
	return c, nil
}

// userID turns a name, a decimal id or a SID into what peer.Caller.UID holds.
func userID(name string) (string, error) {
	if name != "" && strings.Trim(name, "0123456789") == "" {
		id, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return "", fmt.Errorf("%s is no user id", name)
		}
		return strconv.FormatUint(id, 10), nil
	}
	if strings.HasPrefix(name, "S-1-") {
		return name, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return "", cred.WithHint(fmt.Errorf("there is no user %q", name), "a decimal user id works for users that this machine does not know by name")
	}
	return u.Uid, nil
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
// A rule by program makes Check ask for the caller's program, which may cost
// milliseconds once per connection (peer.Caller.Program); otherwise Check
// reads no file and allocates nothing for who is allowed.
func (r *RuleSet) Check(c peer.Caller, profile string, via cred.Endpoint) error {
	return r.check(c, profile, via, false)
}

// check is Check; opened says that something stronger than the default of
// the endpoint says whom it is open for: a grant for any user.
func (r *RuleSet) check(c peer.Caller, profile string, via cred.Endpoint, opened bool) error {
	rule := r.endpoint(via)
	if !c.Identified() && (rule == nil || !rule.unidentified) {
		return &Denied{Reason: "the caller could not be identified"}
	}

	// The users. named is whether some rule that matches names them.
	named := opened
	if rule != nil {
		switch {
		case !rule.anyUser:
			named = true
			if c.Identified() && !rule.allows(c.UID) {
				return &Denied{Reason: "allow_users of the endpoint does not have this user"}
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
		if !p.allows(c.UID) {
			return &Denied{Reason: "allow_users of the profile rule " + p.pattern + " does not have this user"}
		}
		named = named || isControl(via)
	}
	if !named && (r.owner == "" || c.UID != r.owner) {
		return &Denied{Reason: "only the daemon's own user is allowed"}
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
	if rule != nil && !rule.anyProgram && !slices.Contains(rule.programs, p.Exe) {
		return &Denied{Reason: "allow_programs of the endpoint does not have " + p.Exe}
	}
	for i := range r.profiles {
		q := &r.profiles[i]
		if !q.anyProgram && match(q.pattern, profile) && !slices.Contains(q.programs, p.Exe) {
			return &Denied{Reason: "allow_programs of the profile rule " + q.pattern + " does not have " + p.Exe}
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
	case cred.ViaProcess, cred.ViaExec, cred.ViaEnv, cred.ViaLogin:
		return true
	}
	return false
}

func (c *condition) allows(uid string) bool {
	return uid != "" && slices.Contains(c.users, uid)
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
