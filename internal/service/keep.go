package service

import (
	"encoding/binary"
	"encoding/xml"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
)

// argsOfInstalled is a host that knows with which arguments a person's
// service was installed; nil for none, and for one that was edited by hand.
type argsOfInstalled interface{ installedArgs() []string }

// keepInstalled takes over what the installed service has and nobody gave
// now: an upgrade's plain install would lead the daemon to another vault. The
// order stays, so that the same arguments make the same files.
func (c *Config) keepInstalled() error {
	m, err := New(*c)
	if err != nil {
		return nil // whoever calls New next says so
	}
	h, ok := m.host.(argsOfInstalled)
	if !ok {
		return nil
	}
	_, installed := splitAfter(h.installedArgs(), "--service")
	given := c.Args
	c.Args = nil
	for i := 0; i+1 < len(installed); i += 2 {
		name, value := installed[i], installed[i+1]
		flag, ok := strings.CutPrefix(name, "--")
		if !ok || !slices.Contains(daemonFlags, flag) || slices.Contains(c.Args, name) {
			continue
		}
		if at := lastIndex(given, name); at >= 0 {
			c.Args = append(c.Args, name, given[at+1])
			continue
		}
		if err := c.daemonFlag(flag, value); err != nil {
			return err
		}
		c.kept = append(c.kept, "keeps "+name+" "+value+" of the installed service; keyfob service uninstall drops it")
	}
	for i := 0; i+1 < len(given); i += 2 {
		if !slices.Contains(c.Args, given[i]) {
			c.Args = append(c.Args, given[i], given[lastIndex(given, given[i])+1])
		}
	}
	return nil
}

// lastIndex is where a flag stands for the last time among pairs, which
// counts; -1 for nowhere.
func lastIndex(pairs []string, name string) int {
	for i := len(pairs) - len(pairs)%2 - 2; i >= 0; i -= 2 {
		if pairs[i] == name {
			return i
		}
	}
	return -1
}

func splitAfter(words []string, word string) (before, after []string) {
	at := slices.Index(words, word)
	if at < 0 {
		return words, nil
	}
	return words[:at+1], words[at+1:]
}

// untouched is the text of a file of ours that nobody edited, "" for none.
func untouched(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	if ours, same := madeBy(string(b)); !ours || !same {
		return ""
	}
	return string(b)
}

func (s *systemd) installedArgs() []string {
	dir, err := s.dir()
	if err != nil {
		return nil
	}
	return unitArgs(untouched(dir + "/" + serviceUnit))
}

func (l *launchd) installedArgs() []string {
	path, err := l.plist()
	if err != nil {
		return nil
	}
	return plistArgs(untouched(path))
}

var (
	unitExecLine  = regexp.MustCompile(`(?m)^ExecStart=(.*)$`)
	plistArgsList = regexp.MustCompile(`<key>ProgramArguments</key>\s*<array>([^\x00]*?)</array>`)
	plistString   = regexp.MustCompile(`<string>([^<]*)</string>`)
	taskArgsLine  = regexp.MustCompile(`<Arguments>([^<]*)</Arguments>`)
)

// unitArgs undoes unitArg, word by word.
func unitArgs(text string) (words []string) {
	m := unitExecLine.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	var b strings.Builder
	quoted, inWord := false, false
	for line := []byte(m[1]); len(line) > 0; line = line[1:] {
		switch {
		case line[0] == '"':
			quoted, inWord = !quoted, true
		case line[0] == ' ' && !quoted:
			if inWord {
				words = append(words, b.String())
			}
			b.Reset()
			inWord = false
		default:
			if len(line) > 1 && (line[0] == '\\' || (line[0] == '%' || line[0] == '$') && line[1] == line[0]) {
				line = line[1:]
			}
			b.WriteByte(line[0])
			inWord = true
		}
	}
	if inWord {
		words = append(words, b.String())
	}
	return words
}

func plistArgs(text string) (words []string) {
	m := plistArgsList.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	for _, s := range plistString.FindAllStringSubmatch(m[1], -1) {
		words = append(words, xmlPlain(s[1]))
	}
	return words
}

// taskLine is the command line in the file of a logon task, without the
// program; "" for none.
func taskLine(file []byte) string {
	var units []uint16
	for ; len(file) > 1; file = file[2:] {
		units = append(units, binary.LittleEndian.Uint16(file))
	}
	m := taskArgsLine.FindStringSubmatch(string(utf16.Decode(units)))
	if m == nil {
		return ""
	}
	return xmlPlain(m[1])
}

// xmlPlain undoes xmlText.
func xmlPlain(s string) (plain string) {
	_ = xml.Unmarshal([]byte("<a>"+s+"</a>"), &plain) // what is no text of ours is none
	return plain
}
