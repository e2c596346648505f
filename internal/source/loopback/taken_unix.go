//go:build !windows

package loopback

import (
	"errors"
	"syscall"
)

func taken(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
