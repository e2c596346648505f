package oidc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

// call is one HTTP request to the provider. Proxy, CA bundle, limits of time
// and size are those of awsclient.
type call struct {
	*signIn
	op      string   // UpstreamError.Op: "OIDCToken"
	doing   string   // "cannot sign in at ISSUER: "
	secrets []string // that the request holds
	seen    awsclient.Seen
	sent    atomic.Bool // the request, or a part of it, may have reached somebody
}

// answer is an HTTP answer, read to its end.
type answer struct {
	status int
	body   []byte
}

const maxHops = 3 // redirects of a GET, within one host

// get fetches a public document. It follows redirects within the host alone.
func (c *call) get(ctx context.Context, address string) (*answer, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, c.settings("cannot use the address "+quoted(address), "")
	}
	for hop := 0; ; hop++ {
		a, next, err := c.do(ctx, http.MethodGet, u, nil)
		if err != nil {
			return nil, err
		}
		if next == nil || hop == maxHops || next.Host != u.Host || next.Scheme != u.Scheme {
			return a, nil
		}
		u = next
	}
}

// post sends a form. Redirects are never followed: the form holds secrets.
func (c *call) post(ctx context.Context, address string, form url.Values) (*answer, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, c.settings("cannot use the address "+quoted(address), "")
	}
	a, _, err := c.do(ctx, http.MethodPost, u, form)
	return a, err
}

// do makes one request on a connection of its own: one that a server has
// closed while it was idle would leave it open whether a one-use token was
// taken. next is where a redirect goes.
func (c *call) do(ctx context.Context, method string, u *url.URL, form url.Values) (a *answer, next *url.URL, err error) {
	ctx, cancel := context.WithTimeout(ctx, cred.FetchTimeout)
	defer cancel()
	// The issuer is configured, so that its Date counts as awsclient has it.
	cfg, err := awsclient.Config(ctx, profiles.Client{CABundle: c.signIn.settings.CABundle, EndpointURL: map[string]string{"oidc": c.issuer}}, nil,
		awsclient.Options{Service: "oidc", Pool: c.d.Pool, Seen: &c.seen})
	if err != nil {
		return nil, nil, c.settings(err.Error(), cred.HintOf(err))
	}
	trace := &httptrace.ClientTrace{WroteHeaders: func() { c.sent.Store(true) }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), method, u.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, nil, c.settings("cannot use the address "+quoted(u.String()), "")
	}
	if method == http.MethodGet {
		req.Body, req.GetBody, req.ContentLength = nil, nil, 0
	} else {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "keyfob")
	req.Close = true
	resp, err := cfg.HTTPClient.Do(req)
	if err != nil {
		return nil, nil, c.unanswered(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body) // awsclient ends it at 1 MiB
	if err != nil {
		return nil, nil, c.halfAnswer(err)
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		next, _ = resp.Location()
	}
	return &answer{status: resp.StatusCode, body: body}, next, nil
}

func (c *call) settings(why, help string) error {
	return &settingsError{msg: why + " (profile " + c.profile + ")", help: help}
}

func (c *call) error(status int, code, text, help string, refused bool) *cred.UpstreamError {
	return &cred.UpstreamError{Op: c.op, Target: c.issuer, Code: code, Status: status, Message: c.doing + text, Help: help, Refused: refused}
}

// unanswered: no HTTP answer came.
func (c *call) unanswered(err error) error {
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	f := awsclient.Explain(err, &c.seen, c.secrets...)
	e := c.error(0, "", f.Text, f.Hint, false)
	if e.Help == "" || strings.Contains(e.Help, "endpoint_url") || strings.Contains(e.Help, "region") {
		e.Help = "check the network, and oidc_issuer in profile " + c.profile
	}
	e.Err = f.Err
	return e
}

// halfAnswer: an answer began and did not end.
func (c *call) halfAnswer(err error) error {
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	f := c.seen.Facts()
	text := f.Host + " sent half an answer"
	if errors.Is(err, context.DeadlineExceeded) {
		text = f.Host + " did not finish its answer in time"
	} else if !errors.Is(err, io.ErrUnexpectedEOF) {
		text = f.Host + " sent an answer that can't be read: " + printable(scrub(err.Error(), c.secrets), 200)
	}
	e := c.error(f.Status, "", text, "", false)
	e.Err = errors.New(printable(scrub(err.Error(), c.secrets), 300))
	return e
}

// strange: the answer is none of a provider.
func (c *call) strange(a *answer) *cred.UpstreamError {
	f := c.seen.Facts()
	help := "check oidc_issuer in profile " + c.profile + "; a captive portal or a proxy may also stand in between"
	if f.Proxy != "" {
		help += ": the call went through the proxy " + f.Proxy
	}
	switch {
	case a.status >= 300 && a.status < 400:
		text := fmt.Sprintf("%s redirects (HTTP %d)", f.Host, a.status)
		if f.Redirect != "" {
			text += " to " + printable(f.Redirect, 100)
		}
		return c.error(a.status, "", text+", which is not followed", help, false)
	case a.status == http.StatusTooManyRequests:
		return c.error(a.status, "", f.Host+" limits the rate of calls", "", false)
	case a.status >= 500:
		return c.error(a.status, "", fmt.Sprintf("%s answered HTTP %d %s", f.Host, a.status, http.StatusText(a.status)), "", false)
	case f.HTML:
		return c.error(a.status, "", fmt.Sprintf("%s answered with a web page (HTTP %d), not as an OpenID provider does", f.Host, a.status), help, false)
	}
	return c.error(a.status, "", fmt.Sprintf("%s answered HTTP %d, not as an OpenID provider does", f.Host, a.status), help, false)
}
