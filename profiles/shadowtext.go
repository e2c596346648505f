package profiles

import (
	"io"
	"strings"
)

// Text writes r for people: for each SDK where its credentials come from, and
// how that differs from keyfob's.
func (r ShadowReport) Text(w io.Writer, s Style) {
	var b strings.Builder
	b.WriteString("profile " + s.name(printable(r.Profile)) + " without keyfob\n")
	for _, c := range r.Clients {
		b.WriteString("\n" + s.name(c.Name))
		switch {
		case c.Keyfob:
			b.WriteString("  " + s.good("asks keyfob"))
		case c.Refuses != "":
			b.WriteString("  " + s.bad("no credentials"))
		case c.Differs:
			b.WriteString("  " + s.bad("other credentials than keyfob's"))
		}
		b.WriteByte('\n')
		if c.Profile != r.Profile {
			b.WriteString("  reads profile " + printable(c.Profile) + "\n")
		}
		if c.Refuses != "" {
			b.WriteString("  " + printable(c.Refuses))
			if c.Origin != nil {
				b.WriteString("  " + s.faint(shownOrigin(*c.Origin)))
			}
			b.WriteByte('\n')
		}
		for i, l := range c.Chain {
			text := string(l.Kind)
			if i == 0 && c.AccessKeyID != "" {
				text += " " + printable(c.AccessKeyID)
			}
			if l.RoleARN != "" {
				text += " " + printable(l.RoleARN)
			}
			b.WriteString(branch(i) + text)
			if where := shownOrigin(l.Origin); where != string(FromDefault) {
				b.WriteString("  " + s.faint(where))
			}
			b.WriteByte('\n')
		}
		for _, n := range c.Notes {
			b.WriteString("  note: " + printable(n) + "\n")
		}
	}
	_, _ = io.WriteString(w, b.String()) // the writer's own error is seen by whoever closes it
}

// branch is what stands before link i of a chain: each one hangs below the
// one whose credentials it uses.
func branch(i int) string {
	if i == 0 {
		return "  "
	}
	return "  " + strings.Repeat("   ", i-1) + "└─ "
}
