//go:build !windows

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"keyfob/internal/cred"
)

// controlSocket is the control listener and the lock that makes this daemon
// the only one on it.
type controlSocket struct {
	net.Listener
	path string
	lock *flock.Flock
}

// endPatience is a little more than a daemon takes to end.
const endPatience = 7 * time.Second

// accepts reports whether somebody listens on the socket.
func accepts(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// listenControl takes the socket, which everybody may open or this user alone.
// A lock file beside it decides who is
// first: it is the kernel's and dies with its holder, so that a socket left
// by a killed daemon is known to be stale and is replaced.
func listenControl(path string, everybody bool, inherited net.Listener) (*controlSocket, error) {
	if inherited != nil { // the manager's: no lock, no path of ours
		return &controlSocket{Listener: inherited}, nil
	}
	dir, dirMode, mode := filepath.Dir(path), fs.FileMode(0o700), fs.FileMode(0o600)
	if everybody {
		dirMode, mode = 0o755, 0o666
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("cannot make the directory of the socket %s: %w", path, err)
	}
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	for end := time.Now().Add(endPatience); err == nil && !ok && !accepts(path) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond) // its holder has stopped listening: it is at its last
		ok, err = lock.TryLock()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock the socket %s: %w", path, err)
	}
	if !ok {
		text := "another daemon serves it"
		if pid := lockHolder(path + ".lock"); pid != "" {
			text += ", pid " + pid
		}
		return nil, cred.WithHint(fmt.Errorf("cannot listen on the socket %s: %s", path, text), "keyfob stop ends that one")
	}
	fail := func(err error) (*controlSocket, error) {
		_ = lock.Unlock()
		return nil, fmt.Errorf("cannot listen on the socket %s: %w", path, err)
	}
	if st, err := os.Lstat(path); err == nil {
		if st.Mode().Type() != fs.ModeSocket {
			return fail(errors.New("something that is no socket stands there"))
		}
		if err := os.Remove(path); err != nil {
			return fail(err)
		}
	}
	// The umask closes the moment between bind and chmod; nothing else of
	// this process makes files yet.
	old := syscall.Umask(0o777 &^ int(mode))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	syscall.Umask(old)
	if err != nil {
		return fail(err)
	}
	l.SetUnlinkOnClose(false) // ours to remove, while the lock is held
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close()
		return fail(err)
	}
	if err := os.WriteFile(path+".lock", []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		_ = l.Close()
		return fail(err)
	}
	return &controlSocket{Listener: l, path: path, lock: lock}, nil
}

// Release removes the socket and lets the next daemon in.
func (c *controlSocket) Release() {
	_ = c.Close()
	if c.lock == nil {
		return
	}
	_ = os.Remove(c.path)
	_ = c.lock.Unlock()
}
