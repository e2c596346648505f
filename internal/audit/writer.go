package audit

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/logging"
)

// bunch is how much too early a line may come, so that callers that began
// within a second wake the writer once.
const bunch = time.Second

// writer is what the goroutine of Run has to itself.
type writer struct {
	l      *Log
	ctx    context.Context // does not end with Run's, for the last entries
	file   file
	book   *book
	finder *finder
	slots  []placed // by slot of the intake
	batch  []taken

	h     *hasher // nil while there is no key
	key   [32]byte
	bound bool // the file was compared with the vault's record in this run

	next     time.Time // when a record is due
	headDue  time.Time // when the end is to be noted; zero: nothing to note
	headFail bool      // told that it can't be

	lost    int64 // not yet told in the file
	lostDue time.Time
}

// placed is where a slot's events count.
type placed struct {
	rec *record
	who who
	// event is kept for a caller whose program is still to be found.
	event *cred.Event
}

func newWriter(l *Log, ctx context.Context) *writer {
	return &writer{
		l: l, ctx: ctx, book: newBook(), finder: newFinder(l.cfg.Users),
		file: file{path: l.cfg.Path, maxSize: l.cfg.MaxSize, keep: l.cfg.Keep, log: l.cfg.Log, forward: l.cfg.Forward},
	}
}

func (w *writer) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	w.begin()
	for {
		due := soonest(w.next, w.headDue)
		if w.lost > 0 {
			due = soonest(due, w.lostDue)
		}
		timer.Stop()
		if !due.IsZero() {
			timer.Reset(max(0, time.Until(due)))
		}
		select {
		case <-ctx.Done():
			w.end()
			return
		case r := <-w.l.requests:
			r.work(w)
			close(r.done)
		case c := <-w.l.expected:
			w.finder.find(w.ctx, c) // what is found is kept with the connection
		case <-w.l.in.wake:
			w.fresh()
		case <-timer.C:
			w.onTime(time.Now())
		}
	}
}

// begin opens the file and tells of what the last run left behind.
func (w *writer) begin() {
	w.learnKey()
	_ = w.file.ready() // logged; tried again with each entry
	w.tellCut()
}

func (w *writer) onTime(now time.Time) {
	w.fresh() // so that nothing is older in the file than what comes after it
	if !w.next.IsZero() && !w.next.After(now) {
		w.sweep(false)
	}
	if !w.headDue.IsZero() && !w.headDue.After(now) {
		w.note()
	}
}

func (w *writer) end() {
	w.l.in.close()
	w.fresh()
	w.sweep(true)
	w.lostDue = time.Time{}
	w.tellLost()
	w.note()
	var left int64
	for _, r := range w.book.records {
		left += r.pending
	}
	if left += w.lost; left > 0 {
		w.l.cfg.Log.WithField("events", left).Error("audit log ends without entries that could not be written")
	}
	if err := w.file.close(); err != nil {
		w.l.cfg.Log.WithError(err).Warn("cannot close the audit log")
	}
}

// fresh looks at the events that nobody waits for.
func (w *writer) fresh() {
	w.learnKey()
	for range len(w.l.expected) {
		w.finder.find(w.ctx, <-w.l.expected)
	}
	batch, emptied, lost := w.l.in.takeFresh(w.batch[:0])
	for i := range batch {
		w.count(&batch[i])
	}
	if emptied {
		clear(w.slots)
		w.slots = w.slots[:0]
	}
	clear(batch) // of its strings
	if w.batch = batch[:0]; cap(batch) > manySlots {
		w.batch = nil
	}
	w.lost += lost
	w.tellLost()
	w.tellCut()
	w.l.setWarning(w.file.warning())
}

// count files what was taken out of a slot.
func (w *writer) count(t *taken) {
	for int(t.slot) >= len(w.slots) {
		w.slots = append(w.slots, placed{})
	}
	p := &w.slots[t.slot]
	switch {
	case t.fresh && p.rec == nil:
		p.who = w.finder.find(w.ctx, t.event.Caller)
		if p.who.later {
			e := t.event
			p.event = &e
		}
		p.rec = w.book.place(&t.event, p.who)
	case p.event != nil && t.count > 0:
		// Nobody looked for the program of the first ones.
		if who := w.finder.find(w.ctx, p.event.Caller); !who.later {
			p.who, p.rec, p.event = who, w.book.place(p.event, who), nil
		} else if t.fresh && p.rec.gone {
			p.rec = w.book.place(&t.event, p.who)
		}
	case t.fresh && p.rec.gone:
		p.rec = w.book.place(&t.event, p.who)
	}
	if t.count == 0 || p.rec == nil {
		return
	}
	p.rec.count(t.count, t.last, t.expires)
	now := time.Now()
	if p.rec.due.IsZero() || !p.rec.due.After(now) {
		w.write(p.rec, now)
	}
}

// write writes what a record has pending.
func (w *writer) write(r *record, now time.Time) {
	if err := w.append(r.entry(w.finder.name)); err != nil {
		r.due = now.Add(retryEvery)
	} else {
		r.pending, r.due = 0, now.Add(lineEvery)
	}
	w.next = soonest(w.next, r.due)
}

func (w *writer) append(e *entry) error {
	if err := w.file.append(e, w.h); err != nil {
		return err
	}
	now := time.Now()
	w.headDue = soonest(w.headDue, now.Add(headEvery))
	if w.file.rotated {
		w.file.rotated = false
		w.headDue = now
	}
	return nil
}

// sweep writes the records that are due, or all, and forgets those that have
// had nothing for a minute.
func (w *writer) sweep(all bool) {
	w.learnKey()
	w.batch = w.l.in.takeAll(w.batch[:0])
	for i := range w.batch {
		w.count(&w.batch[i])
	}
	now := time.Now()
	var due []*record
	w.next = time.Time{}
	gone := false
	for _, r := range w.book.records {
		late := !r.due.After(now.Add(bunch))
		switch {
		case r.pending > 0 && (late || all):
			due = append(due, r)
		case r.pending == 0 && late:
			w.book.remove(r)
			gone = true
		default:
			w.next = soonest(w.next, r.due)
		}
	}
	slices.SortFunc(due, func(a, b *record) int {
		return cmp.Or(a.last.Compare(b.last), cmp.Compare(a.key.event, b.key.event), cmp.Compare(a.key.uid, b.key.uid))
	})
	for _, r := range due {
		w.write(r, now)
	}
	if gone {
		w.book.sweep()
		w.l.in.release(func(slot int32) bool {
			return int(slot) < len(w.slots) && w.slots[slot].rec != nil && w.slots[slot].rec.gone
		})
	}
	if len(w.book.records) == 0 && w.l.in.shrink() {
		w.slots, w.batch, w.book = nil, nil, newBook()
	}
	w.l.setWarning(w.file.warning())
}

// tellLost writes how many events found no place in memory.
func (w *writer) tellLost() {
	now := time.Now()
	if w.lost == 0 || now.Before(w.lostDue) {
		return
	}
	e := &entry{Version: version, Time: now.UTC().Format(timeForm), Count: w.lost, Event: eventLost, Reason: fullReason}
	w.lostDue = now.Add(retryEvery)
	if w.append(e) == nil {
		w.l.cfg.Log.WithField("events", w.lost).Warn("audit log lost events: more came at once than is kept")
		w.lost, w.lostDue = 0, now.Add(lineEvery)
	}
}

// tellCut writes that the last run was killed within a line.
func (w *writer) tellCut() {
	if !w.file.cut {
		return
	}
	e := &entry{Version: version, Time: time.Now().UTC().Format(timeForm), Count: 1, Event: eventLost, Reason: tornReason}
	if w.append(e) == nil {
		w.file.cut = false
		w.l.cfg.Log.WithField(logging.Path, w.file.path).Warn("audit log ended within a line, which was removed")
	}
}

// learnKey asks for the key. When it is there for the first time the file is
// compared with what the vault says of its end.
func (w *writer) learnKey() {
	var key [32]byte
	ok := false
	if w.l.cfg.Key != nil {
		key, ok = w.l.cfg.Key()
	}
	switch {
	case !ok:
		w.h, w.key = nil, [32]byte{}
		return
	case w.h != nil && key == w.key:
		return
	}
	w.h, w.key = newHasher(key), key
	if !w.bound {
		if w.bound = w.bind(); !w.bound {
			w.h, w.key = nil, [32]byte{}
			return
		}
	}
	if w.file.last != nil {
		w.headDue = time.Now() // seals what was written without the key
	}
}

// bind compares the file with the vault's record of its end. It reports
// whether the vault could be asked.
func (w *writer) bind() bool {
	if w.l.cfg.Store == nil {
		return true
	}
	hash, err := loadHead(w.ctx, w.l.cfg.Store)
	if errors.Is(err, cred.ErrLocked) {
		return false
	}
	if err == nil {
		var good bool
		if good, err = w.compare(hash); err == nil && !good {
			w.file.instead = cmp.Or(hash, w.h.keyed([]byte("no record")))
			w.l.cfg.Log.WithField(logging.Path, w.l.cfg.Path).Error("audit log is not what it was when keyfob last wrote it")
		}
	}
	if err != nil {
		w.l.cfg.Log.WithError(err).Warn("cannot compare the audit log with the vault")
	}
	return true
}

func (w *writer) compare(hash string) (good bool, err error) {
	s, err := open(w.l.cfg.Path)
	if err != nil {
		return false, err
	}
	defer s.close()
	begin := w.h.keyed(nil)
	switch {
	case hash != "" && hash != begin:
		return s.continues(w.h, hash)
	case hash == begin:
		return true, nil
	}
	// The record is made before the first keyed line, so that a log with
	// such lines and without the record has lost it.
	if sealed, err := s.sealed(); sealed || err != nil {
		return false, err
	}
	return true, saveHead(w.ctx, w.l.cfg.Store, begin)
}

// note makes the file durable and its end known to the vault.
func (w *writer) note() {
	w.headDue = time.Time{}
	err := w.file.sync()
	// What the file should continue, and does not, stays the end until a
	// line says so.
	if err == nil && w.h != nil && w.l.cfg.Store != nil && w.file.last != nil && w.file.instead == "" {
		err = saveHead(w.ctx, w.l.cfg.Store, w.h.keyed(w.file.last))
	}
	switch {
	case err == nil:
		w.headFail = false
	default:
		w.headDue = time.Now().Add(headRetry)
		if !w.headFail {
			w.headFail = true
			w.l.cfg.Log.WithError(err).Warn("audit log can't be sealed")
		}
	}
}

// ending is where the log ends as far as this run knows.
func (w *writer) ending(h *hasher) ending {
	if w.file.instead != "" {
		return ending{hash: w.file.instead}
	}
	if w.file.last == nil {
		return ending{}
	}
	return ending{hash: h.keyed(w.file.last), exact: true}
}

// warning says why writing fails.
func (w *file) warning() string {
	if w.failing == "" {
		return ""
	}
	return "cannot write the audit log, entries are kept in memory: " + w.failing
}
