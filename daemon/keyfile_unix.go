//go:build unix

package daemon

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"keyfob/internal/cred"
)

// checkKeyFile refuses the file of a private key that another user owns, or
// that others may read or write. The group may read it: so do Kubernetes and
// Debian's ssl-cert hand a key to who is not its owner.
func checkKeyFile(path string, st fs.FileInfo) error {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return cred.WithHint(fmt.Errorf("the private key %s belongs to user %d", path, sys.Uid), fmt.Sprintf("chown %d %s", os.Geteuid(), path))
	}
	if mode := st.Mode().Perm(); mode&0o037 != 0 {
		return cred.WithHint(fmt.Errorf("others may use the private key %s (%04o)", path, mode), "chmod 600 "+path)
	}
	return nil
}
