package signin

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// findBrowser is the first installed browser that can be driven.
func findBrowser() (string, error) {
	return onPath("google-chrome-stable", "google-chrome", "chromium", "chromium-browser", "microsoft-edge-stable", "microsoft-edge",
		"google-chrome-beta", "microsoft-edge-beta")
}

// adopt makes what outlives the browser's first process our child, so that
// bury can wait for it: one of its programs, which waits for crashes, is in a
// session of its own.
func adopt() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// bury waits until nothing is left of the browser, whose first process has
// ended and whose group was killed. Who does not end by itself within half of
// endGrace is killed. We have no other children.
func bury(int) {
	begin := time.Now()
	for time.Since(begin) < endGrace {
		switch pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); {
		case pid > 0 || err == unix.EINTR:
			continue
		case err != nil: // no children
			return
		}
		if time.Since(begin) > endGrace/2 {
			for _, pid := range children() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// children are the processes whose parent we are.
func children() []int {
	var pids []int
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for field := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
