package setup

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"keyfob/internal/atomicfile"
)

// Journal is a directory of records, one for each Change that was applied:
// what each file was before, as hashes and the lines that changed. No record
// holds a secret.
type Journal struct{ Dir string }

// The states of an Entry.
const (
	StateBegun  = "begun"  // broken off: some of its files may have been written
	StateDone   = "done"   // can be undone
	StateUndone = "undone" // was undone, or forgotten
)

// Entry is a Change that was applied.
type Entry struct {
	Version int         `json:"version"`
	ID      int         `json:"id"`
	Time    time.Time   `json:"time"`
	Title   string      `json:"title"`
	State   string      `json:"state"`
	Files   []EntryFile `json:"files"`
}

// EntryFile is one file of an Entry.
type EntryFile struct {
	Path    string      `json:"path"`
	Target  string      `json:"target"`
	Missing bool        `json:"missing,omitempty"` // before
	Before  string      `json:"before"`            // SHA-256, hex
	After   string      `json:"after"`
	Hunks   []entryHunk `json:"hunks"`
}

// entryHunk is one place. Prev and Next are hashes of the lines around it,
// "" where there is none: they find the place in a file that was changed
// elsewhere since.
type entryHunk struct {
	OldLine int      `json:"old_line"`
	NewLine int      `json:"new_line"`
	Old     []string `json:"old,omitempty"`
	New     []string `json:"new,omitempty"`
	Prev    string   `json:"prev,omitempty"`
	Next    string   `json:"next,omitempty"`
}

const journalVersion = 1

// hashOf tells a file from one that somebody has edited since; it protects
// against nobody, and keyfob starts faster without package crypto.
func hashOf(text string) string {
	h := fnv.New128a()
	_, _ = io.WriteString(h, text)
	return hex.EncodeToString(h.Sum(nil))
}

// newEntry notes how a change can be undone. It refuses to keep secrets.
func newEntry(c *Change) (*Entry, error) {
	e := &Entry{Version: journalVersion, Time: time.Now().UTC().Truncate(time.Second), Title: c.Title, State: StateBegun}
	for _, f := range c.Files {
		ef := EntryFile{Path: f.File.Path, Target: f.File.target, Missing: f.File.Missing, Before: hashOf(f.File.Text), After: hashOf(f.After)}
		after := lines(f.After)
		for _, h := range hunks(f.File.Text, f.After) {
			for _, l := range append(append([]string{}, h.old...), h.new...) {
				if holdsSecret(l) {
					return nil, fmt.Errorf("cannot change %s: a line that would be kept for the undo holds a secret", f.File.Path)
				}
			}
			x := entryHunk{OldLine: h.oldLine, NewLine: h.newLine, Old: h.old, New: h.new}
			if i := h.newLine - 2; i >= 0 {
				x.Prev = hashOf(after[i])
			}
			if i := h.newLine - 1 + len(h.new); i < len(after) {
				x.Next = hashOf(after[i])
			}
			ef.Hunks = append(ef.Hunks, x)
		}
		e.Files = append(e.Files, ef)
	}
	return e, nil
}

// lock keeps other keyfobs out of the directory, which it makes.
func (j Journal) lock() (unlock func(), err error) {
	if err := os.MkdirAll(j.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make %s: %w", j.Dir, cause(err))
	}
	l := flock.New(filepath.Join(j.Dir, "lock"), flock.SetPermissions(0o600))
	if err := l.Lock(); err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", j.Dir, cause(err))
	}
	return func() { _ = l.Close() }, nil
}

// Apply applies a change and notes how to undo it. When that can't be noted
// nothing is written.
func (j Journal) Apply(c *Change) (*Entry, error) {
	e, err := newEntry(c)
	if err != nil {
		return nil, err
	}
	unlock, err := j.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, err := j.entries()
	if err != nil {
		return nil, err
	}
	e.ID = 1
	if len(all) > 0 {
		e.ID = all[len(all)-1].ID + 1
	}
	if err := j.save(e); err != nil {
		return nil, err
	}
	if clean, err := c.apply(); err != nil {
		if clean {
			_ = os.Remove(j.file(e.ID))
		}
		return nil, err
	}
	e.State = StateDone
	return e, j.save(e)
}

func (j Journal) file(id int) string { return filepath.Join(j.Dir, fmt.Sprintf("%06d.json", id)) }

func (j Journal) save(e *Entry) (err error) {
	text, err := json.MarshalIndent(e, "", " ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(j.file(e.ID), append(text, '\n'), atomicfile.Options{}); err != nil {
		return fmt.Errorf("cannot note how to undo it in %s: %w", j.Dir, cause(err))
	}
	return nil
}

// Entries are all changes, the oldest first.
func (j Journal) Entries() ([]*Entry, error) { return j.entries() }

func (j Journal) entries() ([]*Entry, error) {
	names, err := os.ReadDir(j.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", j.Dir, cause(err))
	}
	var all []*Entry
	for _, n := range names {
		id, err := strconv.Atoi(strings.TrimSuffix(n.Name(), ".json"))
		if err != nil || !strings.HasSuffix(n.Name(), ".json") {
			continue
		}
		path := filepath.Join(j.Dir, n.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", path, cause(err))
		}
		e := &Entry{}
		if err := json.Unmarshal(text, e); err != nil || e.ID != id {
			return nil, withHint(fmt.Errorf("cannot read %s: it is damaged", path), "move it away; that change can then not be undone")
		}
		if e.Version > journalVersion {
			return nil, fmt.Errorf("cannot read %s: a newer keyfob has written it", path)
		}
		all = append(all, e)
	}
	sort.Slice(all, func(i, k int) bool { return all[i].ID < all[k].ID })
	return all, nil
}
