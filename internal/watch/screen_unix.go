//go:build linux || darwin

package watch

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// OpenTerminal takes the controlling terminal. Errors: ErrNoTerminal.
func OpenTerminal() (Screen, error) {
	fd, err := syscall.Open("/dev/tty", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, ErrNoTerminal
	}
	if fd >= unix.FD_SETSIZE-2 { // select can't wait for it
		_ = syscall.Close(fd)
		return nil, ErrNoTerminal
	}
	// In the background, setting its modes would stop us.
	if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || group != unix.Getpgrp() {
		_ = syscall.Close(fd)
		return nil, ErrNoTerminal
	}
	t := &terminal{fd: fd, events: make(chan Key), done: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("cannot use the terminal: %w", err)
	}
	t.stopped, t.stop = r, w
	if t.modes, err = term.MakeRaw(fd); err == nil {
		_, err = syscall.Write(fd, []byte(enter))
	}
	if err != nil {
		if t.modes != nil {
			_ = term.Restore(fd, t.modes)
		}
		t.closeFiles()
		return nil, fmt.Errorf("cannot use the terminal: %w", err)
	}
	t.resize = make(chan os.Signal, 1)
	signal.Notify(t.resize, syscall.SIGWINCH, syscall.SIGCONT)
	t.quit = make(chan struct{})
	t.resized = make(chan struct{})
	go t.read()
	go t.follow()
	return t, nil
}

// terminal is a controlling terminal in raw mode. read and follow are its
// goroutines; Close joins them.
type terminal struct {
	fd      int
	stopped *os.File // readable once Close has written to stop: ends read's wait
	stop    *os.File
	modes   *term.State
	events  chan Key
	resize  chan os.Signal
	quit    chan struct{} // closed by Close
	done    chan struct{} // read has ended
	resized chan struct{} // follow has ended
	closed  bool
}

func (t *terminal) Size() (int, int) {
	w, h, err := term.GetSize(t.fd)
	if err != nil || w < 1 || h < 1 {
		return 80, 24
	}
	return w, h
}

func (t *terminal) Show(lines []string) error {
	out := []byte(frame(lines))
	for len(out) > 0 {
		n, err := syscall.Write(t.fd, out)
		if err != nil && err != syscall.EINTR {
			return err
		}
		out = out[max(n, 0):]
	}
	return nil
}

func (t *terminal) Events() <-chan Key { return t.events }

func (t *terminal) Close() error {
	if t.closed {
		return nil
	}
	t.closed = true
	signal.Stop(t.resize)
	close(t.quit)
	_, _ = t.stop.Write([]byte{0})
	<-t.done
	<-t.resized
	_, _ = syscall.Write(t.fd, []byte(leave))
	err := term.Restore(t.fd, t.modes)
	t.closeFiles()
	if err != nil {
		return fmt.Errorf("cannot give the terminal back: %w", err)
	}
	return nil
}

func (t *terminal) closeFiles() {
	_ = t.stopped.Close()
	_ = t.stop.Close()
	_ = syscall.Close(t.fd)
}

// send passes a key on; false when the view has ended.
func (t *terminal) send(k Key) bool {
	select {
	case t.events <- k:
		return true
	case <-t.quit:
		return false
	}
}

func (t *terminal) follow() {
	defer close(t.resized)
	for {
		select {
		case <-t.quit:
			return
		case s := <-t.resize:
			if s == syscall.SIGCONT { // the shell has had the terminal meanwhile
				_, _ = term.MakeRaw(t.fd)
				_, _ = syscall.Write(t.fd, []byte(enter))
			}
			if !t.send(Resized) {
				return
			}
		}
	}
}

func (t *terminal) read() {
	defer close(t.done)
	stopped := int(t.stopped.Fd())
	for {
		var set unix.FdSet
		set.Set(t.fd)
		set.Set(stopped)
		if _, err := unix.Select(max(t.fd, stopped)+1, &set, nil, nil, nil); err == unix.EINTR {
			continue
		} else if err == nil && set.IsSet(stopped) {
			return
		} else if err != nil {
			t.send(Quit)
			return
		}
		var buf [256]byte
		n, err := syscall.Read(t.fd, buf[:])
		if err == syscall.EINTR || err == syscall.EAGAIN {
			continue
		}
		if err != nil || n == 0 { // the terminal is gone
			t.send(Quit)
			return
		}
		for _, k := range keysIn(buf[:n]) {
			if !t.send(k) {
				return
			}
		}
	}
}
