//go:build !linux

package service

import "time"

// placedAt is for managers that are on Linux only.
func placedAt(string) (time.Time, bool) { return time.Time{}, false }
