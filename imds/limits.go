package imds

import (
	"sync"
	"time"
)

// How many connections are held, in all and for one user. A connection costs
// some 20 KB while it is idle, and twice that while a request is answered.
const (
	maxConnections = 2048
	maxLooks       = 64 // connections found busy, before the search is given up
	maxIdleUsers   = 256
	stalledAfter   = 50 * time.Millisecond // an answer fits into what the kernel keeps: who lets that fill up counts as idle
)

// Limits bounds the connections that clients hold, so that one user can't
// take the endpoints from the others, or the machine's memory or file
// descriptors from all. Servers that are given the same Limits share it.
//
// A user who has more connections than half of all loses the one that has
// been silent longest for each new one: a client that keeps thousands open
// locks out nobody, not even its own user's other programs. Connections on
// which a request is being answered are left alone, up to three quarters of
// all; beyond that the user is answered 503. Those whom the kernel does not
// name count as one user.
type Limits struct {
	idle int // connections of one user, beyond which silent ones are closed
	busy int // connections of one user, beyond which none is taken
	all  int // connections of everybody

	inLine chan struct{} // holds one while a pipelined request is answered

	mu    sync.Mutex // guards what follows, and the links between connections
	users map[string]*holder
	count int
}

// holder is one user's connections, those heard of longest ago first.
type holder struct {
	first, last *conn
	count       int
}

// NewLimits returns the Limits that fit this process: fewer connections where
// it may not open as many files as that takes twice.
func NewLimits() *Limits {
	all := maxConnections
	if files := maxOpenFiles(); files > 0 {
		all = min(all, files/2)
	}
	return newLimits(all)
}

func newLimits(all int) *Limits {
	all = max(all, 8)
	return &Limits{idle: all / 2, busy: all * 3 / 4, all: all, users: map[string]*holder{}, inLine: make(chan struct{}, 1)}
}

// admit counts c, whose caller is known, and reports whether it may be
// served. It may close another connection for it.
func (l *Limits) admit(c *conn, now time.Time) bool {
	l.mu.Lock()
	u := l.users[c.caller.UID]
	if u == nil {
		u = &holder{}
		l.users[c.caller.UID] = u
	}
	ok := true
	var victim *conn
	if u.count >= l.idle {
		victim = l.silent(u, now)
		ok = victim != nil || u.count < l.busy
	}
	if ok && victim == nil && l.count >= l.all {
		victim = l.silent(l.largest(), now)
		ok = victim != nil
	}
	if victim != nil {
		l.unlink(victim)
	}
	if ok {
		l.count++
		u.count++
		c.holder = u
		u.push(c)
	}
	l.mu.Unlock()
	if victim != nil {
		victim.evict()
	}
	return ok
}

// remove uncounts c, which is closed.
func (l *Limits) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unlink(c)
}

// shed closes up to n connections that can be spared.
func (l *Limits) shed(n int, now time.Time) {
	var victims []*conn
	l.mu.Lock()
	for range n {
		u := l.largest()
		if u == nil {
			break
		}
		victim := l.silent(u, now)
		if victim == nil {
			break
		}
		l.unlink(victim)
		victims = append(victims, victim)
	}
	l.mu.Unlock()
	for _, c := range victims {
		c.evict()
	}
}

// largest is the user with most connections, nil for none; l.mu is held.
func (l *Limits) largest() *holder {
	var most *holder
	for _, u := range l.users {
		if most == nil || u.count > most.count {
			most = u
		}
	}
	return most
}

// silent finds the connection of u that has been silent longest, nil if none
// was found that may be closed; l.mu is held. One that has sent something
// since it was last looked at goes to the end of the row: a request has paid
// for that look. The looks at busy ones are bounded, and the next search
// begins where this one ended.
func (l *Limits) silent(u *holder, now time.Time) *conn {
	busy := 0
	for range 2 * u.count {
		c := u.first
		if !c.heard.Swap(false) {
			if c.waits(now) {
				return c
			}
			if busy++; busy == maxLooks {
				return nil
			}
		}
		u.cut(c)
		u.push(c)
	}
	return nil
}

// unlink uncounts c if it is counted; l.mu is held.
func (l *Limits) unlink(c *conn) {
	u := c.holder
	if u == nil {
		return
	}
	c.holder = nil
	u.cut(c)
	u.count--
	l.count--
	if u.count == 0 && len(l.users) > maxIdleUsers {
		for uid, other := range l.users { // as rare as so many users are
			if other.count == 0 {
				delete(l.users, uid)
			}
		}
	}
}

// of returns the connections of one server.
func (l *Limits) of(s *Server) []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*conn
	for _, u := range l.users {
		for c := u.first; c != nil; c = c.newer {
			if c.server == s {
				all = append(all, c)
			}
		}
	}
	return all
}

func (u *holder) push(c *conn) {
	c.older, c.newer = u.last, nil
	if u.last != nil {
		u.last.newer = c
	} else {
		u.first = c
	}
	u.last = c
}

func (u *holder) cut(c *conn) {
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		u.first = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		u.last = c.older
	}
	c.older, c.newer = nil, nil
}

// waits reports whether the next move is the client's, or the client makes
// our move last: it has sent nothing, half a request or a dozen at once, or
// does not read what it asked for.
func (c *conn) waits(now time.Time) bool {
	c.mu.Lock()
	stalled := c.writing && now.Sub(c.writeBegan) >= stalledAfter
	reading := c.reading
	c.mu.Unlock()
	if stalled || c.spare.Load() {
		return true
	}
	return reading && !c.busy.Load() && !c.answering.Load() && !unread(c.Conn)
}
