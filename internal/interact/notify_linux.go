package interact

import "syscall"

// dieWithParent has the kernel end it when the daemon was killed.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
