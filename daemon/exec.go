package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/imds"
	"keyfob/internal/access"
	"keyfob/internal/atomicfile"
	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/peer"
)

// execEndpoint is the container endpoint for exec where the settings name
// none that speaks plain http, and at the daemon of a machine, whose container endpoints may be for
// other users: a port of 127.0.0.1, opened when the first grant needs it and kept
// over restarts, because programs that run for days hold its address.
type execEndpoint struct {
	mu       sync.Mutex // guards listener
	listener net.Listener
	server   *imds.Server
}

// start opens the endpoint if it is not open and returns its URL. The
// server belongs to the daemon's group.
func (x *execEndpoint) start(d *daemon) (string, error) {
	if e := d.execHost(); e != nil {
		return e.url(), nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.listener != nil {
		return "http://" + x.listener.Addr().String(), nil
	}
	kept := d.keptPort()
	l, err := imds.Listen(d.life, net.JoinHostPort("127.0.0.1", strconv.Itoa(kept)))
	if err != nil && kept != 0 {
		if d.hasExecGrants() {
			return "", cannotListen(cred.ViaContainer, net.JoinHostPort("127.0.0.1", strconv.Itoa(kept)), err)
		}
		l, err = imds.Listen(d.life, "127.0.0.1:0")
	}
	if err != nil {
		return "", cannotListen(cred.ViaContainer, "127.0.0.1:0", err)
	}
	if port := l.Addr().(*net.TCPAddr).Port; port != kept {
		if err := d.keepPort(port); err != nil {
			_ = l.Close()
			return "", err
		}
	}
	server := d.containerServer(l, imds.Live{}, d.log.WithFields(logrus.Fields{logging.Endpoint: cred.ViaContainer + " " + l.Addr().String()}))
	d.group.Go(func() error { return server.Run(d.life) })
	x.listener, x.server = l, server
	return "http://" + l.Addr().String(), nil
}

// forget drops what the server has rendered.
func (x *execEndpoint) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.server != nil {
		x.server.Forget()
	}
}

// address is the open endpoint's, "" for none.
func (x *execEndpoint) address() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.listener == nil {
		return ""
	}
	return x.listener.Addr().String()
}

func (d *daemon) portFile() string { return filepath.Join(d.conf().DataDir, "exec-port") }
func (d *daemon) execDir() string  { return filepath.Join(d.conf().DataDir, "exec") }

// keptPort is the port of the last time, 0 for none.
func (d *daemon) keptPort() int {
	b, err := os.ReadFile(d.portFile())
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 1 || n > 65535 {
		return 0
	}
	return n
}

func (d *daemon) keepPort(port int) error {
	if old, err := filepath.Glob(filepath.Join(d.conf().DataDir, ".exec-port-*")); err == nil {
		for _, p := range old { // of a daemon that was killed here
			_ = os.Remove(p)
		}
	}
	err := atomicfile.Write(d.portFile(), fmt.Appendln(nil, port), atomicfile.Options{Prefix: ".exec-port-"})
	if err != nil {
		return fmt.Errorf("cannot keep the port of exec: %w", err)
	}
	return nil
}

func (d *daemon) hasExecGrants() bool {
	for _, g := range d.grants.List() {
		if g.ExecPID != 0 {
			return true
		}
	}
	return false
}

// pruneGrants drops the grants of programs that have ended.
func (d *daemon) pruneGrants(ctx context.Context) {
	if err := d.grants.PruneExec(ctx, peer.Alive); err != nil {
		d.log.WithError(err).Warn("cannot drop the grants of ended programs")
	}
	if err := d.grants.Prune(ctx); err != nil {
		d.log.WithError(err).Warn("cannot drop expired grants")
	}
}

// grantAdd makes a grant. For exec it first makes sure of credentials, so
// that a person is asked now and not when the program is under way.
func (d *daemon) grantAdd(c *call) (any, error) {
	p, err := decode[control.GrantParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	d.freshProfiles(c.ctx)
	r := d.request(c, p.Context, cred.ViaExec)
	spec := access.GrantSpec{Profiles: p.Profiles, UID: c.caller.Caller.UID, AnyUser: p.AnyUser, Note: p.Note, Relative: p.Relative, TokenFile: p.TokenFile}
	if len(spec.Profiles) == 0 {
		spec.Profiles = []string{r.Profile}
	}
	if p.Expires > 0 {
		spec.Expires = time.Now().Add(time.Duration(p.Expires) * time.Second)
	}
	if err := d.ownGrant(c, &p, spec.Profiles); err != nil {
		return nil, err
	}
	// The file of another user's token is his to write, with his rights: he
	// gets the token by the socket.
	foreign := c.caller.Caller.UID != d.uid
	if foreign {
		spec.TokenFile = ""
	}
	out := control.GrantResult{}
	for i, name := range spec.Profiles {
		q := d.query(p.Context)
		q.Profile = name
		d.mu.Lock()
		set := d.files
		d.mu.Unlock()
		prof, err := set.Resolve(q)
		if err != nil {
			return nil, unknownProfile(err)
		}
		if i == 0 {
			out.Region, out.Settings = prof.Region, prof.ConfigLines()
			if !c.admin {
				out.Settings = usersLines(prof)
			}
		}
	}
	if spec.Policy, err = policyOf(p.SessionPolicy); err != nil {
		return nil, err
	}
	r.Policy = spec.Policy
	protected := slices.ContainsFunc(spec.Profiles, d.protected)
	var snap *cred.Snapshot
	if p.ForExec {
		spec.ExecPID = c.caller.Caller.PID
		if spec.Note == "" {
			spec.Note = fmt.Sprintf("exec, pid %d", spec.ExecPID)
		}
		spec.RoleARN, spec.Implicit = r.RoleARN, r.Implicit
		if snap, err = d.getAsking(c, r); err != nil {
			d.refusal(r, err)
			return nil, about(err, r.Profile)
		}
	} else if err := d.mayHave(c, spec); err != nil {
		return nil, err
	} else if d.containerEndpoint() == nil {
		return nil, &control.Error{Code: control.CodeFailed, Message: "cannot make the grant: there is no container endpoint",
			Hint: "--container 127.0.0.1:PORT for keyfobd, or an [[endpoint]] with kind = \"container\" in config.toml"}
	}
	if protected {
		names := spec.Profiles
		if p.ForExec { // the broker asked about this one
			names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == r.Profile })
		}
		if err := d.confirmGrant(c, names, p.MayAsk); err != nil {
			return nil, err
		}
	}
	spec.Confirmed = protected
	base := ""
	if e := d.containerEndpoint(); e != nil && !p.ForExec {
		base = e.url()
	} else if base, err = d.exec.start(d); err != nil {
		return nil, err
	}
	g, token, err := d.grants.Add(c.ctx, spec)
	if err != nil {
		return nil, err
	}
	if snap != nil {
		d.handOut(r, snap, g.ID)
	}
	d.watchExec()
	d.describeGrant(&out, *g, base)
	if foreign {
		_ = os.Remove(g.TokenFile) // nobody can use it
		out.TokenFile, out.Token = "", token.Reveal()
	}
	d.log.WithFields(logrus.Fields{logging.Profile: strings.Join(g.Profiles, ","), logging.PID: c.caller.Caller.PID}).Info("grant made")
	return out, nil
}

// mayHave refuses a grant that its maker could not use: it would look good
// and answer 403. One for any user is for others, and opens what no rule gives
// anybody: at a machine's daemon an administrator shares what he has himself,
// and root, who writes the rules, all.
func (d *daemon) mayHave(c *call, spec access.GrantSpec) error {
	if spec.AnyUser && d.isOwner(c.caller.Caller) {
		return nil
	}
	for _, name := range spec.Profiles {
		r := c.caller
		r.Profile, r.Policy, r.Via = name, spec.Policy, cred.Endpoint{Kind: cred.ViaExec}
		if err := d.check(r.Caller, r.Profile, r.Via); err != nil {
			d.refusal(r, err)
			return err
		}
		if spec.Policy != "" { // that it can't carry is better known now
			if _, _, err := d.broker.Chain(r); err != nil {
				return about(err, name)
			}
		}
	}
	return nil
}

// confirmGrant asks a person about each protected profile of a grant: who
// has its token is not asked any more.
func (d *daemon) confirmGrant(c *call, names []string, mayAsk bool) error {
	ctx, cancel := context.WithTimeout(c.ctx, waitProcess)
	defer cancel()
	for _, name := range names {
		r := c.caller
		r.Profile, r.MayAsk, r.Via = name, mayAsk, cred.Endpoint{Kind: cred.ViaExec}
		if !d.protected(name) {
			continue
		}
		detach := func() {}
		if key, ok := d.confirmKey(r); ok && mayAsk {
			detach = d.queue.Attach([]cred.LinkKey{key}, &terminal{conn: c.conn, place: c.caller.Caller.Terminal})
		}
		err := d.confirm(ctx, r)
		detach()
		if err != nil {
			d.refusal(r, err)
			return err
		}
	}
	return nil
}

// containerEndpoint is the first one of the settings, nil for none.
func (d *daemon) containerEndpoint() *endpoint {
	for _, e := range d.endpoints() {
		if e.kind == cred.ViaContainer {
			return e
		}
	}
	return nil
}

// execHost is the endpoint of the settings that serves exec's programs, nil
// where exec has its own. One that speaks TLS does not: nobody told those
// programs of its authority.
func (d *daemon) execHost() *endpoint {
	if d.system() {
		return nil
	}
	for _, e := range d.endpoints() {
		if e.kind == cred.ViaContainer && e.now.Load().certificate == nil {
			return e
		}
	}
	return nil
}

// describeGrant tells of a grant; base is the URL of the endpoint that it
// opens.
func (d *daemon) describeGrant(out *control.GrantResult, g access.Grant, base string) {
	out.ID, out.Profiles, out.Note, out.TokenFile, out.Expires = g.ID, g.Profiles, g.Note, g.TokenFile, stampText(g.Expires)
	out.URL = base + "/v1/credentials/" + url.PathEscape(g.Profiles[0])
	if g.Relative {
		out.RelativeURI = "/v2/credentials/" + g.ID
	}
}

func (d *daemon) grantList(c *call) (any, error) {
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	out := control.GrantListResult{Grants: []control.GrantResult{}}
	for _, g := range d.grants.List() {
		if !c.admin && g.UID != c.caller.Caller.UID {
			continue
		}
		base := "http://" + d.exec.address()
		e := d.containerEndpoint()
		if g.ExecPID != 0 {
			e = d.execHost()
		}
		if e != nil {
			base = e.url()
		}
		var r control.GrantResult
		d.describeGrant(&r, g, base)
		if g.UID != d.uid {
			r.TokenFile = "" // as its maker knows
		}
		out.Grants = append(out.Grants, r)
	}
	return out, nil
}

func (d *daemon) grantRemove(c *call) (any, error) {
	p, err := decode[control.GrantRemoveParams](c)
	if err != nil {
		return nil, err
	}
	if !c.admin && !slices.ContainsFunc(d.grants.List(), func(g access.Grant) bool { return g.ID == p.ID && g.UID == c.caller.Caller.UID }) {
		return nil, noGrant(p.ID)
	}
	if err := d.grants.Remove(c.ctx, p.ID); errors.Is(err, cred.ErrNotFound) {
		return nil, noGrant(p.ID)
	} else if err != nil {
		return nil, err
	}
	return control.Empty{}, nil
}

func noGrant(id string) error {
	return &control.Error{Code: control.CodeNotFound, Message: "cannot remove the grant " + id + ": there is none", Hint: "keyfob grant list"}
}
