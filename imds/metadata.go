package imds

import (
	"context"
	"crypto/subtle"
	"maps"
	"net"
	"net/http"
	"strconv"
	"sync"
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
	Listen   string // the name of the endpoint in requests, rules and tokens; "" is the listener's address
	Profile  string // whose credentials it serves
	// ProfileOf names the profile of a caller, "" for none: that caller is
	// denied. nil is Profile for everybody. It must be cheap.
	ProfileOf func(c peer.Caller) string
	Policy    string   // session policy of what is handed out, by cred.SessionPolicy.Encode; "" for none
	Hosts     []string // names that Host may have besides the address and localhost
	IMDSv1    bool     // answer requests without a token
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
	// Facts tells of a profile's instance. It is called for each request and
	// must be cheap.
	Facts func(profile string) Facts
	// Audit is told of every hand-out and refusal; nil for nobody.
	Audit cred.Recorder
	// Expect is told of the caller who is given a token, once for each program
	// that runs: it will ask for credentials next, and may have ended by the
	// time that these are recorded. Nil for nobody. It must not block.
	Expect func(peer.Caller)
	// Limits bounds the connections, of all servers that are given the same;
	// nil is NewLimits.
	Limits *Limits
	Log    *logrus.Entry

	identify func(net.Conn) (peer.Caller, error) // peer.Resolver.Of; tests put callers here that this machine does not have
	machine  func() machine                      // nil: readMachine
}

// metadata is the part of a Server that is EC2's.
type metadata struct {
	*Server
	tokens     func() *access.Tokens
	generation func(profile string) uint64
	started    time.Time
	endpoint   string          // what tokens are bound to
	ended      context.Context // of those who do not wait

	expect   func(peer.Caller)            // see MetadataConfig.Expect
	expected atomic.Pointer[peer.Process] // whom it was told of last

	role     func(profile string) Facts // as configured: on the way to credentials nothing more is needed
	machines machines

	mu sync.Mutex // keeps changes of profiles one after the other
	// profiles holds what is kept of each profile that was asked for, which
	// are those that the rules name. The map is not changed after it was made.
	profiles atomic.Pointer[map[string]*served]
}

// served is what a server keeps of one profile.
type served struct {
	plain    atomic.Pointer[rendered] // security-credentials
	extended atomic.Pointer[rendered] // the same with AccountId
	account  atomic.Pointer[string]   // as its credentials told, for what is listed
}

// learn notes the account that credentials told, "" if they did not.
func (s *served) learn(account string) {
	if known := s.account.Load(); known == nil || *known != account {
		s.account.Store(&account)
	}
}

// forget drops the bodies that hold secrets.
func (s *served) forget() {
	s.plain.Store(nil)
	s.extended.Store(nil)
}

// of is what is kept of a profile.
func (m *metadata) of(profile string) *served {
	if s := (*m.profiles.Load())[profile]; s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.profiles.Load()
	if s := old[profile]; s != nil {
		return s
	}
	s := &served{}
	next := maps.Clone(old)
	next[profile] = s
	m.profiles.Store(&next)
	return s
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
		listener:  cfg.Listener,
		as:        metadataForm,
		via:       cred.Endpoint{Kind: cred.ViaIMDS, Listen: cfg.Listen},
		base:      accessToken,
		wait:      metadataWait,
		broker:    cfg.Broker,
		check:     cfg.Check,
		profile:   cfg.Profile,
		profileOf: cfg.ProfileOf,
		audit:     cfg.Audit,
		peers:     peers,
		identify:  cfg.identify,
		limits:    cfg.Limits,
	}
	s.init(cfg.Log)
	s.Configure(Live{Hosts: cfg.Hosts, IMDSv1: cfg.IMDSv1, AllowUnidentified: cfg.AllowUnidentified, Policy: cfg.Policy})
	if cfg.machine == nil {
		cfg.machine = readMachine
	}
	m := &metadata{
		Server: s, expect: cfg.Expect, tokens: cfg.Tokens, generation: cfg.Generation, role: cfg.Facts, machines: machines{read: cfg.machine},
		started: time.Now(), endpoint: s.via.Kind + " " + s.via.Listen,
	}
	m.profiles.Store(&map[string]*served{})
	s.facts = m.factsOf
	s.since = []string{m.started.UTC().Format(http.TimeFormat)}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	m.ended = ended
	s.routes = compile(m.table(), true)
	s.authorize = m.authorize
	s.again = m.again
	s.forget = m.forget
	return s
}

// factsOf is what the tree tells of a profile.
func (m *metadata) factsOf(profile string) Facts {
	f := m.role(profile)
	own := m.machines.get()
	f.fill(&own)
	if known := m.of(profile).account.Load(); known != nil {
		f.learnt = *known
	}
	return f
}

// binding is what this connection's tokens are good for.
func (m *metadata) binding(x *exchange) access.Binding {
	return access.Binding{Endpoint: m.endpoint, UID: x.caller.UID, Generation: m.generation(x.profile)}
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
	if err := x.conn.oneHop(); err != nil {
		return unavailable("there are no tokens now", "cannot set the hop limit").with(err.Error())
	}
	m.announce(x.caller)
	token := maker.Mint(x.now, time.Duration(seconds)*time.Second, m.binding(x))
	// Clients take the life time from here; without it Go sends no token
	// afterwards and Rust fails.
	x.w.Header()[headerTTL] = m.left(seconds)
	x.text(token)
	return nil
}

// announce tells MetadataConfig.Expect of a caller.
func (m *metadata) announce(c peer.Caller) {
	if m.expect == nil || !c.Identified() {
		return
	}
	p, known := c.Known()
	if last := m.expected.Load(); known && last != nil && *last == p {
		return
	}
	if known {
		m.expected.Store(&p)
	}
	m.expect(c)
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
	if len(values) == 0 && x.live.IMDSv1 {
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

func (m *metadata) credentials(x *exchange) *fault {
	return m.serveCredentials(x, &m.of(x.profile).plain, false)
}

func (m *metadata) extendedCredentials(x *exchange) *fault {
	return m.serveCredentials(x, &m.of(x.profile).extended, true)
}

func (m *metadata) serveCredentials(x *exchange, kept *atomic.Pointer[rendered], withAccount bool) *fault {
	facts := m.role(x.profile)
	if x.param != facts.RoleName {
		return x.unknown()
	}
	snapshot, f := x.get(x.profile)
	if f != nil {
		m.of(x.profile).forget() // what is not served any more is not kept
		return f
	}
	advertised := snapshot.AdvertisedExpiry(x.now)
	body := kept.Load()
	if !body.fits(snapshot, advertised) {
		account := ""
		if withAccount {
			account = accountOf(&facts, snapshot)
		}
		m.of(x.profile).learn(snapshot.AccountID)
		body = render(snapshot, advertised, metadataBody(snapshot, advertised, account))
		kept.Store(body)
	}
	if repeatable(x.r) {
		x.kept = kept
	}
	x.handout(x.profile, snapshot, advertised)
	x.head(http.StatusOK, textPlain)
	x.w.Header()[headerLength] = body.length
	_, _ = x.w.Write(body.body)
	return nil
}

// again judges once more a request for credentials that this connection has
// just made: all that may have changed since, which is the rules, the token,
// the role's name and the credentials. It returns the body and when the token
// ends (zero where there was none), and has recorded the hand-out; a nil body
// means that the request has to be judged in full. It waits for nothing.
func (m *metadata) again(c *conn, now time.Time) (*rendered, time.Time) {
	profile, err := m.judge(c.caller)
	if err != nil || profile != c.x.profile || m.live.Load() != c.x.live {
		return nil, time.Time{}
	}
	var expires time.Time
	if !c.x.expiry.IsZero() { // of the request before
		if !c.token.good(m.tokens(), m.generation(profile), now) {
			return nil, time.Time{}
		}
		expires = c.token.expires
	}
	if facts := m.role(profile); facts.RoleName != c.param {
		return nil, time.Time{}
	}
	snapshot, err := m.broker.Get(m.ended, cred.Request{Caller: c.caller, Profile: profile, Policy: c.x.live.Policy, Via: m.via})
	if err != nil || snapshot == nil || !snapshot.Temporary() {
		return nil, time.Time{}
	}
	body, advertised := c.x.kept.Load(), snapshot.AdvertisedExpiry(now)
	if !body.fits(snapshot, advertised) {
		return nil, time.Time{}
	}
	m.handout(&c.caller, now, profile, "", snapshot, advertised)
	return body, expires
}

// forget drops what is kept of all profiles that is secret.
func (m *metadata) forget() {
	for _, s := range *m.profiles.Load() {
		s.forget()
	}
}
