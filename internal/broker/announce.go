package broker

import (
	"time"

	"github.com/sirupsen/logrus"
)

// Announcement says that a session which only a person can renew ends soon.
type Announcement struct {
	Profile string    // the one that was used last of those that need it
	Kind    string    // of the link whose session it is: "session-token", "sso", …
	Expires time.Time // of that session, by our clock
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
	since := b.minute(now) - int64(idleAfter/time.Minute)
	for _, e := range b.view.Load().entries() {
		last := e.use.last.Load()
		if last == 0 || last < since {
			continue
		}
		for l := e.last; l != nil; l = l.below {
			u, ok := users[l]
			if !ok {
				continue
			}
			// The same whatever the order, and rather a name than a name
			// with a region.
			if u == nil || last > u.use.last.Load() || last == u.use.last.Load() &&
				(e.profile < u.profile || e.profile == u.profile && e.variant == variant{}) {
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
		a := Announcement{Profile: e.profile, Kind: string(kind), Expires: p.snap.Expires, Hint: "keyfob login " + e.profile}
		b.log.WithFields(logrus.Fields{"profile": a.Profile, "kind": a.Kind, "expires": a.Expires}).
			Info("a session that needs a person ends soon")
		b.wg.Go(func() { b.cfg.Announce(a) })
	}
}
