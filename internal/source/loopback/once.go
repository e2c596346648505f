package loopback

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"
)

// Redirect sends one browser on to an address that must not stand in an
// argument list, where `ps` shows it: a console's sign-in address is good for
// whoever has it.
//
// What stands there instead, URL, is good for one request, and no longer than
// Wait runs. Who reads it there may still be faster than the browser, which
// then shows that it came too late; where that matters Allow tells users
// apart.
type Redirect struct {
	// Allow says whether the program at the other end of a connection may
	// have the address, nil for any of this machine. A refusal uses nothing
	// up. It is set before Wait.
	Allow func(net.Conn) bool
	// Log is told of what was refused; nil for none. It is set before Wait.
	Log *logrus.Entry

	listener net.Listener
	host     string // 127.0.0.1:PORT
	path     string // unguessable
	target   string
	waited   atomic.Bool
}

// Once returns a Redirect to target, an absolute http or https address. It
// binds a free port of 127.0.0.1. Close it, or Wait.
func Once(target string) (*Redirect, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("cannot send a browser on: the address is none of the web") // the cause quotes it
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot listen on 127.0.0.1 for the browser: %w", err)
	}
	return &Redirect{listener: l, host: l.Addr().String(), path: "/open/" + rand.Text(), target: u.String()}, nil
}

// URL is what the browser is to open.
func (r *Redirect) URL() string { return "http://" + r.host + r.path }

// Wait answers until a browser was sent on or ctx ended, and returns after
// the listener is closed: a Redirect is good for one Wait. Errors: ErrClosed
// after Close or an earlier Wait; ctx's.
func (r *Redirect) Wait(ctx context.Context) error {
	if r.waited.Swap(true) {
		return ErrClosed
	}
	h := &sender{r: r, path: sha256.Sum256([]byte(r.path)), sent: make(chan struct{})}
	return serve(ctx, r.listener, h, h.sent)
}

// Close closes the listener; a Wait under way returns. It may be called
// again.
func (r *Redirect) Close() error {
	if err := r.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// sender answers the requests of one Wait.
type sender struct {
	r    *Redirect
	path [sha256.Size]byte // a hash, so that the comparison takes the same time for any length
	sent chan struct{}

	mu      sync.Mutex // guards over and refused
	over    bool
	refused int
}

// ServeHTTP implements http.Handler.
func (s *sender) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	sum := sha256.Sum256([]byte(r.URL.Path))
	right := subtle.ConstantTimeCompare(sum[:], s.path[:]) == 1
	switch {
	// The request line's own host would go before the header.
	case r.URL.Host != "" || r.URL.Scheme != "" || r.Host != s.r.host:
		s.refuse(rw, r, http.StatusBadRequest, "its Host is another one")
		return
	case !right:
		page(rw, http.StatusNotFound, refusedPage) // browsers look for icons and more
		return
	case r.Method != http.MethodGet:
		rw.Header().Set("Allow", http.MethodGet)
		s.refuse(rw, r, http.StatusMethodNotAllowed, "its method is none of a browser that opens a page")
		return
	// Whoever types or is handed an address comes from no page.
	case r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "" || foreign(r.Header.Get("Sec-Fetch-Site")):
		s.refuse(rw, r, http.StatusForbidden, "it comes from a web page")
		return
	case s.r.Allow != nil && !s.allowed(r):
		s.refuse(rw, r, http.StatusForbidden, "its program is not the person's")
		return
	}
	s.mu.Lock()
	first := !s.over
	s.over = true
	s.mu.Unlock()
	if !first {
		page(rw, http.StatusGone, latePage)
		return
	}
	h := rw.Header()
	h.Set("Location", s.r.target)
	page(rw, http.StatusFound, onPage)
	// The answer has left: what follows closes the connection.
	close(s.sent)
}

func (s *sender) allowed(r *http.Request) bool {
	conn, ok := r.Context().Value(connKey{}).(net.Conn)
	return ok && s.r.Allow(conn)
}

// foreign reports whether Sec-Fetch-Site says that a page, not a person,
// opens the address.
func foreign(site string) bool { return site != "" && site != "none" }

func (s *sender) refuse(rw http.ResponseWriter, r *http.Request, status int, why string) {
	s.mu.Lock()
	s.refused++
	n := s.refused
	s.mu.Unlock()
	if s.r.Log != nil && n <= maxLogged {
		s.r.Log.WithFields(logrus.Fields{"remote": r.RemoteAddr, "status": status}).Warn("a request for the browser's redirect was refused: " + why)
	}
	page(rw, status, refusedPage)
}
