//go:build !linux

package imds

import "syscall"

func lateBind(string, string, syscall.RawConn) error { return nil }
