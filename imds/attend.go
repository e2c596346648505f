package imds

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// maxResting is how many goroutines wait for the next connection: one that has
// attended another has a stack of the right size.
const maxResting = 8

// accept takes connections until the listener is closed, and has each attended
// on a goroutine of its own. It returns why the listener failed.
func (s *Server) accept(ctx context.Context, a *acceptor) error {
	for {
		c, err := a.next()
		switch {
		case err != nil && (ctx.Err() != nil || s.draining.Load()):
			return nil
		case err != nil:
			return err
		}
		select {
		case s.fresh <- c:
		default:
			s.wg.Go(func() {
				for c := c; c != nil; c = s.rest() {
					s.attend(c)
				}
			})
		}
	}
}

// rest waits for the next connection. It returns nil when enough others do,
// and when the server ends.
func (s *Server) rest() *conn {
	if s.resting.Add(1) > maxResting {
		s.resting.Add(-1)
		return nil
	}
	defer s.resting.Add(-1)
	select {
	case c := <-s.fresh:
		return c
	case <-s.ended:
		return nil
	}
}

// attend answers the plain requests of a connection, each before the next is
// read. With the first request of another form the connection is given to
// net/http, which begins with that request.
func (s *Server) attend(c *conn) {
	given := false
	defer func() {
		if e := recover(); e != nil && e != http.ErrAbortHandler {
			s.log.log.WithFields(logrus.Fields{"panic": e, "stack": string(debug.Stack())}).Error("a request's handler panicked")
		}
		if !given {
			_ = c.Close()
			s.limits.remove(c)
		}
	}()
	c.plain.Store(true)
	if c.wire != nil && !s.handshake(c) {
		return
	}
	p := s.plains.Get().(*plain)
	defer s.plains.Put(p)
	defer p.forget()
	for n := c.receive(p.in, readHeaderTimeout); n > 0; n = c.receive(p.in, idleTimeout) {
		c.busy.Store(true)
		if c.spoke.Load() && s.draining.Load() {
			return // it was idle, and drain may have closed it by now
		}
		c.spoke.Store(true)
		c.heard.Store(true)
		switch s.converse(c, p, p.in[:n]) {
		case notPlain:
			if c.wire == nil && isTLS(p.in) {
				s.log.handshake("TLS, and this endpoint has no certificate", c, time.Now())
				c.refuseRaw("this endpoint speaks plain http")
				return
			}
			c.given = bytes.Clone(p.in[:n])
		case answeredLast:
			return
		}
		if len(c.given) > 0 {
			given = s.handOver(c)
			return
		}
		c.busy.Store(false)
	}
}

// conversed is what became of a request.
type conversed uint8

const (
	answered     conversed = iota
	answeredLast           // the connection is to be closed
	notPlain               // nothing was done
)

// converse answers a request if it is plain.
func (s *Server) converse(c *conn, p *plain, b []byte) conversed {
	c.mu.Lock()
	repeated := c.repeater.repeated(b)
	c.mu.Unlock()
	if repeated && c.answerAgain() {
		return answered
	}
	if !p.read(b) {
		return notPlain
	}
	c.mu.Lock()
	c.repeater.feed(b)
	c.mu.Unlock()
	s.serve(c, &p.answer, p.r)
	last := p.r.Close || p.answer.closes() || s.draining.Load()
	now := time.Now()
	p.out = p.answer.append(p.out[:0], s.dateOf(now), last)
	p.answer.reset()
	_, err := c.writeAt(p.out, now)
	clear(p.out)
	if last || err != nil {
		return answeredLast
	}
	return answered
}

// handOver gives the connection to net/http, with what was read of it. It
// reports false when the server ends instead.
func (s *Server) handOver(c *conn) bool {
	c.spoke.Store(false)           // net/http says when there is a request
	c.spare.Store(!whole(c.given)) // until it reads on
	c.busy.Store(false)
	c.plain.Store(false)
	select {
	case s.handed.conns <- c:
		return true
	case <-s.handed.closed:
		return false
	}
}

// day is the value of a Date header, and the Unix time that it says.
type day struct {
	at   int64
	text string
}

// dateOf is the Date header's value, kept for its second.
func (s *Server) dateOf(now time.Time) string {
	d := s.date.Load()
	if at := now.Unix(); d == nil || d.at != at {
		d = &day{at, now.UTC().Format(http.TimeFormat)}
		s.date.Store(d)
	}
	return d.text
}

// handed is the listener that net/http accepts from.
type handed struct {
	conns  chan *conn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func newHanded(addr net.Addr) *handed {
	return &handed{conns: make(chan *conn), closed: make(chan struct{}), addr: addr}
}

// Accept returns the next connection that was handed over.
func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *handed) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr is that of the real listener.
func (h *handed) Addr() net.Addr { return h.addr }

// receive reads what comes next on a connection that net/http does not have,
// within a time; 0 bytes mean that nothing came, or the end.
func (c *conn) receive(p []byte, within time.Duration) int {
	until := time.Now().Add(within)
	c.mu.Lock()
	if late := until.Sub(c.readApplied); late < 0 || late > within/16 || c.readApplied.IsZero() {
		c.readWanted = until
		if err := c.applyRead(); err != nil {
			c.mu.Unlock()
			return 0
		}
	}
	c.reading = true
	c.mu.Unlock()
	n, _ := c.Conn.Read(p)
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
	return n
}

// listen calls leave when the client closes its end while a handler waits.
// What it sends instead is kept. stop ends it.
func (c *conn) listen(leave func()) (stop func()) {
	_ = c.Conn.SetReadDeadline(time.Time{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		var b [1]byte
		n, err := c.Conn.Read(b[:])
		if n == 1 {
			c.given = b[:]
		} else if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			leave()
		}
	}()
	return func() {
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
		<-done
		c.mu.Lock()
		defer c.mu.Unlock()
		c.readWanted = time.Time{}
		_ = c.applyRead()
	}
}
