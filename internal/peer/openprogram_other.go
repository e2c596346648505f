//go:build !linux

package peer

import (
	"errors"
	"os"
)

// openProgram opens the file at the path of p's program. Nothing but the path
// leads there on this operating system, so it can be a newer file than the one
// that runs.
func openProgram(p Process) (*os.File, error) {
	f, err := os.Open(p.Exe)
	if err != nil {
		return nil, err
	}
	if start, err := StartTime(p.PID); err != nil || start != p.Start {
		return nil, errors.Join(errors.New("its process has ended"), f.Close())
	}
	return f, nil
}
