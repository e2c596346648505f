package daemon

import (
	"context"
	"net"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/metrics"
)

// measuring is one listener of the metrics.
type measuring struct {
	listen   string // as in the settings
	listener net.Listener
	stop     context.CancelFunc // nil until it serves
}

// metricsChange is the step to the metrics listener of the settings. Until
// commit nobody notices; undo frees what was opened for it.
type metricsChange struct {
	d    *daemon
	next *measuring // nil for none
	same bool
}

// prepareMetrics opens the listener of c, if it is another one. d.mu is held,
// or the daemon does not run yet.
func (d *daemon) prepareMetrics(ctx context.Context, c *config) (*metricsChange, error) {
	x := &metricsChange{d: d}
	if d.measuring != nil && d.measuring.listen == c.Metrics || d.measuring == nil && c.Metrics == "" {
		x.same = true
		return x, nil
	}
	if c.Metrics == "" {
		return x, nil
	}
	l, err := metrics.Listen(ctx, c.Metrics)
	if err != nil {
		return nil, err
	}
	x.next = &measuring{listen: c.Metrics, listener: l}
	return x, nil
}

func (x *metricsChange) undo() {
	if x.next != nil {
		_ = x.next.listener.Close()
	}
}

// commit puts the change in force. d.mu is held, or the daemon does not run
// yet.
func (x *metricsChange) commit() {
	if x.same {
		return
	}
	if old := x.d.measuring; old != nil && old.stop != nil {
		old.stop()
	}
	x.d.measuring = x.next
	if x.next != nil && x.d.life != nil {
		x.d.serveMetrics(x.next)
	}
}

// serveMetrics starts serving. A listener that fails is no reason to end: who
// needs credentials does not need it. d.mu is held.
func (d *daemon) serveMetrics(m *measuring) {
	ctx, stop := context.WithCancel(d.life)
	m.stop = stop
	d.group.Go(func() error {
		defer stop()
		if err := d.metrics.Serve(ctx, m.listener); err != nil {
			d.log.WithError(err).WithField(logging.Endpoint, m.listen).Error("metrics are not served")
		}
		return nil
	})
}

// measure is what the daemon knows at the moment of a scrape.
func (d *daemon) measure() metrics.State {
	now := time.Now()
	st := d.broker.Stats()
	s := metrics.State{Attempts: st.Attempts, Failures: st.Failures, Joined: st.FlightsJoined, Links: st.ActiveLinks, Profiles: st.ActiveProfiles,
		Interactions: len(d.queue.Pending()), VaultLocked: d.vault.Status().Locked}
	for _, x := range d.broker.Sessions() {
		if x.Expires.IsZero() {
			continue
		}
		if left := x.Expires.Sub(now); s.Sessions == 0 || left < s.ShortestLife {
			s.ShortestLife = left
		}
		s.Sessions++
	}
	for _, e := range d.endpoints() {
		if e.kind == cred.ViaIMDS {
			s.Endpoints.IMDS++
		} else {
			s.Endpoints.Container++
		}
	}
	if d.exec.address() != "" {
		s.Endpoints.Container++
	}
	if a := d.audit.Load(); a != nil {
		s.AuditFailing = a.log.Warning() != ""
		if a.forward != nil {
			for _, x := range a.forward.Deliveries() {
				to := map[string]*metrics.Collector{"journal": &s.Collectors.Journal, "syslog": &s.Collectors.Syslog, "otlp": &s.Collectors.OTLP}[x.Kind]
				*to = metrics.Collector{On: true, Sent: x.Sent, Dropped: x.Dropped}
			}
		}
	}
	return s
}
