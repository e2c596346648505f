package awsclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/smithy-go"
)

// Kind says how far a call came.
type Kind int

// The kinds of Failure.
const (
	// Refused: AWS understood the request and said no.
	Refused Kind = iota + 1
	// Busy: AWS answered that it can't now (throttling, 5xx).
	Busy
	// Clock: AWS refused the request's time. The next one is signed with
	// AWS's time.
	Clock
	// Unreachable: no HTTP answer came.
	Unreachable
	// Foreign: an HTTP answer came that is not AWS's (a web page, a
	// redirect, half an answer).
	Foreign
	// Settings: no call was made.
	Settings
	// Cancelled: our side gave up, not for lack of time.
	Cancelled
)

// Failure is a failed call in words.
type Failure struct {
	Kind    Kind
	Code    string // AWS's error code, "" when there is none
	Message string // AWS's message, one line, "" when there is none
	Status  int    // HTTP status, 0 when no answer came
	Host    string // whom the call went to
	// Text is one clause for after "cannot …: ", without a full stop.
	Text string
	Hint string // what to do, "" for nothing better
	// Skew is AWS's clock minus ours where that exceeds SkewLimit.
	Skew time.Duration
	Err  error // the cause without its HTTP exchange
}

// Explain says what err, the error of an SDK call, means. seen is what was
// recorded of that call. secrets are texts that must not be repeated
// (AWS quotes parts of a request in some messages).
func Explain(err error, seen *Seen, secrets ...string) Failure {
	facts := seen.Facts()
	f := Failure{Status: facts.Status, Host: facts.Host, Skew: facts.Skew}
	var settings *SettingsError
	var api smithy.APIError
	switch {
	case errors.As(err, &settings):
		return Failure{Kind: Settings, Text: strings.TrimPrefix(settings.Text, "cannot "), Hint: settings.Help, Err: err}
	case errors.As(err, &api) && api.ErrorCode() != "" && api.ErrorCode() != "UnknownError" && facts.Status != 0:
		f.Code, f.Message = printable(api.ErrorCode(), 100), printable(scrub(api.ErrorMessage(), secrets), 400)
		fromAWS(&f)
	case facts.Status != 0:
		foreign(&f, facts, err)
	default:
		unreachable(&f, facts, err)
	}
	if f.Err == nil {
		f.Err = errors.New(printable(scrub(err.Error(), secrets), 1000))
	}
	if facts.RetryAfter > 0 && f.Kind == Busy {
		f.Err = &later{f.Err, facts.RetryAfter}
	}
	return f
}

// later is a cause that says when to come back (cred.RetryAfter).
type later struct {
	error
	after time.Duration
}

func (l *later) Unwrap() error             { return l.error }
func (l *later) RetryAfter() time.Duration { return l.after }

// ClockText says how far our clock is off, "" when it is not.
func ClockText(skew time.Duration) string {
	switch {
	case skew > 0:
		return "the clock of this machine is " + skew.Round(time.Second).String() + " behind AWS's"
	case skew < 0:
		return "the clock of this machine is " + (-skew).Round(time.Second).String() + " ahead of AWS's"
	}
	return ""
}

// fromAWS fills in what an answer of AWS's own means.
func fromAWS(f *Failure) {
	switch {
	case throttled(f.Code) || f.Status == http.StatusTooManyRequests:
		f.Kind = Busy
		f.Text = "AWS limits the rate of calls (" + f.Code + ")"
	case f.Status >= 500:
		f.Kind = Busy
		f.Text = fmt.Sprintf("AWS has an error of its own (%s, HTTP %d)", f.Code, f.Status)
	case clockRefusal(f.Code, f.Message):
		f.Kind = Clock
		f.Text = "AWS refuses the time of the request"
		f.Hint = "set this machine's clock; keyfob signs with AWS's time from the next attempt on"
	default:
		f.Kind = Refused
		f.Text = "AWS answered " + f.Code
		// The message of this one repeats the signed request, tokens and all.
		if f.Message != "" && f.Code != "SignatureDoesNotMatch" {
			f.Text += ": " + strings.TrimRight(f.Message, ". ")
		}
	}
	if f.Code == "SignatureDoesNotMatch" {
		f.Message = ""
	}
	detail := f.Code
	if f.Message != "" {
		detail += ": " + f.Message
	}
	f.Err = fmt.Errorf("HTTP %d, %s", f.Status, detail)
}

func throttled(code string) bool {
	switch code {
	case "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
		"RequestLimitExceeded", "TooManyRequestsException", "SlowDown", "PriorRequestNotComplete":
		return true
	}
	return false
}

// clockRefusal: STS has no code of its own for it, only words ("Signature
// expired: 20230101T000000Z is now earlier than …", "Signature not yet
// current: …").
func clockRefusal(code, message string) bool {
	switch code {
	case "RequestExpired", "RequestTimeTooSkewed":
		return true
	}
	return strings.HasPrefix(message, "Signature expired") || strings.HasPrefix(message, "Signature not yet current")
}

// foreign fills in what an HTTP answer means that is not in AWS's form.
func foreign(f *Failure, facts Facts, err error) {
	f.Kind = Foreign
	switch {
	case facts.Status == http.StatusProxyAuthRequired:
		f.Text = "the proxy " + facts.Proxy + " wants a user and a password"
		f.Hint = "put them into HTTPS_PROXY (http://user:password@host:port) in the environment of keyfobd"
	case facts.Status >= 300 && facts.Status < 400:
		f.Text = fmt.Sprintf("%s redirects (HTTP %d)", facts.Host, facts.Status)
		if facts.Redirect != "" && facts.Redirect != facts.Host {
			f.Text += " to " + printable(facts.Redirect, 100)
		}
		f.Text += ", which AWS never does"
		f.Hint = "a captive portal or a proxy may stand in between: open a web page to sign in to the network"
	case facts.HTML:
		f.Text = fmt.Sprintf("%s answered with a web page (HTTP %d), not as AWS does", facts.Host, facts.Status)
		f.Hint = "a captive portal or a proxy may stand in between: open a web page to sign in to the network"
	case facts.Status >= 500 || facts.Status == http.StatusTooManyRequests:
		f.Kind = Busy
		f.Text = fmt.Sprintf("%s answered HTTP %d %s", facts.Host, facts.Status, http.StatusText(facts.Status))
	case errors.Is(err, errTooLong):
		f.Text = facts.Host + " sent an answer of more than 1 MiB"
	case timedOut(err):
		f.Text = facts.Host + " did not finish its answer in time"
	case facts.Status >= 400:
		f.Text = fmt.Sprintf("%s answered HTTP %d %s, not as AWS does", facts.Host, facts.Status, http.StatusText(facts.Status))
	default:
		f.Text = facts.Host + " sent half an answer, or something that is none of AWS's"
	}
	if f.Hint == "" && f.Kind == Foreign && facts.Proxy != "" {
		f.Hint = "the call went through the proxy " + facts.Proxy
	}
}

// unreachable fills in why no answer came.
func unreachable(f *Failure, facts Facts, err error) {
	f.Kind = Unreachable
	host := facts.Host
	if host == "" {
		host = "AWS"
	}
	var (
		dns       *net.DNSError
		op        *net.OpError
		proxy     *proxyError
		unknownCA x509.UnknownAuthorityError
		wrongName x509.HostnameError
		badCert   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		alert     tls.AlertError
	)
	to := host // who does not answer: the proxy, if there is one
	if facts.Proxy != "" {
		to = "the proxy " + facts.Proxy
		f.Hint = "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment of keyfobd"
	}
	viaProxy := facts.Proxy != ""
	switch {
	case errors.Is(err, context.Canceled):
		f.Kind = Cancelled
		f.Text = "the call was cancelled"
		f.Err = context.Canceled
	case errors.As(err, &proxy):
		f.Err = proxy
		f.Text = proxy.Error() + " for " + host
		if proxy.status == http.StatusProxyAuthRequired {
			f.Text = "the proxy " + proxy.proxy + " wants a user and a password"
			f.Hint = "put them into HTTPS_PROXY (http://user:password@host:port) in the environment of keyfobd"
		}
	case errors.As(err, &dns):
		f.Err = dns
		f.Text = "there is no host " + printable(dns.Name, 200)
		if !dns.IsNotFound {
			f.Text = "the name server does not answer for " + printable(dns.Name, 200)
		}
		if f.Hint == "" {
			f.Hint = "check the network, and the region or endpoint_url"
		}
	case errors.As(err, &unknownCA):
		f.Err = errors.New(reason(unknownCA))
		f.Text = "the certificate of " + host + " is signed by an unknown authority"
		f.Hint = "where a company's proxy inspects TLS, name its root certificate in ca_bundle (AWS_CA_BUNDLE)"
	case errors.As(err, &wrongName):
		f.Err = errors.New(printable(reason(wrongName), 300))
		f.Text = "the certificate of " + host + " is for another name"
		f.Hint = "check endpoint_url, and whether a captive portal stands in between"
	case errors.As(err, &badCert):
		f.Err = errors.New(reason(badCert))
		f.Text = "the certificate of " + host + " is not valid"
		if badCert.Reason == x509.Expired {
			f.Text = "the certificate of " + host + " has expired or is not yet valid"
			f.Hint = "check this machine's clock"
		}
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		f.Text = host + " does not speak TLS"
		f.Hint = "check endpoint_url: https:// was called and http:// answered"
	case errors.As(err, &alert), strings.Contains(err.Error(), "tls: "):
		f.Text = "TLS with " + host + " failed: " + printable(after(err.Error(), "tls: "), 200)
	case refused(err):
		f.Text = to + " refuses the connection"
		if f.Hint == "" {
			f.Hint = "check the network, and endpoint_url"
		}
	case unroutable(err):
		f.Text = "there is no route to " + to
		if f.Hint == "" {
			f.Hint = "check the network"
		}
	case timedOut(err):
		f.Text = host + " did not answer in time"
		if viaProxy {
			f.Text += " through the proxy " + facts.Proxy
		}
		if errors.As(err, &op) && op.Op == "dial" {
			f.Text = to + " can't be reached in time"
		}
		if f.Hint == "" {
			f.Hint = "check the network"
		}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), reset(err):
		f.Text = to + " closed the connection without an answer"
	default:
		f.Text = "the call of " + host + " failed: " + printable(innermost(err).Error(), 200)
	}
	if f.Err == nil && errors.Is(err, context.DeadlineExceeded) {
		f.Err = context.DeadlineExceeded
	}
}

func timedOut(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// innermost is the end of a chain of wrapped errors: the SDK's and net/http's
// wrappers say nothing that Text does not.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// reason is err's own words without the path, which the caller names.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

func after(s, sep string) string {
	if _, rest, ok := strings.Cut(s, sep); ok {
		return rest
	}
	return s
}

// scrub takes secrets out of a text.
func scrub(s string, secrets []string) string {
	for _, x := range secrets {
		if len(x) >= 4 {
			s = strings.ReplaceAll(s, x, "[redacted]")
		}
	}
	return s
}

// printable is s as one line of at most n bytes without control characters.
func printable(s string, n int) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\ufffd' {
			return ' '
		}
		return r
	}, s)), " ")
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}

// withoutUser cuts user and password out of a URL that may not parse.
func withoutUser(raw string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		scheme, rest = "", raw
	} else {
		scheme += "://"
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	return scheme + rest
}
