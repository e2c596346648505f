package setup

import (
	"fmt"
	"strings"
	"unicode"
)

// hunk is a place where two texts differ: old lines for new ones. Lines
// have their line ends.
type hunk struct {
	oldLine, newLine int // from 1: where the lines stand, or would
	old, new         []string
}

// lines splits a text after each line feed.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	all := strings.SplitAfter(text, "\n")
	if all[len(all)-1] == "" {
		all = all[:len(all)-1]
	}
	return all
}

// hunks compares two texts line by line: the fewest lines that differ
// (E. Myers, "An O(ND) difference algorithm and its variations").
func hunks(before, after string) []hunk {
	a, b := lines(before), lines(after)
	top := 0
	for top < len(a) && top < len(b) && a[top] == b[top] {
		top++
	}
	a, b = a[top:], b[top:]
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	var out []hunk
	i, j := 0, 0
	for _, m := range append(matches(a, b), [2]int{len(a), len(b)}) {
		if m[0] > i || m[1] > j {
			out = append(out, hunk{oldLine: top + i + 1, newLine: top + j + 1, old: a[i:m[0]], new: b[j:m[1]]})
		}
		i, j = m[0]+1, m[1]+1
	}
	return out
}

// maxDifference bounds the search; what differs more is one hunk.
const maxDifference = 2000

// matches is a longest common subsequence as pairs of indices, in order.
func matches(a, b []string) [][2]int {
	n, m := len(a), len(b)
	limit := min(n+m, maxDifference)
	v := map[int]int{1: 0}
	var trace []map[int]int
	for d := 0; d <= limit; d++ {
		was := make(map[int]int, len(v))
		for k, x := range v {
			was[k] = x
		}
		trace = append(trace, was)
		for k := -d; k <= d; k += 2 {
			x := v[k-1] + 1
			if k == -d || k != d && v[k-1] < v[k+1] {
				x = v[k+1]
			}
			y := x - k
			for x < n && y < m && a[x] == b[y] {
				x, y = x+1, y+1
			}
			v[k] = x
			if x >= n && y >= m {
				return walk(trace, n, m)
			}
		}
	}
	return nil
}

func walk(trace []map[int]int, x, y int) [][2]int {
	var back [][2]int
	for d := len(trace) - 1; d >= 0; d-- {
		v, k := trace[d], x-y
		prev := k - 1
		if k == -d || k != d && v[k-1] < v[k+1] {
			prev = k + 1
		}
		px := v[prev]
		py := px - prev
		for x > px && y > py && x > 0 && y > 0 {
			x, y = x-1, y-1
			back = append(back, [2]int{x, y})
		}
		x, y = px, py
	}
	for i, j := 0, len(back)-1; i < j; i, j = i+1, j-1 {
		back[i], back[j] = back[j], back[i]
	}
	return back
}

// Diff shows the change as a unified diff without context, but for the
// section that each piece belongs to: other lines of the files may hold what
// is nobody's business. Values of secrets read [redacted].
func (c *Change) Diff() string {
	var b strings.Builder
	for _, f := range c.Files {
		from, to := f.File.Path, f.File.Path
		if f.File.Missing {
			from = "/dev/null"
		}
		if f.Remove {
			to = "/dev/null"
		}
		fmt.Fprintf(&b, "--- %s\n+++ %s\n", printable(from), printable(to))
		old := lines(f.File.Text)
		for _, h := range hunks(f.File.Text, f.After) {
			fmt.Fprintf(&b, "@@ -%s +%s @@%s\n", span(h.oldLine, len(h.old)), span(h.newLine, len(h.new)), sectionAt(old, h.oldLine))
			show(&b, "-", h.old)
			show(&b, "+", h.new)
		}
	}
	return b.String()
}

// span is a place as unified diffs write it: with no lines it is the line
// before.
func span(line, n int) string {
	if n == 0 {
		line--
	}
	if n == 1 {
		return fmt.Sprint(line)
	}
	return fmt.Sprintf("%d,%d", line, n)
}

// sectionAt is the header of the section in which a line stands.
func sectionAt(all []string, line int) string {
	for i := min(line-1, len(all)) - 1; i >= 0; i-- {
		if text := strings.TrimSpace(all[i]); strings.HasPrefix(text, "[") {
			if end := strings.IndexByte(text, ']'); end > 0 {
				return " " + printable(text[:end+1])
			}
		}
	}
	return ""
}

func show(b *strings.Builder, sign string, all []string) {
	secret := false
	for _, l := range all {
		text := strings.TrimRight(l, "\r\n")
		indented := text != "" && (text[0] == ' ' || text[0] == '\t')
		switch {
		case holdsSecret(text):
			secret = true
			_, value := settingOf(text)
			text = text[:value] + " [redacted]"
		case secret && indented:
			text = "  [redacted]"
		default:
			secret = secret && strings.TrimSpace(text) == ""
		}
		b.WriteString(sign + printable(text) + "\n")
	}
}

// settingOf is the name of the setting that a line begins, and how long the
// line is up to its value; "" where it begins none.
func settingOf(line string) (name string, value int) {
	name, _, found := strings.Cut(line, "=")
	if !found {
		return "", 0
	}
	return strings.ToLower(strings.Trim(name, "\ufeff \t")), len(name) + 1
}

// holdsSecret reports whether a line's value must not be kept.
func holdsSecret(line string) bool {
	name, _ := settingOf(line)
	switch name {
	case "", "web_identity_token_file", "sso_registration_scopes":
		return false
	}
	for _, word := range []string{"secret", "token", "passw", "passphrase", "_pin"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// printable makes text fit for a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		if unicode.IsControl(r) || r == '\ufeff' {
			return -1
		}
		return r
	}, s)
}
