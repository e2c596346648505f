package imds

import (
	"context"
	"crypto/subtle"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// metadataWait is how long a metadata request waits for credentials: the
// shortest patience among clients is the Go SDK's half second.
const metadataWait = 250 * time.Millisecond

// Token life times that a PUT may ask for, in seconds.
const (
	minTTL = 1
	maxTTL = 21600
)

// MetadataConfig is what a metadata server is made of.
type MetadataConfig struct {
	Listener net.Listener
	Listen   string   // the name of the endpoint in requests, rules and tokens; "" is the listener's address
	Profile  string   // whose credentials it serves
	Hosts    []string // names that Host may have besides the address and localhost
	IMDSv1   bool     // answer requests without a token
	// AllowUnidentified lets callers in whom the kernel would not name; the
	// broker is then asked on behalf of the zero Caller.
	AllowUnidentified bool

	Broker Getter
	// Check judges the caller of every request, credentials or not, before
	// anything else is looked at: (*access.RuleSet).Check of the current
	// rules. nil leaves the judgement to the broker, which is asked for
	// credentials alone. It must be cheap.
	Check func(c peer.Caller, profile string, via cred.Endpoint) error
	// Tokens returns the maker of endpoint tokens, another one after the
	// vault was unlocked. While it returns nil every token is refused.
	Tokens func() *access.Tokens
	// Generation is the profile's: tokens of another one are refused.
	Generation func(profile string) uint64
	// Facts is called for each request and must be cheap.
	Facts func() Facts
	Log   *logrus.Entry

	identify func(net.Conn) (peer.Caller, error) // peer.Resolver.Of; tests put callers here that this machine does not have
}

// metadata is the part of a Server that is EC2's.
type metadata struct {
	*Server
	v1         bool
	tokens     func() *access.Tokens
	generation func(profile string) uint64
	started    time.Time
	endpoint   string          // what tokens are bound to
	ended      context.Context // of those who do not wait

	plain    atomic.Pointer[rendered] // security-credentials
	extended atomic.Pointer[rendered] // the same with AccountId
}

// verified is the last token that a connection showed and that was good.
// Checking it again needs no cryptography, but everything that can have
// changed since is compared.
type verified struct {
	token      string
	expires    time.Time
	maker      *access.Tokens
	generation uint64
}

// NewMetadata makes a server of the EC2 metadata service on cfg.Listener. It
// starts nothing: see Run.
func NewMetadata(cfg MetadataConfig) *Server {
	if cfg.Listen == "" {
		cfg.Listen = cfg.Listener.Addr().String()
	}
	peers := peer.NewResolver()
	if cfg.identify == nil {
		cfg.identify = peers.Of
	}
	s := &Server{
		listener:          cfg.Listener,
		as:                metadataForm,
		via:               cred.Endpoint{Kind: cred.ViaIMDS, Listen: cfg.Listen},
		guard:             newGuard(cfg.Listener.Addr(), cfg.Hosts),
		base:              accessToken,
		wait:              metadataWait,
		broker:            cfg.Broker,
		check:             cfg.Check,
		profile:           cfg.Profile,
		allowUnidentified: cfg.AllowUnidentified,
		peers:             peers,
		identify:          cfg.identify,
		facts:             cfg.Facts,
		conns:             map[*conn]struct{}{},
	}
	s.log = newNotices(cfg.Log, s)
	m := &metadata{Server: s, v1: cfg.IMDSv1, tokens: cfg.Tokens, generation: cfg.Generation, started: time.Now(), endpoint: s.via.Kind + " " + s.via.Listen}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	m.ended = ended
	s.routes = compile(m.table(), true)
	s.authorize = m.authorize
	s.again = m.again
	s.forget = m.forget
	return s
}

// table is every route of the metadata service, sorted by pattern.
func (m *metadata) table() []route {
	const maxBody = 1 << 10 // of a token PUT, whose body means nothing
	get := func(pattern string, value func(*Facts) string) route {
		return route{methods: methodGet, pattern: pattern, access: accessToken, value: value}
	}
	serve := func(pattern string, serve func(*exchange) *fault) route {
		return route{methods: methodGet, pattern: pattern, access: accessToken, serve: serve}
	}
	hidden := func(r route) route { r.hidden = true; return r }

	return []route{
		{methods: methodPut, pattern: "/latest/api/token", access: accessCaller, maxBody: maxBody, serve: m.newToken},
		{methods: methodPut, pattern: "/{date}/api/token", access: accessRefused, maxBody: maxBody},
		serve("/{version}/dynamic/instance-identity/document", m.document),
		get("/{version}/meta-data/ami-id", (*Facts).imageID),
		get("/{version}/meta-data/ami-launch-index", func(*Facts) string { return "0" }),
		get("/{version}/meta-data/hostname", func(f *Facts) string { return f.Hostname }),
		serve("/{version}/meta-data/iam/info", m.info),
		get("/{version}/meta-data/iam/security-credentials", func(f *Facts) string { return f.RoleName }),
		hidden(get("/{version}/meta-data/iam/security-credentials-extended", func(f *Facts) string { return f.RoleName })),
		serve("/{version}/meta-data/iam/security-credentials-extended/{role}", m.extendedCredentials),
		serve("/{version}/meta-data/iam/security-credentials/{role}", m.credentials),
		serve("/{version}/meta-data/identity-credentials/ec2/info", m.identityInfo),
		get("/{version}/meta-data/instance-id", (*Facts).instanceID),
		get("/{version}/meta-data/instance-type", (*Facts).instanceType),
		get("/{version}/meta-data/local-hostname", func(f *Facts) string { return f.Hostname }),
		get("/{version}/meta-data/local-ipv4", func(f *Facts) string { return f.LocalIPv4 }),
		get("/{version}/meta-data/placement/availability-zone", (*Facts).zone),
		get("/{version}/meta-data/placement/availability-zone-id", func(f *Facts) string { return f.ZoneID }),
		get("/{version}/meta-data/placement/region", func(f *Facts) string { return f.Region }),
		get("/{version}/meta-data/services/domain", (*Facts).domain),
		get("/{version}/meta-data/services/partition", (*Facts).partition),
	}
}

// binding is what this connection's tokens are good for.
func (m *metadata) binding(x *exchange) access.Binding {
	return access.Binding{Endpoint: m.endpoint, UID: x.caller.UID, Generation: m.generation(m.profile)}
}

// newToken answers PUT /latest/api/token.
func (m *metadata) newToken(x *exchange) *fault {
	seconds, ok := ttl(x.r.Header[headerTTL])
	if !ok {
		f := badRequest("no TTL, or not one of 1 to 21600 seconds")
		f.close = false
		return f
	}
	maker := m.tokens()
	if maker == nil {
		return unavailable("there are no tokens now", "no token key")
	}
	token := maker.Mint(x.now, time.Duration(seconds)*time.Second, m.binding(x))
	// Clients take the life time from here; without it Go sends no token
	// afterwards and Rust fails.
	x.w.Header()[headerTTL] = m.left(seconds)
	x.text(token)
	return nil
}

// ttl reads the life time that a PUT asks for.
func ttl(values []string) (seconds int, ok bool) {
	if len(values) != 1 || len(values[0]) == 0 || len(values[0]) > 5 {
		return 0, false
	}
	for _, c := range []byte(values[0]) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	seconds, err := strconv.Atoi(values[0])
	return seconds, err == nil && seconds >= minTTL && seconds <= maxTTL
}

// authorize checks the request's token. A request without one passes where
// IMDSv1 is allowed; one with a bad token never does.
func (m *metadata) authorize(x *exchange, need accessKind) *fault {
	if need != accessToken {
		return forbidden("the route is closed")
	}
	values := x.r.Header[headerToken]
	if len(values) == 0 && m.v1 {
		return nil
	}
	if len(values) != 1 || values[0] == "" {
		return unauthorized("no token")
	}
	maker := m.tokens()
	if maker == nil {
		return unauthorized("no token key")
	}
	token, b, last := values[0], m.binding(x), &x.conn.token
	if last.good(maker, b.Generation, x.now) &&
		subtle.ConstantTimeCompare([]byte(last.token), []byte(token)) == 1 {
		x.expiry = last.expires
		return nil
	}
	expires, err := maker.Verify(token, x.now, b)
	if err != nil {
		return unauthorized(err.Error())
	}
	*last = verified{token: token, expires: expires, maker: maker, generation: b.Generation}
	x.expiry = expires
	return nil
}

// good reports whether the token that is remembered is still one.
func (v *verified) good(maker *access.Tokens, generation uint64, now time.Time) bool {
	return v.maker != nil && v.maker == maker && v.generation == generation && now.Before(v.expires)
}

func (m *metadata) credentials(x *exchange) *fault { return m.serveCredentials(x, &m.plain, false) }
func (m *metadata) extendedCredentials(x *exchange) *fault {
	return m.serveCredentials(x, &m.extended, true)
}

func (m *metadata) serveCredentials(x *exchange, kept *atomic.Pointer[rendered], withAccount bool) *fault {
	facts := m.facts()
	if x.param != facts.RoleName {
		return x.unknown()
	}
	snapshot, f := x.get(m.profile)
	if f != nil {
		m.forget() // what is not served any more is not kept
		return f
	}
	advertised := snapshot.AdvertisedExpiry(x.now)
	body := kept.Load()
	if !body.fits(snapshot, advertised) {
		account := ""
		if withAccount {
			account = accountOf(&facts, snapshot)
		}
		body = render(snapshot, advertised, metadataBody(snapshot, advertised, account))
		kept.Store(body)
	}
	if repeatable(x.r) {
		x.kept = kept
	}
	x.head(http.StatusOK, textPlain)
	x.w.Header()[headerLength] = body.length
	_, _ = x.w.Write(body.body)
	return nil
}

// again judges once more a request for credentials that this connection has
// just made: all that may have changed since, which is the rules, the token,
// the role's name and the credentials. It returns the body and when the token
// ends (zero where there was none); a nil body means that the request has to
// be judged in full. It waits for nothing.
func (m *metadata) again(c *conn, now time.Time) (*rendered, time.Time) {
	if m.judge(c.caller) != nil {
		return nil, time.Time{}
	}
	var expires time.Time
	if !c.x.expiry.IsZero() { // of the request before
		if !c.token.good(m.tokens(), m.generation(m.profile), now) {
			return nil, time.Time{}
		}
		expires = c.token.expires
	}
	if facts := m.facts(); facts.RoleName != c.param {
		return nil, time.Time{}
	}
	snapshot, err := m.broker.Get(m.ended, cred.Request{Caller: c.caller, Profile: m.profile, Via: m.via})
	if err != nil || snapshot == nil || !snapshot.Temporary() {
		return nil, time.Time{}
	}
	body := c.x.kept.Load()
	if !body.fits(snapshot, snapshot.AdvertisedExpiry(now)) {
		return nil, time.Time{}
	}
	return body, expires
}

// forget drops the bodies that hold secrets.
func (m *metadata) forget() {
	m.plain.Store(nil)
	m.extended.Store(nil)
}

func accountOf(f *Facts, s *cred.Snapshot) string {
	if s.AccountID != "" {
		return s.AccountID
	}
	return f.AccountID
}

// account is the account's id, asked of the credentials where no setting
// tells it; "" when it can't be known now.
func (m *metadata) account(x *exchange, f *Facts) (string, *fault) {
	if f.AccountID != "" {
		return f.AccountID, nil
	}
	snapshot, fault := x.get(m.profile)
	if fault != nil {
		return "", fault
	}
	return snapshot.AccountID, nil
}

// info answers iam/info, which Terraform reads for the account.
func (m *metadata) info(x *exchange) *fault {
	facts := m.facts()
	if facts.RoleName == "" {
		return x.unknown()
	}
	account, f := m.account(x, &facts)
	switch {
	case f != nil:
		return f
	case account == "":
		return x.unknown()
	}
	return x.json([]member{
		{"Code", "Success"},
		{"LastUpdated", stamp(m.started)},
		{"InstanceProfileArn", "arn:" + facts.partition() + ":iam::" + account + ":instance-profile/" + facts.RoleName},
		{"InstanceProfileId", facts.instanceProfileID(account)},
	})
}

// identityInfo answers identity-credentials/ec2/info.
func (m *metadata) identityInfo(x *exchange) *fault {
	facts := m.facts()
	account, f := m.account(x, &facts)
	switch {
	case f != nil:
		return f
	case account == "":
		return x.unknown()
	}
	return x.json([]member{{"Code", "Success"}, {"LastUpdated", stamp(m.started)}, {"AccountId", account}})
}

// document answers the instance identity document. It is not signed: there
// is no signature of AWS's to be had.
func (m *metadata) document(x *exchange) *fault {
	facts := m.facts()
	account, f := m.account(x, &facts)
	if f != nil {
		account = "" // the rest is worth an answer
	}
	pending := facts.PendingTime
	if pending.IsZero() {
		pending = m.started
	}
	return x.json([]member{
		{"accountId", account},
		{"architecture", facts.architecture()},
		{"availabilityZone", facts.zone()},
		{"billingProducts", ""},
		{"devpayProductCodes", ""},
		{"marketplaceProductCodes", ""},
		{"imageId", facts.imageID()},
		{"instanceId", facts.instanceID()},
		{"instanceType", facts.instanceType()},
		{"kernelId", ""},
		{"pendingTime", stamp(pending)},
		{"privateIp", facts.LocalIPv4},
		{"ramdiskId", ""},
		{"region", facts.Region},
		{"version", "2017-09-30"},
	})
}

// member is one member of a JSON object; an empty value is null.
type member struct{ name, value string }

// json answers 200 with an object, spaced as EC2 spaces it.
func (x *exchange) json(members []member) *fault {
	b := []byte("{\n")
	for i, m := range members {
		if i > 0 {
			b = append(b, ",\n"...)
		}
		b = append(b, "  "...)
		b = appendString(b, m.name)
		b = append(b, " : "...)
		if m.value == "" {
			b = append(b, "null"...)
		} else {
			b = appendString(b, m.value)
		}
	}
	x.text(string(append(b, "\n}"...)))
	return nil
}
