package ops

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

// iamCall makes one call of IAM, signed by c. what completes "cannot ".
// Errors: *cred.UpstreamError.
func (d Deps) iamCall(ctx context.Context, settings profiles.Client, c cred.Credentials, op, what string, call func(context.Context, *iam.Client) error) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	pool, done := d.pool()
	defer done()
	var seen awsclient.Seen
	cfg, err := awsclient.Config(ctx, settings, signedBy(c), awsclient.Options{Service: "iam", Pool: pool, Seen: &seen})
	if err == nil {
		err = call(ctx, iam.NewFromConfig(cfg, func(o *iam.Options) { o.HTTPSignerV4 = pool.Signer() }))
	}
	d.tellSkew(&seen)
	if err != nil {
		return failed(op, what, c, err, &seen)
	}
	return nil
}

// codeOfError is AWS's error code in err, "" for none.
func codeOfError(err error) string {
	var up *cred.UpstreamError
	if errors.As(err, &up) {
		return up.Code
	}
	return ""
}

// refusedByAWS reports whether AWS understood a request and said no.
func refusedByAWS(err error) bool {
	var up *cred.UpstreamError
	return errors.As(err, &up) && up.Refused
}

// forbidden: a policy says no, and who signed is known.
func forbidden(err error) bool {
	return refusedByAWS(err) && strings.HasPrefix(codeOfError(err), "AccessDenied")
}

// unknownKey: AWS does not know the key that signed, has it inactive, or has
// not heard of it yet.
func unknownKey(err error) bool {
	switch codeOfError(err) {
	case "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId":
		return true
	}
	return false
}

// ended: the session that signed is over.
func ended(err error) bool {
	switch codeOfError(err) {
	case "ExpiredToken", "ExpiredTokenException", "RequestExpired":
		return true
	}
	return unknownKey(err)
}
