package saml

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
)

// wrong is an assertion that AWS would refuse. again says that a later one
// may be better without anybody's doing.
func (x *exchange) wrong(why, help string, again bool) error {
	return &cred.UpstreamError{Op: opAssume, Target: x.role, Message: "cannot use the assertion of profile " + x.link.Profile + ": " + why, Help: help, Refused: !again}
}

// wherefrom says what to look at when an assertion is none.
func (x *exchange) wherefrom() string {
	switch x.from {
	case fromFile:
		return "the file must hold the value of SAMLResponse, as the identity provider posts it"
	case fromProcess:
		return "saml_process must print the SAMLResponse that the identity provider posts, and nothing else"
	}
	return "the identity provider's page posted it: ask whoever runs it"
}

// issuer names the identity provider.
func (x *exchange) issuer() string {
	if x.said.issuer != "" {
		return printable(x.said.issuer)
	}
	return "the identity provider"
}

func (x *exchange) doing() string {
	role := x.grant.role
	if role == "" {
		role = x.role
	}
	if role == "" {
		return "cannot assume a role by SAML: "
	}
	return "cannot assume role " + role + ": "
}

// bad is an answer that can't be used.
func (x *exchange) bad(why string) error {
	f := x.seen.Facts()
	e := &cred.UpstreamError{Op: opAssume, Target: x.grant.role, Status: f.Status, Skew: f.Skew,
		Message: x.doing() + why, Help: "check endpoint_url and proxies: who answers is " + f.Host}
	addClock(e)
	return e
}

func addClock(e *cred.UpstreamError) {
	if text := awsclient.ClockText(e.Skew); text != "" {
		e.Message += " (" + text + ")"
	}
}

// failed turns the error of a call into one for people.
func (x *exchange) failed(err error) error {
	var settings *awsclient.SettingsError
	if errors.As(err, &settings) {
		return &settingsError{msg: settings.Text + " (profile " + x.link.Profile + ")", help: settings.Help, err: settings}
	}
	f := awsclient.Explain(err, &x.seen, x.said.text)
	// Answers quote what was wrong, whole or cut.
	f.Text, f.Message = masked(f.Text), masked(f.Message)
	if f.Err != nil && masked(f.Err.Error()) != f.Err.Error() {
		f.Err = errors.New(masked(f.Err.Error()))
	}
	e := &cred.UpstreamError{Op: opAssume, Target: x.grant.role, Code: f.Code, Status: f.Status, Skew: f.Skew, Err: f.Err,
		Message: x.doing() + f.Text, Help: f.Hint, Refused: f.Kind == awsclient.Refused}
	if e.Refused {
		x.explain(e, f)
	}
	addClock(e)
	return e
}

// explain finds better words for AWS's refusal.
func (x *exchange) explain(e *cred.UpstreamError, f awsclient.Failure) {
	profile := x.link.Profile
	say := func(text, help string) { e.Message, e.Help = x.doing()+text, help }
	why := "it does not say why"
	if f.Message != "" {
		why = strings.TrimRight(f.Message, ". ")
	}
	switch strings.TrimSuffix(f.Code, "Exception") {
	case "InvalidIdentityToken":
		say("AWS does not accept the assertion of "+x.issuer()+": "+why,
			"the SAML provider "+x.grant.provider+" in IAM must hold this identity provider's present metadata (issuer and signing certificate), and the assertion AWS's audience and recipient")
	case "ExpiredToken":
		when := ""
		if end := x.said.ends; !end.IsZero() {
			when = " (it is good until " + end.Format(time.RFC3339) + ")"
		}
		say("AWS says that the assertion has expired"+when, "AWS takes an assertion for five minutes: sign in again; check the clocks of this machine and of the identity provider")
		e.Refused = x.from != fromProcess // which makes a new one
	case "IDPRejectedClaim":
		say("the identity provider rejected the assertion, or it was revoked: "+why, "sign in again")
	case "AccessDenied":
		text := "AWS denies it to the bearer of the assertion"
		for _, action := range []string{"sts:TagSession", "sts:SetSourceIdentity"} {
			if strings.Contains(f.Message, action) {
				text += " (" + action + " is not allowed)"
			}
		}
		if i := strings.Index(f.Message, " because "); i >= 0 {
			text += "," + strings.TrimRight(f.Message[i:], ". ")
		}
		say(text, "the role's trust policy must allow sts:AssumeRoleWithSAML to "+x.grant.provider+
			", with conditions (SAML:aud is the address that the assertion is for) that the assertion meets; sts:TagSession and sts:SetSourceIdentity where it carries tags or a source identity")
	case "RegionDisabled":
		say("STS is not enabled in region "+x.link.Client.Region+" for this account", "enable the region in the account's settings, or set another region in profile "+profile)
	case "MalformedPolicyDocument":
		where, help := "the session policy", "correct the policy that the endpoint, the grant, the rule or the command carries"
		if path := x.link.Params["session_policy"]; path != "" {
			where, help = "the session policy "+path, "correct the policy file"
		}
		say("AWS can't read "+where+" ("+why+")", help)
	case "PackedPolicyTooLarge":
		say("session policy, policy ARNs and the assertion's session tags together are too large ("+why+")", "shorten the policy, or pass fewer session_policy_arns")
	case "ValidationError", "Validation":
		x.invalid(say, f.Message, why)
	}
}

// invalid explains a ValidationError.
func (x *exchange) invalid(say func(text, help string), message, why string) {
	profile := x.link.Profile
	switch lower := strings.ToLower(message); {
	case strings.Contains(lower, "maxsessionduration"):
		whose := "duration_seconds"
		if x.duration == 0 {
			whose = "the assertion's SessionDuration"
		}
		say(fmt.Sprintf("the role's maximum session duration is less than the %d s of %s", x.seconds, whose),
			"set a lower duration_seconds in profile "+profile+", or raise the role's maximum in IAM (an hour to twelve)")
	case strings.Contains(lower, "durationseconds"):
		say(fmt.Sprintf("AWS takes no session of %d s (%s)", x.seconds, why), "roles take 900 to 43200 s: correct duration_seconds in profile "+profile)
	case strings.Contains(lower, "samlassertion"):
		say("AWS takes no such assertion ("+why+")", x.wherefrom())
	}
}

// part is long enough to be a part of an assertion, and too long for a word
// of an ARN.
var part = regexp.MustCompile(`[A-Za-z0-9+/=]{48,}`)

func masked(s string) string { return part.ReplaceAllString(s, cred.Redacted) }

// printable is one short line of what others sent.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < '!' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 200)]
}
