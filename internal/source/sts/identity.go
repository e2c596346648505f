package sts

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// Caller is who credentials belong to.
type Caller struct {
	ARN       string
	AccountID string // twelve digits
	UserID    string
	Root      bool // the account's root user
}

// Identity asks STS whose credentials k are (GetCallerIdentity, which needs
// no permission), in one HTTP request over a connection of its own. Errors:
// *cred.UpstreamError; one that Is cred.ErrConfig for unusable settings.
func Identity(ctx context.Context, c profiles.Client, k cred.Credentials) (Caller, error) {
	return identity(ctx, c, k, Deps{})
}

// Identity is the function Identity with the pool, and the listener for
// clock offsets, of d.
func (d Deps) Identity(ctx context.Context, c profiles.Client, k cred.Credentials) (Caller, error) {
	return identity(ctx, c, k, d)
}

func identity(ctx context.Context, settings profiles.Client, k cred.Credentials, d Deps) (Caller, error) {
	c := &call{op: "GetCallerIdentity", doing: "tell whose the access key " + k.AccessKeyID + " is",
		link: profiles.Link{Client: settings}, base: k, d: &d}
	if k.AccessKeyID == "" || k.SecretAccessKey.IsZero() {
		return Caller{}, &settingsError{msg: "cannot tell whose key that is: it is half a pair"}
	}
	var out Caller
	err := c.do(ctx, func(ctx context.Context, client *sts.Client) error {
		a, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil {
			return err
		}
		out = Caller{ARN: aws.ToString(a.Arn), AccountID: aws.ToString(a.Account), UserID: aws.ToString(a.UserId)}
		if accountOfARN(out.ARN) == "" || out.AccountID != accountOfARN(out.ARN) {
			return c.bad("AWS's answer does not name a caller")
		}
		out.Root = strings.HasSuffix(out.ARN, ":root") && strings.Contains(out.ARN, ":iam::")
		return nil
	})
	if err != nil {
		return Caller{}, err
	}
	return out, nil
}
