package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"keyfob/internal/cred"
)

// record is what the vault holds of a sign-in. The zero value is that nobody
// has signed in.
type record struct {
	id      cred.Secret // the ID token, zero where AWS refused it
	claims  claims      // id's, verified before it was written
	since   time.Time   // when id came, by our clock
	refresh cred.Secret // zero for none
	// refreshEnds is when refresh ends, zero where the provider does not say.
	refreshEnds time.Time
	// sent: refresh was sent, or is about to be, and there is no answer. It
	// may be good for one use, so that it is not sent again.
	sent bool
	// steady: a refresh has shown that refresh is good for many uses.
	steady bool
	// noID: a refresh has shown that the provider gives no ID token for one.
	noID    bool
	nonce   string // of the sign-in, "" for none
	subject string // who signed in
}

const (
	recordPrefix  = "oidc/"
	recordVersion = 1
)

type recordJSON struct {
	Version     int       `json:"version"`
	IDToken     string    `json:"id_token,omitempty"`
	Since       time.Time `json:"since"`
	Refresh     string    `json:"refresh_token,omitempty"`
	RefreshEnds time.Time `json:"refresh_ends"`
	Sent        bool      `json:"sent,omitempty"`
	Steady      bool      `json:"steady,omitempty"`
	NoID        bool      `json:"no_id_token,omitempty"`
	Nonce       string    `json:"nonce,omitempty"`
	Subject     string    `json:"subject,omitempty"`
}

func (r *record) encode() (cred.Secret, error) {
	b, err := json.Marshal(recordJSON{recordVersion, r.id.Reveal(), r.since.UTC(), r.refresh.Reveal(), r.refreshEnds.UTC(), r.sent, r.steady, r.noID, r.nonce, r.subject})
	if err != nil {
		return cred.Secret{}, fmt.Errorf("cannot write a sign-in: %w", err)
	}
	return cred.SecretBytes(b), nil
}

// decode returns nil for what is no record of this version.
func decode(v cred.Secret) *record {
	var j recordJSON
	if json.Unmarshal([]byte(v.Reveal()), &j) != nil || j.Version != recordVersion {
		return nil
	}
	r := &record{id: cred.NewSecret(j.IDToken), since: j.Since, refresh: cred.NewSecret(j.Refresh), refreshEnds: j.RefreshEnds,
		sent: j.Sent, steady: j.Steady, noID: j.NoID, nonce: j.Nonce, subject: j.Subject}
	r.claims, _ = peek(j.IDToken)
	return r
}

// usableFor is how long an ID token must have left to be sent to AWS: the
// call takes time. Tokens that live for a minute are used as well.
func (r *record) usable(now time.Time) bool {
	left := r.claims.expires.Sub(now)
	return !r.id.IsZero() && left > 0 && left >= min(time.Minute, r.claims.expires.Sub(r.since)/2)
}

// refreshable reports whether the refresh token may be sent.
func (r *record) refreshable(now time.Time) bool {
	return !r.refresh.IsZero() && !r.sent && !r.noID && (r.refreshEnds.IsZero() || r.refreshEnds.After(now))
}

func (s *session) recordName() string { return recordPrefix + s.key.String() }

// load reads the record. Errors are those of the Store. mu is held.
func (s *session) load(ctx context.Context, in *signIn) (*record, error) {
	v, err := in.d.Store.Get(ctx, s.recordName())
	switch {
	case errors.Is(err, cred.ErrNotFound):
		return &record{}, nil
	case err != nil:
		return nil, err
	}
	r := decode(v)
	if r == nil {
		in.log().WithField("record", s.recordName()).Warn("a sign-in in the vault can't be read: somebody must sign in again")
		return &record{}, nil
	}
	return r, nil
}

// see is load, where a record that could not be written yet goes first. mu is
// held.
func (s *session) see(ctx context.Context, in *signIn) (*record, error) {
	r, err := s.load(ctx, in) // also then: while the vault is locked nothing is used
	if err != nil || s.unsaved == nil {
		return r, err
	}
	r = s.unsaved
	if err := s.save(ctx, in, r); err != nil {
		return nil, err
	}
	s.unsaved = nil
	return r, nil
}

// save writes the record. mu is held.
func (s *session) save(ctx context.Context, in *signIn, r *record) error {
	v, err := r.encode()
	if err != nil {
		return err
	}
	return in.d.Store.Put(context.WithoutCancel(ctx), s.recordName(), v)
}

// keep is save of what must not be lost. mu is held.
func (s *session) keep(ctx context.Context, in *signIn, r *record) error {
	s.unsaved = nil
	err := s.save(ctx, in, r)
	if err != nil {
		s.unsaved = r
	}
	return err
}
