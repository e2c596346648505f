package profiles

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Explanation is what `keyfob explain` shows, and its JSON form.
type Explanation struct {
	Profile  string          `json:"profile"`
	Settings []Setting       `json:"settings"`
	Chain    []ExplainedLink `json:"chain"` // the base first, the profile's own link last
	// Skipped are the credential_process lines of the chain's profiles that
	// run keyfob itself and so are no links.
	Skipped  []ExplainedSkip `json:"skipped,omitempty"`
	Warnings []string        `json:"warnings"`
	Error    *ExplainedError `json:"error,omitempty"`
}

// ExplainedLink is one link of the chain.
type ExplainedLink struct {
	Kind    Kind   `json:"kind"`
	Profile string `json:"profile"` // whose section the link comes from
	RoleARN string `json:"role_arn,omitempty"`
	Origin  Origin `json:"origin"` // of the setting that made it
}

// ExplainedSkip is a credential_process that is no link.
type ExplainedSkip struct {
	Profile string `json:"profile"`
	Origin  Origin `json:"origin"`
	Skipped string `json:"skipped"`
}

// ExplainedError is why the profile does not work.
type ExplainedError struct {
	Message string `json:"message"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Also    *Place `json:"also,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// Explain returns the profile as it is shown: no secret is in it.
func (p *Profile) Explain() Explanation {
	x := Explanation{
		Profile:  p.Name,
		Settings: append([]Setting{}, p.Settings...),
		Chain:    make([]ExplainedLink, 0, len(p.Chain)),
		Warnings: append([]string{}, p.Warnings...),
	}
	for _, l := range p.Chain {
		x.Chain = append(x.Chain, ExplainedLink{Kind: l.Kind, Profile: l.Profile, RoleARN: l.RoleARN, Origin: l.Origin})
	}
	for _, s := range p.Skipped {
		x.Skipped = append(x.Skipped, ExplainedSkip{Profile: s.Profile, Origin: s.Origin, Skipped: s.Why})
	}
	if e := p.Err; e != nil {
		x.Error = &ExplainedError{Message: e.Message, File: e.File, Line: e.Line, Also: e.Also, Hint: e.Help}
	}
	return x
}

// Text writes x for people: each setting with its place and what it
// shadows, the chain, what was skipped, warnings, the error.
func (x Explanation) Text(w io.Writer) {
	var b strings.Builder
	fmt.Fprintf(&b, "profile %s\n", printable(x.Profile))

	b.WriteString("\nsettings\n")
	if len(x.Settings) == 0 {
		b.WriteString("  none\n")
	}
	name, value := 0, 0
	for _, s := range x.Settings {
		name = max(name, width(printable(s.Name)))
		for _, v := range append([]Shadow{{Value: s.Value}}, s.Shadows...) {
			if n := width(shownValue(v.Value)); n <= 48 { // a long value moves its own line only
				value = max(value, n)
			}
		}
	}
	line := func(label, v, where string) {
		b.WriteString("  " + pad(label, name) + "  " + pad(v, value) + "  " + where + "\n")
	}
	for _, s := range x.Settings {
		where := shownOrigin(s.Origin)
		if s.Skipped != "" {
			where += "  (skipped: " + s.Skipped + ")"
		}
		line(printable(s.Name), shownValue(s.Value), where)
		for _, h := range s.Shadows {
			line("", shownValue(h.Value), shownOrigin(h.Origin)+"  (shadowed)")
		}
	}

	b.WriteString("\nchain\n")
	if len(x.Chain) == 0 {
		b.WriteString("  none\n")
	}
	kind, profile := 0, 0
	for _, l := range x.Chain {
		kind, profile = max(kind, width(string(l.Kind))), max(profile, width(printable(l.Profile)))
	}
	for i, l := range x.Chain {
		arrow := "   "
		if i > 0 {
			arrow = "-> "
		}
		b.WriteString("  " + arrow + pad(string(l.Kind), kind) + "  " + pad(printable(l.Profile), profile) + "  ")
		if l.RoleARN != "" {
			b.WriteString(printable(l.RoleARN) + "  ")
		}
		b.WriteString(shownOrigin(l.Origin) + "\n")
	}
	for _, s := range x.Skipped {
		b.WriteString("  skipped: credential_process of " + printable(s.Profile) + ", " + shownOrigin(s.Origin) + ": " + s.Skipped + "\n")
	}
	if len(x.Warnings) > 0 {
		b.WriteString("\nwarnings\n")
		for _, m := range x.Warnings {
			b.WriteString("  " + printable(m) + "\n")
		}
	}
	if x.Error != nil {
		b.WriteString("\nerror\n  " + printable(x.Error.Message) + "\n")
		if x.Error.Hint != "" {
			b.WriteString("  hint: " + printable(x.Error.Hint) + "\n")
		}
	}
	_, _ = io.WriteString(w, b.String()) // the writer's own error is seen by whoever closes it
}

func shownValue(v string) string {
	if v == "" {
		return "(empty)"
	}
	return printable(v)
}

// shownOrigin is an origin for people: FILE:LINE [section], or a variable.
func shownOrigin(o Origin) string {
	switch {
	case o.File != "":
		return printable(o.File) + ":" + strconv.Itoa(o.Line) + " " + printable(o.Name)
	case o.Kind == FromKeystore:
		return "keyfob's vault"
	case o.Name == "":
		return string(o.Kind)
	}
	return string(o.Kind) + " " + printable(o.Name)
}

// printable escapes what would move the cursor or colour the terminal.
func printable(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			q := strconv.Quote(s)
			return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
		}
	}
	return s
}

func width(s string) int { return utf8.RuneCountInString(s) }

func pad(s string, n int) string {
	if d := n - width(s); d > 0 {
		return s + strings.Repeat(" ", d)
	}
	return s
}
