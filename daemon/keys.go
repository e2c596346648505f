package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sirupsen/logrus"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/source/sts"
	"keyfob/keystore"
	"keyfob/profiles"
)

// rootRecords marks profiles whose root user's key was allowed by hand.
const rootRecords = "allow-root/"

// rootAllowed reports whether `add --allow-root` was said for the profile.
func (d *daemon) rootAllowed(profile string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := d.vault.Get(ctx, rootRecords+profile)
	return err == nil
}

// allowRoot keeps what was said of this pair, and forgets what was said of
// the one before it.
func (d *daemon) allowRoot(ctx context.Context, profile string, allow bool) error {
	if allow {
		return d.vault.Put(ctx, rootRecords+profile, cred.NewSecret("yes"))
	}
	if err := d.vault.Delete(ctx, rootRecords+profile); !errors.Is(err, cred.ErrNotFound) {
		return err
	}
	return nil
}

const checkTimeout = 15 * time.Second

// add stores a long-lived pair after asking AWS whose it is.
func (d *daemon) add(c *call) (any, error) {
	p, err := decode[control.AddParams](c)
	if err != nil {
		return nil, err
	}
	keys := cred.Credentials{AccessKeyID: p.AccessKeyID, SecretAccessKey: cred.NewSecret(p.SecretAccessKey)}
	if p.Profile == "" || keys.AccessKeyID == "" || keys.SecretAccessKey.IsZero() {
		return nil, &control.Error{Code: control.CodeUsage, Message: "cannot add the keys: a profile, an access key id and a secret access key are needed"}
	}
	if why := badName(p.Profile); why != "" {
		return nil, &control.Error{Code: control.CodeUsage, Message: "cannot add the keys: the profile's name " + why}
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	record := keyRecords + p.Profile
	switch _, err := d.vault.Get(c.ctx, record); {
	case err == nil && !p.Force:
		return nil, &control.Error{Code: control.CodeExists, Message: "cannot add the keys: profile " + p.Profile + " has keys in the vault already", Hint: "--force replaces them"}
	case err != nil && !errors.Is(err, cred.ErrNotFound):
		return nil, err
	}

	var out control.AddResult
	who, err := d.identify(c.ctx, p.Profile, keys)
	var up *cred.UpstreamError
	switch {
	case err == nil:
		out = control.AddResult{Checked: true, ARN: who.ARN, AccountID: who.AccountID}
		if who.Root && !p.AllowRoot {
			return nil, &control.Error{Code: control.CodeFailed, Message: "cannot add the keys: they are the root user's of account " + who.AccountID,
				Hint: "use an IAM user or IAM Identity Center; --allow-root takes them all the same"}
		}
		keys.AccountID = who.AccountID
	case errors.As(err, &up) && up.Refused:
		return nil, cred.WithHint(fmt.Errorf("cannot add the keys: %s", reason(up)), "compare the id and the secret with the console's")
	default:
		out.Warning = "the keys are stored unchecked: " + oneText(err.Error())
	}
	if err := d.allowRoot(c.ctx, p.Profile, p.AllowRoot); err != nil {
		return nil, err
	}
	if err := d.vault.Put(c.ctx, record, sts.EncodeKeys(keys)); err != nil {
		return nil, err
	}
	if w := d.vault.Status().Warning; w != "" && out.Warning == "" {
		out.Warning = w
	}
	d.log.WithField(logging.Profile, p.Profile).Info("keys stored")
	d.refreshVaultKeys(c.ctx)
	d.broker.Wake(p.Profile)
	return out, nil
}

// badName says why no AWS file and no terminal could name a profile so, ""
// where they can.
func badName(name string) string {
	switch {
	case name != strings.TrimSpace(name):
		return "begins or ends with a space"
	case len(name) > 200:
		return "is longer than 200 bytes"
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == ']' || r == '[' || r == utf8.RuneError }):
		return "has characters that a section of an AWS file can't have"
	}
	return ""
}

// identify asks AWS whose keys these are, through the client that the
// profile with these keys would use.
func (d *daemon) identify(ctx context.Context, profile string, keys cred.Credentials) (sts.Caller, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	vault := d.vaultKeys(ctx)
	vault[profile] = profiles.VaultKey{AccessKeyID: keys.AccessKeyID}
	p, err := d.readProfiles(d.conf(), vault).Resolve(named(profile))
	if err != nil {
		return sts.Caller{}, err
	}
	var client profiles.Client
	if len(p.Chain) > 0 {
		client = p.Chain[0].Client
	}
	return sts.Identity(ctx, client, keys)
}

func (d *daemon) remove(c *call) (any, error) {
	p, err := decode[control.ProfileParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	// Sessions can be forgotten for good only in an open vault: half of it
	// would look like a failure after the keys are gone.
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	if d.vault.Status().Locked {
		return nil, cred.ErrLocked
	}
	if err := d.dropKey(c.ctx, p.Profile); errors.Is(err, cred.ErrNotFound) {
		return nil, &control.Error{Code: control.CodeFailed, Message: "cannot remove the keys: profile " + p.Profile + " has none in the vault", Hint: "keyfob list shows what there is"}
	} else if err != nil {
		return nil, err
	}
	err = d.forget(c.ctx, p.Profile)
	d.refreshVaultKeys(c.ctx)
	d.log.WithField(logging.Profile, p.Profile).Info("keys removed")
	return control.Empty{}, err
}

// forget drops a profile's sessions, its grants, and what a person said of
// the programs that may have it.
func (d *daemon) forget(ctx context.Context, profile string) error {
	if err := d.broker.Forget(ctx, profile); err != nil && !errors.Is(err, cred.ErrUnknownProfile) {
		return err
	}
	return errors.Join(d.grants.RemoveProfile(ctx, profile), d.consents.Forget(ctx, profile))
}

func (d *daemon) logout(c *call) (any, error) {
	p, err := decode[control.ProfileParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	r := d.request(c, p.Context, cred.ViaLogin)
	// Without a name it is also the daemon's own keys that are meant, which
	// need no profile.
	if _, err := d.set().Resolve(d.query(p.Context)); err != nil {
		return nil, unknownProfile(err)
	}
	_, links, _ := d.broker.Chain(r) // one that can't be resolved has no sign-in
	// The sign-in goes first: forgetting wakes refreshers, which would get a
	// new session with a token that is still there.
	err = d.signOut(c.ctx, links)
	if ferr := d.forget(c.ctx, r.Profile); ferr != nil {
		return nil, ferr
	}
	if err != nil {
		return nil, cred.WithHint(fmt.Errorf("cannot end the sign-in of %s everywhere: %s; it is forgotten here", r.Profile, reason(err)), hintOf(err))
	}
	d.log.WithField(logging.Profile, r.Profile).Info("signed out")
	return control.Empty{}, nil
}

// set is the files as they were read last.
func (d *daemon) set() *profiles.Set {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files
}

func (d *daemon) lock(c *call) (any, error) {
	d.lockedByHand.Store(true)
	d.lockAudit(c.ctx)
	d.vault.Lock()
	d.broker.ForgetMemory()
	for _, e := range d.endpoints() {
		e.server.Forget()
	}
	d.exec.forget()
	d.shared.oidc.Forget()
	// The tokens' key stays: a token opens nothing now, and its holder is to
	// be told 503, not 401, which some clients take for final.
	d.log.Info("vault locked by hand")
	return control.Empty{}, nil
}

func (d *daemon) unlockByHand(c *call) (any, error) {
	p, err := decode[control.UnlockParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.store.wait(c.ctx); err != nil {
		return nil, err
	}
	switch {
	case p.Recovery != "":
		err = d.vault.UnlockRecovery(c.ctx, cred.NewSecret(p.Recovery), cred.NewSecret(p.Passphrase))
	case p.Passphrase == "":
		err = d.unlockVault(c.ctx)
	default:
		err = d.vault.Unlock(c.ctx, cred.NewSecret(p.Passphrase))
	}
	if errors.Is(err, keystore.ErrWrongRecoveryKey) {
		return nil, cred.WithHint(err, "compare it with what was written down, then keyfob unlock --recovery")
	}
	if err != nil {
		return nil, err
	}
	d.lockedByHand.Store(false)
	d.log.WithFields(logrus.Fields{logging.Backend: d.vault.Status().Backend}).Info("vault unlocked")
	d.unlocked(c.ctx)
	return control.Empty{}, nil
}
