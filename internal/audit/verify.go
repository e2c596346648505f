package audit

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// Report says whether the chain is whole.
type Report struct {
	OK      bool
	Entries int
	Files   int
	First   string // time of the oldest entry, as it stands there
	Last    string
	// The first break, by file and line from 1.
	File   string
	Line   int
	Reason string
	// Warnings are what is odd and no break.
	Warnings []string
}

// Verify checks the chain of the log at path. It can't see that lines are
// missing at the end: for that there is Log.Verify.
func Verify(path string, key [32]byte) Report {
	s, err := open(path)
	if err == nil {
		defer s.close()
		var r Report
		if r, err = s.verify(context.Background(), newHasher(key), ending{}); err == nil {
			return r
		}
	}
	return Report{File: path, Reason: err.Error()}
}

// ending is what is known of where the log ends.
type ending struct {
	hash  string // of a line that it has, "" for nothing
	exact bool   // and which is the last
}

// verifier goes through the log once.
type verifier struct {
	h      *hasher
	r      Report
	breaks int

	hash   string // keyed, of the entry before
	plain  string // unkeyed, of the same
	file   string // where that entry is
	line   int
	any    bool
	starts []string // field previous of each file's first entry
	oldest string   // what the last rotation says the oldest one has
	lost   int64

	unsealed             int
	unsealedA, unsealedB string // time of the first and the last

	garbage *place // a line that is no entry, until the next entry judges it
	head    ending
	seen    bool   // the line of head
	after   *place // the first entry after it
}

type place struct {
	file string
	line int
}

func (s snapshot) verify(ctx context.Context, h *hasher, head ending) (Report, error) {
	v := &verifier{h: h, head: head}
	v.r.Files = len(s)
	for i, o := range s {
		first := true
		for in := o.from(0); ; {
			if in.number&0xfff == 0 && ctx.Err() != nil {
				return Report{}, fmt.Errorf("cannot verify the audit log: %w", ctx.Err())
			}
			line, whole, err := in.read()
			if err == io.EOF {
				break
			}
			if err != nil {
				return Report{}, fmt.Errorf("cannot read the audit log: %w", err)
			}
			at := place{o.path, in.number}
			if !whole && i == len(s)-1 && in.next >= o.size {
				v.warn("the last line is cut short")
				continue
			}
			e, ok := decode(line)
			if !ok || !whole {
				if v.garbage == nil {
					v.garbage = &at
				}
				continue
			}
			v.entry(&e, line, at)
			if first {
				v.starts = append(v.starts, e.Previous)
				first = false
			}
		}
	}
	v.finish(s)
	return v.r, nil
}

func (v *verifier) warn(format string, args ...any) {
	v.r.Warnings = append(v.r.Warnings, fmt.Sprintf(format, args...))
}

// broken notes a break; the first one found is told with its place.
func (v *verifier) broken(at place, reason string) {
	if v.breaks++; v.breaks == 1 {
		v.r.File, v.r.Line, v.r.Reason = at.file, at.line, reason
	}
}

// links is hasher.links with what is known of the entry before.
func (v *verifier) links(previous string) (ok, sealed bool) {
	if strings.HasPrefix(previous, unkeyedMark) {
		return same(previous, v.plain), false
	}
	return same(previous, v.hash), true
}

func (v *verifier) entry(e *entry, line []byte, at place) {
	linked, sealed := true, !strings.HasPrefix(e.Previous, unkeyedMark)
	if v.any {
		linked, sealed = v.links(e.Previous)
	}
	if v.garbage != nil {
		if linked && e.Event == eventLost && e.Reason == tornReason {
			v.warn("%s line %d is the rest of a line that was cut short", v.garbage.file, v.garbage.line)
		} else {
			v.broken(*v.garbage, "this line is no entry of the audit log")
		}
		v.garbage = nil
	}
	if !linked {
		v.broken(at, "this entry does not follow the one before it: one of the two was changed, or entries were removed, inserted or reordered there")
	}
	if !sealed {
		v.unsealed++
		if v.unsealedA == "" {
			v.unsealedA = e.Time
		}
		v.unsealedB = e.Time
	}
	if !v.any {
		v.r.First, v.any = e.Time, true
	}
	v.r.Last = e.Time
	v.r.Entries++
	switch e.Event {
	case eventLost:
		v.lost += max(0, e.Count)
	case eventRotation:
		v.oldest = e.Oldest
	}
	if v.seen && v.after == nil {
		v.after = &at
	}
	v.hash, v.plain, v.file, v.line = v.h.keyed(line), unkeyed(line), at.file, at.line
	if v.head.hash != "" && same(v.hash, v.head.hash) {
		v.seen, v.after = true, nil
	}
}

func (v *verifier) finish(s snapshot) {
	if v.garbage != nil {
		v.broken(*v.garbage, "this line is no entry of the audit log")
	}
	v.beginning(s)
	switch {
	case v.head.hash == "":
	case !v.seen && !v.any:
		path := ""
		if len(s) > 0 {
			path = s[len(s)-1].path
		}
		v.broken(place{path, 0}, "the log is empty: its entries were removed")
	case !v.seen:
		v.broken(place{v.file, v.line}, "entries after this one are missing, or it was changed")
	case v.head.exact && v.after != nil:
		v.broken(*v.after, "this entry was not written by keyfob")
	}
	if v.unsealed > 0 {
		v.warn("%d entries were written while the vault was locked, from %s to %s: they could be changed unseen until it was opened", v.unsealed, v.unsealedA, v.unsealedB)
	}
	if v.lost > 0 {
		v.warn("%d entries were lost: the entries \"lost\" say why", v.lost)
	}
	if v.breaks > 1 {
		v.warn("there are %d more breaks", v.breaks-1)
	}
	v.r.OK = v.breaks == 0
}

// beginning checks that nothing is missing before the oldest entry but what
// rotation removed.
func (v *verifier) beginning(s snapshot) {
	if !v.any {
		return
	}
	if v.oldest == "" {
		if first := v.starts[0]; same(first, v.h.keyed(nil)) || same(first, unkeyed(nil)) {
			return
		}
	}
	for _, p := range v.starts {
		if same(p, v.oldest) {
			return
		}
	}
	// The earliest of all breaks.
	if v.breaks > 0 {
		v.breaks = 0
		v.warn("there is a break at %s line %d too: %s", v.r.File, v.r.Line, v.r.Reason)
	}
	v.broken(place{s[0].path, 1}, "entries before this one are missing, or the log was begun with another vault")
}
