package cli

import (
	"encoding/json"
	"fmt"
	"time"

	"keyfob/internal/control"
)

// list is `keyfob list`.
func (a *app) list(invocation) int {
	const what = "list the profiles"
	ctx, cancel := a.within(quickWait, false)
	defer cancel()
	var raw json.RawMessage
	var r control.ListResult
	err := a.call(ctx, control.MethodList, a.environment(), &raw, a.handler("list"))
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		return a.fail(what, err)
	}
	if a.opts.json && r.Profiles == nil {
		return a.printJSON(control.ListResult{Profiles: []control.ListEntry{}})
	}
	if a.opts.json {
		return a.printJSON(raw) // members of a newer daemon and all
	}
	if len(r.Profiles) == 0 {
		a.notice("there are no profiles")
		a.advise("keyfob configure, or keyfob add P")
		return exitDone
	}
	return a.print(listText(r.Profiles, a.lookOf(a.Stdout), time.Now()))
}

// oldKey is the age from which a key is coloured: what AWS's own advice and
// its Config rule access-keys-rotated take as too old.
const oldKey = 90 * 24 * time.Hour

// listText is what people are shown of the profiles. What is wrong with one
// stands at the end of its line: what is to be typed, or why it can't work.
func listText(profiles []control.ListEntry, l look, now time.Time) string {
	g := grid{head: []string{"PROFILE", "ACCOUNT", "SOURCE", "SESSION", "KEY AGE", "MISSING"}, whole: []int{0, 1, 3, 4}, spare: []int{4, 2, 1}}
	for _, p := range profiles {
		row := plain(p.Name, p.Account, p.Source, "", "", "")
		row[0].colour = bold
		if p.Session != nil {
			row[3] = sessionCell(p.Session.Expiration, now)
		}
		if added, err := time.Parse(time.RFC3339, p.KeyAdded); err == nil {
			row[4].text = roughly(now.Sub(added))
			if now.Sub(added) >= oldKey {
				row[4].colour = yellow
			}
		}
		switch {
		case p.Error != "":
			row[5] = cell{p.Error, red}
		case p.Missing != "":
			row[5] = cell{p.Missing, yellow}
		}
		g.rows = append(g.rows, row)
	}
	return g.text(l)
}

// sessionCell says in words how much of a session is left.
func sessionCell(expiration string, now time.Time) cell {
	end, err := time.Parse(time.RFC3339, expiration)
	if err != nil {
		return cell{text: expiration}
	}
	left := end.Sub(now)
	switch {
	case left <= 0:
		return cell{"ended", red}
	case left < 5*time.Minute:
		return cell{shortly(left) + " left", yellow}
	}
	return cell{shortly(left) + " left", green}
}

// shortly is a duration in its largest unit or two: "47m", "11h 20m".
func shortly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	case d >= time.Hour:
		return fmt.Sprintf("%dh %02dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}
