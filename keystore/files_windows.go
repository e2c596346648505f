package keystore

import (
	"errors"
	"fmt"
	"os"

	"keyfob/internal/cred"
	"keyfob/internal/winacl"
)

// checkDir refuses a directory that others can read or change, or that is
// another's. Errors: ErrPermissions.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot use the vault: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("cannot use the vault %s: it is not a directory", dir)
	}
	var wide *winacl.Error
	if err := winacl.CheckPrivate(dir); errors.As(err, &wide) {
		return cred.WithHint(fmt.Errorf("cannot use the vault %s: %w: %w", dir, ErrPermissions, err), wide.Help)
	} else if err != nil {
		return fmt.Errorf("cannot use the vault: %w", err)
	}
	return nil
}
