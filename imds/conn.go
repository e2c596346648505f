package imds

import (
	"net"
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
type conn struct {
	net.Conn
	server    *Server
	spoke     atomic.Bool // a request was read from it
	answering atomic.Bool // an answer is being repeated, which net/http does not know of

	mu           sync.Mutex // guards the deadlines and the repeater; held for no longer than it takes to set one
	reading      bool       // a Read is under way: at most one is at a time
	writing      bool       // likewise
	readWanted   time.Time
	readApplied  time.Time
	writeWanted  time.Time
	writeApplied time.Time
	repeater     repeater

	caller    peer.Caller // as found when it was accepted
	callerErr error       // why it is nobody

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
}

// tracked makes the listener's connections *conn.
type tracked struct {
	net.Listener
	server *Server
}

func (t tracked) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, server: t.server}, nil
}

// writeSlack is how much earlier than asked for a Write may time out, so
// that the deadlines of following answers are one.
const writeSlack = writeTimeout / 2

// Read reads with the deadline that was noted last. A request that repeats
// the one before it may be answered here; Read then reads on.
func (c *conn) Read(p []byte) (int, error) {
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

		n, err := c.Conn.Read(p)

		c.mu.Lock()
		c.reading = false
		repeated := err == nil && c.repeater.repeated(p[:n])
		if n > 0 && !repeated {
			c.repeater.feed(p[:n])
		}
		c.mu.Unlock()
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

// Write writes with the deadline that was noted last, or up to writeSlack
// earlier.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	late := c.writeWanted.Sub(c.writeApplied)
	if c.writeApplied.IsZero() != c.writeWanted.IsZero() || late < 0 || late > writeSlack {
		if err := c.applyWrite(); err != nil {
			c.mu.Unlock()
			return 0, err
		}
	}
	c.writing = true
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
	if c.reading {
		return c.applyRead()
	}
	return nil
}

// SetWriteDeadline notes t; a Write that is under way obeys it at once.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeWanted = t
	if c.writing {
		return c.applyWrite()
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
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// applyRead sets the deadline that was noted; c.mu is held.
func (c *conn) applyRead() error {
	c.readApplied = c.readWanted
	return c.Conn.SetReadDeadline(c.readWanted)
}

// applyWrite likewise; c.mu is held.
func (c *conn) applyWrite() error {
	c.writeApplied = c.writeWanted
	return c.Conn.SetWriteDeadline(c.writeWanted)
}
