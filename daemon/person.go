package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"keyfob/internal/audit"
	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/interact"
	"keyfob/profiles"
)

// wishLasts is how long a request of an endpoint's client makes its question
// one that may be asked on the desktop: longer than any attempt takes to
// come to it.
const wishLasts = 2 * time.Minute

// desktop asks the daemon's user in the graphical session, on behalf of
// endpoints' clients: behind a command there is a person of its own, or it
// said that there is none.
type desktop struct {
	dialog *interact.Dialog // nil where there is no such session

	mu     sync.Mutex // guards wishes
	wishes map[cred.LinkKey]time.Time
}

// newDialog returns what asks in the session of the daemon's user, nil where
// there is none. A daemon that serves a whole machine is nobody's session.
func (d *daemon) newDialog() *interact.Dialog {
	path, err := besideSelf(interact.SigninName)
	if err != nil || d.system() || !d.graphical() {
		return nil
	}
	return interact.NewDialog(interact.DialogConfig{Program: path, Environ: d.opt.Env, Log: d.log})
}

func (d *daemon) graphical() bool {
	if runtime.GOOS == "darwin" || runtime.GOOS == "windows" {
		return true // where there is no session the dialog says so itself
	}
	return d.env["DISPLAY"] != "" || d.env["WAYLAND_DISPLAY"] != ""
}

// wish notes that r came by an endpoint and could not be answered from
// memory: what it needs of a person may be asked on the desktop.
func (d *daemon) wish(r cred.Request) {
	if d.desktop.dialog == nil || r.Via.Kind != cred.ViaIMDS && r.Via.Kind != cred.ViaContainer || d.conf().Interactive == "never" {
		return
	}
	keys, _, err := d.broker.Chain(r)
	if err != nil {
		return // the broker's own answer says what is wrong
	}
	if key, ok := d.confirmKey(r); ok {
		keys = append(keys, key)
	}
	now := time.Now()
	d.desktop.mu.Lock()
	defer d.desktop.mu.Unlock()
	if d.desktop.wishes == nil {
		d.desktop.wishes = map[cred.LinkKey]time.Time{}
	}
	maps.DeleteFunc(d.desktop.wishes, func(_ cred.LinkKey, until time.Time) bool { return !now.Before(until) })
	for _, k := range keys {
		d.desktop.wishes[k] = now.Add(wishLasts)
	}
}

// wished reports whether a question may be asked on the desktop.
func (x *desktop) wished(key cred.LinkKey) bool {
	if x.dialog == nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	until, ok := x.wishes[key]
	return ok && time.Now().Before(until)
}

// asker is the queue, with the desktop among those who can be asked where an
// endpoint's client wants to know. What needs a browser or a text is left to
// commands.
type asker daemon

// Ask is the queue's.
func (a *asker) Ask(ctx context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	if q.Kind == cred.AskConfirm && !(*daemon)(a).mayQuestion(key) {
		return cred.Secret{}, &cred.InteractionError{Key: key, Kind: q.Kind, Profile: q.Profile,
			Message: "cannot get credentials for " + q.Profile + ": a person must act: too many questions about programs of this user wait for an answer", Help: "keyfob answer"}
	}
	if (q.Kind == cred.AskMFA || q.Kind == cred.AskConfirm) && a.desktop.wished(key) && a.config.Load().Interactive != "never" {
		defer a.queue.Attach([]cred.LinkKey{key}, a.desktop.dialog)()
	}
	answer, err := a.queue.Ask(ctx, key, q)
	if err == nil && q.Kind == cred.AskConfirm {
		(*daemon)(a).confirmed(key, q, answer.Reveal())
	}
	return answer, err
}

// confirmed records what a person said of a program that wants a protected
// profile.
func (d *daemon) confirmed(key cred.LinkKey, q cred.Question, answer string) {
	if !slices.Contains(q.Choices, answer) {
		return
	}
	who, _ := d.confirming.caller(key)
	d.recorder().Record(cred.Event{Kind: audit.EventConfirmation, Profile: q.Profile, Via: cred.Endpoint{Kind: "control"}, Caller: who,
		Reason: "a person said: " + answer + ", of " + q.Program})
}

// confirm is the broker's question whether a person lets the program have a
// protected profile.
func (d *daemon) confirm(ctx context.Context, r cred.Request) error {
	if key, err := d.consents.Key(ctx, r.Caller, r.Profile); err == nil {
		d.confirming.note(key, r.Caller, func(k cred.LinkKey) bool {
			return slices.ContainsFunc(d.queue.Pending(), func(p interact.Pending) bool { return p.Key == k })
		})
	}
	return d.consents.Confirm(ctx, r.Caller, r.Profile, (*asker)(d))
}

// protected reports whether a person confirms each program that gets a
// profile: by a rule, or by the profile's own setting.
func (d *daemon) protected(profile string) bool {
	if d.rules.Load().Protected(profile) {
		return true
	}
	return d.saysProtected(profile)
}

// protectedBy is what one set of files says of profiles' own protected keys,
// as far as it was asked.
type protectedBy struct {
	set  *profiles.Set
	says sync.Map // name -> bool
}

// saysProtected reports whether the profile's own settings say protected.
// Each request of a grant asks, so a profile is resolved once for each read
// of the files. What can't be resolved is not handed out anyway.
func (d *daemon) saysProtected(profile string) bool {
	by := d.protectedBy.Load()
	if by == nil {
		return false // nothing was read yet, and nothing is handed out
	}
	if says, ok := by.says.Load(profile); ok {
		return says.(bool)
	}
	p, err := by.set.Resolve(named(profile))
	says := err == nil && p.Protected
	by.says.Store(profile, says)
	return says
}

// confirmKey is the key under which a person is asked about r's program,
// where that is needed.
func (d *daemon) confirmKey(r cred.Request) (cred.LinkKey, bool) {
	if r.Grant != "" || !d.protected(r.Profile) {
		return cred.LinkKey{}, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	key, err := d.consents.Key(ctx, r.Caller, r.Profile)
	return key, err == nil
}

// stillPending reports whether a question still waits for an answer.
func (d *daemon) stillPending(id string) bool {
	for _, p := range d.queue.Pending() {
		if p.ID == id {
			return true
		}
	}
	return false
}

// answerQuestion puts a question that waits to the person behind the caller.
func (d *daemon) answerQuestion(c *call) (any, error) {
	p, err := decode[control.AnswerParams](c)
	if err != nil {
		return nil, err
	}
	var it *interact.Pending
	for _, q := range d.queue.Pending() {
		if (p.Interaction == "" || q.ID == p.Interaction) && d.mayAnswer(c, &q) {
			it = &q
			break
		}
	}
	switch {
	case it == nil && p.Interaction == "":
		return nil, &control.Error{Code: control.CodeNotFound, Message: "cannot answer: no question waits", Hint: "keyfob status"}
	case it == nil:
		return nil, &control.Error{Code: control.CodeNotFound, Message: "cannot answer " + p.Interaction + ": no such question waits", Hint: "keyfob status"}
	}
	d.queue.Reset(it.Key)
	watched, stop := c.conn.Watch(c.ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(watched, d.conf().SignInTimeout)
	defer cancel()
	keys := []cred.LinkKey{it.Key}
	r := c.caller
	r.Profile, r.MayAsk, r.Via = it.Profile, true, cred.Endpoint{Kind: cred.ViaLogin}
	if it.Kind != cred.AskConfirm {
		if chain, _, err := d.broker.Chain(r); err == nil {
			keys = append(keys, chain...)
		}
	}
	defer d.queue.Attach(keys, c.terminal(it.Profile))()

	switch {
	case it.Key == recoveryQuestion:
		_, err = d.queue.Ask(ctx, it.Key, it.Question) // with the command that waits
	case it.Kind == cred.AskConfirm:
		err = d.consents.Retry(ctx, it.Key, (*asker)(d))
	default:
		// What is in hand may do, and leave the question where it is: then it is
		// put all the same.
		_, err = d.broker.Fresh(ctx, r)
		if err == nil && d.stillPending(it.ID) {
			_, err = d.broker.Refresh(ctx, r)
		}
	}
	var person *cred.InteractionError
	switch {
	case err == nil:
		return control.Empty{}, nil
	case errors.Is(err, cred.ErrDenied) && it.Kind == cred.AskConfirm:
		return control.Empty{}, nil // "no" is an answer too
	case errors.Is(err, cred.ErrNotFound), !errors.As(err, &person) && ctx.Err() == nil && !d.stillPending(it.ID):
		return control.Empty{}, nil // answered, by this person or another; what came after it is not asked here
	}
	return nil, fmt.Errorf("cannot answer for %s: %w", it.Profile, err)
}
