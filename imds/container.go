package imds

import (
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// containerWait is how long a container caller waits for credentials.
const containerWait = 30 * time.Second

// ContainerConfig is what a server of container credentials is made of.
type ContainerConfig struct {
	Listener net.Listener
	Listen   string   // the name of the endpoint in requests and rules; "" is the listener's address
	Hosts    []string // names that Host may have besides the address and localhost
	Broker   Getter
	Grants   *access.Grants
	// Check judges the caller of a grant, whose user and profile were
	// checked already: (*access.RuleSet).CheckGrant of the current rules.
	// nil leaves the judgement to the broker.
	Check func(c peer.Caller, g *access.Grant, profile string, via cred.Endpoint) error
	// RoleARN is the role of a profile for the RoleArn member; nil, or "",
	// takes it from the credentials.
	RoleARN func(profile string) string
	// Certificate makes the server speak TLS: see Live.
	Certificate *Certificate
	// AllowUnidentified lets callers in whom the kernel would not name, to
	// use grants that are anybody's.
	AllowUnidentified bool
	// Audit is told of every hand-out and refusal; nil for nobody.
	Audit cred.Recorder
	// Limits bounds the connections, of all servers that are given the same;
	// nil is NewLimits.
	Limits *Limits
	Log    *logrus.Entry

	identify func(net.Conn) (peer.Caller, error) // as in MetadataConfig
}

// container is the part of a Server that is the container endpoint's.
type container struct {
	*Server
	grants  *access.Grants
	rules   func(c peer.Caller, g *access.Grant, profile string, via cred.Endpoint) error
	roleARN func(profile string) string
}

// NewContainer makes a server of container credentials on cfg.Listener. It
// starts nothing: see Run.
func NewContainer(cfg ContainerConfig) *Server {
	if cfg.Listen == "" {
		cfg.Listen = cfg.Listener.Addr().String()
	}
	peers := peer.NewResolver()
	if cfg.identify == nil {
		cfg.identify = peers.Of
	}
	s := &Server{
		listener: cfg.Listener,
		as:       containerForm,
		via:      cred.Endpoint{Kind: cred.ViaContainer, Listen: cfg.Listen},
		base:     accessGrant,
		wait:     containerWait,
		broker:   cfg.Broker,
		audit:    cfg.Audit,
		peers:    peers,
		identify: cfg.identify,
		limits:   cfg.Limits,
	}
	s.init(cfg.Log)
	s.Configure(Live{Hosts: cfg.Hosts, AllowUnidentified: cfg.AllowUnidentified, Certificate: cfg.Certificate})
	c := &container{Server: s, grants: cfg.Grants, rules: cfg.Check, roleARN: cfg.RoleARN}
	s.routes = compile(c.table(), false)
	s.authorize = c.authorize
	s.forget = func() {}
	return s
}

// table is every route of the container endpoint, sorted by pattern.
func (c *container) table() []route {
	return []route{
		{methods: methodGet, pattern: "/v1/credentials/{profile}", access: accessGrant, serve: c.byToken},
		{methods: methodGet, pattern: "/v2/credentials/{id}", access: accessGrantPath, serve: c.byPath},
	}
}

// authorize finds the grant that opens the request and checks that it is
// this caller's.
func (c *container) authorize(x *exchange, need accessKind) *fault {
	if c.grants == nil {
		return unauthorized("there are no grants")
	}
	var grant *access.Grant
	var err error
	switch need {
	case accessGrant:
		values := x.r.Header[headerAuthorization]
		if len(values) != 1 || values[0] == "" {
			return unauthorized("no grant's token")
		}
		grant, err = c.grants.ByToken(values[0], x.now)
	case accessGrantPath:
		// A path is more easily seen than a header: it counts only for
		// those whom the kernel names.
		if !x.caller.Identified() {
			return forbidden("a relative grant and an unidentified caller")
		}
		grant, err = c.grants.ByPath(x.param, x.now)
		if err == nil && grant != nil && !grant.Relative {
			return unauthorized("the grant is not relative")
		}
	default:
		return forbidden("the route is closed")
	}
	if err != nil {
		return unauthorized(err.Error())
	}
	if grant == nil {
		return unauthorized("no such grant")
	}
	x.grant = grant
	if !grant.AnyUser && (grant.UID == "" || grant.UID != x.caller.UID) {
		return forbidden("the grant is another user's")
	}
	return nil
}

func (c *container) byToken(x *exchange) *fault {
	x.profile = x.param
	if !slices.Contains(x.grant.Profiles, x.param) {
		return forbidden("the profile is not in the grant")
	}
	return c.serve(x, x.param)
}

func (c *container) byPath(x *exchange) *fault {
	if len(x.grant.Profiles) == 0 {
		return forbidden("the grant has no profile")
	}
	x.profile = x.grant.Profiles[0]
	return c.serve(x, x.grant.Profiles[0])
}

func (c *container) serve(x *exchange, profile string) *fault {
	x.profile = profile
	if c.rules != nil {
		if err := c.rules(x.caller, x.grant, profile, c.via); err != nil {
			return denied(err)
		}
	}
	snapshot, f := x.get(profile)
	if f != nil {
		return f
	}
	role := ""
	if c.roleARN != nil {
		role = c.roleARN(profile)
	}
	if role == "" {
		role = snapshot.RoleARN
	}
	advertised := snapshot.AdvertisedExpiry(x.now)
	body := containerBody(snapshot, advertised, role)
	x.handout(profile, snapshot, advertised)
	x.head(http.StatusOK, typeJSON)
	x.measure(len(body))
	_, _ = x.w.Write(body)
	return nil
}
