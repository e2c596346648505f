package ops

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
)

// everything allows all: a federated user's session may do what both its
// policy and the user's own policies allow, so that this one leaves it to the
// user's. Without any the session could do nothing.
const everything = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`

// federate makes the session by which a user's long-lived keys open the
// console: the console takes neither the keys nor a session of
// GetSessionToken.
func (d Deps) federate(ctx context.Context, r ConsoleRequest) (cred.Credentials, error) {
	const op = "GetFederationToken"
	what := "open the console as " + r.Profile
	if r.Keys == nil {
		return cred.Credentials{}, errors.New("cannot " + what + ": its keys can't be read")
	}
	keys, err := r.Keys(ctx)
	if err != nil {
		return cred.Credentials{}, err
	}
	name := legal(r.Person)
	if len(name) < 2 {
		name = ThisPerson()
	}
	in := &sts.GetFederationTokenInput{Name: aws.String(name[:min(len(name), maxFederated)])}
	if r.Duration > 0 {
		in.DurationSeconds = aws.Int32(int32(r.Duration / time.Second))
	}
	if r.Policy.Inline != "" {
		in.Policy = aws.String(r.Policy.Inline)
	}
	for _, arn := range r.Policy.ARNs {
		in.PolicyArns = append(in.PolicyArns, types.PolicyDescriptorType{Arn: aws.String(arn)})
	}
	if in.Policy == nil && in.PolicyArns == nil {
		in.Policy = aws.String(everything)
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	var seen awsclient.Seen
	client, err := awsclient.STS(ctx, r.Chain[0].Client, signedBy(keys), awsclient.Options{Pool: d.Pool, Seen: &seen})
	var a *sts.GetFederationTokenOutput
	if err == nil {
		a, err = client.GetFederationToken(ctx, in)
	}
	d.tellSkew(&seen)
	if err != nil {
		return cred.Credentials{}, notFederated(failed(op, what, keys, err, &seen), r, err)
	}
	k := a.Credentials
	if k == nil || aws.ToString(k.AccessKeyId) == "" || aws.ToString(k.SecretAccessKey) == "" || aws.ToString(k.SessionToken) == "" {
		return cred.Credentials{}, &cred.UpstreamError{Op: op, Message: "cannot " + what + ": AWS's answer holds no credentials", Help: "check endpoint_url and proxies: who answers is " + seen.Facts().Host}
	}
	return cred.Credentials{
		AccessKeyID:     *k.AccessKeyId,
		SecretAccessKey: cred.NewSecret(*k.SecretAccessKey),
		SessionToken:    cred.NewSecret(*k.SessionToken),
		Expires:         aws.ToTime(k.Expiration).UTC(),
	}, nil
}

// notFederated adds to a refusal what helps.
func notFederated(err error, r ConsoleRequest, cause error) error {
	var e *cred.UpstreamError
	var api smithy.APIError
	if !errors.As(err, &e) || !errors.As(cause, &api) || !e.Refused {
		return err
	}
	e.Target = r.Profile
	switch code := api.ErrorCode(); {
	case strings.HasPrefix(code, "AccessDenied"):
		e.Help = "allow the user sts:GetFederationToken, or use a profile with role_arn and source_profile = " + r.Profile
	case code == "MalformedPolicyDocument" || strings.HasPrefix(code, "PackedPolicyTooLarge"):
		e.Help = "correct the policy of the command"
	case code == "InvalidClientTokenId" || code == "SignatureDoesNotMatch":
		e.Help = "keyfob add " + r.Profile + " stores a new pair"
	}
	return e
}
