package profiles

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// keyfobItself is why a credential_process is no link.
const keyfobItself = "keyfob itself"

// isSelf reports whether the program of a credential_process line is keyfob:
// by its base name, or because it is the same file.
func (s *Set) isSelf(line string) bool {
	program := programOf(line, runtime.GOOS == "windows")
	if program == "" {
		return false
	}
	base := program
	if i := strings.LastIndexByte(base, '/'); i >= 0 {
		base = base[i+1:]
	}
	if runtime.GOOS == "windows" {
		base = strings.ToLower(filepath.Base(base))
	}
	if strings.TrimSuffix(base, ".exe") == "keyfob" {
		return true
	}
	if len(s.self) == 0 {
		return false
	}
	for _, path := range s.candidates(program) {
		if info, err := os.Stat(path); err == nil {
			for _, self := range s.self {
				if os.SameFile(info, self) {
					return true
				}
			}
			return false // the first one found is the one that runs
		}
	}
	return false
}

// candidates are the files that a program's name can mean.
func (s *Set) candidates(program string) []string {
	if strings.ContainsRune(program, '/') || strings.ContainsRune(program, filepath.Separator) {
		return []string{s.expandHome(program)}
	}
	var paths []string
	for _, dir := range filepath.SplitList(s.path) {
		if dir != "" {
			paths = append(paths, filepath.Join(dir, program))
		}
	}
	return paths
}

// programOf is the program that a shell would run for line: the first word
// after assignments, env and its options, exec and command.
func programOf(line string, windows bool) string {
	if windows {
		line = strings.TrimLeft(line, " \t")
		if rest, ok := strings.CutPrefix(line, `"`); ok {
			program, _, _ := strings.Cut(rest, `"`)
			return program
		}
		if i := strings.IndexAny(line, " \t"); i >= 0 {
			return line[:i]
		}
		return line
	}
	for inEnv := false; ; {
		word, rest, quotedEquals := shellWord(line)
		if word == "" && rest == "" {
			return ""
		}
		line = rest
		switch {
		case isAssignment(word) && (inEnv || !quotedEquals):
		case inEnv && strings.HasPrefix(word, "-"):
			switch word {
			case "-u", "--unset", "-C", "--chdir":
				_, line, _ = shellWord(line)
			case "-S", "--split-string":
				word, line, _ = shellWord(line)
				line = word + " " + line
			}
		case filepath.Base(word) == "env":
			inEnv = true
		case word == "exec" || word == "command":
			inEnv = false
		default:
			return word
		}
	}
}

// isAssignment reports whether a word is NAME=value.
func isAssignment(word string) bool {
	name, _, ok := strings.Cut(word, "=")
	if !ok || name == "" || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !(c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') {
			return false
		}
	}
	return true
}

// shellWord takes one word off a line as sh does: quotes removed,
// backslashes obeyed. quotedEquals says that the first `=` stands inside
// quotes, so that the word is no assignment.
func shellWord(line string) (word, rest string, quotedEquals bool) {
	line = strings.TrimLeft(line, " \t\n")
	var b strings.Builder
	equals := false
	put := func(c byte, quoted bool) {
		if c == '=' && !equals {
			equals, quotedEquals = true, quoted
		}
		b.WriteByte(c)
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\n', ';', '|', '&':
			return b.String(), line[i+1:], quotedEquals
		case '\'':
			for i++; i < len(line) && line[i] != '\''; i++ {
				put(line[i], true)
			}
		case '"':
			for i++; i < len(line) && line[i] != '"'; i++ {
				if line[i] == '\\' && i+1 < len(line) && strings.IndexByte(`"\$`+"`", line[i+1]) >= 0 {
					i++
				}
				put(line[i], true)
			}
		case '\\':
			if i+1 < len(line) {
				i++
				put(line[i], true)
			}
		default:
			put(c, false)
		}
	}
	return b.String(), "", quotedEquals
}

// asksFor is the profile that a line which runs keyfob names, "" where it
// names none.
func asksFor(line string) string {
	for after := false; line != ""; {
		var word string
		word, line, _ = shellWord(line)
		switch name, value, equals := strings.Cut(word, "="); {
		case name == "--profile" || name == "-profile":
			if !equals {
				value, _, _ = shellWord(line)
			}
			return value
		case after && word != "" && word[0] != '-':
			return word
		case word == "credential-process":
			after = true
		}
	}
	return ""
}
