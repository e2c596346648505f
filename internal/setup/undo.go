package setup

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Undo is an Entry with the Change that takes it back.
type Undo struct {
	Entry  *Entry
	Change *Change // empty where its files are as they were before already
}

// ByHand is the error where a file no longer has what the Entry wrote into
// it. Steps say what a person can do instead.
type ByHand struct {
	Entry *Entry
	Path  string
	Steps []string
}

func (e *ByHand) Error() string {
	return fmt.Sprintf("cannot undo %d (%s): %s was changed since, just there", e.Entry.ID, e.Entry.Title, e.Path)
}

// ErrNothing: there is no change that could be undone.
var ErrNothing = errors.New("there is nothing to undo")

// Last plans to undo the newest change that was not undone yet. Errors:
// ErrNothing, *ByHand.
func (j Journal) Last() (*Undo, error) {
	all, err := j.entries()
	if err != nil {
		return nil, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].State != StateUndone {
			return planUndo(all[i])
		}
	}
	return nil, ErrNothing
}

// Forget makes the newest change that was not undone one that will not be:
// the files stay as they are. Error: ErrNothing.
func (j Journal) Forget() (*Entry, error) {
	unlock, err := j.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, err := j.entries()
	if err != nil {
		return nil, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].State != StateUndone {
			all[i].State = StateUndone
			return all[i], j.save(all[i])
		}
	}
	return nil, ErrNothing
}

// Run undoes it.
func (j Journal) Run(u *Undo) error {
	unlock, err := j.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := u.Change.Apply(); err != nil {
		return err
	}
	u.Entry.State = StateUndone
	return j.save(u.Entry)
}

func planUndo(e *Entry) (*Undo, error) {
	u := &Undo{Entry: e, Change: &Change{Title: "undo " + e.Title}}
	for i := len(e.Files) - 1; i >= 0; i-- { // the last that was written first
		f := e.Files[i]
		now, err := Read(f.Target)
		if err != nil {
			return nil, err
		}
		now.Path = f.Path
		switch was := hashOf(now.Text); {
		case now.Missing && f.Missing, !now.Missing && !f.Missing && was == f.Before:
			continue // it is as it was
		case !now.Missing && was == f.After:
			text := f.reversed(now.Text)
			if hashOf(text) != f.Before {
				return nil, fmt.Errorf("cannot undo %d (%s): its record is damaged", e.ID, e.Title)
			}
			u.Change.Files = append(u.Change.Files, FileChange{File: now, After: text, Remove: f.Missing})
		default:
			text, ok := f.found(now.Text)
			if !ok || now.Missing {
				return nil, &ByHand{Entry: e, Path: f.Path, Steps: f.steps()}
			}
			u.Change.Files = append(u.Change.Files, FileChange{File: now, After: text})
		}
	}
	return u, nil
}

// reversed takes the hunks back in a text that is what the change made.
func (f EntryFile) reversed(text string) string {
	all := lines(text)
	for i := len(f.Hunks) - 1; i >= 0; i-- {
		h := f.Hunks[i]
		at := h.NewLine - 1
		if at < 0 || at+len(h.New) > len(all) {
			return ""
		}
		all = slices.Replace(all, at, at+len(h.New), h.Old...)
	}
	return strings.Join(all, "")
}

// found takes the hunks back in a text that was changed elsewhere since:
// each must stand there just once. ok is false when one does not.
func (f EntryFile) found(text string) (string, bool) {
	all := lines(text)
	for i := len(f.Hunks) - 1; i >= 0; i-- {
		h := f.Hunks[i]
		at := h.place(all)
		if at < 0 {
			return "", false
		}
		all = slices.Replace(all, at, at+len(h.New), h.Old...)
	}
	return strings.Join(all, ""), true
}

// place is where the hunk's new lines stand, -1 where that can't be told.
func (h entryHunk) place(all []string) int {
	hash := func(i int) string {
		if i < 0 || i >= len(all) {
			return ""
		}
		return hashOf(all[i])
	}
	var same, around []int
	for i := 0; i+len(h.New) <= len(all); i++ {
		if !slices.Equal(all[i:i+len(h.New)], h.New) {
			continue
		}
		same = append(same, i)
		if hash(i-1) == h.Prev && hash(i+len(h.New)) == h.Next {
			around = append(around, i)
		}
	}
	switch {
	case len(around) == 1:
		return around[0]
	case len(h.New) > 0 && len(same) == 1 && len(around) == 0:
		return same[0]
	}
	return -1
}

// steps tell a person what to do by hand.
func (f EntryFile) steps() []string {
	var out []string
	for _, h := range f.Hunks {
		for i, l := range h.New {
			if l = strings.TrimSpace(l); l != "" {
				out = append(out, fmt.Sprintf("%s, near line %d: take out  %s", f.Path, h.NewLine+i, printable(l)))
			}
		}
		for _, l := range h.Old {
			if l = strings.TrimRight(l, "\r\n"); l != "" {
				out = append(out, fmt.Sprintf("%s, near line %d: put in    %s", f.Path, h.NewLine, printable(l)))
			}
		}
	}
	return out
}
