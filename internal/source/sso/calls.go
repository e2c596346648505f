package sso

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sso"
	"github.com/aws/aws-sdk-go-v2/service/ssooidc"
	"github.com/aws/aws-sdk-go-v2/service/ssooidc/types"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
)

// Ids of the services in profiles.Client.EndpointURL.
const (
	serviceOIDC   = "sso_oidc"
	servicePortal = "sso"
)

// configured is the endpoint URL that the settings name for service.
func (s *signIn) configured(service string) string {
	if u := s.link.Client.EndpointURL[service]; u != "" {
		return u
	}
	return s.link.Client.EndpointURL[""]
}

// endpoint is the URL of the service by these settings. Errors:
// *awsclient.SettingsError.
func (s *signIn) endpoint(ctx context.Context, service string) (*url.URL, error) {
	cfg, err := awsclient.Config(ctx, s.link.Client, nil, awsclient.Options{Service: service, Pool: s.d.Pool})
	if err != nil {
		return nil, err
	}
	if cfg.BaseEndpoint != nil {
		return url.Parse(*cfg.BaseEndpoint)
	}
	region, fips, dual := aws.String(s.region), aws.Bool(s.link.Client.UseFIPS), aws.Bool(s.link.Client.UseDualStack)
	var u url.URL
	if service == serviceOIDC {
		e, err1 := ssooidc.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, ssooidc.EndpointParameters{Region: region, UseFIPS: fips, UseDualStack: dual})
		u, err = e.URI, err1
	} else {
		e, err1 := sso.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, sso.EndpointParameters{Region: region, UseFIPS: fips, UseDualStack: dual})
		u, err = e.URI, err1
	}
	if err != nil {
		return nil, &awsclient.SettingsError{Text: "cannot tell the endpoint of Identity Center in region " + s.region + ": " + err.Error(),
			Help: "check sso_region of " + s.settings() + ", use_fips_endpoint and use_dualstack_endpoint", Err: err}
	}
	return &u, nil
}

// call is one HTTP request to Identity Center.
type call struct {
	*signIn
	op      string        // "CreateToken"
	doing   string        // for after "cannot"
	service string        // serviceOIDC or servicePortal
	target  string        // UpstreamError.Target
	secrets []cred.Secret // that the request holds
	// words finds better words for a refusal; nil for none.
	words func(f awsclient.Failure) (text, help string)

	seen awsclient.Seen
	sent atomic.Bool // there was a connection to send the request on
	kind awsclient.Kind
}

// do runs fn, which makes one call with a client made of the config.
// Whatever fails is an *cred.UpstreamError, or Is cred.ErrConfig.
func (c *call) do(ctx context.Context, fn func(context.Context, aws.Config) error) error {
	ctx, cancel := context.WithTimeout(ctx, cred.FetchTimeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { c.sent.Store(true) }})
	pool := c.d.Pool
	if pool == nil {
		pool = awsclient.NewPool(awsclient.PoolConfig{})
		defer pool.CloseIdle()
	}
	_, err := c.endpoint(ctx, c.service) // before the SDK says it in its own words
	if err == nil {
		var cfg aws.Config
		if cfg, err = awsclient.Config(ctx, c.link.Client, nil, awsclient.Options{Service: c.service, Pool: pool, Seen: &c.seen}); err == nil {
			err = fn(ctx, cfg)
		}
	}
	if f := c.seen.Facts(); f.DateKnown && c.d.Skew != nil {
		c.d.Skew(f.Skew)
	}
	if err != nil {
		return c.failed(err)
	}
	return nil
}

// awsNow is AWS's clock where an answer showed it, else ours.
func (c *call) awsNow() time.Time { return time.Now().Add(c.seen.Facts().Skew) }

// awsNow is the same before a call.
func (s *signIn) awsNow(ctx context.Context) time.Time {
	if s.d.Pool == nil {
		return time.Now()
	}
	u, err := s.endpoint(ctx, serviceOIDC)
	if err != nil {
		return time.Now()
	}
	return time.Now().Add(s.d.Pool.Skew(u.Host))
}

// failed turns the error of a call into one of ours.
func (c *call) failed(err error) error {
	var ours *cred.UpstreamError
	if errors.As(err, &ours) {
		return ours
	}
	var settings *awsclient.SettingsError
	if errors.As(err, &settings) {
		return &configError{msg: settings.Text + " (profile " + c.link.Profile + ")", help: settings.Help, err: settings}
	}
	secrets := make([]string, 0, len(c.secrets))
	for _, s := range c.secrets {
		if !s.IsZero() {
			secrets = append(secrets, s.Reveal())
		}
	}
	f := awsclient.Explain(err, &c.seen, secrets...)
	if text := description(err, secrets); f.Code != "" && f.Message == "" && text != "" {
		f.Message = text
		if f.Kind == awsclient.Refused {
			f.Text += ": " + clause(text)
		}
	}
	if f.Code == "SlowDownException" { // SSO OIDC's throttling, with HTTP 400
		f.Kind, f.Text = awsclient.Busy, "AWS limits the rate of calls ("+f.Code+")"
	}
	c.kind = f.Kind
	e := &cred.UpstreamError{
		Op: c.op, Target: c.target, Code: f.Code, Status: f.Status,
		Message: "cannot " + c.doing + ": " + f.Text, Help: f.Hint,
		Refused: f.Kind == awsclient.Refused, Skew: f.Skew, Err: f.Err,
	}
	switch {
	case f.Kind == awsclient.Refused && c.words != nil:
		if text, help := c.words(f); text != "" {
			e.Message, e.Help = "cannot "+c.doing+": "+text, help
		}
	case f.Kind == awsclient.Unreachable && notFound(err):
		e.Help = "check sso_region of " + c.settings() + " (" + c.region + "), and the network"
	}
	addClock(e)
	return e
}

// description is SSO OIDC's message: the SDK keeps it where its general
// interface does not look.
func description(err error, secrets []string) string {
	var (
		request *types.InvalidRequestException
		grant   *types.InvalidGrantException
		who     *types.InvalidClientException
		may     *types.UnauthorizedClientException
		scope   *types.InvalidScopeException
		meta    *types.InvalidClientMetadataException
		denied  *types.AccessDeniedException
		text    *string
	)
	switch {
	case errors.As(err, &request):
		text = request.Error_description
	case errors.As(err, &grant):
		text = grant.Error_description
	case errors.As(err, &who):
		text = who.Error_description
	case errors.As(err, &may):
		text = may.Error_description
	case errors.As(err, &scope):
		text = scope.Error_description
	case errors.As(err, &meta):
		text = meta.Error_description
	case errors.As(err, &denied):
		text = denied.Error_description
	}
	line := aws.ToString(text)
	for _, s := range secrets {
		line = strings.ReplaceAll(line, s, cred.Redacted)
	}
	line = strings.Join(strings.FieldsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }), " ")
	if len(line) > 300 {
		line = strings.ToValidUTF8(line[:300], "") + "…"
	}
	return line
}

// bad is an answer that can't be used. AWS does not send such; a proxy or a
// wrong endpoint might.
func (c *call) bad(why string) error {
	f := c.seen.Facts()
	e := &cred.UpstreamError{Op: c.op, Target: c.target, Status: f.Status, Skew: f.Skew,
		Message: "cannot " + c.doing + ": " + why, Help: "check endpoint_url and proxies: who answers is " + f.Host}
	addClock(e)
	return e
}

func addClock(e *cred.UpstreamError) {
	if text := awsclient.ClockText(e.Skew); text != "" {
		e.Message += " (" + text + ")"
	}
}

// maybeSpent reports whether a one-use token of the failed call may have been
// taken: it was sent, and no answer of AWS's says that it was not.
func (c *call) maybeSpent() bool {
	switch c.kind {
	case awsclient.Refused, awsclient.Busy, awsclient.Clock:
		status := c.seen.Facts().Status
		return status == http.StatusBadGateway || status == http.StatusGatewayTimeout // a proxy's, in between
	case awsclient.Foreign:
		return c.seen.Facts().Status < 300
	}
	return c.sent.Load()
}

// roleCredentials is GetRoleCredentials.
func (c *caller) roleCredentials(ctx context.Context, access cred.Secret, account, role string) (cred.Credentials, error) {
	p := &call{signIn: c.signIn, op: "GetRoleCredentials", service: servicePortal, target: role + " in " + account,
		doing: "get credentials of role " + role + " in account " + account, secrets: []cred.Secret{access}}
	p.words = func(f awsclient.Failure) (string, string) { return c.portalWords(f, account, role) }
	var out *sso.GetRoleCredentialsOutput
	err := p.do(ctx, func(ctx context.Context, cfg aws.Config) (err error) {
		out, err = sso.NewFromConfig(cfg).GetRoleCredentials(ctx, &sso.GetRoleCredentialsInput{
			AccessToken: aws.String(access.Reveal()), AccountId: aws.String(account), RoleName: aws.String(role)})
		return err
	})
	if err != nil {
		return cred.Credentials{}, err
	}
	k := out.RoleCredentials
	if k == nil {
		return cred.Credentials{}, p.bad("AWS's answer holds no credentials")
	}
	got := cred.Credentials{
		AccessKeyID:     aws.ToString(k.AccessKeyId),
		SecretAccessKey: cred.NewSecret(aws.ToString(k.SecretAccessKey)),
		SessionToken:    cred.NewSecret(aws.ToString(k.SessionToken)),
		Expires:         time.UnixMilli(k.Expiration).UTC(),
		AccountID:       account,
	}
	switch {
	case got.AccessKeyID == "" || got.SecretAccessKey.IsZero() || got.SessionToken.IsZero():
		return cred.Credentials{}, p.bad("AWS's answer lacks a part of the credentials")
	case k.Expiration <= 0:
		return cred.Credentials{}, p.bad("AWS's answer does not say when the credentials end")
	case !got.Expires.After(p.awsNow()):
		return cred.Credentials{}, p.bad("AWS's answer holds credentials that ended at " + got.Expires.Format(time.RFC3339))
	}
	return got, nil
}

// portalWords says what a refusal by the portal means.
func (c *caller) portalWords(f awsclient.Failure, account, role string) (text, help string) {
	switch f.Status {
	case http.StatusUnauthorized:
		return "the session of " + c.title() + " has ended", "keyfob login " + c.in.Profile
	case http.StatusForbidden:
		what := "the account " + account
		if role != "" {
			what = "the role " + role + " in account " + account
		}
		return what + " is not assigned to the person who signed in to " + c.title(),
			"check sso_account_id and sso_role_name of profile " + c.link.Profile + " (keyfob configure lists what is assigned), or ask who manages Identity Center"
	case http.StatusNotFound:
		return "AWS knows no such account or role", "check sso_account_id and sso_role_name of profile " + c.link.Profile + ": keyfob configure lists what is assigned"
	}
	return "", ""
}

// register is RegisterClient: for the authorization code grant, or, where
// code is false, for the device flow.
func (c *caller) register(ctx context.Context, code bool) (*client, error) {
	p := &call{signIn: c.signIn, op: "RegisterClient", service: serviceOIDC, doing: "sign in to " + c.title()}
	p.words = c.signInWords
	in := &ssooidc.RegisterClientInput{ClientName: aws.String("keyfob"), ClientType: aws.String("public"), Scopes: c.scopes}
	if code {
		in.GrantTypes = []string{grantCode, grantRefresh}
		in.RedirectUris = []string{registeredRedirect}
		in.IssuerUrl = aws.String(c.start)
	}
	var out *ssooidc.RegisterClientOutput
	err := p.do(ctx, func(ctx context.Context, cfg aws.Config) (err error) {
		out, err = ssooidc.NewFromConfig(cfg).RegisterClient(ctx, in)
		return err
	})
	if err != nil {
		return nil, err
	}
	r := &client{id: aws.ToString(out.ClientId), secret: cred.NewSecret(aws.ToString(out.ClientSecret)), expires: time.Unix(out.ClientSecretExpiresAt, 0).UTC()}
	if r.id == "" || r.secret.IsZero() || out.ClientSecretExpiresAt == 0 {
		return nil, p.bad("AWS's answer lacks a part of the client registration")
	}
	return r, nil
}

const (
	grantCode    = "authorization_code"
	grantRefresh = "refresh_token"
	grantDevice  = "urn:ietf:params:oauth:grant-type:device_code"
	// registeredRedirect has no port: any of a loopback address will do
	// (RFC 8252 §7.3).
	registeredRedirect = "http://127.0.0.1/oauth/callback"
)

// signInWords says what a refusal of a sign-in's calls means.
func (s *signIn) signInWords(f awsclient.Failure) (text, help string) {
	check := "check sso_start_url and sso_region of " + s.settings() + ": the start URL is on the front page of Identity Center's console, in its own region"
	switch f.Code {
	case "InvalidRequestException":
		return "AWS does not take the start URL " + s.start + " in region " + s.region + because(f), check
	case "InvalidScopeException":
		return "AWS does not take the scopes " + sortedScopes(s.scopes), "check sso_registration_scopes of " + s.settings()
	case "AccessDeniedException":
		return "AWS denies it (" + clause(f.Message) + ")", check
	}
	return "", ""
}

// because is AWS's own message, in brackets.
func because(f awsclient.Failure) string {
	if f.Message == "" {
		return ""
	}
	return " (" + clause(f.Message) + ")"
}

// token is CreateToken. in lacks the client.
func (p *call) token(ctx context.Context, r *client, in *ssooidc.CreateTokenInput) (*tokens, error) {
	in.ClientId, in.ClientSecret = aws.String(r.id), aws.String(r.secret.Reveal())
	p.secrets = append(p.secrets, r.secret, cred.NewSecret(aws.ToString(in.Code)), cred.NewSecret(aws.ToString(in.CodeVerifier)),
		cred.NewSecret(aws.ToString(in.DeviceCode)), cred.NewSecret(aws.ToString(in.RefreshToken)))
	p.op, p.service = "CreateToken", serviceOIDC
	var out *ssooidc.CreateTokenOutput
	err := p.do(ctx, func(ctx context.Context, cfg aws.Config) (err error) {
		out, err = ssooidc.NewFromConfig(cfg).CreateToken(ctx, in)
		return err
	})
	if err != nil {
		return nil, err
	}
	t := &tokens{access: cred.NewSecret(aws.ToString(out.AccessToken)), refresh: cred.NewSecret(aws.ToString(out.RefreshToken)),
		clientID: r.id, clientSecret: r.secret, clientExpires: r.expires}
	t.obtained = time.Now().Round(0).UTC()
	t.expires = t.obtained.Add(time.Duration(out.ExpiresIn) * time.Second)
	switch {
	case t.access.IsZero():
		p.kind = awsclient.Foreign
		return nil, p.bad("AWS's answer holds no access token")
	case out.ExpiresIn <= 0:
		p.kind = awsclient.Foreign
		return nil, p.bad("AWS's answer does not say when the access token ends")
	}
	return t, nil
}
