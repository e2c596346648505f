package broker

import (
	"sync/atomic"
	"time"
)

// Stats are counters since the start, and gauges, for metrics.
type Stats struct {
	Attempts     uint64 // calls of sources that keep a session: of upstreams, by and large
	Failures     uint64 // of them that failed
	Interactions uint64 // of them that ended because a person is needed; no failures
	Refusals     uint64 // requests that rules or a person denied
	// FlightsJoined counts waits for an attempt that somebody else began, by
	// callers and by links above.
	FlightsJoined uint64
	Restored      uint64 // sessions taken from the vault
	Announced     uint64 // ends of sessions and sign-ins that a person was told of

	ActiveLinks    int
	ActiveProfiles int
	NeedPerson     int // active profiles that a person must do something for now
}

type counters struct {
	attempts, failures, interactions, refusals, joined, restored, announced atomic.Uint64
}

// attempt counts one call of a source.
func (c *counters) attempt(err error) {
	c.attempts.Add(1)
	switch {
	case err == nil:
	case interactionOf(err) != nil:
		c.interactions.Add(1)
	default:
		c.failures.Add(1)
	}
}

// Stats returns the counters. It costs a look at each active link.
func (b *Broker) Stats() Stats {
	c := &b.count
	s := Stats{Attempts: c.attempts.Load(), Failures: c.failures.Load(), Interactions: c.interactions.Load(),
		Refusals: c.refusals.Load(), FlightsJoined: c.joined.Load(), Restored: c.restored.Load(), Announced: c.announced.Load()}
	s.ActiveLinks = len(b.activeLinks())
	now := time.Now()
	v := b.view.Load()
	for _, slot := range v.slots {
		s.ActiveProfiles++
		if slot.needsPerson(now) {
			s.NeedPerson++
		}
	}
	return s
}

func (s *slot) needsPerson(now time.Time) bool {
	if s.plain != nil && s.plain.last.waitsForPerson(now) {
		return true
	}
	for _, e := range s.variants {
		if e.last.waitsForPerson(now) {
			return true
		}
	}
	return false
}

// waitsForPerson reports whether a person must act for a link of the chain up
// to l.
func (l *link) waitsForPerson(now time.Time) bool {
	for ; l != nil; l = l.below {
		l.mu.Lock()
		asked := l.waits(now)
		l.mu.Unlock()
		if asked {
			return true
		}
	}
	return false
}
