package profiles

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// maxFileSize bounds what is read of one file: far above any real one, and
// small enough that a wrong path can't fill the daemon's memory.
const maxFileSize = 16 << 20

// file is one file as read. It is immutable. Names and values are parts of
// the file's text, so that a large file costs little more than its size.
type file struct {
	kind     OriginKind
	path     string // absolute
	exists   bool
	err      *Error // the first one: unreadable, or a line that is no grammar
	whole    bool   // err says that nothing could be read at all
	warnings []string

	profiles map[string]*section
	bare     *section // [default] in the config grammar while [profile default] hides it
	sessions map[string]*section
	services map[string]*section
	skipped  map[string]int // [x] without profile: line, for the hint of an unknown profile
}

// section is all sections of one name in one file, merged.
type section struct {
	headers []header
	props   []prop // in the file's order: the last of a name wins
}

type header struct {
	text string // as written, with brackets
	line int
}

// prop is one setting as written.
type prop struct {
	key    string // lower case
	value  string
	line   int32
	header int32
	block  []prop // sub-properties, when value is empty
}

// get returns the last property of a name, nil when there is none.
func (s *section) get(key string) *prop {
	if s == nil {
		return nil
	}
	for i := len(s.props) - 1; i >= 0; i-- {
		if s.props[i].key == key {
			return &s.props[i]
		}
	}
	return nil
}

// sub returns the last sub-property of a name, nil when there is none.
func (p *prop) sub(key string) *prop {
	if p == nil {
		return nil
	}
	for i := len(p.block) - 1; i >= 0; i-- {
		if p.block[i].key == key {
			return &p.block[i]
		}
	}
	return nil
}

// origin is where a property of s stands.
func (f *file) origin(s *section, p *prop) Origin {
	return Origin{Kind: f.kind, Name: s.headers[p.header].text, File: f.path, Line: int(p.line)}
}

// headerOrigin is where s itself stands (the last time).
func (f *file) headerOrigin(s *section) Origin {
	h := s.headers[len(s.headers)-1]
	return Origin{Kind: f.kind, Name: h.text, File: f.path, Line: h.line}
}

// readFile reads and parses one file. A missing one is an empty one.
func readFile(kind OriginKind, path string) *file {
	f := &file{kind: kind, path: path}
	if path == "" {
		return f
	}
	text, err := readText(path)
	switch {
	case err == nil:
		f.exists = true
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return f
	default:
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err // the path is named by us, once
		}
		f.exists, f.whole = true, true
		f.err = &Error{Message: fmt.Sprintf("cannot read %s: %v", path, err), File: path}
		return f
	}
	g := configGrammar
	if kind == FromCredentials {
		g = credentialsGrammar
	}
	f.parse(text, g)
	return f
}

// readText reads a regular file, or the null device. Anything else could
// block or never end.
func readText(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		return "", errors.New("it is a directory")
	}
	if !info.Mode().IsRegular() {
		if isNull(path) {
			return "", nil
		}
		return "", errors.New("it is not a regular file")
	}
	h, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer h.Close()
	var b strings.Builder
	b.Grow(int(min(info.Size(), maxFileSize)) + 1)
	n, err := io.Copy(&b, io.LimitReader(h, maxFileSize+1))
	if err != nil {
		return "", err
	}
	if n > maxFileSize {
		return "", fmt.Errorf("it is larger than %d MiB", maxFileSize>>20)
	}
	return b.String(), nil
}

// parse fills f from text. It goes on after an error, so that the profiles
// of the file are known and can carry it.
func (f *file) parse(text string, g grammar) {
	f.profiles = map[string]*section{}
	var (
		bare     *section
		cur      *section // of the current header; a throw-away one while skipping
		prefixed bool     // [profile default] was seen
		last     *prop    // the property that an indented line belongs to
		lines    []string // its value's lines, when it has more than one
	)
	finish := func() {
		if len(lines) > 0 {
			last.value = strings.Join(lines, "\n")
			lines = lines[:0]
		}
	}
	into := func(m *map[string]*section, name string) *section {
		if *m == nil {
			*m = map[string]*section{}
		}
		s := (*m)[name]
		if s == nil {
			s = &section{}
			(*m)[name] = s
		}
		return s
	}
	lex(text, g, func(t *token) {
		switch t.kind {
		case lineHeader:
			finish()
			last = nil
			switch t.section {
			case sectionProfile:
				if g == configGrammar && t.name == "default" {
					prefixed = true
				}
				cur = into(&f.profiles, t.name)
			case sectionBare:
				if bare == nil {
					bare = &section{}
				}
				cur = bare
			case sectionSSOSession:
				cur = into(&f.sessions, t.name)
			case sectionServices:
				cur = into(&f.services, t.name)
			default:
				cur = &section{}
				if t.name != "" {
					if f.skipped == nil {
						f.skipped = map[string]int{}
					}
					f.skipped[t.name] = t.line
				}
			}
			cur.headers = append(cur.headers, header{t.header, t.line})
			if t.problem != "" {
				f.warn(t)
			}
		case lineProperty:
			finish()
			cur.props = append(cur.props, prop{
				key: strings.ToLower(t.key), value: t.value,
				line: int32(t.line), header: int32(len(cur.headers) - 1),
			})
			last = &cur.props[len(cur.props)-1]
		case lineSub:
			last.block = append(last.block, prop{
				key: strings.ToLower(t.key), value: t.value,
				line: int32(t.line), header: last.header,
			})
		case lineContinuation:
			if len(lines) == 0 {
				lines = append(lines, last.value)
			}
			lines = append(lines, t.value)
			if t.value[0] == '[' {
				f.warnings = append(f.warnings, fmt.Sprintf("%s:%d: this line is indented and so continues the value above it: it opens no section", f.path, t.line))
			}
		case lineUnnamed:
			if t.problem != "" {
				f.warn(t)
			}
		case lineBad:
			finish()
			if t.opens { // what follows belongs to nobody, least of all to the section before
				cur, last = &section{headers: []header{{line: t.line}}}, nil
			}
			if f.err == nil {
				f.err = &Error{Message: fmt.Sprintf("cannot read %s:%d: %s", f.path, t.line, t.problem), File: f.path, Line: t.line}
			}
		}
	})
	finish()
	switch {
	case bare == nil:
	case prefixed:
		f.bare = bare
	default:
		f.profiles["default"] = bare
	}
}

func (f *file) warn(t *token) {
	f.warnings = append(f.warnings, fmt.Sprintf("%s:%d: %s", f.path, t.line, t.problem))
}
