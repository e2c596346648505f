package daemon

import (
	"context"
	"errors"
	"testing"

	"keyfob/internal/control"
	"keyfob/internal/settings"
)

// TestOneAtATime: who reads the audit log, or has profiles resolved, waits for
// who does so already, whoever that is, and no longer than his call lasts.
func TestOneAtATime(t *testing.T) {
	d := &daemon{scanning: newTurn(), listing: newTurn()}
	opened := make(chan struct{})
	close(opened)
	d.store = &startingStore{first: opened}
	d.config.Store(&config{Settings: &settings.Settings{System: true}})
	for _, method := range []string{control.MethodAudit, control.MethodAuditVerify, control.MethodList, control.MethodExplain} {
		x := d.scanning
		if method == control.MethodList || method == control.MethodExplain {
			x = d.listing
		}
		give, err := x.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := handlers[method].handle(d, &call{ctx: ctx, admin: true}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", method, err)
		}
		give()
	}
}
