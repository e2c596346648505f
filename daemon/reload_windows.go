package daemon

import "context"

// reloadOnSignal waits for the end: Windows has no SIGHUP, `keyfob reload`
// does it there.
func (d *daemon) reloadOnSignal(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
