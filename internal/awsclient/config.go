package awsclient

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/logging"

	"keyfob/profiles"
)

// Options says how the clients of one Config behave.
type Options struct {
	// Service is the id under which the endpoint URL of the service stands
	// in profiles.Client.EndpointURL ("sts", "iam", …); it beats that of "".
	Service string
	// Pool shares connections between clients. With nil the clients get
	// connections of their own, closed after a few idle seconds.
	Pool *Pool
	// Retry lets MaxAttempts and RetryMode of the settings apply, as for
	// commands that call AWS directly. Without it a call is one HTTP
	// request: sources retry by the broker's clock.
	Retry bool
	// Seen, if not nil, is told what the upstream answered.
	Seen *Seen
}

// callTimeout is the backstop for callers whose context has no deadline.
const callTimeout = 2 * time.Minute

// Config returns what service clients are built from (X.NewFromConfig).
// creds is a static provider, or nil for calls that are not signed. Nothing
// is dialled. Errors: *SettingsError when an endpoint URL or the CA bundle
// can't be used.
//
// A Config is cheap and meant to be dropped after the call: what is worth
// keeping (connections, clock offsets) stays in the Pool.
func Config(_ context.Context, c profiles.Client, creds aws.CredentialsProvider, opt Options) (aws.Config, error) {
	if creds == nil {
		creds = aws.AnonymousCredentials{}
	}
	pool := opt.Pool
	if pool == nil {
		pool = NewPool(PoolConfig{})
	}
	endpoint, err := configuredEndpoint(c, opt.Service)
	if err != nil {
		return aws.Config{}, err
	}
	tr, err := pool.transport(c.CABundle)
	if err != nil {
		return aws.Config{}, err
	}
	seen := opt.Seen
	if seen == nil {
		seen = new(Seen)
	}
	client := &http.Client{
		Transport: &recorder{next: tr, pool: pool, seen: seen, configured: endpoint != nil},
		// AWS's query APIs never redirect; who does is somebody else, and
		// must not get a signed request.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       callTimeout,
	}
	load := config.LoadOptions{
		Region:               region(c),
		Credentials:          creds,
		HTTPClient:           client,
		UseFIPSEndpoint:      aws.FIPSEndpointStateDisabled,
		UseDualStackEndpoint: aws.DualStackEndpointStateDisabled,
	}
	if c.UseFIPS {
		load.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
	}
	if c.UseDualStack {
		load.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
	}
	load.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	if opt.Retry {
		load.Retryer = func() aws.Retryer { return retryer(c) }
	}
	cfg := aws.Config{
		Region:                load.Region,
		Credentials:           load.Credentials,
		HTTPClient:            load.HTTPClient,
		Retryer:               load.Retryer,
		Logger:                logging.Nop{},
		AppID:                 "keyfob", // in the User-Agent, and so in CloudTrail
		DefaultsMode:          aws.DefaultsModeLegacy,
		AccountIDEndpointMode: aws.AccountIDEndpointModePreferred,
		// Signer corrects the clock, across clients; the SDK's own
		// correction would be a second one.
		DisableClockSkewCorrection: true,
		RestrictFilePermissions:    aws.RestrictFilePermissionsUserReadWrite,
	}
	if endpoint != nil {
		load.BaseEndpoint = endpoint.String()
		// Set here too: service clients skip their sources when the
		// environment has AWS_ENDPOINT_URL alone.
		cfg.BaseEndpoint = aws.String(load.BaseEndpoint)
	}
	cfg.ConfigSources = []any{load}
	return cfg, nil
}

func region(c profiles.Client) string {
	if c.Region == "" {
		return "us-east-1" // profiles fills it in; a signature needs one
	}
	return c.Region
}

func retryer(c profiles.Client) aws.Retryer {
	standard := func(o *retry.StandardOptions) {
		if c.MaxAttempts > 0 {
			o.MaxAttempts = c.MaxAttempts
		}
	}
	if c.RetryMode == "adaptive" {
		return retry.NewAdaptiveMode(func(o *retry.AdaptiveModeOptions) {
			o.StandardOptions = append(o.StandardOptions, standard)
		})
	}
	return retry.NewStandard(standard)
}

// configuredEndpoint is the endpoint URL that the settings name for service,
// nil for none.
func configuredEndpoint(c profiles.Client, service string) (*url.URL, error) {
	raw := c.EndpointURL[service]
	if raw == "" {
		raw = c.EndpointURL[""]
	}
	if raw == "" {
		return nil, nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, &SettingsError{
			Text: "cannot use the endpoint URL " + printable(withoutUser(raw), 200) + ": it is not http://HOST or https://HOST",
			Help: "correct endpoint_url, or AWS_ENDPOINT_URL in the environment of keyfobd",
		}
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, &SettingsError{
			Text: "cannot use the endpoint URL of " + u.Host + ": it has a user, a query or a fragment",
			Help: "an endpoint URL is scheme, host, port and path",
		}
	}
	if c.UseFIPS || c.UseDualStack {
		what := "use_fips_endpoint"
		if !c.UseFIPS {
			what = "use_dualstack_endpoint"
		}
		return nil, &SettingsError{
			Text: "cannot use the endpoint URL " + u.String() + " together with " + what,
			Help: "AWS's endpoint rules allow only one of the two: unset endpoint_url or " + what,
		}
	}
	return u, nil
}

// SettingsError says that settings can't be used as they are; no call was
// made.
type SettingsError struct {
	Text string // "cannot …"
	Help string
	Err  error // the cause, nil for none
}

func (e *SettingsError) Error() string { return e.Text }

// Hint says what to change.
func (e *SettingsError) Hint() string { return e.Help }

// Unwrap returns the cause.
func (e *SettingsError) Unwrap() error { return e.Err }
