//go:build ignore

// Draw makes an SVG of what a terminal shows: text with colours (SGR, as
// `tmux capture-pane -e` prints it) from standard input. With --watch it
// draws the screen of `keyfob status --watch`, for sessions of its own
// invention at a time that stands still, so that the picture is always the
// same.
//
//	go run scripts/pictures/draw.go "keyfob list" <list.txt >list.svg
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"html"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"keyfob/internal/control"
	"keyfob/internal/watch"
)

func main() {
	command, text := "", []byte(nil)
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "--watch":
		command, text = "keyfob status --watch", []byte(strings.Join(watchScreen(), "\n"))
	case len(os.Args) == 2:
		command = os.Args[1]
		text, err = io.ReadAll(os.Stdin)
	default:
		fmt.Fprintln(os.Stderr, "usage: draw COMMAND <TEXT >SVG, or draw --watch >SVG")
		os.Exit(2)
	}
	if err == nil {
		_, err = os.Stdout.Write(draw(command, text))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "draw:", err)
		os.Exit(1)
	}
}

// watchScreen is a working day: a program waits for a yes, roles stand on a
// user's session that will want an MFA code in the evening.
func watchScreen() []string {
	time.Local = time.UTC
	now := time.Date(2026, 3, 2, 14, 12, 7, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(time.RFC3339) }
	session := func(profile, account string, had, left, refresh time.Duration, callers int) control.SessionStatus {
		return control.SessionStatus{Profile: profile, AccountID: account, Fetched: at(-had), Expiration: at(left), NextRefresh: at(refresh), Callers: callers}
	}
	base := session("base", "111122223333", 6*time.Hour+48*time.Minute, 5*time.Hour+12*time.Minute, 0, 0)
	base.NextRefresh, base.NeedsPerson, base.EndsAt = "", true, base.Expiration
	v := watch.View{Now: now, Width: 92, Height: 16, Colour: true, Status: &control.StatusResult{
		Version: "1.0.0", PID: 4711, UptimeSeconds: 27*3600 + 14*60, Keystore: control.KeystoreStatus{Backend: "secret-service"},
		Interactions: []control.InteractionStatus{
			{ID: "7f3a", Kind: control.PromptConfirm, Profile: "prod", Since: at(-4 * time.Second), Expires: at(10*time.Minute - 4*time.Second), Program: "/usr/bin/terraform", Waiting: 1},
		},
		Sessions: []control.SessionStatus{
			base,
			session("deploy", "222222222222", 17*time.Minute+20*time.Second, 41*time.Minute+40*time.Second, 11*time.Minute+12*time.Second, 4),
			session("dev", "333333333333", 108*time.Minute, 6*time.Hour+12*time.Minute, 3*time.Hour+32*time.Minute, 2),
			session("reports", "222222222222", 4*time.Minute, 55*time.Minute+2*time.Second, 24*time.Minute+31*time.Second, 1),
		},
		Endpoints: []control.EndpointStatus{{Kind: "imds", Listen: "127.0.0.1:9911", Profile: "deploy"}, {Kind: "container", Listen: "127.0.0.1:9912"}},
	}}
	return watch.Draw(v)
}

// Sizes in pixels: a cell, the margin, the bar at the top.
const (
	cellWidth, cellHeight, size = 8.4, 20, 14
	margin, top                 = 16.0, 34.0
)

// style is what SGR says of a run of text. Colours are names of the palette.
type style struct {
	bold, faint, reverse bool
	front, back          string
}

var palette = map[string]string{
	"": "#d7dde5", "black": "#484f58", "red": "#ff7b72", "green": "#56d364", "yellow": "#e3b341",
	"blue": "#79c0ff", "magenta": "#d2a8ff", "cyan": "#56d4dd", "white": "#f0f6fc", "ground": "#161b22",
}

var names = []string{"black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"}

func (s style) ink() string {
	if s.reverse {
		return palette["ground"]
	}
	return palette[s.front]
}

// set takes the parameters of one SGR sequence.
func (s *style) set(parameters string) {
	for _, p := range strings.Split(parameters, ";") {
		n, _ := strconv.Atoi(p)
		switch {
		case n == 0:
			*s = style{}
		case n == 1:
			s.bold = true
		case n == 2:
			s.faint = true
		case n == 7:
			s.reverse = true
		case n == 22:
			s.bold, s.faint = false, false
		case n == 27:
			s.reverse = false
		case n >= 30 && n <= 37:
			s.front = names[n-30]
		case n >= 90 && n <= 97:
			s.front = names[n-90]
		case n == 39:
			s.front = ""
		case n >= 40 && n <= 47:
			s.back = names[n-40]
		case n == 49:
			s.back = ""
		}
	}
}

// run is text of one style without wide gaps, beginning in a column.
type run struct {
	column int
	text   string
	style
}

// runs takes a line apart. The style goes on in the next line.
func runs(line string, s *style) (all []run) {
	column := 0
	add := func(r rune) {
		if n := len(all) - 1; n >= 0 && all[n].style == *s && all[n].column+utf8.RuneCountInString(all[n].text) == column && blocky(r) == blocky([]rune(all[n].text)[0]) {
			all[n].text += string(r)
		} else {
			all = append(all, run{column, string(r), *s})
		}
		column++
	}
	for rest := []rune(line); len(rest) > 0; rest = rest[1:] {
		if rest[0] == '\x1b' && len(rest) > 1 && rest[1] == '[' {
			end := 2
			for end < len(rest)-1 && (rest[end] < '@' || rest[end] > '~') {
				end++
			}
			if rest[end] == 'm' {
				s.set(string(rest[2:end]))
			}
			rest = rest[end:]
			continue
		}
		wide := rest[0] == ' ' && !s.reverse && s.back == "" && (len(rest) == 1 || rest[1] == ' ' || len(all) == 0 || all[len(all)-1].column+utf8.RuneCountInString(all[len(all)-1].text) != column)
		if wide {
			column++
			continue
		}
		add(rest[0])
	}
	return all
}

// blocky runes are drawn as rectangles, so that no font tears them apart.
func blocky(r rune) bool { return r >= '▀' && r <= '░' }

// block returns a block element as a part of its cell: left, top, width,
// height in eighths, and its opacity.
func block(r rune) (x, y, w, h int, opacity string) {
	switch {
	case r == '▀':
		return 0, 0, 8, 4, "1"
	case r == '░':
		return 0, 0, 8, 8, "0.25"
	case r >= '▉': // seven eighths from the left, and fewer
		return 0, 0, 8 - int(r-'█'), 8, "1"
	}
	n := int(r-'▁') + 1 // eighths from below
	return 0, 8 - n, 8, n, "1"
}

func draw(command string, text []byte) []byte {
	var lines [][]run
	s := style{}
	widest := utf8.RuneCountInString(command) + 2
	for _, l := range strings.Split(strings.TrimRight(string(text), " \n"), "\n") {
		rs := runs(l, &s)
		for _, r := range rs {
			widest = max(widest, r.column+utf8.RuneCountInString(r.text))
		}
		lines = append(lines, rs)
	}
	lines = append([][]run{{{0, "$", style{faint: true}}, {2, command, style{bold: true}}}, {}}, lines...)
	width, height := 2*margin+float64(widest)*cellWidth, top+float64(len(lines))*cellHeight+margin

	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(w, "<title>$ %s</title>\n", html.EscapeString(command))
	fmt.Fprintf(w, `<style>text { font: %dpx ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; fill: %s } .b { font-weight: 700 } .f { fill-opacity: 0.6 } rect { shape-rendering: crispEdges }</style>`+"\n", size, palette[""])
	fmt.Fprintf(w, `<rect x="0.5" y="0.5" width="%.0f" height="%.0f" rx="8" fill="%s" stroke="#3d444d" style="shape-rendering: auto"/>`+"\n", width-1, height-1, palette["ground"])
	for i, c := range []string{"#ff5f57", "#febc2e", "#28c840"} {
		fmt.Fprintf(w, `<circle cx="%d" cy="18" r="5" fill="%s"/>`+"\n", 20+18*i, c)
	}
	for i, l := range lines {
		y := top + float64(i)*cellHeight
		for _, r := range l {
			drawRun(w, r, y)
		}
	}
	fmt.Fprintln(w, "</svg>")
	_ = w.Flush() // into memory
	return b.Bytes()
}

func drawRun(w io.Writer, r run, y float64) {
	cells := []rune(r.text)
	x := margin + float64(r.column)*cellWidth
	length := float64(len(cells)) * cellWidth
	ground := r.back
	if r.reverse && ground == "" {
		ground = "white"
	}
	if ground != "" {
		fmt.Fprintf(w, `<rect x="%.1f" y="%.0f" width="%.1f" height="%d" fill="%s"/>`+"\n", x, y, length, cellHeight, palette[ground])
	}
	if blocky(cells[0]) {
		for len(cells) > 0 { // equal ones are one rectangle
			n := 1
			for n < len(cells) && cells[n] == cells[0] && cells[0] < '▉' || n < len(cells) && cells[n] == '░' && cells[0] == '░' {
				n++
			}
			bx, by, bw, bh, opacity := block(cells[0])
			wide := float64(n) * cellWidth
			if bw < 8 {
				wide = cellWidth * float64(bw) / 8
			}
			// A bar leaves a little air above and below.
			fmt.Fprintf(w, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" opacity="%s"/>`+"\n",
				x+cellWidth*float64(bx)/8, y+2+float64(cellHeight-4)*float64(by)/8, wide, float64(cellHeight-4)*float64(bh)/8, r.ink(), opacity)
			x += float64(n) * cellWidth
			cells = cells[n:]
		}
		return
	}
	var class []string
	if r.bold {
		class = append(class, "b")
	}
	if r.faint {
		class = append(class, "f")
	}
	attributes := ""
	if class != nil {
		attributes += ` class="` + strings.Join(class, " ") + `"`
	}
	if r.ink() != palette[""] {
		attributes += ` style="fill: ` + r.ink() + `"`
	}
	// The length is fixed: whatever the font, columns stand under each other.
	fmt.Fprintf(w, `<text x="%.1f" y="%.0f" textLength="%.1f" lengthAdjust="spacingAndGlyphs"%s>%s</text>`+"\n", x, y+15, length, attributes, html.EscapeString(r.text))
}
