//go:build linux || darwin

package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// dial connects without package net (see Conn). An os.File on a non-blocking
// socket has deadlines and is no slower.
func dial(ctx context.Context, socket string) (Conn, int, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		fd, err := newSocket()
		if err != nil {
			return nil, 0, fmt.Errorf("cannot make a socket: %w", err)
		}
		err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket})
		if err == nil {
			pid, err := trust(fd, socket)
			if err != nil {
				_ = syscall.Close(fd)
				return nil, 0, err
			}
			return os.NewFile(uintptr(fd), socket), pid, nil
		}
		_ = syscall.Close(fd)
		if err != syscall.EAGAIN && err != syscall.EINTR {
			return nil, 0, dialError(socket, err)
		}
		// The daemon's queue is full: Linux says so at once.
		select {
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("cannot connect to %s: keyfobd accepts nobody: %w", socket, ctx.Err())
		case <-time.After(wait):
		}
	}
}

func dialError(socket string, err error) error {
	switch err {
	case syscall.ENOENT, syscall.ECONNREFUSED, syscall.ENOTDIR:
		return fmt.Errorf("%w (%s)", ErrNotRunning, socket)
	case syscall.EINVAL, syscall.ENAMETOOLONG:
		return fmt.Errorf("cannot connect to %s: the path is too long for a socket", socket)
	}
	return fmt.Errorf("cannot connect to %s: %w", socket, err)
}

// trust checks who listens. The kernel keeps the credentials of the process
// that called listen.
func trust(fd int, socket string) (pid int, err error) {
	uid, pid, err := serverOf(fd)
	if err != nil {
		return 0, fmt.Errorf("cannot tell whose server %s is: %w", socket, err)
	}
	if uid == 0 || uid == os.Geteuid() {
		return pid, nil
	}
	if socket == SystemSocket && systemOwner(filepath.Dir(socket)) == uid {
		return pid, nil
	}
	return 0, fmt.Errorf("cannot trust %s: %w (uid %d)", socket, ErrNotTrusted, uid)
}

// systemOwner returns the owner of the system daemon's directory, which root
// made for it and which nobody else can write to; -1 if it is not so.
func systemOwner(dir string) int {
	owner := -1
	for _, d := range []string{dir, filepath.Dir(dir)} {
		var st syscall.Stat_t
		if err := syscall.Lstat(d, &st); err != nil || uint32(st.Mode)&syscall.S_IFMT != syscall.S_IFDIR || st.Mode&0o022 != 0 {
			return -1
		}
		if d == dir {
			owner = int(st.Uid)
		} else if st.Uid != 0 {
			return -1
		}
	}
	return owner
}

func isHangUp(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ENOTCONN)
}
