//go:build !linux

package service

// monotonicMicros is for managers that are on Linux only.
func monotonicMicros() int64 { return 0 }
