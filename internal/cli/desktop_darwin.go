package cli

import (
	"os"
	"syscall"
)

// graphical reports whether this user's session is the one on the screen: it
// owns the console then. Who came over ssh sits elsewhere.
func (a *app) graphical() bool {
	if a.getenv("SSH_CONNECTION") != "" {
		return false
	}
	st, err := os.Stat("/dev/console")
	if err != nil {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Getuid()
}
