package watch

import (
	"context"
	"time"

	"keyfob/internal/control"
)

// Screen is a terminal that is ours while the view is shown.
type Screen interface {
	// Size is that of the terminal in cells.
	Size() (width, height int)
	// Show puts lines on it, from the top, and clears the rest.
	Show(lines []string) error
	// Events are what the person types, and Resized; Quit when the terminal
	// is gone.
	Events() <-chan Key
	// Close gives the terminal back as it was. It may be called twice.
	Close() error
}

// Key is what came from the terminal.
type Key int

// The keys that mean something.
const (
	Resized Key = iota
	Up
	Down
	PageUp
	PageDown
	First
	Last
	Enter
	Quit
	Redraw
)

// Config is what Run works with.
type Config struct {
	// Status asks the daemon. It is called every Every, never twice at once,
	// and its context ends after AskFor.
	Status func(context.Context) (*control.StatusResult, error)
	// Open takes the terminal. It is called again after each Act.
	Open func() (Screen, error)
	// Act answers a question or signs in to a profile, as a command would:
	// the terminal is not ours meanwhile. It returns a line that tells what
	// became of it.
	Act    func(context.Context, Row) string
	Every  time.Duration // 0 is a second
	Colour bool
	ASCII  bool
}

// AskFor is how long one question to the daemon may take.
const AskFor = 10 * time.Second

// pageRows is how far a page key moves.
const pageRows = 10

// Run shows the view until the person quits, the terminal is gone or ctx
// ends, and returns nil then. An error of Open is returned as it is.
func Run(ctx context.Context, c Config) error {
	if c.Every <= 0 {
		c.Every = time.Second
	}
	w := &watcher{Config: c, view: View{Colour: c.Colour, ASCII: c.ASCII}}
	for {
		act, err := w.show(ctx)
		if err != nil || act == nil {
			return err
		}
		w.view.Said = w.Act(ctx, *act)
		if ctx.Err() != nil {
			return nil
		}
	}
}

type watcher struct {
	Config
	view View
	said time.Time // when view.Said was first shown
}

// answer is one answer of the daemon.
type answer struct {
	status *control.StatusResult
	err    error
}

// saidFor is how long the outcome of an action stands on the screen.
const saidFor = 15 * time.Second

// show owns the terminal until something is to be done with a row, or, with
// nil, the view is to end.
func (w *watcher) show(ctx context.Context) (act *Row, err error) {
	screen, err := w.Open()
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := screen.Close(); err == nil {
			err = e
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	answers, asked := make(chan answer), make(chan struct{})
	go func() { // joined below
		defer close(asked)
		w.ask(ctx, answers)
	}()
	defer func() {
		cancel()
		<-asked
	}()

	w.said = time.Now()
	second := time.NewTicker(w.Every) // remaining life runs on between answers
	defer second.Stop()
	for {
		w.view.Now = time.Now()
		if w.view.Now.Sub(w.said) > saidFor {
			w.view.Said = ""
		}
		w.view.Width, w.view.Height = screen.Size()
		if err := screen.Show(Draw(w.view)); err != nil {
			return nil, nil // the terminal is gone: there is nobody to tell
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-second.C:
		case a := <-answers:
			w.take(a)
		case k := <-screen.Events():
			if k == Quit {
				return nil, nil
			}
			if row := w.press(k); row != nil {
				return row, nil
			}
		}
	}
}

// ask asks the daemon again and again until ctx ends.
func (w *watcher) ask(ctx context.Context, answers chan<- answer) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		one, cancel := context.WithTimeout(ctx, AskFor)
		st, err := w.Status(one)
		cancel()
		select {
		case <-ctx.Done():
			return
		case answers <- answer{st, err}:
		}
		pause.Reset(w.Every)
	}
}

// take shows an answer; the cursor stays on the row that it was on.
func (w *watcher) take(a answer) {
	if a.err != nil {
		w.view.Failed = a.err.Error()
		return
	}
	rows, at := w.view.Rows(), w.view.Cursor
	w.view.Failed, w.view.Status = "", a.status
	if at >= len(rows) {
		return
	}
	now := w.view.Rows()
	for i, r := range now {
		if r == rows[at] {
			w.view.Cursor = i
			return
		}
	}
	w.view.Cursor = max(0, min(at, len(now)-1))
}

// press does what a key means; it returns the row that something is to be
// done with.
func (w *watcher) press(k Key) *Row {
	rows := w.view.Rows()
	move := func(to int) { w.view.Cursor = max(0, min(to, len(rows)-1)) }
	switch k {
	case Up:
		move(w.view.Cursor - 1)
	case Down:
		move(w.view.Cursor + 1)
	case PageUp:
		move(w.view.Cursor - pageRows)
	case PageDown:
		move(w.view.Cursor + pageRows)
	case First:
		move(0)
	case Last:
		move(len(rows) - 1)
	case Enter:
		if len(rows) > 0 {
			move(w.view.Cursor)
			return &rows[w.view.Cursor]
		}
	}
	return nil
}

// keysIn reads the keys in what a terminal sent; what it doesn't know it
// leaves out. A lone escape ends the view, one before a bracket begins a key
// (ECMA-48; xterm's control sequences).
func keysIn(typed []byte) []Key {
	var keys []Key
	for i := 0; i < len(typed); i++ {
		switch b := typed[i]; b {
		case 'q', 'Q', 3, 4: // Ctrl-C, Ctrl-D
			keys = append(keys, Quit)
		case 'k', 16:
			keys = append(keys, Up)
		case 'j', 14:
			keys = append(keys, Down)
		case 'g':
			keys = append(keys, First)
		case 'G':
			keys = append(keys, Last)
		case 2:
			keys = append(keys, PageUp)
		case 6, ' ':
			keys = append(keys, PageDown)
		case 12:
			keys = append(keys, Redraw)
		case '\r', '\n':
			keys = append(keys, Enter)
		case 0x1b:
			if i+1 >= len(typed) {
				keys = append(keys, Quit)
				break
			}
			if typed[i+1] != '[' && typed[i+1] != 'O' {
				i++ // Alt and a key
				break
			}
			i += 2
			from := i
			for i < len(typed) && (typed[i] < 0x40 || typed[i] > 0x7e) {
				i++
			}
			if i >= len(typed) {
				break
			}
			switch typed[i] {
			case 'A':
				keys = append(keys, Up)
			case 'B':
				keys = append(keys, Down)
			case 'H':
				keys = append(keys, First)
			case 'F':
				keys = append(keys, Last)
			case '~':
				if k, known := map[string]Key{"5": PageUp, "6": PageDown, "1": First, "7": First, "4": Last, "8": Last}[string(typed[from:i])]; known {
					keys = append(keys, k)
				}
			}
		}
	}
	return keys
}
