package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"keyfob/internal/cred"
)

const (
	consentPrefix  = "consent/" // of the Store's records
	consentVersion = 1          // of a record's form
)

// storedConsent is the form of a record, a lasting yes.
type storedConsent struct {
	Version int       `json:"version"`
	UID     string    `json:"uid"`
	Program string    `json:"program"`
	SHA256  string    `json:"sha256"`
	Profile string    `json:"profile"`
	Created time.Time `json:"created"`
}

// record is the name of its record, "consent/" and 64 hex digits. The first
// half depends on the profile alone, so that Forget finds a profile's records
// while the Store is locked and their content can't be read.
func (s subject) record() string {
	key := s.key()
	return consentsOf(s.profile) + hex.EncodeToString(key[:sha256.Size/2])
}

func consentsOf(profile string) string {
	half := sha256.Sum256([]byte("keyfob consent v1\x00" + profile))
	return consentPrefix + hex.EncodeToString(half[:sha256.Size/2])
}

// Load reads the lasting answers of the Store, beside those in memory, and
// writes those that were given while it was locked. Call it again after the
// Store was unlocked. Errors: cred.ErrLocked when records could not be read;
// otherwise a record that can't be used (its name), after all others were
// loaded.
func (c *Consents) Load(ctx context.Context) error {
	problems := []error{c.read(ctx)}
	if !errors.Is(problems[0], cred.ErrLocked) {
		problems = append(problems, c.keep(ctx))
	}
	return errors.Join(problems...)
}

func (c *Consents) read(ctx context.Context) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	names, err := c.store.List(ctx, consentPrefix)
	if err != nil {
		return fmt.Errorf("cannot list the answers of people: %w", err)
	}
	var problems []error
	for _, name := range names {
		record, err := c.store.Get(ctx, name)
		if errors.Is(err, cred.ErrLocked) {
			return fmt.Errorf("cannot read the answers of people: %w", err)
		}
		if errors.Is(err, cred.ErrNotFound) {
			continue // removed meanwhile
		}
		var s subject
		var since time.Time
		if err == nil {
			s, since, err = parseConsent(name, record)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("cannot read record %s: %w", name, err))
			continue
		}
		c.mu.Lock()
		c.yes[s] = answered{since: since}
		c.mu.Unlock()
	}
	return errors.Join(problems...)
}

func parseConsent(name string, record cred.Secret) (subject, time.Time, error) {
	var stored storedConsent
	if err := json.Unmarshal(record.AppendReveal(nil), &stored); err != nil {
		return subject{}, time.Time{}, errors.New("it is not an answer")
	}
	if stored.Version != consentVersion {
		return subject{}, time.Time{}, fmt.Errorf("it has version %d, and this keyfob knows version %d", stored.Version, consentVersion)
	}
	sum, err := hex.DecodeString(stored.SHA256)
	if err != nil || len(sum) != sha256.Size || stored.UID == "" || stored.Program == "" {
		return subject{}, time.Time{}, errors.New("it is not an answer")
	}
	s := subject{uid: stored.UID, program: stored.Program, profile: stored.Profile, sum: [sha256.Size]byte(sum)}
	if s.record() != name {
		return subject{}, time.Time{}, errors.New("it is another answer's")
	}
	return s, stored.Created, nil
}

// keep writes the lasting answers that the Store does not have yet.
func (c *Consents) keep(ctx context.Context) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	unkept := map[subject]answered{}
	for s, a := range c.yes {
		if a.unkept {
			unkept[s] = a
		}
	}
	c.mu.Unlock()
	var problems []error
	for s, a := range unkept {
		record, err := json.Marshal(storedConsent{Version: consentVersion, UID: s.uid, Program: s.program,
			SHA256: hex.EncodeToString(s.sum[:]), Profile: s.profile, Created: a.since.UTC().Truncate(time.Second)})
		if err == nil {
			err = c.store.Put(ctx, s.record(), cred.SecretBytes(record))
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("cannot keep an answer about %s: %w", s.profile, err))
			continue
		}
		c.mu.Lock()
		if now, ok := c.yes[s]; ok {
			now.unkept = false
			c.yes[s] = now
		}
		c.mu.Unlock()
	}
	return errors.Join(problems...)
}

// Forget forgets every answer about the profile, also those that could not
// be read yet. Errors: of the Store, after which the answers that it still
// has count again from the next Load on.
func (c *Consents) Forget(ctx context.Context, profile string) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	of := func(s subject) bool { return s.profile == profile }
	maps.DeleteFunc(c.yes, func(s subject, _ answered) bool { return of(s) })
	maps.DeleteFunc(c.once, func(s subject, _ time.Time) bool { return of(s) })
	maps.DeleteFunc(c.no, func(s subject, _ time.Time) bool { return of(s) })
	c.mu.Unlock()
	names, err := c.store.List(ctx, consentsOf(profile))
	if err != nil {
		return fmt.Errorf("cannot list the answers about %s: %w", profile, err)
	}
	var problems []error
	for _, name := range names {
		if err := c.store.Delete(ctx, name); err != nil && !errors.Is(err, cred.ErrNotFound) {
			problems = append(problems, fmt.Errorf("cannot forget an answer about %s: %w", profile, err))
		}
	}
	return errors.Join(problems...)
}
