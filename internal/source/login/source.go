package login

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/source/flight"
	"keyfob/profiles"
)

// Deps is what the sources of this package work with. Store and Sessions
// must be there.
type Deps struct {
	Store cred.Store // records "login/<sha256 of the ARN>"
	// Sessions is shared by all sources of a daemon.
	Sessions *Sessions
	// CacheDir is the folder of the AWS CLI's login cache, by CacheDir; ""
	// for none.
	CacheDir string
	// Learned is told the ARN of who signed in for a profile that names
	// nobody: it writes login_session to keyfob's profiles file. It is
	// called after the session is in the vault, and again by a later Fetch
	// where it fails.
	Learned func(ctx context.Context, profile, arn string) error
	Log     *logrus.Entry
	// Pool shares connections and clock offsets between all sources of a
	// daemon; with nil each call makes and closes its own connection.
	Pool *awsclient.Pool
	// Skew is told AWS's clock minus ours after each answer that shows it,
	// 0 when they agree within a minute. It is called before Fetch returns.
	Skew func(d time.Duration)
}

// Source is a login link. It implements cred.SignInSource.
type Source struct {
	link profiles.Link
	arn  string // login_session, "" for whoever signs in
	key  cred.LinkKey
	d    Deps
	// closes says that the Pool is our own, and its connections are closed
	// after each call.
	closes bool
	// given is the access key id that Fetch returned last. Who asks again
	// without a person behind it wants others: these are old, or AWS has
	// refused them.
	given atomic.Pointer[string]
}

// New returns the source of a login link, a *Source. An empty parameter login_session is
// whoever signs in first. It opens nothing. Errors (Is cred.ErrConfig):
// another kind of link.
func New(link profiles.Link, d Deps) (cred.Source, error) {
	if link.Kind != profiles.KindLogin {
		return nil, unusable(link.Profile, "a link of kind "+string(link.Kind)+" is none of package login", "", nil)
	}
	if d.Store == nil || d.Sessions == nil {
		return nil, unusable(link.Profile, "its sign-in is kept in the vault and there is none", "", nil)
	}
	if d.Log == nil {
		d.Log = quiet()
	}
	s := &Source{link: link, arn: link.Params["login_session"], closes: d.Pool == nil}
	if d.Pool == nil {
		d.Pool = awsclient.NewPool(awsclient.PoolConfig{})
	}
	s.d = d
	what := map[string]string{"login_session": s.arn}
	if s.arn == "" {
		what["profile"] = link.Profile
	}
	s.key = cred.KeyOf("console sign-in", what, cred.LinkKey{})
	return s, nil
}

// Interactive is false: the sign-in outlives the credentials.
func (s *Source) Interactive() bool { return false }

// AskKey is the key of the sign-in: one for all links of one login_session,
// whatever their regions.
func (s *Source) AskKey() cred.LinkKey { return s.key }

// SignInEnds is not known: AWS tells nobody before the end.
func (s *Source) SignInEnds(context.Context) time.Time { return time.Time{} }

// Upstream names the Signin endpoint that the link calls, "" where the
// settings give none.
func (s *Source) Upstream() string {
	u, err := s.endpoint(context.Background())
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// Reach tells whether there is a way to the Signin service. An error that Is
// cred.ErrConfig says that the settings name none.
func (s *Source) Reach(ctx context.Context) error {
	u, err := s.endpoint(ctx)
	if err != nil {
		return err
	}
	return s.d.Pool.Reach(ctx, u)
}

// Logout forgets the sign-in of a link, for all profiles that share it: the
// session in the vault, and what is remembered of refused ones. What is under
// way ends. AWS has no call that ends such a session; and the AWS CLI's cache
// is not ours: a session there stays, and is used, until `aws logout`.
func Logout(ctx context.Context, link profiles.Link, d Deps) error {
	src, err := New(link, d)
	if err != nil {
		return err
	}
	s := src.(*Source)
	arn := s.d.Sessions.of(s.key).forget(s.arn)
	if arn == "" {
		return nil
	}
	if err := s.d.Store.Delete(ctx, recordName(arn)); err != nil && !errors.Is(err, cred.ErrNotFound) {
		return &storeError{doing: "forget the console sign-in " + printable(arn), err: err}
	}
	if s.d.hasCLI(arn) {
		s.d.Log.WithFields(logrus.Fields{"profile": link.Profile, "login_session": printable(arn)}).
			Info("the AWS CLI still has a session: aws logout ends it")
	}
	return nil
}

// Fetch makes one attempt: credentials that still last long enough, new ones
// for the session, or those of a new sign-in. Errors: *cred.UpstreamError,
// *cred.InteractionError, an error of the Store, one that Is cred.ErrConfig.
func (s *Source) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	not := ""
	if id := s.given.Load(); id != nil && in.Signin == nil {
		not = *id
	}
	e := s.d.Sessions.of(s.key)
	for {
		led := false
		got, err := e.flights.Do(ctx, s.participant(in), func() (flight.Run[cred.Credentials], error) {
			led = true
			again := e.again(in.Signin != nil)
			return func(ctx context.Context, f *flight.Flight[cred.Credentials]) (cred.Credentials, error) {
				return s.attempt(ctx, in, f, again, not)
			}, nil
		})
		switch {
		case ctx.Err() != nil, led:
		case in.Signin != nil && e.renewed():
			continue // a person comes to sign in again, and the others did not
		case err == nil && got.AccessKeyID == not:
			continue // the others were content with what this link wants replaced
		case errors.Is(err, flight.ErrLeft):
			continue
		}
		if err != nil {
			return cred.Credentials{}, err
		}
		s.given.Store(&got.AccessKeyID)
		return got, nil
	}
}

// participant is a Fetch in an attempt.
func (s *Source) participant(in cred.Input) flight.Caller {
	return flight.Caller{Key: s.key, Profile: in.Profile, Ask: in.Ask, Log: s.d.Log,
		NoBrowser: in.Signin != nil && (in.Signin.Remote || in.Signin.Device),
		Person: func(kind, why string) error {
			if why == "" {
				why = "nobody signed in within the time limit"
			}
			return &cred.InteractionError{
				Key: s.key, Kind: kind, Profile: in.Profile,
				Message: "cannot get credentials for " + in.Profile + ": " + why,
				Help:    "keyfob login " + in.Profile,
			}
		}}
}
