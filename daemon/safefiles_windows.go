package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"keyfob/internal/winacl"
)

// safeFiles says how files for a machine's daemon must be.
const safeFiles = "it and the directories above it must belong to administrators or the system, and nobody else may write there; %ProgramData%\\keyfob, which keyfob service install --system makes, is such a place"

// writableByOthers says who besides administrators, the system and this
// process's user may write to the file, or put another one in its place; nil
// for nobody.
//
// Everybody may make directories in %ProgramData%. Where ours is not made yet
// there is nothing that could be read, and the daemon takes it only if nobody
// else has made it meanwhile (makePrivate).
func writableByOthers(path string) error {
	ours := filepath.Join(os.Getenv("ProgramData"), "keyfob")
	if filepath.IsAbs(ours) && strings.HasPrefix(strings.ToLower(filepath.Clean(path)), strings.ToLower(ours)+`\`) {
		if _, err := os.Lstat(ours); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return winacl.WritableByOthers(path)
}
