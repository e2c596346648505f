package interact

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// ownGroup keeps the daemon's console signals away from cmd, and a console
// window from flashing up.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{HideWindow: true, CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.CREATE_NO_WINDOW}
}

// killGroup ends cmd. Its dialog is part of it.
func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

// rootDir is a working directory that is always there.
func rootDir() string { return os.Getenv("SystemRoot") }
