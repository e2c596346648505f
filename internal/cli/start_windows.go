package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
)

func rootDir(program string) string { return filepath.Dir(program) }

type beginning struct{ process *os.Process }

// startDetached starts cmd without our console. Windows hands over the
// handles in cmd alone.
func startDetached(cmd *exec.Cmd) (*beginning, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		CreationFlags: windows.DETACHED_PROCESS | windows.CREATE_NEW_PROCESS_GROUP,
		HideWindow:    true,
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &beginning{process: cmd.Process}, nil
}

func (b *beginning) wait(ctx context.Context, accepts func() bool) error {
	w := watchProcess(b.process.Pid)
	defer w.close()
	for {
		if accepts() {
			return nil
		}
		if w.over() {
			return failure("cannot start keyfobd: it ended at once", "")
		}
		select {
		case <-ctx.Done():
			return failure(fmt.Sprintf("cannot start keyfobd: it is not ready after %s", startWait), "")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// watchedProcess tells when a process has ended.
type watchedProcess struct{ handle windows.Handle }

func watchProcess(pid int) *watchedProcess {
	if pid <= 0 {
		return &watchedProcess{}
	}
	h, err := windows.OpenProcess(windows.SYNCHRONIZE, false, uint32(pid))
	if err != nil {
		return &watchedProcess{}
	}
	return &watchedProcess{h}
}

func (w *watchedProcess) over() bool {
	if w.handle == 0 {
		return true
	}
	event, err := windows.WaitForSingleObject(w.handle, 0)
	return err != nil || event == windows.WAIT_OBJECT_0
}

func (w *watchedProcess) close() {
	if w.handle != 0 {
		_ = windows.CloseHandle(w.handle)
	}
}

func terminate(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}
