//go:build unix

package keystore

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"keyfob/internal/prefetch"
	"keyfob/keystore/internal/wire"
)

// exchange runs cmd as the helper: one request, one answer over a socket
// pair, then its whole process group is gone, whatever happened.
func exchange(ctx context.Context, cmd *exec.Cmd, req *wire.Request) (*wire.Response, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = ours.Close() }()
	cmd.ExtraFiles = []*os.File{theirs} // descriptor wire.ChannelFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)

	prefetch.Program(cmd.Path)
	// The death signal comes when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return nil, err
	}
	// The end of ctx fails the reads and writes below.
	undo := context.AfterFunc(ctx, func() { _ = ours.SetDeadline(time.Unix(1, 0)) })
	defer undo()

	resp := &wire.Response{}
	if err = wire.Write(ours, req); err == nil {
		err = wire.Read(ours, resp)
	}
	if err == nil && ctx.Err() == nil {
		// Its end closes the channel.
		_ = ours.SetDeadline(time.Now().Add(answerGrace))
		_, _ = ours.Read(make([]byte, 1))
	}
	// Until Wait the process id can't be anybody else's.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	werr := cmd.Wait()
	if err != nil && ctx.Err() == nil {
		if werr != nil {
			return nil, fmt.Errorf("it ended without an answer: %w", werr)
		}
		return nil, fmt.Errorf("it ended without an answer: %w", err)
	}
	return resp, err
}

// socketPair returns both ends of a stream, ours non-blocking, so that it
// takes deadlines.
func socketPair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock() // no child is started between the calls
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), "keyring helper"), os.NewFile(uintptr(fds[1]), "keyring channel"), nil
}
