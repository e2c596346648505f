package imds

import (
	"net"
	"runtime"
	"time"

	"keyfob/internal/peer"
)

// acceptor makes a listener's connections *conn, of callers who are known,
// within the limits. On systems where it takes a while to find out who calls
// a server has several.
type acceptor struct {
	net.Listener
	server *Server
	ended  <-chan struct{}
}

func (a *acceptor) next() (*conn, error) {
	pause := time.Duration(0)
	for {
		nc, err := a.Listener.Accept()
		if err != nil {
			if !exhausted(err) {
				return nil, err
			}
			pause = min(max(2*pause, time.Millisecond), maxAcceptPause)
			a.makeRoom(err, pause)
			continue
		}
		pause = 0
		c := &conn{Conn: nc, raw: nc, server: a.server}
		if a.server.live.Load().Certificate != nil {
			c.secure()
		}
		a.server.identifyPeer(c)
		if a.server.limits.admit(c, time.Now()) {
			return c, nil
		}
		a.server.turnAway(c)
	}
}

// acceptors is how many connections are accepted at once. Linux tells in a
// few microseconds who calls, the others search a table of all connections.
func acceptors() int {
	if runtime.GOOS == "linux" {
		return 1
	}
	return 4
}

// makeRoom waits a little until more connections can be had; who connects
// meanwhile waits in the kernel. Closing what can be spared helps, whoever
// used up the files.
func (a *acceptor) makeRoom(err error, pause time.Duration) {
	now := time.Now()
	a.server.limits.shed(maxLooks, now)
	a.server.log.exhausted(err, now)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-a.ended:
	case <-t.C:
	}
}

// turnAway answers a connection that is one too many. The kernel takes so few
// bytes at once.
func (s *Server) turnAway(c *conn) {
	now := time.Now()
	f := unavailable("too many requests at once", "too many connections of this user")
	s.log.refused(f, c.caller, now)
	if c.wire == nil { // else there is no saying so before a handshake
		_ = c.raw.SetDeadline(now.Add(time.Millisecond))
		_, _ = c.raw.Write([]byte("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
	}
	_ = c.raw.Close()
}

// identifyPeer asks the kernel who is at the other end, once for a
// connection. It runs on the accepting goroutine: what a look-up needs of
// stack is there already, where a new connection's would have to grow, and
// the caller must be known before the connection may cost anything.
func (s *Server) identifyPeer(c *conn) {
	caller, err := s.identify(c.raw)
	if err == nil && !caller.Identified() {
		err = peer.ErrUnidentified
	}
	if err != nil {
		caller = peer.Caller{} // what came with an error is not believed
	}
	c.caller, c.callerErr = caller, err
}
