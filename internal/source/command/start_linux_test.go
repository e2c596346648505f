package command

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"keyfob/internal/prefetch"
)

// A program that the kernel refuses at once is read all the same: by us, and
// before. A pipe is not.
func TestAProgramIsReadBeforeItIsStarted(t *testing.T) {
	dir := t.TempDir()
	program, pipe := filepath.Join(dir, "program"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(pipe, 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Skipf("no inotify: %v", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.InotifyAddWatch(fd, program, unix.IN_ACCESS); err != nil {
		t.Skipf("no inotify: %v", err)
	}
	if _, err := newWorld().Run(t.Context(), Program{Name: "credential_process of dev", Args: []string{program}}); err == nil {
		t.Error("a file that is no program was run")
	}
	if n, err := unix.Read(fd, make([]byte, 4096)); err != nil || n <= 0 {
		t.Errorf("nobody has read it: %v", err)
	}
	prefetch.Program(pipe)
	prefetch.Program(filepath.Join(dir, "none"))
}
