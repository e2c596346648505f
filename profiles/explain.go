package profiles

import (
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

// Style is how Text draws: each field is put around a text, nil leaves it
// plain.
type Style struct {
	Name  func(string) string // what the eye looks for: names
	Faint func(string) string // places, and what lost
	Good  func(string) string
	Bad   func(string) string
}

func styled(f func(string) string, text string) string {
	if f == nil || text == "" {
		return text
	}
	return f(text)
}

func (s Style) name(text string) string  { return styled(s.Name, text) }
func (s Style) faint(text string) string { return styled(s.Faint, text) }
func (s Style) good(text string) string  { return styled(s.Good, text) }
func (s Style) bad(text string) string   { return styled(s.Bad, text) }

// Text writes x for people: the chain as a tree, base first, each setting
// with its place and below it what it shadows, warnings, the error.
func (x Explanation) Text(w io.Writer, s Style) {
	var b strings.Builder
	b.WriteString("profile " + s.name(printable(x.Profile)) + "\n")

	b.WriteString("\ncredentials\n")
	if len(x.Chain) == 0 {
		b.WriteString("  none\n")
	}
	for i, l := range x.Chain {
		b.WriteString(branch(i) + string(l.Kind))
		if l.RoleARN != "" {
			b.WriteString(" " + printable(l.RoleARN))
		}
		b.WriteString("  [" + s.name(printable(l.Profile)) + "]  " + s.faint(shownOrigin(l.Origin)) + "\n")
	}
	for _, k := range x.Skipped {
		b.WriteString("  skipped: credential_process of " + printable(k.Profile) + ", " + shownOrigin(k.Origin) + ": " + k.Skipped + "\n")
	}

	b.WriteString("\nsettings\n")
	if len(x.Settings) == 0 {
		b.WriteString("  none\n")
	}
	name, value := 0, 0
	for _, f := range x.Settings {
		name = max(name, width(printable(f.Name)))
		for _, v := range append([]Shadow{{Value: f.Value}}, f.Shadows...) {
			if n := width(shownValue(v.Value)); n <= 48 { // a long value moves its own line only
				value = max(value, n)
			}
		}
	}
	for _, f := range x.Settings {
		where := shownOrigin(f.Origin)
		if f.Skipped != "" {
			where += "  (skipped: " + f.Skipped + ")"
		}
		b.WriteString("  " + pad(printable(f.Name), name) + "  " + s.name(pad(shownValue(f.Value), value)) + "  " + s.faint(where) + "\n")
		for i, h := range f.Shadows {
			mark := "├─ "
			if i == len(f.Shadows)-1 {
				mark = "└─ "
			}
			b.WriteString("  " + strings.Repeat(" ", max(0, name-1)) + mark + s.faint(pad(shownValue(h.Value), value)+"  "+shownOrigin(h.Origin)+"  (shadowed)") + "\n")
		}
	}
	if len(x.Warnings) > 0 {
		b.WriteString("\nwarnings\n")
		for _, m := range x.Warnings {
			b.WriteString("  " + printable(m) + "\n")
		}
	}
	if x.Error != nil {
		b.WriteString("\n" + s.bad("error") + "\n  " + printable(x.Error.Message) + "\n")
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
