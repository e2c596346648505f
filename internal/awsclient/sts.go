package awsclient

import (
	"context"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	smithyendpoints "github.com/aws/smithy-go/endpoints"

	"keyfob/profiles"
)

// STS returns a client of the Security Token Service. opt.Service is "sts"
// whatever it says. Errors: *SettingsError.
func STS(ctx context.Context, c profiles.Client, creds aws.CredentialsProvider, opt Options) (*sts.Client, error) {
	opt.Service = "sts"
	if opt.Pool == nil {
		opt.Pool = NewPool(PoolConfig{})
	}
	if _, err := STSEndpoint(ctx, c); err != nil { // before the SDK says it in its own words
		return nil, err
	}
	cfg, err := Config(ctx, c, creds, opt)
	if err != nil {
		return nil, err
	}
	return sts.NewFromConfig(cfg, func(o *sts.Options) {
		o.HTTPSignerV4 = opt.Pool.Signer()
		if c.STSLegacy {
			o.EndpointResolverV2 = globalSTS{}
		}
	}), nil
}

// STSEndpoint is the URL that STS calls by these settings. Errors:
// *SettingsError.
func STSEndpoint(ctx context.Context, c profiles.Client) (*url.URL, error) {
	configured, err := configuredEndpoint(c, "sts")
	if err != nil || configured != nil {
		return configured, err
	}
	e, err := sts.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, sts.EndpointParameters{
		Region:            aws.String(region(c)),
		UseFIPS:           aws.Bool(c.UseFIPS),
		UseDualStack:      aws.Bool(c.UseDualStack),
		UseGlobalEndpoint: aws.Bool(c.STSLegacy),
	})
	if err != nil {
		return nil, noEndpoint(c, err)
	}
	return &e.URI, nil
}

// globalSTS is sts_regional_endpoints = legacy: AWS's own rules say which
// regions the global endpoint then stands for.
type globalSTS struct{}

func (globalSTS) ResolveEndpoint(ctx context.Context, p sts.EndpointParameters) (smithyendpoints.Endpoint, error) {
	p.UseGlobalEndpoint = aws.Bool(true)
	return sts.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, p)
}

func noEndpoint(c profiles.Client, err error) error {
	return &SettingsError{
		Text: "cannot tell the endpoint of STS in region " + printable(region(c), 60) + ": " + printable(err.Error(), 200),
		Help: "correct region, use_fips_endpoint or use_dualstack_endpoint",
		Err:  err,
	}
}
