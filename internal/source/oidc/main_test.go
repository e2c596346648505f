package oidc

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain: no test may leave a goroutine, and so a connection or a
// listener, behind.
func TestMain(m *testing.M) {
	if os.Getenv(killEnv) != "" {
		killed()
		return
	}
	goleak.VerifyTestMain(m)
}
