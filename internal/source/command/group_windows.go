package command

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

const (
	homeVariable = "USERPROFILE"
	foldNames    = true
	// What cmd.exe says of a program that it can't find; it has no code for
	// one that may not be run.
	shellNotFound    = 9009
	shellNotRunnable = -1
)

// shell gives the line to cmd.exe as it stands: /S takes the outer pair of
// quotes away and nothing else, /D keeps AutoRun commands of the registry
// from running before it.
func shell(line string) *exec.Cmd {
	path := filepath.Join(rootDir(), "System32", "cmd.exe")
	cmd := exec.Command(path)
	cmd.SysProcAttr = &syscall.SysProcAttr{CmdLine: `"` + path + `" /D /S /C "` + line + `"`}
	return cmd
}

// rootDir is a working directory that is always there.
func rootDir() string {
	if dir, err := windows.GetSystemWindowsDirectory(); err == nil {
		return dir
	}
	return os.Getenv("SystemRoot")
}

func lookPath(name, _ string) (string, error) { return exec.LookPath(name) }

// group is the job that a program and everything it starts belong to. The
// last handle's end kills whoever is in it, so that a daemon that is killed
// takes them along.
type group struct{ job windows.Handle }

func start(cmd *exec.Cmd) (group, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return group{}, fmt.Errorf("cannot make a job: %w", err)
	}
	g := group{job}
	info := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{}
	info.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	if _, err := windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation, uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info))); err != nil {
		g.close()
		return group{}, fmt.Errorf("cannot limit a job: %w", err)
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.HideWindow = true
	// It does nothing before it is in the job: whatever it starts is, too.
	cmd.SysProcAttr.CreationFlags |= windows.CREATE_NEW_PROCESS_GROUP | windows.CREATE_NO_WINDOW | windows.CREATE_SUSPENDED
	if err := cmd.Start(); err != nil {
		g.close()
		return group{}, err
	}
	if err := g.take(uint32(cmd.Process.Pid)); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		g.close()
		return group{}, err
	}
	return g, nil
}

// take puts a suspended process into the job and lets it run.
func (g group) take(pid uint32) error {
	process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, pid)
	if err != nil {
		return fmt.Errorf("cannot open the process: %w", err)
	}
	defer func() { _ = windows.CloseHandle(process) }()
	if err := windows.AssignProcessToJobObject(g.job, process); err != nil {
		return fmt.Errorf("cannot put it into a job: %w", err)
	}
	threads, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPTHREAD, 0)
	if err != nil {
		return fmt.Errorf("cannot list threads: %w", err)
	}
	defer func() { _ = windows.CloseHandle(threads) }()
	entry := windows.ThreadEntry32{Size: uint32(unsafe.Sizeof(windows.ThreadEntry32{}))}
	resumed := false
	for err = windows.Thread32First(threads, &entry); err == nil; err = windows.Thread32Next(threads, &entry) {
		if entry.OwnerProcessID != pid {
			continue
		}
		thread, err := windows.OpenThread(windows.THREAD_SUSPEND_RESUME, false, entry.ThreadID)
		if err != nil {
			return fmt.Errorf("cannot open its thread: %w", err)
		}
		_, err = windows.ResumeThread(thread)
		_ = windows.CloseHandle(thread)
		if err != nil {
			return fmt.Errorf("cannot let it run: %w", err)
		}
		resumed = true
	}
	if !resumed {
		return errors.New("cannot let it run: it has no thread")
	}
	return nil
}

// await waits for the first process.
func (group) await(cmd *exec.Cmd) { _ = cmd.Wait() }

// kill ends everybody in the job.
func (g group) kill(*exec.Cmd) { _ = windows.TerminateJobObject(g.job, 1) }

// hunt has nobody to find: a job has no way out.
func (group) hunt(string) {}

func (g group) close() { _ = windows.CloseHandle(g.job) }

func signalled(*os.ProcessState) (string, bool) { return "", false }
