package metrics

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	maxConns   = 32
	maxHeaders = 8 << 10
	// A scrape is one short request; whoever takes longer is cut off.
	readTimeout  = 5 * time.Second
	writeTimeout = 10 * time.Second
	idleTimeout  = 2 * time.Minute // Prometheus keeps its connection from scrape to scrape
	endTimeout   = 2 * time.Second

	contentType = "text/plain; version=0.0.4; charset=utf-8"
)

// Serve answers GET /metrics on l until ctx ends, then joins what it started
// and returns nil. It closes l. Any other error is the listener's.
func (m *Metrics) Serve(ctx context.Context, l net.Listener) error {
	s := &http.Server{
		Handler:           m.handler(l.Addr()),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaders,
		ErrorLog:          log.New(io.Discard, "", 0), // whatever it says is about a broken client
		// An OPTIONS * would be answered without the guard.
		DisableGeneralOptionsHandler: true,
	}
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)

	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-done:
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			_ = s.Close()
		}
	})
	err := s.Serve(&limited{Listener: l, free: make(chan struct{}, maxConns)})
	close(done)
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
		return nil
	}
	return err
}

// handler guards, and answers one path. It stands in place of a ServeMux,
// which would redirect and tidy up paths.
func (m *Metrics) handler(addr net.Addr) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		switch {
		case !strings.HasPrefix(r.RequestURI, "/") || foreign(r.Header) || !hostAllowed(r.Host, addr):
			http.Error(w, "forbidden", http.StatusForbidden)
		case r.URL.EscapedPath() != "/metrics":
			http.Error(w, "not found", http.StatusNotFound)
		case r.Method != http.MethodGet:
			h.Set("Allow", http.MethodGet)
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		case r.ContentLength != 0:
			h.Set("Connection", "close") // what follows may be the body
			http.Error(w, "a body was not expected", http.StatusBadRequest)
		default:
			h.Set("Content-Type", contentType)
			_, _ = w.Write(m.Append(nil))
		}
	})
}

// foreign: a browser or a proxy has added something. A scraper adds none of
// these.
func foreign(h http.Header) bool {
	for name := range h {
		switch name {
		case "Origin", "Referer", "Forwarded", "Via", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override":
			return true
		}
		if strings.HasPrefix(name, "Sec-Fetch-") || strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}

// hostAllowed: over TCP the Host is this machine by its loopback name or
// address, with the listener's port or none, so that a name that somebody
// else's DNS points here is refused. No browser gets to a Unix socket.
func hostAllowed(host string, addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return addr.Network() == "unix"
	}
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if p := tcp.AddrPort().Port(); port != portText(p) {
			return false
		}
		name = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Zone() == "" && ip.Unmap().IsLoopback()
}

// limited closes connections beyond so many at once: they would only hold
// descriptors.
type limited struct {
	net.Listener
	free chan struct{} // holds one for each connection
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.free <- struct{}{}:
			return &limitedConn{Conn: c, release: func() { <-l.free }}, nil
		default:
			_ = c.Close()
		}
	}
}

type limitedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}
