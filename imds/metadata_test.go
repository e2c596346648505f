package imds

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyfob/internal/access"
)

// TestToken: the first row of the facts about IMDS.
func TestToken(t *testing.T) {
	t.Parallel()
	address := metadataServer(t, nil)
	a := raw(t, address, "PUT", request("PUT", "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: 21600", "Content-Length: 0"))
	if a.status != 200 || a.header.Get("Content-Type") != "text/plain" || a.header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") != "21600" {
		t.Errorf("answer is %+v", a)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_=/+-]{56}$`).MatchString(a.body) {
		t.Errorf("token is %q", a.body)
	}
	if b := newToken(t, address); b == a.body {
		t.Error("two tokens are the same")
	}

	for ttl, status := range map[string]int{
		"1": 200, "10": 200, "60": 200, "21600": 200, "0060": 200,
		"0": 400, "21601": 400, "-1": 400, "": 400, "abc": 400, "1.5": 400, "+60": 400, "1e3": 400, "000060": 400, "99999999999999999999": 400,
	} {
		a := raw(t, address, "PUT", request("PUT", "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: "+ttl))
		if a.status != status {
			t.Errorf("TTL %q: %d, want %d", ttl, a.status, status)
		}
		if status == 200 && strings.TrimLeft(ttl, "0") != a.header.Get(headerTTL) {
			t.Errorf("TTL %q: told %q", ttl, a.header.Get(headerTTL))
		}
	}
	if a := raw(t, address, "PUT", request("PUT", "/latest/api/token", address)); a.status != 400 {
		t.Errorf("no TTL: %d", a.status)
	}
	if a := raw(t, address, "PUT", request("PUT", "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: 60", "X-aws-ec2-metadata-token-ttl-seconds: 90")); a.status != 400 {
		t.Errorf("two TTLs: %d", a.status)
	}
}

// TestTokenBodies: the ways in which clients frame the empty body.
func TestTokenBodies(t *testing.T) {
	t.Parallel()
	address := metadataServer(t, nil)
	const ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60"
	put := func(headers ...string) string {
		return request("PUT", "/latest/api/token", address, append(headers, ttl)...)
	}
	for name, request := range map[string]string{
		"length 0":    put("Content-Length: 0"),
		"no length":   put(),
		"chunked":     put("Transfer-Encoding: chunked") + "0\r\n\r\n",
		"short":       put("Content-Length: 5") + "hello",
		"HTTP/1.0":    strings.Replace(put(), "HTTP/1.1", "HTTP/1.0", 1),
		"extra slash": strings.Replace(put(), "/latest", "//latest", 1),
	} {
		if a := raw(t, address, "PUT", request); a.status != 200 || len(a.body) != 56 {
			t.Errorf("%s: %+v", name, a)
		}
	}

	// s3fs waits for the 100 before it sends the chunk that ends the body.
	c := dial(t, address)
	defer c.Close()
	if a := c.send(t, "PUT", put("Transfer-Encoding: chunked", "Expect: 100-continue")); a.status != 100 {
		t.Fatalf("no 100 Continue: %+v", a)
	}
	if a := c.send(t, "PUT", "0\r\n\r\n"); a.status != 200 || len(a.body) != 56 {
		t.Errorf("after 100 Continue: %+v", a)
	}

	if a := raw(t, address, "PUT", put("Content-Length: 5000")); a.status != 413 || !a.closed {
		t.Errorf("a large body: %+v", a)
	}
	if a := raw(t, address, "PUT", put("Transfer-Encoding: chunked")+"800\r\n"+strings.Repeat("x", 2048)+"\r\n0\r\n\r\n"); a.status != 413 || !a.closed {
		t.Errorf("a large chunked body: %+v", a)
	}
	if a := raw(t, address, "PUT", put("Transfer-Encoding: chunked")+"zz\r\n"); a.status != 400 || !a.closed {
		t.Errorf("a bad chunk: %+v", a)
	}
}

// TestTree: the other rows of the facts, with latest and dated versions.
func TestTree(t *testing.T) {
	t.Parallel()
	address := metadataServer(t, nil)
	token := newToken(t, address)
	for _, c := range []struct{ path, body string }{
		{"meta-data/iam/security-credentials/", "deploy"},
		{"meta-data/iam/security-credentials", "deploy"},
		{"meta-data/iam/security-credentials-extended/", "deploy"},
		{"meta-data/iam/security-credentials-extended", "deploy"},
		{"meta-data/placement/region", "eu-central-1"},
		{"meta-data/placement/availability-zone", "eu-central-1a"},
		{"meta-data/placement/availability-zone/", "eu-central-1a"},
		{"meta-data/hostname", "laptop.example.net"},
		{"meta-data/local-hostname", "laptop.example.net"},
		{"meta-data/local-ipv4", "10.1.2.3"},
		{"meta-data/instance-type", "t3.micro"},
		{"meta-data/services/domain", "amazonaws.com"},
		{"meta-data/services/partition", "aws"},
		{"", "dynamic/\nmeta-data/"},
		{"dynamic/", "fws/\ninstance-identity/"},
		{"dynamic/fws/instance-monitoring", "disabled"},
		{"dynamic/instance-identity/", "document"},
		{"meta-data/", "ami-id\nami-launch-index\nami-manifest-path\nblock-device-mapping/\nevents/\nhostname\niam/\nidentity-credentials/\n" +
			"instance-action\ninstance-id\ninstance-life-cycle\ninstance-type\nlocal-hostname\nlocal-ipv4\nmac\nmetrics/\nnetwork/\nplacement/\n" +
			"profile\nreservation-id\nsecurity-groups\nservices/\nsystem"},
		{"meta-data/iam/", "info\nsecurity-credentials/"},
		{"meta-data/placement/", "availability-zone\nregion"},
		{"meta-data/services/", "domain\npartition"},
		{"meta-data/identity-credentials/", "ec2/"},
	} {
		for _, version := range []string{"/latest/", "//latest/", "/2021-03-23/", "/1.0/", "/2009-04-04/"} {
			paths := []string{version + c.path}
			if strings.HasSuffix(paths[0], "/") { // a directory is listed without its slash too
				paths = append(paths, strings.TrimSuffix(paths[0], "/"))
			}
			for _, path := range paths {
				a := get(t, address, path, withToken(token))
				if a.status != 200 || a.body != c.body || a.header.Get("Content-Type") != "text/plain" || a.header.Get("Location") != "" {
					t.Errorf("%s: %d %q, want %q", path, a.status, a.body, c.body)
				}
				if a.header.Get("Content-Length") != strconv.Itoa(len(c.body)) {
					t.Errorf("%s: Content-Length is %q", path, a.header.Get("Content-Length"))
				}
				h := raw(t, address, "HEAD", request("HEAD", path, address, withToken(token)))
				if h.status != 200 || h.body != "" || h.header.Get("Content-Length") != strconv.Itoa(len(c.body)) {
					t.Errorf("HEAD %s: %+v", path, h)
				}
			}
		}
	}
	for _, path := range []string{"/", "//", "/?x=y"} {
		a := get(t, address, path, withToken(token))
		lines := strings.Split(a.body, "\n")
		if a.status != 200 || lines[0] != "1.0" || lines[len(lines)-1] != "latest" || len(lines) < 28 || strings.Contains(a.body, "/") {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
	if a := get(t, address, "/latest/meta-data/instance-id?x=1&y=/../", withToken(token)); !regexp.MustCompile(`^i-[0-9a-f]{17}$`).MatchString(a.body) {
		t.Errorf("instance-id: %d %q", a.status, a.body)
	}
	if a := get(t, address, "/latest/meta-data/ami-id", withToken(token)); !regexp.MustCompile(`^ami-[0-9a-f]{17}$`).MatchString(a.body) {
		t.Errorf("ami-id: %d %q", a.status, a.body)
	}

	// Every listed child answers, and everything that is a directory lists.
	var walk func(path string)
	walked := 0
	walk = func(path string) {
		a := get(t, address, path, withToken(token))
		walked++
		if a.status != 200 {
			t.Errorf("listed, but %s is %d", path, a.status)
		}
		if !strings.HasSuffix(path, "/") {
			return
		}
		for _, name := range strings.Split(a.body, "\n") {
			if name == "" {
				t.Errorf("%s lists an empty name", path)
				continue
			}
			walk(path + name)
		}
	}
	walk("/latest/")
	if walked < 20 {
		t.Errorf("the walk found %d paths", walked)
	}
}

// TestNotFound: EC2's page, for whatever is not there.
func TestNotFound(t *testing.T) {
	t.Parallel()
	address := metadataServer(t, nil)
	token := newToken(t, address)
	for _, path := range []string{
		"/latest/meta-data/public-ipv4", "/latest/user-data", "/2021-03-24/meta-data/", "/foo", "/latest/meta-data/placement/availability-zone-id",
		"/latest/meta-data/iam/security-credentials/other", "/latest/meta-data/iam/security-credentials-extended/other",
		"/latest/meta-data/iam/security-credentials/deploy/x", "/latest/api", "/latest/api/",
		"/latest/../latest/meta-data/", "/latest/%2e%2e/latest/meta-data/", "/latest//meta-data/", "///latest/meta-data/", "/latest/meta-data//",
		"/latest/meta-data/./instance-id", "/latest%2Fmeta-data/", "/latest/meta-data%2F", "/latest/meta-data/%00", "/stop", "/debug/pprof/",
	} {
		a := get(t, address, path, withToken(token))
		if a.status != 404 || a.header.Get("Content-Type") != "text/html" || a.header.Get("Location") != "" {
			t.Errorf("%s: %+v", path, a)
		}
		if !strings.Contains(a.body, "<title>404 - Not Found</title>") || !strings.HasPrefix(a.body, "<?xml") {
			t.Errorf("%s: page is %q", path, a.body)
		}
		if b := get(t, address, path); b.status != 401 {
			t.Errorf("%s without a token: %d", path, b.status)
		}
	}
}

// document is EC2's JSON, as clients read it.
type document struct {
	Code, LastUpdated, Type, AccessKeyId, SecretAccessKey, Token, Expiration, AccountId, Message string
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	address := metadataServer(t, func(c *MetadataConfig) { c.Broker = broker })
	token := newToken(t, address)
	a := get(t, address, credentialsPath, withToken(token))
	if a.status != 200 || a.header.Get("Content-Type") != "text/plain" {
		t.Fatalf("answer is %+v", a)
	}
	if left, err := strconv.Atoi(a.header.Get(headerTTL)); err != nil || left < 21590 || left > 21600 {
		t.Errorf("TTL header is %q", a.header.Get(headerTTL))
	}
	s := broker.warm.Load()
	want := "{\n" +
		"  \"Code\" : \"Success\",\n" +
		"  \"LastUpdated\" : \"" + s.Fetched.UTC().Format("2006-01-02T15:04:05Z") + "\",\n" +
		"  \"Type\" : \"AWS-HMAC\",\n" +
		"  \"AccessKeyId\" : \"ASIAEXAMPLEEXAMPLE12\",\n" +
		"  \"SecretAccessKey\" : \"" + canarySecret + "\",\n" +
		"  \"Token\" : \"" + canaryToken + "\",\n" +
		"  \"Expiration\" : \"" + s.Expires.Add(-time.Minute).Format("2006-01-02T15:04:05Z") + "\"\n}"
	if a.body != want {
		t.Errorf("document is\n%s\nwant\n%s", a.body, want)
	}
	for _, path := range []string{
		credentialsPath, "/2019-10-01/meta-data/iam/security-credentials/deploy", "//latest/meta-data/iam/security-credentials/deploy",
		"/latest/meta-data/iam/security-credentials/deplo%79",
	} {
		if b := get(t, address, path, withToken(token)); b.body != want {
			t.Errorf("%s: %d %s", path, b.status, b.body)
		}
	}
	var extended document
	b := get(t, address, "/latest/meta-data/iam/security-credentials-extended/deploy", withToken(token))
	if err := json.Unmarshal([]byte(b.body), &extended); err != nil || extended.AccountId != testAccount || extended.Code != "Success" || extended.SecretAccessKey != canarySecret {
		t.Errorf("extended: %d %+v %v", b.status, extended, err)
	}

	// A refresh shows at once, on a kept connection too.
	c := dial(t, address)
	defer c.Close()
	if a := c.send(t, "GET", request("GET", credentialsPath, address, withToken(token))); a.body != want {
		t.Errorf("kept connection: %+v", a)
	}
	next := *snapshot(2 * time.Hour)
	next.AccessKeyID = "ASIANEXT"
	broker.warm.Store(&next)
	if a := c.send(t, "GET", request("GET", credentialsPath, address, withToken(token))); !strings.Contains(a.body, "ASIANEXT") {
		t.Errorf("after a refresh: %+v", a)
	}
}

// TestExpiration: 60 s of margin while there are 60 s, else the real end.
func TestExpiration(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		name          string
		fetched, ends time.Time
		margin        time.Duration
	}{
		{"fresh", now, now.Add(time.Hour), time.Minute},
		{"nearly over", now.Add(-time.Hour), now.Add(50 * time.Second), 0},
		{"short", now, now.Add(100 * time.Second), 0},
	} {
		broker := newBroker()
		s := *snapshot(0)
		s.Fetched, s.Expires = c.fetched, c.ends
		broker.warm.Store(&s)
		address := metadataServer(t, func(m *MetadataConfig) { m.Broker = broker })
		a := get(t, address, credentialsPath, withToken(newToken(t, address)))
		var d document
		if err := json.Unmarshal([]byte(a.body), &d); err != nil {
			t.Fatal(err)
		}
		if want := c.ends.Add(-c.margin).UTC().Format("2006-01-02T15:04:05Z"); d.Expiration != want {
			t.Errorf("%s: Expiration is %s, want %s", c.name, d.Expiration, want)
		}
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	address := metadataServer(t, nil)
	token := newToken(t, address)
	a := get(t, address, "/latest/dynamic/instance-identity/document", withToken(token))
	var d map[string]any
	if err := json.Unmarshal([]byte(a.body), &d); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	for name, want := range map[string]any{
		"region": "eu-central-1", "accountId": testAccount, "availabilityZone": "eu-central-1a", "instanceType": "t3.micro", "privateIp": "10.1.2.3",
		"version": "2017-09-30", "pendingTime": "2026-11-01T08:00:00Z", "devpayProductCodes": nil, "marketplaceProductCodes": nil, "billingProducts": nil,
	} {
		if got, ok := d[name]; !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{"instanceId", "imageId", "architecture"} {
		if s, _ := d[name].(string); s == "" {
			t.Errorf("%s is %v", name, d[name])
		}
	}
	var info struct{ Code, LastUpdated, InstanceProfileArn, InstanceProfileId string }
	a = get(t, address, "/latest/meta-data/iam/info", withToken(token))
	if err := json.Unmarshal([]byte(a.body), &info); err != nil || info.Code != "Success" || info.InstanceProfileArn != "arn:aws:iam::123456789012:instance-profile/deploy" ||
		!regexp.MustCompile(`^AIPA[A-Z2-7]{17}$`).MatchString(info.InstanceProfileId) {
		t.Errorf("iam/info: %s %v", a.body, err)
	}
	if _, err := time.Parse("2006-01-02T15:04:05Z", info.LastUpdated); err != nil {
		t.Error(err)
	}
	a = get(t, address, "/latest/meta-data/identity-credentials/ec2/info", withToken(token))
	if !strings.Contains(a.body, `"AccountId" : "123456789012"`) {
		t.Errorf("identity-credentials: %s", a.body)
	}
}

// TestAccountUnknown: without a setting the account is that of the
// credentials; without those, info is not there and the document says null.
func TestAccountUnknown(t *testing.T) {
	t.Parallel()
	facts := testFacts("")
	facts.AccountID, facts.Region, facts.LocalIPv4, facts.Hostname = "", "", "", "" // as where the machine has none
	broker := newBroker()
	address := metadataServer(t, func(c *MetadataConfig) {
		c.Broker = broker
		c.Facts = func(string) Facts { return facts }
		c.machine = func() machine { return machine{} }
	})
	token := newToken(t, address)
	for _, path := range []string{"iam/", "identity-credentials/"} { // what is listed answers: crawlers give up otherwise
		if a := get(t, address, "/latest/meta-data/"+path, withToken(token)); strings.Contains(a.body, "info") {
			t.Errorf("%s before the account is known: %q", path, a.body)
		}
	}
	if a := get(t, address, "/latest/meta-data/iam/info", withToken(token)); !strings.Contains(a.body, testAccount) {
		t.Errorf("iam/info: %+v", a)
	}
	s := *snapshot(time.Hour)
	s.AccountID = ""
	broker.warm.Store(&s)
	for _, path := range []string{"iam/info", "identity-credentials/ec2/info", "placement/region", "placement/availability-zone", "placement/", "local-ipv4", "hostname"} {
		if a := get(t, address, "/latest/meta-data/"+path, withToken(token)); a.status != 404 {
			t.Errorf("%s: %+v", path, a)
		}
	}
	a := get(t, address, "/latest/dynamic/instance-identity/document", withToken(token))
	var d map[string]any
	if err := json.Unmarshal([]byte(a.body), &d); err != nil || d["accountId"] != nil || d["region"] != nil {
		t.Errorf("document: %s %v", a.body, err)
	}
	if a := get(t, address, "/latest/meta-data/", withToken(token)); strings.Contains(a.body, "placement") || strings.Contains(a.body, "hostname") {
		t.Errorf("what is not there is listed: %q", a.body)
	}
}

// TestNoRole: an endpoint with no role to serve answers 404.
func TestNoRole(t *testing.T) {
	t.Parallel()
	facts := testFacts("")
	facts.RoleName = ""
	address := metadataServer(t, func(c *MetadataConfig) { c.Facts = func(string) Facts { return facts } })
	token := newToken(t, address)
	for _, path := range []string{"/latest/meta-data/iam/security-credentials/", "/latest/meta-data/iam/security-credentials-extended/", credentialsPath, "/latest/meta-data/iam/info"} {
		if a := get(t, address, path, withToken(token)); a.status != 404 || !strings.Contains(a.body, "404 - Not Found") {
			t.Errorf("%s: %+v", path, a)
		}
	}
}

// TestTokenBinding: a token opens its own endpoint, for its own user, until
// a logout, an expiry or another key.
func TestTokenBinding(t *testing.T) {
	t.Parallel()
	tokens := access.NewTokens([32]byte{1})
	current := tokens
	generation := uint64(7)
	uid := "1000"
	change := func(c *MetadataConfig) {
		c.Tokens = func() *access.Tokens { return current }
		c.Generation = func(string) uint64 { return generation }
	}
	l := listen(t, "127.0.0.1:0")
	address := metadataServer(t, func(c *MetadataConfig) { change(c); c.Listener = l; c.identify = someone(uid) })
	other := metadataServer(t, func(c *MetadataConfig) { change(c); c.identify = someone(uid) })
	stranger := metadataServer(t, func(c *MetadataConfig) { change(c); c.Listen = address; c.identify = someone("1001") })
	same := metadataServer(t, func(c *MetadataConfig) { change(c); c.Listen = address; c.identify = someone(uid) })
	token := newToken(t, address)
	try := func(where string) int { return get(t, where, credentialsPath, withToken(token)).status }

	if got := try(address); got != 200 {
		t.Errorf("own token: %d", got)
	}
	if got := try(same); got != 200 { // as after a restart
		t.Errorf("same endpoint, key, user and generation: %d", got)
	}
	if got := try(other); got != 401 {
		t.Errorf("another endpoint: %d", got)
	}
	if got := try(stranger); got != 401 {
		t.Errorf("another user: %d", got)
	}
	for name, bad := range map[string]string{
		"empty": "", "short": token[:55], "long": token + "A", "changed": token[:20] + flip(token[20]) + token[21:], "changed at the end": token[:55] + flip(token[55]), "constant": strings.Repeat("A", 56),
	} {
		if a := get(t, address, credentialsPath, withToken(bad)); a.status != 401 || !strings.Contains(a.body, "401 - Unauthorized") {
			t.Errorf("%s token: %+v", name, a)
		}
	}
	if a := get(t, address, credentialsPath, withToken(token), withToken(token)); a.status != 401 {
		t.Errorf("two tokens: %d", a.status)
	}
	expired := tokens.Mint(time.Now().Add(-time.Hour), time.Minute, access.Binding{Endpoint: "imds " + address, UID: uid, Generation: generation})
	if a := get(t, address, credentialsPath, withToken(expired)); a.status != 401 {
		t.Errorf("expired token: %d", a.status)
	}

	// What a kept connection remembers of a token is no way around.
	c := dial(t, address)
	defer c.Close()
	kept := func() int {
		return c.send(t, "GET", request("GET", credentialsPath, address, withToken(token))).status
	}
	if got := kept(); got != 200 {
		t.Fatalf("kept connection: %d", got)
	}
	for name, bad := range map[string]string{"changed": flip(token[0]) + token[1:], "shorter": token[:55], "longer": token + "A"} {
		if a := c.send(t, "GET", request("GET", credentialsPath, address, withToken(bad))); a.status != 401 {
			t.Errorf("kept connection with a %s token: %d", name, a.status)
		}
	}
	if got := kept(); got != 200 {
		t.Errorf("kept connection: %d", got)
	}
	generation++
	if got := kept(); got != 401 {
		t.Errorf("kept connection after a logout: %d", got)
	}
	generation--
	if got := kept(); got != 200 {
		t.Errorf("kept connection: %d", got)
	}
	current = access.NewTokens([32]byte{2})
	if got := kept(); got != 401 {
		t.Errorf("kept connection after a change of key: %d", got)
	}
	current = nil
	if got := kept(); got != 401 {
		t.Errorf("kept connection without a key: %d", got)
	}
	if a := raw(t, address, "PUT", request("PUT", "/latest/api/token", address, "X-aws-ec2-metadata-token-ttl-seconds: 60")); a.status != 503 {
		t.Errorf("token without a key: %+v", a)
	}
}

// TestIMDSv1: only by setting, and never with a bad token.
func TestIMDSv1(t *testing.T) {
	t.Parallel()
	v2 := metadataServer(t, nil)
	if a := get(t, v2, credentialsPath); a.status != 401 {
		t.Errorf("no token: %+v", a)
	}
	v1 := metadataServer(t, func(c *MetadataConfig) { c.IMDSv1 = true })
	a := get(t, v1, credentialsPath)
	if a.status != 200 || a.header.Get(headerTTL) != "" {
		t.Errorf("IMDSv1: %+v", a)
	}
	if a := get(t, v1, credentialsPath, withToken("bad")); a.status != 401 {
		t.Errorf("IMDSv1 with a bad token: %d", a.status)
	}
	if a := get(t, v1, credentialsPath, withToken("")); a.status != 401 {
		t.Errorf("IMDSv1 with an empty token: %d", a.status)
	}
	if a := get(t, v1, credentialsPath, withToken(newToken(t, v1))); a.status != 200 || a.header.Get(headerTTL) == "" {
		t.Errorf("IMDSv1 with a token: %+v", a)
	}
}

// TestIPv6: the endpoint's IPv6 form.
func TestIPv6(t *testing.T) {
	t.Parallel()
	l, err := netListen6()
	if err != nil {
		t.Skipf("no IPv6 loopback: %v", err)
	}
	address := metadataServer(t, func(c *MetadataConfig) { c.Listener = l })
	if a := get(t, address, credentialsPath, withToken(newToken(t, address))); a.status != 200 {
		t.Errorf("%+v", a)
	}
}

// flip returns another character of a token.
func flip(c byte) string {
	if c == 'B' {
		return "C"
	}
	return "B"
}
