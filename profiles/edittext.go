package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// ErrChanged: a file is no longer what it was when it was read.
var ErrChanged = errChanged

// TextSetting is one setting of a text, where it stands.
type TextSetting struct {
	// Section is what stands between the brackets, in one spelling: one
	// blank, no quotes.
	Section string
	Key     string // lower case
	Value   string // continuations joined by \n; "" for a block of sub-properties
	Line    int    // from 1
	Block   bool   // has sub-properties
}

// ReadText lists the settings of a config or credentials file's text, in
// order, with those that later ones of the same name hide. The error names
// the first line that is no grammar.
func ReadText(text string) ([]TextSetting, error) {
	d, err := readDocument(text)
	if err != nil {
		return nil, err
	}
	var out []TextSetting
	for i, l := range d.lines {
		if l.kind == lineProperty {
			out = append(out, TextSetting{Section: l.section, Key: l.key, Value: d.value(i), Line: i + 1, Block: d.hasBlock(i)})
		}
	}
	return out, nil
}

// SectionOf is the section of a text that an Edit of the given one would be
// about: the one spelling, and [profile default] where it hides [default].
func SectionOf(text, section string) string {
	d, err := readDocument(text)
	if err != nil {
		return section
	}
	return d.effective(normalSection(section))
}

// EditText is EditFile on a text that was read: it returns what the file
// would hold. Sections that are new are added at once, so that hundreds cost
// little more than one. Errors are those of EditFile, without the file's name.
func EditText(text string, edits []Edit) (string, error) {
	d, err := readDocument(text)
	if err != nil {
		return "", err
	}
	var fresh []Edit
	there := d.sections()
	for _, e := range edits {
		section, key := d.effective(normalSection(e.Section)), strings.ToLower(e.Key)
		if !there[section] {
			if section == "default" || section == "profile default" { // one section, as the first edit spells it
				for _, o := range fresh {
					if o.Section == "default" || o.Section == "profile default" {
						section = o.Section
					}
				}
			}
			fresh = slices.DeleteFunc(fresh, func(o Edit) bool { return o.Section == section && strings.EqualFold(o.Key, e.Key) })
			if !e.Delete {
				fresh = append(fresh, Edit{Section: section, Key: e.Key, Value: e.Value})
			}
			continue
		}
		if got, found := d.last(section, key); found == e.Delete || !found || got != e.Value {
			if !found && e.Delete {
				continue
			}
			if text, err = applyEdit(text, e); err == nil {
				d, err = readDocument(text)
			}
			if err != nil {
				return "", err
			}
		}
	}
	if len(fresh) == 0 {
		return text, nil
	}
	return d.append(fresh)
}

// sections are those that have a header.
func (d *document) sections() map[string]bool {
	there := map[string]bool{}
	for _, l := range d.lines {
		if l.kind == lineHeader {
			there[l.section] = true
		}
	}
	return there
}

// append adds sections that d has not, and proves it as prove does: what was
// there reads as before, and each new setting as it was asked for.
func (d *document) append(fresh []Edit) (string, error) {
	var order []string
	bodies := map[string][]Edit{}
	for _, e := range fresh {
		if !validName(e.Key) {
			return "", errors.New("the setting's name has characters outside the grammar")
		}
		if bodies[e.Section] == nil {
			order = append(order, e.Section)
		}
		bodies[e.Section] = append(bodies[e.Section], e)
	}
	var b strings.Builder
	b.WriteString(d.text)
	if strings.TrimPrefix(d.text, byteOrderMark) != "" {
		if !strings.HasSuffix(d.text, "\n") {
			b.WriteString(d.eol)
		}
		if n := len(d.lines); n > 0 && !d.lines[n-1].blank {
			b.WriteString(d.eol)
		}
	}
	for i, section := range order {
		header, err := newHeader(section)
		if err != nil {
			return "", err
		}
		if i > 0 {
			b.WriteString(d.eol)
		}
		b.WriteString(header + d.eol)
		for _, e := range bodies[section] {
			setting := e.Key + " ="
			if e.Value != "" {
				setting += " "
			}
			b.WriteString(setting + strings.ReplaceAll(e.Value, "\n", d.eol+"  ") + d.eol)
		}
	}
	out := b.String()
	now, err := readDocument(out)
	if err != nil {
		return "", errors.New("the new sections can't have those values")
	}
	was, is := d.others("\x00", ""), now.others("\x00", "")
	if len(is) < len(was) || !slices.Equal(was, is[:len(was)]) || len(now.sections()) != len(d.sections())+len(order) {
		return "", errors.New("the new sections can't have those values: other settings would change")
	}
	values := map[string]string{}
	for i, l := range now.lines {
		if l.kind == lineProperty {
			if values[l.section+"\x00"+l.key] = now.value(i); now.hasBlock(i) {
				values[l.section+"\x00"+l.key] = "\x00a block"
			}
		}
	}
	for section, body := range bodies {
		for _, e := range body {
			if got, ok := values[section+"\x00"+strings.ToLower(e.Key)]; !ok || got != e.Value {
				return "", fmt.Errorf("%s can't have that value: it would not read back the same", e.Key)
			}
		}
	}
	return out, nil
}

// FollowLinks returns the file that path leads to, which need not exist.
func FollowLinks(path string) (string, error) { return followLinks(path) }

// ReplaceFile puts text in the place of a file (no symbolic link), which
// held old when it was read, or with missing was not there. It does so
// atomically, and keeps mode and owner; a new file has mode 0600. Errors Is
// ErrChanged when the file no longer holds old.
func ReplaceFile(path string, old []byte, missing bool, text []byte) error {
	return replaceFile(path, old, missing, text)
}

// RemoveFile removes a file that still holds old. Errors Is ErrChanged when
// it does not.
func RemoveFile(path string, old []byte) error {
	now, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(now) != string(old) {
		return ErrChanged
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("cannot remove %s: %w", path, cause(err))
	}
	return nil
}

// ValidName reports whether a profile or an sso-session can have the name
// without quotes.
func ValidName(name string) bool { return validName(name) }
