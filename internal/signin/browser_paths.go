//go:build darwin || windows

package signin

import "os"

// firstFile is the first path that is a file.
func firstFile(paths []string) (string, error) {
	for _, path := range paths {
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return onPath()
}
