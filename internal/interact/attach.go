package interact

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"keyfob/internal/cred"
)

// place is where prompts appear, one at a time.
type place struct {
	name  string
	seats []*seat // in the order in which they were attached
	busy  bool    // a Prompt runs
}

// seat is one attached Answerer.
type seat struct {
	answerer Answerer
	keys     map[cred.LinkKey]bool
	place    *place
	ctx      context.Context // ends when it is detached
	prompts  sync.WaitGroup
}

// Attach says that a can answer the questions of these keys, until detach is
// called. A question that is being asked now is put to a as well; one that
// only waits to be asked is not, until the next Ask. detach ends a's prompt,
// if one is open, and returns after it has; it may be called again, but not
// from within Prompt.
func (q *Queue) Attach(keys []cred.LinkKey, a Answerer) (detach func()) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &seat{answerer: a, keys: make(map[cred.LinkKey]bool, len(keys)), ctx: ctx}
	for _, k := range keys {
		s.keys[k] = true
	}
	name := ""
	if p, ok := a.(Placed); ok {
		name = p.Place()
	}

	q.mu.Lock()
	s.place = q.named[name]
	if name == "" || s.place == nil {
		s.place = &place{name: name}
		q.places = append(q.places, s.place)
		if name != "" {
			q.named[name] = s.place
		}
	}
	s.place.seats = append(s.place.seats, s)
	q.dispatch(s.place)
	q.mu.Unlock()

	var once sync.Once
	return func() {
		once.Do(func() {
			q.mu.Lock()
			q.unseat(s)
			q.mu.Unlock()
			cancel()
		})
		s.prompts.Wait()
	}
}

// unseat removes s, and ends what nobody else can ask. q.mu is held.
func (q *Queue) unseat(s *seat) {
	p := s.place
	p.seats = slices.DeleteFunc(p.seats, func(other *seat) bool { return other == s })
	if len(p.seats) == 0 {
		q.places = slices.DeleteFunc(q.places, func(other *place) bool { return other == p })
		if q.named[p.name] == p {
			delete(q.named, p.name)
		}
	}
	for _, it := range slices.Clone(q.live) {
		if s.keys[it.Key] && !q.attended(it) {
			q.abandon(it)
		}
	}
}

// attended reports whether somebody is attached who could be asked.
func (q *Queue) attended(it *interaction) bool {
	for _, p := range q.places {
		for _, s := range p.seats {
			if s.keys[it.Key] && !it.failed[s] {
				return true
			}
		}
	}
	return false
}

// dispatch starts the next prompt of a place that shows none: of the oldest
// live interaction that somebody there can ask. q.mu is held.
func (q *Queue) dispatch(p *place) {
	if p.busy {
		return
	}
	for _, it := range q.live {
		if !time.Now().Before(it.Expires) {
			continue // a call of Ask is about to say so
		}
		for _, s := range p.seats {
			if !s.keys[it.Key] || it.failed[s] || it.open > 0 && alone(it.Kind) {
				continue
			}
			p.busy = true
			it.open++
			it.shown++
			pending := it.Pending
			s.prompts.Go(func() { q.prompt(it, pending, s) })
			return
		}
	}
}

// alone reports whether a kind of question is put to one Answerer at a time:
// each would open a browser of its own.
func alone(kind string) bool { return kind == cred.AskBrowser || kind == cred.AskSAML }

// prompt runs one Prompt and takes its result.
func (q *Queue) prompt(it *interaction, pending Pending, s *seat) {
	ctx, cancel := context.WithDeadline(it.ctx, pending.Expires)
	stop := context.AfterFunc(s.ctx, cancel)
	answer, err := s.answerer.Prompt(ctx, pending)
	stop()
	cancel()

	q.mu.Lock()
	defer q.mu.Unlock()
	s.place.busy = false
	it.open--
	defer func() {
		if alone(pending.Kind) { // the next one to try may be anywhere
			for _, p := range q.places {
				q.dispatch(p)
			}
		} else {
			q.dispatch(s.place)
		}
	}()
	if !it.live || it.ctx != nil && it.ctx.Err() != nil {
		return // it is over: what came is dropped
	}
	switch {
	case err == nil && !answer.IsZero():
		q.end(it, answer, nil)
	case err == nil, errors.Is(err, ErrRefused):
		q.note(it, "a person refused the question")
		q.startCoolDown(it.Key, "it was refused")
		q.end(it, cred.Secret{}, q.interactionError(it.Key, it.Question, "it was refused"))
	case !time.Now().Before(pending.Expires):
		// a call of Ask is about to say that it expired
	default:
		if errors.Is(err, ErrNobody) {
			it.shown-- // nobody saw it: nothing to cool down from
		}
		q.fail(it, s)
	}
}

// fail notes that s can't ask it, and ends it when nobody else can. q.mu is
// held.
func (q *Queue) fail(it *interaction, s *seat) {
	if it.failed == nil {
		it.failed = map[*seat]bool{}
	}
	it.failed[s] = true
	if it.live && !q.attended(it) {
		q.abandon(it)
	}
}
