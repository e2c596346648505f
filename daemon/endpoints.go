package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/sirupsen/logrus"

	"keyfob/imds"
	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/settings"
	"keyfob/profiles"
)

// endpoint is one listener of the settings.
type endpoint struct {
	settings settings.Endpoint
	listener net.Listener
	server   *imds.Server
	facts    atomic.Pointer[imds.Facts] // of the profile as last resolved
}

// bindEndpoints opens every listener before the first is served, so that
// an address in use is told at the start.
func (d *daemon) bindEndpoints() error {
	for _, s := range d.s.Endpoints {
		l, err := imds.Listen(context.Background(), s.Listen)
		if err != nil {
			return cannotListen(s.Kind, s.Listen, err)
		}
		d.endpoints = append(d.endpoints, &endpoint{settings: s, listener: l})
	}
	return nil
}

// makeServers gives each listener its server; run starts them.
func (d *daemon) makeServers() {
	for _, e := range d.endpoints {
		s := e.settings
		log := d.log.WithFields(logrus.Fields{logging.Endpoint: s.Kind + " " + e.listener.Addr().String()})
		if s.Kind != cred.ViaIMDS {
			e.server = d.containerServer(e.listener, s.Hosts, s.AllowUnidentified, log)
			continue
		}
		if s.IMDSv1 {
			log.Warn("IMDSv1 is on: whatever can make a GET request reach this address gets credentials")
		}
		e.server = imds.NewMetadata(imds.MetadataConfig{
			Listener:          e.listener,
			Profile:           s.Profile,
			Hosts:             s.Hosts,
			IMDSv1:            s.IMDSv1,
			AllowUnidentified: s.AllowUnidentified,
			Broker:            d,
			Check:             d.check,
			Tokens:            func() *access.Tokens { return d.tokens.Load() },
			Generation:        d.broker.Generation,
			Facts:             func() imds.Facts { return *e.facts.Load() },
			Log:               log,
		})
	}
}

func (d *daemon) containerServer(l net.Listener, hosts []string, unidentified bool, log *logrus.Entry) *imds.Server {
	return imds.NewContainer(imds.ContainerConfig{
		Listener:          l,
		Hosts:             hosts,
		Broker:            d,
		Grants:            d.grants,
		Check:             d.checkGrant,
		AllowUnidentified: unidentified,
		Log:               log,
	})
}

func cannotListen(kind, addr string, err error) error {
	var sys syscall.Errno
	if errors.As(err, &sys) {
		err = sys
	}
	hint := ""
	switch {
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
	host, _ := os.Hostname()
	for _, e := range d.endpoints {
		f := &imds.Facts{Hostname: host}
		// An unknown profile has no role to list.
		if p, err := d.files.Resolve(named(e.settings.Profile)); err == nil {
			f.RoleName = imds.RoleName(lastRole(p), e.settings.Profile)
			f.Region = p.Region
		}
		e.facts.Store(f)
	}
}

func lastRole(p *profiles.Profile) string {
	if len(p.Chain) == 0 {
		return ""
	}
	return p.Chain[len(p.Chain)-1].RoleARN
}
