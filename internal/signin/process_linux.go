package signin

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// harden keeps answers out of core files, and other programs of the user out
// of this process's memory.
func harden() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// prepare has cmd asked to end before it is killed, and has the kernel kill
// it when we are killed: a dialog must not outlive its question. The death
// signal comes when the thread that started it ends, so that the caller
// locks its thread.
func prepare(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
}
