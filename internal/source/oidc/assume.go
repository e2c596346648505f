package oidc

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

// assume is the call that both kinds of link end in: AssumeRoleWithWebIdentity.
type assume struct {
	link     profiles.Link
	d        Deps
	role     string
	duration int32 // seconds
}

func newAssume(link profiles.Link, d Deps) (*assume, error) {
	if d.Pool == nil {
		d.Pool = awsclient.NewPool(awsclient.PoolConfig{})
	}
	a := &assume{link: link, d: d, role: link.Params["role_arn"], duration: 3600}
	if a.role == "" {
		a.role = link.RoleARN
	}
	if accountOf(a.role) == "" || !strings.Contains(a.role, ":role/") {
		return nil, unusable(link.Profile, "role_arn = "+quoted(a.role)+" is not the ARN of a role", "arn:aws:iam::ACCOUNT:role/NAME", nil)
	}
	if text := link.Params["duration_seconds"]; text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n <= 0 {
			return nil, unusable(link.Profile, "duration_seconds = "+quoted(text)+" is no number of seconds", "", nil)
		}
		a.duration = int32(n)
	}
	if name := link.Params["role_session_name"]; name != "" && !legalName(name) {
		return nil, unusable(link.Profile, "role_session_name = "+quoted(name)+" is not 2 to 64 letters, digits and =,.@_-", "", nil)
	}
	if link.Params["session_policy"] == "" { // what stands in a file is read at each fetch
		if _, _, err := a.policy(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// accountOf is the account of an ARN, "" for no ARN.
func accountOf(arn string) string {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 && parts[0] == "arn" && len(parts[4]) == 12 {
		return parts[4]
	}
	return ""
}

// policy is the link's session policy as AWS takes it.
func (a *assume) policy() (inline string, managed []types.PolicyDescriptorType, err error) {
	inline, arns, err := a.link.SessionPolicy()
	if err != nil {
		return "", nil, &settingsError{msg: err.Error(), help: cred.HintOf(err), err: err}
	}
	for _, arn := range arns {
		managed = append(managed, types.PolicyDescriptorType{Arn: aws.String(arn)})
	}
	return inline, managed, nil
}

// sessionName is the profile's, else one that tells AWS's logs who it was:
// the person who signed in, or the user of this machine.
func (a *assume) sessionName(person string) string {
	if name := a.link.Params["role_session_name"]; name != "" {
		return name
	}
	if name := legal(person, ""); len(name) >= 2 {
		return name
	}
	name := a.d.User
	if name == "" {
		if u, err := user.Current(); err == nil {
			if name = u.Username; name == "" {
				name = u.Uid
			}
		}
	}
	if i := strings.LastIndexByte(name, '\\'); i >= 0 { // DOMAIN\user of Windows
		name = name[i+1:]
	}
	if name == "" {
		return "keyfob"
	}
	return legal(name, "keyfob-")
}

// legal is start and name in at most 64 of the characters that AWS takes.
func legal(name, start string) string {
	var b strings.Builder
	b.WriteString(start)
	for _, r := range name {
		if b.Len() == 64 {
			break
		}
		if r < 0x80 && legalByte(byte(r)) {
			b.WriteByte(byte(r))
		} else {
			b.WriteByte('-')
		}
	}
	return b.String()
}

// legalName: AWS takes [\w+=,.@-]{2,64}.
func legalName(s string) bool { return len(s) >= 2 && legal(s, "") == s }

func legalByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("+=,.@_-", c) >= 0
}

// Upstream names the STS endpoint, "" where the settings give none.
func (a *assume) Upstream() string {
	u, err := awsclient.STSEndpoint(context.Background(), a.link.Client)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// Reach tells whether STS can be connected to.
func (a *assume) Reach(ctx context.Context) error {
	u, err := awsclient.STSEndpoint(ctx, a.link.Client)
	if err != nil {
		return &settingsError{msg: err.Error(), help: cred.HintOf(err), err: err}
	}
	return a.d.Pool.Reach(ctx, u)
}

// with assumes the role with a token. said is what the token says of itself,
// and what the words for it.
func (a *assume) with(ctx context.Context, token cred.Secret, said claims, what string) (cred.Credentials, error) {
	policy, policies, err := a.policy()
	if err != nil {
		return cred.Credentials{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, cred.FetchTimeout)
	defer cancel()
	x := &attempt{assume: a, token: token, said: said, what: what}
	client, err := awsclient.STS(ctx, a.link.Client, nil, awsclient.Options{Pool: a.d.Pool, Seen: &x.seen})
	if err != nil {
		return cred.Credentials{}, x.failed(err)
	}
	answer, err := client.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn:          &a.role,
		RoleSessionName:  aws.String(a.sessionName(said.person)),
		DurationSeconds:  &a.duration,
		WebIdentityToken: aws.String(token.Reveal()),
		Policy:           optional(policy),
		PolicyArns:       policies,
	})
	if f := x.seen.Facts(); f.DateKnown && a.d.Skew != nil {
		a.d.Skew(f.Skew)
	}
	if err != nil {
		return cred.Credentials{}, x.failed(err)
	}
	out, err := x.granted(answer.Credentials)
	if err != nil {
		return cred.Credentials{}, err
	}
	out.RoleARN, out.AccountID = a.role, accountOf(a.role)
	if u := answer.AssumedRoleUser; u != nil && accountOf(aws.ToString(u.Arn)) != out.AccountID {
		return cred.Credentials{}, x.bad("AWS's answer is for " + printable(aws.ToString(u.Arn), 200) + ", which is in another account")
	}
	return out, nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// attempt is one call of STS.
type attempt struct {
	*assume
	token cred.Secret
	said  claims
	what  string // "the ID token", "the token in FILE"
	seen  awsclient.Seen
}

const opAssume = "AssumeRoleWithWebIdentity"

// granted refuses half an answer.
func (x *attempt) granted(k *types.Credentials) (cred.Credentials, error) {
	if k == nil {
		return cred.Credentials{}, x.bad("AWS's answer holds no credentials")
	}
	out := cred.Credentials{
		AccessKeyID:     aws.ToString(k.AccessKeyId),
		SecretAccessKey: cred.NewSecret(aws.ToString(k.SecretAccessKey)),
		SessionToken:    cred.NewSecret(aws.ToString(k.SessionToken)),
		Expires:         aws.ToTime(k.Expiration).UTC(),
	}
	switch {
	case out.AccessKeyID == "":
		return cred.Credentials{}, x.bad("AWS's answer holds no access key id")
	case out.SecretAccessKey.IsZero():
		return cred.Credentials{}, x.bad("AWS's answer holds no secret access key")
	case out.SessionToken.IsZero():
		return cred.Credentials{}, x.bad("AWS's answer holds no session token")
	case k.Expiration == nil || k.Expiration.IsZero():
		return cred.Credentials{}, x.bad("AWS's answer does not say when the credentials end")
	case !out.Expires.After(time.Now().Add(x.seen.Facts().Skew)):
		return cred.Credentials{}, x.bad("AWS's answer holds credentials that ended at " + out.Expires.Format(time.RFC3339))
	}
	return out, nil
}

func (x *attempt) doing() string { return "cannot assume role " + x.role + ": " }

// bad is an answer that can't be used.
func (x *attempt) bad(why string) error {
	f := x.seen.Facts()
	e := &cred.UpstreamError{Op: opAssume, Target: x.role, Status: f.Status, Skew: f.Skew,
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
func (x *attempt) failed(err error) error {
	var settings *awsclient.SettingsError
	if errors.As(err, &settings) {
		return &settingsError{msg: settings.Text + " (profile " + x.link.Profile + ")", help: settings.Help, err: settings}
	}
	f := awsclient.Explain(err, &x.seen, x.token.Reveal())
	e := &cred.UpstreamError{Op: opAssume, Target: x.role, Code: f.Code, Status: f.Status, Skew: f.Skew, Err: f.Err,
		Message: x.doing() + f.Text, Help: f.Hint, Refused: f.Kind == awsclient.Refused}
	if e.Refused {
		x.explain(e, f)
	}
	addClock(e)
	return e
}

// explain finds better words for AWS's refusal. The facts that decide are
// the token's: who made it, for whom, until when.
func (x *attempt) explain(e *cred.UpstreamError, f awsclient.Failure) {
	say := func(text, help string) { e.Message, e.Help = x.doing()+text, help }
	why := "it does not say why"
	if f.Message != "" {
		why = clause(f.Message)
	}
	token := x.what + " (" + x.said.forPeople() + ")"
	switch strings.TrimSuffix(f.Code, "Exception") {
	case "InvalidIdentityToken":
		say("AWS does not accept "+token+": "+why,
			"the account "+accountOf(x.role)+" needs an identity provider in IAM whose URL is that issuer, exactly, and which lists that audience; AWS must be able to read the issuer's keys over the internet")
	case "ExpiredToken":
		when := ""
		if !x.said.expires.IsZero() {
			when = " at " + x.said.expires.Format(time.RFC3339)
		}
		say(token+" expired"+when, "whatever writes the token must renew it before its end; check this machine's clock as well")
		if x.link.Kind == profiles.KindOIDC {
			e.Help = "keyfob tries again with a new one; check this machine's clock and the provider's"
			e.Refused = false
		}
	case "IDPRejectedClaim":
		say("the identity provider rejected "+token+", or it was revoked: "+why, "sign in again, or get a new token from the issuer")
	case "IDPCommunicationError":
		say("AWS cannot reach the identity provider of "+token+": "+why, "AWS must be able to read the issuer's keys over the internet; keyfob tries again")
		e.Refused = false
	case "AccessDenied":
		text := "AWS denies it to the bearer of " + token
		if i := strings.Index(f.Message, " because "); i >= 0 {
			text += "," + clause(f.Message[i:])
		}
		help := "the role's trust policy must name the identity provider for sts:AssumeRoleWithWebIdentity, with conditions that fit the token's audience and its subject"
		if x.said.subject != "" {
			help += " " + printable(x.said.subject, 200)
		}
		say(text, help)
	case "RegionDisabled":
		say("STS is not enabled in region "+x.link.Client.Region+" for this account", "enable the region in the account's settings, or set another region in profile "+x.link.Profile)
	case "MalformedPolicyDocument":
		where, help := "the session policy", "correct the policy that the endpoint, the grant, the rule or the command carries"
		if path := x.link.Params["session_policy"]; path != "" {
			where, help = "the session policy "+path, "correct the policy file"
		}
		say("AWS can't read "+where+" ("+why+")", help)
	case "PackedPolicyTooLarge":
		say("session policy, policy ARNs and the token's session tags together are too large ("+why+")", "shorten the policy, or pass fewer session_policy_arns")
	case "ValidationError", "Validation":
		switch lower := strings.ToLower(f.Message); {
		case strings.Contains(lower, "maxsessionduration"):
			say(fmt.Sprintf("the role's maximum session duration is less than the %d s that were asked for", x.duration),
				"lower duration_seconds in profile "+x.link.Profile+", or raise the role's maximum in IAM (an hour to twelve)")
		case strings.Contains(lower, "durationseconds"):
			say(fmt.Sprintf("AWS takes no session of %d s (%s)", x.duration, why), "roles take 900 to 43200 s: correct duration_seconds in profile "+x.link.Profile)
		case strings.Contains(lower, "webidentitytoken"):
			say(x.what+" is none that AWS takes", "it must be the issuer's signed JWT, of 4 to 20000 characters")
		}
	}
}
