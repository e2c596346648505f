package watch

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// style is an SGR sequence (ECMA-48) that a text is shown in.
type style string

const (
	none   style = ""
	bold   style = "\x1b[1m"
	dim    style = "\x1b[2m"
	red    style = "\x1b[31m"
	green  style = "\x1b[32m"
	yellow style = "\x1b[33m"
)

const reset = "\x1b[0m"

type text struct {
	style style
	s     string
}

type line []text

func plain(s style, t string) line { return line{{s, t}} }

func (l line) width() int {
	n := 0
	for _, t := range l {
		n += cellsOf(t.s)
	}
	return n
}

// render returns l in at most cells cells. What comes from elsewhere (names,
// errors, addresses) can't steer the terminal: control characters are left
// out.
func (l line) render(cells int, colour bool) string {
	over := l.width() > cells
	if over {
		cells-- // for the ellipsis
	}
	var b strings.Builder
	for _, t := range l {
		s := t.s
		if n := cellsOf(s); n > cells {
			s = cut(s, cells)
			cells = 0
		} else {
			cells -= n
		}
		s = harmless(s)
		if colour && t.style != none && strings.TrimSpace(s) != "" {
			s = string(t.style) + s + reset
		}
		b.WriteString(s)
		if cells == 0 && over {
			break
		}
	}
	if over {
		b.WriteString("…")
	}
	return strings.TrimRight(b.String(), " ")
}

func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if !shown(r) {
			return -1
		}
		return r
	}, s)
}

// shown reports whether r may be written to a terminal: no control
// character, and nothing that turns the direction of what follows.
func shown(r rune) bool {
	return !unicode.IsControl(r) && !unicode.Is(unicode.Bidi_Control, r)
}

// cells is how many cells of a terminal r takes.
func cells(r rune) int {
	switch {
	case !shown(r), unicode.Is(unicode.Mn, r), unicode.Is(unicode.Me, r), unicode.Is(unicode.Cf, r):
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// cellsOf is how many cells s takes.
func cellsOf(s string) int {
	n := 0
	for _, r := range s {
		n += cells(r)
	}
	return n
}

// cut is the beginning of s that fits into n cells.
func cut(s string, n int) string {
	for i, r := range s {
		if n -= cells(r); n < 0 {
			return s[:i]
		}
	}
	return s
}

// pad is s in exactly n cells.
func pad(s string, n int) string {
	if have := cellsOf(s); have > n {
		s = cut(s, n-1) + "…"
	}
	return s + strings.Repeat(" ", max(0, n-cellsOf(s)))
}
