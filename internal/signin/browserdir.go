package signin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// browserDir is the directory of the browser's own profile, held by us: two
// browsers with one profile disturb each other.
type browserDir struct {
	path string
	// lock is a file that is locked while we, or a browser that we started,
	// live.
	lock *os.File
	used bool // a browser has been here before
}

// lockRetry is how often a lock that is held is tried.
const lockRetry = 100 * time.Millisecond

// openBrowserDir makes the directory where it does not exist, with mode 0700,
// and waits until it is nobody else's.
func openBrowserDir(ctx context.Context, path string) (*browserDir, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%w: browser_dir is not an absolute path", errUsage)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the browser's directory: %w", err)
	}
	if err := onlyOurs(path); err != nil {
		return nil, fmt.Errorf("the browser's directory %s can't be used: %w", path, err)
	}
	d := &browserDir{path: path}
	for {
		var err error
		if d.lock, err = tryLock(d.lockPath()); err == nil {
			break
		}
		if !errors.Is(err, errHeld) {
			return nil, fmt.Errorf("cannot lock the browser's directory: %w", err)
		}
		select {
		case <-time.After(lockRetry):
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, errTooLate) {
				return nil, cause
			}
			return nil, errors.New("another sign-in has the browser of keyfob")
		}
	}
	// Whoever left these has ended, or we had no lock. On another day this
	// machine may have another name, and the browser would not believe it.
	for _, name := range []string{"SingletonLock", "SingletonSocket", "SingletonCookie"} {
		_ = os.Remove(filepath.Join(path, name))
	}
	_, err := os.Stat(filepath.Join(path, "Local State"))
	d.used = err == nil
	return d, nil
}

func (d *browserDir) lockPath() string { return filepath.Join(d.path, "keyfob.lock") }

// close gives the directory back. It stays locked for as long as a browser
// that inherited the lock lives.
func (d *browserDir) close() { _ = d.lock.Close() }

// errHeld: another process has the lock.
var errHeld = errors.New("it is locked")
