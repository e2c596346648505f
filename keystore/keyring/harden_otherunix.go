//go:build unix && !linux

package keyring

import "golang.org/x/sys/unix"

// harden keeps the key out of core files.
func harden() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}
