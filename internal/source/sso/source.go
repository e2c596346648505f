package sso

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

// Deps is what the sources of this package work with.
type Deps struct {
	Store cred.Store // tokens and registrations; needed
	// Sessions is what the links of a daemon share; needed for sign-ins to
	// be shared, nil gives each source its own.
	Sessions *Sessions
	// Pool shares connections and clock offsets between all sources of a
	// daemon; nil is one for each call.
	Pool *awsclient.Pool
	Log  *logrus.Entry // nil for none
	// Skew is told AWS's clock minus ours after each answer that shows it,
	// 0 when they agree within a minute.
	Skew func(d time.Duration)
	// CacheDir is the AWS command line's token cache, "" for none.
	CacheDir string
	// ShareCache says whether the cache's tokens may be refreshed, and are
	// written (share_sso_cache); nil is no.
	ShareCache func() bool
}

// source gives the credentials of one role in one account.
type source struct {
	signIn
	account, role string
	session       *session
}

// New returns the source of an sso link: a cred.SignInSource with Reach and
// Upstream. It opens nothing. Errors (Is cred.ErrConfig): a parameter that no
// call could be made with.
func New(link profiles.Link, d Deps) (cred.Source, error) {
	in, err := newSignIn(link, d)
	if err != nil {
		return nil, err
	}
	s := &source{signIn: in, account: link.Params["sso_account_id"], role: link.Params["sso_role_name"]}
	switch {
	case !accountID.MatchString(s.account):
		return nil, unusable(link.Profile, "sso_account_id = "+quote(s.account)+" is no account id: it has twelve digits")
	case s.role == "":
		return nil, unusable(link.Profile, "sso_role_name is missing")
	}
	s.session = d.Sessions.of(in.key())
	return s, nil
}

var accountID = regexp.MustCompile(`^[0-9]{12}$`)

// signIn is what decides a sign-in, and how its upstreams are called.
type signIn struct {
	link   profiles.Link
	d      Deps
	name   string // of the sso-session, "" for a profile of the older form
	start  string
	region string
	scopes []string
}

// defaultScope lets a token get role credentials
// (https://docs.aws.amazon.com/singlesignon/latest/userguide/customermanagedapps-saml2-oauth2.html).
const defaultScope = "sso:account:access"

var regionName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`)

// newSignIn reads a link; account and role need not be there.
func newSignIn(link profiles.Link, d Deps) (signIn, error) {
	s := signIn{link: link, d: d, name: link.Params["sso_session"], start: link.Params["sso_start_url"], region: link.Params["sso_region"]}
	if link.Kind != profiles.KindSSO {
		return s, unusable(link.Profile, "a link of kind "+string(link.Kind)+" is none of package sso")
	}
	u, err := url.Parse(s.start)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return s, unusable(link.Profile, "sso_start_url = "+quote(s.start)+" is no start URL, as https://d-1234567890.awsapps.com/start")
	}
	if !regionName.MatchString(s.region) {
		return s, unusable(link.Profile, "sso_region = "+quote(s.region)+" is no region, as eu-west-1")
	}
	for _, scope := range strings.FieldsFunc(link.Params["sso_registration_scopes"], func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
		if !slices.Contains(s.scopes, scope) {
			s.scopes = append(s.scopes, scope)
		}
	}
	if len(s.scopes) == 0 {
		s.scopes = []string{defaultScope}
	}
	if s.d.Sessions == nil {
		s.d.Sessions = NewSessions()
	}
	if s.d.Log == nil {
		s.d.Log = noLog()
	}
	s.link.Client.Region = s.region
	return s, nil
}

// title is the sign-in in messages.
func (s *signIn) title() string {
	if s.name != "" {
		return "Identity Center (sso-session " + s.name + ")"
	}
	return "Identity Center (" + s.start + ")"
}

// settings names where the start URL and region are set, for hints.
func (s *signIn) settings() string {
	if s.name != "" {
		return "[sso-session " + s.name + "]"
	}
	return "profile " + s.link.Profile
}

// key names the sign-in. Whom the tokens come from is part of it, so that a
// token is never sent to another endpoint than the one that gave it.
func (s *signIn) key() cred.LinkKey {
	return cred.KeyOf("sso sign-in", map[string]string{
		"session": s.name, "start_url": canonicalStart(s.start), "region": s.region,
		"scopes": sortedScopes(s.scopes), "endpoint": s.configured(serviceOIDC),
	}, cred.LinkKey{})
}

// canonicalStart drops what the portal does not look at: #/ and slashes at
// the end.
func canonicalStart(u string) string {
	return strings.TrimRight(strings.TrimSuffix(strings.TrimRight(u, "/"), "/#"), "/")
}

func sortedScopes(scopes []string) string {
	sorted := slices.Clone(scopes)
	slices.Sort(sorted)
	return strings.Join(sorted, " ")
}

func (s *signIn) share() bool {
	return s.d.CacheDir != "" && s.d.ShareCache != nil && s.d.ShareCache()
}

func (s *signIn) log() *logrus.Entry {
	return s.d.Log.WithFields(logrus.Fields{"sso_session": s.name, "sso_start_url": s.start})
}

// Interactive is false: a sign-in is needed only when the session has ended.
func (s *source) Interactive() bool { return false }

// AskKey is one for all links of the sign-in.
func (s *source) AskKey() cred.LinkKey { return s.session.key }

// SignedIn reports whether somebody has signed in and need not again: a sign-in
// that can be refreshed has no end that is known.
func (s *source) SignedIn(ctx context.Context) bool { return s.session.signedIn(ctx, &s.signIn) }

// SignInEnds is known once nothing refreshes the access token any more: AWS
// does not tell how long a session lasts.
func (s *source) SignInEnds(ctx context.Context) time.Time { return s.session.ends(ctx, &s.signIn) }

// Upstream names the portal that the link calls, "" where the settings give
// none.
func (s *source) Upstream() string {
	u, err := s.endpoint(context.Background(), servicePortal)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// Reach tells whether there is a way to the portal. An error that Is
// cred.ErrConfig says that the settings name none.
func (s *source) Reach(ctx context.Context) error {
	u, err := s.endpoint(ctx, servicePortal)
	if err != nil {
		return &configError{msg: err.Error(), help: cred.HintOf(err), err: err}
	}
	pool := s.d.Pool
	if pool == nil {
		pool = awsclient.NewPool(awsclient.PoolConfig{})
	}
	return pool.Reach(ctx, u)
}

// Fetch gets the role's credentials with the session's access token, after
// refreshing that or asking a person to sign in where it is needed.
func (s *source) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	c := &caller{signIn: &s.signIn, in: in}
	var out cred.Credentials
	err := s.session.with(ctx, c, func(t tokens) (err error) {
		out, err = c.roleCredentials(ctx, t.access, s.account, s.role)
		return err
	})
	return out, err
}

// caller is one who needs the session's access token: a Fetch, or a list.
type caller struct {
	*signIn
	in       cred.Input
	signedIn bool // a person has signed in for this call
}

func (c *caller) device() bool { return c.name == "" || c.in.Signin != nil && c.in.Signin.Device }

// with calls fn with an access token. Where AWS refuses that, it counts as
// ended, and fn is called with another one.
func (s *session) with(ctx context.Context, c *caller, fn func(tokens) error) error {
	for tries := 1; ; tries++ {
		t, err := s.token(ctx, c)
		if err != nil {
			return err
		}
		err = fn(t)
		var up *cred.UpstreamError
		if !errors.As(err, &up) || up.Status != http.StatusUnauthorized {
			return err
		}
		s.refuse(ctx, c, t.access)
		if c.signedIn || tries == 3 {
			return err
		}
	}
}
