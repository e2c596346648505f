package sso

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"keyfob/internal/cred"
)

const (
	tokenPrefix   = "sso/token/"
	clientPrefix  = "sso/client/"
	recordVersion = 1
)

// tokens are a sign-in: what the token endpoint gave, and to which client.
type tokens struct {
	access        cred.Secret
	obtained      time.Time // zero where it is not known
	expires       time.Time // of access, by our clock
	refresh       cred.Secret
	clientID      string
	clientSecret  cred.Secret
	clientExpires time.Time // by AWS's clock
}

// Margins before an end.
const (
	// renewBefore is what a client registration and an access token have
	// left when new ones are got, as for the AWS command line.
	renewBefore = 15 * time.Minute
	// usableFor is what an access token must have left to be used at all.
	usableFor = 5 * time.Second
)

// stale reports whether a new access token is due: 15 minutes before the
// end, or in the second half of a short life.
func (t *tokens) stale(now time.Time) bool {
	early := renewBefore
	if life := t.expires.Sub(t.obtained); !t.obtained.IsZero() && life > 0 {
		early = min(early, life/2)
	}
	return t.expires.Sub(now) < early
}

// record is what the vault holds of a sign-in. spent and refused are hashes
// of tokens: refresh tokens that were sent, and whatever AWS refused. They
// are kept for the tokens of the AWS command line's cache, too.
type record struct {
	tokens
	spent   []string
	refused []string
	// ended is when AWS was seen to refuse the access token before its end.
	ended time.Time
}

// hashesKept bounds spent and refused: older ones are of tokens that are
// nowhere any more.
const hashesKept = 16

func hashOf(token cred.Secret) string {
	sum := sha256.Sum256(append([]byte("keyfob sso token v1\x00"), token.AppendReveal(nil)...))
	return hex.EncodeToString(sum[:])
}

func addHash(list []string, token cred.Secret) []string {
	h := hashOf(token)
	if slices.Contains(list, h) {
		return list
	}
	list = append(slices.Clone(list), h)
	return list[max(0, len(list)-hashesKept):]
}

func dropHash(list []string, token cred.Secret) []string {
	h := hashOf(token)
	return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return x == h })
}

// usable reports whether t's access token can be tried.
func (r *record) usable(t *tokens, now time.Time) bool {
	return !t.access.IsZero() && t.expires.Sub(now) >= usableFor && !slices.Contains(r.refused, hashOf(t.access))
}

// refreshable reports whether t's refresh token can be sent. aws is AWS's
// clock.
func (r *record) refreshable(t *tokens, aws time.Time) bool {
	return !t.refresh.IsZero() && t.clientID != "" && !t.clientSecret.IsZero() && t.clientExpires.After(aws) &&
		!slices.Contains(r.spent, hashOf(t.refresh))
}

// The wire form of a record. Its secrets leave their type here alone.
type wireRecord struct {
	Version       int       `json:"version"`
	AccessToken   string    `json:"access_token,omitempty"`
	Obtained      time.Time `json:"obtained"`
	Expires       time.Time `json:"expires"`
	RefreshToken  string    `json:"refresh_token,omitempty"`
	ClientID      string    `json:"client_id,omitempty"`
	ClientSecret  string    `json:"client_secret,omitempty"`
	ClientExpires time.Time `json:"client_expires"`
	Spent         []string  `json:"spent,omitempty"`
	Refused       []string  `json:"refused,omitempty"`
	Ended         time.Time `json:"ended,omitzero"`
}

func (r *record) encode() (cred.Secret, error) {
	b, err := json.Marshal(wireRecord{recordVersion, r.access.Reveal(), r.obtained.UTC(), r.expires.UTC(), r.refresh.Reveal(),
		r.clientID, r.clientSecret.Reveal(), r.clientExpires.UTC(), r.spent, r.refused, r.ended.UTC()})
	if err != nil {
		return cred.Secret{}, fmt.Errorf("cannot write the record of a sign-in: %w", err)
	}
	return cred.SecretBytes(b), nil
}

func decodeRecord(v cred.Secret) (*record, error) {
	var w wireRecord
	if err := json.Unmarshal(v.AppendReveal(nil), &w); err != nil {
		return nil, errors.New("it is not in the form of such a record") // the cause may quote it
	}
	if w.Version != recordVersion {
		return nil, fmt.Errorf("it has version %d, and this keyfob knows %d", w.Version, recordVersion)
	}
	return &record{tokens{cred.NewSecret(w.AccessToken), w.Obtained, w.Expires, cred.NewSecret(w.RefreshToken),
		w.ClientID, cred.NewSecret(w.ClientSecret), w.ClientExpires}, w.Spent, w.Refused, w.Ended}, nil
}

func (s *session) recordName() string { return tokenPrefix + s.key.String() }

// load returns the vault's record, an empty one where there is none.
func (s *session) load(ctx context.Context, in *signIn) (*record, error) {
	v, err := in.d.Store.Get(ctx, s.recordName())
	if errors.Is(err, cred.ErrNotFound) {
		return &record{}, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := decodeRecord(v)
	if err != nil {
		in.log().WithError(err).Warn("the record of a sign-in is not used")
		return &record{}, nil
	}
	return r, nil
}

func (s *session) save(ctx context.Context, in *signIn, r *record) error {
	v, err := r.encode()
	if err != nil {
		return err
	}
	return in.d.Store.Put(ctx, s.recordName(), v)
}

// client is a registration.
type client struct {
	id      string
	secret  cred.Secret
	expires time.Time // by AWS's clock
}

type wireClient struct {
	Version int       `json:"version"`
	ID      string    `json:"client_id"`
	Secret  string    `json:"client_secret"`
	Expires time.Time `json:"expires"`
}

func (c *client) encode() (cred.Secret, error) {
	b, err := json.Marshal(wireClient{recordVersion, c.id, c.secret.Reveal(), c.expires.UTC()})
	if err != nil {
		return cred.Secret{}, fmt.Errorf("cannot write the record of a client registration: %w", err)
	}
	return cred.SecretBytes(b), nil
}

// decodeClient returns nil for what is no registration.
func decodeClient(v cred.Secret) *client {
	var w wireClient
	if json.Unmarshal(v.AppendReveal(nil), &w) != nil || w.Version != recordVersion || w.ID == "" || w.Secret == "" {
		return nil
	}
	return &client{w.ID, cred.NewSecret(w.Secret), w.Expires}
}
