package loopback

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
)

// Path is that of the redirect address.
const Path = "/oauth/callback"

// Limits of a connection: a browser on this machine needs none of them.
const (
	readTimeout  = 10 * time.Second
	writeTimeout = 5 * time.Second
	maxHeader    = 64 << 10 // a code is 4 KiB at most
	maxLogged    = 20       // refused requests of one sign-in
)

var (
	// ErrRefused: the person, or the provider on his behalf, said no
	// (error=access_denied).
	ErrRefused = errors.New("refused in the browser")
	// ErrPortTaken: another program listens on the port.
	ErrPortTaken = errors.New("another program has the port")
	// ErrClosed: the Callback was closed, or has been waited for before.
	ErrClosed = errors.New("the listener for the browser's answer is closed")
)

// AnswerError is an answer that says that the sign-in failed otherwise than
// by the person's no: an error code of RFC 6749 §4.1.2.1 or OpenID Connect.
type AnswerError struct {
	Code        string // printable
	Description string // one printable line, "" for none
}

func (e *AnswerError) Error() string {
	if e.Description == "" {
		return "the sign-in page answered " + e.Code
	}
	return "the sign-in page answered " + e.Code + ": " + e.Description
}

// Callback is a listener for one answer.
type Callback struct {
	// Log is told of what was refused, without a word of what it held; nil
	// for none. It is set before Wait.
	Log *logrus.Entry

	listener net.Listener
	host     string // 127.0.0.1:PORT
	waited   atomic.Bool
}

// Listen binds 127.0.0.1:port, a free port for 0. From then on connections
// are accepted by the kernel; they are answered while Wait runs. Close it.
// Errors: one that Is ErrPortTaken, with a hint, or what the system says.
func Listen(port int) (*Callback, error) {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		if taken(err) {
			err = fmt.Errorf("cannot listen on 127.0.0.1:%d for the browser's answer: %w", port, ErrPortTaken)
			return nil, cred.WithHint(err, "end the program that listens there, or set another port")
		}
		return nil, fmt.Errorf("cannot listen on 127.0.0.1:%d for the browser's answer: %w", port, err)
	}
	return &Callback{listener: l, host: l.Addr().String()}, nil
}

// RedirectURI is where the sign-in page must send the browser.
func (c *Callback) RedirectURI() string { return "http://" + c.host + Path }

// Wait answers requests until the answer of the sign-in with this state
// came, or ctx ended, and returns after everything that it started has ended
// and the listener is closed: a Callback is good for one Wait. It returns the
// answer's parameters, which hold exactly one code and the state.
// Errors: ErrRefused; *AnswerError; ErrClosed after Close or an earlier Wait;
// ctx's error.
func (c *Callback) Wait(ctx context.Context, state string) (url.Values, error) {
	if state == "" {
		return nil, errors.New("cannot wait for a browser's answer: it needs a state")
	}
	if c.waited.Swap(true) {
		return nil, ErrClosed
	}
	w := &waiter{host: c.host, state: sha256.Sum256([]byte(state)), log: c.Log, came: make(chan struct{})}
	if err := serve(ctx, c.listener, w, w.came); err != nil {
		return nil, err
	}
	return w.values, w.err
}

// serve answers requests until came is closed or ctx ends, and returns after
// everything that it started has ended and the listener is closed. Errors:
// ErrClosed, ctx's.
func serve(ctx context.Context, listener net.Listener, handler http.Handler, came <-chan struct{}) error {
	var conns sync.WaitGroup
	server := &http.Server{
		Handler:                      handler,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     stdlog.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				conns.Done()
			}
		},
	}
	server.SetKeepAlivesEnabled(false)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	var err error
	running := true
	select {
	case <-came:
	case <-ctx.Done():
		err = ctx.Err()
	case err = <-served:
		running = false
		if errors.Is(err, net.ErrClosed) {
			err = ErrClosed
		}
	}
	// Not Shutdown: that waits for connections which a browser opens in
	// advance and never uses. The answer's page has been sent by now.
	_ = server.Close()
	_ = listener.Close()
	if running {
		<-served
	}
	conns.Wait()
	select {
	case <-came: // also where it came at the same moment
		return nil
	default:
		return err
	}
}

// connKey is that of a request's connection in its context.
type connKey struct{}

// Close closes the listener; a Wait under way returns. It may be called
// again.
func (c *Callback) Close() error {
	if err := c.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// waiter answers the requests of one Wait.
type waiter struct {
	host  string
	state [sha256.Size]byte // a hash, so that the comparison takes the same time for any length
	log   *logrus.Entry

	mu      sync.Mutex // guards over and refused
	over    bool
	refused int
	// values and err are written before came is closed, and not after.
	came   chan struct{}
	values url.Values
	err    error
}

// ServeHTTP implements http.Handler.
func (w *waiter) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	q, status, why := w.judge(r)
	if why != "" {
		w.note(r, status, why)
		if status == http.StatusMethodNotAllowed {
			rw.Header().Set("Allow", http.MethodGet)
		}
		page(rw, status, refusedPage)
		return
	}
	if status != http.StatusOK {
		page(rw, status, refusedPage)
		return
	}
	values, err := outcome(q)
	w.mu.Lock()
	first := !w.over
	w.over = true
	w.mu.Unlock()
	if !first {
		page(rw, http.StatusGone, latePage)
		return
	}
	switch {
	case errors.Is(err, ErrRefused):
		page(rw, http.StatusOK, deniedPage)
	case err != nil:
		page(rw, http.StatusOK, failedPage)
	default:
		page(rw, http.StatusOK, donePage)
	}
	// The page has left: what follows closes the connection.
	w.values, w.err = values, err
	close(w.came)
}

// note logs a refusal.
func (w *waiter) note(r *http.Request, status int, why string) {
	if w.log == nil {
		return
	}
	w.mu.Lock()
	w.refused++
	n := w.refused
	w.mu.Unlock()
	log := w.log.WithFields(logrus.Fields{"remote": r.RemoteAddr, "status": status})
	switch {
	case n <= maxLogged:
		log.Warn("a request to the sign-in's redirect address was refused: " + why)
	case n == maxLogged+1:
		log.Warn("further requests to the sign-in's redirect address that are refused are not logged")
	}
}

// judge returns the parameters of an answer with the right state, and 200;
// or the status of a refusal and, if somebody should know of it, why.
func (w *waiter) judge(r *http.Request) (q url.Values, status int, why string) {
	// The request line's own host would go before the header.
	if r.URL.Host != "" || r.URL.Scheme != "" || r.Host != w.host {
		return nil, http.StatusBadRequest, "its Host is another one"
	}
	if r.URL.Path != Path || r.URL.RawPath != "" {
		return nil, http.StatusNotFound, "" // browsers look for icons and more
	}
	if r.Method != http.MethodGet {
		return nil, http.StatusMethodNotAllowed, "its method is none of a redirect"
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return nil, http.StatusBadRequest, "it has a body"
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, http.StatusBadRequest, "its query can't be read"
	}
	for _, name := range []string{"state", "code", "error"} {
		if len(q[name]) > 1 {
			return nil, http.StatusBadRequest, "it has more than one " + name
		}
	}
	sum := sha256.Sum256([]byte(q.Get("state")))
	if subtle.ConstantTimeCompare(sum[:], w.state[:]) != 1 {
		return nil, http.StatusBadRequest, "its state is not that of the sign-in"
	}
	if (q.Get("code") == "") == (q.Get("error") == "") {
		return nil, http.StatusBadRequest, "it has neither a code nor an error, or both"
	}
	return q, http.StatusOK, ""
}

// outcome is what an answer says.
func outcome(q url.Values) (url.Values, error) {
	switch code := q.Get("error"); code {
	case "":
		return q, nil
	case "access_denied":
		return nil, ErrRefused
	default:
		return nil, &AnswerError{Code: printable(code, 80), Description: printable(q.Get("error_description"), 200)}
	}
}

// printable is one line of s that no terminal takes for a command.
func printable(s string, limit int) string {
	var b strings.Builder
	for _, r := range s {
		if b.Len() >= limit {
			b.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			r = ' '
		}
		b.WriteRune(r)
	}
	return strings.TrimRight(strings.Join(strings.Fields(b.String()), " "), ".")
}
