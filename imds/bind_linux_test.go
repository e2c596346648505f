package imds

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// lateBind leaves the choice of the port to connect(2) where the address alone
// is bound (ip(7), IP_BIND_ADDRESS_NO_PORT): bind(2) searches milliseconds for
// one when an address has thousands of connections.
func lateBind(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}); e != nil {
		return e
	}
	return err
}
