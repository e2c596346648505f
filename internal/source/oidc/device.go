package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/source/flight"
)

// Times of a device sign-in: what RFC 8628 §3.2 and §3.5 say, within bounds.
const (
	deviceInterval = 5 * time.Second
	maxInterval    = time.Minute
	slowDown       = 5 * time.Second
	deviceLife     = 10 * time.Minute // where the provider does not say
	maxDeviceLife  = time.Hour
	maxUserCode    = 64
)

// device signs in with a browser elsewhere, which is shown a code.
func (s *session) device(ctx context.Context, f *flight.Flight[outcome], c *caller, p *provider, why string) (r *record, err error) {
	x := &call{signIn: c.signIn, op: "OIDCDeviceAuthorization", doing: "cannot sign in at " + c.issuer + ": "}
	if p.Device == "" {
		if p.Authorization == "" {
			return nil, x.error(http.StatusOK, "", "the provider has neither an authorization_endpoint nor a device_authorization_endpoint", "", true)
		}
		return nil, &flight.PersonError{Kind: cred.AskBrowser, Why: "no browser can be opened here, or none was wanted, and the provider has no sign-in by a code"}
	}
	a, err := x.post(ctx, p.Device, url.Values{"client_id": {c.client}, "scope": {strings.Join(c.scopes, " ")}})
	if err != nil {
		return nil, err
	}
	var got struct {
		DeviceCode  string  `json:"device_code"`
		UserCode    string  `json:"user_code"`
		URI         string  `json:"verification_uri"`
		URL         string  `json:"verification_url"` // an old draft's name, which Google kept
		Complete    string  `json:"verification_uri_complete"`
		ExpiresIn   float64 `json:"expires_in"`
		Interval    float64 `json:"interval"`
		Error       string  `json:"error"`
		Description string  `json:"error_description"`
	}
	err = json.Unmarshal(a.body, &got)
	if err == nil && got.Error != "" && a.status >= 400 && a.status < 500 {
		return nil, x.refusal(&oauthError{code: printable(got.Error, 80), text: clause(printable(got.Description, 300)), status: a.status})
	}
	page := got.Complete
	if page == "" {
		if page = got.URI; page == "" {
			page = got.URL
		}
	}
	if err != nil || a.status != http.StatusOK || got.DeviceCode == "" || got.UserCode == "" || page == "" {
		return nil, x.strange(a)
	}
	if u, err := url.Parse(page); err != nil || !c.secure(u) || printable(got.UserCode, maxUserCode) != got.UserCode {
		return nil, x.error(a.status, "", "the provider's page or code for another device can't be shown", "the page must be an https address", true)
	}
	every := seconds(got.Interval, deviceInterval, maxInterval)
	life := seconds(got.ExpiresIn, deviceLife, maxDeviceLife)

	waiting, stop := context.WithTimeout(ctx, life)
	defer stop()
	asked := f.Ask(ctx, flight.Question{Why: why, Question: cred.Question{Kind: cred.AskDevice, Text: c.text(), URL: page, UserCode: got.UserCode}})
	defer func() { asked.Over(err != nil && context.Cause(ctx) == nil) }()
	for {
		select {
		case <-time.After(every):
		case <-waiting.Done():
			if cause := context.Cause(ctx); cause != nil {
				return nil, cause
			}
			return nil, &flight.PersonError{Kind: cred.AskDevice, Why: "the code " + got.UserCode + " expired before anybody used it"}
		}
		y := &call{signIn: c.signIn, doing: x.doing}
		t, err := p.exchange(ctx, y, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {got.DeviceCode}})
		var no *oauthError
		switch {
		case err == nil:
			return s.granted(ctx, p, y, t, expected{})
		case context.Cause(ctx) != nil:
			return nil, context.Cause(ctx)
		case !errors.As(err, &no):
			// RFC 8628 §3.5: on a failure of the connection poll less often.
			c.log().WithError(err).Info("the provider can't be asked whether a code was used")
			every = min(2*every, maxInterval)
		case no.code == "authorization_pending":
		case no.code == "slow_down":
			every = min(every+slowDown, maxInterval)
		case no.code == "access_denied":
			return nil, &flight.PersonError{Kind: cred.AskDevice, Why: "refused in the browser"}
		case no.code == "expired_token":
			return nil, &flight.PersonError{Kind: cred.AskDevice, Why: "the code " + got.UserCode + " expired before anybody used it"}
		default:
			return nil, y.refusal(no)
		}
	}
}

// secure reports whether a person may be sent to u.
func (s *signIn) secure(u *url.URL) bool {
	issuer, err := url.Parse(s.issuer)
	return err == nil && secureURL(u, issuer)
}

// seconds reads a number of an answer.
func seconds(n float64, otherwise, most time.Duration) time.Duration {
	if !(n > 0) {
		return otherwise
	}
	return time.Duration(min(n, most.Seconds()) * float64(time.Second))
}
