package saml

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
)

const opAssume = "AssumeRoleWithSAML"

// Where an assertion came from.
type origin int

const (
	fromBrowser origin = iota + 1
	fromFile
	fromProcess
)

// exchange is one trade of an assertion for a session.
type exchange struct {
	*source
	in         cred.Input
	policyText string
	policyARNs []types.PolicyDescriptorType
	from       origin
	said       *response
	grant      grant
	seconds    int32 // asked for
	seen       awsclient.Seen
}

// policy is the link's session policy.
func (s *source) policy() (inline string, managed []types.PolicyDescriptorType, err error) {
	inline, arns, err := s.link.SessionPolicy()
	if err != nil {
		return "", nil, &settingsError{msg: err.Error(), help: cred.HintOf(err), err: err}
	}
	for _, arn := range arns {
		managed = append(managed, types.PolicyDescriptorType{Arn: aws.String(arn)})
	}
	return inline, managed, nil
}

// now is AWS's clock where an earlier answer showed it, else ours.
func (x *exchange) now() time.Time {
	if u, err := awsclient.STSEndpoint(context.Background(), x.link.Client); err == nil {
		return time.Now().Add(x.d.Pool.Skew(u.Host))
	}
	return time.Now()
}

// judge finds what AWS would refuse.
func (x *exchange) judge() error {
	r := x.said
	profile := x.link.Profile
	if r.status != "" {
		return x.wrong("the identity provider refused the sign-in ("+printable(r.status)+")", "ask whoever runs "+x.issuer()+", or sign in as another person", false)
	}
	if r.encrypted && r.assertions == 0 {
		if x.role != "" && x.provider != "" {
			return nil // AWS may have the key
		}
		return x.wrong("it is encrypted, so that its roles can't be read", "set role_arn and principal_arn in profile "+profile+", or turn encryption off at the identity provider", false)
	}
	if len(r.audiences) > 0 && !slices.ContainsFunc(r.audiences, x.to.hears) {
		return x.wrong("it is for another audience, "+x.names(r.audiences), x.mend("audience", x.to.audiences), false)
	}
	if len(r.recipients) > 0 && !slices.ContainsFunc(r.recipients, x.to.takes) {
		return x.wrong("it is for another recipient, "+x.names(r.recipients), x.mend("recipient (ACS address)", []string{x.to.endpoint}), false)
	}
	now := x.now()
	// One that comes out of a browser or a command is fresh: where it looks
	// old, our clock is wrong more likely than the provider's, and AWS says.
	if x.from == fromFile && !r.ends.IsZero() && now.After(r.ends.Add(awsclient.SkewLimit)) {
		return x.wrong("it expired at "+r.ends.Format(time.RFC3339), "get a new one and use it within five minutes", false)
	}
	if x.from == fromFile && !r.sessionEnds.IsZero() && now.After(r.sessionEnds.Add(awsclient.SkewLimit)) {
		return x.wrong("the session at the identity provider ended at "+r.sessionEnds.Format(time.RFC3339), "sign in there again", false)
	}
	return nil
}

// names lists what an assertion is for, with a partition where it is one.
func (x *exchange) names(all []string) string {
	text := printable(all[0])
	if other := x.to.elsewhere(all[0]); other != "" {
		text += " (partition " + other + ")"
	}
	if len(all) > 1 {
		text += fmt.Sprintf(" and %d more", len(all)-1)
	}
	return text
}

func (x *exchange) mend(what string, right []string) string {
	help := "AWS takes"
	if len(right) > 0 {
		help += " " + strings.Join(right, " or ")
	} else {
		help += " another one"
	}
	return help + " in partition " + x.to.name + ": correct the " + what + " at the identity provider, or region and role_arn in profile " + x.link.Profile
}

// choose finds the role and its provider among those of the assertion. Where
// several are left a person chooses.
func (x *exchange) choose(ctx context.Context) (grant, error) {
	r := x.said
	if r.encrypted && r.assertions == 0 {
		return grant{x.role, x.provider}, nil
	}
	if len(r.roles) == 0 {
		why := "it offers no role"
		if r.badRoles > 0 {
			why = fmt.Sprintf("its %d roles are not written as AWS wants them", r.badRoles)
		}
		return grant{}, x.wrong(why, "its attribute "+attributes+"Role needs values of the form ROLE-ARN,PROVIDER-ARN: check the person's groups, and the mapping at the identity provider", false)
	}
	var fit []grant
	for _, g := range r.roles {
		if (x.role == "" || g.role == x.role) && (x.provider == "" || g.provider == x.provider) && (x.to.name == "" || field(g.role, 1) == x.to.name) {
			fit = append(fit, g)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		return x.ask(ctx, fit)
	}
	want := "role " + x.role
	switch {
	case x.role == "" && x.provider == "":
		want = "a role in partition " + x.to.name
	case x.role == "":
		want = "a role of " + x.provider
	case x.provider != "":
		want += " with " + x.provider
	}
	return grant{}, x.wrong("it does not offer "+want, "it offers "+offers(r.roles)+": correct role_arn or principal_arn in profile "+x.link.Profile+", or ask for access", false)
}

// offers names the first few roles.
func offers(roles []grant) string {
	const most = 5
	var text []string
	for _, g := range roles[:min(most, len(roles))] {
		text = append(text, g.role+" with "+g.provider)
	}
	if len(roles) > most {
		text = append(text, fmt.Sprintf("%d more", len(roles)-most))
	}
	return strings.Join(text, ", ")
}

// ask has a person choose.
func (x *exchange) ask(ctx context.Context, fit []grant) (grant, error) {
	var labels []string
	for i, g := range fit {
		label := g.role
		if slices.ContainsFunc(fit, func(o grant) bool { return o.role == g.role && o != fit[i] }) {
			label += " with " + g.provider
		}
		labels = append(labels, label)
	}
	answer, err := x.in.Ask.Ask(ctx, x.in.Key, cred.Question{Kind: cred.AskChoice, Profile: x.in.Profile, Text: "which role for profile " + x.in.Profile + "?", Choices: labels})
	if err != nil {
		return grant{}, err
	}
	if i := slices.Index(labels, answer.Reveal()); i >= 0 {
		return fit[i], nil
	}
	return grant{}, &cred.InteractionError{Key: x.in.Key, Kind: cred.AskChoice, Profile: x.in.Profile,
		Message: "cannot sign in to " + x.in.Profile + ": the answer is none of the roles", Help: "set role_arn in profile " + x.link.Profile}
}

// length is the session's length to ask for: what the profile says, else the
// assertion, and no more than is left of the session at the provider.
func (x *exchange) length() int32 {
	n := x.duration
	if n == 0 {
		n = defaultDuration
		if x.said.seconds > 0 {
			n = int32(min(max(x.said.seconds, minDuration), maxDuration))
		}
	}
	if end := x.said.sessionEnds; !end.IsZero() {
		if left := int64(end.Sub(x.now()) / time.Second); left < int64(n) {
			// AWS takes no less than the minimum, and ends the session in
			// time all the same.
			n = int32(max(left, minDuration))
		}
	}
	return n
}

// assume makes the call.
func (x *exchange) assume(ctx context.Context) (cred.Credentials, error) {
	x.seconds = x.length()
	ctx, cancel := context.WithTimeout(ctx, cred.FetchTimeout)
	defer cancel()
	client, err := awsclient.STS(ctx, x.link.Client, nil, awsclient.Options{Pool: x.d.Pool, Seen: &x.seen})
	if err != nil {
		return cred.Credentials{}, x.failed(err)
	}
	input := &sts.AssumeRoleWithSAMLInput{
		RoleArn:         &x.grant.role,
		PrincipalArn:    &x.grant.provider,
		SAMLAssertion:   &x.said.text,
		DurationSeconds: &x.seconds,
		PolicyArns:      x.policyARNs,
	}
	if x.policyText != "" {
		input.Policy = &x.policyText
	}
	answer, err := client.AssumeRoleWithSAML(ctx, input)
	if f := x.seen.Facts(); f.DateKnown && x.d.Skew != nil {
		x.d.Skew(f.Skew)
	}
	if err != nil {
		return cred.Credentials{}, x.failed(err)
	}
	out, err := x.granted(answer)
	if err != nil {
		return cred.Credentials{}, err
	}
	if x.d.Log != nil && x.role == "" {
		x.d.Log.WithField(logging.Profile, x.link.Profile).WithField("role", x.grant.role).Info("signed in with a role of the assertion")
	}
	return out, nil
}

// granted refuses half an answer.
func (x *exchange) granted(answer *sts.AssumeRoleWithSAMLOutput) (cred.Credentials, error) {
	k := answer.Credentials
	if k == nil {
		return cred.Credentials{}, x.bad("AWS's answer holds no credentials")
	}
	out := cred.Credentials{
		AccessKeyID:     aws.ToString(k.AccessKeyId),
		SecretAccessKey: cred.NewSecret(aws.ToString(k.SecretAccessKey)),
		SessionToken:    cred.NewSecret(aws.ToString(k.SessionToken)),
		Expires:         aws.ToTime(k.Expiration).UTC(),
		RoleARN:         x.grant.role,
		AccountID:       accountOf(x.grant.role),
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
	if u := answer.AssumedRoleUser; u != nil && field(aws.ToString(u.Arn), 4) != out.AccountID {
		return cred.Credentials{}, x.bad("AWS's answer is for " + printable(aws.ToString(u.Arn)) + ", which is in another account")
	}
	return out, nil
}
