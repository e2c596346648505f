package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"keyfob/internal/cred"
)

// journalRecords + the old access key id is the record of a rotation that is
// not finished. It is written before anything changes at AWS and removed when
// nothing of the rotation is left to do.
const journalRecords = "rotate/"

const journalVersion = 1

// journal is what a rotation must know after a kill. It holds both pairs
// until the old one is deleted at AWS: whichever of the two works then, the
// vault has it.
type journal struct {
	Version  int       `json:"version"`
	User     string    `json:"user"`     // ARN
	Profiles []string  `json:"profiles"` // that had the old pair when it began
	Old      journaled `json:"old"`
	// New is the new pair, nil until it is known.
	New *journaled `json:"new,omitempty"`
	// Tries are the times in which CreateAccessKey may have made a key whose
	// secret never came here, by AWS's clock.
	Tries []try `json:"tries,omitempty"`
}

// journaled is a pair.
type journaled struct {
	ID        string    `json:"access_key_id"`
	Secret    string    `json:"secret_access_key"`
	AccountID string    `json:"account_id,omitempty"`
	Added     time.Time `json:"added,omitzero"`
}

type try struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
}

// journaledPair is p as a journal has it.
func journaledPair(p Pair) journaled {
	return journaled{ID: p.AccessKeyID, Secret: p.SecretAccessKey.Reveal(), AccountID: p.AccountID, Added: p.Added}
}

func (j journaled) pair() Pair {
	return Pair{Credentials: cred.Credentials{AccessKeyID: j.ID, SecretAccessKey: cred.NewSecret(j.Secret), AccountID: j.AccountID}, Added: j.Added}
}

// String and Format keep the secret out of whatever is printed.
func (j journaled) String() string             { return j.ID + " " + cred.Redacted }
func (j journaled) GoString() string           { return j.String() }
func (j journaled) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(j.String())) }
func (j *journal) record() string              { return journalRecords + j.Old.ID }
func (j *journal) concerns(id string) bool     { return j.Old.ID == id || j.New != nil && j.New.ID == id }

// orphan reports whether no profile has one of the two pairs any more.
func (j *journal) orphan(pairs map[string]Pair) bool {
	for _, p := range pairs {
		if j.concerns(p.AccessKeyID) {
			return false
		}
	}
	return true
}

func (j *journal) write(ctx context.Context, s cred.Store) error {
	j.Version = journalVersion
	b, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("cannot encode the journal of a rotation: %w", err)
	}
	defer clear(b)
	return s.Put(ctx, j.record(), cred.SecretBytes(b))
}

func (j *journal) remove(ctx context.Context, s cred.Store) error {
	if err := s.Delete(ctx, j.record()); err != nil && !errors.Is(err, cred.ErrNotFound) {
		return err
	}
	return nil
}

// readJournals reads the journals of all rotations that are not finished. One
// that the vault has set aside as corrupt is left out: the pairs in the vault
// are whole all the same.
func readJournals(ctx context.Context, s cred.Store) ([]journal, error) {
	names, err := s.List(ctx, journalRecords)
	if err != nil {
		return nil, err
	}
	var all []journal
	for _, name := range names {
		record, err := s.Get(ctx, name)
		if errors.Is(err, cred.ErrNotFound) { // also a corrupt one, which the vault has set aside
			continue
		}
		if err != nil {
			return nil, err
		}
		var j journal
		switch err := json.Unmarshal(record.AppendReveal(nil), &j); {
		case err == nil && j.Version > journalVersion:
			return nil, fmt.Errorf("the record %s has version %d, made by a newer keyfob", name, j.Version)
		case err != nil || j.Version < 1 || j.record() != name || j.Old.Secret == "" || j.New != nil && j.New.Secret == "":
			return nil, fmt.Errorf("the vault's record %s is not the journal of a rotation", name) // without err, which may quote it
		}
		all = append(all, j)
	}
	return all, nil
}

// Unfinished lists a profile for each rotation that was broken off, sorted:
// rotating its keys finishes it. Errors: those of the vault.
func Unfinished(ctx context.Context, s cred.Store) ([]string, error) {
	journals, err := readJournals(ctx, s)
	if err != nil {
		return nil, err
	}
	var profiles []string
	for _, j := range journals {
		if len(j.Profiles) > 0 {
			profiles = append(profiles, j.Profiles[0])
		}
	}
	slices.Sort(profiles)
	return profiles, nil
}
