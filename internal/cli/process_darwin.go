package cli

import (
	"errors"

	"golang.org/x/sys/unix"
)

// watchedProcess tells when a process has ended.
type watchedProcess struct{ pid int }

func watchProcess(pid int) *watchedProcess { return &watchedProcess{pid} }

func (w *watchedProcess) over() bool {
	return w.pid <= 0 || errors.Is(unix.Kill(w.pid, 0), unix.ESRCH)
}

func (w *watchedProcess) close() {}

// isStopped reports whether a process is stopped now.
func isStopped(pid int) bool {
	const sStop = 4 // SSTOP of <sys/proc.h>
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	return err == nil && info.Proc.P_stat == sStop
}
