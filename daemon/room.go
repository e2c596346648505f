package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/service"
	"keyfob/internal/settings"
)

// roomLimit bounds what a daemon takes to leave.
const roomLimit = 15 * time.Second

// makeRoom ends the daemon on demand that has the socket of the service that
// is about to start (service.Config.MakeRoom). Its sessions, grants and the
// port of exec are in the data directory, where the service finds them. One
// that somebody runs in the foreground is theirs to end.
func makeRoom(args []string, getenv func(string) string, version string) func(context.Context) error {
	return func(ctx context.Context) error {
		s, err := settings.Load(service.Places(args), getenv)
		if err != nil {
			return err
		}
		if !hasDaemon(s.DataDir) {
			return nil // and the socket, if there is one, would start the service
		}
		ctx, cancel := context.WithTimeout(ctx, roomLimit)
		defer cancel()
		c, err := control.Dial(ctx, s.Socket)
		if errors.Is(err, control.ErrNotRunning) {
			return nil
		}
		if err != nil {
			return err
		}
		defer c.Close()
		c.Version = version
		var v control.VersionResult
		if err := c.Call(ctx, control.MethodVersion, control.Empty{}, &v, nil); errors.Is(err, control.ErrGone) {
			return nil // it was just ending
		} else if err != nil {
			return err
		}
		if !v.OnDemand {
			return cred.WithHint(fmt.Errorf("cannot start the service: keyfobd (pid %d) serves %s already", v.PID, s.Socket), "end that one first")
		}
		if err := c.Call(ctx, control.MethodStop, control.Empty{}, nil, nil); err != nil && !errors.Is(err, control.ErrGone) {
			return fmt.Errorf("cannot end the daemon on demand (pid %d): %w", v.PID, err)
		}
		// It closes its connections before it gives the directory back.
		if err := c.WaitClosed(ctx); err != nil {
			return fmt.Errorf("cannot end the daemon on demand (pid %d): %w", v.PID, err)
		}
		return waitUnlocked(ctx, s.DataDir)
	}
}

// hasDaemon reports whether a daemon has the data directory. It makes nothing
// there: root asks for a service that is another user's.
func hasDaemon(dir string) bool {
	path := filepath.Join(dir, "daemon.lock")
	if _, err := os.Stat(path); err != nil {
		return false
	}
	lock := flock.New(path)
	free, err := lock.TryLock()
	if err != nil || free {
		_ = lock.Close()
		return false
	}
	return true
}

// waitUnlocked waits until no daemon has the data directory.
func waitUnlocked(ctx context.Context, dir string) error {
	for hasDaemon(dir) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot end the daemon on demand: it still has %s", dir)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}
