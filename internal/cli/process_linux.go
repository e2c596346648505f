package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// watchedProcess tells when a process has ended, also while nobody has
// collected its exit status.
type watchedProcess struct{ fd, pid int }

func watchProcess(pid int) *watchedProcess {
	if pid <= 0 {
		return &watchedProcess{fd: -1}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return &watchedProcess{fd: -1}
	case err != nil: // a kernel before 5.3, or a sandbox
		return &watchedProcess{fd: -1, pid: pid}
	}
	return &watchedProcess{fd: fd, pid: pid}
}

func (w *watchedProcess) over() bool {
	if w.fd < 0 {
		return w.pid == 0 || errors.Is(unix.Kill(w.pid, 0), unix.ESRCH)
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, 0)
	return err == nil && n == 1
}

func (w *watchedProcess) close() {
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
	}
}

// isStopped reports whether a process is stopped now (proc_pid_stat(5): the
// state follows the name in parentheses).
func isStopped(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(b, ')')
	return i > 0 && i+2 < len(b) && b[i+2] == 'T'
}
