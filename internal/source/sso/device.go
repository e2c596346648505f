package sso

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssooidc"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/source/flight"
)

// Polling, by RFC 8628 §3.5.
const (
	defaultInterval = 5 * time.Second
	slowerBy        = 5 * time.Second
	maxInterval     = time.Minute
)

// authorization is what a device sign-in waits for.
type authorization struct {
	code           cred.Secret
	userCode, page string
	interval       time.Duration
	expires        time.Time
}

// device signs in by a code that the person confirms on any device.
func (s *session) device(ctx context.Context, f *flight.Flight[step], c *caller, why string) (*tokens, error) {
	r, err := c.registration(ctx, false)
	if err != nil {
		return nil, err
	}
	a, err := c.authorize(ctx, r)
	var up *cred.UpstreamError
	if errors.As(err, &up) && (up.Code == "InvalidClientException" || up.Code == "UnauthorizedClientException") {
		// AWS has forgotten the registration.
		c.forget(ctx, false)
		if r, err = c.registration(ctx, false); err == nil {
			a, err = c.authorize(ctx, r)
		}
	}
	if err != nil {
		return nil, err
	}
	asked := f.Ask(ctx, flight.Question{Why: why, Question: cred.Question{Kind: cred.AskDevice, Text: c.text(), URL: a.page, UserCode: a.userCode}})
	t, err := c.poll(ctx, r, a)
	var p *flight.PersonError
	asked.Over(errors.As(err, &p))
	return t, err
}

// authorize is StartDeviceAuthorization.
func (c *caller) authorize(ctx context.Context, r *client) (*authorization, error) {
	p := &call{signIn: c.signIn, op: "StartDeviceAuthorization", service: serviceOIDC, doing: "sign in to " + c.title(), secrets: []cred.Secret{r.secret}}
	p.words = c.signInWords
	var out *ssooidc.StartDeviceAuthorizationOutput
	err := p.do(ctx, func(ctx context.Context, cfg aws.Config) (err error) {
		out, err = ssooidc.NewFromConfig(cfg).StartDeviceAuthorization(ctx, &ssooidc.StartDeviceAuthorizationInput{
			ClientId: aws.String(r.id), ClientSecret: aws.String(r.secret.Reveal()), StartUrl: aws.String(c.start)})
		return err
	})
	if err != nil {
		return nil, err
	}
	a := &authorization{code: cred.NewSecret(aws.ToString(out.DeviceCode)), userCode: aws.ToString(out.UserCode),
		page: aws.ToString(out.VerificationUriComplete), interval: time.Duration(out.Interval) * time.Second,
		expires: time.Now().Add(time.Duration(out.ExpiresIn) * time.Second)}
	if a.page == "" {
		a.page = aws.ToString(out.VerificationUri)
	}
	if a.interval <= 0 {
		a.interval = defaultInterval
	}
	if a.code.IsZero() || a.page == "" || out.ExpiresIn <= 0 {
		return nil, p.bad("AWS's answer lacks a part of the device authorization")
	}
	return a, nil
}

// poll asks for the tokens until the person has confirmed the code.
func (c *caller) poll(ctx context.Context, r *client, a *authorization) (*tokens, error) {
	late := &flight.PersonError{Kind: cred.AskDevice, Why: "nobody confirmed the code in time"}
	for {
		if !sleep(ctx, a.interval) {
			return nil, ctx.Err()
		}
		if !time.Now().Before(a.expires) {
			return nil, late
		}
		p := &call{signIn: c.signIn, doing: "sign in to " + c.title()}
		t, err := p.token(ctx, r, &ssooidc.CreateTokenInput{GrantType: aws.String(grantDevice), DeviceCode: aws.String(a.code.Reveal())})
		if err == nil {
			return t, nil
		}
		var up *cred.UpstreamError
		if !errors.As(err, &up) || ctx.Err() != nil {
			return nil, err
		}
		switch up.Code {
		case "AuthorizationPendingException":
			continue
		case "SlowDownException":
			a.interval = min(a.interval+slowerBy, maxInterval)
			continue
		case "AccessDeniedException":
			return nil, &flight.PersonError{Kind: cred.AskDevice, Why: "refused in the browser"}
		case "ExpiredTokenException":
			return nil, late
		case "InvalidClientException", "UnauthorizedClientException":
			c.forget(ctx, false)
			return nil, err
		}
		if p.kind == awsclient.Refused || p.kind == awsclient.Settings {
			return nil, err
		}
		// The network or AWS is in trouble, while the person may be at it.
		a.interval = min(max(2*a.interval, slowerBy), maxInterval)
		c.log().WithError(err).Debug("a poll for the sign-in failed")
	}
}

// sleep reports whether d has passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
