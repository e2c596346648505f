package sts

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
)

// wrongCode stands in the tree of an UpstreamError that a wrong MFA code
// made. Packages that must not import this one find it by its method:
//
//	var w interface{ WrongCode() bool }
//	if errors.As(err, &w) && w.WrongCode() { ask again }
//
// Such an error is no refusal by the person and starts no cool-down
// (CONTRACT.md §8): the same link may ask for another code at once. AWS
// takes each code once, so that the next one comes up to 30 s later.
type wrongCode struct{ err error }

func (w *wrongCode) Error() string {
	if w.err == nil {
		return "not six digits"
	}
	return w.err.Error()
}
func (w *wrongCode) Unwrap() error { return w.err }

// WrongCode reports that the MFA code, and nothing else, was wrong.
func (w *wrongCode) WrongCode() bool { return true }

// WrongCode reports whether err says that an MFA code was wrong, so that
// another one may be asked for.
func WrongCode(err error) bool {
	var w interface{ WrongCode() bool }
	return errors.As(err, &w) && w.WrongCode()
}

// CodeWrongMFA is UpstreamError.Code of a wrong MFA code. AWS's own is
// AccessDenied, which also means many other things.
const CodeWrongMFA = "InvalidMFACode"

func (c *call) wrongCode(why string, err error) error {
	return &cred.UpstreamError{
		Op:      c.op,
		Target:  c.serial,
		Code:    CodeWrongMFA,
		Status:  c.seen.Facts().Status,
		Message: "cannot " + c.doing + ": the code of the MFA device " + c.serial + " is wrong: " + why,
		Help:    "wait for the next code and try again: each code is taken once; a device whose clock is off must be synchronised in IAM",
		Refused: true,
		Err:     &wrongCode{err: err},
	}
}

// bad is an answer that can't be used. AWS does not send such; a proxy or a
// wrong endpoint might.
func (c *call) bad(why string) error {
	f := c.seen.Facts()
	e := &cred.UpstreamError{
		Op:      c.op,
		Target:  c.target,
		Status:  f.Status,
		Message: "cannot " + c.doing + ": " + why,
		Help:    "check endpoint_url and proxies: who answers is " + f.Host,
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

// failed turns the error of a call into one of this package's.
func (c *call) failed(err error) error {
	var ours *cred.UpstreamError
	if errors.As(err, &ours) {
		return ours
	}
	var settings *awsclient.SettingsError
	if errors.As(err, &settings) {
		e := &settingsError{msg: settings.Text, help: settings.Help, err: settings}
		if name := c.profileName(); name != "" {
			e.msg += " (profile " + name + ")"
		}
		return e
	}
	f := awsclient.Explain(err, &c.seen, c.base.SecretAccessKey.Reveal(), c.base.SessionToken.Reveal(), c.code.Reveal())
	e := &cred.UpstreamError{
		Op:      c.op,
		Target:  c.target,
		Code:    f.Code,
		Status:  f.Status,
		Message: "cannot " + c.doing + ": " + f.Text,
		Help:    f.Hint,
		Refused: f.Kind == awsclient.Refused,
		Skew:    f.Skew,
		Err:     f.Err,
	}
	if f.Kind == awsclient.Refused {
		if wrong := c.refused(e, f); wrong != nil {
			return wrong
		}
	}
	addClock(e)
	return e
}

func (c *call) profileName() string {
	if c.link.Profile != "" {
		return c.link.Profile
	}
	return c.profile
}

// refused finds better words for AWS's refusal. It returns another error
// for a wrong MFA code.
func (c *call) refused(e *cred.UpstreamError, f awsclient.Failure) error {
	say := func(text, help string) {
		e.Message, e.Help = "cannot "+c.doing+": "+text, help
	}
	profile := c.profileName()
	message := f.Message
	switch f.Code {
	case "AccessDenied", "AccessDeniedException", "UnauthorizedOperation":
		switch {
		case strings.Contains(message, "MultiFactorAuthentication failed") && c.serial != "":
			if strings.Contains(message, "invalid MFA one time pass code") {
				return c.wrongCode("AWS does not accept it", f.Err)
			}
			say("AWS can't check the code with the MFA device "+c.serial+" ("+clause(message)+")",
				"check mfa_serial: it must be the device of the user whose key signs (keyfob explain "+profile+")")
		case strings.Contains(message, "Roles may not be assumed by root accounts"):
			say("AWS lets no root user assume a role", "make an IAM user, and delete the root user's access key")
		case c.op == "AssumeRole":
			c.assumeDenied(say, message)
		default:
			say("AWS denies it to "+c.caller(message)+because(message), "check the policies of the key's user, and conditions such as MFA or source address")
		}
	case "ExpiredToken", "ExpiredTokenException":
		say("the session of "+c.caller("")+" has ended",
			"keyfob login "+profile+"; keys that stand with a session token in a file must be replaced there (keyfob explain "+profile+")")
	case "InvalidClientTokenId", "UnrecognizedClientException":
		if c.base.SessionToken.IsZero() {
			say("AWS does not know the access key "+c.base.AccessKeyID+" (asked "+f.Host+")",
				"it was deleted or deactivated, or belongs to another partition (check region): keyfob add "+profile+" stores a new one")
		} else {
			say("AWS does not know the session of "+c.caller("")+" (asked "+f.Host+")",
				"its key was deleted, it belongs to another partition, or the region is not enabled for it: keyfob logout "+profile+" and try again")
		}
	case "SignatureDoesNotMatch", "InvalidSignatureException":
		say("the secret access key is not that of "+c.base.AccessKeyID,
			"the secret was mistyped or cut: keyfob add "+profile+" stores the pair again")
		if !c.base.SessionToken.IsZero() {
			e.Help = "keyfob logout " + profile + " and try again; a proxy that changes requests breaks signatures, too"
		}
	case "RegionDisabledException":
		say("STS is not enabled in region "+c.link.Client.Region+" for this account",
			"enable the region in the account's settings, or set another region in profile "+profile)
	case "ValidationError", "ValidationException":
		c.invalid(say, message)
	case "MalformedPolicyDocument":
		switch path := c.link.Params["session_policy"]; {
		case path != "":
			say("AWS can't read the session policy "+path+" ("+clause(message)+")", "correct the policy file")
		default:
			say("AWS can't read the session policy ("+clause(message)+")", "correct the policy that the endpoint, the grant, the rule or the command carries")
		}
	case "PackedPolicyTooLarge", "PackedPolicyTooLargeException":
		say("session policy, policy ARNs and session tags together are too large ("+clause(message)+")",
			"shorten the policy, or pass fewer session_policy_arns and session_tags")
	case "OptInRequired", "SubscriptionRequiredException":
		say("the account of "+c.caller("")+" is not active ("+clause(message)+")", "")
	}
	return nil
}

// assumeDenied names the role, the caller, and what usually stands between.
// AWS says "User: ARN is not authorized to perform: sts:AssumeRole on
// resource: ROLE", and sometimes because of what.
func (c *call) assumeDenied(say func(text, help string), message string) {
	var missing []string
	if c.serial == "" {
		missing = append(missing, "MFA (mfa_serial)")
	}
	if c.link.Params["external_id"] == "" {
		missing = append(missing, "external_id")
	}
	missing = append(missing, "source_identity or session tags")
	what := ""
	for _, action := range []string{"sts:TagSession", "sts:SetSourceIdentity"} {
		if strings.Contains(message, action) {
			what = " (" + action + " is not allowed)"
		}
	}
	say("AWS denies it to "+c.caller(message)+what+because(message),
		"check, in this order: the role's trust policy names this caller; the caller's own policies allow sts:AssumeRole on the role; "+
			"conditions of either are met, such as "+strings.Join(missing, ", "))
}

// invalid explains a ValidationError: the two limits of a session's length
// are what people meet.
func (c *call) invalid(say func(text, help string), message string) {
	switch {
	case strings.Contains(message, "role chaining"):
		say(fmt.Sprintf("a role that is assumed with temporary credentials lasts an hour at most (role chaining), and %d s were asked for", c.asked),
			"set duration_seconds = 3600 in profile "+c.profileName())
	case strings.Contains(message, "MaxSessionDuration"):
		say(fmt.Sprintf("the role's maximum session duration is less than the %d s that were asked for", c.asked),
			"lower duration_seconds in profile "+c.profileName()+", or raise the role's maximum in IAM (an hour to twelve)")
	case strings.Contains(strings.ToLower(message), "durationseconds"):
		say(fmt.Sprintf("AWS takes no session of %d s (%s)", c.asked, clause(message)),
			"roles take 900 to 43200 s, sessions of keys 900 to 129600 s: correct duration_seconds in profile "+c.profileName())
	case strings.Contains(strings.ToLower(message), "tokencode"), strings.Contains(strings.ToLower(message), "serialnumber"):
		say("AWS takes no such MFA device or code ("+clause(message)+")", "check mfa_serial in profile "+c.profileName())
	}
}

var callerARN = regexp.MustCompile(`User: (arn:[!-~]+) is not`)

// caller says who signed: as AWS named it, else by what is known here.
func (c *call) caller(message string) string {
	if m := callerARN.FindStringSubmatch(message); m != nil {
		return m[1]
	}
	if c.base.RoleARN != "" {
		return c.base.RoleARN
	}
	return "the access key " + c.base.AccessKeyID
}

// because is the reason that AWS gives in newer messages ("because no
// identity-based policy allows …", "with an explicit deny in …").
func because(message string) string {
	for _, start := range []string{" because ", " with an explicit deny"} {
		if i := strings.Index(message, start); i >= 0 {
			return "," + clause(message[i:])
		}
	}
	return ""
}

// clause is a message without its full stop, to stand inside a line.
func clause(message string) string {
	if message = strings.TrimRight(message, ". "); message == "" {
		return "it does not say why"
	}
	return message
}

// printable is one short line of what an upstream sent.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < '!' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 200)]
}
