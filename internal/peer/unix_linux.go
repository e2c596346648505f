package peer

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// system is the part of a Resolver that is particular to the operating system.
type system struct {
	home   *home
	diag   *diag
	finder *finder
}

func newSystem() system {
	h := &home{}
	return system{home: h, diag: &diag{}, finder: &finder{home: h}}
}

func (s system) close() error {
	s.finder.close()
	return s.diag.close()
}

func (s system) ofOther(c net.Conn) (Caller, error) {
	return Caller{}, unidentified("a connection of type %T", c)
}

// ofUnix identifies the process that called connect(2) on the other end
// (SO_PEERCRED, unix(7)).
func (s system) ofUnix(c *net.UnixConn) (Caller, error) {
	if err := s.home.load(); err != nil {
		return Caller{}, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return Caller{}, unidentified("%w", err)
	}
	var who *unix.Ucred
	pidfd := -1
	var credErr, pidfdErr error
	if err := raw.Control(func(fd uintptr) {
		if who, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr == nil {
			pidfd, pidfdErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		}
	}); err != nil {
		return Caller{}, unidentified("%w", err)
	}
	if credErr != nil {
		return Caller{}, unidentified("cannot read SO_PEERCRED: %w", credErr)
	}
	switch pidfdErr {
	case nil:
		defer unix.Close(pidfd)
	case unix.ENOPROTOOPT: // a kernel before 6.5
		pidfd = -1
	default: // ESRCH, EINVAL: it has ended and was reaped
		return Caller{}, unidentified("%w: %w", errEnded, pidfdErr)
	}

	uid, err := s.home.user(who.Uid)
	if err != nil {
		return Caller{}, err
	}
	pid := int(who.Pid)
	if pid <= 0 {
		return Caller{}, unidentified("it lives in another pid namespace")
	}
	p, tty, up, err := readProcess(pid)
	if err != nil {
		return Caller{}, unidentified("cannot read its process: %w", err)
	}
	if err := s.home.same(unix.AT_FDCWD, procPath(pid, "ns")); err != nil {
		return Caller{}, err
	}
	// All of this was read by number. With a pidfd it is certain that it was
	// the process that connected: it is still there. Before SO_PEERPIDFD
	// nothing tells a process that took the number before the first look.
	if pidfd >= 0 {
		if ended, err := hasEnded(pidfd); err != nil || ended {
			return Caller{}, unidentified("%w", errEnded)
		}
	} else if s, err := readStat(pid); err != nil || s.start != p.Start {
		return Caller{}, unidentified("%w", errEnded)
	}
	return Caller{
		UID:      uid,
		PID:      pid,
		Start:    p.Start,
		Exe:      p.Exe,
		Via:      ViaUnix,
		Parent:   up,
		Terminal: terminal(tty),
	}, nil
}

// hasEnded asks a pidfd, which becomes readable when its process ends.
func hasEnded(pidfd int) (bool, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false, os.NewSyscallError("poll", err)
		}
		return n > 0, nil
	}
}

func terminal(dev int) string {
	if dev == 0 {
		return ""
	}
	return fmt.Sprintf("tty:%d", uint32(dev))
}
