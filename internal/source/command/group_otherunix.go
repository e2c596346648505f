//go:build unix && !linux

package command

import (
	"os/exec"
	"syscall"
)

// dieWithParent does nothing here: it ends by its own time limit.
func dieWithParent(*syscall.SysProcAttr) {}

// await waits for the leader. Between this and kill the group's id is free
// when nobody is left in the group, and is given to nobody else until the
// system has gone through all other ids.
func (group) await(cmd *exec.Cmd) { _ = cmd.Wait() }

// hunt finds nobody here: there is no way to tell who has left the group.
func (group) hunt(string) {}
