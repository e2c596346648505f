//go:build unix

package imds

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxOpenFiles is how many files this process may have open, 0 if that is
// not known. Package os has raised the soft limit to the hard one.
func maxOpenFiles() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0
	}
	return int(min(uint64(r.Cur), 1<<30))
}

// unread reports whether the kernel has bytes of c that nobody has read yet.
func unread(c net.Conn) bool {
	found := false
	control(c, func(fd uintptr) error {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		found = err == nil && n > 0
		return nil
	})
	return found
}

// exhausted reports whether an error of accept(2) passes when something is
// closed.
func exhausted(err error) bool {
	return isAny(err, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM)
}

// setHops sets the number of hops that what c sends may go.
func setHops(c net.Conn, v6 bool, hops int) error {
	return control(c, func(fd uintptr) error {
		if v6 {
			return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops))
		}
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, hops))
	})
}

// setSendBuffer bounds what the kernel keeps for a client that does not read.
// Connections have it of their listener.
func setSendBuffer(fd uintptr, size int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, size))
}
