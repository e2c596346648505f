package daemon

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"keyfob/internal/peer"
)

// waitEnd returns when the process has ended, or ctx. The kernel tells it by
// the process's own descriptor.
func waitEnd(ctx context.Context, pid int, start uint64) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		poll(ctx, pid, start)
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	// The descriptor is of this process, or of another that got its id
	// before it was opened.
	if !peer.Alive(pid, start) {
		return
	}
	rc, err := f.SyscallConn()
	if err != nil {
		poll(ctx, pid, start)
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
	if err != nil || peer.Alive(pid, start) { // a kernel whose poller does not take it
		poll(ctx, pid, start)
	}
}
