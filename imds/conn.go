package imds

import (
	"crypto/tls"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"keyfob/internal/peer"
)

// conn is one connection, with what is remembered for its next request.
//
// It also makes deadlines cheap. net/http sets eight for each request; most
// are replaced before anybody reads or writes. So a deadline is noted, and
// given to the kernel's poller when a Read or Write is about to need it.
//
// While a handler works net/http reads one byte, to see whether the client
// leaves. That read begins when somebody waits for the answer, and not before:
// an answer that is ready is sooner written than the read begun and ended.
type conn struct {
	net.Conn           // what requests are read from: the socket, or TLS on it
	raw       net.Conn // the socket
	wire      *wire    // that of a TLS connection, nil for a plain one
	server    *Server
	spoke     atomic.Bool // a request was read from it
	busy      atomic.Bool // a request is being judged or answered
	spare     atomic.Bool // which may be ended before that: it is the client that makes it last
	answering atomic.Bool // an answer is being repeated, which net/http does not know of
	heard     atomic.Bool // something was read from it since Limits last looked
	plain     atomic.Bool // attend has it, not net/http

	mu           sync.Mutex // guards the deadlines and the repeater; held for no longer than it takes to set one
	reading      bool       // a Read is under way: at most one is at a time
	writing      bool       // likewise
	writeBegan   time.Time  // the last one
	readWanted   time.Time
	readApplied  time.Time
	writeWanted  time.Time
	writeApplied time.Time
	repeater     repeater
	resting      bool // a Read of one byte waits to begin
	watched      bool // it may: somebody waits for the answer
	closed       bool
	evicted      bool          // Limits has closed it
	gone         chan struct{} // closed then; nil until somebody waits for it
	rest         sync.Cond     // of mu: one of what resting waits for has come

	caller    peer.Caller // as found when it was accepted
	callerErr error       // why it is nobody

	holder       *holder       // whose it is counted as, nil if it is not; guarded by Limits.mu, as is what follows up to newer
	since        time.Time     // it was admitted
	looked       bool          // see arriving
	older, newer *conn         // of that user
	turn         chan struct{} // the holder's, for handshakes
	line         chan struct{} // the holder's, for pipelined requests

	// The rest belongs to the goroutine that net/http runs the connection's
	// handlers on, one after the other.
	token  verified
	path   string // last one matched
	node   *node
	param  string
	x      exchange
	out    []byte // a repeated answer, cleared once it is written
	date   []byte // of the Date header, at dateAt
	dateAt int64  // Unix time
	given  []byte // read already, for net/http
	row    uint32 // repeated answers so far
	inLine bool   // the request is pipelined, and has its turn
	near   bool   // see oneHop
}

// writeSlack is how much earlier than writeTimeout a Write may time out, so
// that the deadlines of following answers are one.
const writeSlack = writeTimeout / 2

// Read reads with the deadline that was noted last. A request that repeats
// the one before it may be answered here; Read then reads on.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 1 && c.busy.Load() && !c.watch() {
		return 0, os.ErrDeadlineExceeded
	}
	for {
		c.mu.Lock()
		if c.readApplied != c.readWanted {
			if err := c.applyRead(); err != nil {
				c.mu.Unlock()
				return 0, err
			}
		}
		c.reading = true
		c.mu.Unlock()

		var n int
		var err error
		if len(c.given) > 0 {
			n = copy(p, c.given)
			c.given = c.given[n:]
			c.spare.Store(false)
		} else {
			n, err = c.Conn.Read(p)
		}

		c.mu.Lock()
		c.reading = false
		repeated := err == nil && c.repeater.repeated(p[:n])
		if n > 0 && !repeated {
			c.repeater.feed(p[:n])
		}
		c.mu.Unlock()
		if n > 0 && !c.heard.Load() {
			c.heard.Store(true)
		}
		if !repeated {
			return n, err
		}
		if !c.answerAgain() {
			c.mu.Lock()
			c.repeater.feed(p[:n])
			c.mu.Unlock()
			return n, nil
		}
	}
}

// watch waits until the client's leaving matters, and reports whether it does:
// if not, the handler has ended, which net/http tells by a deadline long ago.
func (c *conn) watch() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resting = true
	c.rest.L = &c.mu
	for !c.watched && !c.closed && !longAgo(c.readWanted) {
		c.rest.Wait()
	}
	c.resting = false
	return !longAgo(c.readWanted)
}

func longAgo(t time.Time) bool { return !t.IsZero() && t.Unix() < 1<<20 }

// setWatched says whether somebody waits for the answer.
func (c *conn) setWatched(w bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched = w; w && c.resting {
		c.rest.Signal()
	}
}

// evict closes the connection to make room. What its goroutine does for it
// ends at once. It is called once.
func (c *conn) evict() {
	c.mu.Lock()
	c.evicted = true
	if c.gone != nil {
		close(c.gone)
	}
	c.mu.Unlock()
	_ = c.raw.Close() // TLS would say goodbye first, to who may not read it
}

// eviction is closed when the connection is evicted.
func (c *conn) eviction() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone == nil {
		c.gone = make(chan struct{})
		if c.evicted {
			close(c.gone)
		}
	}
	return c.gone
}

// Close closes the connection.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed = true; c.resting {
		c.rest.Signal()
	}
	c.mu.Unlock()
	if c.wire != nil {
		c.wire.ending.Store(true)
	}
	return c.Conn.Close()
}

// Write writes with a deadline of its own, writeTimeout from now or up to
// writeSlack earlier, or with the one that was noted last if that is sooner.
func (c *conn) Write(p []byte) (int, error) {
	return c.writeAt(p, time.Now())
}

// writeAt is Write for who knows what time it is.
func (c *conn) writeAt(p []byte, now time.Time) (int, error) {
	c.leaveLine() // a long answer is written before its handler ends, as fast as the client reads
	c.mu.Lock()
	until := now.Add(writeTimeout)
	if !c.writeWanted.IsZero() && c.writeWanted.Before(until) {
		until = c.writeWanted
	}
	if late := until.Sub(c.writeApplied); late < 0 || late > writeSlack {
		if err := c.applyWrite(until); err != nil {
			c.mu.Unlock()
			return 0, err
		}
	}
	c.writing, c.writeBegan = true, now
	c.mu.Unlock()
	n, err := c.Conn.Write(p)
	c.mu.Lock()
	c.writing = false
	c.mu.Unlock()
	return n, err
}

// SetReadDeadline notes t. A Read that is under way obeys it at once: that
// is how net/http ends one.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readWanted = t
	switch {
	case c.resting:
		c.rest.Signal()
	case c.reading:
		return c.applyRead()
	}
	return nil
}

// SetWriteDeadline notes t; a Write that is under way obeys it at once.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeWanted = t
	if c.writing && !t.IsZero() {
		return c.applyWrite(t)
	}
	return nil
}

// SetDeadline is both.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// CloseWrite ends our half. net/http does so, and waits a moment, before it
// closes on a client that is still writing: a reset would overtake the answer.
func (c *conn) CloseWrite() error {
	c.spare.Store(true) // what is left is a courtesy
	if s, ok := c.Conn.(*tls.Conn); ok {
		c.wire.ending.Store(true)
		_ = s.CloseWrite() // says so inside TLS, and not to the kernel
	}
	if half, ok := c.raw.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// setReading says whether we wait for the client. At most one does at a time.
func (c *conn) setReading(r bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = r
}

// applyRead sets the deadline that was noted; c.mu is held.
func (c *conn) applyRead() error {
	c.readApplied = c.readWanted
	return c.Conn.SetReadDeadline(c.readWanted)
}

// applyWrite sets a deadline for writing; c.mu is held.
func (c *conn) applyWrite(t time.Time) error {
	c.writeApplied = t
	return c.Conn.SetWriteDeadline(t)
}
