package broker

import "sync/atomic"

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
	v := b.view.Load()
	for _, slot := range v.slots {
		s.ActiveProfiles++
		if slot.needsPerson() {
			s.NeedPerson++
		}
	}
	return s
}

func (s *slot) needsPerson() bool {
	if s.plain != nil && s.plain.last.waitsForPerson() {
		return true
	}
	for _, e := range s.variants {
		if e.last.waitsForPerson() {
			return true
		}
	}
	return false
}

// waitsForPerson reports whether the chain up to l has no session because a
// person must act.
func (l *link) waitsForPerson() bool {
	for ; l != nil; l = l.below {
		l.mu.Lock()
		asked := l.asked != nil
		l.mu.Unlock()
		if asked {
			return true
		}
	}
	return false
}
