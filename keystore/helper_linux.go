package keystore

import "syscall"

// dieWithParent has the kernel end a helper whose daemon was killed: one
// that hangs would stay for ever.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
