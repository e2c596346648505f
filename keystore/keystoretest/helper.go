package keystoretest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
)

// BuildHelper builds keyfob-keyring in dir, for a TestMain, and returns its
// path. It needs the go command.
func BuildHelper(dir string) (string, error) {
	path := filepath.Join(dir, "keyfob-keyring")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	if out, err := exec.Command("go", "build", "-o", path, "keyfob/cmd/keyfob-keyring").CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build keyfob-keyring: %w: %s", err, out)
	}
	return path, nil
}
