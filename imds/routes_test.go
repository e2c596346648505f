package imds

import (
	"net"
	"testing"

	"keyfob/internal/access"
)

func metadataTable(t testing.TB) []route {
	l := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { l.Close() })
	m := &metadata{Server: NewMetadata(MetadataConfig{Listener: l, Profile: "dev", Facts: testFacts})}
	return m.table()
}

func containerTable() []route { return (&container{}).table() }

// TestUndecided: a route that names no access is closed.
func TestUndecided(t *testing.T) {
	t.Parallel()
	s := &Server{authorize: func(*exchange, accessKind) *fault { return nil }}
	for _, a := range []accessKind{accessUndecided, accessRefused, accessGrantPath + 1} {
		if f := s.open(&exchange{}, a); f == nil || f.status != 403 {
			t.Errorf("access %d is open: %+v", a, f)
		}
	}
	// Each server's authorize knows its own kinds alone.
	m := &metadata{Server: &Server{}}
	m.live.Store(&live{Live: Live{IMDSv1: true}})
	if f := m.authorize(&exchange{}, accessGrant); f == nil || f.status != 403 {
		t.Error("a metadata server takes grants")
	}
	c := &container{grants: access.OpenGrants(nil, "")}
	if f := c.authorize(&exchange{}, accessToken); f == nil || f.status != 403 {
		t.Error("a container server takes metadata tokens")
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	for name, table := range map[string][]route{
		"out of order": {{methods: methodGet, pattern: "/b"}, {methods: methodGet, pattern: "/a"}},
		"twice":        {{methods: methodGet, pattern: "/a"}, {methods: methodGet, pattern: "/a"}},
		"goes on":      {{methods: methodGet, pattern: "/a/{...}/b"}},
		"overlap":      {{methods: methodGet, pattern: "/a"}, {methods: methodGet | methodPut, pattern: "/a"}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: compiled", name)
				}
			}()
			compile(table, true)
		}()
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	tree := compile(metadataTable(t), true)
	for _, c := range []struct {
		path, pattern, param string
	}{
		{"/latest/api/token", "/latest/api/token", ""},
		{"/latest/api/token/", "/latest/api/token", ""}, // Chef's ohai
		{"/2021-03-23/api/token", "/{date}/api/token", ""},
		{"/latest/meta-data/instance-id", "/{version}/meta-data/instance-id", ""},
		{"//latest/meta-data/instance-id", "/{version}/meta-data/instance-id", ""},
		{"/1.0/meta-data/instance-id", "/{version}/meta-data/instance-id", ""},
		{"/2009-04-04/meta-data/placement/availability-zone/", "/{version}/meta-data/placement/availability-zone", ""},
		{"/latest/meta-data/iam/security-credentials/a+b=c,d.e@f_g-h", "/{version}/meta-data/iam/security-credentials/{role}", "a+b=c,d.e@f_g-h"},
		{"/latest/meta-data/iam/security-credentials/a%2Bb%3dc", "/{version}/meta-data/iam/security-credentials/{role}", "a+b=c"},
		{"/latest/meta-data/iam/security-credentials/role/", "/{version}/meta-data/iam/security-credentials/{role}", "role"},
		{"/latest/meta-data/tags/instance/a%2Fb", "/{version}/meta-data/tags/instance/{...}", "a%2Fb"},
		{"/latest/meta-data/network/interfaces/macs/02:00/x/../", "/{version}/meta-data/network/interfaces/macs/{...}", "02:00/x/../"},
		{"/latest/meta-data/tags/instance/", "", ""}, // a directory
		// What is not there.
		{"///latest/meta-data/instance-id", "", ""},
		{"/latest//meta-data/instance-id", "", ""},
		{"/latest/meta-data/instance-id//", "", ""},
		{"/latest/./meta-data/instance-id", "", ""},
		{"/latest/x/../meta-data/instance-id", "", ""},
		{"/latest/%2e/meta-data/instance-id", "", ""},
		{"/latest/meta-data/iam/security-credentials/..", "", ""},
		{"/latest/meta-data/iam/security-credentials/%2e%2e", "", ""},
		{"/latest/meta-data/iam/security-credentials/.", "", ""},
		{"/latest/meta-data/iam/security-credentials/a%2fb", "", ""},
		{"/latest/meta-data/iam/security-credentials/a%5cb", "", ""},
		{"/latest/meta-data/iam/security-credentials/a%00b", "", ""},
		{"/latest/meta-data/iam/security-credentials/a%0ab", "", ""},
		{"/latest/meta-data/iam/security-credentials/a/b", "", ""},
		{"/latest%2fmeta-data%2finstance-id", "", ""},
		{"/Latest/meta-data/instance-id", "", ""},
		{"/latest/meta-data/Instance-Id", "", ""},
		{"/2021-03-24/meta-data/instance-id", "", ""},
		{"/meta-data/instance-id", "", ""},
		{"/latest/meta-data/instance-id;x", "", ""},
		{"/latest/meta-data/instance-id#x", "", ""},
	} {
		n, param := tree.match(c.path)
		got := ""
		if n != nil && n.get != nil {
			got = n.get.pattern
		} else if n != nil && n.put != nil {
			got = n.put.pattern
		}
		if got != c.pattern || param != c.param {
			t.Errorf("%s: matched %q with %q, want %q with %q", c.path, got, param, c.pattern, c.param)
		}
	}
}

// TestContainerMatch: no slash too many, and no listing.
func TestContainerMatch(t *testing.T) {
	t.Parallel()
	tree := compile(containerTable(), false)
	for path, ok := range map[string]bool{
		"/v1/credentials/dev": true, "//v1/credentials/dev": true, "/v1/credentials/a%20b": true, "/v1/credentials/a:b": true,
		"/v1/credentials/": false, "/v1/credentials": false, "/v1/credentials/dev/": false, "/": false, "/v1": false,
		"/v1/credentials/../credentials/dev": false, "/v2/credentials/": false, "/v3/credentials/dev": false,
	} {
		n, _ := tree.match(path)
		if got := n != nil && n.get != nil; got != ok {
			t.Errorf("%s: %v, want %v", path, got, ok)
		}
	}
}

func TestRoleName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ arn, profile, want string }{
		{"arn:aws:iam::123456789012:role/deploy", "dev", "deploy"},
		{"arn:aws:iam::123456789012:role/a/b/deploy+x=y,z.@_-1", "dev", "deploy+x=y,z.@_-1"},
		{"", "dev", "dev"},
		{"", "my profile/é", "my-profile---"},
		{"", "a%2e:b", "a-2e-b"},
		{"", "..", "--"},
		{"", ".", "-"},
		{"", "...", "..."},
		{"arn:aws:iam::123456789012:role/", "dev", "dev"},
	} {
		if got := RoleName(c.arn, c.profile); got != c.want {
			t.Errorf("RoleName(%q, %q) is %q, want %q", c.arn, c.profile, got, c.want)
		}
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	tcp := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range []struct {
		listen string
		hosts  []string
		ok     []string
		bad    []string
	}{
		{
			"127.0.0.1:9911", []string{"Creds.internal", "other:9911", "[fd00::7]"},
			[]string{
				"127.0.0.1", "127.0.0.1:9911", "localhost", "localhost:9911", "LOCALHOST:9911", "creds.internal", "CREDS.internal:9911",
				"other:9911", "[fd00::7]", "[fd00:0::7]:9911",
			},
			[]string{
				"", ":9911", "127.0.0.1:", "127.0.0.1:80", "127.0.0.1:09911", "127.0.0.2", "127.1", "2130706433", "0x7f000001", "evil.example",
				"localhost.", "localhost:80", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1:9911:9911", "[127.0.0.1]", "[::1]", "::1",
				"[::ffff:127.0.0.1]", "127.0.0.1 ", "user@127.0.0.1", "other", "other:80", "0.0.0.0", "[fd00::7", "[fd00::7]9911", "[fd00::7%25lo]",
			},
		},
		{
			"169.254.169.254:80", nil,
			[]string{"169.254.169.254", "169.254.169.254:80", "localhost"},
			[]string{"169.254.169.254:8080", "169.254.170.2", "instance-data"},
		},
		{
			"[fd00:ec2::254]:80", nil,
			[]string{"[fd00:ec2::254]", "[fd00:ec2::254]:80", "[FD00:EC2::254]", "[fd00:ec2:0:0::254]:80"},
			[]string{"fd00:ec2::254", "[fd00:ec2::23]", "[fd00:ec2::254]:81"},
		},
	} {
		g := newGuard(tcp(c.listen), c.hosts)
		for _, h := range c.ok {
			if !g.host(h, nil) {
				t.Errorf("%s: Host %q is refused", c.listen, h)
			}
		}
		for _, h := range c.bad {
			if g.host(h, nil) {
				t.Errorf("%s: Host %q is let in", c.listen, h)
			}
		}
	}
}
