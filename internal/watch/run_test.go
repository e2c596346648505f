package watch

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/control"
)

// paper is a Screen on which nothing but tests look.
type paper struct {
	keys  chan Key
	shown chan []string // the newest
	shut  bool
}

func newPaper() *paper { return &paper{keys: make(chan Key), shown: make(chan []string, 1)} }

func (p *paper) Size() (int, int) { return 100, 34 }
func (p *paper) Show(lines []string) error {
	select {
	case <-p.shown:
	default:
	}
	p.shown <- lines
	return nil
}
func (p *paper) Events() <-chan Key { return p.keys }
func (p *paper) Close() error       { p.shut = true; return nil }

func (p *paper) text() string {
	synctest.Wait()
	lines := <-p.shown
	p.shown <- lines
	return strings.Join(lines, "\n")
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			failing error
			acted   []Row
			opened  []*paper
			asked   int
			mu      sync.Mutex // guards what the view's goroutines and the test share
		)
		set := func(change func()) { mu.Lock(); defer mu.Unlock(); change() }
		st := busy()
		c := Config{
			Status: func(context.Context) (*control.StatusResult, error) {
				mu.Lock()
				defer mu.Unlock()
				asked++
				copied := *st
				return &copied, failing
			},
			Open: func() (Screen, error) { opened = append(opened, newPaper()); return opened[len(opened)-1], nil },
			Act: func(_ context.Context, r Row) string {
				if !opened[len(opened)-1].shut {
					t.Error("a question is put while the terminal is the view's")
				}
				acted = append(acted, r)
				return "done with it"
			},
		}
		ended := make(chan error)
		go func() { ended <- Run(t.Context(), c) }()
		synctest.Wait()
		p := opened[0]
		if text := p.text(); !strings.Contains(text, "Waiting for you (3)") || !strings.Contains(text, "> mfa") {
			t.Fatalf("the first screen is\n%s", text)
		}

		// The cursor stays on its row while others come and go.
		p.keys <- Down
		set(func() { st.Interactions = st.Interactions[1:] })
		time.Sleep(1100 * time.Millisecond)
		if text := p.text(); !strings.Contains(text, "> device") {
			t.Errorf("the cursor has moved:\n%s", text)
		}

		// A daemon that is away is said, with what was last known.
		set(func() { failing = errors.New("cannot reach keyfobd") })
		time.Sleep(1100 * time.Millisecond)
		if text := p.text(); !strings.Contains(text, "! cannot reach keyfobd") || !strings.Contains(text, "> device") {
			t.Errorf("the screen without a daemon is\n%s", text)
		}
		set(func() { failing = nil })

		p.keys <- Enter
		synctest.Wait()
		if len(opened) != 2 || !reflect.DeepEqual(acted, []Row{{"91bc", "corp"}}) {
			t.Fatalf("acted on %v, %d screens", acted, len(opened))
		}
		p = opened[1]
		if text := p.text(); !strings.Contains(text, "done with it") {
			t.Errorf("the outcome is not shown:\n%s", text)
		}
		time.Sleep(saidFor + 2*time.Second)
		if text := p.text(); strings.Contains(text, "done with it") {
			t.Error("the outcome is shown for ever")
		}

		p.keys <- Last
		p.keys <- Enter
		synctest.Wait()
		if want := (Row{"", "none"}); len(acted) != 2 || acted[1] != want {
			t.Errorf("acted on %v", acted)
		}
		p = opened[2]
		before, after := 0, 0
		set(func() { before = asked })
		time.Sleep(10 * time.Second)
		set(func() { after = asked })
		if n := after - before; n < 9 || n > 11 {
			t.Errorf("%d questions to the daemon in ten seconds", n)
		}
		p.keys <- Quit
		if err := <-ended; err != nil || !p.shut {
			t.Errorf("ended with %v, closed %v", err, p.shut)
		}
	})
}

func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newPaper()
		ended := make(chan error)
		go func() {
			ended <- Run(ctx, Config{
				Status: func(ctx context.Context) (*control.StatusResult, error) { <-ctx.Done(); return nil, ctx.Err() },
				Open:   func() (Screen, error) { return p, nil },
			})
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil || !p.shut {
			t.Errorf("ended with %v, closed %v", err, p.shut)
		}
		if err := Run(t.Context(), Config{Open: func() (Screen, error) { return nil, ErrNoTerminal }}); !errors.Is(err, ErrNoTerminal) {
			t.Errorf("without a terminal: %v", err)
		}
	})
}

func TestKeys(t *testing.T) {
	for typed, want := range map[string][]Key{
		"q": {Quit}, "\x03": {Quit}, "\x1b": {Quit}, "jk": {Down, Up}, "\r": {Enter}, "gG": {First, Last},
		"\x1b[A\x1b[B": {Up, Down}, "\x1bOA": {Up}, "\x1b[5~\x1b[6~": {PageUp, PageDown}, "\x1b[1;5A": {Up},
		"\x1b[200~": nil, "\x1b[": nil, "\x1bq": nil, "xyz": nil, "\x1b[99;1~j": {Down},
	} {
		if got := keysIn([]byte(typed)); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, want %v", typed, got, want)
		}
	}
}
