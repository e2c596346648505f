//go:build linux || darwin

package signin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

const terminalPath = "/dev/tty"

// openTerminal opens the controlling terminal, if we are in its foreground:
// reading it elsewhere would stop us.
func openTerminal() (int, error) {
	fd, err := syscall.Open(terminalPath, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%w: there is no terminal", errNobody)
	}
	if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || group != unix.Getpgrp() || fd >= unix.FD_SETSIZE {
		_ = syscall.Close(fd)
		return -1, fmt.Errorf("%w: the terminal is another program's now", errNobody)
	}
	return fd, nil
}

func hasTerminal() bool {
	fd, err := openTerminal()
	if err != nil {
		return false
	}
	_ = syscall.Close(fd)
	return true
}

// terminalName is the terminal on which a pinentry may ask, "" for none: our
// own, else the one that the person set aside for that.
func terminalName() string {
	if hasTerminal() {
		return terminalPath
	}
	return os.Getenv("GPG_TTY")
}

// keepTerminal returns what gives the terminal its modes back, for a program
// that may be killed in the middle.
func keepTerminal(name string) (restore func()) {
	fd, err := syscall.Open(name, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return func() {}
	}
	old, err := unix.IoctlGetTermios(fd, getTermios)
	return func() {
		if err == nil {
			_ = unix.IoctlSetTermios(fd, setTermios, old)
		}
		_ = syscall.Close(fd)
	}
}

// askTerminal asks on the controlling terminal, whatever the standard
// streams are. What is typed is not shown. However it ends, the terminal
// gets its modes back; continued after it was stopped, it asks again.
func askTerminal(ctx context.Context, p prompt) (string, error) {
	fd, err := openTerminal()
	if err != nil {
		return "", err
	}
	defer func() { _ = syscall.Close(fd) }()
	old, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return "", errors.New("its modes can't be read")
	}
	defer func() { _ = unix.IoctlSetTermios(fd, setTermios, old) }()
	mode := *old
	mode.Lflag |= unix.ICANON | unix.ISIG | unix.ECHONL
	mode.Lflag &^= unix.ECHO
	mode.Iflag |= unix.ICRNL
	show := func() {
		_ = unix.IoctlSetTermios(fd, setTermios, &mode)
		_, _ = syscall.Write(fd, []byte(p.short))
	}

	wake, err := newWaker(ctx)
	if err != nil {
		return "", err
	}
	defer wake.stop()
	if p.fail != "" {
		_, _ = syscall.Write(fd, []byte("keyfob: "+p.fail+"\n"))
	}
	show()
	var line []byte
	defer func() { clear(line[:cap(line)]) }()
	for {
		typed, woken, err := readable(fd, wake.fd)
		switch {
		case err != nil:
			return "", errors.New("it can't be read")
		case ctx.Err() != nil:
			_, _ = syscall.Write(fd, []byte("\n"))
			return "", context.Cause(ctx)
		case woken && wake.continued():
			line = line[:0]
			show()
			continue
		case !typed:
			continue
		}
		var buf [512]byte
		n, err := syscall.Read(fd, buf[:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return "", errors.New("it can't be read")
		}
		line = append(line, buf[:n]...)
		clear(buf[:])
		if n == 0 || line[len(line)-1] == '\n' { // n == 0 is Ctrl-D
			if n == 0 {
				_, _ = syscall.Write(fd, []byte("\n"))
			}
			return string(line), nil
		}
		if len(line) > 4096 {
			return "", errors.New("what was typed is too long")
		}
	}
}

// readable waits until one of the descriptors can be read. It is select
// because poll knows no terminals on macOS.
func readable(a, b int) (aReady, bReady bool, err error) {
	for {
		var set unix.FdSet
		set.Set(a)
		set.Set(b)
		_, err := unix.Select(max(a, b)+1, &set, nil, nil, nil)
		if err == unix.EINTR {
			continue
		}
		return set.IsSet(a), set.IsSet(b), err
	}
}

// waker makes a descriptor readable when ctx ends or when we are continued
// after a stop. Its goroutine is joined by stop.
type waker struct {
	fd      int
	r, w    *os.File
	signals chan os.Signal
	quit    chan struct{}
	done    chan struct{}
}

func newWaker(ctx context.Context) (*waker, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	k := &waker{r: r, w: w, fd: int(r.Fd()), signals: make(chan os.Signal, 1), quit: make(chan struct{}), done: make(chan struct{})}
	if k.fd >= unix.FD_SETSIZE {
		_, _ = r.Close(), w.Close()
		return nil, errors.New("too many files are open")
	}
	signal.Notify(k.signals, syscall.SIGCONT)
	go func() {
		defer close(k.done)
		ended := ctx.Done()
		for {
			select {
			case <-k.quit:
				return
			case <-ended:
				ended = nil
				_, _ = k.w.Write([]byte{'e'})
			case <-k.signals:
				_, _ = k.w.Write([]byte{'c'})
			}
		}
	}()
	return k, nil
}

// continued takes one wake-up and reports whether it was by SIGCONT.
func (k *waker) continued() bool {
	var b [1]byte
	n, _ := k.r.Read(b[:])
	return n == 1 && b[0] == 'c'
}

func (k *waker) stop() {
	signal.Stop(k.signals)
	close(k.quit)
	<-k.done
	_, _ = k.r.Close(), k.w.Close()
}
