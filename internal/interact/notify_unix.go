//go:build unix

package interact

import (
	"os/exec"
	"syscall"
)

// ownGroup gives cmd a process group of its own, so that its dialog can be
// ended with it.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
}

// killGroup ends cmd and what it has started. cmd must not have been waited
// for.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// rootDir is a working directory that is always there.
func rootDir() string { return "/" }
