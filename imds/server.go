package imds

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// Getter gives credentials: *broker.Broker. Its errors are those of package
// cred: ErrUnknownProfile, ErrDenied (also for the zero Caller), ErrLocked,
// ErrConfig, *UpstreamError, *InteractionError, the context's. It returns a
// warm snapshot without waiting.
type Getter interface {
	Get(ctx context.Context, r cred.Request) (*cred.Snapshot, error)
}

// Limits of a connection. Requests are a few hundred bytes long, answers a
// few thousand.
const (
	maxHeaderBytes    = 8 << 10 // a grant's token may be a JWT; net/http adds 4 KiB of its own
	readHeaderTimeout = 5 * time.Second
	bodyTimeout       = 5 * time.Second
	idleTimeout       = 75 * time.Second
	writeTimeout      = 10 * time.Second // of one Write; an answer is one or two
	drainTimeout      = 5 * time.Second  // at the end, for answers in flight
	silentTimeout     = 100 * time.Millisecond
	maxAcceptPause    = 100 * time.Millisecond // while accepting fails
	sendBuffer        = 16 << 10               // bytes; an answer is a few thousand
)

// Server serves one listener. Run serves; nothing runs before it.
type Server struct {
	listener net.Listener
	as       form
	via      cred.Endpoint
	live     atomic.Pointer[live] // see Configure
	routes   *tree
	base     accessKind // what it takes to learn that a path does not exist
	wait     time.Duration

	broker        Getter
	check         func(c peer.Caller, profile string, via cred.Endpoint) error // nil: the broker alone judges
	profile       string                                                       // of a metadata endpoint, for whom profileOf is not asked
	profileOf     func(c peer.Caller) string                                   // nil: profile
	since         []string                                                     // Last-Modified of what never changes, nil for none
	audit         cred.Recorder                                                // nil: nothing is recorded
	peers         *peer.Resolver
	identify      func(net.Conn) (peer.Caller, error)
	facts         func(profile string) Facts
	authorize     func(x *exchange, need accessKind) *fault
	again         func(c *conn, now time.Time) (*rendered, time.Time) // see repeat.go
	forget        func()                                              // drops whatever holds a secret
	log           *notices
	ttl           atomic.Pointer[seconds]
	repeated      atomic.Uint64 // answers, for tests
	draining      atomic.Bool   // no answer is repeated any more
	limits        *Limits       // has the list of connections
	tls           *tls.Config
	plains        sync.Pool // of *plain
	date          atomic.Pointer[day]
	handed        *handed
	fresh         chan *conn    // for goroutines that rest
	resting       atomic.Int32  // how many do
	ended         chan struct{} // closed when nothing is accepted any more
	acceptors     int
	closeListener func() error // once

	wg sync.WaitGroup // one for each connection
}

type connKey struct{}

// init fills in what is the same for all servers.
func (s *Server) init(log *logrus.Entry) {
	if s.limits == nil {
		s.limits = NewLimits()
	}
	s.acceptors = acceptors()
	s.closeListener = sync.OnceValue(s.listener.Close)
	s.handed = newHanded(s.listener.Addr())
	s.fresh, s.ended = make(chan *conn), make(chan struct{})
	s.tls = s.tlsConfig()
	s.log = newNotices(log, s)
}

// Listen binds address ("127.0.0.1:9911") for a server. It is net.Listen
// without TCP keep-alives: callers are on this machine, idle connections are
// closed in a minute anyway, and the four system calls that switch them on are
// felt by clients that connect for each request. What the kernel keeps for a
// client that does not read is bounded.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		if err := c.Control(func(fd uintptr) { failed = setSendBuffer(fd, sendBuffer) }); err != nil {
			return err
		}
		return failed
	}}
	return lc.Listen(ctx, "tcp", address)
}

// Forget drops what the server keeps of credentials: the daemon calls it when
// the vault is locked.
func (s *Server) Forget() { s.forget() }

// Run serves until ctx ends, answers what is in flight (for at most five
// seconds), joins every connection and closes the listener. It returns nil,
// or why the listener failed. It is called once.
func (s *Server) Run(ctx context.Context) error {
	// Requests outlive ctx: they end with their answers or with the drain.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:                      s,
		MaxHeaderBytes:               maxHeaderBytes,
		ReadHeaderTimeout:            readHeaderTimeout,
		IdleTimeout:                  idleTimeout,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: s.connState,
		ErrorLog:  log.New(errorLog{s.log}, "", 0),
	}
	s.plains.New = func() any { return newPlain(base) }
	rest := make(chan error, 1)
	go func() { rest <- srv.Serve(s.handed) }()
	served := make(chan error, s.acceptors)
	for range s.acceptors {
		go func() { served <- s.accept(ctx, &acceptor{Listener: s.listener, server: s, ended: ctx.Done()}) }()
	}

	var failure error
	running := s.acceptors
	select {
	case <-ctx.Done():
	case failure = <-served:
		running--
	}
	s.drain(srv)
	cancel()
	for range running {
		if err := <-served; failure == nil {
			failure = err
		}
	}
	<-rest
	close(s.ended)
	if failure != nil {
		failure = fmt.Errorf("cannot serve %s on %s: %w", s.via.Kind, s.via.Listen, failure)
	}
	s.wg.Wait()
	if err := s.peers.Close(); err != nil {
		s.log.log.WithField(logrus.ErrorKey, err.Error()).Warn("cannot close what identifies callers")
	}
	return failure
}

// drain stops accepting, waits for answers in flight and then closes what is
// left. Connections that never sent a request have none in flight; net/http
// would wait seconds for them.
func (s *Server) drain(srv *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	s.draining.Store(true)
	_ = s.closeListener()
	for s.answering() && ctx.Err() == nil { // microseconds, but for a client that does not read
		time.Sleep(time.Millisecond)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(ctx) }()
	silent := time.Now().Add(silentTimeout)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for running, left := true, true; running || left; {
		select {
		case err := <-done:
			running = false
			if err != nil {
				_ = srv.Close()
			}
		case <-ctx.Done():
			left = s.dismiss(true, true) && running
		case now := <-tick.C:
			left = s.dismiss(!now.Before(silent), false)
		}
	}
}

// dismiss closes the connections that nothing is being answered on, those
// that never said anything only if silent is set, and all that attend has if
// all is. It reports whether attend had any.
func (s *Server) dismiss(silent, all bool) (left bool) {
	for _, c := range s.limits.of(s) {
		switch plain := c.plain.Load(); {
		case plain && (all || c.spoke.Load() && !c.busy.Load()), silent && !c.spoke.Load():
			_ = c.Close()
			left = left || plain
		case plain:
			left = true
		}
	}
	return left
}

// answering reports whether a connection is repeating an answer. net/http
// takes such a connection for an idle one, and would close it.
func (s *Server) answering() bool {
	for _, c := range s.limits.of(s) {
		if c.answering.Load() {
			return true
		}
	}
	return false
}

// connState follows a connection's life: net/http calls it, with StateNew
// from the accepting goroutine, so that no connection is added once Serve
// has returned.
func (s *Server) connState(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateNew:
		s.wg.Add(1)
	case http.StateActive:
		c.busy.Store(true)
		if !c.spoke.Load() {
			c.spoke.Store(true)
		}
	case http.StateIdle:
		c.busy.Store(false)
	case http.StateClosed:
		s.limits.remove(c)
		s.wg.Done()
	}
}

// errorLog carries what net/http complains of into our log.
type errorLog struct{ n *notices }

func (e errorLog) Write(p []byte) (int, error) {
	e.n.log.WithField(logrus.ErrorKey, string(trimmed(p))).Warn("the HTTP server complains")
	return len(p), nil
}

func trimmed(p []byte) []byte {
	for len(p) > 0 && p[len(p)-1] == '\n' {
		p = p[:len(p)-1]
	}
	return p
}
