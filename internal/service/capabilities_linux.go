package service

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// KeepCapabilities clears the ambient set of every thread: the unit gives
// the daemon capabilities that way, and the
// programs that the daemon runs would inherit them (capabilities(7)). The
// daemon keeps them. Errors: ENOTSUP in a build with cgo, where package
// syscall can't reach all threads, if there is anything to clear.
func KeepCapabilities() error {
	held := false
	for _, c := range []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_ADMIN, unix.CAP_DAC_READ_SEARCH} {
		if set, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, c, 0, 0); err == nil && set == 1 {
			held = true
		}
	}
	if !held {
		return nil
	}
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
	if errno != 0 {
		return fail("build keyfobd with CGO_ENABLED=0", "cannot keep the daemon's capabilities from the programs that it runs: %w", errno)
	}
	return nil
}
