package imds

import (
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// From winsock2.h and ws2ipdef.h.
const (
	fionread        = 0x4004667f
	ipTTL           = 4
	ipv6UnicastHops = 4
)

// maxOpenFiles is how many files this process may have open, 0 if that is
// not known: Windows has no such limit.
func maxOpenFiles() int { return 0 }

// unread reports whether the kernel has bytes of c that nobody has read yet.
func unread(c net.Conn) bool {
	var n, size uint32
	err := control(c, func(fd uintptr) error {
		return windows.WSAIoctl(windows.Handle(fd), fionread, nil, 0, (*byte)(unsafe.Pointer(&n)), uint32(unsafe.Sizeof(n)), &size, nil, 0)
	})
	return err == nil && n > 0
}

// exhausted reports whether an error of accept passes when something is
// closed.
func exhausted(err error) bool {
	return isAny(err, windows.WSAEMFILE, windows.WSAENOBUFS)
}

// setHops sets the number of hops that what c sends may go.
func setHops(c net.Conn, v6 bool, hops int) error {
	return control(c, func(fd uintptr) error {
		level, option := windows.IPPROTO_IP, ipTTL
		if v6 {
			level, option = windows.IPPROTO_IPV6, ipv6UnicastHops
		}
		return os.NewSyscallError("setsockopt", windows.SetsockoptInt(windows.Handle(fd), level, option, hops))
	})
}

// setSendBuffer bounds what the kernel keeps for a client that does not read.
// Connections have it of their listener.
func setSendBuffer(fd uintptr, size int) error {
	return os.NewSyscallError("setsockopt", windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_SNDBUF, size))
}
