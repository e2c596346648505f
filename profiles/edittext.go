package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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
// would hold. Errors are those of EditFile, without the file's name.
func EditText(text string, edits []Edit) (string, error) {
	var err error
	for _, e := range edits {
		if text, err = applyEdit(text, e); err != nil {
			return "", err
		}
	}
	return text, nil
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
