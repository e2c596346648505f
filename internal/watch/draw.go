package watch

import (
	"fmt"
	"strings"
	"time"

	"keyfob/internal/control"
)

// View is what one screen shows.
type View struct {
	Status *control.StatusResult // nil before the first answer
	Failed string                // why the last question went unanswered, "" where it was answered
	Said   string                // what became of the last answer, shown once
	Now    time.Time
	// Width and Height of the screen, in cells. Lines are never longer.
	Width, Height int
	// Cursor is the chosen row: questions first, then sessions.
	Cursor int
	Colour bool
	ASCII  bool // the terminal shows no block characters
}

// Row is something that can be chosen on the screen.
type Row struct {
	Interaction string // its id, "" for a session
	Profile     string
}

// Rows returns what can be chosen, in the order of the screen.
func (v View) Rows() []Row {
	if v.Status == nil {
		return nil
	}
	var rows []Row
	for _, i := range v.Status.Interactions {
		rows = append(rows, Row{Interaction: i.ID, Profile: i.Profile})
	}
	for _, s := range v.Status.Sessions {
		rows = append(rows, Row{Profile: s.Profile})
	}
	return rows
}

// Draw returns the lines of the screen, Height of them at the most, none
// longer than Width. Without Colour they hold no escape sequences.
func Draw(v View) []string {
	p := painter{View: v}
	if v.Width < 1 || v.Height < 1 {
		return nil
	}
	head := []line{p.title()}
	body, chosen := p.body()
	foot := []line{p.keys()}
	if v.Height < 4 { // no room for anything but what matters
		head, foot = nil, nil
	} else {
		head, foot = append(head, line{}), append([]line{{}}, foot...)
	}
	room := v.Height - len(head) - len(foot)
	if len(body) > room {
		body = window(body, chosen, room)
	}
	for len(body) < room {
		body = append(body, line{})
	}
	var out []string
	for _, l := range append(append(head, body...), foot...) {
		s := l.render(v.Width, v.Colour)
		if v.ASCII {
			s = strings.ReplaceAll(s, "…", "~")
		}
		out = append(out, s)
	}
	return out
}

// window is the part of body, room lines long, that has the chosen line in
// it; a line that is cut off says how many there are.
func window(body []line, chosen, room int) []line {
	if room < 1 {
		return nil
	}
	from := max(0, min(chosen-room/2, len(body)-room))
	part := append([]line(nil), body[from:from+room]...)
	if room >= 3 {
		if from > 0 && chosen != from {
			part[0] = plain(dim, fmt.Sprintf("  … %d more above", from+1))
		}
		if below := len(body) - from - room; below > 0 && chosen != from+room-1 {
			part[room-1] = plain(dim, fmt.Sprintf("  … %d more below", below+1))
		}
	}
	return part
}

type painter struct{ View }

func (p painter) title() line {
	if p.Status == nil {
		return plain(bold, "keyfob")
	}
	k := p.Status.Keystore
	l := line{{bold, "keyfob " + p.Status.Version}, {none, fmt.Sprintf("  pid %d  up %s  vault %s ", p.Status.PID, span(time.Duration(p.Status.UptimeSeconds)*time.Second), k.Backend)}}
	switch {
	case k.New:
		l = append(l, text{yellow, "not set up"})
	case k.Locked:
		l = append(l, text{red, "locked"})
	default:
		l = append(l, text{green, "unlocked"})
	}
	clock := p.Now.Local().Format("15:04:05")
	if gap := p.Width - l.width() - len(clock); gap > 1 {
		l = append(l, text{none, strings.Repeat(" ", gap)}, text{dim, clock})
	}
	return l
}

func (p painter) keys() line {
	if len(p.Rows()) == 0 {
		return plain(dim, "q quit")
	}
	what := "enter sign in"
	if rows := p.Rows(); rows[p.at()].Interaction != "" {
		what = "enter answer"
	}
	arrows := "↑↓"
	if p.ASCII {
		arrows = "j/k"
	}
	return plain(dim, arrows+" choose   "+what+"   q quit")
}

// at is the cursor, held inside the rows.
func (p painter) at() int { return max(0, min(p.Cursor, len(p.Rows())-1)) }

// body is all that may be scrolled, and the chosen line in it.
func (p painter) body() (lines []line, chosen int) {
	add := func(l ...line) { lines = append(lines, l...) }
	if p.Failed != "" {
		add(line{{red, "! "}, {none, p.Failed}}, line{})
	}
	if p.Said != "" {
		add(plain(none, "  "+p.Said), line{})
	}
	st := p.Status
	if st == nil {
		if p.Failed == "" {
			add(plain(dim, "asking the daemon …"))
		}
		return lines, 0
	}
	notes := append([]string(nil), st.Warnings...)
	if st.ReloadError != "" {
		notes = append([]string{"the files could not be read anew: " + st.ReloadError}, notes...)
	}
	if st.Keystore.Error != "" {
		notes = append([]string{"vault: " + st.Keystore.Error}, notes...)
	}
	for _, n := range notes {
		add(line{{yellow, "! "}, {none, n}})
	}
	if len(notes) > 0 {
		add(line{})
	}

	row, at := 0, p.at()
	mark := func() text {
		if row == at {
			chosen = len(lines)
			return text{bold, "> "}
		}
		return text{none, "  "}
	}
	if len(st.Interactions) > 0 {
		add(plain(bold, fmt.Sprintf("Waiting for you (%d)", len(st.Interactions))))
		for _, i := range st.Interactions {
			l := line{mark(), {yellow, pad(i.Kind, 8)}, {none, " " + i.Profile}, {dim, "  since " + p.ago(i.Since) + ", ends " + p.in(i.Expires) + callers(i.Waiting)}}
			if i.Program != "" {
				l = append(l, text{none, "  " + i.Program})
			}
			add(l)
			if i.URL != "" {
				add(line{{none, strings.Repeat(" ", 11) + strings.TrimSpace(i.URL+"  "+i.UserCode)}})
			}
			row++
		}
		add(line{})
	}

	add(plain(bold, fmt.Sprintf("Sessions (%d)", len(st.Sessions))))
	if len(st.Sessions) == 0 {
		add(plain(dim, "  none: nobody has asked yet"))
	}
	cols := p.columns(st.Sessions)
	for _, s := range st.Sessions {
		add(p.session(s, mark(), cols))
		if s.LastError != "" {
			add(line{{none, "    "}, {red, s.LastError}})
		}
		row++
	}
	if len(st.Endpoints) > 0 {
		add(line{}, plain(bold, fmt.Sprintf("Endpoints (%d)", len(st.Endpoints))))
		for _, e := range st.Endpoints {
			of := e.Profile
			if e.ForExec {
				of = "for keyfob exec alone"
			}
			add(line{{none, "  " + pad(e.Kind, 9) + " " + e.Listen}, {dim, "  " + of}})
		}
	}
	return lines, chosen
}

// columns are the widths that a list of sessions needs.
type columns struct{ profile, bar int }

func (p painter) columns(sessions []control.SessionStatus) columns {
	c := columns{profile: 8, bar: 20}
	for _, s := range sessions {
		c.profile = max(c.profile, cellsOf(s.Name()))
	}
	// mark, account, remaining, refresh and callers have 2+13+10+14+10.
	rest := p.Width - 49
	c.profile = min(c.profile, max(8, rest-6))
	c.bar = max(0, min(c.bar, rest-c.profile-2))
	return c
}

// session is one line: profile, account, the bar, what is left, the next
// refresh, the callers.
func (p painter) session(s control.SessionStatus, mark text, c columns) line {
	l := line{mark, {none, pad(s.Name(), c.profile) + " "}, {dim, pad(s.AccountID, 12) + " "}}
	ends, ok := parse(s.Expiration)
	left := ends.Sub(p.Now)
	switch {
	case !ok:
		l = append(l, text{dim, pad("no session", c.bar+1+9)})
	case left <= 0:
		l = append(l, text{red, pad("ended", c.bar+1+9)})
	default:
		life := time.Hour
		if since, ok := parse(s.Fetched); ok && ends.After(since) {
			life = ends.Sub(since)
		}
		full, rest := p.bar(float64(left)/float64(life), c.bar)
		shade := green
		switch share := float64(left) / float64(life); {
		case left < 5*time.Minute || share < 0.05:
			shade = red
		case share < 1.0/3:
			shade = yellow
		}
		l = append(l, text{shade, full}, text{dim, rest}, text{none, " " + pad(span(left), 9)})
	}
	switch next, ok := parse(s.NextRefresh); {
	case s.NeedsPerson && s.EndsAt != "":
		l = append(l, text{yellow, " " + pad("you "+p.in(s.EndsAt), 13)})
	case s.NeedsPerson:
		l = append(l, text{yellow, " " + pad("needs you", 13)})
	case ok && next.After(p.Now):
		l = append(l, text{none, " " + pad("new in "+span(next.Sub(p.Now)), 13)})
	case ok:
		l = append(l, text{none, " " + pad("refreshing", 13)})
	default:
		l = append(l, text{dim, " " + pad("at need", 13)})
	}
	return append(l, text{dim, strings.TrimPrefix(callers(s.Callers), ",")})
}

// bar draws the share that is left, n cells long: the full part in eighths
// of a cell, and the rest.
func (p painter) bar(share float64, n int) (full, rest string) {
	share = max(0, min(1, share))
	if p.ASCII {
		k := int(share*float64(n) + 0.5)
		return strings.Repeat("#", k), strings.Repeat(".", n-k)
	}
	eighths := int(share*float64(n)*8 + 0.5)
	full = strings.Repeat("█", eighths/8)
	k := eighths / 8
	if e := eighths % 8; e > 0 {
		full += string([]rune("▏▎▍▌▋▊▉")[e-1])
		k++
	}
	return full, strings.Repeat("░", n-k)
}

func callers(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return ", 1 caller"
	}
	return fmt.Sprintf(", %d callers", n)
}

func (p painter) ago(stamp string) string {
	t, ok := parse(stamp)
	if !ok {
		return "?"
	}
	return span(p.Now.Sub(t))
}

func (p painter) in(stamp string) string {
	t, ok := parse(stamp)
	if !ok {
		return "?"
	}
	return "in " + span(t.Sub(p.Now))
}

func parse(stamp string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, stamp)
	return t, err == nil
}

// span is a duration in seven cells or fewer.
func span(d time.Duration) string {
	d = max(0, d)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}
