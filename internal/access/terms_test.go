package access

import (
	"context"
	"errors"
	"os/user"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// withGroups are rules whose users' groups are these, and not the machine's.
func withGroups(t testing.TB, cfg RulesConfig, groups map[string][]string) *RuleSet {
	t.Helper()
	r, err := NewRules(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.members.files = func(uid string) ([]string, error) {
		if g, ok := groups[uid]; ok {
			return g, nil
		}
		return nil, user.UnknownUserIdError(0)
	}
	r.members.more = nil
	return r
}

func TestCheckByGroup(t *testing.T) {
	groups := map[string][]string{"1007": {"1007", "50"}, "1008": {"1008"}, owner: {owner, "60"}}
	endpoint := func(users, groups []string) RulesConfig {
		return RulesConfig{Owner: owner, Endpoints: []EndpointRule{{Kind: imds.Kind, Listen: imds.Listen, AllowUsers: users, AllowGroups: groups}}}
	}
	profile := func(users, groups []string) RulesConfig {
		return RulesConfig{Owner: owner, Profiles: []ProfileRule{{Name: "prod-*", AllowUsers: users, AllowGroups: groups}}}
	}
	for _, test := range []struct {
		name   string
		cfg    RulesConfig
		caller peer.Caller
		via    cred.Endpoint
		ok     bool
	}{
		{"a member", endpoint(nil, []string{"50"}), tcp("1007", ""), imds, true},
		{"a primary group", endpoint(nil, []string{"1008"}), tcp("1008", ""), imds, true},
		{"no member", endpoint(nil, []string{"50"}), tcp("1008", ""), imds, false},
		{"groups replace the owner", endpoint(nil, []string{"50"}), tcp(owner, ""), imds, false},
		{"the owner as a member", endpoint(nil, []string{"60"}), tcp(owner, ""), imds, true},
		{"in the list of users", endpoint([]string{"1008"}, []string{"50"}), tcp("1008", ""), imds, true},
		{"in the list of groups", endpoint([]string{"1008"}, []string{"50"}), tcp("1007", ""), imds, true},
		{"in neither", endpoint([]string{"1008"}, []string{"60"}), tcp("1007", ""), imds, false},
		{"a group's id is no user's", endpoint([]string{"50"}, nil), tcp("1007", ""), imds, false},
		{"a user's id is no group's", endpoint(nil, []string{"1007"}), tcp("1008", ""), imds, false},
		{"an empty list is nobody", endpoint(nil, []string{}), tcp(owner, ""), imds, false},
		{"a user without a name", endpoint(nil, []string{"50"}), tcp("4242", ""), imds, false},
		{"nobody", endpoint(nil, []string{"50"}), peer.Caller{}, imds, false},
		{"a profile's, on the control socket", profile(nil, []string{"50"}), keyfob("1007", ""), process, true},
		{"a profile's, and no member", profile(nil, []string{"50"}), keyfob(owner, ""), process, false},
	} {
		if err := withGroups(t, test.cfg, groups).Check(test.caller, "prod-app", test.via); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// The groups are kept for a minute, and a look-up that fails is a no that is
// tried again soon.
func TestMembersAreKeptForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var files, more atomic.Int32
		var fail atomic.Bool
		gids := []string{"50"}
		m := newMembers()
		m.files = func(string) ([]string, error) { files.Add(1); return []string{"7"}, nil }
		m.more = func(ctx context.Context, _ string) ([]string, error) {
			more.Add(1)
			if _, ok := ctx.Deadline(); !ok {
				t.Error("a look-up without a time limit")
			}
			time.Sleep(time.Second)
			if fail.Load() {
				return nil, errors.New("the directory does not answer")
			}
			return slices.Clone(gids), nil
		}
		want := func(group string, in bool, lookups int32) {
			t.Helper()
			got, err := m.in("1007", []string{group})
			if got != in || more.Load() != lookups || in && err != nil {
				t.Errorf("in %s: %v, %v after %d look-ups; want %v after %d", group, got, err, more.Load(), in, lookups)
			}
		}
		want("7", true, 0) // files are enough for a yes
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if in, err := m.in("1007", []string{"50"}); !in {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		want("50", true, 1)
		gids = nil // taken out of the group
		want("50", true, 1)
		want("51", false, 2)
		time.Sleep(membersAge)
		want("50", false, 3)
		fail.Store(true)
		time.Sleep(membersAge)
		if in, err := m.in("1007", []string{"50"}); in || err == nil {
			t.Errorf("a look-up that failed: %v, %v", in, err)
		}
		if in, err := m.in("1007", []string{"50"}); in || err == nil || more.Load() != 4 {
			t.Errorf("and again: %v, %v after %d", in, err, more.Load())
		}
		fail.Store(false)
		gids = []string{"50"}
		time.Sleep(membersRetry)
		want("50", true, 5)
		for range 3 * membersKept { // nobody makes it grow without end
			_, _ = m.in(time.Now().String(), []string{"7"})
			time.Sleep(time.Millisecond)
		}
		if len(m.kept) > membersKept {
			t.Errorf("%d users are kept", len(m.kept))
		}
	})
}

func TestRealGroups(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Skipf("%s: this user has no name here: %v", t.Name(), err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Skipf("%s: the user's group has no name here: %v", t.Name(), err)
	}
	for _, name := range []string{group.Name, group.Gid} {
		r, err := NewRules(RulesConfig{Owner: "4294967000", Endpoints: []EndpointRule{{Kind: imds.Kind, Listen: imds.Listen, AllowGroups: []string{name}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Check(tcp(me.Uid, ""), "app", imds); err != nil {
			t.Errorf("%s: %v", name, err.(*Denied).Reason)
		}
		if err := r.Check(tcp("4242424", ""), "app", imds); err == nil {
			t.Errorf("%s: a user that there is not", name)
		}
	}
}

func TestProfileFor(t *testing.T) {
	r, err := NewRules(RulesConfig{Owner: owner, Endpoints: []EndpointRule{
		{Kind: imds.Kind, Listen: imds.Listen, Profile: "app", Users: []EndpointUser{{"1007", "bobs"}, {"08", "eights"}}},
		{Kind: container.Kind, Listen: container.Listen},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		caller peer.Caller
		via    cred.Endpoint
		want   string
	}{
		{tcp("1007", ""), imds, "bobs"}, {tcp("8", ""), imds, "eights"}, {tcp(owner, ""), imds, "app"}, {peer.Caller{}, imds, "app"},
		{tcp("1007", ""), container, ""}, {tcp("1007", ""), cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:1"}, ""},
	} {
		if got := r.ProfileFor(test.caller, test.via); got != test.want {
			t.Errorf("%+v at %+v: %q, want %q", test.caller, test.via, got, test.want)
		}
	}
	if err := r.Check(tcp("1007", ""), "bobs", imds); err == nil {
		t.Error("a line let its user in")
	}
}

func TestPolicyAndProtected(t *testing.T) {
	readOnly := cred.SessionPolicy{ARNs: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}}
	inline := cred.SessionPolicy{Inline: `{"Version":"2012-10-17","Statement":[]}`}
	r, err := NewRules(RulesConfig{Owner: owner, Profiles: []ProfileRule{
		{Name: "prod-*", Policy: readOnly}, {Name: "*-app", Policy: readOnly, Protected: true}, {Name: "prod-db", Policy: inline}, {Name: "dev"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		profile, policy string
		protected, ok   bool
	}{
		{"dev", "", false, true}, {"prod-x", readOnly.Encode(), false, true}, {"prod-app", readOnly.Encode(), true, true},
		{"prod-db", readOnly.Encode(), false, false}, {"a-app", readOnly.Encode(), true, true},
	} {
		if got := r.Policy(test.profile); got != test.policy {
			t.Errorf("%s: policy %q", test.profile, got)
		}
		if got := r.Protected(test.profile); got != test.protected {
			t.Errorf("%s: protected %v", test.profile, got)
		}
		if err := r.Check(tcp(owner, ""), test.profile, imds); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.profile, err)
		}
	}

	g := &Grant{ID: "1", Profiles: []string{"a-app"}, UID: owner}
	if err := r.CheckGrant(tcp(owner, ""), g, "a-app", container); err == nil {
		t.Error("an unconfirmed grant opened a protected profile")
	}
	g.Confirmed = true
	if err := r.CheckGrant(tcp(owner, ""), g, "a-app", container); err != nil {
		t.Error(err)
	}
}

func TestNewRulesRefusesTerms(t *testing.T) {
	for want, cfg := range map[string]RulesConfig{
		"allow_groups of endpoint imds a:1":              {Endpoints: []EndpointRule{{Kind: "imds", Listen: "a:1", AllowGroups: []string{"no-such-group-here"}}}},
		"4294967296 is no group id":                      {Profiles: []ProfileRule{{Name: "x", AllowGroups: []string{"4294967296"}}}},
		"sha256 of " + absolute("/opt/x") + " is not 64": {Profiles: []ProfileRule{{Name: "x", AllowPrograms: []Program{{absolute("/opt/x"), "12"}}}}},
		`"" is not an absolute path`:                     {Profiles: []ProfileRule{{Name: "x", AllowPrograms: []Program{{"", strings.Repeat("0", 64)}}}}},
		"two lines for one user":                         {Endpoints: []EndpointRule{{Kind: "imds", Listen: "a:1", Users: []EndpointUser{{"7", "a"}, {"07", "b"}}}}},
		"names no profile":                               {Endpoints: []EndpointRule{{Kind: "imds", Listen: "a:1", Users: []EndpointUser{{"7", ""}}}}},
		`there is no user "no-such-user-here"`:           {Endpoints: []EndpointRule{{Kind: "imds", Listen: "a:1", Users: []EndpointUser{{"no-such-user-here", "b"}}}}},
	} {
		if _, err := NewRules(cfg); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "cannot ") {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestUnjudgeable(t *testing.T) {
	x := []Program{{Path: absolute("/opt/x")}}
	at := func(e EndpointRule, p ...ProfileRule) RulesConfig {
		if e.Kind == "" {
			e.Kind = "imds"
		}
		e.Listen, e.Profile = "a:1", "app"
		return RulesConfig{Owner: owner, Endpoints: []EndpointRule{e}, Profiles: p}
	}
	bob := []EndpointUser{{"1007", "bobs"}}
	policy := func(arn string) cred.SessionPolicy { return cred.SessionPolicy{ARNs: []string{arn}} }
	for _, test := range []struct {
		name string
		cfg  RulesConfig
		sees bool
		want string // part of the one line; "" for none
	}{
		{"nothing", RulesConfig{Owner: owner}, false, ""},
		{"the owner's programs", at(EndpointRule{AllowPrograms: x}), false, ""},
		{"the owner by name", at(EndpointRule{AllowUsers: []string{owner}, AllowPrograms: x}), false, ""},
		{"others' programs, seen", at(EndpointRule{AllowUsers: []string{"1007"}, AllowPrograms: x}), true, ""},
		{"others' programs of a profile", RulesConfig{Owner: owner, Profiles: []ProfileRule{{Name: "p", AllowUsers: []string{"1007"}, AllowPrograms: x}}}, false, "profile p: allow_programs can't"},
		{"others' programs of a profile by group", RulesConfig{Owner: owner, Profiles: []ProfileRule{{Name: "p", AllowGroups: []string{"50"}, AllowPrograms: x}}}, false, "profile p: allow_programs can't"},
		{"others' protected", RulesConfig{Owner: owner, Profiles: []ProfileRule{{Name: "p", AllowUsers: []string{"1007"}, Protected: true}}}, false, "profile p: protected can't"},
		{"protected, seen", RulesConfig{Owner: owner, Profiles: []ProfileRule{{Name: "p", AllowUsers: []string{"1007"}, Protected: true}}}, true, ""},
		{"unidentified programs", at(EndpointRule{AllowUnidentified: true, AllowPrograms: x}), true, "unidentified"},
		{"unidentified and protected", at(EndpointRule{AllowUnidentified: true}, ProfileRule{Name: "a*", Protected: true}), true, "profile a*: protected can't be judged for unidentified"},
		{"unidentified, another profile protected", at(EndpointRule{AllowUnidentified: true}, ProfileRule{Name: "b*", Protected: true}), true, ""},
		{"unidentified, and grants", at(EndpointRule{Kind: "container", AllowUnidentified: true}, ProfileRule{Name: "b*", Protected: true}), true, "unidentified"},
		{"a user line of somebody else", at(EndpointRule{Users: bob}), true, "the daemon's own user's"},
		{"a user line of a user left out", at(EndpointRule{AllowUsers: []string{owner}, Users: bob}), true, "allow_users and allow_groups exclude"},
		{"a user line of a user", at(EndpointRule{AllowUsers: []string{"1007"}, Users: bob}), true, ""},
		{"a user line of a member", at(EndpointRule{AllowGroups: []string{"50"}, Users: bob}), true, ""},
		{"a user line that a profile excludes", at(EndpointRule{AllowUsers: []string{"1007"}, Users: bob}, ProfileRule{Name: "bo*", AllowUsers: []string{owner}}), true, "the rule of profile bo* excludes"},
		{"a user line of a container endpoint", at(EndpointRule{Kind: "container", AllowUsers: []string{"1007"}, Users: bob}), true, "grants name the profile"},
		{"an unknown user", at(EndpointRule{AllowUsers: []string{"no-such-user-here"}}), true, "allow_users: there is no user"},
		{"an unknown group", at(EndpointRule{AllowGroups: []string{"no-such-group-here"}}), true, "allow_groups: there is no group"},
		{"no hash", at(EndpointRule{AllowPrograms: []Program{{absolute("/opt/x"), "zz"}}}), true, "is not 64 hexadecimal digits"},
		{"two policies", RulesConfig{Owner: owner, Profiles: []ProfileRule{{Name: "p*", Policy: policy("a")}, {Name: "pq", Policy: policy("b")}}}, true, "profile pq: profile p* puts another session policy"},
		{"one policy twice", RulesConfig{Owner: owner, Profiles: []ProfileRule{{Name: "p*", Policy: policy("a")}, {Name: "pq", Policy: policy("a")}}}, true, ""},
		{"two policies apart", RulesConfig{Owner: owner, Profiles: []ProfileRule{{Name: "p*", Policy: policy("a")}, {Name: "q", Policy: policy("b")}}}, true, ""},
	} {
		m := newMembers()
		m.files, m.more = func(uid string) ([]string, error) { return map[string][]string{"1007": {"50"}}[uid], nil }, nil
		got := test.cfg.unjudgeable(test.sees, m)
		if test.want == "" && len(got) != 0 || test.want != "" && (len(got) != 1 || !strings.Contains(got[0], test.want)) {
			t.Errorf("%s: %q", test.name, got)
		}
	}
	if got := at(EndpointRule{AllowUsers: []string{"1007"}, AllowPrograms: x}).unjudgeable(false, newMembers()); len(got) == 0 || !strings.Contains(strings.Join(got, "\n"), "allow_programs can't be judged for other users") {
		t.Errorf("%q", got)
	}
}
