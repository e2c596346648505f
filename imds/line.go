package imds

import (
	"errors"
	"net"
	"net/http"
	"os"
	"time"
)

// A client that sends thousands of requests at once, as no AWS client does,
// must not keep the processor from the others. So pipelined requests are
// judged one at a time, with a pause at the end of each, in which Go looks for
// new connections (while there is work it does so every ten milliseconds only).
//
// The turn is the processor's: a request ends its turn before it waits for
// anything, be it the client's body, the broker, or a client that reads its
// answer slowly. It takes none afterwards: how many come that far is bounded by
// the turns they had.

// lineTimeout bounds how long a pipelined request waits for its turn: a user's
// wait for their own, and of all users one at a time.
const lineTimeout = 5 * time.Second

// enterLine waits for a pipelined request's turn. It returns a fault when that
// takes too long, and ends the handler when the connection is evicted.
func (c *conn) enterLine() *fault {
	late := time.NewTimer(lineTimeout)
	defer late.Stop()
	c.spare.Store(true)
	err := c.takeTurns(c.line, c.server.limits.inLine, late.C)
	switch {
	case errors.Is(err, net.ErrClosed):
		panic(http.ErrAbortHandler) // net/http then does not wait for the client to read the answer
	case err != nil:
		f := unavailable("too many requests at once", "pipelined requests of this user wait for one another")
		f.close = true
		return f // spare still: it is the client's doing
	}
	c.spare.Store(false)
	c.inLine = true
	return nil
}

// leaveLine ends the turn, if the request has one. It is called on the
// goroutine of the handler.
func (c *conn) leaveLine() {
	if c.inLine {
		c.inLine = false
		time.Sleep(c.server.limits.pause)
		<-c.server.limits.inLine
		<-c.line
	}
}

// takeTurns waits until nobody else has the turn of this connection's user or
// address, then until nobody at all has it. So one of each stands in line, and
// who asks for thousands of turns takes those of nobody else. It returns
// net.ErrClosed when the connection is evicted, os.ErrDeadlineExceeded when
// late comes first; then it has taken none.
func (c *conn) takeTurns(own, all chan struct{}, late <-chan time.Time) error {
	if err := c.take(own, late); err != nil {
		return err
	}
	if err := c.take(all, late); err != nil {
		<-own
		return err
	}
	return nil
}

func (c *conn) take(turn chan<- struct{}, late <-chan time.Time) error {
	select {
	case turn <- struct{}{}:
		return nil
	case <-c.eviction():
		return net.ErrClosed
	case <-late:
		return os.ErrDeadlineExceeded
	}
}
