package watch

import (
	"errors"
	"strings"
)

// ErrNoTerminal says that there is no terminal to show the view on.
var ErrNoTerminal = errors.New("there is no terminal to show it on")

// Sequences of xterm and of what follows it: the other screen, the cursor,
// where lines begin, and no wrapping, so that a line that a terminal draws
// wider than we think moves nothing.
const (
	enter  = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
	leave  = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home   = "\x1b[H"
	rest   = "\x1b[K"
	below  = "\x1b[J"
	begin  = "\x1b[?2026h" // terminals that know it show what follows at once
	commit = "\x1b[?2026l"
)

// frame is the text that puts lines on the screen.
func frame(lines []string) string {
	var b strings.Builder
	b.WriteString(begin + home)
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(rest + l) // erased behind a full line, its last cell would go
	}
	b.WriteString(below + commit)
	return b.String()
}
