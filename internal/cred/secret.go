package cred

import (
	"crypto/subtle"
	"errors"
	"fmt"
)

// Redacted is what every printer of a Secret writes.
const Redacted = "[redacted]"

// Secret is a value that must not be seen: a secret access key, a session
// token, a passphrase, an MFA code. However it is printed (fmt, JSON, text,
// a log field) it says [redacted]. The zero value is empty.
//
// A Secret is immutable: no method changes it and none hands out its bytes
// to be written to.
type Secret struct{ b []byte }

// NewSecret returns a Secret holding s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{b: []byte(s)}
}

// SecretBytes returns a Secret holding a copy of b.
func SecretBytes(b []byte) Secret { return NewSecret(string(b)) }

// Reveal returns the secret itself. Its name is chosen to be found by grep:
// every call is a place where a secret leaves its type.
func (s Secret) Reveal() string { return string(s.b) }

// AppendReveal appends the secret itself to dst, for writers of wire forms
// that must not copy it once more.
func (s Secret) AppendReveal(dst []byte) []byte { return append(dst, s.b...) }

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return len(s.b) == 0 }

// Len is the length in bytes.
func (s Secret) Len() int { return len(s.b) }

// Equal compares in constant time.
func (s Secret) Equal(t Secret) bool { return subtle.ConstantTimeCompare(s.b, t.b) == 1 }

// String returns [redacted], or nothing for an empty secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return Redacted
}

// GoString is String: %#v must not see more than %v.
func (s Secret) GoString() string { return s.String() }

// Format makes every verb of fmt print [redacted].
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText returns [redacted].
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON returns "[redacted]": a form that is meant to hold the secret
// is written by code that calls Reveal.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// UnmarshalJSON refuses, so that a redacted form is never taken for a secret.
func (s *Secret) UnmarshalJSON([]byte) error {
	return errors.New("a secret is not read from JSON")
}
