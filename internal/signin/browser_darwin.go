package signin

import (
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// findBrowser is the first installed browser that can be driven.
func findBrowser() (string, error) {
	var paths []string
	for _, dir := range []string{"/Applications", filepath.Join(os.Getenv("HOME"), "Applications")} {
		for _, name := range []string{"Google Chrome", "Chromium", "Microsoft Edge"} {
			paths = append(paths, filepath.Join(dir, name+".app", "Contents", "MacOS", name))
		}
	}
	return firstFile(paths)
}

// adopt: macOS gives orphans to nobody but launchd.
func adopt() {}

// bury waits, a little while, until nothing is left of a group that was
// killed.
func bury(group int) {
	for end := time.Now().Add(endGrace); time.Now().Before(end) && syscall.Kill(-group, 0) == nil; {
		time.Sleep(2 * time.Millisecond)
	}
}
