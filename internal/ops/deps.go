package ops

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

// Deps is what the operations work with. The zero value works.
type Deps struct {
	// Pool shares connections and clock offsets with the daemon's other
	// calls; with nil each operation makes and closes its own connections.
	Pool *awsclient.Pool
	// Skew is told AWS's clock minus ours after each answer that shows it.
	Skew func(d time.Duration)
	// Federation is the console's federation address as a full URL
	// (console.federation_endpoint), "" for that of the partition.
	Federation string
	Log        *logrus.Entry // nil for none
}

// ErrInput Is in errors about what a person asked for in the command itself (a
// service, a region, a duration), as against what AWS or a file says.
var ErrInput = errors.New("the request can't be made as it is written")

// inputError is an ErrInput with a hint.
type inputError struct{ msg, help string }

func (e *inputError) Error() string        { return e.msg }
func (e *inputError) Hint() string         { return e.help }
func (e *inputError) Is(target error) bool { return target == ErrInput }

// pool is d.Pool, or one of its own that done closes.
func (d Deps) pool() (pool *awsclient.Pool, done func()) {
	if d.Pool != nil {
		return d.Pool, func() {}
	}
	pool = awsclient.NewPool(awsclient.PoolConfig{})
	return pool, pool.CloseIdle
}

// tellSkew passes on what an answer showed of AWS's clock.
func (d Deps) tellSkew(seen *awsclient.Seen) {
	if f := seen.Facts(); f.DateKnown && d.Skew != nil {
		d.Skew(f.Skew)
	}
}

// signedBy makes a provider of c for a client of AWS's SDK.
func signedBy(c cred.Credentials) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey.Reveal(), c.SessionToken.Reveal())
}

// failed is the error of a call in words; c signed it, and its secrets are
// not repeated. what completes "cannot ".
func failed(op, what string, c cred.Credentials, err error, seen *awsclient.Seen) error {
	f := awsclient.Explain(err, seen, c.SecretAccessKey.Reveal(), c.SessionToken.Reveal())
	e := &cred.UpstreamError{
		Op:      op,
		Code:    f.Code,
		Status:  f.Status,
		Message: "cannot " + what + ": " + f.Text,
		Help:    f.Hint,
		Refused: f.Kind == awsclient.Refused || f.Kind == awsclient.Settings,
		Skew:    f.Skew,
		Err:     f.Err,
	}
	if text := awsclient.ClockText(f.Skew); text != "" {
		e.Message += " (" + text + ")"
	}
	return e
}

// bounded gives one call of AWS its deadline.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, cred.FetchTimeout)
}

// LongLived reports whether a chain begins with a long-lived key pair: one
// that carries no session token.
func LongLived(chain []profiles.Link) bool {
	if len(chain) == 0 {
		return false
	}
	switch chain[0].Kind {
	case profiles.KindStaticKeys, profiles.KindEnvironmentKeys:
	default:
		return false
	}
	if chain[0].Secrets == nil {
		return true // the vault keeps no others
	}
	_, token := chain[0].Secrets.Reveal()
	return token == ""
}

// IsUser reports whether a chain ends in the user of a long-lived pair: what
// it hands out is then a session of GetSessionToken.
func IsUser(chain []profiles.Link) bool {
	return LongLived(chain) && (len(chain) == 1 || len(chain) == 2 && chain[1].Kind == profiles.KindSessionToken)
}

// codeOf is the serial number of the MFA device whose code a user's session
// carries, "" for none.
func codeOf(chain []profiles.Link) string {
	if len(chain) < 2 || chain[1].Kind != profiles.KindSessionToken {
		return ""
	}
	return chain[1].Params["mfa_serial"]
}

// clientOf is the settings that calls for the end of a chain are made with.
// Links that call no service of AWS have none but the region.
func clientOf(chain []profiles.Link, region string) profiles.Client {
	c := chain[len(chain)-1].Client
	if c.Region == "" {
		c.Region = region
	}
	return c
}
