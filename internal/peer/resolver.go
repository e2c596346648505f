package peer

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Resolver tells who is at the other end of connections. It keeps what makes
// that cheap (on Linux one netlink connection); the zero value is not usable,
// NewResolver opens nothing. It is safe for concurrent use.
type Resolver struct {
	sys system // per operating system
}

// NewResolver returns a Resolver. Close it at the end.
func NewResolver() *Resolver { return &Resolver{sys: newSystem()} }

// Close gives back what the Resolver keeps open. A later Of opens it anew.
func (r *Resolver) Close() error { return r.sys.close() }

// Of returns who is at the other end of c, an accepted connection: a Unix
// socket, a TCP connection from this machine, or a named pipe of Windows.
// Anything else, a TCP peer on another machine or in another network
// namespace, and a caller whose user is not known on this machine
// (the overflow uid) is ErrUnidentified, as is a Unix-socket peer
// in another user, pid or mount namespace, or one whose namespaces may not be
// looked at: another user's process, unless this one has CAP_SYS_PTRACE. The
// error's text has the reason, for the log.
//
// The namespaces of a TCP peer are looked at by Caller.Program alone, because
// that has to find its process first: a container that shares this machine's
// network is, to Of, the user as whom it runs.
func (r *Resolver) Of(c net.Conn) (Caller, error) {
	for {
		switch conn := c.(type) {
		case *net.UnixConn:
			return r.sys.ofUnix(conn)
		case *net.TCPConn:
			return r.sys.ofTCP(conn)
		case interface{ NetConn() net.Conn }: // a wrapper, as crypto/tls names it
			inner := conn.NetConn()
			if inner == nil || inner == c {
				return Caller{}, unidentified("a connection of type %T", c)
			}
			c = inner
		default:
			return r.sys.ofOther(c)
		}
	}
}

// Of is Resolver.Of with a Resolver for this one call.
func Of(c net.Conn) (Caller, error) {
	r := NewResolver()
	defer r.Close()
	return r.Of(c)
}

// addrPort is a connection's address in its simplest form, for comparing.
func addrPort(a net.Addr) (netip.AddrPort, bool) {
	t, ok := a.(*net.TCPAddr)
	if !ok || t == nil {
		return netip.AddrPort{}, false
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), ap.IsValid() && ap.Port() != 0
}

// searchTimeout bounds one search for a program. It waits for nobody; this
// is for a machine with very many processes.
const searchTimeout = 2 * time.Second

// search is a look-up that is made at most once, when it is first wanted.
type search struct {
	find func(context.Context) (Process, error)

	mu   sync.Mutex // guards what follows, and lets one caller search at a time
	done bool
	p    Process
	err  error
}

func (s *search) do(ctx context.Context) (Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return s.p, s.err
	}
	ctx, cancel := context.WithTimeout(ctx, searchTimeout)
	defer cancel()
	p, err := s.find(ctx)
	if err != nil && ctx.Err() != nil { // not the kernel's answer: the next caller searches again
		return Process{}, ctx.Err()
	}
	s.done, s.p, s.err = true, p, err
	return p, err
}
