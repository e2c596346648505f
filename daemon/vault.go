package daemon

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/keystore"
	"keyfob/profiles"
)

// startingStore is the vault for whoever may come before it was opened: it
// waits for the first try to unlock, which goes on behind the listeners.
type startingStore struct {
	*keystore.Vault
	first <-chan struct{}
}

func (s *startingStore) wait(ctx context.Context) error {
	select {
	case <-s.first:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Get waits for the first try to unlock, then reads.
func (s *startingStore) Get(ctx context.Context, name string) (cred.Secret, error) {
	if err := s.wait(ctx); err != nil {
		return cred.Secret{}, err
	}
	return s.Vault.Get(ctx, name)
}

// Put waits for the first try to unlock, then writes.
func (s *startingStore) Put(ctx context.Context, name string, value cred.Secret) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Vault.Put(ctx, name, value)
}

// firstUnlock opens the vault behind the ready listeners.
func (d *daemon) firstUnlock(ctx context.Context) {
	err := d.unlockVault(ctx) // by the keyring or the configured passphrase
	if err == nil {
		d.recall(ctx) // before anybody is served who could have a token of the last run
	}
	close(d.firstTry)
	if err != nil {
		d.log.WithError(err).WithField(logging.Backend, d.vault.Status().Backend).Warn("vault stays locked")
		return
	}
	d.resume(ctx)
}

// unlockVault opens the vault by what there is without a person. The vault
// knows the passphrase file of the start; one that a reload named is read
// here.
func (d *daemon) unlockVault(ctx context.Context) error {
	passphrase, err := d.filedPassphrase()
	if err != nil {
		return err
	}
	return d.vault.Unlock(ctx, passphrase)
}

// filedPassphrase is what the passphrase file of settings that were read since
// the start holds; none where the vault itself knows the file.
func (d *daemon) filedPassphrase() (cred.Secret, error) {
	path := d.conf().PassphraseFile
	if d.conf().Keystore != "passphrase" || path == "" || path == d.opt.Settings.PassphraseFile {
		return cred.Secret{}, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return cred.Secret{}, fmt.Errorf("cannot read the passphrase file: %w", err)
	}
	defer clear(b)
	return cred.SecretBytes(bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))), nil
}

// unlocked brings in what the vault holds, after each unlock.
func (d *daemon) unlocked(ctx context.Context) {
	d.recall(ctx)
	d.resume(ctx)
}

// recall brings back what callers hold: the key of their endpoint tokens,
// and the grants.
func (d *daemon) recall(ctx context.Context) {
	if err := d.keptTokens(ctx); err != nil {
		d.log.WithError(err).Warn("endpoint tokens will not survive a restart")
	}
	d.recallAudit(ctx)
	if err := d.consents.Load(ctx); err != nil {
		d.log.WithError(err).Warn("cannot read which programs a person confirmed")
	}
	if err := d.grants.Load(ctx); err != nil {
		d.log.WithError(err).Warn("cannot read the grants")
	}
	d.pruneGrants(ctx)
	d.watchExec()
}

// resume goes on with what waited for the vault.
func (d *daemon) resume(ctx context.Context) {
	d.refreshVaultKeys(ctx)
	d.broker.Wake("")
	d.resumeExec()
}

// resumeExec serves the programs under exec that are left from before.
func (d *daemon) resumeExec() {
	if d.hasExecGrants() {
		if _, err := d.exec.start(d); err != nil {
			d.log.WithError(err).Error("cannot serve the programs under exec")
		}
	}
}

// retryUnlock tries again where time alone may mend it: a keyring that was
// not there, that hung, or that was restarted and had nothing yet; and one
// that is locked, where no desktop could show a prompt for each try. What
// else a person must do is left to them.
func (d *daemon) retryUnlock(ctx context.Context) {
	st := d.vault.Status()
	if !st.Locked || d.lockedByHand.Load() || !d.passes(st.Err) {
		return
	}
	if d.unlockVault(ctx) == nil {
		d.log.Info("the keyring is back, vault unlocked")
		d.unlocked(ctx)
	}
}

func (d *daemon) passes(err error) bool {
	for _, e := range []error{keystore.ErrNoKeyring, keystore.ErrTimeout, keystore.ErrKeyMissing, keystore.ErrHelper} {
		if errors.Is(err, e) {
			return true
		}
	}
	return errors.Is(err, keystore.ErrKeyringLocked) && d.env["DISPLAY"] == "" && d.env["WAYLAND_DISPLAY"] == ""
}

const tokenKeyRecord = "endpoint/token-key"

// temporaryTokens makes a key that lasts until the vault gives the kept one.
func (d *daemon) temporaryTokens() error {
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return fmt.Errorf("cannot make a key: %w", err)
	}
	d.temporary = access.NewTokens(key)
	d.tokens.Store(d.temporary)
	return nil
}

// keptTokens takes the endpoint tokens' key from the vault, so that tokens
// survive a restart; a new vault gets one.
func (d *daemon) keptTokens(ctx context.Context) error {
	var key [32]byte
	switch v, err := d.vault.Get(ctx, tokenKeyRecord); {
	case err == nil && v.Len() == len(key):
		copy(key[:], v.Reveal())
	case err == nil || errors.Is(err, cred.ErrNotFound):
		if _, err := rand.Read(key[:]); err != nil {
			return fmt.Errorf("cannot make a key: %w", err)
		}
		if err := d.vault.Put(ctx, tokenKeyRecord, cred.SecretBytes(key[:])); err != nil {
			return fmt.Errorf("cannot keep the key of endpoint tokens: %w", err)
		}
	default:
		return fmt.Errorf("cannot read the key of endpoint tokens: %w", err)
	}
	d.tokens.Store(access.NewTokens(key).Accepting(d.temporary))
	return nil
}

const (
	keyRecords = "key/" // + profile: the sealed pair
	// idRecords + profile + "/" + access key id are empty records. Names can
	// be read while the vault is locked, so the id, which is no secret and
	// part of every LinkKey above it, is known from the first moment: a
	// caller that comes before the unlock finds the sessions of the last run.
	idRecords = "key-id/"
)

// vaultKeys lists the profiles whose long-lived keys are in the vault, with
// their ids.
func (d *daemon) vaultKeys(ctx context.Context) map[string]profiles.VaultKey {
	names, err := d.vault.List(ctx, keyRecords)
	if err != nil {
		d.log.WithError(err).Warn("cannot list the vault")
		return map[string]profiles.VaultKey{}
	}
	ids, err := d.keyIDs(ctx)
	if err != nil {
		d.log.WithError(err).Warn("cannot list the vault")
	}
	keys := make(map[string]profiles.VaultKey, len(names))
	for _, name := range names {
		profile := strings.TrimPrefix(name, keyRecords)
		var k profiles.VaultKey
		if known := ids[profile]; len(known) > 0 {
			k.AccessKeyID = known[0]
		}
		if v, err := d.vault.Get(ctx, name); err == nil {
			if c, err := decodeKeys(v); err == nil {
				k.AccessKeyID = c.AccessKeyID // the sealed pair is what counts
				d.markKey(ctx, profile, c.AccessKeyID, ids[profile])
			} else {
				d.log.WithError(err).WithField(logging.Record, name).Warn("cannot read a record of the vault")
			}
		}
		keys[profile] = k
	}
	return keys
}

// keyIDs reads the ids by profile from the names of their records.
func (d *daemon) keyIDs(ctx context.Context) (map[string][]string, error) {
	names, err := d.vault.List(ctx, idRecords)
	ids := map[string][]string{}
	for _, name := range names {
		name = strings.TrimPrefix(name, idRecords)
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			ids[name[:i]] = append(ids[name[:i]], name[i+1:])
		}
	}
	return ids, err
}

// markKey makes id the one that a profile's id records name.
func (d *daemon) markKey(ctx context.Context, profile, id string, known []string) {
	var err error
	if !slices.Contains(known, id) {
		err = d.vault.Put(ctx, idRecords+profile+"/"+id, cred.NewSecret("-"))
	}
	for _, old := range known {
		if old != id {
			err = errors.Join(err, d.vault.Delete(ctx, idRecords+profile+"/"+old))
		}
	}
	if err != nil {
		d.log.WithError(err).WithField(logging.Profile, profile).Warn("cannot note the id of a key")
	}
}

// dropKey deletes a profile's pair and what was noted with it.
// cred.ErrNotFound when there is no pair.
func (d *daemon) dropKey(ctx context.Context, profile string) error {
	if err := d.vault.Delete(ctx, keyRecords+profile); err != nil {
		return err
	}
	ids, err := d.keyIDs(ctx)
	for _, id := range ids[profile] {
		err = errors.Join(err, d.vault.Delete(ctx, idRecords+profile+"/"+id))
	}
	if derr := d.vault.Delete(ctx, rootRecords+profile); !errors.Is(derr, cred.ErrNotFound) {
		err = errors.Join(err, derr)
	}
	return err
}

// refreshVaultKeys tells profiles and broker what the vault holds now.
func (d *daemon) refreshVaultKeys(ctx context.Context) {
	// Listed under the lock: of two that list at once (the first unlock and
	// an add), the one that has seen less would otherwise tell it last.
	d.mu.Lock()
	defer d.mu.Unlock()
	keys := d.vaultKeys(ctx)
	if !maps.Equal(keys, d.keys) { // most unlocks tell nothing new: their ids stand in the records' names
		d.keys = keys
		d.publish(d.files.WithVault(keys))
	}
}
