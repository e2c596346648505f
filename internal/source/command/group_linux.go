package command

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

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

// huntTime bounds the search for those who start others while they are
// looked for.
const huntTime = 5 * time.Second

// hunt ends what has left the group: every process that was started with
// this mark in its environment.
func (group) hunt(mark string) {
	want := []byte(marker + "=" + mark)
	for until := time.Now().Add(huntTime); ; {
		if !huntOnce(want) || time.Now().After(until) {
			return
		}
	}
}

// huntOnce goes through all processes once. The list is read in parts: who
// was started meanwhile usually stands further on in it.
func huntOnce(want []byte) (found bool) {
	proc, err := os.Open("/proc")
	if err != nil {
		return false
	}
	defer func() { _ = proc.Close() }()
	for {
		names, err := proc.Readdirnames(64)
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil && pid != os.Getpid() && marked(name, want) {
				found = end(pid, name, want) || found
			}
		}
		if err != nil {
			return found
		}
	}
}

// end kills a process. A descriptor holds on to the one that is looked at
// once more, whatever becomes of its id.
func end(pid int, name string, want []byte) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ENOSYS { // Linux before 5.3
		return unix.Kill(pid, unix.SIGKILL) == nil
	}
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return marked(name, want) && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
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
