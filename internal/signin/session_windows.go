package signin

import (
	"context"
	"os"

	"golang.org/x/sys/windows"
)

func childEnv() []string { return os.Environ() }

// graphical reports whether this process is in a session with a desktop:
// session 0 is that of services. Who came over ssh sits elsewhere.
func graphical(context.Context) bool {
	if os.Getenv("SSH_CONNECTION") != "" {
		return false
	}
	var session uint32
	return windows.ProcessIdToSessionId(windows.GetCurrentProcessId(), &session) == nil && session != 0
}
