package login

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyfob/internal/cred"
)

// session is what a sign-in gave: credentials, and what new ones are got with.
type session struct {
	arn      string // who is signed in: login_session
	clientID string
	key      *ecdsa.PrivateKey
	refresh  cred.Secret
	access   cred.Credentials // Expires is by AWS's clock; no access key id for none
}

// mark tells a refresh token from others without showing it.
func mark(refresh cred.Secret) string {
	sum := sha256.Sum256(refresh.AppendReveal(nil))
	return hex.EncodeToString(sum[:])
}

// recordName is where the vault has the session of an ARN.
func recordName(arn string) string {
	sum := sha256.Sum256([]byte(arn))
	return "login/" + hex.EncodeToString(sum[:])
}

const (
	recordVersion = 1
	// maxEnded is how many refused refresh tokens are remembered: that of
	// the vault's session, that of the CLI's, and those before.
	maxEnded = 4
)

// record is the vault's form of a session.
type record struct {
	Version int            `json:"version"`
	ARN     string         `json:"login_session"`
	Session *sessionRecord `json:"session,omitempty"`
	// Ended marks refresh tokens that AWS has refused, also those of the
	// CLI's cache: they are not sent again.
	Ended []string `json:"ended,omitempty"`
}

type sessionRecord struct {
	ClientID        string    `json:"client_id"`
	Key             string    `json:"dpop_key"`
	RefreshToken    string    `json:"refresh_token"`
	AccessKeyID     string    `json:"access_key_id"`
	SecretAccessKey string    `json:"secret_access_key"`
	SessionToken    string    `json:"session_token"`
	Expires         time.Time `json:"expires"`
}

// load reads the vault's record of arn. The session is nil where there is
// none. With a *damagedError the record is an empty one to write in its place.
func load(ctx context.Context, store cred.Store, arn string) (*record, *session, error) {
	r := &record{Version: recordVersion, ARN: arn}
	v, err := store.Get(ctx, recordName(arn))
	switch {
	case errors.Is(err, cred.ErrNotFound):
		return r, nil, nil
	case err != nil:
		return nil, nil, err
	}
	var x record
	switch err := json.Unmarshal(v.AppendReveal(nil), &x); {
	case err != nil || x.Version < 1:
		return r, nil, &damagedError{"the vault's record of it is damaged"}
	case x.Version > recordVersion: // it must not be overwritten
		return nil, nil, fmt.Errorf("the vault's record has version %d, made by a newer keyfob", x.Version)
	case x.ARN != arn:
		return r, nil, &damagedError{"the vault's record of it is another session's"}
	case x.Session == nil:
		return &x, nil, nil
	}
	key, err := parseKey(x.Session.Key)
	if err != nil || x.Session.RefreshToken == "" || x.Session.ClientID == "" {
		return &x, nil, &damagedError{"the vault's record of it is damaged"}
	}
	s := &session{arn: arn, clientID: x.Session.ClientID, key: key, refresh: cred.NewSecret(x.Session.RefreshToken)}
	s.access = cred.Credentials{
		AccessKeyID:     x.Session.AccessKeyID,
		SecretAccessKey: cred.NewSecret(x.Session.SecretAccessKey),
		SessionToken:    cred.NewSecret(x.Session.SessionToken),
		Expires:         x.Session.Expires,
		AccountID:       accountOf(arn),
	}
	return &x, s, nil
}

// damagedError is a record that can't be used, in one clause.
type damagedError struct{ why string }

func (e *damagedError) Error() string { return e.why }

// put makes s the record's session.
func (r *record) put(s *session) error {
	key, err := encodeKey(s.key)
	if err != nil {
		return err
	}
	r.Session = &sessionRecord{
		ClientID: s.clientID, Key: key, RefreshToken: s.refresh.Reveal(),
		AccessKeyID: s.access.AccessKeyID, SecretAccessKey: s.access.SecretAccessKey.Reveal(), SessionToken: s.access.SessionToken.Reveal(),
		Expires: s.access.Expires,
	}
	return nil
}

func (r *record) ended(refresh cred.Secret) bool { return slices.Contains(r.Ended, mark(refresh)) }

func (r *record) end(refresh cred.Secret) {
	if m := mark(refresh); !slices.Contains(r.Ended, m) {
		r.Ended = append(r.Ended, m)
	}
	if n := len(r.Ended); n > maxEnded {
		r.Ended = r.Ended[n-maxEnded:]
	}
}

// save writes the record; ctx may be over, because what an answer held must
// not be lost.
func (r *record) save(ctx context.Context, store cred.Store) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return store.Put(ctx, recordName(r.ARN), cred.SecretBytes(b))
}

// accountOf is the account in an ARN, "" where it has none.
func accountOf(arn string) string {
	p := strings.SplitN(arn, ":", 6)
	if len(p) != 6 || p[0] != "arn" || len(p[4]) != 12 || strings.Trim(p[4], "0123456789") != "" {
		return ""
	}
	return p[4]
}

// subject is the sub of an ID token: the ARN of who signed in. The token came
// from AWS's own token endpoint over TLS, which vouches for it (OpenID
// Connect Core §3.1.3.7, rule 6). The error shows nothing of it.
func subject(idToken string) (string, error) {
	parts := strings.Split(idToken, ".")
	if len(parts) != 3 {
		return "", errors.New("AWS's answer does not say who signed in")
	}
	payload, err := b64url.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return "", errors.New("AWS's answer does not say in a readable form who signed in")
	}
	var claims struct {
		Sub string `json:"sub"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || accountOf(claims.Sub) == "" || len(claims.Sub) > 2048 {
		return "", errors.New("AWS's answer does not name who signed in by an ARN")
	}
	for _, c := range claims.Sub {
		if c < '!' || c > '~' { // it becomes a line of a file
			return "", errors.New("AWS's answer names who signed in by an ARN with odd characters")
		}
	}
	return claims.Sub, nil
}
