package audit

import (
	"strings"
	"sync"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

const (
	// maxSlots bounds how many different events are kept until the writer
	// has looked at them. Refusals, which anybody can cause, take at most
	// half.
	maxSlots    = 4096
	maxRefusals = maxSlots / 2
	// manySlots is when the writer empties the table: a caller that makes a
	// connection for each request is a new one each time.
	manySlots = 1024
)

// intake is where Record leaves events. An event that was seen in the last
// minute costs two look-ups and an addition, and no memory.
type intake struct {
	wake chan struct{} // holds one: there is something for the writer to look at

	mu      sync.Mutex // guards what follows
	callers map[peer.Caller]int32
	events  map[eventKey]int32 // index of slots
	slots   []slot
	fresh   []int32 // slots that the writer does not wait for
	refused int     // slots of refusals
	lost    int64
	closed  bool // nobody will look any more
}

// eventKey is what makes two events of one caller the same. (A map keeps
// keys of up to 128 bytes in place.)
type eventKey struct {
	caller                                          int32
	kind, profile, via, listen, accessKeyID, reason string
}

// slot counts one event.
type slot struct {
	event cred.Event // the first
	count int64      // since the writer last looked
	last  time.Time
	// expires is that of the last: it moves a little while the key is the same.
	expires time.Time
	// awaited: the writer looks within the minute, without being woken.
	awaited bool
}

func (in *intake) init() {
	in.wake = make(chan struct{}, 1)
	in.callers = map[peer.Caller]int32{}
	in.events = map[eventKey]int32{}
}

// identity is what tells one caller from another: the process, on the control
// socket the one behind keyfob; where nobody has looked for it yet, the
// connection.
func identity(c peer.Caller) peer.Caller {
	if p := c.Parent; p != nil {
		return peer.Caller{UID: c.UID, Via: c.Via, PID: p.PID, Start: p.Start, Exe: p.Exe}
	}
	if p, ok := c.Known(); ok {
		return peer.Caller{UID: c.UID, Via: c.Via, PID: p.PID, Start: p.Start, Exe: p.Exe}
	}
	c.Terminal = ""
	return c
}

func (in *intake) add(e *cred.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	who := identity(e.Caller)
	in.mu.Lock()
	n, known := in.callers[who]
	key := eventKey{n, e.Kind, clip(e.Profile, maxName), e.Via.Kind, e.Via.Listen, e.AccessKeyID, clip(e.Reason, maxName)}
	if known {
		if i, ok := in.events[key]; ok {
			s := &in.slots[i]
			s.count++
			s.last, s.expires = e.Time, e.Expires
			if s.awaited {
				in.mu.Unlock()
				return
			}
			s.awaited = true
			in.fresh = append(in.fresh, i)
			in.mu.Unlock()
			in.rouse()
			return
		}
	}
	in.insert(e, who, known, key)
	in.mu.Unlock()
	in.rouse()
}

// insert makes a slot; in.mu is held.
func (in *intake) insert(e *cred.Event, who peer.Caller, known bool, key eventKey) {
	refusal := e.Kind != cred.EventHandOut
	if in.closed || len(in.slots) >= maxSlots || refusal && in.refused >= maxRefusals {
		in.lost++
		return
	}
	if !known {
		key.caller = int32(len(in.callers))
		in.callers[who] = key.caller
	}
	// Copies: what came with a request may be a piece of something large.
	key.profile, key.reason = strings.Clone(key.profile), strings.Clone(key.reason)
	s := slot{event: *e, count: 1, last: e.Time, expires: e.Expires, awaited: true}
	s.event.Profile, s.event.Reason = key.profile, key.reason
	i := int32(len(in.slots))
	in.events[key] = i
	in.slots = append(in.slots, s)
	in.fresh = append(in.fresh, i)
	if refusal {
		in.refused++
	}
}

func (in *intake) rouse() {
	select {
	case in.wake <- struct{}{}:
	default: // it is up already
	}
}

// taken is what the writer takes out of one slot.
type taken struct {
	slot    int32
	fresh   bool
	event   cred.Event // of fresh ones alone
	count   int64
	last    time.Time
	expires time.Time
}

func (s *slot) take(i int32) taken {
	t := taken{slot: i, count: s.count, last: s.last, expires: s.expires}
	s.count = 0
	return t
}

// takeFresh appends to dst what the writer did not wait for. Where the table
// has grown large it takes all that was counted and empties the table:
// emptied is true then, and the numbers of slots start again. lost is how
// many events found no place.
func (in *intake) takeFresh(dst []taken) (_ []taken, emptied bool, lost int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, i := range in.fresh {
		s := &in.slots[i]
		t := s.take(i)
		t.fresh, t.event = true, s.event
		dst = append(dst, t)
	}
	in.fresh = in.fresh[:0]
	lost, in.lost = in.lost, 0
	if len(in.slots) <= manySlots {
		return dst, false, lost
	}
	for i := range in.slots {
		if s := &in.slots[i]; s.count > 0 {
			dst = append(dst, s.take(int32(i)))
		}
	}
	clear(in.callers)
	clear(in.events)
	clear(in.slots) // of their strings
	in.slots, in.refused = in.slots[:0], 0
	return dst, true, lost
}

// takeAll appends to dst whatever was counted; takeFresh was called before,
// and what came since is left to the next one.
func (in *intake) takeAll(dst []taken) []taken {
	in.mu.Lock()
	defer in.mu.Unlock()
	waiting := make(map[int32]bool, len(in.fresh))
	for _, i := range in.fresh {
		waiting[i] = true
	}
	for i := range in.slots {
		if s := &in.slots[i]; s.count > 0 && !waiting[int32(i)] {
			dst = append(dst, s.take(int32(i)))
		}
	}
	return dst
}

// release stops waiting for the slots that gone names: their next event
// wakes the writer.
func (in *intake) release(gone func(slot int32) bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	rouse := false
	for i := range in.slots {
		s := &in.slots[i]
		if !s.awaited || !gone(int32(i)) {
			continue
		}
		if s.count == 0 {
			s.awaited = false
		} else { // counted since takeAll
			in.fresh = append(in.fresh, int32(i))
			rouse = true
		}
	}
	if rouse {
		in.rouse()
	}
}

// shrink gives the memory of the table back if nothing is counted in it. It
// reports whether it did.
func (in *intake) shrink() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range in.slots {
		if in.slots[i].count > 0 {
			return false
		}
	}
	in.callers, in.events, in.slots, in.fresh = map[peer.Caller]int32{}, map[eventKey]int32{}, nil, nil
	in.refused = 0
	return true
}

// close makes every further event a lost one.
func (in *intake) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
}
