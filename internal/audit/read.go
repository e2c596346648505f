package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// ErrCursor: Filter.After is not what a Page had in Next.
var ErrCursor = errors.New("cannot go on reading the audit log: the place is not known")

// What a page holds at most: with what is around it, less than a line of the
// control protocol.
const (
	pageBytes   = 256 << 10
	pageEntries = 1000
)

// Filter chooses entries; the zero value of a field chooses all.
type Filter struct {
	Profile     string
	Program     string // a path, or the last part of one
	AccessKeyID string
	Event       string    // handout, refusal, confirmation, recovery-key, lost, rotation
	Since       time.Time // entries of this moment and later
	Until       time.Time // entries before this moment
	UID         string    // of the caller
	Limit       int       // the newest so many
	// After continues where a Page ended: its Next. Limit was spent on the
	// first page and does not count again.
	After string
	// HideReason leaves out why something was refused.
	HideReason bool
	// Written reads what stands in the file: what is still counted in memory
	// is not written for it. Of Log.Read.
	Written bool
}

// Page is a part of what a Filter chose, oldest first.
type Page struct {
	Entries []json.RawMessage // lines as they stand in the file
	Next    string            // for Filter.After, "" at the end
}

// Read returns a page of the entries at path and in its rotated files. Lines
// that are no entries are passed over. A log that is not there is empty.
// Errors: ErrCursor; those of the files.
func Read(path string, f Filter) (Page, error) {
	s, err := open(path)
	if err != nil {
		return Page{}, err
	}
	defer s.close()
	return s.read(context.Background(), f)
}

// cursor is a place in the log that a rotation does not change: a file is
// named by the hash of its first line. left is how many entries may still
// come, 0 for any number.
type cursor struct {
	file   string
	offset int64
	left   int
}

func (c cursor) String() string { return fmt.Sprintf("%s.%d.%d", c.file, c.offset, c.left) }

func parseCursor(s string) (c cursor, err error) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(parts[0]) != 16 {
		return c, ErrCursor
	}
	c.file = parts[0]
	offset, err1 := strconv.ParseUint(parts[1], 10, 62)
	left, err2 := strconv.ParseUint(parts[2], 10, 31)
	if err1 != nil || err2 != nil {
		return c, ErrCursor
	}
	c.offset, c.left = int64(offset), int(left)
	return c, nil
}

// id names a file by its first line.
func (o *openFile) id() string {
	line, _, err := o.from(0).read()
	if err != nil {
		return strings.Repeat("0", 16)
	}
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:8])
}

func (s snapshot) read(ctx context.Context, f Filter) (Page, error) {
	m := newMatcher(f)
	start, at := 0, int64(0) // the file and the offset where to begin
	left := 0
	switch {
	case f.After != "":
		c, err := parseCursor(f.After)
		if err != nil {
			return Page{}, err
		}
		left = c.left
		for i, o := range s {
			if o.id() != c.file {
				continue
			}
			if c.offset > o.size || !endsWhole(o.f, c.offset) {
				return Page{}, ErrCursor
			}
			start, at = i, c.offset
			break
		} // a file that has gone since: what follows is the oldest one
	case f.Limit > 0:
		var err error
		if start, at, err = s.newest(ctx, m, f.Limit); err != nil {
			return Page{}, err
		}
		left = f.Limit
	}

	p := Page{Entries: []json.RawMessage{}}
	size, limited := 0, left > 0
	for i := start; i < len(s); i++ {
		for in := s[i].from(at); ; {
			line, err := m.next(ctx, in)
			if err == io.EOF {
				break
			}
			if err != nil {
				return Page{}, err
			}
			if len(p.Entries) == pageEntries || size+len(line) > pageBytes && len(p.Entries) > 0 {
				p.Next = cursor{s[i].id(), in.offset, left}.String()
				return p, nil
			}
			size += len(line)
			p.Entries = append(p.Entries, f.shown(line))
			if left--; limited && left == 0 {
				return p, nil
			}
			left = max(left, 0)
		}
		at = 0
	}
	return p, nil
}

// shown is a line as the filter's reader may see it.
func (f *Filter) shown(line []byte) json.RawMessage {
	if f.HideReason {
		if e, ok := decode(line); ok && e.Reason != "" {
			e.Reason = ""
			if short, err := e.encode(); err == nil {
				return short
			}
			return json.RawMessage("{}")
		}
	}
	return bytes.Clone(line)
}

// newest finds where the newest n matches begin.
func (s snapshot) newest(ctx context.Context, m *matcher, n int) (file int, offset int64, err error) {
	for i := len(s) - 1; i >= 0; i-- {
		var found []int64
		for in := s[i].from(0); ; {
			_, err := m.next(ctx, in)
			if err == io.EOF {
				break
			}
			if err != nil {
				return 0, 0, err
			}
			found = append(found, in.offset)
		}
		if len(found) >= n {
			return i, found[len(found)-n], nil
		}
		n -= len(found)
	}
	return 0, 0, nil
}

// matcher finds the entries that a filter chooses.
type matcher struct {
	f Filter
	// needles stand in every line that matches, so that most others need
	// not be parsed.
	needles [][]byte
}

func newMatcher(f Filter) *matcher {
	m := &matcher{f: f}
	for _, s := range []string{f.Profile, f.Program, f.AccessKeyID, f.Event, f.UID} {
		if s != "" && plain(s) {
			m.needles = append(m.needles, []byte(s))
		}
	}
	return m
}

// plain: in JSON it stands as it is.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// next returns the next entry that matches; io.EOF at the end.
func (m *matcher) next(ctx context.Context, in *lines) ([]byte, error) {
	for {
		if in.number&0xfff == 0 && ctx.Err() != nil {
			return nil, fmt.Errorf("cannot read the audit log: %w", ctx.Err())
		}
		line, whole, err := in.read()
		if err == io.EOF {
			return nil, err
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the audit log: %w", err)
		}
		if whole && m.match(line) {
			return line, nil
		}
	}
}

func (m *matcher) match(line []byte) bool {
	for _, n := range m.needles {
		if !bytes.Contains(line, n) {
			return false
		}
	}
	e, ok := decode(line)
	if !ok {
		return false
	}
	f := &m.f
	if f.Profile != "" && e.Profile != f.Profile || f.AccessKeyID != "" && e.AccessKeyID != f.AccessKeyID || f.Event != "" && e.Event != f.Event {
		return false
	}
	if f.UID != "" && (e.Caller == nil || e.Caller.UID != f.UID) {
		return false
	}
	if f.Program != "" && (e.Caller == nil || !isProgram(e.Caller.Program, f.Program)) {
		return false
	}
	if f.Since.IsZero() && f.Until.IsZero() {
		return true
	}
	t := e.when()
	return !t.IsZero() && !t.Before(f.Since) && (f.Until.IsZero() || t.Before(f.Until))
}

// isProgram compares a program's file with a path, or with its last part.
func isProgram(path, want string) bool {
	path = strings.TrimSuffix(path, " (deleted)") // what Linux says of a file that was replaced
	if path == want {
		return true
	}
	i := strings.LastIndexAny(path, `/\`)
	return i >= 0 && path[i+1:] == want
}
