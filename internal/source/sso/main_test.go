package sso

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain: whatever a Fetch starts has ended when the last one returns.
func TestMain(m *testing.M) {
	if os.Getenv(envOther) != "" {
		os.Exit(otherKeyfob())
	}
	goleak.VerifyTestMain(m)
}
