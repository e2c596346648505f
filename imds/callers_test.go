package imds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// recorder keeps what was recorded.
type recorder struct {
	mu     sync.Mutex // guards events
	events []cred.Event
}

func (r *recorder) Record(e cred.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// take returns what was recorded since it was asked last.
func (r *recorder) take() []cred.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.events = nil }()
	return r.events
}

// perUser answers each profile with credentials of its own.
type perUser struct {
	mu   sync.Mutex // guards warm and asked
	warm map[string]*cred.Snapshot
	last cred.Request
}

func (b *perUser) Get(_ context.Context, r cred.Request) (*cred.Snapshot, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = r
	if s := b.warm[r.Profile]; s != nil {
		return s, nil
	}
	return nil, cred.ErrDenied
}

// TestProfileOf: two users ask one address and get their own roles, facts and
// tokens; one who has no profile gets nothing.
func TestProfileOf(t *testing.T) {
	t.Parallel()
	alice, bob := snapshot(time.Hour), snapshot(time.Hour)
	alice.AccessKeyID, bob.AccessKeyID, bob.AccountID = "ASIAALICE", "ASIABOB", "210987654321"
	broker := &perUser{warm: map[string]*cred.Snapshot{"a": alice, "b": bob}}
	var who atomic.Pointer[string]
	var moved atomic.Bool
	as := func(uid string) { who.Store(&uid) }
	generation := map[string]*atomic.Uint64{"a": {}, "b": {}}
	policy := cred.SessionPolicy{ARNs: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}}.Encode()
	audit := &recorder{}
	var judged atomic.Pointer[string]
	address := metadataServer(t, func(c *MetadataConfig) {
		c.Profile, c.Broker, c.Policy, c.Audit = "nobody's", broker, policy, audit
		c.identify = func(net.Conn) (peer.Caller, error) { return peer.Caller{UID: *who.Load(), PID: 1, Via: "tcp"}, nil }
		c.ProfileOf = func(c peer.Caller) string {
			switch {
			case c.UID == "1000" && moved.Load():
				return "b"
			case c.UID == "1000":
				return "a"
			case c.UID == "1001":
				return "b"
			}
			return ""
		}
		c.Check = func(_ peer.Caller, profile string, _ cred.Endpoint) error { judged.Store(&profile); return nil }
		c.Generation = func(profile string) uint64 { return generation[profile].Load() }
		c.Facts = func(profile string) Facts {
			f := testFacts("")
			f.RoleName, f.Region, f.AccountID = "role-"+profile, "eu-"+profile+"-1", ""
			return f
		}
	})
	tokens := map[string]string{}
	for uid, profile := range map[string]string{"1000": "a", "1001": "b"} {
		as(uid)
		tokens[uid] = newToken(t, address)
		header := withToken(tokens[uid])
		if a := get(t, address, "/latest/meta-data/iam/security-credentials/", header); a.body != "role-"+profile {
			t.Errorf("%s lists %q", uid, a.body)
		}
		if a := get(t, address, "/latest/meta-data/placement/region", header); a.body != "eu-"+profile+"-1" {
			t.Errorf("%s is in %q", uid, a.body)
		}
		want := broker.warm[profile]
		for _, path := range []string{"security-credentials/", "security-credentials-extended/"} {
			if a := get(t, address, "/latest/meta-data/iam/"+path+"role-"+profile, header); a.status != 200 || !strings.Contains(a.body, want.AccessKeyID) {
				t.Errorf("%s got %d %.200s", uid, a.status, a.body)
			}
		}
		if *judged.Load() != profile || broker.last.Profile != profile || broker.last.Policy != policy || broker.last.Caller.UID != uid {
			t.Errorf("%s: judged for %s, asked for %+v", uid, *judged.Load(), broker.last)
		}
		if a := get(t, address, "/latest/dynamic/instance-identity/document", header); !strings.Contains(a.body, want.AccountID) {
			t.Errorf("%s: document is %s", uid, a.body)
		}
		other := map[string]string{"a": "b", "b": "a"}[profile]
		if a := get(t, address, "/latest/meta-data/iam/security-credentials/role-"+other, header); a.status != 404 {
			t.Errorf("%s asks for the other's role: %d", uid, a.status)
		}
	}
	as("1001")
	if a := get(t, address, "/latest/meta-data/instance-id", withToken(tokens["1000"])); a.status != 401 {
		t.Errorf("the other's token: %d", a.status)
	}
	generation["a"].Add(1) // a logout of a
	if a := get(t, address, "/latest/meta-data/instance-id", withToken(tokens["1001"])); a.status != 200 {
		t.Errorf("b's token after a logout of a: %d", a.status)
	}
	as("1000")
	if a := get(t, address, "/latest/meta-data/instance-id", withToken(tokens["1000"])); a.status != 401 {
		t.Errorf("a's token after a logout of a: %d", a.status)
	}
	as("1002")
	for _, r := range []string{request("PUT", "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: 60"), request("GET", "/latest/meta-data/", address, withToken(tokens["1001"]))} {
		if a := raw(t, address, "GET", r); a.status != 403 {
			t.Errorf("a user without a profile: %d", a.status)
		}
	}

	// A kept connection that repeats itself is not served what its user had.
	as("1000")
	c := dial(t, address)
	defer c.Close()
	put := c.send(t, "PUT", request("PUT", "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: 60"))
	again := request("GET", "/latest/meta-data/iam/security-credentials/role-a", address, withToken(put.body))
	audit.take()
	for range 3 {
		if a := c.send(t, "GET", again); !strings.Contains(a.body, "ASIAALICE") {
			t.Errorf("kept: %d %.100s", a.status, a.body)
		}
	}
	moved.Store(true)
	if a := c.send(t, "GET", again); strings.Contains(a.body, "ASIAALICE") || a.status == 200 {
		t.Errorf("after its user was given another profile: %d %.100s", a.status, a.body)
	}
	handouts := 0
	for _, e := range audit.take() {
		if e.Kind != cred.EventHandOut {
			continue
		}
		if handouts++; e.Profile != "a" || e.AccessKeyID != "ASIAALICE" {
			t.Errorf("recorded %+v", e)
		}
	}
	if handouts != 3 {
		t.Errorf("%d hand-outs are recorded, want 3", handouts)
	}
}

// TestAuditMetadata: every hand-out, repeated ones too, and every refusal; no
// secret.
func TestAuditMetadata(t *testing.T) {
	t.Parallel()
	audit, broker := &recorder{}, newBroker()
	var deny atomic.Bool
	address := metadataServer(t, func(c *MetadataConfig) {
		c.Audit, c.Broker, c.identify = audit, broker, someone("1000")
		c.Check = func(peer.Caller, string, cred.Endpoint) error {
			if deny.Load() {
				return &access.Denied{Reason: "not among allow_users"}
			}
			return nil
		}
	})
	token := newToken(t, address)
	get(t, address, "/latest/meta-data/", withToken(token))
	get(t, address, "/latest/meta-data/nothing", withToken(token))
	get(t, address, "/latest/dynamic/instance-identity/document", withToken(token))
	raw(t, address, "HEAD", request("HEAD", credentialsPath, address, withToken(token)))
	if events := audit.take(); len(events) != 0 {
		t.Errorf("recorded, and nothing was given: %+v", events)
	}
	c := dial(t, address)
	defer c.Close()
	for range 5 { // some of these are answered without net/http
		if a := c.send(t, "GET", request("GET", credentialsPath, address, withToken(token))); a.status != 200 {
			t.Fatal(a.status)
		}
	}
	get(t, address, "/latest/meta-data/iam/security-credentials-extended/deploy", withToken(token))
	events := audit.take()
	if len(events) != 6 {
		t.Errorf("%d hand-outs are recorded, want 6", len(events))
	}
	s := broker.warm.Load()
	for _, e := range events {
		if e.Kind != cred.EventHandOut || e.Profile != "dev" || e.Via != (cred.Endpoint{Kind: cred.ViaIMDS, Listen: address}) || e.Caller.UID != "1000" ||
			e.AccessKeyID != s.AccessKeyID || e.AccountID != testAccount || !e.Expires.Equal(s.AdvertisedExpiry(time.Now())) || e.Time.IsZero() || e.Reason != "" {
			t.Errorf("recorded %+v", e)
		}
	}
	refused := func(what, reason, profile string) {
		t.Helper()
		events := audit.take()
		if len(events) != 1 || events[0].Kind != cred.EventRefusal || !strings.Contains(events[0].Reason, reason) || events[0].Profile != profile ||
			events[0].Caller.UID != "1000" || events[0].AccessKeyID != "" {
			t.Errorf("%s: recorded %+v", what, events)
		}
		noSecret(t, what, fmt.Sprintf("%+v", events))
	}
	get(t, address, credentialsPath)
	refused("no token", "no token", "dev")
	get(t, address, credentialsPath, withToken(flip(token[0])+token[1:]))
	refused("a bad token", "token", "dev")
	get(t, address, credentialsPath, withToken(token), "Origin: http://evil.example")
	refused("a page", "Origin", "")
	raw(t, address, "GET", request("GET", credentialsPath, "evil.example", withToken(token)))
	refused("another Host", "Host", "")
	deny.Store(true)
	get(t, address, credentialsPath, withToken(token))
	refused("the rules", "allow_users", "dev")
	deny.Store(false)
	broker.get = func(context.Context, cred.Request) (*cred.Snapshot, error) {
		return nil, &cred.UpstreamError{Op: "AssumeRole", Refused: true, Message: "AWS refused the role"}
	}
	if a := get(t, address, credentialsPath, withToken(token)); a.status != 200 || !strings.Contains(a.body, refusedCode) {
		t.Fatalf("%+v", a)
	}
	refused("AWS", "AWS refused the role", "dev")
	broker.get = func(context.Context, cred.Request) (*cred.Snapshot, error) { return nil, errors.New("not now") }
	get(t, address, credentialsPath, withToken(token))
	if events := audit.take(); len(events) != 0 {
		t.Errorf("a failure is recorded as a refusal: %+v", events)
	}
}

// TestAuditContainer: likewise, with the grant; the grant's policy goes to
// the broker.
func TestAuditContainer(t *testing.T) {
	t.Parallel()
	audit, grants := &recorder{}, newGrants(t)
	policy := cred.SessionPolicy{Inline: `{"Version":"2012-10-17"}`}.Encode()
	grant, token := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "1000", Policy: policy})
	relative, _ := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: "1000", Relative: true})
	broker := newBroker()
	var policies []string
	var mu sync.Mutex // guards policies
	broker.get = func(_ context.Context, r cred.Request) (*cred.Snapshot, error) {
		mu.Lock()
		defer mu.Unlock()
		policies = append(policies, r.Policy)
		return broker.warm.Load(), nil
	}
	address := containerServer(t, func(c *ContainerConfig) {
		c.Audit, c.Grants, c.Broker, c.identify = audit, grants, broker, someone("1000")
	})
	get(t, address, "/v1/credentials/dev", authorization(token))
	get(t, address, "/v2/credentials/"+relative.ID)
	get(t, address, "/v1/credentials/other", authorization(token))
	get(t, address, "/v1/credentials/dev", authorization(flip(token[0])+token[1:]))
	get(t, address, "/v2/credentials/"+strings.Repeat("0", 32))
	var got []string
	for _, e := range audit.take() {
		got = append(got, strings.Join([]string{e.Kind, e.Profile, e.Grant, e.AccessKeyID, e.Via.Kind, e.Caller.UID}, " "))
		if text := fmt.Sprintf("%+v", e); strings.Contains(text, token) || strings.Contains(text, "canary") {
			t.Errorf("recorded a secret: %s", text)
		}
	}
	want := []string{
		"handout dev " + grant.ID + " ASIAEXAMPLEEXAMPLE12 container 1000",
		"handout dev " + relative.ID[:8] + "… ASIAEXAMPLEEXAMPLE12 container 1000",
		"refusal other " + grant.ID + "  container 1000",
		"refusal    container 1000",
		"refusal    container 1000",
	}
	if !slices.Equal(got, want) {
		t.Errorf("recorded\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !slices.Equal(policies, []string{policy, ""}) {
		t.Errorf("the broker was asked with the policies %q", policies)
	}
}
