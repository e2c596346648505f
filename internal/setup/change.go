package setup

import (
	"errors"
	"fmt"

	"keyfob/profiles"
)

// Edits are changes to one file.
type Edits struct {
	File  *File
	Edits []profiles.Edit
}

// Change is what several files are to be. Nothing is written before Apply.
type Change struct {
	// Title says what it is for: "configure dev".
	Title string
	Files []FileChange // only those that change
}

// FileChange is one file of a Change.
type FileChange struct {
	File   *File
	After  string
	Remove bool // the file goes
}

// ErrChanged Is in errors that say that a file is no longer what it was when
// it was read.
var ErrChanged = profiles.ErrChanged

// Plan makes a Change. Errors: an edit that a file can't have, a file with a
// line that is no grammar.
func Plan(title string, edits []Edits) (*Change, error) {
	c := &Change{Title: title}
	for _, e := range edits {
		after, err := profiles.EditText(e.File.Text, e.Edits)
		if err != nil {
			return nil, fmt.Errorf("cannot edit %s: %w", e.File.Path, err)
		}
		if after != e.File.Text {
			c.Files = append(c.Files, FileChange{File: e.File, After: after})
		}
	}
	return c, nil
}

// Empty reports whether nothing would change.
func (c *Change) Empty() bool { return len(c.Files) == 0 }

// Apply writes the files, in order. When one can't be written, those before
// it are put back, and the error says what became of them. Errors Is
// ErrChanged when a file is no longer what it was when it was read.
func (c *Change) Apply() error {
	_, err := c.apply()
	return err
}

// apply says besides whether after an error every file is as it was.
func (c *Change) apply() (clean bool, err error) {
	for i, f := range c.Files {
		err := f.write()
		if err == nil {
			continue
		}
		clean := true
		for _, done := range c.Files[:i] {
			if back := done.reverse().write(); back != nil {
				clean = false
				err = fmt.Errorf("%w; and %s could not be put back", err, done.File.Path)
			}
		}
		return clean, err
	}
	return true, nil
}

func (f FileChange) write() error {
	var err error
	if f.Remove {
		err = profiles.RemoveFile(f.File.target, []byte(f.File.Text))
	} else {
		err = profiles.ReplaceFile(f.File.target, []byte(f.File.Text), f.File.Missing, []byte(f.After))
	}
	switch {
	case errors.Is(err, ErrChanged):
		return withHint(fmt.Errorf("cannot write %s: it was changed since it was read; nothing of that was overwritten (%w)", f.File.Path, ErrChanged), "run it again")
	case err != nil:
		return fmt.Errorf("cannot write %s: %w", f.File.Path, cause(err))
	}
	return nil
}

// reverse is the change that takes f back.
func (f FileChange) reverse() FileChange {
	was := &File{Path: f.File.Path, target: f.File.target, Text: f.After, Missing: f.Remove}
	return FileChange{File: was, After: f.File.Text, Remove: f.File.Missing}
}
