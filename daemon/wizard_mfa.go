package daemon

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"keyfob/internal/awsclient"
	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/source/sts"
	"keyfob/profiles"
)

// mfaDevices lists the MFA devices of the IAM user whose keys begin the
// profile's chain. It is asked with the keys themselves: AWS lets sessions of
// GetSessionToken without a code not look at IAM.
func (d *daemon) mfaDevices(c *call) (any, error) {
	p, err := decode[control.ProfileParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	prof, err := d.resolved(c, p.Context)
	if err != nil {
		return nil, err
	}
	r := d.request(c, p.Context, cred.ViaLogin)
	if err := d.check(r.Caller, prof.Name, r.Via); err != nil {
		return nil, about(err, prof.Name)
	}
	if prof.Err != nil {
		return nil, prof.Err
	}
	read := d.longLived(prof.Chain)
	if read == nil {
		return nil, &control.Error{Code: control.CodeFailed, Message: "cannot list the MFA devices: the chain of " + prof.Name + " does not begin with a user's keys", Hint: "keyfob explain " + prof.Name}
	}
	ctx, cancel := context.WithTimeout(c.ctx, checkTimeout)
	defer cancel()
	keys, err := read(ctx)
	if err != nil {
		return nil, err
	}
	who, err := sts.Identity(ctx, prof.Chain[0].Client, keys)
	if err != nil {
		return nil, err
	}
	out := control.MFADevicesResult{User: who.ARN, Serials: []string{}}
	serials, err := d.listDevices(ctx, prof.Chain[0].Client, keys)
	if err != nil {
		return nil, err
	}
	for _, s := range serials {
		if strings.Contains(s, ":u2f/") || strings.Contains(s, ":sms-mfa/") { // STS takes codes of neither
			out.Others++
		} else {
			out.Serials = append(out.Serials, s)
		}
	}
	return out, nil
}

// listDevices is IAM's ListMFADevices for the user of the keys. Error:
// *cred.UpstreamError.
func (d *daemon) listDevices(ctx context.Context, client profiles.Client, keys cred.Credentials) ([]string, error) {
	secret := keys.SecretAccessKey.Reveal()
	var seen awsclient.Seen
	cfg, err := awsclient.Config(ctx, client, credentials.NewStaticCredentialsProvider(keys.AccessKeyID, secret, ""), awsclient.Options{Service: "iam", Pool: d.pool, Seen: &seen})
	var serials []string
	if err == nil {
		api := iam.NewFromConfig(cfg, func(o *iam.Options) { o.HTTPSignerV4 = d.pool.Signer() })
		pages := iam.NewListMFADevicesPaginator(api, &iam.ListMFADevicesInput{})
		for err == nil && pages.HasMorePages() {
			var page *iam.ListMFADevicesOutput
			if page, err = pages.NextPage(ctx); err == nil {
				for _, x := range page.MFADevices {
					serials = append(serials, aws.ToString(x.SerialNumber))
				}
			}
		}
	}
	if err != nil {
		f := awsclient.Explain(err, &seen, secret)
		return nil, &cred.UpstreamError{Op: "ListMFADevices", Code: f.Code, Status: f.Status, Message: "cannot list the MFA devices: " + f.Text, Help: f.Hint,
			Refused: f.Kind == awsclient.Refused || f.Kind == awsclient.Settings, Skew: f.Skew, Err: f.Err}
	}
	return serials, nil
}
