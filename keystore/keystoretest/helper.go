package keystoretest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// BuildHelper builds keyfob-keyring in dir, for a TestMain, and returns its
// path. It needs the go command, or the variable KEYSTORE_TEST_HELPER with the
// path of one that is built.
func BuildHelper(dir string) (string, error) {
	if path := os.Getenv("KEYSTORE_TEST_HELPER"); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, "keyfob-keyring")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	if out, err := exec.Command("go", "build", "-o", path, "keyfob/cmd/keyfob-keyring").CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build keyfob-keyring: %w: %s", err, out)
	}
	return path, nil
}
