package service

import (
	"time"

	"golang.org/x/sys/unix"
)

// placedAt is when a file came to its path: its change time, because
// packages keep the time at which it was built as the other one.
func placedAt(path string) (time.Time, bool) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return time.Time{}, false
	}
	return time.Unix(st.Ctim.Unix()), true
}
