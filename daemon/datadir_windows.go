package daemon

import (
	"errors"
	"fmt"
	"io/fs"

	"keyfob/internal/cred"
	"keyfob/internal/winacl"
)

const exeSuffix = ".exe"

// makePrivate makes the directory for this user, or for administrators and
// the system alone, whatever the directories above it give to others. That
// matters below %ProgramData%, where every user may make files. One that is
// there already must pass checkPrivate.
func makePrivate(dir string, machine bool) error {
	return dataDirError(dir, winacl.MakePrivate(dir, machine))
}

// checkPrivate refuses a directory that is another's or that others may
// enter.
func checkPrivate(dir string, _ fs.FileInfo) error {
	return dataDirError(dir, winacl.CheckPrivate(dir))
}

func dataDirError(dir string, err error) error {
	if err == nil {
		return nil
	}
	var wide *winacl.Error
	if errors.As(err, &wide) {
		return cred.WithHint(fmt.Errorf("cannot use the data directory %s: %w", dir, err), wide.Help)
	}
	return fmt.Errorf("cannot use the data directory: %w", err)
}
