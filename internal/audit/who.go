package audit

import (
	"context"
	"errors"
	"os/user"
	"time"

	"keyfob/internal/peer"
)

// Searching /proc for the owner of a socket takes milliseconds. What one
// user's callers may cost in a second, and all together; what is left over is
// kept for a burst of two seconds' worth.
const (
	searchUser   = 50 * time.Millisecond
	searchAll    = 100 * time.Millisecond
	searchAtMost = 250 * time.Millisecond // one search
)

// manyUsers bounds what is kept of users.
const manyUsers = 256

// manyParents bounds what is kept of processes' parents.
const manyParents = 1024

// who is a caller as an entry tells of it.
type who struct {
	uid, program, parent string
	pid                  int
	start                uint64
	// later: nobody looked for the program, because others were looked for
	// too much. A later try may find it.
	later bool
}

// finder finds out who callers are. Only the writer uses it.
type finder struct {
	lookup func(uid string) string
	names  map[string]string
	all    budget
	users  map[string]*budget
	// parents are those of processes by number and start: a process that
	// connects for each request is looked behind once. One whose parent has
	// ended meanwhile keeps the parent that it had.
	parents map[process]string
}

type process struct {
	pid   int
	start uint64
}

func newFinder(lookup func(string) string) *finder {
	if lookup == nil {
		lookup = loginName
	}
	return &finder{lookup: lookup, names: map[string]string{}, users: map[string]*budget{}, parents: map[process]string{}}
}

func loginName(uid string) string {
	u, err := user.LookupId(uid)
	if err != nil {
		return ""
	}
	return u.Username
}

// name is the login name of uid, "" where there is none.
func (f *finder) name(uid string) string {
	if uid == "" {
		return ""
	}
	if n, ok := f.names[uid]; ok {
		return n
	}
	if len(f.names) >= manyUsers {
		clear(f.names)
	}
	n := tidy(f.lookup(uid), maxName)
	f.names[uid] = n
	return n
}

// searched reports whether to find c's program takes a search: only a TCP peer
// of Linux comes without its process.
func searched(c peer.Caller) bool { return c.Via == peer.ViaTCP && c.PID == 0 }

// find tells who c is.
func (f *finder) find(ctx context.Context, c peer.Caller) who {
	w := who{uid: tidy(c.UID, maxName)}
	if searched(c) {
		now := time.Now()
		mine := f.users[c.UID]
		if mine == nil {
			if len(f.users) >= manyUsers {
				clear(f.users)
			}
			mine = &budget{}
			f.users[c.UID] = mine
		}
		if !f.all.has(now, searchAll) || !mine.has(now, searchUser) {
			w.later = true
			return w
		}
		defer func() {
			cost := time.Since(now)
			f.all.left -= cost
			mine.left -= cost
		}()
	}
	ctx, cancel := context.WithTimeout(ctx, searchAtMost)
	defer cancel()
	p, err := c.Program(ctx)
	switch {
	case err == nil:
	case errors.Is(err, peer.ErrNoProgram) && c.Parent != nil:
		p = *c.Parent // its file can't be read
	default:
		return w
	}
	w.pid, w.start, w.program = p.PID, p.Start, tidy(p.Exe, maxPath)
	w.parent = f.parent(p)
	return w
}

// parent is the program that started p, "" where it can't be told.
func (f *finder) parent(p peer.Process) string {
	key := process{p.PID, p.Start}
	if name, ok := f.parents[key]; ok {
		return name
	}
	name := tidy(parentOf(p), maxPath)
	if name == "" {
		return ""
	}
	if len(f.parents) >= manyParents {
		clear(f.parents)
	}
	f.parents[key] = name
	return name
}

// budget is time that may be spent, filled up as time goes by.
type budget struct {
	left time.Duration
	at   time.Time // when it was filled last; zero: it is full
}

func (b *budget) has(now time.Time, perSecond time.Duration) bool {
	full := 2 * perSecond
	if b.at.IsZero() {
		b.left = full
	} else if past := now.Sub(b.at); past > 0 {
		b.left = min(full, b.left+time.Duration(past.Seconds()*float64(perSecond)))
	}
	b.at = now
	return b.left > 0
}
