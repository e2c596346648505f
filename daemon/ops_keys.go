package daemon

import (
	"context"
	"errors"
	"strings"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/ops"
	"keyfob/internal/source/sts"
	"keyfob/profiles"
)

// keyVault is the vault's long-lived pairs, as rotations see them.
type keyVault daemon

// Pairs implements ops.KeyVault. A record that can't be read is none: its
// profile has no pair either.
func (v *keyVault) Pairs(ctx context.Context) (map[string]ops.Pair, error) {
	names, err := v.vault.List(ctx, keyRecords)
	if err != nil {
		return nil, err
	}
	pairs := make(map[string]ops.Pair, len(names))
	for _, name := range names {
		record, err := v.vault.Get(ctx, name)
		if errors.Is(err, cred.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c, added, err := sts.DecodeKeysAdded(record); err == nil {
			pairs[strings.TrimPrefix(name, keyRecords)] = ops.Pair{Credentials: c, Added: added}
		}
	}
	return pairs, nil
}

// Replace implements ops.KeyVault.
func (v *keyVault) Replace(ctx context.Context, profile, old string, p ops.Pair) error {
	record, err := v.vault.Get(ctx, keyRecords+profile)
	if errors.Is(err, cred.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if have, err := sts.DecodeKeys(record); err != nil || have.AccessKeyID != old {
		return err
	}
	return v.vault.Put(ctx, keyRecords+profile, sts.EncodeKeysAdded(p.Credentials, p.Added))
}

// baseAdded is when the pair at the base of a chain came into the vault, zero
// where it is not there or that is not known.
func (d *daemon) baseAdded(ctx context.Context, chain []profiles.Link) time.Time {
	if !inVault(chain) {
		return time.Time{}
	}
	record, err := d.vault.Get(ctx, keyRecords+chain[0].Profile)
	if err != nil {
		return time.Time{}
	}
	_, added, err := sts.DecodeKeysAdded(record)
	if err != nil {
		return time.Time{}
	}
	return added
}

// inVault reports whether a chain begins with a pair of the vault.
func inVault(chain []profiles.Link) bool {
	return len(chain) > 0 && chain[0].Kind == profiles.KindStaticKeys && chain[0].Params["layer"] == string(profiles.FromKeystore)
}
