//go:build linux || darwin

package cli

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// startOwn starts cmd in a session of its own, with nothing of what our
// caller left open.
func startOwn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	restore := closeOnExec()
	defer restore()
	return cmd.Start()
}

// exited reports whether p has ended, and its failure.
func exited(p *os.Process) (over bool, err error) {
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(p.Pid, &status, syscall.WNOHANG, nil)
	switch {
	case err == syscall.EINTR || err == nil && pid == 0:
		return false, nil
	case err != nil:
		return true, nil // our caller had us ignore SIGCHLD: nobody knows
	case status.Exited() && status.ExitStatus() == 0:
		return true, nil
	}
	return true, errors.New(describe(status))
}

// endProcess tells p to end.
func endProcess(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
