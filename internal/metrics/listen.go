package metrics

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func portText(p uint16) string { return strconv.FormatUint(uint64(p), 10) }

// Listen opens the listener of a setting: "unix:/path", a socket that only
// its user may open (a stale one is replaced), or "address:port" with a
// loopback address. Errors name the setting's value.
func Listen(ctx context.Context, setting string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(setting, "unix:"); ok {
		l, err := listenUnix(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("cannot listen on the socket %s for metrics: %w", path, err)
		}
		return l, nil
	}
	ap, err := netip.ParseAddrPort(setting)
	if err != nil || !ap.Addr().Unmap().IsLoopback() {
		return nil, fmt.Errorf("cannot listen on %s for metrics: neither unix:/path nor a loopback address and a port", setting)
	}
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", setting)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s for metrics: %w", setting, err)
	}
	return l, nil
}

// listenUnix makes the socket in a directory that nobody else can enter and
// moves it to its place, so that it is at no moment open to others.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("the path is not absolute")
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, errors.New("something that is no socket stands there")
		}
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			_ = c.Close()
			return nil, errors.New("another program listens there")
		}
	}
	// Short: the path of a socket is 104 bytes long at most.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".m") // mode 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	var c net.ListenConfig
	l, err := c.Listen(ctx, "unix", made)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its name changes
	if err = os.Chmod(made, 0o600); err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return &unixListener{Listener: l, path: path, made: info}, nil
}

// unixListener removes its socket when it is closed.
type unixListener struct {
	net.Listener
	path string
	made fs.FileInfo
}

func (l *unixListener) Close() error {
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.made) {
		_ = os.Remove(l.path)
	}
	return l.Listener.Close()
}
