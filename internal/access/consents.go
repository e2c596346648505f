package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/peer"
)

// Times and numbers of Consents.
const (
	consentHour    = time.Hour
	consentCool    = time.Minute      // after a no, in which nobody is asked
	consentFlight  = 10 * time.Minute // that one question may take
	consentOnce    = 10 * time.Minute // that a "once" waits for who gave up waiting
	consentFlights = 64               // questions at a time
	consentRaised  = 256              // questions that are remembered for Retry
	consentOfUser  = 32               // of them those of one user
	consentWaits   = 10 * time.Minute // how long they are remembered
)

// Consents are the answers of people who were asked whether a program may
// have a protected profile. An answer is about one program of one user and
// one profile, and a program is its path and its content: one that was
// replaced is asked about anew. It holds by what was answered:
//
//   - once: for the requests that wait for the answer; when none waits any
//     more (a metadata client has a second), for the next within ten minutes;
//   - hour: for an hour by the clock, in memory;
//   - always: until Forget, also over restarts;
//   - no: for who waits, and for a minute in which nobody is asked again.
//
// While the Store is locked only what is in memory is known. It is safe for
// concurrent use.
type Consents struct {
	store cred.Store
	log   *logrus.Entry

	ctx    context.Context // of the questions; ends with Close
	cancel context.CancelFunc

	// writing keeps what is done to the Store in order. It is taken before mu.
	writing sync.Mutex

	mu      sync.Mutex // guards what follows, and the fields of asking
	closed  bool
	yes     map[subject]answered
	once    map[subject]time.Time // until when the next one may; answered while nobody waited
	no      map[subject]time.Time // until when nobody is asked
	asked   map[subject]*asking
	raised  map[cred.LinkKey]raised // questions that nobody was there to answer
	flights sync.WaitGroup          // Add is called with mu held, before closed
}

// subject is what an answer is about.
type subject struct {
	uid, program, profile string
	sum                   [sha256.Size]byte // of the program's file
}

// raised is a question that nobody was there to answer.
type raised struct {
	subject
	at time.Time
}

// answered is a yes that is kept.
type answered struct {
	until  time.Time // zero for always
	unkept bool      // it is to be written to the Store yet
	since  time.Time
}

// asking is one question under way.
type asking struct {
	waiting int           // calls of Confirm
	done    chan struct{} // closed when it is over; then err stands
	err     error
}

// OpenConsents returns the answers kept in store. It reads and starts
// nothing; Load reads. Close it at the end. log may be nil.
func OpenConsents(store cred.Store, log *logrus.Entry) *Consents {
	c := &Consents{
		store: store, log: log,
		yes: map[subject]answered{}, once: map[subject]time.Time{}, no: map[subject]time.Time{},
		asked: map[subject]*asking{}, raised: map[cred.LinkKey]raised{},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends the questions under way and returns when none is left. Who
// waits is told that nobody could be asked.
func (c *Consents) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.flights.Wait()
}

// Confirm returns nil where a person's yes holds, or is given now. Any
// number of calls for one program of one user and one profile are one
// question; it goes on when a caller leaves, for up to ten minutes, and its
// answer then counts for the next call. Where a yes holds, Confirm reads
// nothing but memory once the connection's program is known.
//
// Errors: *Denied after a no, for an unidentified caller, and where the
// program or its content can't be told; *cred.InteractionError when nobody
// could be asked; the context's error when that ends first.
func (c *Consents) Confirm(ctx context.Context, caller peer.Caller, profile string, ask cred.Asker) error {
	s, err := subjectOf(ctx, caller, profile)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if known, err := c.judge(s, time.Now()); known {
		c.mu.Unlock()
		return err
	}
	a, err := c.start(s, ask)
	if err != nil {
		c.mu.Unlock()
		return err
	}
	a.waiting++
	c.mu.Unlock()
	return c.wait(ctx, a, func() { a.waiting-- })
}

// Key is the key under which Confirm asks: who can answer attaches for it.
// Errors as for Confirm.
func (c *Consents) Key(ctx context.Context, caller peer.Caller, profile string) (cred.LinkKey, error) {
	s, err := subjectOf(ctx, caller, profile)
	if err != nil {
		return cred.LinkKey{}, err
	}
	return s.key(), nil
}

// Retry asks again a question of Confirm that nobody was there to answer: a
// person came to do so. A "once" then counts for the program's next request.
// nil means that it was answered with yes; errors as for Confirm, and
// cred.ErrNotFound when no such question is open.
func (c *Consents) Retry(ctx context.Context, key cred.LinkKey, ask cred.Asker) error {
	c.mu.Lock()
	r, ok := c.raised[key]
	s := r.subject
	if !ok {
		for under := range c.asked {
			if ok = under.key() == key; ok {
				s = under
				break
			}
		}
	}
	if !ok {
		c.mu.Unlock()
		return fmt.Errorf("cannot ask that again: %w", cred.ErrNotFound)
	}
	a, err := c.start(s, ask)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.wait(ctx, a, func() {})
}

func subjectOf(ctx context.Context, caller peer.Caller, profile string) (subject, error) {
	if !caller.Identified() {
		return subject{}, &Denied{Reason: "the profile is protected, and the caller could not be identified"}
	}
	p, err := caller.Program(ctx)
	var sum [sha256.Size]byte
	if err == nil {
		sum, err = caller.ProgramSHA256(ctx)
	}
	switch {
	case err == nil:
		return subject{uid: caller.UID, program: p.Exe, profile: profile, sum: sum}, nil
	case ctx.Err() != nil:
		return subject{}, ctx.Err()
	}
	return subject{}, &Denied{Reason: "the profile is protected: " + err.Error()}
}

// judge says what is known about s without asking. c.mu is held.
func (c *Consents) judge(s subject, now time.Time) (known bool, err error) {
	if a, ok := c.yes[s]; ok && (a.until.IsZero() || now.Before(a.until)) {
		return true, nil
	}
	if until, ok := c.no[s]; ok && now.Before(until) {
		return true, errNo
	}
	if until, ok := c.once[s]; ok {
		delete(c.once, s)
		return now.Before(until), nil
	}
	return false, nil
}

var errNo = &Denied{Reason: "a person said no to this program"}

// start returns the question about s that is under way, or begins it. c.mu
// is held.
func (c *Consents) start(s subject, ask cred.Asker) (*asking, error) {
	if a := c.asked[s]; a != nil {
		return a, nil
	}
	switch {
	case ask == nil || c.closed:
		return nil, s.nobody("nobody is there to answer")
	case len(c.asked) >= consentFlights:
		return nil, s.nobody("too many other questions wait for an answer")
	}
	a := &asking{done: make(chan struct{})}
	c.asked[s] = a
	c.flights.Go(func() { c.ask(s, a, ask) })
	return a, nil
}

// wait waits for the end of a question. leave is called with c.mu held when
// ctx ends first.
func (c *Consents) wait(ctx context.Context, a *asking, leave func()) error {
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-a.done: // at the same moment, and with this call counted as waiting
		return a.err
	default:
		leave()
		return ctx.Err()
	}
}

// ask puts the question and takes in the answer.
func (c *Consents) ask(s subject, a *asking, ask cred.Asker) {
	ctx, cancel := context.WithTimeout(c.ctx, consentFlight)
	defer cancel()
	name := printable(s.program)
	answer, err := ask.Ask(ctx, s.key(), cred.Question{
		Kind: cred.AskConfirm, Profile: s.profile, Program: name,
		Text:    fmt.Sprintf("May %s have the credentials of %s?", name, s.profile),
		Choices: []string{cred.ConfirmOnce, cred.ConfirmHour, cred.ConfirmAlways, cred.ConfirmNo},
	})
	text := ""
	if err == nil {
		text = strings.TrimSpace(answer.Reveal()) // no secret: one of Choices
	}
	now := time.Now().Round(0) // by the clock: a suspended hour is an hour

	c.mu.Lock()
	c.tidy(now)
	delete(c.asked, s)
	delete(c.raised, s.key())
	understood := true
	switch text {
	case cred.ConfirmOnce:
		if a.waiting == 0 {
			c.once[s] = now.Add(consentOnce)
		}
	case cred.ConfirmHour:
		c.yes[s] = answered{until: now.Add(consentHour), since: now}
	case cred.ConfirmAlways:
		c.yes[s] = answered{unkept: true, since: now}
	case cred.ConfirmNo:
		c.no[s] = now.Add(consentCool)
		delete(c.once, s)
		a.err = errNo
	default:
		understood = false
		a.err = s.unanswered(err)
		c.raise(s, now)
	}
	close(a.done)
	c.mu.Unlock()

	if understood {
		c.note(s, text)
	}
	if text == cred.ConfirmAlways {
		ctx, cancel := context.WithTimeout(context.Background(), consentCool)
		defer cancel()
		if err := c.keep(ctx); err != nil && c.log != nil {
			c.log.WithError(err).WithField(logging.Profile, s.profile).Warn("a person's lasting yes is known until the next start only")
		}
	}
}

// raise remembers a question for Retry. c.mu is held.
func (c *Consents) raise(s subject, now time.Time) {
	of := 0
	for _, r := range c.raised {
		if r.uid == s.uid {
			of++
		}
	}
	if _, again := c.raised[s.key()]; again || len(c.raised) < consentRaised && of < consentOfUser {
		c.raised[s.key()] = raised{s, now}
	}
}

// tidy drops what no longer counts. c.mu is held.
func (c *Consents) tidy(now time.Time) {
	maps.DeleteFunc(c.raised, func(_ cred.LinkKey, r raised) bool { return now.Sub(r.at) >= consentWaits })
	maps.DeleteFunc(c.yes, func(_ subject, a answered) bool { return !a.until.IsZero() && !now.Before(a.until) })
	for _, m := range []map[subject]time.Time{c.once, c.no} {
		maps.DeleteFunc(m, func(_ subject, until time.Time) bool { return !now.Before(until) })
	}
}

func (c *Consents) note(s subject, answer string) {
	if c.log == nil {
		return
	}
	c.log.WithFields(logrus.Fields{
		logging.Profile: s.profile, logging.Program: s.program, "sha256": hex.EncodeToString(s.sum[:]), logging.Caller: s.uid, "answer": answer,
	}).Info("a person answered whether a program may have a protected profile")
}

// key is that of the interaction.
func (s subject) key() cred.LinkKey {
	return cred.KeyOf("confirm", map[string]string{
		"uid": s.uid, "program": s.program, "sha256": hex.EncodeToString(s.sum[:]), "profile": s.profile,
	}, cred.LinkKey{})
}

// nobody is the error of a question that nobody answered.
func (s subject) nobody(why string) error {
	return &cred.InteractionError{
		Key: s.key(), Kind: cred.AskConfirm, Profile: s.profile,
		Message: fmt.Sprintf("cannot get credentials for %s: a person must confirm that %s may have them: %s", s.profile, printable(s.program), why),
		Help:    "keyfob answer",
	}
}

// unanswered is nobody for what Ask returned.
func (s subject) unanswered(err error) error {
	var i *cred.InteractionError
	switch {
	case err == nil:
		return s.nobody("the answer was none of the choices")
	case errors.As(err, &i):
		_, why, ok := strings.Cut(i.Message, "a person must act: ") // as package interact says it
		if !ok {
			why = i.Message
		}
		return s.nobody(why)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return s.nobody("nobody answered")
	}
	return err
}

// printable is a path as a person may be shown it: quoted where it has
// characters that could do something to a terminal.
func printable(path string) string {
	for _, r := range path {
		if !strconv.IsPrint(r) {
			return strconv.Quote(path)
		}
	}
	return path
}
