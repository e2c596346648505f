//go:build !windows

package daemon

import (
	"os"

	"golang.org/x/sys/unix"
)

// follow makes the new log file our standard error and output, where the
// runtime writes what a panic has to say.
func follow(f *os.File) {
	_ = unix.Dup2(int(f.Fd()), 1)
	_ = unix.Dup2(int(f.Fd()), 2)
}
