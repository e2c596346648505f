package broker

import "time"

// Announcement says that a session, or a sign-in, which only a person can
// renew ends soon.
type Announcement struct {
	Profile string    // the one that was used last of those that need it
	Kind    string    // of the link whose session it is: "session-token", "sso", …
	Expires time.Time // of that session or sign-in, by our clock
	Hint    string    // the command that renews it
}

// notice is how long before its end a session that needs a person is
// announced: a twenty-fourth of its life and a quarter of an hour at least
// (30 min of twelve hours), but no more than a quarter of its life, so that
// a short one is not announced as soon as it begins.
func notice(life time.Duration) time.Duration {
	return min(max(life/24, 15*time.Minute), life/4)
}

// announce tells of the sessions of the given links, which end soon, where
// somebody asked within idleAfter for a profile that needs them. Each session
// is told of once, also over a restart. Only the minder calls it.
func (b *Broker) announce(now time.Time, ending []*link) {
	users := map[*link]*entry{}
	for _, l := range ending {
		users[l] = nil
	}
	for _, e := range b.view.Load().entries() {
		if !b.usedLately(e, now) {
			continue
		}
		for l := e.last; l != nil; l = l.below {
			if u, ok := users[l]; ok && (u == nil || e.laterThan(u)) {
				users[l] = e
			}
		}
	}
	for l, e := range users {
		if e == nil {
			continue
		}
		l.mu.Lock()
		p, kind := l.cur.Load(), l.spec.Kind
		age := time.Duration(0)
		if p != nil {
			age = p.age(now, l.b.skew.Load())
		}
		due := p != nil && !p.told.Load() && age >= p.tell && age < p.left
		if due {
			p.told.Store(true)
		}
		l.mu.Unlock()
		if !due {
			continue
		}
		l.unsaved.Store(true) // for the record to say so
		l.poke()
		b.tell(Announcement{Profile: e.profile, Kind: string(kind), Expires: p.snap.Expires, Hint: "keyfob login " + e.profile})
	}
}

// usedLately reports whether somebody asked for e within idleAfter.
func (b *Broker) usedLately(e *entry, now time.Time) bool {
	last := e.use.last.Load()
	return last != 0 && last >= b.minute(now)-int64(idleAfter/time.Minute)
}

// laterThan chooses whom to speak of: who was used last, the same whatever the
// order, and rather a name than a name with a region.
func (e *entry) laterThan(u *entry) bool {
	mine, other := e.use.last.Load(), u.use.last.Load()
	return mine > other || mine == other && (e.profile < u.profile || e.profile == u.profile && e.variant == variant{})
}
