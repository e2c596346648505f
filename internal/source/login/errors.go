package login

import (
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/signin/types"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
)

// Policy is the AWS managed policy that lets a user sign in for programs.
const Policy = "SignInLocalDevelopmentAccess"

// codeInvalid is the code of a request that the service does not take.
const codeInvalid = "ValidationException"

// endedError: the sign-in is over, or the page's code is, and a person must
// sign in.
type endedError struct {
	why string // one clause
	// final: AWS said so. Otherwise it refused a token that it should know,
	// which a wrong endpoint does as well: the token may be good again.
	final bool
	err   error
}

func (e *endedError) Error() string { return e.why }
func (e *endedError) Unwrap() error { return e.err }

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

// storeError is the vault's error in the words of a source; what it Is and
// its hint are the vault's.
type storeError struct {
	doing string
	err   error
}

func (e *storeError) Error() string { return "cannot " + e.doing + ": " + e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// cacheError: the AWS CLI's cache can't be written now.
type cacheError struct {
	msg, help string
	err       error
}

func (e *cacheError) Error() string        { return e.msg }
func (e *cacheError) Hint() string         { return e.help }
func (e *cacheError) Unwrap() error        { return e.err }
func (e *cacheError) Is(target error) bool { return target == cred.ErrUnavailable }

// wrongCode says by its method that a typed code, and nothing else, was
// wrong: no refusal by the person, and no reason for a pause.
type wrongCode struct{ why string }

func (w *wrongCode) Error() string   { return w.why }
func (w *wrongCode) WrongCode() bool { return true }

// failed turns the error of a call into one of this package's.
func (c *call) failed(op, doing string, err error, body *types.CreateOAuth2TokenRequestBody) error {
	var settings *awsclient.SettingsError
	if errors.As(err, &settings) {
		return &settingsError{msg: settings.Text + " (profile " + c.s.link.Profile + ")", help: settings.Help, err: settings}
	}
	f := awsclient.Explain(err, &c.seen, aws.ToString(body.RefreshToken), aws.ToString(body.Code), aws.ToString(body.CodeVerifier))
	word := ""
	var denied *types.AccessDeniedException
	if errors.As(err, &denied) {
		word = printable(string(denied.Error_))
	}
	e := &cred.UpstreamError{
		Op:      op,
		Target:  c.s.arn,
		Code:    f.Code,
		Status:  f.Status,
		Message: "cannot " + doing + ": " + f.Text,
		Help:    f.Hint,
		Refused: f.Kind == awsclient.Refused,
		Skew:    f.Skew,
		Err:     f.Err,
	}
	if f.Kind == awsclient.Refused {
		switch types.OAuth2ErrorCode(word) {
		case types.OAuth2ErrorCodeTokenExpired:
			return &endedError{"it has ended", true, f.Err}
		case types.OAuth2ErrorCodeUserCredentialsChanged:
			return &endedError{"it has ended, because the user's credentials were changed", true, f.Err}
		case types.OAuth2ErrorCodeAuthcodeExpired:
			return &endedError{"the code of the sign-in page has expired or was used before", true, f.Err}
		case types.OAuth2ErrorCodeInsufficientPermissions:
			e.Code = word
			e.Message = "cannot " + doing + ": AWS denies it, because the identity may not sign in for programs"
			e.Help = "attach the AWS managed policy " + Policy + " (signin:AuthorizeOAuth2Access and signin:CreateOAuth2Token) to it, or ask who manages the account"
			return e
		}
		switch {
		case f.Code == codeInvalid && c.moved():
			// The proof's time was wrong, as the answer has shown; the next
			// one has AWS's time.
			e.Refused = false
			e.Message = "cannot " + doing + ": AWS refuses the time of the request"
			e.Help = "set this machine's clock; keyfob uses AWS's time from the next attempt on"
		case f.Code == codeInvalid && aws.ToString(body.GrantType) == grantRefresh:
			// A token that AWS does not know, or another key than the
			// sign-in's: only a new sign-in mends that.
			return &endedError{"AWS takes its refresh token no more", false, f.Err}
		}
	}
	addClock(e)
	return e
}

// moved reports whether the answer has shown that the time in the proof was
// wrong.
func (c *call) moved() bool {
	f := c.seen.Facts()
	d := f.Skew - c.skew
	return f.DateKnown && (d > awsclient.SkewLimit || d < -awsclient.SkewLimit)
}

// bad is an answer that can't be used. AWS does not send such; a proxy or a
// wrong endpoint might.
func (c *call) bad(op, doing, why string) error {
	f := c.seen.Facts()
	e := &cred.UpstreamError{
		Op:      op,
		Target:  c.s.arn,
		Status:  f.Status,
		Message: "cannot " + doing + ": " + why,
		Help:    "check AWS_ENDPOINT_URL_SIGNIN and proxies: who answers is " + f.Host,
		Skew:    f.Skew,
	}
	addClock(e)
	return e
}

// addClock says in a failure by how much the clock is off, whatever failed.
func addClock(e *cred.UpstreamError) {
	if text := awsclient.ClockText(e.Skew); text != "" {
		e.Message += " (" + text + ")"
	}
}

// printable is one short line of what a file or an upstream holds.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < '!' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 200)]
}
