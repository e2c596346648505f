package cli

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// look is how a command's output is drawn: in colour, and how wide.
type look struct {
	colour bool
	width  int // columns, 0 for any number
}

// lookOf decides it for out. Pipes and files get neither colour nor a width:
// what reads them wants the whole of each value. NO_COLOR is that of
// https://no-color.org: any value turns colour off.
func (a *app) lookOf(out *os.File) look {
	if out == nil || !term.IsTerminal(int(out.Fd())) {
		return look{}
	}
	l := look{width: 80}
	if w, _, err := term.GetSize(int(out.Fd())); err == nil && w > 0 {
		l.width = w
	} else if w, err := strconv.Atoi(a.getenv("COLUMNS")); err == nil && w > 0 {
		l.width = w
	}
	l.colour = a.variable("NO_COLOR") == "" && a.getenv("TERM") != "dumb" && enableColour(out)
	return l
}

// The colours, by what they say (ECMA-48 SGR). They are of the terminal's
// own palette, so that they are legible on light and on dark.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// paint colours text, which must be fit for a terminal already.
func (l look) paint(colour, text string) string {
	if !l.colour || colour == "" || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// cell is one field of a grid.
type cell struct{ text, colour string }

func plain(texts ...string) []cell {
	row := make([]cell, len(texts))
	for i, t := range texts {
		row[i] = cell{text: t}
	}
	return row
}

// grid is a table that fits the terminal: columns that need more than there
// is room for are cut, the widest first, and end in "…"; the last columns to
// be cut are those of whole, where a part says nothing.
type grid struct {
	head  []string
	whole []int
	spare []int // left out, in this order, before much of a row is cut
	rows  [][]cell
}

// minimumColumn is what a column is never cut below.
const minimumColumn = 8

const gap = 2 // between columns

// text draws the grid. Columns in which nothing stands are left out.
func (g *grid) text(l look) string {
	n := len(g.head)
	width := make([]int, n)
	for i := range g.rows {
		for j := range g.rows[i] {
			c := &g.rows[i][j]
			c.text = oneLine(c.text)
			width[j] = max(width[j], cells(c.text))
		}
	}
	total := -gap
	for j := range width {
		if width[j] > 0 {
			width[j] = max(width[j], cells(g.head[j]))
			total += width[j] + gap
		}
	}
	if l.width > 0 {
		total = g.leaveOut(width, total, l.width)
		g.fit(width, total, l.width)
	}
	var b strings.Builder
	line := func(row []cell) {
		last := len(row) - 1
		for last > 0 && (width[last] == 0 || row[last].text == "") {
			last--
		}
		for j, c := range row[:last+1] {
			if width[j] == 0 {
				continue
			}
			text := c.text
			if text == "" {
				text = "-"
			}
			text = cut(text, width[j])
			b.WriteString(l.paint(c.colour, text))
			if j < last {
				b.WriteString(strings.Repeat(" ", width[j]-cells(text)+gap))
			}
		}
		b.WriteByte('\n')
	}
	head := plain(g.head...)
	for i := range head {
		head[i].colour = dim
	}
	line(head)
	for _, row := range g.rows {
		line(row)
	}
	return b.String()
}

// enough is what is worth to be seen of the last column, which may say more than
// a line holds.
const enough = 40

// leaveOut gives up spare columns until the rest has room.
func (g *grid) leaveOut(width []int, total, room int) int {
	long := max(0, width[len(width)-1]-enough)
	for _, j := range g.spare {
		if total-long <= room {
			break
		}
		if width[j] > 0 {
			total -= width[j] + gap
			width[j] = 0
		}
	}
	return total
}

// fit takes from the widest column, one by one, until total is room.
func (g *grid) fit(width []int, total, room int) {
	for _, all := range []bool{false, true} {
		for total > room {
			widest := -1
			for j, w := range width {
				if w > minimumColumn && (all || !slices.Contains(g.whole, j)) && (widest < 0 || w > width[widest]) {
					widest = j
				}
			}
			if widest < 0 {
				break
			}
			width[widest]--
			total--
		}
	}
}

// cut shortens text to n columns.
func cut(text string, n int) string {
	if cells(text) <= n {
		return text
	}
	used, end := 0, 0
	for i, r := range text {
		w := runeCells(r)
		if used+w > n-1 {
			break
		}
		used += w
		end = i + utf8.RuneLen(r)
	}
	return text[:end] + "…"
}

// cells is how many columns of a terminal text takes.
func cells(text string) (n int) {
	for _, r := range text {
		n += runeCells(r)
	}
	return n
}

// runeCells knows the wide letters of East Asia and emoji by their blocks
// (Unicode's EastAsianWidth.txt, classes W and F), and combining marks.
func runeCells(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf && r != 0x303f, r >= 0xac00 && r <= 0xd7a3,
		r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6,
		r >= 0x1f300 && r <= 0x1f64f, r >= 0x1f900 && r <= 0x1f9ff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}
