package broker

import (
	"cmp"
	"context"
	"slices"
	"time"

	"keyfob/internal/cred"
)

// Session is one active way of asking for a profile, for status.
type Session struct {
	Profile         string
	RoleARN, Region string // of the requests that it answers, "" for the profile's own
	Policy          string // the same, by SessionPolicy.Encode
	AccessKeyID     string // "" while there is no session
	AccountID       string
	Fetched         time.Time // by our clock; zero while there is no session
	Expires         time.Time // by our clock; zero while there is no session
	// NextRefresh is when the next attempt is made without a caller, by our
	// clock; zero when none is planned: the link needs a person, or nobody
	// asks.
	NextRefresh time.Time
	LastError   string // of the last attempt of the chain, "" after a success
	// Callers counts the distinct processes (behind keyfob, the programs
	// that started it) that asked within an hour, up to 64.
	Callers int
	// NeedsPerson says that a link of the chain needs a person, now or
	// within the time in which that is announced.
	NeedsPerson bool
	// EndsAt is when the session or sign-in ends that a person must renew
	// first, by our clock; zero when the chain has none.
	EndsAt time.Time
	// Certificate is when the certificate ends that the chain signs in with,
	// zero where it has none.
	Certificate time.Time
	Skew        time.Duration // AWS's clock minus ours, 0 where they agree
}

// Sessions lists what is active, by profile.
func (b *Broker) Sessions() []Session {
	now := time.Now()
	skew := b.skewNow()
	minute := b.minute(now)
	entries := b.view.Load().entries()
	out := make([]Session, 0, len(entries))
	for _, e := range entries {
		s := Session{Profile: e.profile, RoleARN: e.variant.role, Region: e.variant.region, Policy: e.variant.policy,
			Callers: e.use.callers(minute), Skew: skew}
		e.last.describe(&s, now)
		for l := e.last; l != nil; l = l.below {
			if s.LastError == "" {
				s.LastError = l.lastError(now)
			}
			l.describePerson(&s, now)
			if ends := l.certificate(); !ends.IsZero() {
				s.Certificate = ends
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Session) int {
		return cmp.Or(cmp.Compare(a.Profile, b.Profile), cmp.Compare(a.RoleARN, b.RoleARN), cmp.Compare(a.Region, b.Region), cmp.Compare(a.Policy, b.Policy))
	})
	return out
}

// certificate is when the certificate ends that l's source signs with, zero
// where it has none.
func (l *link) certificate() time.Time {
	_, src := l.source()
	if x, ok := src.(interface {
		CertificateExpires(context.Context) (time.Time, bool)
	}); ok {
		if ends, ok := x.CertificateExpires(context.Background()); ok {
			return ends
		}
	}
	return time.Time{}
}

// describe fills in what s says of the session.
func (l *link) describe(s *Session, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.retryAt
	if l.autoAt.After(next) {
		next = l.autoAt
	}
	if p := l.cur.Load(); l.good(p, now) {
		s.AccessKeyID, s.AccountID, s.Fetched, s.Expires = p.snap.AccessKeyID, p.snap.AccountID, p.snap.Fetched, p.snap.Expires
		if p.due == never {
			return
		}
		if due := now.Add(p.due - p.age(now, l.b.skew.Load())); due.After(next) {
			next = due
		}
	}
	if interactionOf(l.lastErr) == nil && !next.IsZero() {
		s.NextRefresh = next.Round(0).UTC()
	}
}

// describePerson fills in what s says of the need for a person.
func (l *link) describePerson(s *Session, now time.Time) {
	if ends, _, ok := l.signInEnds(context.Background()); ok && !ends.IsZero() {
		if ends.After(now) && (s.EndsAt.IsZero() || ends.Before(s.EndsAt)) {
			s.EndsAt = ends.Round(0).UTC()
		}
		s.NeedsPerson = s.NeedsPerson || !ends.After(now.Add(signInNotice))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waits(now) {
		s.NeedsPerson = true
	}
	if !l.src.Interactive() {
		return
	}
	p := l.cur.Load()
	if !l.good(p, now) {
		// Before the vault was asked nobody knows.
		s.NeedsPerson = s.NeedsPerson || l.restored
		return
	}
	if s.EndsAt.IsZero() || p.snap.Expires.Before(s.EndsAt) {
		s.EndsAt = p.snap.Expires
	}
	if p.age(now, l.b.skew.Load()) >= p.tell {
		s.NeedsPerson = true
	}
}

// waits reports whether a person must act before l can have a session. What
// was asked for while the clock was wrong is over once it is right. mu is
// held.
func (l *link) waits(now time.Time) bool {
	return l.asked != nil && !(l.src.Interactive() && l.good(l.cur.Load(), now))
}

// lastError is that of l's last attempt, "" where the cause was the link
// below and is gone there.
func (l *link) lastError(now time.Time) string {
	below := ""
	if l.below != nil {
		below = l.below.lastError(now)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lastErr == nil || l.asked != nil && !l.waits(now) || l.lastBelow && below == "" {
		return ""
	}
	return l.lastErr.Error()
}

// PeekFor is Peek for a request with all that it asks for.
func (b *Broker) PeekFor(r cred.Request) (*cred.Snapshot, bool) {
	if e := b.view.Load().find(&r); e != nil {
		if p := e.last.cur.Load(); e.last.good(p, time.Now()) {
			return p.snap, true
		}
	}
	return nil, false
}

// Peek returns the session of profile, as a bare name asks for it, if one is
// in memory and good. It starts nothing and asks no rules: what is shown of
// it is the caller's affair.
func (b *Broker) Peek(profile string) (*cred.Snapshot, bool) {
	if snap, ok := b.PeekFor(cred.Request{Profile: profile}); ok {
		return snap, true
	}
	return b.PeekFor(cred.Request{Profile: profile, Implicit: true})
}
