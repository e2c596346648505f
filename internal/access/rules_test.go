package access

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

const owner = "1000"

func tcp(uid, exe string) peer.Caller { return peer.Caller{UID: uid, Via: peer.ViaTCP, Exe: exe} }

// keyfob is a caller on the control socket: keyfob, started by program.
func keyfob(uid, program string) peer.Caller {
	c := peer.Caller{UID: uid, PID: 20, Via: peer.ViaUnix, Exe: "/usr/bin/keyfob"}
	if program != "" {
		c.Parent = &peer.Process{PID: 10, Start: 1, Exe: program}
	}
	return c
}

var (
	imds      = cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:9911"}
	container = cred.Endpoint{Kind: cred.ViaContainer, Listen: "127.0.0.1:9912"}
	process   = cred.Endpoint{Kind: cred.ViaProcess}
)

// absolute makes a path of programs absolute on Windows too.
func absolute(path string) string {
	if runtime.GOOS == "windows" {
		return `C:` + filepath.FromSlash(path)
	}
	return path
}

// paths are programs of any content; nil stays nil, which is another rule.
func paths(list []string) []Program {
	if list == nil {
		return nil
	}
	programs := []Program{}
	for _, p := range list {
		programs = append(programs, Program{Path: p})
	}
	return programs
}

func TestCheck(t *testing.T) {
	terraform, other := absolute("/opt/terraform"), absolute("/opt/other")
	endpoint := func(users, programs []string, unidentified bool) RulesConfig {
		return RulesConfig{Owner: owner, Endpoints: []EndpointRule{{
			Kind: imds.Kind, Listen: imds.Listen, Profile: "app", AllowUsers: users, AllowPrograms: paths(programs), AllowUnidentified: unidentified,
		}}}
	}
	profile := func(name string, users, programs []string) RulesConfig {
		return RulesConfig{Owner: owner, Profiles: []ProfileRule{{Name: name, AllowUsers: users, AllowPrograms: paths(programs)}}}
	}
	both := func(a, b RulesConfig) RulesConfig {
		return RulesConfig{Owner: owner, Endpoints: append(a.Endpoints, b.Endpoints...), Profiles: append(a.Profiles, b.Profiles...)}
	}
	none := RulesConfig{Owner: owner}
	for _, test := range []struct {
		name   string
		cfg    RulesConfig
		caller peer.Caller
		via    cred.Endpoint
		ok     bool
	}{
		{"owner, no rules", none, tcp(owner, ""), imds, true},
		{"owner on the control socket", none, keyfob(owner, ""), process, true},
		{"owner at exec's listener", none, tcp(owner, ""), container, true},
		{"another user", none, tcp("1001", ""), imds, false},
		{"another user on the control socket", none, keyfob("1001", ""), process, false},
		{"root is another user", none, tcp("0", ""), imds, false},
		{"nobody", none, peer.Caller{}, imds, false},
		{"nobody on the control socket", none, peer.Caller{}, process, false},
		{"unknown kind of exit", none, tcp("1001", ""), cred.Endpoint{Kind: "new"}, false},
		{"no owner, no uid", RulesConfig{}, peer.Caller{}, imds, false},
		{"no owner", RulesConfig{}, tcp(owner, ""), imds, false},

		{"endpoint: owner by default", endpoint(nil, nil, false), tcp(owner, ""), imds, true},
		{"endpoint: others not by default", endpoint(nil, nil, false), tcp("1007", ""), imds, false},
		{"endpoint: listed", endpoint([]string{"1007"}, nil, false), tcp("1007", ""), imds, true},
		{"endpoint: the list replaces the owner", endpoint([]string{"1007"}, nil, false), tcp(owner, ""), imds, false},
		{"endpoint: an empty list is nobody", endpoint([]string{}, nil, false), tcp(owner, ""), imds, false},
		{"endpoint: another listener's list", endpoint([]string{"1007"}, nil, false), tcp("1007", ""), cred.Endpoint{Kind: cred.ViaIMDS, Listen: "127.0.0.1:9"}, false},
		{"endpoint: another kind's list", endpoint([]string{"1007"}, nil, false), tcp("1007", ""), cred.Endpoint{Kind: cred.ViaContainer, Listen: imds.Listen}, false},
		{"endpoint: a list is not the control socket's", endpoint([]string{"1007"}, nil, false), keyfob("1007", ""), process, false},
		{"endpoint: 007 is 7", endpoint([]string{"0007"}, nil, false), tcp("7", ""), imds, true},

		{"unidentified: allowed", endpoint(nil, nil, true), peer.Caller{}, imds, true},
		{"unidentified: beside a list", endpoint([]string{"1007"}, nil, true), peer.Caller{}, imds, true},
		{"unidentified: an identified one is judged", endpoint([]string{"1007"}, nil, true), tcp("1008", ""), imds, false},
		{"unidentified: an identified one is judged by default", endpoint(nil, nil, true), tcp("1008", ""), imds, false},
		{"unidentified: at another listener", endpoint(nil, nil, true), peer.Caller{}, container, false},
		{"unidentified: a program rule", endpoint(nil, []string{terraform}, true), peer.Caller{}, imds, false},
		{"unidentified: a profile's users", both(endpoint(nil, nil, true), profile("*", []string{"1007"}, nil)), peer.Caller{}, imds, false},
		{"unidentified: a profile without users", both(endpoint(nil, nil, true), profile("*", nil, nil)), peer.Caller{}, imds, true},

		{"profile: on the control socket its list replaces the owner", profile("prod-*", []string{"1007"}, nil), keyfob("1007", ""), process, true},
		{"profile: and the owner is out", profile("prod-*", []string{"1007"}, nil), keyfob(owner, ""), process, false},
		{"profile: at an endpoint both must say yes", profile("prod-*", []string{"1007"}, nil), tcp("1007", ""), imds, false},
		{"profile: and both do", both(endpoint([]string{"1007"}, nil, false), profile("prod-*", []string{"1007"}, nil)), tcp("1007", ""), imds, true},
		{"profile: the endpoint alone", both(endpoint([]string{"1007"}, nil, false), profile("prod-*", []string{"1008"}, nil)), tcp("1007", ""), imds, false},
		{"profile: the profile alone", both(endpoint([]string{"1008"}, nil, false), profile("prod-*", []string{"1007"}, nil)), tcp("1007", ""), imds, false},
		{"profile: without users it adds nothing", both(endpoint([]string{"1007"}, nil, false), profile("prod-*", nil, nil)), tcp("1007", ""), imds, true},
		{"profile: of another name", profile("dev-*", []string{"1007"}, nil), keyfob(owner, ""), process, true},
		{"profile: every rule that matches", both(profile("*", []string{owner, "1007"}, nil), profile("prod-*", []string{owner}, nil)), keyfob("1007", ""), process, false},
		{"profile: every rule that matches says yes", both(profile("*", []string{owner, "1007"}, nil), profile("prod-*", []string{"1007"}, nil)), keyfob("1007", ""), process, true},

		{"program: the listed one", endpoint(nil, []string{other, terraform}, false), tcp(owner, terraform), imds, true},
		{"program: another", endpoint(nil, []string{terraform}, false), tcp(owner, other), imds, false},
		{"program: unknown", endpoint(nil, []string{terraform}, false), tcp(owner, ""), imds, false},
		{"program: replaced since", endpoint(nil, []string{terraform}, false), tcp(owner, terraform+" (deleted)"), imds, false},
		{"program: an empty list is none", endpoint(nil, []string{}, false), tcp(owner, terraform), imds, false},
		{"program: of another user", endpoint(nil, []string{terraform}, false), tcp("1007", terraform), imds, false},
		{"program: at another listener", endpoint(nil, []string{terraform}, false), tcp(owner, other), container, true},
		{"program: a profile's, at an endpoint", profile("prod-*", nil, []string{terraform}), tcp(owner, other), imds, false},
		{"program: a profile's, the listed one", profile("prod-*", nil, []string{terraform}), tcp(owner, terraform), imds, true},
		{"program: both must say yes", both(endpoint(nil, []string{terraform}, false), profile("prod-*", nil, []string{other})), tcp(owner, terraform), imds, false},
		{"program: the parent of keyfob", profile("prod-*", nil, []string{terraform}), keyfob(owner, terraform), process, true},
		{"program: another parent", profile("prod-*", nil, []string{terraform}), keyfob(owner, other), process, false},
		{"program: no known parent", profile("prod-*", nil, []string{terraform}), keyfob(owner, ""), process, false},
		{"program: keyfob itself is not its parent", profile("prod-*", nil, []string{absolute("/usr/bin/keyfob")}), keyfob(owner, other), process, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := NewRules(test.cfg)
			if err != nil {
				t.Fatal(err)
			}
			err = r.Check(test.caller, "prod-app", test.via)
			if (err == nil) != test.ok {
				t.Fatalf("got %v, want yes: %v", err, test.ok)
			}
			var denied *Denied
			if err != nil && (!errors.Is(err, cred.ErrDenied) || !errors.As(err, &denied) || denied.Reason == "" || err.Error() != "denied") {
				t.Errorf("error is %#v", err)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, name string
		want          bool
	}{
		{"dev", "dev", true}, {"dev", "dev2", false}, {"dev", "de", false}, {"dev", "Dev", false}, {"dev", "", false},
		{"*", "", true}, {"*", "a/b c", true}, {"prod-*", "prod-", true}, {"prod-*", "prod", false}, {"prod-*", "my-prod-x", false},
		{"prod-*", "prod-a/b", true}, {"*-prod", "a-prod", true}, {"*-prod", "a-prod-b", false}, {"*-prod", "-prod-prod", true},
		{"a*b*c", "aXbYbZc", true}, {"a*b*c", "aXcYb", false}, {"?", "a", true}, {"?", "", false}, {"?", "ä", true}, {"a?c", "aäc", true},
		{"a?", "a", false}, {"**", "x", true}, {"[a]", "[a]", true}, {"[a]", "a", false}, {"*?", "", false}, {"*?x", "ääx", true}, {`\*`, `*`, false},
	} {
		if got := match(test.pattern, test.name); got != test.want {
			t.Errorf("match(%q, %q) is %v", test.pattern, test.name, got)
		}
	}
	// no pattern takes exponential time
	if match(strings.Repeat("a*", 30)+"b", strings.Repeat("a", 3000)) {
		t.Error("matched")
	}
}

func TestNewRulesByName(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Skipf("%s: this user has no name here: %v", t.Name(), err)
	}
	r, err := NewRules(RulesConfig{Owner: "4294967000", Endpoints: []EndpointRule{{Kind: imds.Kind, Listen: imds.Listen, AllowUsers: []string{me.Username}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Check(tcp(me.Uid, ""), "app", imds); err != nil {
		t.Error(err)
	}
}

// A rule may name a program by a symbolic link; the kernel names it by its
// real path.
func TestNewRulesFollowsLinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	real, link := filepath.Join(dir, "python3.13"), filepath.Join(dir, "python3")
	if err := os.WriteFile(real, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Skipf("%s: no symbolic links here: %v", t.Name(), err)
	}
	r, err := NewRules(RulesConfig{Owner: owner, Profiles: []ProfileRule{{Name: "*", AllowPrograms: paths([]string{link})}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Check(tcp(owner, real), "app", imds); err != nil {
		t.Error(err)
	}
}

func TestNewRulesRefuses(t *testing.T) {
	for name, cfg := range map[string]RulesConfig{
		"allow_users of endpoint imds a:1":       {Endpoints: []EndpointRule{{Kind: "imds", Listen: "a:1", AllowUsers: []string{"no-such-user-here"}}}},
		"4294967296 is no user id":               {Profiles: []ProfileRule{{Name: "x", AllowUsers: []string{"4294967296"}}}},
		`there is no user ""`:                    {Profiles: []ProfileRule{{Name: "x", AllowUsers: []string{""}}}},
		"allow_programs of profile prod-*":       {Profiles: []ProfileRule{{Name: "prod-*", AllowPrograms: paths([]string{"terraform"})}}},
		"profile rule without a name":            {Profiles: []ProfileRule{{AllowUsers: []string{"1"}}}},
		"two rules for one listener: endpoint i": {Endpoints: []EndpointRule{{Kind: "imds", Listen: "a:1"}, {Kind: "imds", Listen: "a:1"}}},
	} {
		if _, err := NewRules(cfg); err == nil || !strings.Contains(err.Error(), name) || !strings.HasPrefix(err.Error(), "cannot ") {
			t.Errorf("want %q, got %v", name, err)
		}
	}
}

func TestCheckGrant(t *testing.T) {
	plain, err := NewRules(RulesConfig{Owner: owner, Endpoints: []EndpointRule{{Kind: container.Kind, Listen: container.Listen}}})
	if err != nil {
		t.Fatal(err)
	}
	named, _ := NewRules(RulesConfig{Owner: owner, Endpoints: []EndpointRule{{Kind: container.Kind, Listen: container.Listen, AllowUsers: []string{"1007"}}}})
	open, _ := NewRules(RulesConfig{Owner: owner, Endpoints: []EndpointRule{{Kind: container.Kind, Listen: container.Listen, AllowUnidentified: true}}})
	mine := &Grant{ID: "1", Profiles: []string{"app"}, UID: owner}
	theirs := &Grant{ID: "2", Profiles: []string{"app"}, UID: "1007"}
	anyone := &Grant{ID: "3", Profiles: []string{"app"}, UID: owner, AnyUser: true}
	for _, test := range []struct {
		name    string
		rules   *RuleSet
		caller  peer.Caller
		grant   *Grant
		profile string
		ok      bool
	}{
		{"own", plain, tcp(owner, ""), mine, "app", true},
		{"no grant", plain, tcp(owner, ""), nil, "app", false},
		{"a profile outside", plain, tcp(owner, ""), mine, "other", false},
		{"another user with the token", plain, tcp("1007", ""), mine, "app", false},
		{"the endpoint's user with the owner's grant", named, tcp("1007", ""), mine, "app", false},
		{"another user's grant where he may not", plain, tcp("1007", ""), theirs, "app", false},
		{"another user's grant where he may", named, tcp("1007", ""), theirs, "app", true},
		{"the owner with another user's grant", named, tcp(owner, ""), theirs, "app", false},
		{"any user", plain, tcp("1007", ""), anyone, "app", true},
		{"any user, but a list", named, tcp("1008", ""), anyone, "app", false},
		{"any user, unidentified", plain, peer.Caller{}, anyone, "app", false},
		{"any user, unidentified allowed", open, peer.Caller{}, anyone, "app", true},
		{"one user, unidentified allowed", open, peer.Caller{}, mine, "app", false},
	} {
		err := test.rules.CheckGrant(test.caller, test.grant, test.profile, container)
		if (err == nil) != test.ok || err != nil && !errors.Is(err, cred.ErrDenied) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestCheckAllocatesNothing(t *testing.T) {
	r, err := NewRules(RulesConfig{Owner: owner,
		Endpoints: []EndpointRule{{Kind: imds.Kind, Listen: imds.Listen, AllowUsers: []string{owner}, AllowPrograms: []Program{{Path: absolute("/opt/x")}}}},
		Profiles:  []ProfileRule{{Name: "prod-*", AllowUsers: []string{owner}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := tcp(owner, absolute("/opt/x"))
	if n := testing.AllocsPerRun(100, func() {
		if err := r.Check(c, "prod-app", imds); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
