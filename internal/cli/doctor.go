package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyfob/internal/control"
)

// doctorWait is for the daemon's part: it asks AWS here and there, each with
// a limit of its own.
const doctorWait = 3 * time.Minute

// doctorGroups is the order in which groups are shown: that of a request.
var doctorGroups = []string{"environment", "files", "daemon", "vault", "endpoints", "network", "profile"}

// doctor is `keyfob doctor`: our own look at what lies here, and the daemon's
// at the rest of the way.
func (a *app) doctor(in invocation) int {
	const what = "look at everything"
	name, err := a.named(in)
	if err != nil {
		return a.fail(what, err)
	}
	e := &examination{app: a, profile: name}
	if s, err := a.settings(); err != nil {
		e.add(control.Check{ID: "settings", Group: "files", State: control.CheckFailed, Message: err.Error(), Hint: hintOf(err)})
	} else {
		e.settingsFile(s)
		e.awsFiles(s)
		e.variables(s)
		e.daemonItself(s)
	}
	checks := grouped(e.checks)
	code := exitDone
	if a.opts.json {
		code = a.printJSON(control.DoctorResult{Checks: checks})
	} else {
		code = a.print(doctorText(checks, a.lookOf(a.Stdout), a.opts.quiet))
	}
	for _, c := range checks {
		if c.State == control.CheckFailed {
			return max(code, exitFailed)
		}
	}
	return code
}

// grouped puts the checks of a group together, in doctorGroups' order; a
// newer daemon's other groups follow.
func grouped(checks []control.Check) []control.Check {
	sorted := make([]control.Check, 0, len(checks))
	for _, g := range doctorGroups {
		for _, c := range checks {
			if c.Group == g {
				sorted = append(sorted, c)
			}
		}
	}
	known := map[string]bool{}
	for _, g := range doctorGroups {
		known[g] = true
	}
	for _, c := range checks {
		if !known[c.Group] {
			sorted = append(sorted, c)
		}
	}
	return sorted
}

var checkColours = map[string]string{control.CheckOK: green, control.CheckWarning: yellow, control.CheckFailed: red, control.CheckSkipped: dim}

// doctorText is the checks for people. What is fine is left out when brief.
func doctorText(checks []control.Check, l look, brief bool) string {
	var b strings.Builder
	group := ""
	count := map[string]int{}
	for _, c := range checks {
		count[c.State]++
		if brief && (c.State == control.CheckOK || c.State == control.CheckSkipped) {
			continue
		}
		if c.Group != group {
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			group = c.Group
			b.WriteString(l.paint(bold, oneLine(group)) + "\n")
		}
		line := c.Message
		if c.About != "" && !strings.Contains(line, c.About) {
			line = c.About + ": " + line
		}
		if c.File != "" {
			where := c.File
			if c.Line > 0 {
				where = fmt.Sprintf("%s:%d", c.File, c.Line)
			}
			if !strings.Contains(line, where) {
				line += " (" + where + ")"
			}
		}
		b.WriteString("  " + l.paint(checkColours[c.State], fmt.Sprintf("%-7s", oneLine(c.State))) + "  " + oneLine(line) + "\n")
		for _, mend := range []string{c.Fix, c.Hint} {
			if mend != "" {
				b.WriteString(strings.Repeat(" ", 11) + l.paint(bold, "→ "+oneLine(mend)) + "\n")
			}
		}
	}
	var sum []string
	for _, s := range []struct{ state, one, many string }{
		{control.CheckFailed, "1 failed", "%d failed"}, {control.CheckWarning, "1 warning", "%d warnings"}, {control.CheckOK, "1 ok", "%d ok"}, {control.CheckSkipped, "1 skipped", "%d skipped"},
	} {
		switch n := count[s.state]; n {
		case 0:
		case 1:
			sum = append(sum, s.one)
		default:
			sum = append(sum, fmt.Sprintf(s.many, n))
		}
	}
	if len(sum) > 0 {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(strings.Join(sum, ", ") + "\n")
	}
	return b.String()
}

// examination collects the checks.
type examination struct {
	*app
	profile string // named on the command line, "" if none
	checks  []control.Check
}

func (e *examination) add(c control.Check) { e.checks = append(e.checks, c) }

func (e *examination) ok(group, id, message string) {
	e.add(control.Check{ID: id, Group: group, State: control.CheckOK, Message: message})
}

func (e *examination) warning(group, id, message, fix string) {
	e.add(control.Check{ID: id, Group: group, State: control.CheckWarning, Message: message, Fix: fix})
}

// askDaemon adds the daemon's checks.
func (e *examination) askDaemon() error {
	ctx, cancel := context.WithTimeout(context.Background(), doctorWait)
	defer cancel()
	p := control.DoctorParams{Offline: e.opts.offline, Context: e.environment().Context}
	p.Named = false
	if e.profile != "" {
		var err error
		if p.Context, err = e.context(invocation{args: []string{e.profile}}); err != nil {
			return err
		}
	}
	p.MayAsk = false // a look asks nobody for anything
	var raw json.RawMessage
	var r control.DoctorResult
	err := e.call(ctx, control.MethodDoctor, p, &raw, e.handler("doctor"))
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if s, bad := e.settings(); bad == nil && e.socket != s.SystemSocket {
		e.checks = without(e.checks, r.Checks)
	}
	e.checks = append(e.checks, r.Checks...)
	return err
}

// without leaves out of ours what the daemon has looked at too: it has read
// the same files, and knows more of the vault. What we found broken stays.
func without(ours, daemons []control.Check) []control.Check {
	seen := map[string]bool{}
	for _, c := range daemons {
		seen[c.ID] = true
	}
	return slices.DeleteFunc(ours, func(c control.Check) bool {
		return c.State != control.CheckFailed && seen[strings.TrimSuffix(c.ID, ".private")]
	})
}
