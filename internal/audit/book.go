package audit

import (
	"strings"
	"time"

	"keyfob/internal/cred"
)

// lineEvery is how often a caller that repeats itself gets a line.
const lineEvery = time.Minute

// How many records one user can have in the book. A record has about one line
// a minute, so this also bounds how fast one user makes the file grow: 20
// lines a minute for who is refused everything, which fills the files that are
// kept by default in about three weeks.
const (
	maxHandOuts = 100 // told apart by process
	maxPrograms = 50  // beyond those, by program
	maxRefused  = 20
	maxRecords  = 8192 // of all users

	foldedReason = "more different ones than are kept apart"
)

// recordKey is what makes two events the same line.
type recordKey struct {
	uid, program   string
	pid            int
	start          uint64
	event, profile string
	endpoint       string
	accessKeyID    string
	reason         string
}

// record counts the events of one line.
type record struct {
	key       recordKey
	parent    string
	accountID string
	expires   time.Time
	last      time.Time
	pending   int64     // not yet in the file
	due       time.Time // when what is pending is to be written; zero: at once
	quota     *quota
	kind      recordKind
	gone      bool // no longer in the book
}

type recordKind int

const (
	perProcess recordKind = iota
	perProgram
	perRefusal
	perUser // whatever is too much for the others
	recordKinds
)

// quota counts the records of one user.
type quota [recordKinds]int

// book is what the writer knows of the last minute's lines. Only the writer
// uses it.
type book struct {
	records map[recordKey]*record
	users   map[string]*quota
}

func newBook() *book {
	return &book{records: map[recordKey]*record{}, users: map[string]*quota{}}
}

// place finds or makes the record in which an event counts.
func (b *book) place(e *cred.Event, w who) *record {
	endpoint := e.Via.Kind
	if e.Via.Listen != "" {
		endpoint += " " + e.Via.Listen
	}
	full := recordKey{
		uid: w.uid, program: w.program, pid: w.pid, start: w.start,
		event: e.Kind, profile: e.Profile, endpoint: endpoint, accessKeyID: e.AccessKeyID, reason: e.Reason,
	}
	if full.event != cred.EventHandOut && full.event != EventConfirmation && full.event != EventRecoveryKey {
		full.event = cred.EventRefusal
	}
	full.profile, full.reason = tidy(full.profile, maxName), tidy(full.reason, maxName)
	if r := b.records[full]; r != nil {
		return r
	}
	q := b.users[w.uid]
	if q == nil {
		q = &quota{}
		if len(b.users) < manyUsers {
			b.users[strings.Clone(w.uid)] = q
		} else {
			q[perProcess], q[perProgram], q[perRefusal], q[perUser] = maxHandOuts, maxPrograms, maxRefused, maxRecords
		}
	}
	if full.event != cred.EventHandOut {
		if q[perRefusal] < maxRefused {
			return b.add(full, q, perRefusal, e, w)
		}
	} else {
		if q[perProcess] < maxHandOuts {
			return b.add(full, q, perProcess, e, w)
		}
		program := full
		program.pid, program.start = 0, 0
		if r := b.records[program]; r != nil {
			return r
		}
		if q[perProgram] < maxPrograms {
			w.parent = ""
			return b.add(program, q, perProgram, e, w)
		}
	}
	folded := recordKey{uid: w.uid, event: full.event, reason: foldedReason}
	if r := b.records[folded]; r != nil {
		return r
	}
	if q[perUser] >= maxRecords || len(b.records) >= maxRecords {
		folded.uid = ""
		if r := b.records[folded]; r != nil {
			return r
		}
	}
	return b.add(folded, q, perUser, e, who{})
}

func (b *book) add(key recordKey, q *quota, kind recordKind, e *cred.Event, w who) *record {
	if kind != perUser && len(b.records) >= maxRecords {
		key = recordKey{event: key.event, reason: foldedReason}
		if r := b.records[key]; r != nil {
			return r
		}
		kind, w = perUser, who{}
	}
	r := &record{key: key, quota: q, kind: kind}
	if kind != perUser {
		r.key.endpoint, r.key.accessKeyID = strings.Clone(key.endpoint), strings.Clone(key.accessKeyID)
		r.parent, r.accountID = w.parent, tidy(e.AccountID, maxName)
	}
	b.records[r.key] = r
	q[kind]++
	return r
}

// count adds events to a record.
func (r *record) count(n int64, last, expires time.Time) {
	r.pending += n
	if last.After(r.last) {
		r.last = last
		if r.kind != perUser {
			r.expires = expires
		}
	}
}

// remove forgets a record whose minute has passed with nothing more.
func (b *book) remove(r *record) {
	delete(b.records, r.key)
	r.gone = true
	r.quota[r.kind]--
}

// sweep forgets users of whom nothing is left.
func (b *book) sweep() {
	for uid, q := range b.users {
		if *q == (quota{}) {
			delete(b.users, uid)
		}
	}
}

// entry is the record's line for what is pending, without previous.
func (r *record) entry(name func(uid string) string) *entry {
	e := &entry{
		Version: version, Time: r.last.UTC().Format(timeForm), Count: r.pending, Event: r.key.event,
		Profile: r.key.profile, Endpoint: r.key.endpoint,
		AccessKeyID: r.key.accessKeyID, AccountID: r.accountID, Reason: r.key.reason,
	}
	if !r.expires.IsZero() {
		e.Expiration = r.expires.UTC().Format(expiryForm)
	}
	if r.key.uid != "" || r.key.pid != 0 {
		e.Caller = &callerForm{UID: r.key.uid, User: name(r.key.uid), PID: r.key.pid, Program: r.key.program, Parent: r.parent}
	}
	return e
}
