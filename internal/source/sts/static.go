package sts

import (
	"context"
	"errors"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// staticKeys gives a pair that stands in the vault, a file or the
// environment. It calls nobody. Keys that already carry a session token have
// no known end: Expires is zero, and the broker gives them one.
type staticKeys struct {
	link profiles.Link
	d    Deps
}

func (s *staticKeys) Interactive() bool { return false }

func (s *staticKeys) Fetch(ctx context.Context, _ cred.Input) (cred.Credentials, error) {
	if s.link.Params["layer"] == string(profiles.FromKeystore) {
		return s.fromVault(ctx)
	}
	k := s.link.Secrets
	if k == nil {
		return cred.Credentials{}, unusable(s.link.Profile, "its keys are gone", "keyfob explain "+s.link.Profile, nil)
	}
	secret, token := k.Reveal()
	out := cred.Credentials{AccessKeyID: k.AccessKeyID, SecretAccessKey: cred.NewSecret(secret), SessionToken: cred.NewSecret(token)}
	if out.AccessKeyID == "" || out.SecretAccessKey.IsZero() {
		return cred.Credentials{}, unusable(s.link.Profile, "it has half a key pair", "keyfob explain "+s.link.Profile, nil)
	}
	return out, nil
}

func (s *staticKeys) fromVault(ctx context.Context) (cred.Credentials, error) {
	if s.d.Store == nil {
		return cred.Credentials{}, unusable(s.link.Profile, "its keys are in the vault and there is none", "", nil)
	}
	record, err := s.d.Store.Get(ctx, KeyRecord(s.link.Profile))
	switch {
	case errors.Is(err, cred.ErrNotFound):
		why := "the vault has no keys of it"
		if cause := errors.Unwrap(err); cause != nil && cause != cred.ErrNotFound || cause == nil && err != cred.ErrNotFound {
			why = err.Error() // a vault says more of a record that it set aside
		}
		return cred.Credentials{}, &settingsError{
			msg:  "cannot use profile " + s.link.Profile + ": " + why,
			help: "keyfob add " + s.link.Profile,
			err:  err,
		}
	case err != nil:
		return cred.Credentials{}, &storeError{profile: s.link.Profile, err: err}
	}
	out, err := DecodeKeys(record)
	if err != nil {
		return cred.Credentials{}, unusable(s.link.Profile, err.Error(), "keyfob add "+s.link.Profile, err)
	}
	return out, nil
}

// storeError is the vault's error in the words of a source; what it Is and
// its hint are the vault's.
type storeError struct {
	profile string
	err     error
}

func (e *storeError) Error() string {
	return "cannot read the keys of profile " + e.profile + ": " + e.err.Error()
}
func (e *storeError) Unwrap() error { return e.err }
