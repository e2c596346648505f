//go:build unix

package service

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// backlog is what listen(2) is given; the kernel cuts it to its own limit.
const backlog = 4096

func relisten(f *os.File) error {
	// Control and not Fd, which would make the socket blocking.
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var e error
	if err := raw.Control(func(fd uintptr) {
		var on int
		if on, e = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); e != nil {
			return
		}
		if on == 0 {
			e = errors.New("it does not listen")
			return
		}
		e = unix.Listen(int(fd), backlog)
	}); err != nil {
		return err
	}
	return e
}
