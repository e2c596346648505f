package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/interact"
	"keyfob/internal/source/login"
	"keyfob/profiles"
)

// attach lets the person behind a call answer the questions of the links of
// r's chain, for as long as the call lasts.
func (d *daemon) attach(c *call, r cred.Request) (detach func()) {
	if !r.MayAsk {
		return func() {}
	}
	keys, _, err := d.broker.Chain(r)
	if err != nil || len(keys) == 0 {
		return func() {} // the broker's own answer says what is wrong
	}
	if key, ok := d.confirmKey(r); ok {
		keys = append(keys, key)
	}
	return d.queue.Attach(keys, c.terminal(r.Profile))
}

// terminal is the person behind the call, who asks for the profile.
func (c *call) terminal(profile string) *terminal {
	t := &terminal{conn: c.conn, place: c.caller.Caller.Terminal}
	if !c.admin {
		t.profile = profile
	}
	return t
}

// terminal is the person behind a control connection: prompts travel to the
// command, which shows them.
type terminal struct {
	conn *conversation
	// code is an answer that was given ahead; it is used once.
	code cred.Secret
	// place is the terminal where prompts appear.
	place string
	// profile stands in prompts, "" for that on whose behalf the question was
	// first asked: links are shared, and that may be another user's.
	profile string
	asked   atomic.Bool // a question came
}

// Place makes fifty commands of one terminal one prompt (interact.Placed).
// A code that was given ahead needs no terminal.
func (t *terminal) Place() string {
	if !t.code.IsZero() {
		return ""
	}
	return t.place
}

// Prompt puts one question and waits for its answer. Errors:
// interact.ErrRefused, or that the command has gone.
func (t *terminal) Prompt(ctx context.Context, p interact.Pending) (cred.Secret, error) {
	t.asked.Store(true)
	t.conn.asking.Lock()
	defer t.conn.asking.Unlock()
	if !t.code.IsZero() && p.Kind == cred.AskMFA {
		code := t.code
		t.code = cred.Secret{}
		return code, nil
	}
	if t.profile != "" {
		p.Profile = t.profile
	}
	err := t.conn.WriteEvent(control.Event{ID: t.conn.id, Event: control.EventPrompt, Prompt: &control.Prompt{
		Interaction: p.ID, Kind: p.Kind, Profile: p.Profile, Serial: p.Question.Serial, Text: p.Question.Text,
		URL: p.Question.URL, UserCode: p.Question.UserCode, Choices: p.Question.Choices, Program: p.Question.Program, SAMLEndpoint: p.Question.SAMLEndpoint}})
	if err != nil {
		return cred.Secret{}, fmt.Errorf("cannot ask: %w", err)
	}
	for {
		a, err := t.conn.ReadAnswer(ctx)
		switch {
		case err != nil:
			return cred.Secret{}, fmt.Errorf("cannot ask: %w", err)
		case a.Interaction != p.ID:
			continue // a late answer to an earlier prompt
		case a.Refused || a.Value == "":
			return cred.Secret{}, interact.ErrRefused
		}
		return cred.NewSecret(a.Value), nil
	}
}

// login signs in: it makes sure that every link of the chain that needs a
// person has a session.
func (d *daemon) login(c *call) (any, error) {
	p, err := decode[control.LoginParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	if p.Force && !c.admin {
		return nil, &control.Error{Code: control.CodeDenied, Message: "cannot sign in anew: the session is shared with others", Hint: "that is for those who administer this machine's keyfob"}
	}
	d.freshProfiles(c.ctx)
	r := d.request(c, p.Context, cred.ViaLogin)
	r.MayAsk = true
	if p.Device || p.Remote || p.Assertion != "" {
		r.Signin = &cred.Signin{Device: p.Device, Remote: p.Remote, Assertion: cred.NewSecret(p.Assertion)}
	}
	keys, links, err := d.broker.Chain(r)
	if err != nil {
		if link, lerr := d.set().LoginLink(d.query(p.Context)); lerr == nil && c.admin {
			return d.firstLogin(c, p, link)
		}
		return nil, about(err, r.Profile)
	}
	if p.Assertion != "" && !slices.ContainsFunc(links, func(l profiles.Link) bool { return l.Kind == profiles.KindSAML }) {
		return nil, &control.Error{Code: control.CodeFailed, Message: "cannot sign in to " + r.Profile + " with an assertion: it has no SAML source", Hint: "keyfob explain " + shellWord(r.Profile)}
	}
	for _, k := range keys {
		d.queue.Reset(k)
	}
	if p.Force {
		d.renew(keys)
	}
	watched, stop := c.conn.Watch(c.ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(watched, d.conf().SignInTimeout+5*time.Second)
	defer cancel()
	here := c.terminal(r.Profile)
	here.code = cred.NewSecret(p.Code)
	defer d.queue.Attach(keys, here)()

	_, had := d.broker.PeekFor(r)
	var snap *cred.Snapshot
	if p.Force {
		snap, err = d.broker.Refresh(ctx, r)
	} else {
		snap, err = d.broker.Fresh(ctx, r)
	}
	if err != nil {
		var up *cred.UpstreamError
		if errors.As(err, &up) && up.Refused {
			text := up.Error()
			if !strings.HasPrefix(text, "cannot sign in") {
				text = "cannot sign in: " + trimCannot(text)
			}
			return nil, cred.WithHint(errors.New(text), up.Hint())
		}
		return nil, about(err, r.Profile)
	}
	return control.LoginResult{
		Profile:    r.Profile,
		Already:    had && !here.asked.Load() && !p.Force,
		AccountID:  snap.AccountID,
		Expiration: stampText(snap.AdvertisedExpiry(time.Now())),
	}, nil
}

// firstLogin signs in at the console for a profile that has no source of
// credentials yet; learnedLogin then gives it one.
func (d *daemon) firstLogin(c *call, p control.LoginParams, link profiles.Link) (any, error) {
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	r := d.request(c, p.Context, cred.ViaLogin)
	if err := d.check(r.Caller, r.Profile, r.Via); err != nil {
		return nil, about(err, r.Profile)
	}
	if err := d.conf().mayRun(link); err != nil {
		return nil, err
	}
	src, err := login.New(link, d.loginDeps())
	if err != nil {
		return nil, about(err, r.Profile)
	}
	key := src.(cred.SignInSource).AskKey()
	d.queue.Reset(key)
	watched, stop := c.conn.Watch(c.ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(watched, d.conf().SignInTimeout)
	defer cancel()
	defer d.queue.Attach([]cred.LinkKey{key}, &terminal{conn: c.conn, place: c.caller.Caller.Terminal})()
	got, err := src.Fetch(ctx, cred.Input{Key: key, Profile: r.Profile, Ask: d.shared.mfa,
		Signin: &cred.Signin{Device: p.Device, Remote: p.Remote}})
	if err != nil {
		return nil, about(err, r.Profile)
	}
	snap := cred.Snapshot{Credentials: got, Fetched: time.Now()}
	return control.LoginResult{Profile: r.Profile, AccountID: got.AccountID, Expiration: stampText(snap.AdvertisedExpiry(time.Now()))}, nil
}
