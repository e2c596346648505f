package interact

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
)

// ErrRefused is what an Answerer returns when the person said no.
var ErrRefused = errors.New("refused")

// ErrObsolete is what Ask returns when the question was withdrawn because
// the link got its credentials by other means. It is a cred.ErrUnavailable:
// a new try finds them.
var ErrObsolete = fmt.Errorf("the question is no longer needed: %w", cred.ErrUnavailable)

// Answerer can put a question to a person: a keyfob that waits at a
// terminal, a dialog in a session.
type Answerer interface {
	// Prompt asks and waits for the answer. It returns soon after ctx ends,
	// which means that the question is over (answered elsewhere, withdrawn,
	// expired, or the Answerer detached) and that what is on the screen can
	// go. ErrRefused when the person said no; any other error means that
	// this Answerer could not ask, and the next one is tried.
	Prompt(ctx context.Context, p Pending) (cred.Secret, error)
}

// Placed is an Answerer that knows where its prompts appear: a terminal, a
// session. Answerers of one place show one prompt at a time between them, so
// that fifty commands in one terminal are one prompt. One that is not
// Placed, or whose Place is "", is a place of its own.
type Placed interface {
	Place() string
}

// Pending is one interaction that waits for a person.
type Pending struct {
	ID       string       // for people and for the protocol; a new one each time
	Key      cred.LinkKey // of the link that needs it
	Kind     string       // cred.AskMFA, …
	Profile  string       // on whose behalf it was first asked
	Question cred.Question
	Since    time.Time
	Expires  time.Time // when it is given up, or no longer shown
	Waiting  int       // calls of Ask that wait for it now
}

// Config is how a Queue behaves. The zero value is the usual one.
type Config struct {
	Expiry   time.Duration // of an interaction; 10 minutes
	CoolDown time.Duration // after a refusal or an abandoned interaction; 60 s
	Log      *logrus.Entry // nil for none
}

// Queue holds the interactions. It implements cred.Asker. It has no
// goroutine of its own but those that run a Prompt; detaching its Answerer
// joins them.
type Queue struct {
	coolDown time.Duration
	log      *logrus.Entry

	mu     sync.Mutex // guards what follows, and the fields of interactions, places and seats
	expiry time.Duration
	all    map[cred.LinkKey]*interaction
	live   []*interaction // those of all that are being asked, oldest first
	cool   map[cred.LinkKey]coolDown
	places []*place // in the order in which they came
	named  map[string]*place
}

// interaction is one question. It is recorded while nobody is asked, and
// live while at least one call of Ask waits and an Answerer is there.
type interaction struct {
	Pending
	live   bool
	ctx    context.Context // of its prompts; ends when it is over
	cancel context.CancelFunc
	open   int            // prompts that are open now
	shown  int            // Prompts of it that a person may have seen
	failed map[*seat]bool // who could not ask it
	done   chan struct{}  // closed when it is over; then answer and err stand
	answer cred.Secret
	err    error
}

// coolDown is why a key is not asked again before a time.
type coolDown struct {
	until time.Time
	why   string
}

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

// NewQueue returns a Queue. It starts nothing.
func NewQueue(cfg Config) *Queue {
	q := &Queue{
		coolDown: cfg.CoolDown, log: cfg.Log,
		all:   map[cred.LinkKey]*interaction{},
		cool:  map[cred.LinkKey]coolDown{},
		named: map[string]*place{},
	}
	q.SetExpiry(cfg.Expiry)
	if q.coolDown <= 0 {
		q.coolDown = time.Minute
	}
	return q
}

// SetExpiry sets Config.Expiry anew, for interactions that begin from now on.
func (q *Queue) SetExpiry(d time.Duration) {
	if d <= 0 {
		d = 10 * time.Minute
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.expiry = d
}

// Ask puts the question to whoever is attached for the key, and waits for
// the answer. Calls with one key are one interaction: the question of the
// first one is asked, and all get its answer.
//
// Errors: *cred.InteractionError when nobody is attached (the interaction is
// then shown by Pending until it expires), when everybody who was attached
// left, when the person refused, when nobody answered until it expired, and
// at once while a refusal or an abandoned interaction cools down;
// ErrObsolete after Cancel; the context's error when that ends first.
func (q *Queue) Ask(ctx context.Context, key cred.LinkKey, question cred.Question) (cred.Secret, error) {
	if err := ctx.Err(); err != nil {
		return cred.Secret{}, err
	}
	q.mu.Lock()
	it, err := q.join(ctx, key, question)
	q.mu.Unlock()
	if err != nil {
		return cred.Secret{}, err
	}

	expired := time.NewTimer(time.Until(it.Expires))
	defer expired.Stop()
	select {
	case <-it.done:
	case <-ctx.Done():
		q.mu.Lock()
		defer q.mu.Unlock()
		it.Waiting--
		if !it.live {
			break // it ended at the same moment: its answer is as good
		}
		if it.Waiting == 0 {
			q.leave(it, errors.Is(ctx.Err(), context.DeadlineExceeded))
		}
		return cred.Secret{}, ctx.Err()
	case <-expired.C:
		q.mu.Lock()
		if it.live {
			q.startCoolDown(key, "nobody answered")
			q.end(it, cred.Secret{}, q.interactionError(it.Key, it.Question, "nobody answered in "+q.expiry.String()))
		}
		q.mu.Unlock()
	}
	return it.answer, it.err
}

// join returns the live interaction of key with this call counted as
// waiting, or why there is none. q.mu is held.
func (q *Queue) join(ctx context.Context, key cred.LinkKey, question cred.Question) (*interaction, error) {
	now := time.Now()
	q.tidy(now)
	it := q.all[key]
	nobody := cred.IsUnattended(ctx) && opens(question.Kind)
	if it != nil && it.live && nobody {
		return nil, q.interactionError(key, question, "nobody is there to answer")
	}
	if it != nil && it.live {
		it.Waiting++
		return it, nil
	}
	if it == nil {
		it = &interaction{Pending: Pending{
			ID: newID(), Key: key, Kind: question.Kind, Profile: question.Profile, Question: question, Since: now,
		}}
		q.all[key] = it
	}
	// What was recorded while nobody was there may be stale: the address of
	// a sign-in whose listener has closed.
	it.Kind, it.Profile, it.Question = question.Kind, question.Profile, question
	it.Expires = now.Add(q.expiry)
	if c, ok := q.cool[key]; ok {
		left := c.until.Sub(now).Round(time.Second)
		return nil, q.interactionError(key, question, fmt.Sprintf("%s, and it is asked again in %s", c.why, left))
	}
	if nobody || !q.attended(it) {
		return nil, q.interactionError(key, question, "nobody is there to answer")
	}
	it.live = true
	it.Waiting = 1
	it.shown, it.open, it.failed = 0, 0, nil
	it.done = make(chan struct{})
	it.ctx, it.cancel = context.WithCancel(context.Background())
	q.live = append(q.live, it)
	for _, p := range q.places {
		q.dispatch(p)
	}
	return it, nil
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

// opens reports whether a question takes a person to a page.
func opens(kind string) bool {
	return kind == cred.AskBrowser || kind == cred.AskDevice || kind == cred.AskCode || kind == cred.AskSAML
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

// abandon ends a live interaction whose people have all left. It stays
// recorded: it is still needed. q.mu is held.
func (q *Queue) abandon(it *interaction) {
	if it.shown > 0 {
		q.note(it, "everybody who was asked left without an answer")
		q.startCoolDown(it.Key, "the question was left without an answer")
	}
	why := "whoever was asked left without an answer"
	if it.shown == 0 {
		why = "nobody is there to answer"
	}
	q.end(it, cred.Secret{}, q.interactionError(it.Key, it.Question, why))
	q.record(it)
}

// leave ends a live interaction for which nobody waits any more. When the
// last call gave up by its deadline the person let it pass, and asking again
// at once would only bring the same prompt back. q.mu is held.
func (q *Queue) leave(it *interaction, deadline bool) {
	if deadline && it.shown > 0 {
		q.startCoolDown(it.Key, "the question was left without an answer")
	}
	q.end(it, cred.Secret{}, context.Canceled)
	if deadline {
		q.record(it)
	}
}

// end ends a live interaction and wakes who waits. q.mu is held.
func (q *Queue) end(it *interaction, answer cred.Secret, err error) {
	it.live = false
	it.answer, it.err = answer, err
	it.cancel()
	close(it.done)
	q.live = slices.DeleteFunc(q.live, func(other *interaction) bool { return other == it })
	if q.all[it.Key] == it {
		delete(q.all, it.Key)
	}
}

// record keeps an interaction that has ended visible as one that nobody is
// asked. q.mu is held.
func (q *Queue) record(it *interaction) {
	p := it.Pending
	p.Waiting = 0
	q.all[it.Key] = &interaction{Pending: p}
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

// Pending returns the interactions that wait for a person, oldest first.
func (q *Queue) Pending() []Pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tidy(time.Now())
	list := make([]Pending, 0, len(q.all))
	for _, it := range q.all {
		list = append(list, it.Pending)
	}
	slices.SortFunc(list, func(a, b Pending) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return slices.Compare(a.Key[:], b.Key[:])
	})
	return list
}

// Reset ends a cool-down of key: a person came to answer.
func (q *Queue) Reset(key cred.LinkKey) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.cool, key)
}

// Cancel withdraws the question of key: the link has its credentials, or is
// gone. Calls of Ask return ErrObsolete, prompts end, a cool-down ends too.
func (q *Queue) Cancel(key cred.LinkKey) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.cool, key)
	it := q.all[key]
	switch {
	case it == nil:
	case it.live:
		q.end(it, cred.Secret{}, ErrObsolete)
	default:
		delete(q.all, key)
	}
}

// tidy drops what has expired. q.mu is held.
func (q *Queue) tidy(now time.Time) {
	for key, it := range q.all {
		if !it.live && !now.Before(it.Expires) {
			delete(q.all, key)
		}
	}
	for key, c := range q.cool {
		if !now.Before(c.until) {
			delete(q.cool, key)
		}
	}
}

func (q *Queue) startCoolDown(key cred.LinkKey, why string) {
	q.cool[key] = coolDown{until: time.Now().Add(q.coolDown), why: why}
}

func (q *Queue) note(it *interaction, message string) {
	if q.log != nil {
		q.log.WithFields(logrus.Fields{"interaction": it.ID, "kind": it.Kind, "profile": it.Profile}).Info(message)
	}
}

// interactionError says that question can't be answered now, and why.
func (q *Queue) interactionError(key cred.LinkKey, question cred.Question, why string) error {
	need := "a person must act"
	if question.Kind == cred.AskMFA {
		need = "an MFA code is needed"
	}
	return &cred.InteractionError{
		Key: key, Kind: question.Kind, Profile: question.Profile,
		Message: fmt.Sprintf("cannot get credentials for %s: %s: %s", question.Profile, need, why),
		Help:    "keyfob login " + question.Profile,
	}
}

func newID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
