package daemon

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"keyfob/internal/peer"
)

const (
	// pollEnd is how often a process is looked at where the system does not
	// tell of its end.
	pollEnd = 2 * time.Second
	// lockPatience is how old a directory of exec must be before the lack of
	// its lock means that its keyfob has gone, and not that it is about to
	// take it.
	lockPatience = 3 * time.Second
)

// watchExec ends the grants of exec's programs when their keyfob ends, also
// by a kill.
func (d *daemon) watchExec() {
	d.execMu.Lock()
	defer d.execMu.Unlock()
	if d.watched == nil {
		d.watched = map[string]bool{}
	}
	for _, g := range d.grants.List() {
		if g.ExecPID == 0 || d.watched[g.ID] || d.life == nil || d.life.Err() != nil {
			continue
		}
		d.watched[g.ID] = true
		d.group.Go(func() error {
			waitEnd(d.life, g.ExecPID, g.ExecStart)
			d.execMu.Lock()
			delete(d.watched, g.ID)
			d.execMu.Unlock()
			if d.life.Err() == nil {
				d.pruneGrants(d.life)
				d.sweepExec()
			}
			return nil
		})
	}
}

// poll waits until the process has ended or ctx does, by looking.
func poll(ctx context.Context, pid int, start uint64) {
	tick := time.NewTicker(pollEnd)
	defer tick.Stop()
	for peer.Alive(pid, start) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweepExec removes the AWS files that exec made for programs whose keyfob
// is gone. Whoever looks after such a directory holds its lock.
func (d *daemon) sweepExec() {
	if young := sweepRuns(d.execDir()); young {
		t := time.NewTimer(lockPatience)
		defer t.Stop()
		select {
		case <-t.C:
			sweepRuns(d.execDir())
		case <-d.life.Done():
		}
	}
}

// sweepRuns removes the directories that nobody holds, and reports whether
// there are some that were made a moment ago.
func sweepRuns(parent string) (young bool) {
	dirs, err := filepath.Glob(filepath.Join(parent, "run-*"))
	if err != nil {
		return false
	}
	for _, dir := range dirs {
		st, err := os.Lstat(dir)
		if err != nil || !st.IsDir() {
			continue
		}
		if time.Since(st.ModTime()) < lockPatience {
			young = true
			continue
		}
		lock := flock.New(filepath.Join(dir, "lock"), flock.SetPermissions(0o600))
		free, err := lock.TryLock()
		if err == nil && free {
			_ = os.RemoveAll(dir)
		}
		_ = lock.Close()
		if err == nil && free {
			_ = os.RemoveAll(dir) // Windows removes no file that is open
		}
	}
	return young
}
