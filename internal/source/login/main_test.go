package login

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain: no test may leave a goroutine, and so a connection or a listener,
// behind. The binary is also the other program that shares the CLI's cache.
func TestMain(m *testing.M) {
	if os.Getenv(envOther) != "" {
		os.Exit(otherProgram())
	}
	goleak.VerifyTestMain(m)
}
