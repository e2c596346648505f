package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"keyfob/internal/control"
)

// auditEvents are what --event takes.
var auditEvents = []string{"handout", "refusal", "confirmation", "recovery-key"}

// auditEntry is what people are shown of an entry (CONTRACT.md §8).
type auditEntry struct {
	Time        string `json:"time"`
	Count       int    `json:"count"`
	Event       string `json:"event"`
	Profile     string `json:"profile"`
	AccessKeyID string `json:"access_key_id"`
	Reason      string `json:"reason"`
	Caller      struct {
		Program string `json:"program"`
		User    string `json:"user"`
	} `json:"caller"`
}

// audit is `keyfob audit`: the entries that the filters leave, oldest first,
// page by page as they come.
func (a *app) audit(invocation) int {
	const what = "read the audit log"
	p, err := a.auditParams(time.Now())
	if err != nil {
		return a.fail(what, err)
	}
	var columns columns
	for printed := 0; ; {
		var page control.AuditResult
		err := a.auditPage(p, &page)
		if err != nil {
			return a.fail(what, err)
		}
		if p.Limit > 0 {
			page.Entries = page.Entries[:min(len(page.Entries), p.Limit-printed)]
		}
		printed += len(page.Entries)
		var text string
		if a.opts.json {
			var b strings.Builder
			for _, e := range page.Entries {
				b.Write(e)
				b.WriteByte('\n')
			}
			text = b.String()
		} else if text, err = columns.page(page.Entries); err != nil {
			return a.fail(what, err)
		}
		if code := a.print(text); code != exitDone {
			return code
		}
		done := page.Next == "" || p.Limit > 0 && printed >= p.Limit
		if !done && page.Next == p.After {
			return a.fail(what, failure("keyfobd's answer has no end", ""))
		}
		if done {
			if printed == 0 && !a.opts.json {
				a.notice("no entries match")
			}
			return exitDone
		}
		p.After = page.Next
	}
}

func (a *app) auditPage(p control.AuditParams, page *control.AuditResult) error {
	ctx, cancel := context.WithTimeout(context.Background(), quickWait)
	defer cancel()
	return a.call(ctx, control.MethodAudit, p, page, a.handler("audit"))
}

// auditParams makes the daemon's filters of the flags. A profile counts
// where it is named by --profile: AWS_PROFILE chooses credentials, not what
// one looks at.
func (a *app) auditParams(now time.Time) (p control.AuditParams, err error) {
	o := a.opts
	p = control.AuditParams{Profile: a.flags.Profile, Program: o.program, AccessKeyID: o.accessKeyID, Event: o.event, Limit: o.limit}
	if o.event != "" {
		if err := amongWords("--event", o.event, auditEvents); err != nil {
			return p, err
		}
	}
	if o.limit < 0 {
		return p, usage("cannot use a --limit below 0", "")
	}
	for _, t := range []struct {
		flag, value string
		to          *string
	}{{"--since", o.since, &p.Since}, {"--until", o.until, &p.Until}} {
		if t.value == "" {
			continue
		}
		at, err := readTime(t.value, now)
		if err != nil {
			return p, usage(fmt.Sprintf("cannot use %s %q: %v", t.flag, t.value, err), t.flag+" 90m, 7d, 2006-01-02, 2006-01-02T15:04:05Z")
		}
		*t.to = at.UTC().Format(time.RFC3339)
	}
	return p, nil
}

// readTime reads a time: RFC 3339, a date or a date and time in the zone of
// this machine, or how long ago.
func readTime(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for _, form := range []string{time.DateOnly, "2006-01-02 15:04", "2006-01-02T15:04", time.DateTime, "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(form, s, now.Location()); err == nil {
			return t, nil
		}
	}
	var ago expiry
	if err := ago.Set(s); err != nil {
		return time.Time{}, fmt.Errorf("it is no time, and no duration")
	}
	return now.Add(-time.Duration(ago)), nil
}

// columns are the widths of the audit table so far: a later page may need
// wider ones, and what has been printed stays.
type columns struct{ width []int }

func (c *columns) page(entries []json.RawMessage) (string, error) {
	var rows [][]string
	if c.width == nil && len(entries) > 0 {
		rows = append(rows, []string{"TIME", "EVENT", "PROFILE", "PROGRAM", "ACCESS KEY", "COUNT", "REASON"})
		c.width = make([]int, len(rows[0]))
	}
	for _, raw := range entries {
		var e auditEntry
		if err := json.Unmarshal(raw, &e); err != nil {
			return "", failure("cannot read an entry of the audit log: it is not of this version", "--json shows the entries as they are")
		}
		when := e.Time
		if t, err := time.Parse(time.RFC3339Nano, e.Time); err == nil {
			when = t.Local().Format(time.DateTime)
		}
		program := e.Caller.Program
		if program == "" && e.Caller.User != "" {
			program = "(" + e.Caller.User + ")"
		}
		rows = append(rows, []string{when, e.Event, e.Profile, program, e.AccessKeyID, fmt.Sprint(max(1, e.Count)), e.Reason})
	}
	for _, row := range rows {
		for i, cell := range row {
			if row[i] = oneLine(cell); row[i] == "" && i < len(row)-1 {
				row[i] = "-"
			}
			c.width[i] = max(c.width[i], utf8.RuneCountInString(row[i]))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", c.width[i]-utf8.RuneCountInString(cell)+2))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String(), nil
}

// auditVerify is `keyfob audit verify`.
func (a *app) auditVerify(invocation) int {
	const what = "verify the audit log"
	ctx, cancel := context.WithTimeout(context.Background(), awsWait)
	defer cancel()
	var raw json.RawMessage
	var r control.AuditVerifyResult
	err := a.call(ctx, control.MethodAuditVerify, control.Empty{}, &raw, a.handler("audit"))
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		return a.fail(what, err)
	}
	code := exitDone
	switch {
	case a.opts.json:
		code = a.printJSON(raw)
	case r.OK:
		text := "the audit log is whole: " + counted(int(r.Entries), "entry", "entries") + " in " + counted(int(r.Files), "file", "files")
		if r.First != "" {
			text += ", from " + r.First + " to " + r.Last
		}
		code = a.print(oneLine(text) + "\n")
	}
	for _, w := range r.Warnings {
		a.notice("warning: " + w)
	}
	if r.OK {
		return code
	}
	where := r.File
	if r.Line > 0 {
		where = fmt.Sprintf("%s:%d", r.File, r.Line)
	}
	hint := ""
	if r.Line > 2 {
		// A line is vouched for by the one after it, so the one before the
		// break may be the one that was changed.
		hint = fmt.Sprintf("what stands before line %d is as it was written", r.Line-1)
	}
	return a.fail(what, failure("cannot vouch for the audit log: "+strings.TrimPrefix(where+": "+r.Reason, ": "), hint))
}

// counted is a number of things.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
