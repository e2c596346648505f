package ops

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

const (
	// oldKey is the age from which a long-lived key is warned of.
	oldKey = 90 * 24 * time.Hour
	// lookTimeout bounds each look that may as well fail.
	lookTimeout = 5 * time.Second
)

// WhoamiRequest asks who a profile is.
type WhoamiRequest struct {
	Profile     string
	Chain       []profiles.Link
	Region      string           // of the profile, for chains whose links have none
	Credentials cred.Credentials // what the profile hands out
	// Keys reads the long-lived pair at the base of the chain, nil where
	// there is none (LongLived). AWS lets sessions of GetSessionToken without
	// MFA not look at IAM, their keys it does.
	Keys func(ctx context.Context) (cred.Credentials, error)
	// KeysAdded is when the pair came into the vault, zero where it is not
	// known. It counts where AWS does not tell the pair's age.
	KeysAdded time.Time
}

// Identity is who AWS says that a profile is.
type Identity struct {
	ARN       string
	AccountID string
	Alias     string // of the account, "" where it has none or may not be seen
	UserID    string
	Root      bool // the account's root user
	// Warnings are sentences without a full stop; never nil.
	Warnings []string
	// Kinds says of each of Warnings what it is about: WarnRoot, …
	Kinds []string
}

// The kinds of warnings about an identity.
const (
	WarnRoot     = "root"     // the keys are an account's root user's
	WarnKeyAge   = "key-age"  // the keys that are used are old
	WarnOtherKey = "keys"     // another key of the user is old
	WarnNoMFA    = "mfa-none" // the user has no MFA device
)

// Whoami asks AWS whose credentials a profile hands out, and looks for what
// is wrong with the user behind them: a root user, keys older than 90 days, no
// MFA device. Only the first must succeed; whatever a policy forbids is not
// said. Errors: *cred.UpstreamError.
func (d Deps) Whoami(ctx context.Context, r WhoamiRequest) (Identity, error) {
	if len(r.Chain) == 0 {
		return Identity{}, fmt.Errorf("cannot tell who %s is: it has no credentials", r.Profile)
	}
	pool, done := d.pool()
	defer done()
	d.Pool = pool
	out := Identity{Warnings: []string{}}
	var (
		failure error
		look    looks
		all     sync.WaitGroup
	)
	all.Go(func() { failure = d.identity(ctx, r, &out) })
	all.Go(func() { d.look(ctx, r, &look) })
	all.Wait()
	if failure != nil {
		return Identity{}, failure
	}
	out.Alias = look.alias
	look.warnings(r, &out, time.Now())
	return out, nil
}

// identity is GetCallerIdentity, which needs no permission.
func (d Deps) identity(ctx context.Context, r WhoamiRequest, out *Identity) error {
	const op = "GetCallerIdentity"
	what := "tell who " + r.Profile + " is"
	ctx, cancel := bounded(ctx)
	defer cancel()
	var seen awsclient.Seen
	client, err := awsclient.STS(ctx, clientOf(r.Chain, r.Region), signedBy(r.Credentials), awsclient.Options{Pool: d.Pool, Seen: &seen})
	var a *sts.GetCallerIdentityOutput
	if err == nil {
		a, err = client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	}
	d.tellSkew(&seen)
	if err != nil {
		return failed(op, what, r.Credentials, err, &seen)
	}
	out.ARN, out.AccountID, out.UserID = aws.ToString(a.Arn), aws.ToString(a.Account), aws.ToString(a.UserId)
	if partitionOf(out.ARN) == "" || out.AccountID == "" {
		return &cred.UpstreamError{Op: op, Message: "cannot " + what + ": AWS's answer does not name a caller", Help: "check endpoint_url and proxies: who answers is " + seen.Facts().Host}
	}
	out.Root = strings.HasSuffix(out.ARN, ":root") && strings.Contains(out.ARN, ":iam::")
	return nil
}

// looks is what could be seen in IAM.
type looks struct {
	keyID   string // of the pair at the base, "" for none
	alias   string
	keys    []types.AccessKeyMetadata // nil where they may not be seen
	noMFA   bool                      // the user has no MFA device
	devices bool                      // noMFA was seen
}

// look makes the look-ups side by side. Each may fail.
func (d Deps) look(ctx context.Context, r WhoamiRequest, out *looks) {
	var keys cred.Credentials
	if r.Keys != nil && LongLived(r.Chain) {
		k, err := r.Keys(ctx)
		if err != nil {
			d.unseen(r, "its keys", err)
		} else {
			keys = k
		}
	}
	out.keyID = keys.AccessKeyID

	// For the account: what the profile hands out, but for a session that IAM
	// does not talk to.
	session, withCode := r.Credentials, codeOf(r.Chain) != ""
	plainUser := IsUser(r.Chain) && !withCode
	if plainUser {
		session = keys
	}
	// For the user of the pair: the session with the MFA code, which some
	// policies want, else the pair.
	own := keys
	if IsUser(r.Chain) && withCode {
		own = r.Credentials
	}
	var all sync.WaitGroup
	defer all.Wait()
	if session.AccessKeyID != "" {
		all.Go(func() {
			d.iam(ctx, r, clientOf(r.Chain, r.Region), session, "the account's alias", func(ctx context.Context, c *iam.Client) error {
				a, err := c.ListAccountAliases(ctx, &iam.ListAccountAliasesInput{})
				if err == nil && len(a.AccountAliases) > 0 {
					out.alias = a.AccountAliases[0]
				}
				return err
			})
		})
	}
	if keys.AccessKeyID == "" {
		return
	}
	all.Go(func() {
		d.iam(ctx, r, r.Chain[0].Client, own, "the user's access keys", func(ctx context.Context, c *iam.Client) error {
			a, err := c.ListAccessKeys(ctx, &iam.ListAccessKeysInput{})
			if err == nil {
				out.keys = append([]types.AccessKeyMetadata{}, a.AccessKeyMetadata...)
			}
			return err
		})
	})
	all.Go(func() {
		d.iam(ctx, r, r.Chain[0].Client, own, "the user's MFA devices", func(ctx context.Context, c *iam.Client) error {
			a, err := c.ListMFADevices(ctx, &iam.ListMFADevicesInput{})
			if err == nil {
				out.devices, out.noMFA = true, len(a.MFADevices) == 0
			}
			return err
		})
	})
}

// iam makes one call of IAM that may fail.
func (d Deps) iam(ctx context.Context, r WhoamiRequest, settings profiles.Client, c cred.Credentials, what string, call func(context.Context, *iam.Client) error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var seen awsclient.Seen
	cfg, err := awsclient.Config(ctx, settings, signedBy(c), awsclient.Options{Service: "iam", Pool: d.Pool, Seen: &seen})
	if err == nil {
		err = call(ctx, iam.NewFromConfig(cfg, func(o *iam.Options) { o.HTTPSignerV4 = d.Pool.Signer() }))
	}
	if err != nil {
		d.unseen(r, what, failed("IAM", "see "+what, c, err, &seen))
	}
}

// unseen notes for whoever debugs why something is not said.
func (d Deps) unseen(r WhoamiRequest, what string, err error) {
	if d.Log != nil {
		d.Log.WithError(err).WithField("profile", r.Profile).Debug("whoami does not see " + what)
	}
}

func (i *Identity) warn(kind, text string) {
	i.Warnings, i.Kinds = append(i.Warnings, text), append(i.Kinds, kind)
}

// warnings makes sentences of what was seen.
func (l *looks) warnings(r WhoamiRequest, who *Identity, now time.Time) {
	user := "the user of the access key " + l.keyID
	switch {
	case who.Root:
		user = "the root user of account " + who.AccountID
		who.warn(WarnRoot, r.Profile+" has the keys of "+user+": make an IAM user or a role for daily work, and delete them")
	case IsUser(r.Chain):
		if name := userOf(who.ARN); name != "" {
			user = "user " + name
		}
	case len(l.keys) > 0 && aws.ToString(l.keys[0].UserName) != "":
		user = "user " + *l.keys[0].UserName
	}
	told := false
	for _, k := range l.keys {
		id := aws.ToString(k.AccessKeyId)
		told = told || id == l.keyID
		if k.Status == types.StatusTypeInactive || k.CreateDate == nil {
			continue
		}
		if age := now.Sub(*k.CreateDate); age > oldKey {
			text := fmt.Sprintf("the access key %s of %s is %d days old", id, user, int(age.Hours()/24))
			if id == l.keyID {
				who.warn(WarnKeyAge, text+": keyfob rotate "+r.Chain[0].Profile)
			} else {
				who.warn(WarnOtherKey, text+", and "+r.Chain[0].Profile+" does not use it: delete it where nothing else does")
			}
		}
	}
	if age := now.Sub(r.KeysAdded); !told && l.keyID != "" && !r.KeysAdded.IsZero() && age > oldKey {
		who.warn(WarnKeyAge, fmt.Sprintf("the access key %s has been in the vault for %d days: keyfob rotate %s", l.keyID, int(age.Hours()/24), r.Chain[0].Profile))
	}
	if l.devices && l.noMFA {
		who.warn(WarnNoMFA, user+" has no MFA device")
	}
}

// userOf is the name in the ARN of an IAM user, "" for another.
func userOf(arn string) string {
	p := strings.SplitN(arn, ":", 6)
	if len(p) != 6 || p[2] != "iam" || !strings.HasPrefix(p[5], "user/") {
		return ""
	}
	return p[5][strings.LastIndexByte(p[5], '/')+1:]
}
