//go:build unix

package command

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	homeVariable = "HOME"
	foldNames    = false
	// What sh says of a program that it can't find, or not run.
	shellNotFound    = 127
	shellNotRunnable = 126
)

func shell(line string) *exec.Cmd { return exec.Command("/bin/sh", "-c", line) }

// rootDir is a working directory that is always there.
func rootDir() string { return "/" }

// lookPath finds a program on the PATH that it will itself have. Directories
// that are relative are not looked at: the daemon's own directory is no
// place to run programs from.
func lookPath(name, path string) (string, error) {
	if strings.ContainsRune(name, '/') {
		return name, nil
	}
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// group is the session, and the process group, that a program leads.
type group struct{}

func start(cmd *exec.Cmd) (group, error) {
	// A session of its own has no terminal: a program that asks at /dev/tty
	// fails instead of being stopped there.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	dieWithParent(cmd.SysProcAttr)
	err := cmd.Start()
	if errors.Is(err, fs.ErrNotExist) && cmd.Dir != "" {
		if _, serr := os.Stat(cmd.Path); serr != nil {
			return group{}, errNoProgram
		}
	}
	return group{}, err
}

// kill ends the whole group. Its leader has not been waited for, so that the
// id can't be anybody else's.
func (group) kill(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

func (group) close() {}

// signalled says which signal ended a process.
func signalled(state *os.ProcessState) (string, bool) {
	ws, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !ws.Signaled() {
		return "", false
	}
	return "signal " + ws.Signal().String(), true
}
