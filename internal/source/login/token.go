package login

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/signin"
	"github.com/aws/aws-sdk-go-v2/service/signin/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

const (
	serviceID    = "signin"
	grantCode    = "authorization_code"
	grantRefresh = "refresh_token"
	tokenType    = "aws_sigv4"
)

// endpoint is the URL of the Signin service that these settings call: the
// configured one, else the region's by AWS's own rules. Errors:
// *awsclient.SettingsError.
func endpoint(ctx context.Context, c profiles.Client, cfg aws.Config) (*url.URL, error) {
	if cfg.BaseEndpoint != nil {
		u, err := url.Parse(*cfg.BaseEndpoint)
		if err != nil { // it was parsed before
			return nil, &awsclient.SettingsError{Text: "cannot use the endpoint URL of the Signin service", Help: "correct AWS_ENDPOINT_URL_SIGNIN", Err: err}
		}
		return u, nil
	}
	e, err := signin.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, signin.EndpointParameters{
		Region:         aws.String(cfg.Region),
		UseFIPS:        aws.Bool(c.UseFIPS),
		UseDualStack:   aws.Bool(c.UseDualStack),
		IsControlPlane: aws.Bool(false),
	})
	if err != nil {
		return nil, &awsclient.SettingsError{
			Text: "cannot tell the endpoint of the Signin service in region " + printable(cfg.Region),
			Help: "correct region, use_fips_endpoint or use_dualstack_endpoint",
			Err:  err,
		}
	}
	return &e.URI, nil
}

// page is the address of one of the service's pages.
func page(base *url.URL, path string, query url.Values) *url.URL {
	u := base.JoinPath(path)
	u.RawQuery = query.Encode()
	return u
}

// call is one call of the token endpoint for a link.
type call struct {
	s    *Source
	seen awsclient.Seen
	// sent is when the last request began, by our clock.
	sent time.Time
	// skew is by how much the proof's time was ahead of our clock.
	skew time.Duration
}

// client returns a client of the link's settings, whose requests carry proofs
// by key.
func (s *Source) client(ctx context.Context, c *call, key *ecdsa.PrivateKey) (*signin.Client, error) {
	cfg, err := awsclient.Config(ctx, s.link.Client, nil, awsclient.Options{Service: serviceID, Pool: s.d.Pool, Seen: &c.seen})
	if err != nil {
		return nil, err
	}
	if _, err := endpoint(ctx, s.link.Client, cfg); err != nil { // before the SDK says it in its own words
		return nil, err
	}
	return signin.NewFromConfig(cfg, func(o *signin.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			// Last before the request leaves: its URL is final then.
			return stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("DPoP", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
				req, ok := in.Request.(*smithyhttp.Request)
				if !ok {
					return middleware.FinalizeOutput{}, middleware.Metadata{}, errors.New("the request is of another kind than HTTP")
				}
				c.sent, c.skew = time.Now(), s.d.Pool.Skew(req.URL.Host)
				p, err := proof(key, req.URL, c.sent.Add(c.skew))
				if err != nil {
					return middleware.FinalizeOutput{}, middleware.Metadata{}, err
				}
				req.Header.Set("DPoP", p)
				return next.HandleFinalize(ctx, in)
			}), middleware.After)
		})
	}), nil
}

// tokens is the answer of the token endpoint.
type tokens struct {
	access  cred.Credentials // Expires by AWS's clock
	left    time.Duration    // of them, from the moment of the request
	sent    time.Time        // that moment, by our clock
	refresh cred.Secret
	id      string // the ID token, "" for none
}

// token calls the token endpoint once. op and doing are what is being done,
// the latter for after "cannot".
func (s *Source) token(ctx context.Context, op, doing string, key *ecdsa.PrivateKey, body *types.CreateOAuth2TokenRequestBody) (*tokens, *call, error) {
	ctx, cancel := context.WithTimeout(ctx, cred.FetchTimeout)
	defer cancel()
	c := &call{s: s}
	if s.closes {
		defer s.d.Pool.CloseIdle()
	}
	var out *signin.CreateOAuth2TokenOutput
	client, err := s.client(ctx, c, key)
	if err == nil {
		out, err = client.CreateOAuth2Token(ctx, &signin.CreateOAuth2TokenInput{TokenInput: body})
	}
	if f := c.seen.Facts(); f.DateKnown && s.d.Skew != nil {
		s.d.Skew(f.Skew)
	}
	if err != nil {
		return nil, c, c.failed(op, doing, err, body)
	}
	t, why := c.granted(out.TokenOutput)
	if why != "" {
		return nil, c, c.bad(op, doing, why)
	}
	return t, c, nil
}

// granted turns an answer into ours and refuses half of one. why is "" for a
// whole one.
func (c *call) granted(out *types.CreateOAuth2TokenResponseBody) (t *tokens, why string) {
	if out == nil || out.AccessToken == nil {
		return nil, "AWS's answer holds no credentials"
	}
	left := time.Duration(aws.ToInt32(out.ExpiresIn)) * time.Second
	t = &tokens{
		access: cred.Credentials{
			AccessKeyID:     aws.ToString(out.AccessToken.AccessKeyId),
			SecretAccessKey: cred.NewSecret(aws.ToString(out.AccessToken.SecretAccessKey)),
			SessionToken:    cred.NewSecret(aws.ToString(out.AccessToken.SessionToken)),
			Expires:         c.sent.Add(c.seen.Facts().Skew).Add(left).Round(0).UTC(),
		},
		left:    left,
		sent:    c.sent,
		refresh: cred.NewSecret(aws.ToString(out.RefreshToken)),
		id:      aws.ToString(out.IdToken),
	}
	switch {
	case t.access.AccessKeyID == "" || t.access.SecretAccessKey.IsZero() || t.access.SessionToken.IsZero():
		return nil, "AWS's answer holds half a set of credentials"
	case left <= 0:
		return nil, "AWS's answer does not say when the credentials end"
	case t.refresh.IsZero():
		return nil, "AWS's answer holds no refresh token"
	case !strings.EqualFold(aws.ToString(out.TokenType), tokenType):
		return nil, "AWS's answer holds tokens of another kind"
	}
	return t, ""
}

// refreshed asks AWS for new credentials of x. Errors: *endedError where a
// person must sign in again, *cred.UpstreamError, a settings error.
func (s *Source) refreshed(ctx context.Context, x *session) (*session, *tokens, error) {
	t, _, err := s.token(ctx, "CreateOAuth2Token", "refresh the console sign-in "+printable(x.arn), x.key, &types.CreateOAuth2TokenRequestBody{
		ClientId: aws.String(x.clientID), GrantType: aws.String(grantRefresh), RefreshToken: aws.String(x.refresh.Reveal()),
	})
	if err != nil {
		return nil, nil, err
	}
	y := *x
	y.access, y.refresh = t.access, t.refresh
	y.access.AccountID = accountOf(x.arn)
	if y.access.AccountID == "" {
		y.access.AccountID = x.access.AccountID
	}
	return &y, t, nil
}
