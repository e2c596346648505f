//go:build !windows

package daemon

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// hangups catches SIGHUP from now on: one that came before would end the
// program.
func hangups() (caught <-chan os.Signal, stop func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	return hup, func() { signal.Stop(hup) }
}

// reloadOnSignal reloads at each signal, until ctx ends. Those that come
// during a reload are one.
func (d *daemon) reloadOnSignal(ctx context.Context, hup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			_, _ = d.reload(ctx) // logged there, and shown by status
		}
	}
}
