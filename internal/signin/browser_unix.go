//go:build linux || darwin

package signin

import (
	"os"
	"os/exec"
	"syscall"
)

// prepareBrowser gives the browser its pipes as descriptors 3 and 4, which is
// what --remote-debugging-pipe means, and the lock of its directory. It has a
// process group of its own: Ctrl-C at our terminal would kill it before it has
// written its cookies.
func prepareBrowser(cmd *exec.Cmd, in, out, lock *os.File) error {
	cmd.Args = append([]string{cmd.Args[0], "--remote-debugging-pipe"}, cmd.Args[1:]...)
	cmd.ExtraFiles = []*os.File{in, out, lock}
	prepare(cmd)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = nil // there is no context
	adopt()
	return nil
}

// holdBrowser has nothing to hold: the group is enough, and a browser whose
// pipe is closed ends.
func holdBrowser(*os.Process) (free func()) { return func() {} }

// killBrowser kills what is left of the browser's group, and waits for it.
func killBrowser(p *os.Process, ended <-chan struct{}) {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
	<-ended
	bury(p.Pid)
}
