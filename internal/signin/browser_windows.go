package signin

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// findBrowser is the first installed browser that can be driven.
func findBrowser() (string, error) {
	var paths []string
	for _, program := range []string{`Google\Chrome\Application\chrome.exe`, `Chromium\Application\chrome.exe`, `Microsoft\Edge\Application\msedge.exe`} {
		for _, name := range []string{"ProgramFiles", "ProgramFiles(x86)", "LocalAppData"} {
			if dir := os.Getenv(name); dir != "" {
				paths = append(paths, filepath.Join(dir, program))
			}
		}
	}
	return firstFile(paths)
}

// prepareBrowser gives the browser its pipes as handles, whose numbers it is
// told: it inherits these two and no others.
func prepareBrowser(cmd *exec.Cmd, in, out, _ *os.File) error {
	var handles []syscall.Handle
	for _, f := range []*os.File{in, out} {
		h := windows.Handle(f.Fd())
		if err := windows.SetHandleInformation(h, windows.HANDLE_FLAG_INHERIT, windows.HANDLE_FLAG_INHERIT); err != nil {
			return err
		}
		handles = append(handles, syscall.Handle(h))
	}
	cmd.Args = append([]string{cmd.Args[0], "--remote-debugging-pipe", fmt.Sprintf("--remote-debugging-io-pipes=%d,%d", handles[0], handles[1])}, cmd.Args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{AdditionalInheritedHandles: handles}
	return nil
}

// holdBrowser puts the browser into a job that ends with us, however we end.
func holdBrowser(p *os.Process) (free func()) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return func() {}
	}
	free = func() { _ = windows.CloseHandle(job) }
	var limits windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	_, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation, uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits)))
	if err != nil {
		return free
	}
	if h, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(p.Pid)); err == nil {
		_ = windows.AssignProcessToJobObject(job, h)
		_ = windows.CloseHandle(h)
	}
	return free
}

// killBrowser ends the program; its job ends what it started.
func killBrowser(p *os.Process, ended <-chan struct{}) {
	_ = p.Kill()
	<-ended
}
