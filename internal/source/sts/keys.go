package sts

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"keyfob/internal/cred"
)

// KeyRecord is the name of the vault record that holds a profile's
// long-lived pair.
func KeyRecord(profile string) string { return "key/" + profile }

const keyVersion = 1

// keyRecord is the stored form of a long-lived pair.
type keyRecord struct {
	Version         int    `json:"version"`
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key"`
	AccountID       string `json:"account_id,omitempty"`
	Added           string `json:"added,omitempty"` // RFC 3339, UTC; older records have none
}

// EncodeKeys returns the record of a long-lived pair that comes into the
// vault now and, where it is known, its account. Other fields are not kept.
func EncodeKeys(c cred.Credentials) cred.Secret { return EncodeKeysAdded(c, time.Now()) }

// EncodeKeysAdded is EncodeKeys for a pair that came into the vault at
// another time; the zero time is not kept.
func EncodeKeysAdded(c cred.Credentials, added time.Time) cred.Secret {
	r := keyRecord{Version: keyVersion, AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey.Reveal(), AccountID: c.AccountID}
	if !added.IsZero() {
		r.Added = added.UTC().Format(time.RFC3339)
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and an int always marshal
	}
	return cred.SecretBytes(b)
}

// DecodeKeys reads a record of EncodeKeys. The error never shows what the
// record holds.
func DecodeKeys(s cred.Secret) (cred.Credentials, error) {
	c, _, err := DecodeKeysAdded(s)
	return c, err
}

// DecodeKeysAdded is DecodeKeys that also tells when the pair came into the
// vault, the zero time where the record does not say.
func DecodeKeysAdded(s cred.Secret) (c cred.Credentials, added time.Time, err error) {
	var r keyRecord
	if err := json.Unmarshal(s.AppendReveal(nil), &r); err != nil || r.Version < 1 {
		return c, added, errors.New("the vault's record is not one of a key pair")
	}
	if r.Version > keyVersion {
		return c, added, fmt.Errorf("the vault's record has version %d, made by a newer keyfob", r.Version)
	}
	if r.AccessKeyID == "" || r.SecretAccessKey == "" {
		return c, added, errors.New("the vault's record holds half a key pair")
	}
	// A date that can't be read is none: the pair is what counts.
	if at, err := time.Parse(time.RFC3339, r.Added); err == nil {
		added = at.UTC()
	}
	return cred.Credentials{AccessKeyID: r.AccessKeyID, SecretAccessKey: cred.NewSecret(r.SecretAccessKey), AccountID: r.AccountID}, added, nil
}
