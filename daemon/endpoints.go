package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/imds"
	"keyfob/internal/access"
	"keyfob/internal/broker"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/peer"
	"keyfob/internal/settings"
	"keyfob/profiles"
)

// endpointConfig is one endpoint of the settings with what is made of it.
type endpointConfig struct {
	settings.Endpoint
	policy      string            // session policy, by cred.SessionPolicy.Encode
	certificate *imds.Certificate // nil for plain http
}

// rule is the endpoint's rule; it is found by the address of its listener.
func (e *endpointConfig) rule(listen string) access.EndpointRule {
	r := access.EndpointRule{Kind: e.Kind, Listen: listen, Profile: e.Profile, AllowUsers: e.AllowUsers, AllowGroups: e.AllowGroups,
		AllowPrograms: accessPrograms(e.AllowPrograms), AllowUnidentified: e.AllowUnidentified}
	for _, u := range e.Users {
		r.Users = append(r.Users, access.EndpointUser(u))
	}
	return r
}

// live is what a server takes up while it serves.
func (e *endpointConfig) live() imds.Live {
	return imds.Live{Hosts: e.Hosts, IMDSv1: e.IMDSv1, AllowUnidentified: e.AllowUnidentified, Policy: e.policy, Certificate: e.certificate}
}

// profiles are those that the endpoint serves to one user or another.
func (e *endpointConfig) profiles() []string {
	if e.Kind != cred.ViaIMDS {
		return nil
	}
	names := []string{e.Profile}
	for _, u := range e.Users {
		names = append(names, u.Profile)
	}
	return names
}

// endpoint is one listener of the settings. Kind and address are its
// identity: whatever else changes is put in force while it serves.
type endpoint struct {
	kind     string
	listener net.Listener
	server   *imds.Server
	now      atomic.Pointer[endpointConfig]
	facts    atomic.Pointer[map[string]imds.Facts] // by profile, as last resolved
	warned   atomic.Pointer[time.Time]             // when the log was told that the certificate ends; nil for never

	stop context.CancelFunc // ends serving; nil until it begins, guarded by daemon.mu
	done chan struct{}      // closed when it has ended
}

// address is where the endpoint listens, with its real port.
func (e *endpoint) address() string { return e.listener.Addr().String() }

// close closes the listener of an endpoint that does not serve (any more).
func (e *endpoint) close() { _ = e.listener.Close() }

// endpoints are those that serve, or will when the daemon runs.
func (d *daemon) endpoints() []*endpoint { return *d.serving.Load() }

// endpointChange is the step from the endpoints that serve to those of the
// settings. Until commit nobody notices; undo frees what was opened for it.
type endpointChange struct {
	d     *daemon
	next  []*endpoint
	how   []*endpointConfig // of next
	fresh []*endpoint       // of next, those that are new
	gone  []*endpoint
	rules *access.RuleSet
}

// prepareEndpoints binds the addresses that are new in c. One that keeps its
// kind and address stays as it is, connections and all. d.mu is held, or the
// daemon does not run yet.
func (d *daemon) prepareEndpoints(ctx context.Context, c *config) (_ *endpointChange, err error) {
	x := &endpointChange{d: d, gone: slices.Clone(d.endpoints())}
	defer func() {
		if err != nil {
			x.undo()
		}
	}()
	for i := range c.endpoints {
		how := &c.endpoints[i]
		e := x.keep(how)
		if e == nil {
			if e, err = x.open(ctx, how); err != nil {
				return nil, err
			}
		}
		x.next, x.how = append(x.next, e), append(x.how, how)
	}
	cfg := access.RulesConfig{Owner: peer.Self(), Profiles: c.rules}
	for i, e := range x.next {
		cfg.Endpoints = append(cfg.Endpoints, x.how[i].rule(e.address()))
	}
	// Requests that are under way at an endpoint that goes are judged by
	// its rule to their end: without one it would be the owner's.
	for _, e := range append(slices.Clone(d.leaving), x.gone...) {
		if rule := e.now.Load().rule(e.address()); !slices.ContainsFunc(cfg.Endpoints, func(r access.EndpointRule) bool {
			return r.Kind == rule.Kind && r.Listen == rule.Listen
		}) {
			cfg.Endpoints = append(cfg.Endpoints, rule)
		}
	}
	x.rules, err = access.NewRules(cfg)
	return x, err
}

// keep takes the endpoint that how is about out of those that go, nil when
// there is none.
func (x *endpointChange) keep(how *endpointConfig) *endpoint {
	for i, e := range x.gone {
		if e.kind == how.Kind && e.now.Load().Listen == how.Listen {
			x.gone = slices.Delete(x.gone, i, i+1)
			return e
		}
	}
	return nil
}

// open binds the address of a new endpoint. Where one of another kind has it
// that goes, its socket is taken over, so that no connection is refused.
func (x *endpointChange) open(ctx context.Context, how *endpointConfig) (*endpoint, error) {
	e := &endpoint{kind: how.Kind, done: make(chan struct{})}
	var err error
	i := slices.IndexFunc(x.gone, func(old *endpoint) bool { return old.now.Load().Listen == how.Listen })
	if i >= 0 && how.Listen == x.gone[i].address() {
		e.listener, err = again(x.gone[i].listener)
	} else {
		if e.listener = x.d.opt.Inherited.TCP(how.Listen); e.listener == nil {
			e.listener, err = imds.Listen(ctx, how.Listen)
		}
	}
	if err != nil {
		return nil, cannotListen(how.Kind, how.Listen, err)
	}
	e.now.Store(how)
	e.facts.Store(&map[string]imds.Facts{})
	x.fresh = append(x.fresh, e)
	return e, nil
}

// again is a second listener on the socket of l.
func again(l net.Listener) (net.Listener, error) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.New("its socket can't be taken over")
	}
	f, err := tcp.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

// undo closes what was opened.
func (x *endpointChange) undo() {
	for _, e := range x.fresh {
		e.close()
	}
}

// commit puts the change in force. d.mu is held, or the daemon does not run
// yet.
func (x *endpointChange) commit() {
	d := x.d
	d.setRules(x.rules)
	for i, e := range x.next {
		if old := e.now.Load(); old.certificate != x.how[i].certificate {
			e.warned.Store(nil) // of another certificate
		}
		e.now.Store(x.how[i])
		if e.server != nil {
			e.server.Configure(x.how[i].live())
		}
	}
	for _, e := range x.fresh {
		d.makeServer(e)
	}
	for i, e := range x.next {
		if x.how[i].IMDSv1 {
			d.log.WithField(logging.Endpoint, e.kind+" "+e.address()).Warn("IMDSv1 is on: whatever can make a GET request reach this address gets credentials")
		}
	}
	d.serving.Store(&x.next)
	d.warnOfCertificates(time.Now())
	if d.life != nil { // run serves the first ones
		for _, e := range x.fresh {
			d.serve(e)
		}
	}
	for _, e := range x.gone {
		d.dismiss(e)
	}
}

// makeServer gives an endpoint its server; serve starts it.
func (d *daemon) makeServer(e *endpoint) {
	how := e.now.Load()
	log := d.log.WithFields(logrus.Fields{logging.Endpoint: e.kind + " " + e.address()})
	if e.kind != cred.ViaIMDS {
		e.server = d.containerServer(e.listener, how.live(), log)
		return
	}
	via := cred.Endpoint{Kind: e.kind, Listen: e.address()}
	e.server = imds.NewMetadata(imds.MetadataConfig{
		Listener:          e.listener,
		Expect:            d.expect,
		Profile:           how.Profile,
		ProfileOf:         func(c peer.Caller) string { return d.rules.Load().ProfileFor(c, via) },
		Policy:            how.policy,
		Hosts:             how.Hosts,
		IMDSv1:            how.IMDSv1,
		AllowUnidentified: how.AllowUnidentified,
		Broker:            d,
		Check:             d.check,
		Tokens:            func() *access.Tokens { return d.tokens.Load() },
		Generation:        d.broker.Generation,
		Facts:             func(profile string) imds.Facts { return (*e.facts.Load())[profile] },
		Limits:            d.limits,
		Audit:             d.recorder(),
		Log:               log,
	})
}

func (d *daemon) containerServer(l net.Listener, how imds.Live, log *logrus.Entry) *imds.Server {
	return imds.NewContainer(imds.ContainerConfig{
		Listener:          l,
		Hosts:             how.Hosts,
		Broker:            d,
		Grants:            d.grants,
		Check:             d.checkGrant,
		AllowUnidentified: how.AllowUnidentified,
		Certificate:       how.Certificate,
		Limits:            d.limits,
		Audit:             d.recorder(),
		Log:               log,
	})
}

// serve starts serving. d.mu is held.
func (d *daemon) serve(e *endpoint) {
	ctx, stop := context.WithCancel(d.life)
	e.stop = stop
	d.group.Go(func() error {
		defer stop()
		defer close(e.done)
		// Connections wait in the listener's queue for the moment that
		// an unlock takes: who has a token or a grant of the last run
		// must not be refused before those are known again.
		d.awaitFirstTry(ctx, e.kind)
		err := e.server.Run(ctx)
		if ctx.Err() != nil && d.life.Err() == nil {
			return nil // dismissed: that its listener is closed is no failure
		}
		return err
	})
}

// dismiss ends an endpoint that the settings do not have any more: its
// address is free at once, requests under way are answered, then its
// connections are closed. d.mu is held.
func (d *daemon) dismiss(e *endpoint) {
	d.log.WithField(logging.Endpoint, e.kind+" "+e.address()).Info("endpoint removed")
	d.leaving = append(d.leaving, e)
	e.stop()
	e.close()
	d.group.Go(func() error {
		<-e.done
		d.mu.Lock()
		defer d.mu.Unlock()
		d.leaving = slices.DeleteFunc(d.leaving, func(other *endpoint) bool { return other == e })
		d.dropRules()
		return nil
	})
}

// dropRules makes the rules those of the endpoints that there still are.
// d.mu is held.
func (d *daemon) dropRules() {
	x, err := d.prepareEndpoints(d.life, d.conf())
	if err != nil { // the same rules were good a moment ago; a user may have gone since
		d.log.WithError(err).Warn("the rules of a removed endpoint stay until the next reload")
		return
	}
	d.setRules(x.rules)
}

func cannotListen(kind, addr string, err error) error {
	var sys syscall.Errno
	if errors.As(err, &sys) {
		err = sys
	}
	hint := ""
	host, _, _ := net.SplitHostPort(addr)
	metadata := host == "169.254.169.254" || host == "fd00:ec2::254"
	switch {
	case metadata && (errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EACCES)):
		hint = "sudo keyfob link-local enable"
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "another program listens there; choose another port, or end that one"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "this machine does not have that address"
	case errors.Is(err, syscall.EACCES):
		hint = "ports below 1024 need a privilege"
	}
	return cred.WithHint(fmt.Errorf("cannot listen on %s for the %s endpoint: %w", addr, kind, err), hint)
}

// learnFacts tells the metadata endpoints what their profiles are now.
// Requests read it from there, without resolving. d.mu is held.
func (d *daemon) learnFacts() {
	d.protectedBy.Store(&protectedBy{set: d.files})
	for _, e := range d.endpoints() {
		how := e.now.Load()
		facts := map[string]imds.Facts{}
		for _, name := range how.profiles() {
			f := factsOf(&how.Metadata)
			// An unknown profile has no role to list.
			if p, err := d.files.Resolve(named(name)); err == nil {
				f.RoleName = imds.RoleName(lastRole(p), name)
				if f.Region == "" {
					f.Region = p.Region
				}
				// Look-ups of the region by the identity document then ask
				// nobody for credentials.
				if f.AccountID == "" {
					f.AccountID = accountOf(lastRole(p))
				}
			}
			facts[name] = f
		}
		e.facts.Store(&facts)
	}
}

// factsOf are the facts that the settings tell; the rest is the machine's.
func factsOf(m *settings.Metadata) imds.Facts {
	return imds.Facts{
		InstanceID: m.InstanceID, ImageID: m.ImageID, InstanceType: m.InstanceType,
		Hostname: m.Hostname, LocalIPv4: m.LocalIPv4, IPv6: m.IPv6, PublicIPv4: m.PublicIPv4, PublicHostname: m.PublicHostname, MAC: m.MAC,
		Region: m.Region, Zone: m.Zone, ZoneID: m.ZoneID, AccountID: m.AccountID, Partition: m.Partition,
		VPCID: m.VPCID, SubnetID: m.SubnetID, ReservationID: m.ReservationID,
		SecurityGroups: m.SecurityGroups, Tags: m.Tags, UserDataFile: m.UserDataFile,
	}
}

// pinProfiles keeps the endpoints' profiles active: clients of a metadata
// endpoint do not wait for a first flight.
func (d *daemon) pinProfiles() {
	var active []broker.Active
	for _, e := range d.endpoints() {
		how := e.now.Load()
		for _, name := range how.profiles() {
			active = append(active, broker.Active{Profile: name, Policy: how.policy})
		}
	}
	d.broker.SetActive(active)
}

// accountOf is the account of a role's ARN, "" where it has none.
func accountOf(arn string) string {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
		return parts[4]
	}
	return ""
}

func lastRole(p *profiles.Profile) string {
	if len(p.Chain) == 0 {
		return ""
	}
	return p.Chain[len(p.Chain)-1].RoleARN
}
