package cli

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// graphical reports whether this process is in a session with a desktop:
// session 0 is that of services. Who came over ssh sits elsewhere.
func (a *app) graphical() bool {
	if a.getenv("SSH_CONNECTION") != "" {
		return false
	}
	var session uint32
	return windows.ProcessIdToSessionId(windows.GetCurrentProcessId(), &session) == nil && session != 0
}

// startOwn starts cmd without our console.
func startOwn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP}
	return cmd.Start()
}

// exited reports whether p has ended, and its failure.
func exited(p *os.Process) (over bool, err error) {
	h, err := windows.OpenProcess(windows.SYNCHRONIZE|windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(p.Pid))
	if err != nil {
		return true, nil // it has gone, and what it thought of it with it
	}
	defer func() { _ = windows.CloseHandle(h) }()
	if event, err := windows.WaitForSingleObject(h, 0); err != nil || event != windows.WAIT_OBJECT_0 {
		return false, nil
	}
	var code uint32
	if err := windows.GetExitCodeProcess(h, &code); err == nil && code != 0 {
		return true, fmt.Errorf("exit status %d", code)
	}
	return true, nil
}

// endProcess ends p: nothing milder reaches a process without a window.
func endProcess(p *os.Process) error { return p.Kill() }
