package service

import (
	"encoding/xml"
	"strings"
)

// unitWord quotes s as one word of a unit's line (systemd.syntax(7)):
// specifiers start with %, and backslash and quotes are C's.
func unitWord(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`).Replace(s)
	if s == "" || strings.ContainsAny(s, " \t'\"\\;#") {
		return `"` + s + `"`
	}
	return s
}

// unitArg is unitWord for an argument of ExecStart, in which $ starts a
// variable. It does not in the program's path.
func unitArg(s string) string { return unitWord(strings.ReplaceAll(s, `$`, `$$`)) }

// unitPath is a setting's whole value that is one path and is not split into
// words, such as ListenStream.
func unitPath(s string) string { return strings.ReplaceAll(s, `%`, `%%`) }

// shellWord quotes s for sh.
func shellWord(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// xmlText escapes s for the text of an element.
func xmlText(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder does not fail
	return b.String()
}

// windowsArg quotes s by the rules of CommandLineToArgvW: backslashes count
// only before a quote.
func windowsArg(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\"") {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	slashes := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			slashes++
			continue
		case '"':
			b.WriteString(strings.Repeat(`\`, 2*slashes+1))
		default:
			b.WriteString(strings.Repeat(`\`, slashes))
		}
		slashes = 0
		b.WriteByte(s[i])
	}
	b.WriteString(strings.Repeat(`\`, 2*slashes) + `"`)
	return b.String()
}
