package audit

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"

	"keyfob/internal/peer"
)

// parentOf is the file of the program that started p (PPid in
// proc_pid_status(5)), "" where it can't be told.
func parentOf(p peer.Process) string {
	dir := "/proc/" + strconv.Itoa(p.PID)
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return ""
	}
	ppid := ""
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "PPid:"); ok {
			ppid = strings.TrimSpace(v)
			break
		}
	}
	if ppid == "" || ppid == "0" {
		return ""
	}
	exe, err := os.Readlink("/proc/" + ppid + "/exe")
	if err != nil {
		return ""
	}
	// That was read by number: it was p, and its parent, if p is still there.
	if start, err := peer.StartTime(p.PID); err != nil || start != p.Start {
		return ""
	}
	return exe
}
