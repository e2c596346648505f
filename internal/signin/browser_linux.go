package signin

import (
	"time"

	"golang.org/x/sys/unix"
)

// findBrowser is the first installed browser that can be driven.
func findBrowser() (string, error) {
	return onPath("google-chrome-stable", "google-chrome", "chromium", "chromium-browser", "microsoft-edge-stable", "microsoft-edge",
		"google-chrome-beta", "microsoft-edge-beta")
}

// adopt makes what outlives the browser's first process ours, so that bury
// can wait for it.
func adopt() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// bury waits, a little while, until nothing is left of a group that was
// killed. Its leader has been waited for.
func bury(group int) {
	for end := time.Now().Add(endGrace); time.Now().Before(end); {
		switch pid, err := unix.Wait4(-group, nil, unix.WNOHANG, nil); {
		case pid > 0 || err == unix.EINTR:
		case err != nil:
			return
		default:
			time.Sleep(2 * time.Millisecond)
		}
	}
}
