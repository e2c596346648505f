//go:build !windows

package service

// newWindows is never asked for: New wants the platform itself.
func newWindows(Config) host { return nil }
