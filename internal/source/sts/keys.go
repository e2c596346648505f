package sts

import (
	"encoding/json"
	"errors"
	"fmt"

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
}

// EncodeKeys returns the record of a long-lived pair and, where it is known,
// its account. Other fields are not kept.
func EncodeKeys(c cred.Credentials) cred.Secret {
	b, err := json.Marshal(keyRecord{keyVersion, c.AccessKeyID, c.SecretAccessKey.Reveal(), c.AccountID})
	if err != nil {
		panic(err) // strings and an int always marshal
	}
	return cred.SecretBytes(b)
}

// DecodeKeys reads a record of EncodeKeys. The error never shows what the
// record holds.
func DecodeKeys(s cred.Secret) (cred.Credentials, error) {
	var r keyRecord
	if err := json.Unmarshal(s.AppendReveal(nil), &r); err != nil || r.Version < 1 {
		return cred.Credentials{}, errors.New("the vault's record is not one of a key pair")
	}
	if r.Version > keyVersion {
		return cred.Credentials{}, fmt.Errorf("the vault's record has version %d, made by a newer keyfob", r.Version)
	}
	if r.AccessKeyID == "" || r.SecretAccessKey == "" {
		return cred.Credentials{}, errors.New("the vault's record holds half a key pair")
	}
	return cred.Credentials{AccessKeyID: r.AccessKeyID, SecretAccessKey: cred.NewSecret(r.SecretAccessKey), AccountID: r.AccountID}, nil
}
