//go:build !windows

package service

// newLinkLocalWindows is never asked for: New wants the platform itself.
func newLinkLocalWindows(*linkLocal) linkLocalHost { return nil }

func elevated() bool { return false }
