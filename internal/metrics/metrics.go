// Package metrics tells Prometheus how keyfob does: counters of hand-outs and
// refusals, and what the daemon knows at the moment of a scrape, in the text
// exposition format 0.0.4, on a listener of its own.
//
// No label tells of a profile, an account, a user, a program or a key: the
// only ones are the kind of exit, of upstream result and of endpoint, each
// from a list that is fixed here. The daemon's own figures come as a struct
// of numbers, so that no name can slip in.
package metrics

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"keyfob/internal/cred"
)

// State is what the daemon knows at the moment of a scrape.
type State struct {
	Sessions int // sessions that could be handed out now
	// ShortestLife is what is left of the session that ends first; left out
	// while there is no session.
	ShortestLife time.Duration
	Attempts     uint64 // calls for new credentials since the start
	Failures     uint64 // of these, failed
	Joined       uint64 // callers that waited for an attempt that was under way
	Links        int    // links that are kept fresh
	Profiles     int    // profiles in use
	Interactions int    // questions that wait for a person
	Endpoints    Endpoints
	VaultLocked  bool
	// AuditFailing: entries of the audit log can't be written now.
	AuditFailing bool
	// Collectors are those to whom the audit log's lines go.
	Collectors Collectors
}

// Collectors tells of each kind of collector.
type Collectors struct{ Journal, Syslog, OTLP Collector }

// Collector counts lines. One that is not On is left out.
type Collector struct {
	On            bool
	Sent, Dropped uint64
}

// Endpoints counts listeners by kind.
type Endpoints struct{ IMDS, Container int }

// Config is what Metrics are made of.
type Config struct {
	Version string    // of keyfob
	Started time.Time // when the daemon started; zero is now
	// Collect is called for each scrape, by one goroutine at a time; nil for
	// no State.
	Collect func() State
}

// Metrics count. Every method is safe for concurrent use.
type Metrics struct {
	cfg      Config
	handOuts [len(exits)]atomic.Uint64
	refusals [len(exits)]atomic.Uint64
	scraping sync.Mutex // one scrape at a time calls cfg.Collect
}

// exits are the values of the label exit. An endpoint of another kind counts
// as the last.
var exits = [...]string{cred.ViaIMDS, cred.ViaContainer, cred.ViaProcess, cred.ViaExec, cred.ViaEnv, cred.ViaLogin, "control", "other"}

// New returns Metrics. It opens and starts nothing.
func New(cfg Config) *Metrics {
	if cfg.Started.IsZero() {
		cfg.Started = time.Now()
	}
	return &Metrics{cfg: cfg}
}

// Recorder returns a Recorder that counts each event and gives it to next,
// which may be nil.
func (m *Metrics) Recorder(next cred.Recorder) cred.Recorder { return &recorder{m, next} }

type recorder struct {
	m    *Metrics
	next cred.Recorder
}

func (r *recorder) Record(e cred.Event) {
	i := 0
	for i < len(exits)-1 && exits[i] != e.Via.Kind {
		i++
	}
	if e.Kind == cred.EventHandOut {
		r.m.handOuts[i].Add(1)
	} else if e.Kind == cred.EventRefusal {
		r.m.refusals[i].Add(1)
	}
	if r.next != nil {
		r.next.Record(e)
	}
}

// Append appends the exposition to dst.
func (m *Metrics) Append(dst []byte) []byte {
	w := &writer{b: dst}
	w.family("keyfob_build_info", "gauge", "The version of keyfob and of the Go that it was built with, and for what.")
	w.sample("keyfob_build_info", 1, "version", m.cfg.Version, "goversion", runtime.Version(), "os", runtime.GOOS, "arch", runtime.GOARCH)

	w.family("keyfob_handouts_total", "counter", "Credentials handed out, by exit.")
	for i, exit := range exits {
		w.count("keyfob_handouts_total", m.handOuts[i].Load(), "exit", exit)
	}
	w.family("keyfob_refusals_total", "counter", "Credentials, tokens and grants refused, by exit.")
	for i, exit := range exits {
		w.count("keyfob_refusals_total", m.refusals[i].Load(), "exit", exit)
	}
	if m.cfg.Collect != nil {
		m.scraping.Lock()
		s := m.cfg.Collect()
		m.scraping.Unlock()
		w.state(&s)
	}
	w.process(m.cfg.Started)
	return w.b
}

func (w *writer) state(s *State) {
	w.gauge("keyfob_sessions", "Sessions that could be handed out now.", float64(s.Sessions))
	if s.Sessions > 0 {
		w.gauge("keyfob_session_shortest_life_seconds", "What is left of the session that ends first.", s.ShortestLife.Seconds())
	}
	w.counter("keyfob_refresh_attempts_total", "Calls for new credentials.", s.Attempts)
	w.counter("keyfob_refresh_failures_total", "Calls for new credentials that failed.", s.Failures)
	w.counter("keyfob_refresh_joined_total", "Callers that waited for a call that was under way.", s.Joined)
	w.gauge("keyfob_links", "Links of chains that are kept fresh.", float64(s.Links))
	w.gauge("keyfob_profiles", "Profiles in use.", float64(s.Profiles))
	w.gauge("keyfob_interactions_waiting", "Questions that wait for a person.", float64(s.Interactions))
	w.family("keyfob_endpoints", "gauge", "Listeners that serve credentials, by kind.")
	w.sample("keyfob_endpoints", float64(s.Endpoints.IMDS), "kind", cred.ViaIMDS)
	w.sample("keyfob_endpoints", float64(s.Endpoints.Container), "kind", cred.ViaContainer)
	w.gauge("keyfob_vault_locked", "1 while the vault is locked.", bit(s.VaultLocked))
	w.gauge("keyfob_audit_failing", "1 while the audit log can't be written.", bit(s.AuditFailing))
	w.collectors("keyfob_audit_forwarded_total", "Lines of the audit log that a collector was sent, by its kind.", &s.Collectors, func(c *Collector) uint64 { return c.Sent })
	w.collectors("keyfob_audit_dropped_total", "Lines of the audit log that did not reach a collector and will not, by its kind.", &s.Collectors, func(c *Collector) uint64 { return c.Dropped })
}

func (w *writer) collectors(name, help string, all *Collectors, of func(*Collector) uint64) {
	first := true
	for _, c := range []struct {
		kind string
		*Collector
	}{{"journal", &all.Journal}, {"syslog", &all.Syslog}, {"otlp", &all.OTLP}} {
		if !c.On {
			continue
		}
		if first {
			w.family(name, "counter", help)
			first = false
		}
		w.count(name, of(c.Collector), "collector", c.kind)
	}
}

// process tells of this process, by the names that Prometheus's own clients
// use. What the system does not tell is left out.
func (w *writer) process(started time.Time) {
	p := readProcess()
	w.gauge("process_start_time_seconds", "When the process started, in seconds since 1970.", float64(started.UnixMilli())/1000)
	if p.cpu > 0 {
		w.family("process_cpu_seconds_total", "counter", "Processor time spent, in seconds.")
		w.sample("process_cpu_seconds_total", p.cpu.Seconds())
	}
	if p.resident > 0 {
		w.gauge("process_resident_memory_bytes", "Resident memory in bytes.", float64(p.resident))
	}
	if p.files > 0 {
		w.gauge("process_open_fds", "Open file descriptors.", float64(p.files))
	}
	if p.maxFiles > 0 {
		w.gauge("process_max_fds", "The limit of open file descriptors.", float64(p.maxFiles))
	}
	w.gauge("go_goroutines", "Goroutines.", float64(runtime.NumGoroutine()))
	w.gauge("go_sched_gomaxprocs_threads", "GOMAXPROCS: processors that goroutines run on at a time.", float64(runtime.GOMAXPROCS(0)))
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
