package service

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"regexp"
	"strings"
)

//go:embed templates
var templates embed.FS

// render fills a template's @NAMES@ with values that were escaped for it.
// The library's own template language has no need here, and text/template
// would keep the linker from dropping code.
func render(name string, values map[string]string) string {
	b, err := templates.ReadFile("templates/" + name)
	if err != nil {
		panic(err) // embedded, so that only a wrong name can
	}
	var pairs []string
	for k, v := range values {
		pairs = append(pairs, "@"+k+"@", v)
	}
	return strings.NewReplacer(pairs...).Replace(string(b))
}

// A file of ours says so, with a hash over itself: one that was edited by
// hand is nobody's to overwrite or remove.
var markPattern = regexp.MustCompile(`Made by keyfob service install, sha256 ([0-9a-f]{64})\.`)

const markStart, markEnd = "Made by keyfob service install, sha256 ", "."

// mark puts the line of ours into content, between open and shut, which make
// it a comment, before the line that starts with anchor; "" is the first.
func mark(content, open, shut, anchor string) string {
	at := 0
	if anchor != "" {
		if i := strings.Index(content, anchor); i >= 0 {
			at = i
		}
	}
	with := func(sum string) string {
		return content[:at] + open + markStart + sum + markEnd + shut + "\n" + content[at:]
	}
	return with(sumOf(with("")))
}

func sumOf(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// madeBy says whether keyfob service install wrote this, and whether it is
// still as it was.
func madeBy(content string) (ours, untouched bool) {
	m := markPattern.FindStringSubmatchIndex(content)
	if m == nil {
		return false, false
	}
	return true, content[m[2]:m[3]] == sumOf(content[:m[2]]+content[m[3]:])
}

// What stands at the path of a file of ours.
type standing int

const (
	absent    standing = iota
	same               // as it should be
	older              // ours, of another version or other settings
	broken             // left by a half-done install
	edited             // ours, changed by hand
	foreign            // somebody else's
	masked             // a link to /dev/null
	otherKind          // no file
)

// look says what stands at path, where want should.
func look(path, want string) (standing, error) {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return absent, nil
	case err != nil:
		return absent, fileError("look at", path, err)
	case st.Mode().Type() == fs.ModeSymlink:
		if to, err := os.Readlink(path); err == nil && to == "/dev/null" {
			return masked, nil
		}
		return foreign, nil
	case !st.Mode().IsRegular():
		return otherKind, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return absent, fileError("read", path, err)
	}
	have := string(b)
	ours, untouched := madeBy(have)
	switch {
	case have == want:
		return same, nil
	case strings.HasPrefix(want, have): // an empty one too
		return broken, nil
	case ours && untouched:
		return older, nil
	case ours:
		return edited, nil
	}
	return foreign, nil
}

// file is one that install writes.
type file struct {
	path    string
	content string
	mode    fs.FileMode
}

// writes returns the steps that make the files as they should be, or why
// they can't be.
func (c Config) writes(files []file) (steps []Step, changed map[string]bool, err error) {
	changed = map[string]bool{}
	for _, f := range files {
		is, err := look(f.path, f.content)
		if err != nil {
			return nil, nil, err
		}
		switch {
		case is == same:
			continue
		case is == masked:
			return nil, nil, maskedError(f.path)
		case is == edited && !c.Force:
			return nil, nil, fail("keep your changes in a drop-in, or overwrite them with --force", "cannot write %s: it was edited by hand", f.path)
		case is == foreign && !c.Force:
			return nil, nil, fail("remove it, or overwrite it with --force", "cannot write %s: something that keyfob did not make stands there", f.path)
		case is == otherKind:
			return nil, nil, fail("remove it", "cannot write %s: something that is no file stands there", f.path)
		}
		changed[f.path] = true
		steps = append(steps, Step{Write: f.path, Content: f.content, Mode: f.mode})
	}
	return steps, changed, nil
}

// removals returns the steps that remove the files, and notes of those that
// stay because they are not ours.
func (c Config) removals(files []file) (steps []Step, notes []string, err error) {
	for _, f := range files {
		path := f.path
		is, err := look(path, f.content)
		if err != nil {
			return nil, nil, err
		}
		switch is {
		case absent:
			continue
		case older, broken, same:
			steps = append(steps, Step{Remove: path})
		case edited:
			if c.Force {
				steps = append(steps, Step{Remove: path})
				continue
			}
			notes = append(notes, path+" was edited by hand and stays; --force removes it")
		default:
			notes = append(notes, path+" was not made by keyfob service install and stays")
		}
	}
	return steps, notes, nil
}
