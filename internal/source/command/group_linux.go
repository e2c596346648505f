package command

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent has the kernel end a program whose daemon was killed.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }

// await returns when the leader has ended, and leaves it to be waited for:
// until then its id, which is the group's, can't be anybody else's.
func (group) await(cmd *exec.Cmd) {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

// huntRounds bounds the search for those who start others while they are
// looked for.
const huntRounds = 20

// hunt ends what has left the group: every process that was started with
// this mark in its environment.
func (group) hunt(mark string) {
	want := []byte(marker + "=" + mark)
	for range huntRounds {
		found := false
		proc, err := os.Open("/proc")
		if err != nil {
			return
		}
		names, _ := proc.Readdirnames(-1)
		_ = proc.Close()
		for _, name := range names {
			pid, err := strconv.Atoi(name)
			if err != nil || pid == os.Getpid() || !marked(name, want) {
				continue
			}
			// The descriptor holds on to the process that is looked at once
			// more, whatever becomes of its id.
			fd, err := unix.PidfdOpen(pid, 0)
			if err == nil {
				if marked(name, want) {
					found = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil || found
				}
				_ = unix.Close(fd)
			} else if err == unix.ENOSYS {
				found = unix.Kill(pid, unix.SIGKILL) == nil || found
			}
		}
		if !found {
			return
		}
	}
}

// marked reports whether a process was started with that variable. One that
// is ended and not yet waited for has no environment.
func marked(pid string, want []byte) bool {
	env, err := os.ReadFile("/proc/" + pid + "/environ")
	if err != nil {
		return false
	}
	defer clear(env)
	for _, kv := range bytes.Split(env, []byte{0}) {
		if bytes.Equal(kv, want) {
			return true
		}
	}
	return false
}
