package sts

import (
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
)

// TestKeyRecordKeepsItsDate: the day on which a pair came into the vault is
// kept, and records from before that was so are read as they always were.
func TestKeyRecordKeepsItsDate(t *testing.T) {
	pair := cred.Credentials{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: cred.NewSecret("CANARY"), AccountID: "111122223333"}
	before := time.Now().Truncate(time.Second)
	got, added, err := DecodeKeysAdded(EncodeKeys(pair))
	if err != nil || got.AccessKeyID != pair.AccessKeyID || !got.SecretAccessKey.Equal(pair.SecretAccessKey) || got.AccountID != pair.AccountID {
		t.Fatalf("%+v %v", got, err)
	}
	if added.Before(before) || added.After(time.Now()) || added.Location() != time.UTC {
		t.Errorf("added %s, now is %s", added, time.Now())
	}
	then := time.Date(2024, 2, 29, 23, 59, 59, 5, time.FixedZone("", 3600))
	if _, added, err = DecodeKeysAdded(EncodeKeysAdded(pair, then)); err != nil || !added.Equal(then.Truncate(time.Second)) {
		t.Errorf("%s %v", added, err)
	}
	for name, record := range map[string]string{
		"older":        `{"version":1,"access_key_id":"AKIAIOSFODNN7EXAMPLE","secret_access_key":"CANARY"}`,
		"no date":      EncodeKeysAdded(pair, time.Time{}).Reveal(),
		"a bad date":   `{"version":1,"access_key_id":"AKIAIOSFODNN7EXAMPLE","secret_access_key":"CANARY","added":"yesterday"}`,
		"newer fields": `{"version":1,"access_key_id":"AKIAIOSFODNN7EXAMPLE","secret_access_key":"CANARY","colour":"red"}`,
	} {
		if got, added, err := DecodeKeysAdded(cred.NewSecret(record)); err != nil || !added.IsZero() || got.AccessKeyID != pair.AccessKeyID {
			t.Errorf("%s: %+v %s %v", name, got, added, err)
		}
	}
	for name, record := range map[string]string{
		"half":  `{"version":1,"access_key_id":"AKIAIOSFODNN7EXAMPLE","added":"2026-01-02T03:04:05Z"}`,
		"newer": `{"version":2,"access_key_id":"AKIAIOSFODNN7EXAMPLE","secret_access_key":"CANARY"}`,
		"none":  `CANARY`,
	} {
		if _, added, err := DecodeKeysAdded(cred.NewSecret(record)); err == nil || !added.IsZero() || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %s %v", name, added, err)
		}
	}
}
