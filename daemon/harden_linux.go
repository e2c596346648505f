package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps secrets out of core dumps and away from a debugger of the
// same user (prctl(2), PR_SET_DUMPABLE): the daemon's memory holds the
// master key.
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("cannot forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot forbid core dumps: %w", err)
	}
	return nil
}
