//go:build !linux

package service

// KeepCapabilities does nothing: ambient capabilities are Linux's.
func KeepCapabilities() error { return nil }
