package oidc

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

// Deps is what the sources of this package work with.
type Deps struct {
	Store cred.Store    // records oidc/…; needed by oidc links
	Log   *logrus.Entry // nil for none
	// Pool shares connections and clock offsets between all sources of a
	// daemon; with nil each source has its own.
	Pool *awsclient.Pool
	// Skew is told AWS's clock minus ours after each answer that shows it,
	// 0 when they agree within a minute. It is called before Fetch returns.
	Skew func(d time.Duration)
	// User is the name in the default role session name, "" for that of the
	// user who runs this process.
	User string
	// Sessions are the sign-ins of the daemon; needed by oidc links.
	Sessions *Sessions
}

// New returns the source of a web-identity or oidc link; the latter is a
// cred.SignInSource. It opens nothing. Errors (Is cred.ErrConfig): a
// parameter that no call could be made with, another kind of link.
func New(link profiles.Link, d Deps) (cred.Source, error) {
	switch link.Kind {
	case profiles.KindWebIdentity:
		return newTokenFile(link, d)
	case profiles.KindOIDC:
		return newProvided(link, d)
	}
	return nil, unusable(link.Profile, "a link of kind "+string(link.Kind)+" is none of package oidc", "", nil)
}

// settingsError is a profile that can't be used as it is written.
type settingsError struct {
	msg, help string
	err       error
}

func (e *settingsError) Error() string        { return e.msg }
func (e *settingsError) Hint() string         { return e.help }
func (e *settingsError) Unwrap() error        { return e.err }
func (e *settingsError) Is(target error) bool { return target == cred.ErrConfig }

func unusable(profile, why, help string, err error) error {
	return &settingsError{msg: "cannot use profile " + profile + ": " + why, help: help, err: err}
}

// provided is an oidc link: a role by a person's sign-in at a provider.
type provided struct {
	role *assume
	*signIn
}

// signIn is what decides a sign-in.
type signIn struct {
	profile  string // whose section the settings are from
	issuer   string
	client   string
	scopes   []string
	port     int // of the redirect, 0 for any
	settings profiles.Client
	d        Deps
}

func newProvided(link profiles.Link, d Deps) (*provided, error) {
	a, err := newAssume(link, d)
	if err != nil {
		return nil, err
	}
	s, err := newSignIn(link, a.d)
	if err != nil {
		return nil, err
	}
	return &provided{role: a, signIn: s}, nil
}

func newSignIn(link profiles.Link, d Deps) (*signIn, error) {
	bad := func(why, help string) (*signIn, error) { return nil, unusable(link.Profile, why, help, nil) }
	if d.Store == nil || d.Sessions == nil {
		return bad("there is no vault for its sign-in", "")
	}
	if d.Pool == nil {
		d.Pool = awsclient.NewPool(awsclient.PoolConfig{})
	}
	s := &signIn{profile: link.Profile, issuer: link.Params["oidc_issuer"], client: link.Params["oidc_client_id"],
		scopes: scopesOf(link.Params["oidc_scopes"]), settings: link.Client, d: d}
	u, err := url.Parse(s.issuer)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s.issuer, "#"):
		return bad("oidc_issuer = "+quoted(withoutUser(s.issuer))+" is not the address of an OpenID provider",
			"oidc_issuer is https://HOST or https://HOST/PATH, as the provider's documentation calls its issuer")
	case !secureURL(u, u):
		return bad("oidc_issuer = "+quoted(s.issuer)+" is not https", "a provider without TLS is taken on this machine alone (http://localhost, http://127.0.0.1)")
	case s.client == "" || printable(s.client, 1000) != s.client:
		return bad("oidc_client_id is missing, or is none", "oidc_client_id is the id that the provider gave the application")
	}
	if text := link.Params["oidc_redirect_port"]; text != "" {
		if s.port, err = strconv.Atoi(text); err != nil || s.port < 0 || s.port > 65535 {
			return bad("oidc_redirect_port = "+quoted(text)+" is not a port", "")
		}
	}
	return s, nil
}

// scopesOf reads scopes with commas or spaces between. openid is what makes
// a request one of OpenID Connect, and is added where it is missing.
func scopesOf(s string) []string {
	var scopes []string
	for _, x := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' }) {
		if !slices.Contains(scopes, x) {
			scopes = append(scopes, x)
		}
	}
	if len(scopes) == 0 {
		return []string{"openid", "offline_access"}
	}
	if !slices.Contains(scopes, "openid") {
		scopes = append([]string{"openid"}, scopes...)
	}
	return scopes
}

// AskKey is that of the sign-in: one for an issuer, a client and its scopes.
func (s *signIn) AskKey() cred.LinkKey {
	sorted := slices.Clone(s.scopes)
	slices.Sort(sorted)
	return cred.KeyOf("oidc sign-in", map[string]string{"issuer": s.issuer, "client_id": s.client, "scopes": strings.Join(sorted, " ")}, cred.LinkKey{})
}

// Interactive is false: a cred.SignInSource is refreshed ahead.
func (p *provided) Interactive() bool { return false }

// SignInEnds implements cred.SignInSource: when the refresh token ends, where
// the provider told it; without one the end of the ID token.
func (p *provided) SignInEnds(ctx context.Context) time.Time {
	return p.d.Sessions.of(p.AskKey()).ends(ctx, p.signIn)
}

// Fetch implements cred.Source.
func (p *provided) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	s := p.d.Sessions.of(p.AskKey())
	c := &caller{signIn: p.signIn, in: in}
	t, err := s.token(ctx, c)
	if err != nil {
		return cred.Credentials{}, err
	}
	out, err := p.role.with(ctx, t.id, t.claims, "the ID token")
	if err != nil {
		s.refused(ctx, c, t, err)
		return cred.Credentials{}, err
	}
	return out, nil
}

// Upstream names whom the link calls: the provider and STS.
func (p *provided) Upstream() string {
	u, err := url.Parse(p.issuer)
	sts := p.role.Upstream()
	if err != nil || sts == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host + " or " + sts
}

// Reach tells whether the provider and STS can be connected to.
func (p *provided) Reach(ctx context.Context) error {
	u, err := url.Parse(p.issuer)
	if err != nil {
		return unusable(p.profile, "oidc_issuer is none", "", err)
	}
	other := make(chan error, 1)
	go func() { other <- p.d.Pool.Reach(ctx, u) }()
	err = p.role.Reach(ctx)
	if err2 := <-other; err == nil {
		err = err2
	}
	return err
}

func (s *signIn) log() *logrus.Entry {
	if s.d.Log == nil {
		return silent()
	}
	return s.d.Log.WithFields(logrus.Fields{"issuer": s.issuer, "client_id": s.client})
}

func (s *signIn) awsNow(ctx context.Context) time.Time {
	u, err := awsclient.STSEndpoint(ctx, s.settings)
	if err != nil {
		return time.Now()
	}
	return time.Now().Add(s.d.Pool.Skew(u.Host))
}
