package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"keyfob/profiles"
)

// File is a text file as it was when it was read.
type File struct {
	Path    string // as named, for messages
	Text    string
	Missing bool
	target  string                                     // where links lead
	parsed  map[string]map[string]profiles.TextSetting // by section and key, of Text; nil before Section
}

// maxFile bounds what is read: nobody's AWS config is larger.
const maxFile = 16 << 20

// Read reads a file; one that is not there is empty, and Missing.
func Read(path string) (*File, error) {
	target, err := profiles.FollowLinks(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	f := &File{Path: path, target: target}
	info, err := os.Stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		f.Missing = true
		return f, nil
	}
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("cannot read %s: it is not a regular file", path)
	}
	if err == nil && info.Size() > maxFile {
		return nil, fmt.Errorf("cannot read %s: it is larger than 16 MiB", path)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(target)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, cause(err))
	}
	f.Text = string(b)
	return f, nil
}

// Settings lists the settings of the file. The error names the first line
// that is no grammar, by FILE:LINE.
func (f *File) Settings() ([]profiles.TextSetting, error) {
	s, err := profiles.ReadText(f.Text)
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", f.Path, err)
	}
	return s, nil
}

// Section is the settings of one section by key: of one that stands twice
// the last, which wins.
func (f *File) Section(section string) (map[string]profiles.TextSetting, error) {
	if f.parsed == nil {
		all, err := f.Settings()
		if err != nil {
			return nil, err
		}
		f.parsed = map[string]map[string]profiles.TextSetting{}
		for _, s := range all {
			if f.parsed[s.Section] == nil {
				f.parsed[s.Section] = map[string]profiles.TextSetting{}
			}
			f.parsed[s.Section][s.Key] = s
		}
	}
	if section == "default" || section == "profile default" {
		section = profiles.SectionOf(f.Text, section)
	}
	return f.parsed[section], nil
}

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

// hinted is an error with what a person can do about it.
type hinted struct {
	error
	hint string
}

func (h *hinted) Hint() string  { return h.hint }
func (h *hinted) Unwrap() error { return h.error }

func withHint(err error, hint string) error { return &hinted{err, hint} }
