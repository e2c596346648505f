package profiles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"keyfob/internal/atomicfile"
)

// Edit changes one setting of one section.
type Edit struct {
	// Section is what stands between the brackets: `profile dev` or
	// `default` in the config grammar, `dev` in a credentials file. A
	// section that is missing is added at the end of the file.
	Section string
	Key     string
	// Value is what reading the file will give: its lines are joined by \n.
	Value string
	// Delete takes the setting out, wherever in the file it stands for the
	// section. A setting that is not there is no error.
	Delete bool
}

// editTries bounds how often an edit starts again because somebody else
// wrote the file meanwhile.
const editTries = 5

// EditFile applies edits in order, all or none. Every byte that is not part
// of an edited setting stays as it is: comments, order, spacing, line ends.
// The file is replaced atomically, with its mode and owner, where symbolic
// links lead; a missing one is made with mode 0600. A file that has a line
// that is no grammar is not edited. Values are never part of an error.
func EditFile(path string, edits []Edit) error {
	target, err := followLinks(path)
	if err != nil {
		return fmt.Errorf("cannot edit %s: %w", path, err)
	}
	for range editTries {
		old, err := os.ReadFile(target)
		missing := errors.Is(err, fs.ErrNotExist)
		if err != nil && !missing {
			return fmt.Errorf("cannot edit %s: %w", path, cause(err))
		}
		text := string(old)
		for _, e := range edits {
			if text, err = applyEdit(text, e); err != nil {
				return fmt.Errorf("cannot edit %s: %w", path, err)
			}
		}
		if text == string(old) {
			return nil
		}
		switch err := replaceFile(target, old, missing, []byte(text)); {
		case err == nil:
			return nil
		case !errors.Is(err, errChanged):
			return fmt.Errorf("cannot edit %s: %w", path, cause(err))
		}
	}
	return fmt.Errorf("cannot edit %s: it keeps changing", path)
}

// errChanged says that somebody else wrote the file since it was read.
var errChanged = errors.New("the file was changed meanwhile")

// cause drops the operation and the path, which the message names itself.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	return err
}

// followLinks returns the file that path leads to, which need not exist.
func followLinks(path string) (string, error) {
	for range 40 {
		info, err := os.Lstat(path)
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			return path, nil
		}
		next, err := os.Readlink(path)
		if err != nil {
			return "", cause(err)
		}
		if !filepath.IsAbs(next) {
			next = filepath.Join(filepath.Dir(path), next)
		}
		path = next
	}
	return "", errors.New("too many symbolic links")
}

// replaceFile puts text in the place of target, which held old when it was
// read. errChanged when it no longer does.
func replaceFile(target string, old []byte, missing bool, text []byte) (err error) {
	dir := filepath.Dir(target)
	mode := fs.FileMode(0o600)
	var info fs.FileInfo
	if missing {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	} else {
		if info, err = os.Stat(target); err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return errors.New("it is not a regular file")
		}
		mode = info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	}
	return atomicfile.Write(target, text, atomicfile.Options{
		Mode: mode,
		Written: func(tmp *os.File) error {
			if info == nil {
				return nil
			}
			if err := keepOwner(tmp, info); err != nil {
				return fmt.Errorf("its owner cannot be kept: %w", cause(err))
			}
			return nil
		},
		Ready: func() error {
			now, err := os.ReadFile(target)
			switch {
			case missing && errors.Is(err, fs.ErrNotExist):
				return nil
			case err == nil && (missing || !bytes.Equal(now, old)):
				return errChanged
			}
			return err
		},
	})
}

// document is a text with what its lines are.
type document struct {
	text  string
	lines []docLine
	eol   string
}

type docLine struct {
	kind             lineKind
	start, end       int
	valStart, valEnd int
	section          string // normalized, "" before any
	key              string // lower case, of a property
	value            string
	indented         bool // starts with white space and is not blank
	blank            bool
}

// readDocument classifies the lines. The two grammars differ in headers
// alone, so a text is good when either reads it.
func readDocument(text string) (*document, error) {
	d, err := readDocumentAs(text, configGrammar)
	if err != nil {
		if c, credErr := readDocumentAs(text, credentialsGrammar); credErr == nil {
			return c, nil
		}
	}
	return d, err
}

func readDocumentAs(text string, g grammar) (*document, error) {
	d := &document{text: text, eol: "\n"}
	if i := strings.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		d.eol = "\r\n"
	}
	var bad error
	section := ""
	lex(text, g, func(t *token) {
		if t.kind == lineBad && bad == nil {
			bad = fmt.Errorf("line %d: %s", t.line, t.problem)
		}
		if t.kind == lineHeader {
			section = normalSection(t.header[1 : len(t.header)-1])
		}
		l := docLine{kind: t.kind, start: t.start, end: t.end, valStart: t.valStart, valEnd: t.valEnd, section: section,
			key: strings.ToLower(t.key), value: t.value}
		content := strings.TrimPrefix(text[t.start:t.end], byteOrderMark)
		l.blank = strings.TrimSpace(content) == ""
		l.indented = !l.blank && isBlank(content[0])
		d.lines = append(d.lines, l)
	})
	return d, bad
}

// normalSection is a header's inside in one spelling: one blank, no quotes.
func normalSection(inner string) string {
	inner = strings.Trim(inner, " \t")
	word, rest := inner, ""
	if i := strings.IndexAny(inner, " \t"); i >= 0 {
		word, rest = inner[:i], strings.Trim(inner[i:], " \t")
	}
	if rest == "" || word != "profile" && word != "sso-session" && word != "services" {
		return unquoteName(inner)
	}
	return word + " " + unquoteName(rest)
}

func unquoteName(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// newHeader is the header of a section to be added; quotes are put where the
// name needs them. The error says that no grammar can name it.
func newHeader(section string) (string, error) {
	kind, name := "", section
	for _, k := range []string{"profile ", "sso-session ", "services "} {
		if strings.HasPrefix(section, k) {
			kind, name = k, section[len(k):]
		}
	}
	switch {
	case validName(name):
	case validQuotedName(name) && strings.TrimSpace(name) != "":
		name = `"` + name + `"`
	default:
		return "", errors.New("the section's name has characters outside the grammar")
	}
	return "[" + kind + name + "]", nil
}

// effective is the section of d that an edit of the given one is about:
// [profile default] where there is one, as it hides [default].
func (d *document) effective(section string) string {
	if section != "default" && section != "profile default" {
		return section
	}
	found := ""
	for _, l := range d.lines {
		if l.kind == lineHeader && (l.section == "profile default" || l.section == "default" && found == "") {
			found = l.section
		}
	}
	if found == "" {
		return section
	}
	return found
}

// extent is the property at line i and what belongs to it: the indented
// lines below, up to the next setting or section. Blank lines and comments
// at the start of a line are not part of it.
func (d *document) extent(i int) (below []int) {
	for j := i + 1; j < len(d.lines); j++ {
		switch l := d.lines[j]; {
		case l.indented:
			below = append(below, j)
		case l.blank || l.kind == lineIgnored:
		default:
			return below
		}
	}
	return below
}

// applyEdit returns text with one edit. It proves its work: read back, the
// setting is what was asked for and everything else is what it was.
func applyEdit(text string, e Edit) (string, error) {
	d, err := readDocument(text)
	if err != nil {
		return "", err
	}
	if !validName(e.Key) {
		return "", errors.New("the setting's name has characters outside the grammar")
	}
	section := d.effective(normalSection(e.Section))
	header, err := newHeader(section)
	if err != nil {
		return "", err
	}
	key := strings.ToLower(e.Key)
	var out string
	if e.Delete {
		out = d.without(section, key)
	} else {
		out = d.with(section, header, e.Key, e.Value)
	}
	return out, d.prove(out, section, key, e)
}

func (d *document) without(section, key string) string {
	var b strings.Builder
	pos := 0
	cut := func(l docLine) {
		b.WriteString(d.text[pos:l.start])
		if strings.HasPrefix(d.text[l.start:l.end], byteOrderMark) {
			b.WriteString(byteOrderMark)
		}
		pos = l.end
	}
	for i, l := range d.lines {
		if l.kind == lineProperty && l.section == section && l.key == key {
			cut(l)
			for _, j := range d.extent(i) {
				cut(d.lines[j])
			}
		}
	}
	b.WriteString(d.text[pos:])
	return b.String()
}

func (d *document) with(section, header, key, value string) string {
	at, last := -1, -1 // the property that wins; the last line of the section that a setting may follow
	for i, l := range d.lines {
		if l.section != section {
			continue
		}
		if l.kind == lineProperty && l.key == strings.ToLower(key) {
			at = i
		}
		if l.indented || l.kind == lineProperty || l.kind == lineHeader || l.kind == lineUnnamed {
			last = i
		}
	}
	if at >= 0 && d.value(at) == value && !d.hasBlock(at) {
		return d.text
	}
	if at >= 0 && (d.lines[at].value != "" || d.hasBlock(at) || len(d.extent(at)) == 0 || value == "") {
		return d.replaceValue(at, value)
	}
	// An empty value with indented comments below: put there, a value would
	// be continued by them. A later setting of the same name wins.
	setting := key + " ="
	if value != "" {
		setting += " "
	}
	if last >= 0 {
		l := d.lines[last]
		eol := d.eolOf(l)
		line := setting + strings.ReplaceAll(value, "\n", eol+"  ") + eol
		if !strings.HasSuffix(d.text[:l.end], "\n") {
			line = eol + line
		}
		return d.text[:l.end] + line + d.text[l.end:]
	}
	out := d.text
	if strings.TrimPrefix(out, byteOrderMark) != "" {
		if !strings.HasSuffix(out, "\n") {
			out += d.eol
		}
		if n := len(d.lines); n > 0 && !d.lines[n-1].blank {
			out += d.eol
		}
	}
	return out + header + d.eol + setting + strings.ReplaceAll(value, "\n", d.eol+"  ") + d.eol
}

// replaceValue puts value in the place of the one of the property at line i
// and takes out what continued it.
func (d *document) replaceValue(i int, value string) string {
	l := d.lines[i]
	first, more, several := strings.Cut(value, "\n")
	eol := d.eolOf(l)
	var b strings.Builder
	b.WriteString(d.text[:l.valStart])
	if first != "" && l.valStart == l.valEnd && d.text[l.valStart-1] == '=' {
		b.WriteByte(' ')
	}
	b.WriteString(first)
	rest := d.text[l.valEnd:l.end] // a comment stays on the first line
	comment := strings.TrimRight(rest, "\r\n")
	b.WriteString(comment)
	if several {
		b.WriteString(eol + "  " + strings.ReplaceAll(more, "\n", eol+"  "))
	}
	b.WriteString(rest[len(comment):])
	pos := l.end
	for _, j := range d.extent(i) {
		b.WriteString(d.text[pos:d.lines[j].start])
		pos = d.lines[j].end
	}
	b.WriteString(d.text[pos:])
	return b.String()
}

// value is the value of the property at line i as it reads.
func (d *document) value(i int) string {
	v := d.lines[i].value
	for _, j := range d.extent(i) {
		if d.lines[j].kind == lineContinuation {
			v += "\n" + d.lines[j].value
		}
	}
	return v
}

func (d *document) hasBlock(i int) bool {
	for _, j := range d.extent(i) {
		if k := d.lines[j].kind; k == lineSub || k == lineUnnamed {
			return true
		}
	}
	return false
}

func (d *document) eolOf(l docLine) string {
	switch s := d.text[l.start:l.end]; {
	case strings.HasSuffix(s, "\r\n"):
		return "\r\n"
	case strings.HasSuffix(s, "\n"):
		return "\n"
	}
	return d.eol
}

// prove reads out and compares: the setting is what e says, all others are
// as they were.
func (d *document) prove(out, section, key string, e Edit) error {
	now, err := readDocument(out)
	if err != nil {
		return fmt.Errorf("%s can't have that value", e.Key)
	}
	got, found := now.last(section, key)
	if found == e.Delete || !e.Delete && got != e.Value {
		return fmt.Errorf("%s can't have that value: it would not read back the same", e.Key)
	}
	before, after := d.others(section, key), now.others(section, key)
	if len(after) > len(before) && after[len(after)-1] == section+"\x00" {
		after = after[:len(after)-1] // the section was added
	}
	if strings.Join(before, "\x01") != strings.Join(after, "\x01") {
		return fmt.Errorf("%s can't have that value: other settings would change", e.Key)
	}
	return nil
}

// last is the value that wins.
func (d *document) last(section, key string) (value string, found bool) {
	for i, l := range d.lines {
		if l.kind == lineProperty && l.section == section && l.key == key {
			value, found = d.value(i), true
			if d.hasBlock(i) {
				value = "\x00a block"
			}
		}
	}
	return value, found
}

// others lists the sections and all settings but one, in order.
func (d *document) others(section, key string) []string {
	var all []string
	skip := false
	for _, l := range d.lines {
		switch l.kind {
		case lineHeader:
			skip = false
			all = append(all, l.section+"\x00")
		case lineProperty:
			skip = l.section == section && l.key == key
			if !skip {
				all = append(all, l.section+"\x00"+l.key+"\x00"+l.value)
			}
		case lineSub, lineContinuation:
			if !skip {
				all = append(all, "\x00"+l.key+"\x00"+l.value)
			}
		case lineUnnamed:
			if !l.indented {
				skip = false
			}
		}
	}
	return all
}
