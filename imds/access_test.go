package imds

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// opening is what a route must be, and an example of its path that answers.
// A route that is not listed here fails the tests.
type opening struct {
	pattern string
	methods methods
	access  accessKind
	maxBody int64
	example string
}

func metadataOpenings() []opening {
	all := []opening{
		{"/latest/api/token", methodPut, accessCaller, 1024, "/latest/api/token"},
		{"/{date}/api/token", methodPut, accessRefused, 1024, "/2021-03-23/api/token"},
	}
	for _, p := range []string{
		"dynamic/fws/instance-monitoring", "dynamic/instance-identity/document",
		"meta-data/ami-id", "meta-data/ami-launch-index", "meta-data/ami-manifest-path", "meta-data/autoscaling/target-lifecycle-state",
		"meta-data/block-device-mapping/ami", "meta-data/block-device-mapping/root",
		"meta-data/events/maintenance/history", "meta-data/events/maintenance/scheduled",
		"meta-data/hostname",
		"meta-data/iam/info", "meta-data/iam/security-credentials", "meta-data/iam/security-credentials/{role}",
		"meta-data/iam/security-credentials-extended", "meta-data/iam/security-credentials-extended/{role}",
		"meta-data/identity-credentials/ec2/info",
		"meta-data/instance-action", "meta-data/instance-id", "meta-data/instance-life-cycle", "meta-data/instance-type",
		"meta-data/ipv6", "meta-data/local-hostname", "meta-data/local-ipv4", "meta-data/mac", "meta-data/metrics/vhostmd",
		"meta-data/network/interfaces/macs/{...}",
		"meta-data/placement/availability-zone", "meta-data/placement/availability-zone-id", "meta-data/placement/region",
		"meta-data/profile", "meta-data/public-hostname", "meta-data/public-ipv4", "meta-data/public-keys/{...}", "meta-data/reservation-id",
		"meta-data/security-groups", "meta-data/services/domain", "meta-data/services/partition", "meta-data/system", "meta-data/tags/instance/{...}",
		"user-data",
	} {
		example := strings.Replace(p, "{role}", testRole, 1)
		switch p {
		case "meta-data/network/interfaces/macs/{...}":
			example = "meta-data/network/interfaces/macs/" + testMachine.mac + "/device-number"
		case "meta-data/public-keys/{...}":
			example = "meta-data/public-keys/0/openssh-key"
		case "meta-data/tags/instance/{...}":
			example = "meta-data/tags/instance/Name"
		}
		all = append(all, opening{"/{version}/" + p, methodGet, accessToken, 0, "/latest/" + example})
	}
	return all
}

func containerOpenings() []opening {
	return []opening{
		{"/v1/credentials/{profile}", methodGet, accessGrant, 0, "/v1/credentials/dev"},
		{"/v2/credentials/{id}", methodGet, accessGrantPath, 0, "/v2/credentials/"},
	}
}

// fullFacts has a value for every route.
func fullFacts(t testing.TB) Facts {
	f := testFacts("")
	name := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(name, []byte("#cloud-config\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.UserDataFile = name
	f.ZoneID, f.IPv6, f.PublicIPv4, f.PublicHostname = "euc1-az2", "fd00:1:2:3::4", "203.0.113.7", "web.example.com"
	f.PublicKeys = []PublicKey{{"laptop", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLE laptop"}, {"second", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOTHER second"}}
	f.SecurityGroups = []string{"web", "ssh"}
	f.Tags = map[string]string{"Name": "build box", "cost:center+a=b,c.d@e_f-g": "42", "empty": "", "not shown": "x", "a/b": "x", "_index": "x", "..": "x"}
	return f
}

// TestRoutes asserts every route's methods, access and body limit.
func TestRoutes(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, table []route, want []opening) {
		byPattern := map[string]opening{}
		for _, o := range want {
			byPattern[o.pattern] = o
		}
		for _, r := range table {
			o, ok := byPattern[r.pattern]
			if !ok {
				t.Errorf("route %s is not in this test: say here what opens it", r.pattern)
				continue
			}
			delete(byPattern, r.pattern)
			if got := (opening{r.pattern, r.methods, r.access, r.maxBody, o.example}); got != o {
				t.Errorf("route is %+v, want %+v", got, o)
			}
			if r.access == accessUndecided {
				t.Errorf("route %s names no access", r.pattern)
			}
			if (r.serve == nil) == (r.value == nil) && r.access != accessRefused {
				t.Errorf("route %s needs either serve or value", r.pattern)
			}
			if (r.below == nil) == strings.HasSuffix(r.pattern, "/"+everything) {
				t.Errorf("route %s: what is below it?", r.pattern)
			}
			if strings.Count(strings.NewReplacer("{version}", "", "{date}", "").Replace(r.pattern), "{") > 1 {
				t.Errorf("route %s has two parameters", r.pattern)
			}
		}
		for p := range byPattern {
			t.Errorf("there is no route %s", p)
		}
	}
	t.Run("metadata", func(t *testing.T) { check(t, metadataTable(t), metadataOpenings()) })
	t.Run("container", func(t *testing.T) { check(t, containerTable(), containerOpenings()) })
}

// TestAccess walks every route over real connections: what opens it does,
// nothing less does, and no other method.
func TestAccess(t *testing.T) {
	t.Parallel()
	others := []string{"POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "FOO"}
	expect := func(t *testing.T, what string, a answer, status int) {
		t.Helper()
		if a.status != status {
			t.Errorf("%s: %d, want %d", what, a.status, status)
		}
		if status != http.StatusOK {
			noSecret(t, what, a.body)
		}
	}
	t.Run("metadata", func(t *testing.T) {
		facts := fullFacts(t)
		address := metadataServer(t, func(c *MetadataConfig) { c.Facts = func(string) Facts { return facts } })
		stranger := metadataServer(t, func(c *MetadataConfig) {
			c.Facts = func(string) Facts { return facts }
			c.Check = func(peer.Caller, string, cred.Endpoint) error { return &access.Denied{Reason: "a stranger"} }
		})
		token, foreign := newToken(t, address), newToken(t, metadataServer(t, nil))
		send := func(method, where, path string, headers ...string) answer {
			return raw(t, where, method, request(method, path, where, headers...))
		}
		const ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60"
		for _, o := range metadataOpenings() {
			t.Run(strings.TrimPrefix(o.pattern, "/"), func(t *testing.T) {
				for _, m := range others {
					expect(t, m, send(m, address, o.example, withToken(token), ttl), 405)
				}
				for _, m := range []string{"GET", "HEAD", "PUT", "POST"} {
					expect(t, m+" of a stranger", send(m, stranger, o.example, withToken(token), ttl), 403)
					expect(t, m+" with another Host", raw(t, address, m, request(m, o.example, "evil.example", withToken(token), ttl)), 403)
					expect(t, m+" from a page", send(m, address, o.example, withToken(token), ttl, "Origin: http://evil.example"), 403)
				}
				if o.methods == methodPut {
					expect(t, "GET", send("GET", address, o.example, withToken(token)), 405)
					expect(t, "HEAD", send("HEAD", address, o.example, withToken(token)), 405)
					status := 200
					if o.access == accessRefused {
						status = 403
					}
					expect(t, "PUT", send("PUT", address, o.example, ttl), status)
					return
				}
				expect(t, "PUT", send("PUT", address, o.example, withToken(token), ttl), 405)
				for _, m := range []string{"GET", "HEAD"} {
					expect(t, m, send(m, address, o.example, withToken(token)), 200)
					expect(t, m+" without a token", send(m, address, o.example), 401)
					expect(t, m+" with an endpoint's other token", send(m, address, o.example, withToken(foreign)), 401)
					expect(t, m+" with two tokens", send(m, address, o.example, withToken(token), withToken(token)), 401)
					expect(t, m+" with a grant's header", send(m, address, o.example, "Authorization: "+token), 401)
				}
			})
		}
	})
	t.Run("container", func(t *testing.T) {
		grants := newGrants(t)
		_, token := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self()})
		_, other := addGrant(t, grants, access.GrantSpec{Profiles: []string{"other"}, UID: peer.Self()})
		_, theirs := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "4242"})
		relative, _ := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self(), Relative: true})
		plain, _ := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self()})
		address := containerServer(t, func(c *ContainerConfig) { c.Grants = grants })
		metadataToken := newToken(t, metadataServer(t, nil))
		send := func(method, path string, headers ...string) answer {
			return raw(t, address, method, request(method, path, address, headers...))
		}
		for _, o := range containerOpenings() {
			example := o.example
			if o.access == accessGrantPath {
				example += relative.ID
			}
			for _, m := range append(others, "PUT") {
				expect(t, m+" "+o.pattern, send(m, example, "Authorization: "+token), 405)
			}
			for _, m := range []string{"GET", "HEAD"} {
				expect(t, m+" from a page "+o.pattern, send(m, example, "Authorization: "+token, "Origin: null"), 403)
				if o.access == accessGrantPath {
					expect(t, m+" by path", send(m, example), 200)
					expect(t, m+" by another path", send(m, o.example+strings.Repeat("0", 32), "Authorization: "+token), 401)
					expect(t, m+" by the path of a grant that is not relative", send(m, o.example+plain.ID, "Authorization: "+token), 401)
					continue
				}
				expect(t, m, send(m, example, "Authorization: "+token), 200)
				expect(t, m+" without a token", send(m, example), 401)
				expect(t, m+" with a metadata token", send(m, example, "Authorization: "+metadataToken, withToken(metadataToken)), 401)
				expect(t, m+" with another profile's grant", send(m, example, "Authorization: "+other), 403)
				expect(t, m+" with another user's grant", send(m, example, "Authorization: "+theirs), 403)
			}
		}
	})
}
