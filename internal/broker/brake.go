package broker

import (
	"errors"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"keyfob/internal/cred"
)

// brake keeps the refreshes that can wait from upstreams that limit the rate
// of calls: two hundred links that back off each on its own are what such an
// upstream suffers from. After the first answer that says so they pause
// together; then one of them looks whether it is over.
type brake struct {
	on atomic.Bool // any upstream is braked: a look that costs nothing

	mu  sync.Mutex // guards what follows
	ups map[string]*braked
}

type braked struct {
	until   time.Time
	rounds  int  // pauses in a row
	testing bool // an attempt looks whether it is over
}

// errBraked ends an attempt that was under way to an upstream when it was
// braked. It is no failure: the link tries again when the pause is over.
var errBraked = errors.New("the upstream limits the rate of calls")

// throttled reports whether an upstream said that it limits the rate.
func throttled(err error) bool {
	var ue *cred.UpstreamError
	if !errors.As(err, &ue) {
		return false
	}
	switch ue.Code {
	case "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
		"RequestLimitExceeded", "TooManyRequestsException", "SlowDown", "SlowDownException":
		return true
	}
	return ue.Status == http.StatusTooManyRequests
}

// wait returns how long a refresh that can wait is to wait; 0 where it may
// begin. After a pause it is 0 for one refresh alone (test) until an answer
// came, or none in the time of an attempt.
func (k *brake) wait(upstream func() string, now time.Time) (wait time.Duration, test bool) {
	if !k.on.Load() {
		return 0, false
	}
	name := upstream()
	k.mu.Lock()
	defer k.mu.Unlock()
	u := k.ups[name]
	if u == nil {
		return 0, false
	}
	if d := u.until.Sub(now); d > 0 {
		return d, false
	}
	u.until, u.testing = now.Add(cred.FetchTimeout), true
	return 0, true
}

// holds reports whether the upstream is braked.
func (k *brake) holds(upstream string) bool {
	if !k.on.Load() {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ups[upstream] != nil
}

// answered notes how an attempt that called the upstream ended.
func (k *brake) answered(upstream string, err error, now time.Time) {
	limits := throttled(err)
	if !limits && !k.on.Load() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	u := k.ups[upstream]
	switch {
	case limits && u == nil:
		if k.ups == nil {
			k.ups = map[string]*braked{}
		}
		maps.DeleteFunc(k.ups, func(_ string, u *braked) bool { return now.Sub(u.until) > time.Hour }) // nobody calls those
		k.ups[upstream] = &braked{until: now.Add(pause(3, err)), rounds: 1}
	case limits:
		if u.testing { // the others were under way together with the first
			u.rounds++
			u.testing = false
		}
		u.until = now.Add(pause(2+u.rounds, err))
	case u != nil && (err == nil || !noAnswer(err)):
		delete(k.ups, upstream)
	}
	k.on.Store(len(k.ups) > 0)
}

// canWait reports whether l's session lasts long enough for its refresh to be
// put off. mu is held.
func (l *link) canWait(p *published, age time.Duration) bool {
	return p != nil && p.left-age > brakeReserve
}

func (l *link) hasTime(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.cur.Load()
	return p != nil && l.canWait(p, p.age(now, l.b.skew.Load()))
}
