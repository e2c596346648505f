//go:build unix && !linux

package service

import (
	"net"
	"os"
	"testing"
)

func listenerPID(*testing.T, *net.UnixConn) int { return os.Getpid() }
