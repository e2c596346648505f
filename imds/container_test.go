package imds

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// memoryStore is a cred.Store in memory.
type memoryStore struct {
	mu sync.Mutex // guards m
	m  map[string]cred.Secret
}

func (s *memoryStore) Get(_ context.Context, name string) (cred.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.m[name]
	if !ok {
		return cred.Secret{}, cred.ErrNotFound
	}
	return v, nil
}

func (s *memoryStore) Put(_ context.Context, name string, v cred.Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string]cred.Secret{}
	}
	s.m[name] = v
	return nil
}

func (s *memoryStore) Delete(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.m[name]; !ok {
		return cred.ErrNotFound
	}
	delete(s.m, name)
	return nil
}

func (s *memoryStore) List(_ context.Context, prefix string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for n := range s.m {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names, nil
}

// grants returns real grants that live in a temporary directory.
func newGrants(t testing.TB) *access.Grants {
	t.Helper()
	return access.OpenGrants(&memoryStore{}, t.TempDir())
}

func addGrant(t testing.TB, g *access.Grants, spec access.GrantSpec) (*access.Grant, string) {
	t.Helper()
	grant, token, err := g.Add(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return grant, token.Reveal()
}

func containerServer(t testing.TB, change func(*ContainerConfig)) string {
	t.Helper()
	cfg := ContainerConfig{Listener: listen(t, "127.0.0.1:0"), Broker: newBroker()}
	change(&cfg)
	return start(t, NewContainer(cfg))
}

func authorization(token string) string { return "Authorization: " + token }

func TestContainer(t *testing.T) {
	t.Parallel()
	grants := newGrants(t)
	broker := newBroker()
	self := peer.Self()
	grant, token := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev", "my profile"}, UID: self})
	var asked cred.Request
	broker.get = func(_ context.Context, r cred.Request) (*cred.Snapshot, error) {
		asked = r
		return broker.warm.Load(), nil
	}
	address := containerServer(t, func(c *ContainerConfig) { c.Grants = grants; c.Broker = broker })
	a := get(t, address, "/v1/credentials/dev", authorization(token))
	if a.status != 200 || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("answer is %+v", a)
	}
	s := broker.warm.Load()
	want := `{"RoleArn":"` + testRoleARN + `","AccessKeyId":"ASIAEXAMPLEEXAMPLE12","SecretAccessKey":"` + canarySecret + `","Token":"` + canaryToken +
		`","AccountId":"123456789012","Expiration":"` + s.Expires.Add(-time.Minute).Format("2006-01-02T15:04:05Z") + `"}`
	if a.body != want {
		t.Errorf("body is\n%s\nwant\n%s", a.body, want)
	}
	if len(a.body) > 10000 {
		t.Errorf("%d bytes are too many for the CRT", len(a.body))
	}
	if asked.Profile != "dev" || asked.Grant != grant.ID || asked.Via.Kind != cred.ViaContainer || asked.Via.Listen != address || asked.Caller.UID != self || asked.MayAsk || asked.Implicit {
		t.Errorf("asked the broker for %+v", asked)
	}
	for _, path := range []string{"/v1/credentials/dev?x=y", "//v1/credentials/dev", "/v1/credentials/my%20profile", "/v1/credentials/%64ev"} {
		if a := get(t, address, path, authorization(token)); a.status != 200 {
			t.Errorf("%s: %+v", path, a)
		}
	}
	if a := raw(t, address, "HEAD", request("HEAD", "/v1/credentials/dev", address, authorization(token))); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %+v", a)
	}
	if err := grants.Remove(context.Background(), grant.ID); err != nil {
		t.Fatal(err)
	}
	if a := get(t, address, "/v1/credentials/dev", authorization(token)); a.status != 401 {
		t.Errorf("revoked: %+v", a)
	}
}

func TestContainerRefuses(t *testing.T) {
	t.Parallel()
	grants := newGrants(t)
	self := peer.Self()
	_, token := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev", "gone"}, UID: self})
	_, short := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: self, Expires: time.Now().Add(time.Hour)})
	_, theirs := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "4242"})
	_, anybody := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "4242", AnyUser: true})
	ordinary, _ := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: self})
	relative, relativeToken := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: self, Relative: true})
	theirRelative, _ := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "4242", Relative: true})
	broker := newBroker()
	broker.get = func(_ context.Context, r cred.Request) (*cred.Snapshot, error) {
		if r.Profile == "gone" {
			return nil, cred.ErrUnknownProfile
		}
		return broker.warm.Load(), nil
	}
	log, lines := newLog(t)
	address := containerServer(t, func(c *ContainerConfig) { c.Grants = grants; c.Broker = broker; c.Log = log })
	none := containerServer(t, func(c *ContainerConfig) {})

	for _, c := range []struct {
		name, address, path string
		headers             []string
		status              int
		code                string
	}{
		{"own", address, "/v1/credentials/dev", []string{authorization(token)}, 200, ""},
		{"with an expiry", address, "/v1/credentials/dev", []string{authorization(short)}, 200, ""},
		{"anybody's", address, "/v1/credentials/dev", []string{authorization(anybody)}, 200, ""},
		{"relative", address, "/v2/credentials/" + relative.ID, nil, 200, ""},
		{"relative with its token", address, "/v1/credentials/dev", []string{authorization(relativeToken)}, 200, ""},
		{"relative with a stray header", address, "/v2/credentials/" + relative.ID, []string{authorization("x")}, 200, ""},

		{"no token", address, "/v1/credentials/dev", nil, 401, "Unauthorized"},
		{"empty token", address, "/v1/credentials/dev", []string{"Authorization:"}, 401, "Unauthorized"},
		{"wrong token", address, "/v1/credentials/dev", []string{authorization(flip(token[0]) + token[1:])}, 401, "Unauthorized"},
		{"shorter token", address, "/v1/credentials/dev", []string{authorization(token[:len(token)-1])}, 401, "Unauthorized"},
		{"two tokens", address, "/v1/credentials/dev", []string{authorization(token), authorization(token)}, 401, "Unauthorized"},
		{"Bearer", address, "/v1/credentials/dev", []string{authorization("Bearer " + token)}, 401, "Unauthorized"},
		{"the id as token", address, "/v1/credentials/dev", []string{authorization(relative.ID)}, 401, "Unauthorized"},
		{"no grants", none, "/v1/credentials/dev", []string{authorization(token)}, 401, "Unauthorized"},
		{"ordinary grant by path", address, "/v2/credentials/" + ordinary.ID, nil, 401, "Unauthorized"},
		{"unknown id", address, "/v2/credentials/00000000000000000000000000000000", nil, 401, "Unauthorized"},
		{"token as id", address, "/v2/credentials/" + token, nil, 401, "Unauthorized"},

		{"other profile", address, "/v1/credentials/prod", []string{authorization(token)}, 403, "AccessDenied"},
		{"unknown profile", address, "/v1/credentials/gone", []string{authorization(token)}, 403, "AccessDenied"},
		{"case", address, "/v1/credentials/Dev", []string{authorization(token)}, 403, "AccessDenied"},
		{"another user's", address, "/v1/credentials/dev", []string{authorization(theirs)}, 403, "AccessDenied"},
		{"another user's relative", address, "/v2/credentials/" + theirRelative.ID, nil, 403, "AccessDenied"},

		{"nothing there", address, "/v1/nope", []string{authorization(token)}, 404, "NotFound"},
		{"root", address, "/", []string{authorization(token)}, 404, "NotFound"},
		{"no listing", address, "/v1/credentials/", []string{authorization(token)}, 404, "NotFound"},
		{"slash at the end", address, "/v1/credentials/dev/", []string{authorization(token)}, 404, "NotFound"},
		{"dots", address, "/v1/credentials/x/../dev", []string{authorization(token)}, 404, "NotFound"},
		{"metadata", address, "/latest/meta-data/", []string{authorization(token)}, 404, "NotFound"},
		{"nothing there, no token", address, "/nope", nil, 401, "Unauthorized"},

		{"Origin", address, "/v1/credentials/dev", []string{authorization(token), "Origin: http://x"}, 403, "AccessDenied"},
		{"proxied", address, "/v1/credentials/dev", []string{authorization(token), "X-Forwarded-For: 1.2.3.4"}, 403, "AccessDenied"},
		{"body", address, "/v1/credentials/dev", []string{authorization(token), "Content-Length: 2"}, 400, "BadRequest"},
	} {
		a := get(t, c.address, c.path, c.headers...)
		if a.status != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, a.status, a.body, c.status)
			continue
		}
		if types := a.header["Content-Type"]; len(types) != 1 || types[0] != "application/json" {
			t.Errorf("%s: Content-Type is %q", c.name, types)
		}
		if c.status == 200 {
			continue
		}
		noSecret(t, c.name, a.body)
		var e struct{ Code, Message string }
		if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Code != c.code || e.Message == "" {
			t.Errorf("%s: body is %s", c.name, a.body)
		}
	}
	for _, method := range []string{"PUT", "POST", "DELETE", "PATCH", "OPTIONS"} {
		a := raw(t, address, method, request(method, "/v1/credentials/dev", address, authorization(token)))
		if a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %+v", method, a)
		}
	}
	if a := raw(t, address, "GET", request("GET", "/v1/credentials/dev", "evil.example", authorization(token))); a.status != 403 {
		t.Errorf("foreign Host: %+v", a)
	}
	for _, path := range []string{"/v2/credentials/" + relative.ID + "/", "/v2/credentials/" + relative.ID + "/x"} {
		if a := get(t, address, path, authorization(token)); a.status != 404 {
			t.Errorf("%s: %+v", path, a)
		}
	}
	text := lines.String()
	noSecret(t, "the log", text)
	for _, secret := range []string{token, theirs, anybody, relative.ID, theirRelative.ID, ordinary.ID} {
		if strings.Contains(text, secret) {
			t.Errorf("the log holds the token or id %s", secret)
		}
	}
}

// TestContainerExpired: a grant ends by the clock.
func TestContainerExpired(t *testing.T) {
	t.Parallel()
	grants := newGrants(t)
	_, token := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self(), Expires: time.Now().Add(50 * time.Millisecond)})
	address := containerServer(t, func(c *ContainerConfig) { c.Grants = grants })
	for range 400 {
		if get(t, address, "/v1/credentials/dev", authorization(token)).status == 401 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("an expired grant still opens")
}

// TestContainerUnidentified: nobody gets nothing; with allow_unidentified
// they may use anybody's grants by token, and nothing by path alone.
func TestContainerUnidentified(t *testing.T) {
	t.Parallel()
	grants := newGrants(t)
	_, own := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self()})
	_, anybody := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self(), AnyUser: true})
	relative, _ := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self(), AnyUser: true, Relative: true})
	closed := containerServer(t, func(c *ContainerConfig) { c.Grants = grants; c.identify = nobody })
	open := containerServer(t, func(c *ContainerConfig) { c.Grants = grants; c.identify = nobody; c.AllowUnidentified = true })
	for _, c := range []struct {
		name, address, path, token string
		status                     int
	}{
		{"closed", closed, "/v1/credentials/dev", anybody, 403},
		{"closed by path", closed, "/v2/credentials/" + relative.ID, "", 403},
		{"anybody's", open, "/v1/credentials/dev", anybody, 200},
		{"own", open, "/v1/credentials/dev", own, 403},
		{"by path", open, "/v2/credentials/" + relative.ID, "", 403},
		{"no token", open, "/v1/credentials/dev", "", 401},
	} {
		var headers []string
		if c.token != "" {
			headers = append(headers, authorization(c.token))
		}
		if a := get(t, c.address, c.path, headers...); a.status != c.status {
			t.Errorf("%s: %+v, want %d", c.name, a, c.status)
		}
	}
}

// TestContainerRules: the rules for grants are asked, with the grant.
func TestContainerRules(t *testing.T) {
	t.Parallel()
	grants := newGrants(t)
	_, anybody := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "4242", AnyUser: true})
	var rules *access.RuleSet
	l := listen(t, "127.0.0.1:0")
	address := containerServer(t, func(c *ContainerConfig) {
		c.Listener.Close()
		c.Listener, c.Grants = l, grants
		c.identify = someone("1234")
		c.Check = func(p peer.Caller, g *access.Grant, profile string, via cred.Endpoint) error {
			return rules.CheckGrant(p, g, profile, via)
		}
	})
	for name, c := range map[string]struct {
		allow  []string
		status int
	}{"default": {nil, 200}, "allowed": {[]string{"1234"}, 200}, "not allowed": {[]string{"1"}, 403}} {
		var err error
		rules, err = access.NewRules(access.RulesConfig{Owner: "0", Endpoints: []access.EndpointRule{{Kind: cred.ViaContainer, Listen: address, AllowUsers: c.allow}}})
		if err != nil {
			t.Fatal(err)
		}
		if a := get(t, address, "/v1/credentials/dev", authorization(anybody)); a.status != c.status {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// TestContainerRole: the role of the profile, else of the credentials, else
// an empty string.
func TestContainerRole(t *testing.T) {
	t.Parallel()
	grants := newGrants(t)
	_, token := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev", "keys"}, UID: peer.Self()})
	broker := newBroker()
	s := *snapshot(time.Hour)
	s.RoleARN, s.AccountID = "", ""
	s.SessionToken = cred.NewSecret("odd\"token\\ \x01é")
	broker.warm.Store(&s)
	address := containerServer(t, func(c *ContainerConfig) {
		c.Grants, c.Broker = grants, broker
		c.RoleARN = func(profile string) string {
			if profile == "dev" {
				return "arn:aws:iam::1:role/dev"
			}
			return ""
		}
	})
	for profile, want := range map[string]string{"dev": "arn:aws:iam::1:role/dev", "keys": ""} {
		a := get(t, address, "/v1/credentials/"+profile, authorization(token))
		var d map[string]string
		if err := json.Unmarshal([]byte(a.body), &d); err != nil {
			t.Fatal(err)
		}
		role, ok := d["RoleArn"]
		_, account := d["AccountId"]
		if role != want || !ok || account || d["Token"] != s.SessionToken.Reveal() {
			t.Errorf("%s: %v", profile, d)
		}
	}
}

// TestContainerWait: container callers wait 30 s.
func TestContainerWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		grants := newGrants(t)
		_, token := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "1000"})
		broker := newBroker()
		delay := 20 * time.Second
		broker.get = func(ctx context.Context, r cred.Request) (*cred.Snapshot, error) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(delay):
				return snapshot(time.Hour), nil
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- NewContainer(ContainerConfig{Listener: l, Broker: broker, Grants: grants, identify: someone("1000")}).Run(ctx)
		}()
		c := l.dial(t)
		for _, w := range []struct {
			delay, took time.Duration
			status      int
		}{{20 * time.Second, 20 * time.Second, http.StatusOK}, {time.Minute, 30 * time.Second, http.StatusServiceUnavailable}} {
			delay = w.delay
			began := time.Now()
			a := c.send(t, "GET", request("GET", "/v1/credentials/dev", pipeAddress, authorization(token)))
			if took := time.Since(began); a.status != w.status || took != w.took {
				t.Errorf("%d after %v, want %d after %v", a.status, took, w.status, w.took)
			}
		}
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
