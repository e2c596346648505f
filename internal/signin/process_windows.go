package signin

import (
	"os/exec"
	"syscall"
)

// harden has nothing to do: Windows writes no core files of its own.
func harden() {}

// prepare keeps a console window from flashing up.
func prepare(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{HideWindow: true} }
