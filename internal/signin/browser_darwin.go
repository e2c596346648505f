package signin

import (
	"os"
	"path/filepath"
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
