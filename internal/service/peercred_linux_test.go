package service

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// listenerPID is the process that listens at the other end, to the kernel.
func listenerPID(t *testing.T, c *net.UnixConn) int {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	if err := raw.Control(func(fd uintptr) {
		if u, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(u.Pid)
		}
	}); err != nil {
		t.Fatal(err)
	}
	return pid
}
