package imds

import (
	"net"
	"sync"
	"time"
)

// How many connections are held, in all and for one user. A connection costs
// some 20 KB while it is idle, and twice that while a request is answered.
const (
	maxConnections = 2048
	maxLooks       = 64 // connections found busy, before the search is given up
	maxIdleUsers   = 256
	arrivingTime   = 20 * time.Millisecond // from being accepted to being called silent
	pausePipelined = 50 * time.Microsecond // after each request that is answered while more of its connection wait
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
// name count as one user, among whom whoever connects from the same address as
// most others loses first: of the containers on a bridge, the one that floods.
type Limits struct {
	idle int // connections of one user, beyond which silent ones are closed
	busy int // connections of one user, beyond which none is taken
	all  int // connections of everybody

	inLine     chan struct{} // holds one while a pipelined request is judged, see line.go
	pause      time.Duration // at the end of that; tests of a simulated clock may have none
	handshakes chan struct{} // holds one while a handshake is computed

	mu        sync.Mutex // guards what follows, and the links between connections
	users     map[string]*holder
	strangers map[string]*holder // those whom the kernel does not name, by address; together they are one user
	unnamed   int                // connections of all strangers
	count     int
}

// holder is one user's connections, or those from one address, those heard of
// longest ago first.
type holder struct {
	first, last *conn
	count       int
	address     string // of strangers
	stranger    bool
	turn        chan struct{} // holds one while a handshake of theirs is computed, or stands in line for that
	line        chan struct{} // holds one while a pipelined request of theirs is judged, or stands in line for that
}

func newHolder() *holder {
	return &holder{turn: make(chan struct{}, 1), line: make(chan struct{}, 1)}
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
	return &Limits{idle: all / 2, busy: all * 3 / 4, all: all, users: map[string]*holder{}, strangers: map[string]*holder{},
		inLine: make(chan struct{}, 1), pause: pausePipelined, handshakes: make(chan struct{}, 1)}
}

// admit counts c, whose caller is known, and reports whether it may be
// served. It may close another connection for it.
func (l *Limits) admit(c *conn, now time.Time) bool {
	l.mu.Lock()
	u := l.holder(c)
	ok := true
	var victim *conn
	switch {
	case !u.stranger && u.count >= l.idle:
		victim = l.silent(u, now)
		ok = victim != nil || u.count < l.busy
	case u.stranger && l.unnamed >= l.idle:
		victim = l.silent(most(l.strangers), now)
		ok = victim != nil || l.unnamed < l.busy
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
		if u.stranger { // who may have lost the last connection just now, and been forgotten
			l.strangers[u.address] = u
			l.unnamed++
		} else {
			l.users[c.caller.UID] = u
		}
		c.holder, c.turn, c.line, c.since = u, u.turn, u.line, now
		u.push(c)
	}
	l.mu.Unlock()
	if victim != nil {
		victim.evict()
	}
	return ok
}

// holder is whom c counts as; l.mu is held.
func (l *Limits) holder(c *conn) *holder {
	if c.caller.UID == "" {
		address := c.address()
		u := l.strangers[address]
		if u == nil {
			u = newHolder()
			u.address, u.stranger = address, true
		}
		return u
	}
	u := l.users[c.caller.UID]
	if u == nil {
		u = newHolder()
		l.users[c.caller.UID] = u
	}
	return u
}

// address is where the other end is, "" where that is no network.
func (c *conn) address() string {
	if a, ok := c.raw.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return ""
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

// largest is the user with most connections, nil for none; if that is the
// strangers, the address with most of theirs. l.mu is held.
func (l *Limits) largest() *holder {
	u := most(l.users)
	if u == nil || l.unnamed > u.count {
		if s := most(l.strangers); s != nil {
			return s
		}
	}
	return u
}

// most is who has most connections, nil for nobody.
func most(all map[string]*holder) *holder {
	var found *holder
	for _, u := range all {
		if found == nil || u.count > found.count {
			found = u
		}
	}
	return found
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
		if c.arriving(now) {
			u.cut(c)
			u.push(c)
			continue
		}
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
	if u.stranger {
		l.unnamed--
		if u.count == 0 {
			delete(l.strangers, u.address)
		}
		return
	}
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
	for _, holders := range []map[string]*holder{l.users, l.strangers} {
		for _, u := range holders {
			for c := u.first; c != nil; c = c.newer {
				if c.server == s {
					all = append(all, c)
				}
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

// arriving reports, once for each connection, that it is too new to have said
// anything: its request may be on its way. Limits.mu is held.
func (c *conn) arriving(now time.Time) bool {
	if c.looked || c.spoke.Load() || now.Sub(c.since) >= arrivingTime {
		return false
	}
	c.looked = true
	return true
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
	return reading && !c.busy.Load() && !c.answering.Load() && !unread(c.raw)
}
