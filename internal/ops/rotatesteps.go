package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
)

const (
	// keysPerUser is IAM's quota, which can't be raised.
	keysPerUser = 2
	// settled is the age from which IAM is believed when it does not list a
	// key.
	settled = 15 * time.Minute
	// clockSlack is what our clock and AWS's may differ by without anybody
	// having been told, and a little more.
	clockSlack = awsclient.SkewLimit + 5*time.Second
)

// identity asks AWS whose the pair is.
func (x *rotating) identity(ctx context.Context, c cred.Credentials) (string, error) {
	what := "verify the access key " + c.AccessKeyID
	ctx, cancel := bounded(ctx)
	defer cancel()
	var seen awsclient.Seen
	client, err := awsclient.STS(ctx, x.client, signedBy(c), awsclient.Options{Pool: x.Pool, Seen: &seen})
	var a *sts.GetCallerIdentityOutput
	if err == nil {
		a, err = client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	}
	x.tellSkew(&seen)
	if err != nil {
		return "", failed("GetCallerIdentity", what, c, err, &seen)
	}
	if partitionOf(aws.ToString(a.Arn)) == "" {
		return "", &cred.UpstreamError{Op: "GetCallerIdentity", Message: "cannot " + what + ": AWS's answer does not name a caller",
			Help: "check endpoint_url and proxies: who answers is " + seen.Facts().Host}
	}
	return *a.Arn, nil
}

// iam makes one call of IAM by a pair: bare, and, where a policy forbids
// that, by a session that carries an MFA code.
func (x *rotating) iam(ctx context.Context, by cred.Credentials, op, what string, call func(context.Context, *iam.Client) error) error {
	err := x.iamCall(ctx, x.client, by, op, what, call)
	if !forbidden(err) {
		return err
	}
	for again := false; ; again = true {
		if x.session.AccessKeyID == "" {
			s, serr := cred.Credentials{}, ErrNoDevice
			if x.Session != nil {
				s, serr = x.Session(ctx, x.out.Profile)
			}
			if errors.Is(serr, ErrNoDevice) { // what AWS said is all that is known
				return cred.WithHint(err, "keyfob policy identity "+x.out.Profile+" says what a user needs to rotate its keys; where its policy wants an MFA code, set mfa_serial")
			}
			if serr != nil {
				return serr
			}
			x.session = s
		}
		err = x.iamCall(ctx, x.client, x.session, op, what, call)
		if !ended(err) || again {
			break
		}
		x.session = cred.Credentials{}
	}
	if forbidden(err) {
		return cred.WithHint(err, "keyfob policy identity "+x.out.Profile+" says what a user needs to rotate its keys")
	}
	return err
}

// list is the user's access keys as IAM has them.
func (x *rotating) list(ctx context.Context, by cred.Credentials) ([]types.AccessKeyMetadata, error) {
	name := x.userName()
	var keys []types.AccessKeyMetadata
	err := x.iam(ctx, by, "ListAccessKeys", "list the access keys of user "+name, func(ctx context.Context, c *iam.Client) error {
		a, err := c.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: &name})
		if err == nil {
			keys = a.AccessKeyMetadata
		}
		return err
	})
	return keys, err
}

func withID(keys []types.AccessKeyMetadata, id string) *types.AccessKeyMetadata {
	i := slices.IndexFunc(keys, func(k types.AccessKeyMetadata) bool { return aws.ToString(k.AccessKeyId) == id })
	if i < 0 {
		return nil
	}
	return &keys[i]
}

// delete deletes one key; one that is gone is deleted.
func (x *rotating) delete(ctx context.Context, by cred.Credentials, id string) error {
	name := x.userName()
	err := x.iam(ctx, by, "DeleteAccessKey", "delete the access key "+id+" of user "+name, func(ctx context.Context, c *iam.Client) error {
		_, err := c.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: &name, AccessKeyId: &id})
		return err
	})
	if codeOfError(err) == "NoSuchEntity" {
		return nil
	}
	return err
}

// begin makes the new pair: whose the old one is, whether it is due, what
// keys the user has, then CreateAccessKey.
func (x *rotating) begin(ctx context.Context) error {
	old := x.j.Old.pair().Credentials
	arn, err := x.identity(ctx, old)
	if err != nil {
		if unknownKey(err) {
			err = cred.WithHint(err, "where the key was deleted, make one in IAM and: keyfob add --force "+x.out.Profile)
		}
		return err
	}
	x.out.User, x.j.User = arn, arn
	if x.userName() == "" {
		return cred.WithHint(fmt.Errorf("cannot rotate the keys of %s: they are those of %s, which is no IAM user", x.out.Profile, arn),
			"make an IAM user or a role for daily work, and delete the root user's keys")
	}
	keys, err := x.list(ctx, old)
	if forbidden(err) && !x.resumed && x.young(x.j.Old.Added) {
		x.skip("its age is not told by AWS, and it came into the vault", x.j.Old.Added) // what the user may not see is judged by the vault's date
		return nil
	}
	if err != nil {
		return err
	}
	if k := withID(keys, x.j.Old.ID); k == nil {
		return fmt.Errorf("cannot rotate the keys of %s: IAM does not list the access key %s among those of user %s", x.out.Profile, x.j.Old.ID, x.userName())
	} else if made := aws.ToTime(k.CreateDate); !x.resumed && x.young(made) {
		x.skip("it was made", made)
		return nil
	}
	return x.create(ctx, keys)
}

func (x *rotating) young(t time.Time) bool {
	return x.Due > 0 && !t.IsZero() && time.Since(t) < x.Due
}

func (x *rotating) skip(what string, t time.Time) {
	x.out.Skipped = fmt.Sprintf("not due: %s on %s, %d days ago", what, t.UTC().Format(time.DateOnly), int(time.Since(t).Hours()/24))
}

// create makes the new key. An answer that does not come may hide a key whose
// secret nobody has: it is found by its date and deleted, here or after a
// kill.
func (x *rotating) create(ctx context.Context, keys []types.AccessKeyMetadata) error {
	old, name := x.j.Old.pair().Credentials, x.userName()
	end := time.Now().Add(keyPatience)
	for pause := time.Second; ; pause = min(2*pause, 8*time.Second) {
		if err := x.clearLost(ctx, keys); err != nil {
			return err
		}
		if err := x.noOther(ctx, keys); err != nil {
			return err
		}
		now := time.Now().Add(x.skew)
		t := try{From: now.Add(-clockSlack), Until: now.Add(cred.FetchTimeout + clockSlack)}
		x.j.Tries = append(slices.DeleteFunc(x.j.Tries, func(t try) bool { return now.Sub(t.Until) > settled }), t)
		if err := x.j.write(ctx, x.Journal); err != nil {
			return err
		}
		var made *types.AccessKey
		err := x.iam(ctx, old, "CreateAccessKey", "make a new access key for user "+name, func(ctx context.Context, c *iam.Client) error {
			a, err := c.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: &name})
			if err == nil {
				made = a.AccessKey
			}
			return err
		})
		if err == nil && (made == nil || aws.ToString(made.AccessKeyId) == "" || aws.ToString(made.SecretAccessKey) == "" || aws.ToString(made.UserName) != name) {
			err = &cred.UpstreamError{Op: "CreateAccessKey", Message: "cannot make a new access key for user " + name + ": AWS's answer does not hold one"}
		}
		if err == nil {
			return x.keep(ctx, made)
		}
		full := codeOfError(err) == "LimitExceeded" || codeOfError(err) == "LimitExceededException"
		var up *cred.UpstreamError
		if !errors.As(err, &up) || up.Refused {
			// Nothing came of this try.
			x.j.Tries = x.j.Tries[:len(x.j.Tries)-1]
			if len(x.j.Tries) == 0 {
				err = errors.Join(err, x.j.remove(ctx, x.Journal))
			} else if werr := x.j.write(ctx, x.Journal); werr != nil {
				err = errors.Join(err, werr)
			}
			if !full {
				return err
			}
		}
		if !time.Now().Add(pause).Before(end) {
			return err
		}
		// What IAM lists may be older than what it counts.
		if serr := sleep(ctx, pause); serr != nil {
			return errors.Join(err, serr)
		}
		var lerr error
		if keys, lerr = x.list(ctx, old); lerr != nil {
			return errors.Join(err, lerr)
		}
	}
}

// keep writes the new pair into the journal. Where that fails the key is
// deleted while somebody knows that it is ours.
func (x *rotating) keep(ctx context.Context, made *types.AccessKey) error {
	added := aws.ToTime(made.CreateDate)
	if added.IsZero() {
		added = time.Now()
	}
	x.j.New = &journaled{ID: *made.AccessKeyId, Secret: *made.SecretAccessKey, AccountID: x.j.Old.AccountID, Added: added.UTC()}
	if err := x.j.write(ctx, x.Journal); err != nil {
		id := x.j.New.ID
		x.j.New = nil
		derr := x.delete(ctx, x.j.Old.pair().Credentials, id)
		_ = x.j.write(ctx, x.Journal) // the first write may have come through all the same
		if derr != nil {
			return fmt.Errorf("cannot keep the new access key %s: %w; and it is left at AWS, the next rotation removes it (%w)", id, err, derr)
		}
		return fmt.Errorf("cannot keep the new access key, which was deleted again: %w", err)
	}
	x.out.New = x.j.New.ID
	x.say("made the access key %s for user %s", x.out.New, x.userName())
	return nil
}

// clearLost deletes a key that an earlier try made and whose secret never
// came here: none of ours, made during a try, and never used.
func (x *rotating) clearLost(ctx context.Context, keys []types.AccessKeyMetadata) error {
	for i, k := range keys {
		id, made := aws.ToString(k.AccessKeyId), aws.ToTime(k.CreateDate)
		ours := id != x.j.Old.ID && slices.ContainsFunc(x.j.Tries, func(t try) bool { return !made.Before(t.From) && !made.After(t.Until) })
		if !ours {
			continue
		}
		used, err := x.lastUsed(ctx, id)
		if err != nil {
			return cred.WithHint(fmt.Errorf("cannot tell whether the access key %s is one that an earlier rotation made and lost: %w", id, err), "if nobody knows it, delete it: "+x.deleteCommand(id))
		}
		if used.LastUsedDate != nil {
			continue
		}
		if err := x.delete(ctx, x.j.Old.pair().Credentials, id); err != nil {
			return err
		}
		x.say("deleted the access key %s, which an earlier try made and lost", id)
		keys[i].AccessKeyId = nil
	}
	return nil
}

func (x *rotating) lastUsed(ctx context.Context, id string) (types.AccessKeyLastUsed, error) {
	var used types.AccessKeyLastUsed
	err := x.iam(ctx, x.j.Old.pair().Credentials, "GetAccessKeyLastUsed", "see when the access key "+id+" was last used", func(ctx context.Context, c *iam.Client) error {
		a, err := c.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &id})
		if err == nil && a.AccessKeyLastUsed != nil {
			used = *a.AccessKeyLastUsed
		} else if err == nil {
			err = errors.New("AWS's answer does not say")
		}
		return err
	})
	return used, err
}

func (x *rotating) deleteCommand(id string) string {
	return "aws iam delete-access-key --user-name " + x.userName() + " --access-key-id " + id
}

// noOther refuses to go on where the user has as many keys as IAM allows.
func (x *rotating) noOther(ctx context.Context, keys []types.AccessKeyMetadata) error {
	var others []string
	for _, k := range keys {
		if id := aws.ToString(k.AccessKeyId); id != "" && id != x.j.Old.ID {
			others = append(others, id)
		}
	}
	if 1+len(others) < keysPerUser {
		return nil
	}
	other := others[0]
	text := fmt.Sprintf("cannot rotate the keys of %s: user %s has two access keys, which is all that IAM allows: %s, and %s", x.out.Profile, x.userName(), x.j.Old.ID, other)
	pairs, err := x.Keys.Pairs(ctx)
	if err != nil {
		return err
	}
	if also := holders(pairs, other); len(also) > 0 {
		return cred.WithHint(fmt.Errorf("%s, which profile %s has", text, also[0]),
			fmt.Sprintf("let both profiles use one pair: keyfob remove %s, delete %s in IAM, and rotate again", also[0], other))
	}
	switch used, err := x.lastUsed(ctx, other); {
	case err != nil:
		text += ", which is not in the vault"
	case used.LastUsedDate == nil:
		text += ", which was never used"
	default:
		text += fmt.Sprintf(", which was last used on %s (%s in %s)", used.LastUsedDate.UTC().Format(time.DateOnly), aws.ToString(used.ServiceName), aws.ToString(used.Region))
	}
	return cred.WithHint(errors.New(text), "where nothing needs "+other+": "+x.deleteCommand(other))
}

// checkNewIsThere looks, when a rotation is resumed, whether somebody deleted
// the new key since. Then the old pair comes back into the vault, and the
// rotation begins anew.
func (x *rotating) checkNewIsThere(ctx context.Context) error {
	if x.userName() == "" || time.Since(x.j.New.Added) < settled {
		return nil
	}
	old := x.j.Old.pair()
	var keys []types.AccessKeyMetadata
	name := x.userName()
	err := x.iamCall(ctx, x.client, old.Credentials, "ListAccessKeys", "list the access keys of user "+name, func(ctx context.Context, c *iam.Client) error {
		a, err := c.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: &name})
		if err == nil {
			keys = a.AccessKeyMetadata
		}
		return err
	})
	if err != nil || withID(keys, x.j.Old.ID) == nil || withID(keys, x.j.New.ID) != nil {
		return nil // the new key will say itself whether it works
	}
	x.say("the access key %s of the earlier rotation was deleted at AWS: beginning anew", x.j.New.ID)
	pairs, err := x.Keys.Pairs(ctx)
	if err != nil {
		return err
	}
	for _, profile := range holders(pairs, x.j.New.ID) {
		if err := x.Keys.Replace(ctx, profile, x.j.New.ID, old); err != nil {
			return err
		}
	}
	x.changed(ctx)
	x.j.New, x.out.New = nil, ""
	return x.j.write(ctx, x.Journal)
}

func (x *rotating) changed(ctx context.Context) {
	if x.Changed != nil {
		x.Changed(ctx)
	}
}

// verify waits until AWS knows the new pair, and that it is the user's.
func (x *rotating) verify(ctx context.Context) error {
	return x.patiently(ctx, func() error {
		arn, err := x.identity(ctx, x.j.New.pair().Credentials)
		if err == nil && arn != x.j.User {
			err = fmt.Errorf("cannot use the new access key %s: AWS says that it is %s's and not %s's", x.j.New.ID, arn, x.j.User)
		}
		return err
	})
}

// store puts the new pair in the place of the old one, for every profile that
// has it now.
func (x *rotating) store(ctx context.Context) error {
	pairs, err := x.Keys.Pairs(ctx)
	if err != nil {
		return err
	}
	to := x.j.New.pair()
	to.Added = time.Now()
	for _, profile := range holders(pairs, x.j.Old.ID) {
		if err := x.Keys.Replace(ctx, profile, x.j.Old.ID, to); err != nil {
			return err
		}
	}
	if pairs, err = x.Keys.Pairs(ctx); err != nil {
		return err
	}
	have := holders(pairs, x.j.New.ID)
	if len(have) == 0 || len(holders(pairs, x.j.Old.ID)) > 0 {
		return fmt.Errorf("cannot store the new keys of %s: the vault was changed meanwhile", x.out.Profile)
	}
	x.stored = true
	x.changed(ctx)
	x.out.Also = slices.DeleteFunc(have, func(p string) bool { return p == x.out.Profile })
	x.say("stored the new keys of %s", joined(append([]string{x.out.Profile}, x.out.Also...)))
	return nil
}

// retire deactivates the old key and then deletes it. Both calls are signed
// by the new one: whatever is taken away, the new key has just worked.
func (x *rotating) retire(ctx context.Context) error {
	by, name, id := x.j.New.pair().Credentials, x.userName(), x.j.Old.ID
	var keys []types.AccessKeyMetadata
	if err := x.patiently(ctx, func() (err error) {
		if keys, err = x.list(ctx, by); err == nil && withID(keys, x.j.New.ID) == nil {
			err = &cred.UpstreamError{Op: "ListAccessKeys", Message: "cannot go on: IAM does not list the new access key " + x.j.New.ID + " yet"}
		}
		return err
	}); err != nil {
		return err
	}
	if withID(keys, x.j.New.ID).Status != types.StatusTypeActive {
		return cred.WithHint(fmt.Errorf("cannot go on: the new access key %s is inactive", x.j.New.ID), "activate it in IAM")
	}
	old := withID(keys, id)
	if old != nil && old.Status == types.StatusTypeActive {
		if err := x.patiently(ctx, func() error {
			err := x.iam(ctx, by, "UpdateAccessKey", "deactivate the access key "+id+" of user "+name, func(ctx context.Context, c *iam.Client) error {
				_, err := c.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{UserName: &name, AccessKeyId: &id, Status: types.StatusTypeInactive})
				return err
			})
			if codeOfError(err) == "NoSuchEntity" {
				return nil
			}
			return err
		}); err != nil {
			return err
		}
		x.say("deactivated the access key %s", id)
	}
	if old != nil {
		// The last moment at which the old one could be activated again.
		if err := x.verify(ctx); err != nil {
			return err
		}
		// An answer of 200 alone, which any proxy can give, is not believed.
		if err := x.patiently(ctx, func() error {
			err := x.delete(ctx, by, id)
			if err == nil {
				keys, err = x.list(ctx, by)
			}
			if err == nil && withID(keys, id) != nil {
				err = &cred.UpstreamError{Op: "DeleteAccessKey", Message: "cannot delete the access key " + id + ": IAM still lists it"}
			}
			return err
		}); err != nil {
			return err
		}
		x.say("deleted the access key %s; sessions that it made stay valid until they end", id)
	}
	return x.j.remove(ctx, x.Journal)
}

// abandon ends a rotation whose pairs the vault no longer has: the new key,
// which nobody else knows, is deleted; the old one is left as it is.
func (x *rotating) abandon(ctx context.Context) error {
	switch {
	case x.userName() == "":
	case x.j.New != nil:
		id := x.j.New.ID
		do := func() error { return x.delete(ctx, x.j.New.pair().Credentials, id) }
		var err error
		if time.Since(x.j.New.Added) < settled {
			err = x.patiently(ctx, do)
		} else {
			err = do()
		}
		if err != nil && !unknownKey(err) {
			return err
		}
		x.say("deleted the access key %s of a rotation that was broken off", id)
	default:
		keys, err := x.list(ctx, x.j.Old.pair().Credentials)
		if err == nil {
			err = x.clearLost(ctx, keys)
		}
		if err != nil && !refusedByAWS(err) {
			return err
		}
		if err != nil {
			x.warn("user %s may have an access key that the rotation made and lost: %s", x.userName(), err)
		}
	}
	x.warn("the vault no longer has the keys that were to be rotated: the access key %s is left at AWS as it is", x.j.Old.ID)
	return x.j.remove(ctx, x.Journal)
}

func joined(names []string) string {
	switch n := len(names); n {
	case 0:
		return "nobody"
	case 1:
		return names[0]
	default:
		return fmt.Sprintf("%s and %d more", names[0], n-1)
	}
}
