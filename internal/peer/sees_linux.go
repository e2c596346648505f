package peer

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"
)

// SeesOthers reports whether this process may look at other users' processes:
// it has CAP_SYS_PTRACE (capabilities(7)).
func SeesOthers() bool {
	var buf [8192]byte
	b, err := readProc("/proc/self/status", buf[:])
	if err != nil {
		return false
	}
	for line := range bytes.Lines(b) {
		if value, ok := bytes.CutPrefix(line, []byte("CapEff:")); ok {
			set, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
			return err == nil && set&(1<<unix.CAP_SYS_PTRACE) != 0
		}
	}
	return false
}
