package cli

import (
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// graphical reports whether there is a desktop to open a window on: a display
// that answers. The variables alone say little: a tmux keeps them from a
// session that has ended.
func (a *app) graphical() bool {
	if w := a.getenv("WAYLAND_DISPLAY"); w != "" {
		if !filepath.IsAbs(w) {
			w = filepath.Join(a.getenv("XDG_RUNTIME_DIR"), w)
		}
		if filepath.IsAbs(w) && accepts(w) {
			return true
		}
	}
	display := a.getenv("DISPLAY")
	i := strings.LastIndexByte(display, ':')
	if i < 0 {
		return false
	}
	host, number := display[:i], display[i+1:]
	number, _, _ = strings.Cut(number, ".")
	if _, err := strconv.ParseUint(number, 10, 15); err != nil {
		return false
	}
	if host != "" && host != "unix" {
		return true // forwarded by ssh, mostly: it can't be asked quickly
	}
	path := "/tmp/.X11-unix/X" + number
	return accepts(path) || accepts("@"+path)
}

// accepts reports whether somebody listens on a socket.
func accepts(path string) bool {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer func() { _ = syscall.Close(fd) }()
	err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}) // "@" is the abstract one's NUL
	return err == nil || err == syscall.EAGAIN
}
