//go:build linux || darwin

package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const terminalPath = "/dev/tty"

// hasTerminal reports whether a person can be asked: there is a controlling
// terminal, and we are in its foreground (reading it elsewhere would stop
// us).
func hasTerminal() bool {
	fd, err := openTerminal()
	if err != nil {
		return false
	}
	_ = syscall.Close(fd)
	return true
}

func openTerminal() (int, error) {
	fd, err := syscall.Open(terminalPath, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, errNoTerminal
	}
	if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || group != unix.Getpgrp() {
		_ = syscall.Close(fd)
		return -1, errNoTerminal
	}
	return fd, nil
}

// askTerminal asks on the controlling terminal, whatever standard input and
// output are, and returns the line typed; without echo what is typed is not
// shown. When ctx ends it stops asking. A signal that ends us first gives the
// terminal back. Stopped and continued (the shell has had the terminal, with
// modes of its own), it asks again. Errors: errNoTerminal, errInputEnded, ctx's.
func askTerminal(ctx context.Context, question string, echo bool) (string, error) {
	fd, err := openTerminal()
	if err != nil {
		return "", err
	}
	defer func() { _ = syscall.Close(fd) }()
	if fd >= unix.FD_SETSIZE {
		return "", errNoTerminal
	}
	old, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return "", fmt.Errorf("cannot use the terminal: %w", err)
	}
	mode := *old
	mode.Lflag |= unix.ICANON | unix.ISIG
	mode.Iflag |= unix.ICRNL
	if !echo {
		mode.Lflag &^= unix.ECHO
		mode.Lflag |= unix.ECHONL
	}
	restore := func() { _ = unix.IoctlSetTermios(fd, setTermios, old) }

	wake := newWaker(ctx)
	defer wake.stop()
	if err := wake.err; err != nil {
		return "", err
	}
	begin := func() error {
		if err := unix.IoctlSetTermios(fd, setTermios, &mode); err != nil {
			return fmt.Errorf("cannot use the terminal: %w", err)
		}
		_, _ = syscall.Write(fd, []byte(question))
		return nil
	}
	defer restore()
	if err := begin(); err != nil {
		return "", err
	}
	var line []byte
	for {
		if err := waitReadable(fd, wake.fd()); err != nil {
			return "", fmt.Errorf("cannot read the terminal: %w", err)
		}
		if sig := wake.signal(); sig != nil {
			if sig != syscall.SIGCONT {
				restore()
				_, _ = syscall.Write(fd, []byte("\n"))
				wake.raise(sig)
			}
			line = line[:0]
			if err := begin(); err != nil {
				return "", err
			}
			continue
		}
		if ctx.Err() != nil {
			_, _ = syscall.Write(fd, []byte("\n"))
			return "", ctx.Err()
		}
		var buf [512]byte
		if !readable(fd) {
			continue
		}
		n, err := syscall.Read(fd, buf[:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("cannot read the terminal: %w", err)
		}
		line = append(line, buf[:n]...)
		if len(line) == 0 {
			_, _ = syscall.Write(fd, []byte("\n"))
			return "", errInputEnded
		}
		if n == 0 || line[len(line)-1] == '\n' { // n == 0 is Ctrl-D
			if m := len(line); m > 0 && line[m-1] == '\n' {
				line = line[:m-1]
			} else {
				_, _ = syscall.Write(fd, []byte("\n"))
			}
			return trimCR(line), nil
		}
		if len(line) > maxLine {
			return "", failure("cannot use what was typed: it is too long", "")
		}
	}
}

func waitReadable(fds ...int) error {
	for {
		var set unix.FdSet
		top := 0
		for _, fd := range fds {
			set.Set(fd)
			top = max(top, fd)
		}
		_, err := unix.Select(top+1, &set, nil, nil, nil)
		if err != unix.EINTR {
			return err
		}
	}
}

// waitForInput returns a function that waits until f can be read, or until
// ctx ends, whose error it then returns. done ends it. A signal that ends us
// does so at once.
func waitForInput(ctx context.Context, f *os.File) (wait func() error, done func()) {
	fd := int(f.Fd())
	wake := newWaker(ctx)
	if wake.err != nil || fd >= unix.FD_SETSIZE {
		return nil, wake.stop // it waits for what comes, as long as that takes
	}
	return func() error {
		for !readable(fd) {
			if err := waitReadable(fd, wake.fd()); err != nil {
				return fmt.Errorf("cannot read standard input: %w", err)
			}
			if sig := wake.signal(); sig != nil && sig != syscall.SIGCONT {
				wake.raise(sig)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		return nil
	}, wake.stop
}

func readable(fd int) bool {
	var set unix.FdSet
	set.Set(fd)
	n, err := unix.Select(fd+1, &set, nil, nil, &unix.Timeval{})
	return err == nil && n > 0
}

// waker makes a descriptor readable when ctx ends or a signal comes, for
// select. Its goroutine is joined by stop.
type waker struct {
	r, w    *os.File
	signals chan os.Signal
	got     chan os.Signal
	quit    chan struct{}
	done    chan struct{}
	err     error
}

func newWaker(ctx context.Context) *waker {
	w := &waker{
		signals: make(chan os.Signal, 8),
		got:     make(chan os.Signal, 1),
		quit:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	if w.r, w.w, w.err = os.Pipe(); w.err != nil {
		close(w.done)
		return w
	}
	if w.fd() >= unix.FD_SETSIZE {
		w.err = errNoTerminal
	}
	// Not SIGTSTP: once the runtime has caught it, it cannot be given back its
	// default, and nothing would stop us.
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGCONT} {
		if !signal.Ignored(s) {
			signal.Notify(w.signals, s)
		}
	}
	go func() {
		defer close(w.done)
		ended := ctx.Done()
		for {
			select {
			case <-w.quit:
				return
			case <-ended:
				ended = nil
			case s := <-w.signals:
				select {
				case w.got <- s:
				default:
				}
			}
			_, _ = w.w.Write([]byte{0})
		}
	}()
	return w
}

func (w *waker) fd() int { return int(w.r.Fd()) }

// signal returns a signal that has come, and forgets the wake-up.
func (w *waker) signal() os.Signal {
	select {
	case s := <-w.got:
		if readable(w.fd()) {
			_, _ = w.r.Read(make([]byte, 16))
		}
		return s
	default:
		return nil
	}
}

// raise ends this process by the signal.
func (w *waker) raise(s os.Signal) {
	signal.Reset(s)
	_ = syscall.Kill(os.Getpid(), s.(syscall.Signal))
	time.Sleep(20 * time.Millisecond) // another thread may be the one that takes it
	signal.Notify(w.signals, s)
}

func (w *waker) stop() {
	signal.Stop(w.signals)
	close(w.quit)
	<-w.done
	if w.r != nil {
		_ = w.r.Close()
		_ = w.w.Close()
	}
}

// writeTerminal shows text on the controlling terminal; false if there is
// none that is ours.
func writeTerminal(text string) bool {
	fd, err := openTerminal()
	if err != nil {
		return false
	}
	defer func() { _ = syscall.Close(fd) }()
	_, err = syscall.Write(fd, []byte(text))
	return err == nil
}
