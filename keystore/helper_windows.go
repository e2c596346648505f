package keystore

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/windows"

	"keyfob/keystore/internal/wire"
)

// exchange runs cmd as the helper: one request on its standard input, one
// answer on its standard output. There are no socket pairs here.
func exchange(ctx context.Context, cmd *exec.Cmd, req *wire.Request) (*wire.Response, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{HideWindow: true, CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.CREATE_NO_WINDOW}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// Its death closes the pipes, which fails the reads and writes below.
	undo := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer undo()

	resp := &wire.Response{}
	if err = wire.Write(in, req); err == nil {
		err = wire.Read(out, resp)
	}
	_ = in.Close()
	kill := time.AfterFunc(answerGrace, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if err != nil {
		_ = cmd.Process.Kill()
	}
	werr := cmd.Wait()
	if err != nil && ctx.Err() == nil {
		if werr != nil {
			return nil, fmt.Errorf("it ended without an answer: %w", werr)
		}
		return nil, fmt.Errorf("it ended without an answer: %w", err)
	}
	return resp, err
}
