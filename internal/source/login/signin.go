package login

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/signin/types"
	"github.com/sirupsen/logrus"

	"keyfob/internal/cred"
	"keyfob/internal/source/flight"
	"keyfob/internal/source/loopback"
)

// What the AWS CLI is known as to the Signin service, and where its pages
// are.
const (
	sameDevice       = "arn:aws:signin:::devtools/same-device"
	crossDevice      = "arn:aws:signin:::devtools/cross-device"
	authorizePath    = "/v1/authorize"
	confirmationPath = "/v1/sessions/confirmation"
)

var errNoBrowser = errors.New("there is no browser")

// grant is one sign-in that a person is asked for: what the page is sent,
// and what the code that it gives is redeemed with (RFC 7636).
type grant struct {
	client, redirect string
	state, verifier  string
	key              *ecdsa.PrivateKey
}

func newGrant(client, redirect string) (*grant, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	state, err := newUUID()
	if err != nil {
		return nil, err
	}
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return &grant{client, redirect, state, b64url.EncodeToString(b[:]), key}, nil
}

// address is the page that the person opens. This service spells the method
// SHA-256 where RFC 7636 has S256.
func (g *grant) address(base *url.URL) string {
	sum := sha256.Sum256([]byte(g.verifier))
	return page(base, authorizePath, url.Values{
		"response_type": {"code"}, "client_id": {g.client}, "state": {g.state}, "scope": {"openid"}, "redirect_uri": {g.redirect},
		"code_challenge_method": {"SHA-256"}, "code_challenge": {b64url.EncodeToString(sum[:])},
	}).String()
}

// signIn asks a person to sign in, redeems what he brings, keeps it, and
// returns its credentials.
func (a *attempt) signIn(ctx context.Context) (cred.Credentials, error) {
	none := cred.Credentials{}
	var x *session
	err := errNoBrowser
	if how := a.in.Signin; how == nil || !how.Remote && !how.Device {
		x, err = a.browser(ctx)
	}
	if errors.Is(err, errNoBrowser) {
		x, err = a.remote(ctx)
	}
	if err != nil {
		return none, err
	}
	if a.rec == nil {
		if a.rec, _, err = load(ctx, a.d.Store, x.arn); err != nil && a.rec == nil {
			return none, &storeError{doing: "keep the console sign-in " + printable(x.arn), err: err}
		}
	}
	if err := a.rec.put(x); err != nil {
		return none, err
	}
	if err := a.keepRecord(ctx); err != nil {
		return none, err
	}
	a.d.Log.WithFields(logrus.Fields{"profile": a.in.Profile, "login_session": x.arn}).Info("signed in")
	if a.arn == "" {
		if err := a.learned(ctx, x.arn); err != nil {
			return none, err
		}
	}
	return x.access, nil
}

// learned tells who signed in for a profile that named nobody.
func (a *attempt) learned(ctx context.Context, arn string) error {
	e := a.d.Sessions.of(a.key)
	e.learn(ctx, arn, false)
	if a.d.Learned != nil {
		if err := a.d.Learned(ctx, a.link.Profile, arn); err != nil {
			return &storeError{doing: "note who signed in for profile " + a.link.Profile, err: err}
		}
	}
	e.learn(ctx, arn, true)
	return nil
}

func (a *attempt) question(kind, address string, answer func(cred.Secret)) flight.Question {
	text := "Sign in to AWS for profile " + a.in.Profile
	if a.arn != "" {
		text = "Sign in to AWS as " + printable(a.arn) + " for profile " + a.in.Profile
	}
	if kind == cred.AskCode {
		text += ": open the page in any browser and paste the code that it shows"
	}
	return flight.Question{Why: a.why, Question: cred.Question{Kind: kind, Text: text, URL: address}, Answer: answer}
}

// browser signs in in a browser of this machine, which the page sends back to
// us. errNoBrowser where none can be opened.
func (a *attempt) browser(ctx context.Context) (x *session, err error) {
	back, err := loopback.Listen(0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = back.Close() }()
	back.Log = a.d.Log
	g, err := newGrant(sameDevice, back.RedirectURI())
	if err != nil {
		return nil, err
	}

	// The person's answer comes to the listener, or the Asker says that there
	// will be none, which ends the waiting.
	waiting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	asked := a.f.Ask(ctx, a.question(cred.AskBrowser, g.address(a.base), func(answer cred.Secret) {
		if answer.Reveal() == cred.AnswerNoBrowser {
			stop(errNoBrowser)
		}
	}))
	defer func() { asked.Over(err != nil && context.Cause(waiting) == nil) }()

	values, err := back.Wait(waiting, g.state)
	var said *loopback.AnswerError
	switch {
	case err == nil:
		asked.Acted()
		return a.redeem(ctx, g, values.Get("code"))
	case errors.Is(err, loopback.ErrRefused):
		return nil, &flight.PersonError{Kind: cred.AskBrowser, Why: "the sign-in was refused in the browser"}
	case errors.As(err, &said):
		return nil, a.refused(said.Error(), "keyfob login "+a.in.Profile+" to try again", err)
	case context.Cause(waiting) != nil:
		return nil, context.Cause(waiting)
	}
	return nil, err
}

// remote signs in in any browser; the person carries the code here.
func (a *attempt) remote(ctx context.Context) (*session, error) {
	g, err := newGrant(crossDevice, a.base.JoinPath(confirmationPath).String())
	if err != nil {
		return nil, err
	}
	answers := make(chan cred.Secret, 1)
	asked := a.f.Ask(ctx, a.question(cred.AskCode, g.address(a.base), func(answer cred.Secret) { answers <- answer }))
	defer asked.Over(false)
	var pasted cred.Secret
	select {
	case pasted = <-answers:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	code, why := codeOf(pasted, g.state)
	if why != "" {
		return nil, a.refused(why, "keyfob login "+a.in.Profile+" --remote opens a new page", &wrongCode{why})
	}
	return a.redeem(ctx, g, code)
}

// codeOf reads what the page showed: base64 of state=…&code=…. why says what
// is wrong with it, without showing it.
func codeOf(pasted cred.Secret, state string) (code, why string) {
	const strange = "what was pasted is not what the page shows"
	text := strings.Map(func(r rune) rune {
		if r <= ' ' {
			return -1 // terminals and mails break lines
		}
		return r
	}, pasted.Reveal())
	text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(text), "=")
	b, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return "", strange
	}
	v, err := url.ParseQuery(string(b))
	if err != nil || len(v["state"]) != 1 || len(v["code"]) != 1 || v.Get("code") == "" {
		return "", strange
	}
	if subtle.ConstantTimeCompare([]byte(v.Get("state")), []byte(state)) != 1 {
		return "", "what was pasted is the code of another sign-in (its state is not ours)"
	}
	return v.Get("code"), ""
}

// redeem gets the tokens for a code and checks whose they are.
func (a *attempt) redeem(ctx context.Context, g *grant, code string) (*session, error) {
	const op = "CreateOAuth2Token"
	doing := "sign in for profile " + a.in.Profile
	body := &types.CreateOAuth2TokenRequestBody{
		ClientId: aws.String(g.client), GrantType: aws.String(grantCode), Code: aws.String(code), CodeVerifier: aws.String(g.verifier), RedirectUri: aws.String(g.redirect),
	}
	t, c, err := a.token(ctx, op, doing, g.key, body)
	var up *cred.UpstreamError
	if errors.As(err, &up) && up.Code == codeInvalid && c.moved() {
		// Our clock is wrong, and the person need not do it all again for
		// that: the code is still good, and now we know AWS's time.
		t, c, err = a.token(ctx, op, doing, g.key, body)
	}
	var ended *endedError
	switch {
	case errors.As(err, &ended):
		return nil, &flight.PersonError{Kind: cred.AskBrowser, Why: ended.why}
	case err != nil:
		return nil, err
	}
	arn, err := subject(t.id)
	if err != nil {
		return nil, c.bad(op, doing, err.Error())
	}
	if a.arn != "" && arn != a.arn {
		return nil, a.refused("the person signed in as "+arn+", and login_session says "+printable(a.arn),
			"sign in as the one that login_session names, or correct login_session", nil)
	}
	x := &session{arn: arn, clientID: g.client, key: g.key, refresh: t.refresh, access: t.access}
	x.access.AccountID = accountOf(arn)
	return x, nil
}

// refused is a sign-in that failed for good.
func (a *attempt) refused(why, help string, err error) error {
	return &cred.UpstreamError{Op: "SignIn", Target: a.arn, Message: "cannot sign in for profile " + a.in.Profile + ": " + why, Help: help, Refused: true, Err: err}
}
