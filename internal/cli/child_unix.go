//go:build linux || darwin

package cli

import (
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// settle is longer than the kernel takes to stop or continue a whole group.
const settle = 50 * time.Millisecond

// child is the program of exec. It runs in our process group, so that the
// terminal treats the two as one job, and gets the signals that are sent to
// us alone.
type child struct {
	signals chan os.Signal
}

// forwarded are the signals that a program expects to be sent. Not SIGTSTP:
// once the runtime has caught it, it cannot be given back its default, and
// Ctrl-Z would no longer stop us with the program.
var forwarded = []os.Signal{
	syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGALRM,
}

func newChild() *child {
	c := &child{signals: make(chan os.Signal, 32)}
	for _, s := range forwarded {
		if !signal.Ignored(s) { // what our caller ignores (nohup) stays ignored in the program
			signal.Notify(c.signals, s)
		}
	}
	return c
}

func (c *child) close() { signal.Stop(c.signals) }

// run starts cmd, passes signals on until it ends, and returns its exit
// code: 128 and the signal's number for one that a signal ended. A daemon
// that we started is our child too: its end is collected.
func (c *child) run(cmd *exec.Cmd, daemon *os.Process) (int, error) {
	// Also keeps the kernel from throwing exit codes away for a caller that
	// had us ignore this signal.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	defer func() { _ = cmd.Process.Release() }()

	type change struct {
		status syscall.WaitStatus
		err    error
	}
	changes, resume := make(chan change), make(chan struct{})
	go func() { // ends with the program, which run waits for
		for {
			var ch change
			if _, ch.err = syscall.Wait4(pid, &ch.status, syscall.WUNTRACED, nil); ch.err == syscall.EINTR {
				continue
			}
			changes <- ch
			if ch.err != nil || !ch.status.Stopped() {
				return
			}
			<-resume
		}
	}()
	for {
		select {
		case s := <-c.signals:
			c.pass(pid, s.(syscall.Signal))
		case <-ended:
			if daemon != nil {
				if got, err := syscall.Wait4(daemon.Pid, nil, syscall.WNOHANG, nil); err != nil || got == daemon.Pid {
					daemon = nil
				}
			}
		case ch := <-changes:
			switch {
			case ch.err != nil:
				return 0, ch.err
			case ch.status.Exited():
				return ch.status.ExitStatus(), nil
			case ch.status.Signaled():
				return 128 + int(ch.status.Signal()), nil
			}
			// The program is stopped. The shell waits for us: so are we,
			// unless Ctrl-Z stopped us both and we are continued already.
			// Where no shell would ever continue us, the kernel makes
			// nothing of this. The SIGCONT that we get is passed on.
			time.Sleep(settle)
			if isStopped(pid) {
				_ = syscall.Kill(os.Getpid(), syscall.SIGTSTP)
			}
			resume <- struct{}{}
		}
	}
}

// pass sends the program a signal that we got, unless the terminal has sent
// it to our whole group: then the program has it already.
func (c *child) pass(pid int, s syscall.Signal) {
	switch s {
	case syscall.SIGINT, syscall.SIGQUIT:
		if hasTerminal() {
			return
		}
	}
	_ = syscall.Kill(pid, s)
}
