package metrics

import (
	"time"

	"golang.org/x/sys/unix"
)

type process struct {
	cpu             time.Duration
	resident        uint64
	files, maxFiles uint64
}

// readProcess: what is resident and open takes calls that need cgo here.
func readProcess() (p process) {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		p.cpu = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil && r.Cur < 1<<62 {
		p.maxFiles = r.Cur
	}
	return p
}
