package sso

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain: whatever a Fetch starts has ended when the last one returns.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
