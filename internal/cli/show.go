package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"keyfob/internal/control"
)

// print writes a command's result to standard output.
func (a *app) print(text string) int {
	if _, err := a.Stdout.WriteString(text); err != nil {
		return a.fail("write the result", err)
	}
	return exitDone
}

func (a *app) printJSON(v any) int {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return a.fail("write the result", err)
	}
	return a.print(withoutHTMLEscapes(b.String()))
}

// withoutHTMLEscapes writes <, > and & as themselves, which the daemon's
// encoder has escaped for browsers.
func withoutHTMLEscapes(text string) string {
	if !strings.Contains(text, `\u00`) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		if i+6 <= len(text) {
			if plain := map[string]byte{`\u003c`: '<', `\u003e`: '>', `\u0026`: '&'}[text[i:i+6]]; plain != 0 {
				b.WriteByte(plain)
				i += 5
				continue
			}
		}
		b.WriteString(text[i : i+2])
		i++
	}
	return b.String()
}

// table lays rows out in columns; every cell is made harmless.
func table(rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 2, 4, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			if cell = oneLine(cell); cell == "" && i < len(row)-1 {
				cell = "-"
			}
			fmt.Fprint(w, cell)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
	return b.String()
}

// localTime shows a time of the wire in the person's zone, and how far off
// it is.
func localTime(stamp string) string {
	t, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		return stamp
	}
	text := t.Local().Format("2006-01-02 15:04:05")
	switch left := time.Until(t); {
	case left > 0:
		return text + " (in " + roughly(left) + ")"
	default:
		return text + " (" + roughly(-left) + " ago)"
	}
}

// roughly shows a duration in the units that matter.
func roughly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours())/24)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}

// status is `keyfob status`.
func (a *app) status(invocation) int {
	if a.opts.watch {
		return a.watchStatus()
	}
	ctx, cancel := a.within(quickWait, false)
	defer cancel()
	var r control.StatusResult
	var raw json.RawMessage
	err := a.call(ctx, control.MethodStatus, control.Empty{}, &raw, a.handler("status"))
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		return a.fail("show the status", err)
	}
	if a.opts.json {
		return a.printJSON(raw) // members of a newer daemon and all
	}
	for _, i := range r.Interactions {
		if i.Kind == control.PromptConfirm {
			a.advise("keyfob answer " + i.ID)
		} else {
			a.advise("keyfob login " + quoted(i.Profile))
		}
	}
	return a.print(statusText(&r, a.lookOf(a.Stdout), time.Now()))
}
