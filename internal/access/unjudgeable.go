package access

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"keyfob/internal/peer"
)

// Unjudgeable returns the rules that can't be judged where they stand
// (CONTRACT.md §9), each as one line that names it, nil when all can:
//
//   - users and groups that this machine does not know, paths that are not
//     absolute, a sha256 that is no hash (NewRules refuses these too);
//   - rules by program, and protection, for callers whose program this
//     process may not look at: those of other users without CAP_SYS_PTRACE,
//     and unidentified ones;
//   - other users at a TCP port at all, without that: on Linux a caller whose
//     process can't be looked at could be in a container, and Windows tells a
//     user by his process;
//   - [[endpoint.user]] lines of users whom the endpoint or a profile's rule
//     excludes, and such lines of a container endpoint, where grants name the
//     profile;
//   - two profile rules that put different session policies on one profile,
//     as far as their names tell.
//
// It judges with the capabilities of the process that calls it.
func (cfg RulesConfig) Unjudgeable() []string {
	return cfg.unjudgeable(peer.SeesOthers(), newMembers())
}

const (
	// sight is what it takes to look at other users' processes.
	sight         = "the right to look at their processes (on Linux the capability CAP_SYS_PTRACE)"
	tcpNeedsSight = runtime.GOOS == "linux" || runtime.GOOS == "windows"
)

// ruling is a rule with what of it could be read.
type ruling struct {
	what string
	condition
	others bool // users other than the owner get past its users and groups
}

func (cfg RulesConfig) unjudgeable(seesOthers bool, m *members) []string {
	var list []string
	say := func(format string, args ...any) {
		if line := fmt.Sprintf(format, args...); !slices.Contains(list, line) {
			list = append(list, line)
		}
	}
	endpoints := make([]ruling, len(cfg.Endpoints))
	for i, e := range cfg.Endpoints {
		endpoints[i] = cfg.ruling(say, "endpoint "+e.Kind+" "+e.Listen, e.AllowUsers, e.AllowGroups, e.AllowPrograms)
	}
	profiles := make([]ruling, len(cfg.Profiles))
	for i, p := range cfg.Profiles {
		profiles[i] = cfg.ruling(say, "profile "+p.Name, p.AllowUsers, p.AllowGroups, p.AllowPrograms)
	}

	for i, e := range cfg.Endpoints {
		rule := &endpoints[i]
		if e.AllowUnidentified && !rule.anyProgram {
			say("%s: allow_programs can't be judged for unidentified callers, whom allow_unidentified lets in", rule.what)
		}
		if rule.others && !seesOthers {
			if tcpNeedsSight {
				say("%s: callers of other users can't be identified without %s", rule.what, sight)
			}
			if !rule.anyProgram {
				say("%s: allow_programs can't be judged for other users without %s", rule.what, sight)
			}
		}
		cfg.userLines(say, e, rule, profiles, m)
	}
	for i, p := range cfg.Profiles {
		rule := &profiles[i]
		terms := []string{}
		if !rule.anyProgram {
			terms = append(terms, "allow_programs")
		}
		if p.Protected {
			terms = append(terms, "protected")
		}
		others, nobodies := cfg.reaches(rule, p.Name, endpoints)
		for _, term := range terms {
			if others && !seesOthers {
				say("%s: %s can't be judged for other users without %s", rule.what, term, sight)
			}
			if nobodies {
				say("%s: %s can't be judged for unidentified callers, whom an endpoint's allow_unidentified lets in", rule.what, term)
			}
		}
		for j, q := range cfg.Profiles[:i] {
			a, b := p.Policy.Encode(), q.Policy.Encode()
			if a != "" && b != "" && a != b && overlap(p.Name, q.Name) {
				say("%s: profile %s puts another session policy on the same profile", rule.what, cfg.Profiles[j].Name)
			}
		}
	}
	return list
}

// ruling reads a rule's lists and says what can't be read.
func (cfg RulesConfig) ruling(say func(string, ...any), what string, users, groups []string, programs []Program) ruling {
	r := ruling{what: what, others: len(groups) > 0}
	r.anyUser, r.anyProgram = users == nil && groups == nil, programs == nil
	for _, name := range users {
		uid, err := userID(name)
		if err != nil {
			say("%s: allow_users: %s", what, err)
			continue
		}
		r.uids = append(r.uids, uid)
		r.others = r.others || uid != cfg.Owner
	}
	for _, name := range groups {
		gid, err := groupID(name)
		if err != nil {
			say("%s: allow_groups: %s", what, err)
			continue
		}
		r.gids = append(r.gids, gid)
	}
	for _, p := range programs {
		if _, err := newProgram(p); err != nil {
			say("%s: allow_programs: %s", what, err)
		}
	}
	return r
}

// userLines judges an endpoint's [[endpoint.user]] lines.
func (cfg RulesConfig) userLines(say func(string, ...any), e EndpointRule, rule *ruling, profiles []ruling, m *members) {
	if len(e.Users) > 0 && !rule.serves() {
		say("%s: [[endpoint.user]] has no meaning there: grants name the profile", rule.what)
		return
	}
	for _, line := range e.Users {
		uid, err := userID(line.User)
		if err != nil {
			say("%s: [[endpoint.user]]: %s", rule.what, err)
			continue
		}
		if line.Profile == "" {
			say("%s: [[endpoint.user]] %s names no profile", rule.what, line.User)
		}
		if rule.anyUser {
			if uid != cfg.Owner {
				say("%s: [[endpoint.user]] %s: the endpoint is the daemon's own user's, for want of allow_users", rule.what, line.User)
			}
		} else if rule.allows(uid, m) != nil {
			say("%s: [[endpoint.user]] %s: allow_users and allow_groups exclude this user", rule.what, line.User)
		}
		for i := range profiles {
			p := &profiles[i]
			if !p.anyUser && match(cfg.Profiles[i].Name, line.Profile) && p.allows(uid, m) != nil {
				say("%s: [[endpoint.user]] %s: the rule of %s excludes this user", rule.what, line.User, p.what)
			}
		}
	}
}

// serves reports whether an endpoint's profile is what it hands out.
func (r *ruling) serves() bool { return strings.HasPrefix(r.what, "endpoint imds ") }

// reaches says whether other users than the owner, and unidentified callers,
// can come to be judged by a profile's rule.
func (cfg RulesConfig) reaches(rule *ruling, pattern string, endpoints []ruling) (others, nobodies bool) {
	if !rule.anyUser {
		return rule.others, false // its users are named, and nobody is none of them
	}
	for i, e := range cfg.Endpoints {
		hit := !endpoints[i].serves() || e.Profile != "" && match(pattern, e.Profile) ||
			slices.ContainsFunc(e.Users, func(l EndpointUser) bool { return match(pattern, l.Profile) })
		if hit {
			others = others || endpoints[i].others
			nobodies = nobodies || e.AllowUnidentified
		}
	}
	return others, nobodies
}

// overlap reports whether a profile is known to have both patterns' form: one
// is a name, or they are the same.
func overlap(a, b string) bool {
	name := func(s string) bool { return !strings.ContainsAny(s, "*?") }
	return a == b || name(a) && match(b, a) || name(b) && match(a, b)
}
