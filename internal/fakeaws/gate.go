package fakeaws

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Outage is a way of not being there.
type Outage string

// The outages.
const (
	Up      Outage = ""        // no outage
	Refused Outage = "refused" // connections are refused, open ones closed
	Closed  Outage = "closed"  // connections are accepted and closed at once
	Silent  Outage = "silent"  // connections are accepted and nothing is ever answered
)

// SetOutage begins or, with Up, ends an outage. Refused closes the listeners
// made by Start and Listen; other servers of Handler close connections
// instead. The error says that a listener's address could not be had again.
func (s *Server) SetOutage(o Outage) error {
	switch o {
	case Up, Refused, Closed, Silent:
	default:
		return fmt.Errorf("there is no outage %q", o)
	}
	s.mu.Lock()
	s.set.outage = o
	gates := make([]*gate, 0, len(s.gates))
	for g := range s.gates {
		gates = append(gates, g)
	}
	s.mu.Unlock()
	var errs []error
	for _, g := range gates {
		errs = append(errs, g.set(o))
	}
	return errors.Join(errs...)
}

// cut ends a request that arrives in an outage, on whatever server.
func (s *Server) cut(w http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	o := s.set.outage
	s.mu.Unlock()
	switch o {
	case Up:
		return false
	case Silent:
		<-r.Context().Done()
	}
	hangUp(w)
	return true
}

// Start serves Handler on a free port of 127.0.0.1 until stop is called or
// ctx ends. url has no slash at its end. stop waits until everything has
// ended; it may be called twice.
func (s *Server) Start(ctx context.Context) (url string, stop func(), err error) {
	return s.Listen(ctx, "127.0.0.1:0", nil)
}

// Listen is Start with an address, and with TLS by a certificate of ca if
// that is not nil.
func (s *Server) Listen(ctx context.Context, addr string, ca *CA) (url string, stop func(), err error) {
	g := &gate{conns: map[net.Conn]bool{}, queue: make(chan net.Conn), done: make(chan struct{})}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return "", nil, fmt.Errorf("cannot listen on %s: %w", addr, err)
	}
	g.addr = ln.Addr()
	g.open(ln)
	s.mu.Lock()
	s.gates[g] = true
	o := s.set.outage
	s.mu.Unlock()
	_ = g.set(o) // can't fail: the address is in hand
	var front net.Listener = g
	scheme := "http"
	if ca != nil {
		scheme = "https"
		front = tls.NewListener(g, &tls.Config{Certificates: []tls.Certificate{ca.server}, MinVersion: tls.VersionTLS12})
	}
	var busy inFlight
	srv := &http.Server{Handler: busy.track(s.Handler()), ReadHeaderTimeout: 30 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
		// Clients that distrust the certificate or leave early are part of
		// the tests.
		ErrorLog: log.New(io.Discard, "", 0)}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(front) })
	var once sync.Once
	end := func() {
		once.Do(func() {
			s.mu.Lock()
			delete(s.gates, g)
			s.mu.Unlock()
			_ = srv.Close()
			g.shut()
			wg.Wait()
			busy.wait()
		})
	}
	leave := context.AfterFunc(ctx, end)
	return scheme + "://" + g.addr.String(), func() { leave(); end() }, nil
}

// inFlight joins the handlers that http.Server.Close leaves running.
type inFlight struct {
	mu      sync.Mutex // guards ending, and Add against Wait
	ending  bool
	running sync.WaitGroup
}

func (f *inFlight) track(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		if f.ending {
			f.mu.Unlock()
			return
		}
		f.running.Add(1)
		f.mu.Unlock()
		defer f.running.Done()
		h.ServeHTTP(w, r)
	})
}

func (f *inFlight) wait() {
	f.mu.Lock()
	f.ending = true
	f.mu.Unlock()
	f.running.Wait()
}

// gate is a listener that can be closed and opened again on its address
// without its http.Server noticing.
type gate struct {
	addr  net.Addr
	queue chan net.Conn // accepted connections on their way to the server
	done  chan struct{} // closed by Close
	wg    sync.WaitGroup
	turn  sync.Mutex // one change of the outage at a time; taken before mu

	// mu guards the rest.
	mu     sync.Mutex
	inner  net.Listener // nil while refused
	outage Outage
	conns  map[net.Conn]bool // what is open
	closed bool
}

// Accept hands a connection to the server.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case c := <-g.queue:
		return c, nil
	case <-g.done:
		return nil, net.ErrClosed
	}
}

// Addr is the address, which is kept while the gate is shut.
func (g *gate) Addr() net.Addr { return g.addr }

// Close ends the gate.
func (g *gate) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	close(g.done)
	inner, open := g.inner, g.openLocked()
	g.mu.Unlock()
	if inner != nil {
		_ = inner.Close()
	}
	for _, c := range open {
		_ = c.Close() // takes mu
	}
	return nil
}

func (g *gate) openLocked() []net.Conn {
	open := make([]net.Conn, 0, len(g.conns))
	for c := range g.conns {
		open = append(open, c)
	}
	return open
}

func (g *gate) shut() {
	_ = g.Close()
	g.wg.Wait()
}

// open accepts from a listener until that is closed.
func (g *gate) open(ln net.Listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		_ = ln.Close()
		return
	}
	g.inner = ln
	g.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			g.take(c)
		}
	})
}

func (g *gate) take(c net.Conn) {
	g.mu.Lock()
	o := g.outage
	if g.closed || o == Closed || o == Refused {
		g.mu.Unlock()
		_ = c.Close()
		return
	}
	t := &tracked{Conn: c, gate: g}
	g.conns[t] = true
	g.mu.Unlock()
	if o == Silent {
		return // kept open until the outage ends
	}
	select {
	case g.queue <- t:
	case <-g.done:
		_ = t.Close()
	}
}

// set changes the outage. Whatever was open is closed, so that nobody talks
// on over a kept connection.
func (g *gate) set(o Outage) error {
	g.turn.Lock()
	defer g.turn.Unlock()
	g.mu.Lock()
	if g.closed || g.outage == o {
		g.mu.Unlock()
		return nil
	}
	g.outage = o
	old, inner := g.openLocked(), g.inner
	if o == Refused {
		g.inner = nil
	}
	g.mu.Unlock()
	for _, c := range old {
		_ = c.Close()
	}
	if o == Refused {
		if inner != nil {
			_ = inner.Close()
		}
		return nil
	}
	if inner != nil {
		return nil
	}
	ln, err := net.Listen("tcp", g.addr.String())
	for i := 0; err != nil && i < 20; i++ { // the kernel may still hold it for a moment
		time.Sleep(50 * time.Millisecond)
		ln, err = net.Listen("tcp", g.addr.String())
	}
	if err != nil {
		return fmt.Errorf("cannot end the outage: %w", err)
	}
	g.open(ln)
	return nil
}

// tracked is a connection that leaves the gate's list when it closes.
type tracked struct {
	net.Conn
	gate *gate
}

func (t *tracked) Close() error {
	t.gate.mu.Lock()
	delete(t.gate.conns, t)
	t.gate.mu.Unlock()
	return t.Conn.Close()
}
