//go:build !unix

package imds

import (
	"errors"
	"time"
)

// cpuTime is not measured here.
func cpuTime() time.Duration { return 0 }

// allowFiles is not tried here.
func allowFiles(uint64) error { return errors.ErrUnsupported }
