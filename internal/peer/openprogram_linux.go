package peer

import (
	"errors"
	"os"
)

var errOther = errors.New("it runs another file by now")

// openProgram opens the file that p runs, whatever its path leads to by now.
func openProgram(p Process) (*os.File, error) {
	f, err := os.Open(procPath(p.PID, "exe"))
	if err != nil {
		return nil, err
	}
	// What was opened by number was p's, and p runs what it ran.
	now := exe(p.PID)
	s, err := readStat(p.PID)
	switch {
	case err == nil && s.start != p.Start:
		err = errEnded
	case err == nil && now != p.Exe:
		err = errOther
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
