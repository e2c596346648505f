package metadata

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	dialTimeout = time.Second
	maxAnswer   = 64 << 10
)

// errOwn: the address is one of keyfob's own endpoints.
var errOwn = errors.New("that is an endpoint of keyfob itself")

// errForbidden: the address is none that credentials may come from by http.
var errForbidden = errors.New("credentials come by plain http from this machine's own addresses and those of ECS and EKS only")

// client calls one service.
type client struct {
	base  *url.URL
	d     *Deps
	limit time.Duration // of one request
	// may says which addresses may be connected to; nil is any.
	may  func(netip.Addr) bool
	dial func(ctx context.Context, network, addr string) (net.Conn, error) // nil outside tests
}

// connect opens a connection to where a name leads, after looking where that
// is.
func (c *client) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	if c.dial != nil {
		return c.dial(ctx, network, addr)
	}
	d := net.Dialer{Timeout: dialTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		if c.d.Own != nil && c.d.Own(address) {
			return errOwn
		}
		if c.may == nil {
			return nil
		}
		if a, err := netip.ParseAddrPort(address); err != nil || !c.may(a.Addr().Unmap().WithZone("")) {
			return errForbidden
		}
		return nil
	}}
	return d.DialContext(ctx, network, addr)
}

// reach opens a plain connection and closes it.
func (c *client) reach(ctx context.Context) error {
	conn, err := c.connect(ctx, "tcp", c.address())
	if err != nil {
		return err
	}
	return conn.Close()
}

// address is host:port.
func (c *client) address() string {
	port := c.base.Port()
	if port == "" {
		port = "80"
		if c.base.Scheme == "https" {
			port = "443"
		}
	}
	return net.JoinHostPort(c.base.Hostname(), port)
}

// upstream names the service.
func (c *client) upstream() string { return c.base.Scheme + "://" + c.base.Host }

// response is a whole answer.
type response struct {
	status int
	body   []byte
}

// session is the connection of one fetch.
type session struct {
	*client
	http *http.Client
}

func (c *client) open() *session {
	return &session{c, &http.Client{
		Transport: &http.Transport{
			DialContext: c.connect, DisableCompression: true, MaxConnsPerHost: 1, MaxResponseHeaderBytes: 16 << 10,
			TLSHandshakeTimeout: dialTimeout, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (s *session) close() { s.http.CloseIdleConnections() }

// do makes one request to a path of the service. The error is that of the
// network, for words.
func (s *session) do(ctx context.Context, method, path string, header ...string) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	// The path is kept byte for byte.
	req, err := http.NewRequestWithContext(ctx, method, s.base.Scheme+"://"+s.base.Host+path, nil)
	if err != nil {
		return response{}, errors.New("that is no URL")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Header.Set("User-Agent", "keyfob")
	resp, err := s.http.Do(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("its answer is longer than %d bytes", maxAnswer)
	}
	return response{resp.StatusCode, body}, err
}

// words says why no answer came.
func (s *session) words(err error) string {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, errOwn):
		return s.base.Host + " is keyfob itself, which would ask itself for ever"
	case errors.Is(err, errForbidden):
		return s.base.Host + " is not allowed: " + errForbidden.Error()
	case errors.As(err, &dns):
		return "there is no host " + printable(dns.Name)
	case errors.As(err, &timeout) && timeout.Timeout():
		return s.base.Host + " did not answer within " + s.limit.String()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return s.base.Host + " closed the connection without an answer"
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return s.base.Host + " can't be reached: " + printable(err.Error())
}

// parseBase reads the URL of a service.
func parseBase(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Opaque != "" || u.Fragment != "" {
		return nil, errors.New("is no http URL of a service")
	}
	if p := u.Port(); p == "" && strings.HasSuffix(u.Host, ":") {
		return nil, errors.New("is no http URL of a service")
	}
	return u, nil
}
