package login

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/source/flight"
)

const (
	// enough is how much of credentials must be left for not getting new
	// ones: more than half of their 15 minutes, the point at which the
	// broker refreshes.
	enough = 10 * time.Minute
	// enoughNow is that where a person signs in and only wants to know that
	// it works.
	enoughNow    = 5 * time.Minute
	storeTimeout = 10 * time.Second
)

// attempt is one attempt to get credentials of a sign-in. It is made by one
// source on behalf of all that share the sign-in.
type attempt struct {
	*Source
	in    cred.Input // of who began it
	f     *flight.Flight[cred.Credentials]
	again bool          // a person is asked whatever there is
	base  *url.URL      // the Signin endpoint
	skew  time.Duration // AWS's clock minus ours, as far as known
	keep  time.Duration // credentials with more left will do
	not   string        // but not those with this access key id
	rec   *record       // nil while nobody knows who signs in
	why   string        // a person must sign in: one clause
}

func (s *Source) attempt(ctx context.Context, in cred.Input, f *flight.Flight[cred.Credentials], again bool, not string) (cred.Credentials, error) {
	a := &attempt{Source: s, in: in, f: f, again: again, keep: enough, not: not}
	if in.Signin != nil {
		a.keep = enoughNow
	}
	return a.run(ctx)
}

func (a *attempt) run(ctx context.Context) (cred.Credentials, error) {
	none := cred.Credentials{}
	base, err := a.endpoint(ctx)
	if err != nil {
		return none, err // before a person is asked in vain
	}
	a.base = base
	a.skew = a.d.Pool.Skew(base.Host)
	arn := a.arn
	if arn == "" {
		told := false
		if arn, told = a.d.Sessions.of(a.key).who(); arn != "" && !told {
			if err := a.learned(ctx, arn); err != nil {
				return none, err
			}
		}
	}
	if arn == "" {
		a.why = "nobody has signed in for it"
		return a.signIn(ctx)
	}
	var ours *session
	if a.rec, ours, err = load(ctx, a.d.Store, arn); err != nil {
		var damaged *damagedError
		if !errors.As(err, &damaged) {
			return none, &storeError{doing: "read the console sign-in " + printable(arn), err: err}
		}
		a.d.Log.WithField("login_session", printable(arn)).Warn(damaged.why)
	}
	a.why = "nobody has signed in as " + printable(arn)
	if a.again {
		return a.signIn(ctx)
	}
	if ours != nil {
		access, err := a.ours(ctx, ours)
		if err == nil || !a.over(err) {
			return access, err
		}
	}
	if a.d.CacheDir != "" {
		access, err := a.cli(ctx, arn)
		if err == nil || !errors.Is(err, fs.ErrNotExist) && !a.over(err) {
			return access, err
		}
	}
	return a.signIn(ctx)
}

// over reports whether err means that a session can't be used, so that
// another one is looked for, and keeps why.
func (a *attempt) over(err error) bool {
	var ended *endedError
	var broken *brokenError
	switch {
	case errors.As(err, &ended):
		a.why = "the console sign-in " + printable(a.rec.ARN) + ": " + ended.why
	case errors.As(err, &broken):
		a.why = "its sign-in in " + broken.path + " can't be used: " + broken.why
	default:
		return false
	}
	a.d.Log.WithFields(logrus.Fields{"profile": a.in.Profile, "login_session": printable(a.rec.ARN)}).Info(a.why)
	return true
}

// good reports whether credentials will do. expires is by AWS's clock.
func (a *attempt) good(c cred.Credentials, expires time.Time) bool {
	return c.AccessKeyID != "" && c.AccessKeyID != a.not && time.Until(expires)+a.skew > a.keep
}

// ours uses the vault's session.
func (a *attempt) ours(ctx context.Context, x *session) (cred.Credentials, error) {
	if a.good(x.access, x.access.Expires) {
		return x.access, nil
	}
	y, _, err := a.refreshed(ctx, x)
	var ended *endedError
	switch {
	case errors.As(err, &ended) && ended.final:
		a.rec.Session = nil
		a.keepEnd(ctx)
		return cred.Credentials{}, err
	case err != nil:
		return cred.Credentials{}, err
	}
	if err := a.rec.put(y); err != nil {
		return cred.Credentials{}, err
	}
	if err := a.keepRecord(ctx); err != nil {
		return cred.Credentials{}, err
	}
	return y.access, nil
}

// keepEnd writes that AWS takes a refresh token no more.
func (a *attempt) keepEnd(ctx context.Context) {
	if err := a.keepRecord(ctx); err != nil {
		// It is sent, and refused, once more.
		a.d.Log.WithError(err).Warn("the end of a console sign-in is not kept")
	}
}

// keepRecord writes the record unless the sign-in was forgotten meanwhile.
func (a *attempt) keepRecord(ctx context.Context) error {
	if forgotten(ctx) {
		return errForgotten
	}
	if err := a.rec.save(ctx, a.d.Store); err != nil {
		return &storeError{doing: "keep the console sign-in " + printable(a.rec.ARN), err: err}
	}
	if forgotten(ctx) { // while it was written
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
		defer cancel()
		_ = a.d.Store.Delete(ctx, recordName(a.rec.ARN))
		return errForgotten
	}
	return nil
}

// cli uses the session of the AWS CLI's cache. Errors besides those of an
// attempt: one that Is fs.ErrNotExist, *brokenError, *endedError.
func (a *attempt) cli(ctx context.Context, arn string) (cred.Credentials, error) {
	none := cred.Credentials{}
	path := a.d.cliPath(arn)
	f, err := readCLI(ctx, path, arn)
	if err != nil {
		return none, err
	}
	if access, ok := a.fromCLI(f); ok {
		return access, nil
	}
	if a.rec.ended(f.s.refresh) {
		return none, &endedError{why: "it has ended"}
	}
	unlock, err := lockCLI(ctx, path)
	if err != nil {
		if ctx.Err() != nil {
			return none, ctx.Err()
		}
		return none, &cacheError{err.Error(), "the AWS CLI's session is renewed only where it can be written back: check the folder's permissions, or keyfob login " + a.in.Profile + " --force", err}
	}
	defer unlock()
	// Who waited for the lock finds what its holder wrote; and the CLI, which
	// takes no lock, may write at any time.
	for try := 1; ; try++ {
		if f, err = readCLI(ctx, path, arn); err != nil {
			return none, err
		}
		if access, ok := a.fromCLI(f); ok {
			return access, nil
		}
		if a.rec.ended(f.s.refresh) {
			return none, &endedError{why: "it has ended"}
		}
		y, t, err := a.refreshed(ctx, f.s)
		var ended *endedError
		switch {
		case err == nil:
			return a.writeBack(ctx, f, y, t)
		case !errors.As(err, &ended):
			return none, err
		}
		if g, again := readCLI(ctx, path, arn); again == nil && try == 1 && !g.s.refresh.Equal(f.s.refresh) {
			continue // somebody has signed in or refreshed meanwhile
		}
		if ended.final {
			a.rec.end(f.s.refresh)
			a.keepEnd(ctx)
		}
		return none, err
	}
}

// fromCLI returns the file's credentials where they will do.
func (a *attempt) fromCLI(f *cliFile) (cred.Credentials, bool) {
	c := f.s.access
	c.Expires = c.Expires.Add(a.skew)
	return c, a.good(c, c.Expires)
}

// writeBack writes what a refresh of f gave. What another program has written
// since stays where it is not older.
func (a *attempt) writeBack(ctx context.Context, f *cliFile, y *session, t *tokens) (cred.Credentials, error) {
	ends := t.sent.Add(t.left)
	now, err := readCLI(ctx, f.path, y.arn)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Somebody signed out: the session is not brought back.
		return cred.Credentials{}, &endedError{why: "it was signed out of meanwhile"}
	case err != nil:
		now = f // half of a file is written whole
	}
	sent, got := now.s.refresh.Equal(f.s.refresh), now.s.refresh.Equal(y.refresh)
	switch {
	case !sent && !got:
		// Another sign-in, or a later refresh than ours.
		return y.access, nil
	case got && now.s.access.AccessKeyID == y.access.AccessKeyID:
		return y.access, nil
	}
	if err := now.write(y, ends); err != nil {
		// The old refresh token gives the same again while this lasts.
		return cred.Credentials{}, &cacheError{err.Error(), "check the permissions of its folder and the space on its disk", err}
	}
	return y.access, nil
}

// endpoint is the Signin endpoint of the link's settings. Errors: one that Is
// cred.ErrConfig.
func (s *Source) endpoint(ctx context.Context) (*url.URL, error) {
	cfg, err := awsclient.Config(ctx, s.link.Client, nil, awsclient.Options{Service: serviceID, Pool: s.d.Pool})
	var u *url.URL
	if err == nil {
		u, err = endpoint(ctx, s.link.Client, cfg)
	}
	if err != nil {
		return nil, &settingsError{msg: err.Error() + " (profile " + s.link.Profile + ")", help: cred.HintOf(err), err: err}
	}
	return u, nil
}
