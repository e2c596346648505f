package signin

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// plain makes one line of s that does nothing but be read: no control
// characters, no terminal sequences, no marks that turn the direction of
// writing, and at most limit characters.
func plain(s string, limit int) string {
	var b strings.Builder
	n := 0
	gap := false // white space that is written if something follows
	for _, r := range s {
		switch {
		case unicode.IsSpace(r):
			gap = n > 0
			continue
		case r == utf8.RuneError, !unicode.IsPrint(r):
			continue
		}
		if n >= limit {
			b.WriteString("…")
			break
		}
		if gap {
			b.WriteByte(' ')
			gap = false
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}

// plainLines is plain for each line of s, with at most lines of them.
func plainLines(s string, limit, lines int) string {
	var kept []string
	for line := range strings.Lines(s) {
		if line = plain(line, limit); line != "" && len(kept) < lines {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// prompt is a question as people see it.
type prompt struct {
	kind  string
	title string   // of a window
	lines []string // what it is about; the first one is ours from end to end
	label string   // of the field
	fail  string   // why it is asked again, "" for the first time
	short string   // all of it for one line of a terminal
}

// maxChoices is what a dialog has room for.
const maxChoices = 50

// kindMFA is the question for the code of an MFA device.
const kindMFA = "mfa"

// newPrompt makes the words of a question. They name keyfob, the profile and
// the device, so that nobody answers somebody else's question.
func newPrompt(q question) prompt {
	profile, serial, text := plain(q.Profile, 100), plain(q.Serial, 120), plain(q.Text, 200)
	p := prompt{kind: q.Kind, title: "keyfob", fail: plain(q.Error, 200)}
	what := "an answer"
	p.label = "Answer:"
	if q.Kind == kindMFA {
		what = "an MFA code"
		p.label = "MFA code:"
	}
	p.lines = []string{"keyfob needs " + what}
	p.short = "keyfob needs " + what
	if profile != "" {
		p.lines = append(p.lines, "Profile: "+profile)
		p.short += " for profile " + profile
	}
	if serial != "" {
		p.lines = append(p.lines, "Device: "+serial)
		p.short += " of " + serial
	}
	// The text of an MFA question repeats the serial.
	if text != "" && (q.Kind != kindMFA || serial == "") {
		p.lines = append(p.lines, text)
		p.short += ", " + text
	}
	for i, c := range q.Choices[:min(len(q.Choices), maxChoices)] {
		line := strconv.Itoa(i+1) + "  " + plain(c, 120)
		p.lines = append(p.lines, line)
		p.short += "\n" + line
	}
	if len(q.Choices) > 0 {
		p.label = "1 to " + strconv.Itoa(min(len(q.Choices), maxChoices)) + ":"
		p.short += "\n" + p.label + " "
		return p
	}
	p.short += ": "
	return p
}

// body is the text of a dialog that has no place of its own for fail. What
// Qt sees of it before the first line end holds no mark-up, so that it takes
// none of it for mark-up.
func (p prompt) body() string {
	lines := p.lines
	if p.fail != "" {
		lines = append(lines[:len(lines):len(lines)], p.fail)
	}
	return strings.Join(lines, "\n")
}

// value is the answer in what was typed. Authenticators show a code in
// groups.
func (p prompt) value(typed string) (string, error) {
	typed = strings.TrimRight(typed, "\r\n")
	if p.kind == kindMFA {
		typed = strings.Join(strings.Fields(typed), "")
	}
	if typed == "" {
		return "", errRefused
	}
	return typed, nil
}
