package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"keyfob/internal/control"
)

// plainCall is a command whose result is that it is done; facts are what
// --json says of it.
func (a *app) plainCall(what, method string, params any, done string, facts any) int {
	ctx, cancel := a.within(awsWait, false)
	defer cancel()
	if err := a.call(ctx, method, params, nil, a.handler(what)); err != nil {
		return a.fail(what, err)
	}
	return a.done(done, facts)
}

// done prints that a command is done.
func (a *app) done(text string, facts any) int {
	if a.opts.json {
		return a.printJSON(facts)
	}
	if a.opts.quiet {
		return exitDone
	}
	return a.print(oneLine(text) + "\n")
}

// profileFact is what --json says where a profile is all there is to say.
type profileFact struct {
	Profile string `json:"profile"`
}

// login is `keyfob login`.
func (a *app) login(in invocation) int {
	const what = "sign in"
	c, err := a.context(in)
	if err != nil {
		return a.fail(what, err)
	}
	c.MayAsk = true // it is what login is for; standard input may answer
	p := control.LoginParams{Context: c, Force: a.opts.force, Device: a.opts.device, Remote: a.opts.remote}
	switch {
	case p.Device && p.Remote:
		return a.fail(what, usage("cannot use both --device and --remote", ""))
	case a.opts.assertionFile != "" && (p.Device || p.Remote):
		return a.fail(what, usage("cannot use --assertion-file with another way to sign in", ""))
	case a.opts.assertionFile != "":
		if p.Assertion, err = a.readAssertion(a.opts.assertionFile); err != nil {
			return a.fail(what, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), a.signInWait())
	defer cancel()
	before := a.waiting(ctx)
	var r control.LoginResult
	err = a.call(ctx, control.MethodLogin, p, &r, a.handler("login"))
	if err != nil {
		return a.fail(what, err)
	}
	defer func() { a.alsoSignedIn(ctx, before, r.Profile) }()
	text := "signed in to " + r.Profile
	if r.Already {
		text = r.Profile + " has a valid session"
	}
	if r.Expiration != "" {
		text += " until " + localTime(r.Expiration)
	}
	return a.done(text, r)
}

// waiting are the profiles that want a person, by what they want.
func (a *app) waiting(ctx context.Context) map[string]string {
	if a.opts.json || a.opts.quiet {
		return nil
	}
	var known control.ListResult
	if a.call(ctx, control.MethodList, a.environment(), &known, nil) != nil {
		return nil
	}
	missing := map[string]string{}
	for _, p := range known.Profiles {
		if p.Missing != "" {
			missing[p.Name] = p.Missing
		}
	}
	return missing
}

// alsoSignedIn says which other profiles the sign-in to one has served: one
// Identity Center session, or one MFA code, is good for many.
func (a *app) alsoSignedIn(ctx context.Context, before map[string]string, profile string) {
	if len(before) == 0 {
		return
	}
	after := a.waiting(ctx)
	if after == nil {
		return
	}
	var also []string
	for name := range before {
		if name != profile && after[name] == "" {
			also = append(also, name)
		}
	}
	if len(also) == 0 {
		return
	}
	slices.Sort(also)
	text := strings.Join(also[:min(len(also), 5)], ", ")
	if n := len(also) - 5; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	a.notice("that serves " + text + " too")
}

// logout is `keyfob logout`.
func (a *app) logout(in invocation) int {
	c, err := a.context(in)
	if err != nil {
		return a.fail("sign out", err)
	}
	return a.plainCall("sign out", control.MethodLogout, control.ProfileParams{Context: c}, "signed out of "+c.Profile, profileFact{c.Profile})
}

func (a *app) lock(invocation) int {
	return a.plainCall("lock", control.MethodLock, control.Empty{}, "locked", struct{}{})
}

func (a *app) reload(invocation) int {
	return a.plainCall("reload", control.MethodReload, control.Empty{}, "reloaded", struct{}{})
}

// stop is `keyfob stop`. It starts no daemon to end it.
func (a *app) stop(invocation) int {
	const what = "stop keyfobd"
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	client, err := a.dial(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		a.notice("keyfobd is not running")
		if a.opts.json {
			return a.printJSON(struct{}{})
		}
		return exitDone
	}
	if err == nil {
		err = a.end(ctx, client)
	}
	if err != nil {
		return a.fail(what, err)
	}
	pid := client.Server().PID
	return a.done(fmt.Sprintf("stopped keyfobd (pid %d)", pid), struct {
		PID int `json:"pid"`
	}{pid})
}

// maxAssertion is what AssumeRoleWithSAML takes, in characters of base64
// (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithSAML.html).
const maxAssertion = 100_000

// readAssertion reads a SAML assertion: base64 as an identity provider posts
// it, or the XML that it encodes. Its errors quote nothing of it.
func (a *app) readAssertion(path string) (string, error) {
	from, name := a.Stdin, "standard input"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", failure("cannot read the assertion: "+err.Error(), "")
		}
		defer func() { _ = f.Close() }()
		from, name = f, path
	}
	b, err := io.ReadAll(io.LimitReader(from, 2*maxAssertion))
	if err != nil {
		return "", failure("cannot read the assertion: "+err.Error(), "")
	}
	cannot := func(why string) error {
		return failure("cannot use the assertion of "+name+": "+why, "the value of SAMLResponse, as the identity provider posts it")
	}
	text := strings.Join(strings.Fields(string(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))), "")
	if strings.HasPrefix(text, "<") {
		text = base64.StdEncoding.EncodeToString(bytes.TrimSpace(b))
	}
	switch _, err := base64.StdEncoding.DecodeString(text); {
	case text == "":
		return "", cannot("it is empty")
	case len(text) > maxAssertion:
		return "", cannot("it is longer than AWS takes")
	case err != nil:
		return "", cannot("it is not base64")
	}
	return text, nil
}
