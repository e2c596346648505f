package service

import "golang.org/x/sys/unix"

// monotonicMicros is CLOCK_MONOTONIC in microseconds.
func monotonicMicros() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // can't fail for this clock
	return ts.Nano() / 1000
}
