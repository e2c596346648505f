package broker

import (
	"sync/atomic"
	"time"

	"keyfob/internal/peer"
)

// callerSlots bounds how many callers of one entry are told apart.
const callerSlots = 64

// callerWindow is how long a caller counts.
const callerWindow = time.Hour

// usage is when an entry was last asked for, and by whom. Every method is
// safe for concurrent use; a repeated caller writes at most once a minute,
// so that readers on many cores do not fight for a cache line.
type usage struct {
	last  atomic.Int64 // minute of the broker's life, from its monotonic clock
	slots [callerSlots]atomic.Uint64
}

// touch notes that c asked in the given minute.
func (u *usage) touch(minute int64, c *peer.Caller) {
	if u.last.Load() != minute {
		u.last.Store(minute)
	}
	h := callerHash(c)
	want := uint64(h)<<32 | uint64(uint32(minute))
	i := h % callerSlots
	for n := uint32(0); n < 8; n++ {
		s := &u.slots[(i+n)%callerSlots]
		v := s.Load()
		if v == want {
			return
		}
		// The caller's own slot of an earlier minute, an empty one, or one
		// whose caller no longer counts. Losing the race means that another
		// caller took it: the next slot is as good.
		if v == 0 || uint32(v>>32) == h || minute-int64(uint32(v)) > int64(callerWindow/time.Minute) {
			if s.CompareAndSwap(v, want) {
				return
			}
		}
	}
}

// callers counts the distinct processes that asked within callerWindow, up
// to callerSlots.
func (u *usage) callers(minute int64) int {
	n := 0
	for i := range u.slots {
		v := u.slots[i].Load()
		if v != 0 && minute-int64(uint32(v)) <= int64(callerWindow/time.Minute) {
			n++
		}
	}
	return n
}

// callerHash tells callers apart by user and process; behind keyfob on the
// control socket the process is the program that started it. It is never 0.
func callerHash(c *peer.Caller) uint32 {
	pid := c.PID
	if c.Parent != nil {
		pid = c.Parent.PID
	}
	h := uint32(2166136261) // FNV-1a
	for i := 0; i < len(c.UID); i++ {
		h = (h ^ uint32(c.UID[i])) * 16777619
	}
	for p := uint32(pid); p != 0; p >>= 8 {
		h = (h ^ p&0xff) * 16777619
	}
	return h | 1
}
