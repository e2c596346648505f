//go:build linux || darwin

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// readyFD names the variable that tells keyfobd on which descriptor to say
// "ok", or "error: …" and "hint: …", and close it.
const readyFD = "KEYFOB_READY_FD"

func rootDir(string) string { return "/" }

// beginning is a daemon that has been started and is not ready yet.
type beginning struct {
	process *os.Process
	ready   *os.File
}

// startDetached starts cmd in a session of its own, with nothing of ours but
// the streams in cmd and the pipe on which it says that it is ready. What our
// caller left open must not reach it: a caller that reads a pipe would never
// see its end.
func startDetached(cmd *exec.Cmd) (*beginning, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Close() }()
	cmd.ExtraFiles = []*os.File{w} // descriptor 3
	cmd.Env = append(cmd.Env, readyFD+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	restore := closeOnExec()
	err = cmd.Start()
	restore()
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return &beginning{process: cmd.Process, ready: r}, nil
}

// closeOnExec marks every inherited descriptor from 3 on, and returns what
// takes the marks back: the child of `keyfob exec` keeps its inheritance.
func closeOnExec() (restore func()) {
	var marked []int
	for _, fd := range openDescriptors() {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags|unix.FD_CLOEXEC); err == nil {
			marked = append(marked, fd)
		}
	}
	return func() {
		for _, fd := range marked {
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
		}
	}
}

func openDescriptors() []int {
	var fds []int
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) < 3 { // /dev/fd may list 0 to 2 alone where nothing is mounted there
			continue
		}
		for _, e := range entries {
			if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
				fds = append(fds, fd)
			}
		}
		return fds
	}
	for fd := 3; fd < 1024; fd++ {
		fds = append(fds, fd)
	}
	return fds
}

// wait returns when the daemon has said that it is ready or, if it says
// nothing, when accepts is true. An error is the daemon's own reason.
func (b *beginning) wait(ctx context.Context, accepts func() bool) error {
	defer func() { _ = b.ready.Close() }()
	deadline, _ := ctx.Deadline()
	if err := b.ready.SetReadDeadline(deadline); err != nil {
		return err
	}
	said, err := io.ReadAll(io.LimitReader(b.ready, 16<<10))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return failure(fmt.Sprintf("cannot start keyfobd: it is not ready after %s", startWait), "")
	case err != nil:
		return fmt.Errorf("cannot start keyfobd: %w", err)
	}
	first, rest, _ := bytes.Cut(said, []byte{'\n'})
	if string(first) == "ok" {
		return nil
	}
	if reason, ok := strings.CutPrefix(string(first), "error: "); ok {
		if !strings.HasPrefix(reason, "cannot ") {
			reason = "cannot start keyfobd: " + reason
		} else {
			reason = "cannot start keyfobd: " + strings.TrimPrefix(reason, "cannot start: ")
		}
		line, _, _ := strings.Cut(string(rest), "\n")
		return failure(reason, strings.TrimPrefix(line, "hint: "))
	}
	// It has closed the pipe without a word: it has died, or it does not
	// know the pipe.
	for {
		var status syscall.WaitStatus
		if pid, err := syscall.Wait4(b.process.Pid, &status, syscall.WNOHANG, nil); err == nil && pid == b.process.Pid {
			return failure("cannot start keyfobd: it ended at once ("+describe(status)+")", "")
		}
		if accepts() {
			return nil
		}
		select {
		case <-ctx.Done():
			return failure(fmt.Sprintf("cannot start keyfobd: it is not ready after %s", startWait), "")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func describe(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "signal " + s.Signal().String()
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}

func terminate(pid int) error { return syscall.Kill(pid, syscall.SIGTERM) }
