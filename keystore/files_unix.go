//go:build unix

package keystore

import (
	"fmt"
	"os"
	"syscall"

	"keyfob/internal/cred"
)

// checkDir refuses a directory that others can read, change, or own.
// Errors: ErrPermissions.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot use the vault: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("cannot use the vault %s: it is not a directory", dir)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return cred.WithHint(fmt.Errorf("cannot use the vault %s: %w: it belongs to user %d, not to user %d that runs this", dir, ErrPermissions, st.Uid, os.Geteuid()),
			fmt.Sprintf("chown -R %d %s", os.Geteuid(), dir))
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return cred.WithHint(fmt.Errorf("cannot use the vault %s: %w: its mode is %04o", dir, ErrPermissions, mode),
			"chmod 700 "+dir)
	}
	return nil
}
