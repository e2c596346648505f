package imds

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// control calls f with the socket of c. A connection that has none is let be.
func control(c net.Conn, f func(fd uintptr) error) error {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(fd) }); err != nil {
		return err
	}
	return failed
}

func isAny[E error](err error, kinds ...E) bool {
	for _, k := range kinds {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// oneHop lets nothing that this connection sends leave the machine's own
// links: EC2 sends the answers that hold a token with a hop limit of 1, so
// that no token reaches a machine or container behind a router. It stays for
// the connection's life, because the kernel may send the token again. A
// loopback address needs none.
func (c *conn) oneHop() error {
	if c.near {
		return nil
	}
	local, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok || local.IP.IsLoopback() {
		c.near = true
		return nil
	}
	// An IPv4 connection of a socket for both families is sent as IPv4.
	ip, _ := netip.AddrFromSlice(local.IP)
	if err := setHops(c.raw, ip.Unmap().Is6(), 1); err != nil {
		return err
	}
	c.near = true
	return nil
}
