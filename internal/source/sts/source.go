package sts

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

// Deps is what the sources of this package work with. Every field may be
// left out but Store, where a profile's keys are in the vault.
type Deps struct {
	Store cred.Store // long-lived pairs: records KeyRecord(profile)
	// AllowRoot says whether the keys of an account's root user may be used
	// for a profile; nil is never.
	AllowRoot func(profile string) bool
	Log       *logrus.Entry
	// Pool shares connections and clock offsets between all sources of a
	// daemon; with nil each fetch makes and closes its own connection.
	Pool *awsclient.Pool
	// Skew is told AWS's clock minus ours after each answer that shows it,
	// 0 when they agree within a minute. It is called before Fetch returns.
	Skew func(d time.Duration)
	// User is the name in the default role session name, "" for that of the
	// user who runs this process.
	User string
	// Unattended says whether a code of the MFA device serial comes without
	// a person, by the profile's mfa_process or otherwise: such a link is
	// refreshed ahead. nil is never.
	Unattended func(serial, process string) bool
	// ProcessLimit is the time limit of a mfa_process; nil where none is run.
	ProcessLimit func() time.Duration
}

// nextCode is how long a fetch may wait for a code that was not used yet: a
// step of RFC 6238, because AWS takes each code once.
const nextCode = 30 * time.Second

// limit is the time limit of a fetch that gets an MFA code before it calls
// AWS, from a program or from the next step of a seed; 0 where none is got.
func (d *Deps) limit(link profiles.Link) time.Duration {
	if link.Params["mfa_serial"] == "" {
		return 0
	}
	limit := nextCode + cred.FetchTimeout
	if d.ProcessLimit != nil && link.Params["mfa_process"] != "" {
		limit += d.ProcessLimit()
	}
	return limit
}

// interactive reports whether a link needs a person.
func (d *Deps) interactive(link profiles.Link) bool {
	serial := link.Params["mfa_serial"]
	return serial != "" && (d.Unattended == nil || !d.Unattended(serial, link.Params["mfa_process"]))
}

// New returns the source of a static-keys, environment-keys, session-token
// or assume-role link. It opens nothing. Errors (Is cred.ErrConfig): a
// parameter that no call could be made with, another kind of link.
func New(link profiles.Link, d Deps) (cred.Source, error) {
	switch link.Kind {
	case profiles.KindStaticKeys, profiles.KindEnvironmentKeys:
		return &staticKeys{link: link, d: d}, nil
	case profiles.KindSessionToken:
		return newSessionToken(link, d)
	case profiles.KindAssumeRole:
		return newAssumeRole(link, d)
	}
	return nil, unusable(link.Profile, "a link of kind "+string(link.Kind)+" is none of package sts", "", nil)
}

// settingsError is a profile that can't be used as it is written.
type settingsError struct {
	msg, help string
	err       error
}

func (e *settingsError) Error() string        { return e.msg }
func (e *settingsError) Hint() string         { return e.help }
func (e *settingsError) Unwrap() error        { return e.err }
func (e *settingsError) Is(target error) bool { return target == cred.ErrConfig }

func unusable(profile, why, help string, err error) error {
	return &settingsError{msg: "cannot use profile " + profile + ": " + why, help: help, err: err}
}

// seconds reads a duration_seconds.
func seconds(link profiles.Link, def int32) (int32, error) {
	s := link.Params["duration_seconds"]
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n <= 0 {
		return 0, unusable(link.Profile, fmt.Sprintf("duration_seconds = %q is no number of seconds", s), "", nil)
	}
	return int32(n), nil
}

// call is one call of STS for a link.
type call struct {
	op      string           // "AssumeRole"
	doing   string           // "assume role arn:…", for after "cannot"
	target  string           // UpstreamError.Target
	link    profiles.Link    // whose call it is
	profile string           // the profile that was asked for
	base    cred.Credentials // what signs
	code    cred.Secret      // the MFA code that goes with it, for scrubbing
	serial  string           // of the MFA device
	asked   int32            // seconds
	d       *Deps
	seen    awsclient.Seen
}

// do runs fn with a client of the link's settings. Whatever fails becomes
// one of the errors of this package.
func (c *call) do(ctx context.Context, fn func(context.Context, *sts.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, cred.FetchTimeout)
	defer cancel()
	pool := c.d.Pool
	if pool == nil {
		pool = awsclient.NewPool(awsclient.PoolConfig{})
		defer pool.CloseIdle()
	}
	signer := credentials.NewStaticCredentialsProvider(c.base.AccessKeyID, c.base.SecretAccessKey.Reveal(), c.base.SessionToken.Reveal())
	client, err := awsclient.STS(ctx, c.link.Client, signer, awsclient.Options{Pool: pool, Seen: &c.seen})
	if err == nil {
		err = fn(ctx, client)
	}
	if f := c.seen.Facts(); f.DateKnown && c.d.Skew != nil {
		c.d.Skew(f.Skew)
	}
	if err != nil {
		return c.failed(err)
	}
	return nil
}

// awsNow is AWS's clock where the answer showed it, else ours.
func (c *call) awsNow() time.Time { return time.Now().Add(c.seen.Facts().Skew) }

// granted turns an answer's credentials into ours and refuses half an
// answer: a program that gets keys without a token, or keys that have ended,
// fails later and with worse words.
func (c *call) granted(k *types.Credentials) (cred.Credentials, error) {
	if k == nil {
		return cred.Credentials{}, c.bad("AWS's answer holds no credentials")
	}
	out := cred.Credentials{
		AccessKeyID:     aws.ToString(k.AccessKeyId),
		SecretAccessKey: cred.NewSecret(aws.ToString(k.SecretAccessKey)),
		SessionToken:    cred.NewSecret(aws.ToString(k.SessionToken)),
		Expires:         aws.ToTime(k.Expiration).UTC(),
	}
	switch {
	case out.AccessKeyID == "":
		return cred.Credentials{}, c.bad("AWS's answer holds no access key id")
	case out.SecretAccessKey.IsZero():
		return cred.Credentials{}, c.bad("AWS's answer holds no secret access key")
	case out.SessionToken.IsZero():
		return cred.Credentials{}, c.bad("AWS's answer holds no session token")
	case k.Expiration == nil || k.Expiration.IsZero():
		return cred.Credentials{}, c.bad("AWS's answer does not say when the credentials end")
	case !out.Expires.After(c.awsNow()):
		return cred.Credentials{}, c.bad("AWS's answer holds credentials that ended at " + out.Expires.Format(time.RFC3339))
	}
	return out, nil
}

// usableBase refuses credentials that nothing can be signed with.
func usableBase(link profiles.Link, base cred.Credentials) error {
	if base.AccessKeyID == "" || base.SecretAccessKey.IsZero() {
		return unusable(link.Profile, "there are no credentials to sign with", "", nil)
	}
	return nil
}

// askMFA gets the code of the device serial. Codes have six digits; another
// text is a wrong code that AWS need not be asked about.
func (c *call) askMFA(ctx context.Context, in cred.Input) error {
	code, err := in.Ask.Ask(ctx, in.Key, cred.Question{
		Kind:    cred.AskMFA,
		Profile: in.Profile,
		Serial:  c.serial,
		Text:    "MFA code of " + c.serial,
		Process: c.link.Params["mfa_process"],
	})
	if err != nil {
		return err
	}
	digits, ok := sixDigits(code)
	if !ok {
		return c.wrongCode("it has not six digits", nil)
	}
	c.code = digits
	return nil
}

// sixDigits drops the spaces that people type and apps show.
func sixDigits(code cred.Secret) (cred.Secret, bool) {
	var b []byte
	for _, x := range code.AppendReveal(nil) {
		switch {
		case x >= '0' && x <= '9':
			b = append(b, x)
		case x == ' ' || x == '\t' || x == '\r' || x == '\n':
		default:
			return cred.Secret{}, false
		}
	}
	return cred.SecretBytes(b), len(b) == 6
}

// reach tells whether there is a way to STS, for whoever waits for the
// network to come back. An error that Is cred.ErrConfig says that the settings
// name none.
func reach(ctx context.Context, c profiles.Client, d Deps) error {
	u, err := awsclient.STSEndpoint(ctx, c)
	if err != nil {
		return &settingsError{msg: err.Error(), help: cred.HintOf(err), err: err}
	}
	pool := d.Pool
	if pool == nil {
		pool = awsclient.NewPool(awsclient.PoolConfig{})
	}
	return pool.Reach(ctx, u)
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
