package broker

import (
	"hash/fnv"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"keyfob/internal/cred"
)

// The broker's times.
const (
	// maxTick bounds the minder's sleep while links are active: a machine
	// that was suspended looks at the wall clock within this time.
	maxTick = time.Minute

	// lull is the least time between two looks of the minder at more than
	// crowd links, so that a thousand attempts which end together cost a few
	// looks and not a thousand.
	lull  = time.Second
	crowd = 64

	// idleAfter is how long an entry that nobody asks for stays active.
	// SDKs come back at least once an hour (facts on clients), so a program
	// that runs for days never meets a cold link; three hours leave room
	// for two missed returns.
	idleAfter = 3 * time.Hour

	// backoffMin and backoffMax bound the pause after a failed attempt.
	backoffMin = time.Second
	backoffMax = time.Minute

	// maxJitter bounds how much earlier than due a refresh is made.
	maxJitter = 10 * time.Minute

	// brakeReserve is what must be left of a session for its refresh to wait
	// until an upstream that limits the rate of calls has recovered.
	brakeReserve = 5 * time.Minute

	// probeEvery is the least time between the starts of two probes of one
	// upstream (CONTRACT.md §8), and the limit of one: the SYN of a new one
	// reaches a network that came back sooner than a repeated one.
	probeEvery = 5 * time.Second

	// maxProbes bounds how many probes are under way at once, of upstreams
	// that have nothing in common.
	maxProbes = 32

	// maxAttempts bounds how many attempts call upstreams at once, and
	// maxAttemptsEach how many of them one upstream: after a start or a
	// wake-up everything is due.
	maxAttempts     = 64
	maxAttemptsEach = 48

	// recheckAfter is how long the need for a person is answered from
	// memory to callers that cannot ask; then one attempt looks whether the
	// cause is gone (somebody signed in by another way).
	recheckAfter = time.Minute

	// replaceAfter is the least age of a session that is thrown away
	// because AWS refused it: fifty roles that are refused alike cost one
	// new session a minute, not fifty.
	replaceAfter = time.Minute

	// maxLifetime is the longest life that AWS gives a session (36 h,
	// GetSessionToken) and an hour; an answer that claims more is not
	// believed.
	maxLifetime = 37 * time.Hour

	// unknownLife is assumed of keys that carry a session token but do not
	// tell its end (static-keys, environment-keys): they are read again
	// after it.
	unknownLife = time.Hour

	// storeTimeout bounds one call of the Store. A write that has begun is
	// let finish at the end, which must take less than 5 s.
	storeTimeout = 4 * time.Second

	// signinTimeout is the default of Config.SigninTimeout.
	signinTimeout = 10 * time.Minute
)

// never is an age that nothing reaches.
const never = time.Duration(1<<63 - 1)

// threshold is what must be left of a session of the given lifetime; under
// it a refresh is due (DESIGN §6.2).
func threshold(life time.Duration) time.Duration {
	return max(life/3, min(life/2, 35*time.Minute))
}

// margin is the end of a session's life in which callers rather wait for
// the next one: the minute by which the end is advertised early, less for
// short sessions.
func margin(life time.Duration) time.Duration { return min(time.Minute, life/10) }

// jitterOf is how much earlier than it must be a session of the given
// lifetime is refreshed: up to a tenth of the time until that is due, ten
// minutes at most. Sessions that began together drift apart, at the price of a
// twentieth more calls at most. It depends on the session alone, so that to
// read one from the vault again draws no other lot.
func jitterOf(accessKeyID string, life time.Duration) time.Duration {
	most := min((life-threshold(life))/10, maxJitter)
	if most <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = io.WriteString(h, accessKeyID)
	lot := h.Sum64() * 0x9e3779b97f4a7c15 // FNV leaves the upper bits of like ids alike
	return time.Duration(lot>>32) * (most >> 10) >> 22
}

// backoff is the pause after the n-th failure in a row, n from 1: 1 s, 2 s,
// 4 s … 60 s, each a tenth more or less.
func backoff(n int) time.Duration {
	d := backoffMax
	if n < 7 {
		d = min(backoffMin<<(n-1), backoffMax)
	}
	return max(backoffMin, d-d/10+rand.N(d/5+1))
}

// pause is the back-off after n failures in a row, of which err is the last:
// no less than the upstream asked for, within backoffMax.
func pause(n int, err error) time.Duration {
	return max(backoff(n), min(cred.RetryAfter(err), backoffMax))
}

// published is one snapshot with what is needed to judge its age without
// asking anybody. It is immutable but for kicked and told.
type published struct {
	snap *cred.Snapshot
	raw  time.Time // the end by AWS's clock
	from time.Time // when fetched, by AWS's clock

	at     time.Time     // when published; its monotonic reading is used
	atWall int64         // the same by the corrected wall clock, in ns
	left   time.Duration // life left at that time
	due    time.Duration // age at which a refresh is due
	stale  time.Duration // age at which callers wait for a refresh
	tell   time.Duration // age at which its end is announced, never if it needs no person

	kept   bool        // from the vault: fetched by a clock of which nothing is known
	kicked atomic.Bool // a reader has told the minder that it is due
	told   atomic.Bool // its end was announced; stored with link.mu held
}

// newPublished judges credentials that end at c.Expires by AWS's clock,
// fetched at the time fetched by our own and from by AWS's, now, with AWS's
// clock skew ahead of ours. Those of an interactive link are used to their
// end.
func newPublished(c cred.Credentials, fetched, from, now time.Time, skew time.Duration, interactive bool) *published {
	p := &published{raw: c.Expires, from: from.Round(0).UTC(), at: now, atWall: now.UnixNano() + int64(skew)}
	corrected := time.Unix(0, p.atWall)
	life := c.Expires.Sub(from)
	// A record from the vault whose fetch is ahead of now was fetched by a
	// clock that has been set back since: no more is left than it had.
	p.left = min(c.Expires.Sub(corrected), life)
	untilDue := p.left - threshold(life)
	p.due = untilDue - jitterOf(c.AccessKeyID, life)
	p.stale = p.left - margin(life)
	p.tell = never
	if interactive {
		p.due, p.stale, p.tell = never, p.left, p.left-notice(life)
	}
	c.Expires = c.Expires.Add(-skew).UTC()
	p.snap = &cred.Snapshot{Credentials: c, Fetched: fetched.Round(0).UTC()}
	return p
}

// withSkew is p with its advertised end moved to another skew. Its age and
// life are judged as before, but for one from the vault where AWS told the
// skew: it was judged by what was known of the clocks then.
func (p *published) withSkew(skew time.Duration, now time.Time, told bool) *published {
	if p.kept && told {
		c := p.snap.Credentials
		c.Expires = p.raw
		q := newPublished(c, p.snap.Fetched, p.from, now, skew, p.due == never)
		q.kept = true
		q.told.Store(p.told.Load())
		return q
	}
	q := &published{raw: p.raw, from: p.from, kept: p.kept, at: p.at, atWall: p.atWall, left: p.left, due: p.due, stale: p.stale, tell: p.tell}
	q.told.Store(p.told.Load())
	s := *p.snap
	s.Expires = p.raw.Add(-skew).UTC()
	q.snap = &s
	return q
}

// age is how old p is by the clock that says more: the monotonic one stands
// still while the machine sleeps, the wall clock may be set back.
func (p *published) age(now time.Time, skew int64) time.Duration {
	wall := time.Duration(now.UnixNano() + skew - p.atWall)
	return max(now.Sub(p.at), wall)
}

// jumped reports whether wall and monotonic clock went apart between two
// readings: a suspend, or a clock that was set.
func jumped(from, to time.Time) bool {
	wall := to.Round(0).Sub(from.Round(0))
	d := wall - to.Sub(from)
	return d > 30*time.Second || d < -30*time.Second
}
