package broker

import (
	"errors"
	"reflect"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/access"
	"keyfob/internal/cred"
)

// errNoRules: without rules nobody gets anything.
var errNoRules = errors.New("there are no rules")

// denials keeps refusals from flooding the log: one line a minute for each
// user and profile.
type denials struct {
	mu     sync.Mutex // guards what follows
	minute int64
	seen   map[[2]string]bool
}

// maxDenials bounds how many are told apart in a minute.
const maxDenials = 256

func (d *denials) first(minute int64, uid, profile string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen == nil || d.minute != minute {
		d.minute, d.seen = minute, map[[2]string]bool{}
	}
	k := [2]string{uid, profile}
	if d.seen[k] || len(d.seen) >= maxDenials {
		return false
	}
	d.seen[k] = true
	return true
}

// deny returns what a refused caller learns, the same whether there is such
// a profile or not, and logs the rest.
func (b *Broker) deny(r *cred.Request, reason error) error {
	b.count.refusals.Add(1)
	if b.denied.first(b.minute(time.Now()), r.Caller.UID, r.Profile) {
		b.mu.Lock()
		_, err := b.resolve(queryOf(r))
		b.mu.Unlock()
		why := reason.Error()
		if d := deniedOf(reason); d != nil {
			why = d.Reason
		}
		// On the control socket the caller is keyfob, and who started it is the
		// program that the rules judge.
		pid, program := r.Caller.PID, r.Caller.Exe
		if p, ok := r.Caller.Known(); ok {
			pid, program = p.PID, p.Exe
		}
		b.log.WithFields(logrus.Fields{
			"profile": r.Profile, "known": !errors.Is(err, cred.ErrUnknownProfile), "via": r.Via.Kind,
			"uid": r.Caller.UID, "pid": pid, "program": program, "reason": why,
		}).Warn("caller is denied")
	}
	if d := deniedOf(reason); d != nil {
		return d // reads like any other; the audit log takes its Reason
	}
	return cred.ErrDenied
}

func deniedOf(err error) *access.Denied {
	var d *access.Denied
	if errors.As(err, &d) {
		return d
	}
	return nil
}

// checkerOf turns a nil pointer in an interface into no checker.
func checkerOf(c Checker) Checker {
	if v := reflect.ValueOf(c); v.Kind() == reflect.Pointer && v.IsNil() {
		return nil
	}
	return c
}
