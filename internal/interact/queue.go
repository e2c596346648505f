package interact

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
)

// ErrRefused is what an Answerer returns when the person said no.
var ErrRefused = errors.New("refused")

// ErrObsolete is what Ask returns when the question was withdrawn because
// the link got its credentials by other means, or because another question
// came in its place. It is a cred.ErrUnavailable: a new try finds them.
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
	asks   map[*ask]bool  // the calls of Ask that wait for it, as many as Waiting
	done   chan struct{}  // closed when it is over; then answer and err stand
	answer cred.Secret
	err    error
}

// ask is one call of Ask.
type ask struct{ ctx context.Context }

// coolDown is why a key is not asked again before a time.
type coolDown struct {
	until time.Time
	why   string
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
// the answer. Calls with one key and one question (whatever profile it is
// for) are one interaction, and all get its answer. Another question under
// the key takes the place of the one before: that is withdrawn where it is
// shown, as the page that it names may be closed by now.
//
// Errors: *cred.InteractionError when nobody is attached (the interaction is
// then shown by Pending until it expires), when everybody who was attached
// left, when the person refused, when nobody answered until it expired, and
// at once while a refusal or an abandoned interaction cools down;
// ErrObsolete after Cancel or another question; the context's error when that ends first.
func (q *Queue) Ask(ctx context.Context, key cred.LinkKey, question cred.Question) (cred.Secret, error) {
	if err := ctx.Err(); err != nil {
		return cred.Secret{}, err
	}
	me := &ask{ctx}
	q.mu.Lock()
	it, err := q.join(me, key, question)
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
		it.unjoin(me)
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
func (q *Queue) join(me *ask, key cred.LinkKey, question cred.Question) (*interaction, error) {
	// Whoever puts another question ends the contexts of the one before
	// first, so that a call that comes late does not bring that back.
	if err := me.ctx.Err(); err != nil {
		return nil, err
	}
	now := time.Now()
	q.tidy(now)
	nobody := cred.IsUnattended(me.ctx) && opens(question.Kind)
	it := q.all[key]
	if it != nil && it.live {
		if left, deadline := it.left(); left {
			q.leave(it, deadline) // before they can say so themselves
			it = q.all[key]
		}
	}
	if it != nil && it.live {
		switch {
		case nobody:
			return nil, q.interactionError(key, question, "nobody is there to answer")
		case same(it.Question, question):
			it.join(me)
			return it, nil
		}
		q.note(it, "another question takes the place of this one")
		q.end(it, cred.Secret{}, ErrObsolete)
		it = nil
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
	it.join(me)
	it.shown, it.open, it.failed = 0, 0, nil
	it.done = make(chan struct{})
	it.ctx, it.cancel = context.WithCancel(context.Background())
	q.live = append(q.live, it)
	for _, p := range q.places {
		q.dispatch(p)
	}
	return it, nil
}

// same reports whether two questions are one to a person. For whose profile
// they are asked makes no difference.
func same(a, b cred.Question) bool {
	a.Profile, b.Profile = "", ""
	choices := slices.Equal(a.Choices, b.Choices)
	a.Choices, b.Choices = nil, nil
	return choices && reflect.DeepEqual(a, b)
}

func (it *interaction) join(a *ask) {
	if it.asks == nil {
		it.asks = map[*ask]bool{}
	}
	it.asks[a] = true
	it.Waiting = len(it.asks)
}

func (it *interaction) unjoin(a *ask) {
	delete(it.asks, a)
	it.Waiting = len(it.asks)
}

// left reports whether the contexts of all calls that wait have ended, though
// the calls have not returned yet, and whether by a deadline.
func (it *interaction) left() (left, deadline bool) {
	for a := range it.asks {
		err := a.ctx.Err()
		if err == nil {
			return false, false
		}
		deadline = deadline || errors.Is(err, context.DeadlineExceeded)
	}
	return true, deadline
}

// opens reports whether a question takes a person to a page.
func opens(kind string) bool {
	return kind == cred.AskBrowser || kind == cred.AskDevice || kind == cred.AskCode || kind == cred.AskSAML
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
