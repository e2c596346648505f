package cli

import (
	"fmt"
	"strings"
	"time"

	"keyfob/internal/control"
)

// statusText is what people are shown of the daemon.
func statusText(r *control.StatusResult, l look, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "keyfobd %s, pid %d, up %s\n", oneLine(r.Version), r.PID, roughly(time.Duration(r.UptimeSeconds)*time.Second))
	state := l.paint(green, "unlocked")
	if r.Keystore.Locked {
		state = l.paint(red, "locked")
	}
	if r.Keystore.Error != "" {
		state += ": " + oneLine(r.Keystore.Error)
	}
	fmt.Fprintf(&b, "vault: %s, %s\n", oneLine(r.Keystore.Backend), state)
	for _, e := range r.Endpoints {
		line := e.Kind + " endpoint: " + e.Listen
		if e.Profile != "" {
			line += ", profile " + e.Profile
		}
		if e.ForExec {
			line += ", for keyfob exec alone"
		}
		b.WriteString(oneLine(line) + "\n")
	}
	if len(r.Sessions) > 0 {
		g := grid{head: []string{"PROFILE", "ACCOUNT", "ACCESS KEY", "SESSION", "REFRESH", "CALLERS", "PROBLEM"}, whole: []int{1, 3, 4, 5}}
		for _, s := range r.Sessions {
			row := plain(s.Name(), s.AccountID, s.AccessKeyID, "", until(s.NextRefresh, now), fmt.Sprint(s.Callers), "")
			row[0].colour = bold
			row[3] = sessionCell(s.Expiration, now)
			switch {
			case s.LastError != "":
				row[6] = cell{s.LastError, red}
			case s.NeedsPerson:
				row[6] = cell{"you must sign in again", yellow}
				if s.EndsAt != "" {
					row[6].text += " " + until(s.EndsAt, now)
				}
			}
			g.rows = append(g.rows, row)
		}
		b.WriteString("\n" + g.text(l))
	}
	if len(r.Interactions) > 0 {
		g := grid{head: []string{"WAITS FOR YOU", "KIND", "ID", "UNTIL", "CALLERS", "PROGRAM", "ADDRESS"}, whole: []int{2, 3, 6}}
		for _, i := range r.Interactions {
			row := plain(i.Profile, i.Kind, i.ID, until(i.Expires, now), fmt.Sprint(i.Waiting), i.Program, strings.TrimSpace(i.URL+" "+i.UserCode))
			row[0].colour = yellow
			g.rows = append(g.rows, row)
		}
		b.WriteString("\n" + g.text(l))
	}
	if r.ReloadError != "" {
		b.WriteString("\n" + l.paint(red, "reload failed, what was read before is used: "+oneLine(r.ReloadError)) + "\n")
	}
	for _, w := range r.Warnings {
		b.WriteString("\n" + l.paint(yellow, "warning: "+oneLine(w)) + "\n")
	}
	return b.String()
}

// until says in words when a time of the wire will be.
func until(stamp string, now time.Time) string {
	t, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		return stamp
	}
	if left := t.Sub(now); left > 0 {
		return "in " + shortly(left)
	}
	return "now"
}
