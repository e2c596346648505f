package profiles

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The grammar is that of AWS's config and credentials files
// (https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html), with
// the cases where SDKs disagree decided by docs/ and CONTRACT.md §4. The
// lexer knows lines, not profiles: parser and editor share it, so that what
// the editor writes is what the parser reads.

// grammar is which of the two section grammars a file has.
type grammar uint8

const (
	configGrammar      grammar = iota // [default], [profile X], [sso-session X], [services X]
	credentialsGrammar                // [X]
)

type lineKind uint8

const (
	lineIgnored      lineKind = iota // blank or comment
	lineHeader                       // a section's header
	lineProperty                     // key = value at the start of a line
	lineSub                          // indented key = value below an empty value
	lineContinuation                 // indented text that continues a value
	lineUnnamed                      // a property or sub-property whose name is outside the grammar, and what continues it
	lineBad                          // no grammar: an error
)

type sectionKind uint8

const (
	sectionSkipped    sectionKind = iota // recognised and not used
	sectionProfile                       // [profile X], or [X] in the credentials file
	sectionBare                          // [default] in the config file: hidden by [profile default]
	sectionSSOSession                    // [sso-session X]
	sectionServices                      // [services X]
)

// token is one line.
type token struct {
	kind       lineKind
	line       int // from 1
	start, end int // byte offsets of the line in the text; end is after its line end

	key              string // property, sub-property: the name as written
	value            string // property, sub-property, continuation: trimmed
	valStart, valEnd int    // byte offsets of value in the text

	opens   bool        // the line starts with `[`, good or bad
	section sectionKind // header
	name    string      // header: the name, unquoted
	header  string      // header: as written, with its brackets

	problem string // lineBad: why; header, lineUnnamed: a warning
}

const byteOrderMark = "\ufeff"

// lex calls emit for each line of text.
func lex(text string, g grammar, emit func(*token)) {
	clean := utf8.ValidString(text) && strings.IndexByte(text, 0) < 0
	// open is what an indented line belongs to.
	const (
		openNothing = iota
		openText    // a property with a value: continuations
		openBlock   // a property with an empty value: sub-properties
		openUnnamed // something that is skipped
	)
	open, inSection := openNothing, false
	pos := 0
	if strings.HasPrefix(text, byteOrderMark) {
		pos = len(byteOrderMark)
	}
	var t token
	for n := 1; pos < len(text); n++ {
		end := len(text)
		content := text[pos:]
		if i := strings.IndexByte(content, '\n'); i >= 0 {
			end = pos + i + 1
			content = content[:i]
		}
		content = strings.TrimSuffix(content, "\r")
		t = token{line: n, start: pos, end: end}
		base := pos
		if n == 1 {
			t.start = 0 // a byte-order mark belongs to the first line
		}
		pos = end

		switch {
		case !clean && strings.IndexByte(content, 0) >= 0:
			t.bad("a NUL byte")
			open = openUnnamed
		case !clean && !utf8.ValidString(content):
			t.bad("not UTF-8")
			open = openUnnamed
		case strings.TrimSpace(content) == "":
			// blank lines end nothing
		case isBlank(content[0]):
			trimmed := strings.Trim(content, " \t")
			comment := trimmed[0] == '#' || trimmed[0] == ';'
			at := base + strings.Index(content, trimmed)
			switch {
			case open == openText:
				t.kind, t.value, t.valStart, t.valEnd = lineContinuation, trimmed, at, at+len(trimmed)
			case comment:
				// with no text to continue it is a comment for every reader
			case open == openBlock:
				t.assignment(trimmed, at, lineSub)
			case open == openUnnamed:
				t.kind = lineUnnamed
			default:
				t.bad("an indented line with nothing to continue")
				open = openUnnamed
			}
		case content[0] == '#' || content[0] == ';':
			// comments end nothing
		case content[0] == '[':
			open = openNothing
			t.opens = true
			t.sectionHeader(content, g)
			if t.kind == lineBad {
				open = openUnnamed
			}
			inSection = true
		default:
			t.assignment(cutComment(content), base, lineProperty)
			switch {
			case t.kind == lineBad || t.kind == lineUnnamed:
				open = openUnnamed
			case t.value == "":
				open = openBlock
			default:
				open = openText
			}
			if !inSection && t.kind != lineBad {
				t.bad("a property before any section")
				open = openUnnamed
			}
		}
		emit(&t)
	}
}

func (t *token) bad(problem string) { t.kind, t.problem = lineBad, problem }

// assignment reads `name = value` from s, which starts at byte offset at.
// Problems never quote the line: it may hold a secret.
func (t *token) assignment(s string, at int, kind lineKind) {
	eq := strings.IndexByte(s, '=')
	if eq < 0 {
		if strings.IndexByte(s, ':') >= 0 {
			t.bad("a setting is written with `=`, not with `:`")
		} else {
			t.bad("no `=`")
		}
		return
	}
	key := strings.Trim(s[:eq], " \t")
	raw := s[eq+1:]
	value := strings.Trim(raw, " \t")
	t.valStart = at + eq + 1
	if value != "" {
		t.valStart += strings.Index(raw, value)
	} else if raw != "" {
		// one blank after `=` is kept when a value is put there
		t.valStart++
	}
	t.valEnd = t.valStart + len(value)
	t.key, t.value, t.kind = key, value, kind
	switch {
	case key == "":
		t.bad("an empty name before `=`")
	case strings.Contains(key, ": ") || strings.Contains(key, " :") || strings.Contains(key, "\t:") || strings.Contains(key, ":\t"):
		t.bad("a setting is written with `=`, not with `:`")
	case !validName(key):
		t.kind = lineUnnamed
		t.problem = "the name of this setting has characters outside the grammar: it is skipped"
	}
}

// sectionHeader reads a line that starts with `[`.
func (t *token) sectionHeader(s string, g grammar) {
	close := closingBracket(s)
	if close < 0 {
		t.bad("no `]`")
		return
	}
	if rest := strings.Trim(s[close+1:], " \t"); rest != "" && rest[0] != '#' && rest[0] != ';' {
		t.bad("text after `]`")
		return
	}
	t.kind, t.header = lineHeader, s[:close+1]
	inner := strings.Trim(s[1:close], " \t")
	if inner == "" {
		t.bad("an empty name in `[]`")
		return
	}
	word, rest := inner, ""
	if i := strings.IndexAny(inner, " \t"); i >= 0 {
		word, rest = inner[:i], strings.Trim(inner[i:], " \t")
	}
	if g == credentialsGrammar {
		if word == "profile" && rest != "" {
			t.skip(t.header + " is not a section of a credentials file (it is `[NAME]` there): it is skipped")
			return
		}
		t.nameSection(inner, sectionProfile)
		return
	}
	switch word {
	case "profile":
		t.nameSection(rest, sectionProfile)
	case "sso-session":
		t.nameSection(rest, sectionSSOSession)
	case "services":
		t.nameSection(rest, sectionServices)
	default:
		switch {
		case inner == "default":
			t.section, t.name = sectionBare, inner
		case inner == "plugins" || inner == "preview":
			t.section = sectionSkipped // the AWS CLI's own
		case rest == "":
			t.skip(t.header + " without `profile` is not a profile of a config file: it is skipped")
			t.name = inner
		default:
			t.skip(t.header + " is no kind of section that is known: it is skipped")
		}
	}
}

func (t *token) skip(warning string) { t.section, t.problem = sectionSkipped, warning }

func (t *token) nameSection(name string, kind sectionKind) {
	quoted := len(name) >= 2 && (name[0] == '"' || name[0] == '\'') && name[len(name)-1] == name[0]
	if quoted {
		name = name[1 : len(name)-1]
	}
	switch {
	case strings.Trim(name, " \t") == "":
		t.bad("an empty name in `" + t.header + "`")
	case quoted && validQuotedName(name), !quoted && validName(name):
		t.section, t.name = kind, name
	default:
		t.skip("the name in " + t.header + " has characters outside the grammar: it is skipped")
	}
}

// closingBracket finds the `]` of a header, past a quoted name.
func closingBracket(s string) int {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case ']':
			return i
		case '"', '\'':
			if !isBlank(s[i-1]) && s[i-1] != '[' {
				continue
			}
			if j := strings.IndexByte(s[i+1:], c); j >= 0 {
				i += 1 + j
			}
		}
	}
	return -1
}

// cutComment drops a comment: `#` or `;` after white space, and the white
// space before it.
func cutComment(s string) string {
	for i := 1; i < len(s); i++ {
		if (s[i] == '#' || s[i] == ';') && isBlank(s[i-1]) {
			return strings.TrimRight(s[:i], " \t")
		}
	}
	return s
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// validName reports whether s is a name of the grammar. Letters outside
// ASCII are accepted beyond it.
func validName(s string) bool {
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		case r < utf8.RuneSelf && strings.ContainsRune("_-/.%@:+", r):
		case r >= utf8.RuneSelf && r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r)):
		default:
			return false
		}
	}
	return s != ""
}

// validQuotedName reports whether s may stand between quotes.
func validQuotedName(s string) bool {
	for _, r := range s {
		if r == '"' || r == '\'' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return s != ""
}
