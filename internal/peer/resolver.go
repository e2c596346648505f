package peer

import (
	"net"
	"net/netip"
)

// Resolver tells who is at the other end of connections. It keeps what makes
// that cheap: on Linux one netlink connection, and which processes it found
// last. The zero value is not usable, NewResolver opens nothing. It is safe
// for concurrent use.
type Resolver struct {
	sys   system // per operating system
	files hashes
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
// The namespaces of a TCP peer are looked at by Caller.AtHome, because that
// has to find its process first: a container that shares this machine's
// network is, to Of, the user as whom it runs. Whoever lets a caller in must
// ask AtHome too (package access does).
func (r *Resolver) Of(c net.Conn) (Caller, error) {
	caller, err := r.of(c)
	if err != nil {
		return Caller{}, err
	}
	if caller.behind == nil {
		caller.behind = &behind{}
	}
	caller.behind.files = &r.files
	return caller, nil
}

func (r *Resolver) of(c net.Conn) (Caller, error) {
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
