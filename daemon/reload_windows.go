package daemon

import (
	"context"
	"os"
)

// hangups are none: Windows has no SIGHUP, `keyfob reload` does it there.
func hangups() (caught <-chan os.Signal, stop func()) { return nil, func() {} }

// reloadOnSignal waits for the end.
func (d *daemon) reloadOnSignal(ctx context.Context, _ <-chan os.Signal) error {
	<-ctx.Done()
	return nil
}
