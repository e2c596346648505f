package imds

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
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
	writeTimeout      = 60 * time.Second // of a whole request: longer than any wait
	drainTimeout      = 5 * time.Second  // at the end, for answers in flight
	silentTimeout     = 100 * time.Millisecond
)

// Server serves one listener. Run serves; nothing runs before it.
type Server struct {
	listener net.Listener
	as       form
	via      cred.Endpoint
	guard    *guard
	routes   *tree
	base     accessKind // what it takes to learn that a path does not exist
	wait     time.Duration

	broker            Getter
	check             func(c peer.Caller, profile string, via cred.Endpoint) error // nil: the broker alone judges
	profile           string                                                       // of a metadata endpoint
	allowUnidentified bool
	peers             *peer.Resolver
	identify          func(net.Conn) (peer.Caller, error)
	facts             func() Facts
	authorize         func(x *exchange, need accessKind) *fault
	again             func(c *conn, now time.Time) (*rendered, time.Time) // see repeat.go
	forget            func()                                              // drops whatever holds a secret
	log               *notices
	ttl               atomic.Pointer[seconds]
	repeated          atomic.Uint64 // answers, for tests
	draining          atomic.Bool   // no answer is repeated any more

	wg    sync.WaitGroup // one for each connection
	mu    sync.Mutex     // guards conns
	conns map[*conn]struct{}
}

type connKey struct{}

// Listen binds address ("127.0.0.1:9911") for a server. It is net.Listen
// without TCP keep-alives: callers are on this machine, idle connections are
// closed in a minute anyway, and the four system calls that switch them on are
// felt by clients that connect for each request.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1}
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
		WriteTimeout:                 writeTimeout,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if own, ok := c.(*conn); ok {
				s.identifyPeer(own)
			}
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: s.connState,
		ErrorLog:  log.New(errorLog{s.log}, "", 0),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(tracked{s.listener, s}) }()

	var failure error
	select {
	case <-ctx.Done():
	case failure = <-served:
		served <- failure
		failure = fmt.Errorf("cannot serve %s on %s: %w", s.via.Kind, s.via.Listen, failure)
	}
	s.drain(srv)
	cancel()
	if err := <-served; failure == nil && !errors.Is(err, http.ErrServerClosed) {
		failure = fmt.Errorf("cannot serve %s on %s: %w", s.via.Kind, s.via.Listen, err)
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
	for s.answering() && ctx.Err() == nil { // microseconds, but for a client that does not read
		time.Sleep(time.Millisecond)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(ctx) }()
	silent := time.NewTimer(silentTimeout)
	defer silent.Stop()
	for {
		select {
		case <-silent.C:
			s.mu.Lock()
			for c := range s.conns {
				if !c.spoke.Load() {
					_ = c.Close()
				}
			}
			s.mu.Unlock()
		case err := <-done:
			if err != nil {
				_ = srv.Close()
			}
			return
		}
	}
}

// answering reports whether a connection is repeating an answer. net/http
// takes such a connection for an idle one, and would close it.
func (s *Server) answering() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.answering.Load() {
			return true
		}
	}
	return false
}

// connState keeps the list of connections: net/http calls it, with StateNew
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
		s.mu.Lock()
		s.conns[c] = struct{}{}
		s.mu.Unlock()
	case http.StateActive:
		if !c.spoke.Load() {
			c.spoke.Store(true)
		}
	case http.StateClosed:
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.wg.Done()
	}
}

// identifyPeer asks the kernel who is at the other end, once for a
// connection. It runs on the accepting goroutine: what a look-up needs of
// stack is there already, where a new connection's would have to grow.
func (s *Server) identifyPeer(c *conn) {
	caller, err := s.identify(c.Conn)
	if err == nil && !caller.Identified() {
		err = peer.ErrUnidentified
	}
	if err != nil {
		caller = peer.Caller{} // what came with an error is not believed
	}
	c.caller, c.callerErr = caller, err
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
