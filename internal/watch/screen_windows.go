package watch

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows"
	"golang.org/x/term"
)

// OpenTerminal takes the console. Errors: ErrNoTerminal.
func OpenTerminal() (Screen, error) {
	in, err := os.OpenFile("CONIN$", os.O_RDWR, 0)
	if err != nil {
		return nil, ErrNoTerminal
	}
	out, err := os.OpenFile("CONOUT$", os.O_RDWR, 0)
	if err != nil {
		_ = in.Close()
		return nil, ErrNoTerminal
	}
	c := &console{in: in, out: out, events: make(chan Key), quit: make(chan struct{}), done: make(chan struct{})}
	if err := c.take(); err != nil {
		c.restore()
		return nil, fmt.Errorf("cannot use the console: %w", err)
	}
	go c.read()
	return c, nil
}

// console is a Windows console that understands control sequences (Windows
// 10 and later). read is its goroutine; Close joins it.
type console struct {
	in, out *os.File
	modes   *term.State
	outMode uint32
	taken   bool
	events  chan Key
	quit    chan struct{} // closed by Close
	done    chan struct{} // read has ended
	closed  bool
}

func (c *console) take() (err error) {
	out := windows.Handle(c.out.Fd())
	if err := windows.GetConsoleMode(out, &c.outMode); err != nil {
		return err
	}
	c.taken = true
	if err := windows.SetConsoleMode(out, c.outMode|windows.ENABLE_PROCESSED_OUTPUT|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING); err != nil {
		return err
	}
	if c.modes, err = term.MakeRaw(int(c.in.Fd())); err != nil {
		return err
	}
	_, err = c.out.WriteString(enter)
	return err
}

func (c *console) restore() {
	if c.modes != nil {
		_ = term.Restore(int(c.in.Fd()), c.modes)
	}
	if c.taken {
		_ = windows.SetConsoleMode(windows.Handle(c.out.Fd()), c.outMode)
	}
	_ = c.in.Close()
	_ = c.out.Close()
}

func (c *console) Size() (int, int) {
	w, h, err := term.GetSize(int(c.out.Fd()))
	if err != nil || w < 1 || h < 1 {
		return 80, 24
	}
	return w, h
}

func (c *console) Show(lines []string) error {
	_, err := c.out.WriteString(frame(lines))
	return err
}

func (c *console) Events() <-chan Key { return c.events }

func (c *console) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	close(c.quit)
	<-c.done
	_, _ = c.out.WriteString(leave)
	c.restore()
	return nil
}

// read looks for typed keys ten times a second, because a read that has
// begun can't be ended. With virtual terminal input, keys come as the bytes
// that a terminal sends. The size is asked for on each drawing.
func (c *console) read() {
	defer close(c.done)
	in := windows.Handle(c.in.Fd())
	for {
		select {
		case <-c.quit:
			return
		default:
		}
		switch event, err := windows.WaitForSingleObject(in, 100); {
		case err != nil:
			c.send(Quit)
			return
		case event != windows.WAIT_OBJECT_0:
			continue
		}
		typed, err := pendingKeys(in)
		if err != nil {
			c.send(Quit)
			return
		}
		for _, k := range keysIn(typed) {
			if !c.send(k) {
				return
			}
		}
	}
}

// send passes a key on; false when the view has ended.
func (c *console) send(k Key) bool {
	select {
	case c.events <- k:
		return true
	case <-c.quit:
		return false
	}
}
