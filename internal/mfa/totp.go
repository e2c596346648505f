package mfa

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // TOTP is defined over SHA-1 (RFC 6238)
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"keyfob/internal/cred"
)

const (
	stepSeconds = 30
	step        = stepSeconds * time.Second
	digits      = 6
	// minSeed in bytes: shorter ones are cut or mistyped. AWS's have 40.
	minSeed = 10
	maxSeed = 1024
)

// stepOf is the number of the step that a time is in (RFC 6238 §4.2).
func stepOf(t time.Time) int64 {
	n := t.Unix()
	if n < 0 {
		return 0
	}
	return n / stepSeconds
}

// stepTime is when a step begins.
func stepTime(n int64) time.Time { return time.Unix(n*stepSeconds, 0) }

// codeOf is the code of a step (RFC 4226 §5.3).
func codeOf(key []byte, n int64) string {
	m := hmac.New(sha1.New, key)
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	_, _ = m.Write(b[:])
	sum := m.Sum(nil)
	o := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%0*d", digits, binary.BigEndian.Uint32(sum[o:])&0x7fffffff%1_000_000)
}

// parseSeed reads a seed as AWS and apps show it: base32, in groups or not,
// or the otpauth:// URL of a QR code
// (https://github.com/google/google-authenticator/wiki/Key-Uri-Format). The
// error holds nothing of it.
func parseSeed(seed cred.Secret) ([]byte, error) {
	text := strings.TrimSpace(seed.Reveal())
	if len(text) >= 8 && strings.EqualFold(text[:8], "otpauth:") {
		var err error
		if text, err = fromURL(text); err != nil {
			return nil, err
		}
	}
	text = strings.Map(func(r rune) rune {
		switch {
		case r == ' ', r == '-', r == '\t', r == '\r', r == '\n':
			return -1
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		}
		return r
	}, text)
	text = strings.TrimRight(text, "=")
	if text == "" {
		return nil, errors.New("it is empty")
	}
	if len(text) == digits && strings.Trim(text, "0123456789") == "" {
		return nil, errors.New("that is a code, and the seed is wanted: the long text beside the QR code")
	}
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(text)
	switch {
	case err != nil:
		return nil, errors.New("it is not base32 (A to Z and 2 to 7)")
	case len(key) < minSeed:
		return nil, fmt.Errorf("it is too short: %d bytes, and AWS's have 40", len(key))
	case len(key) > maxSeed:
		return nil, errors.New("it is too long")
	}
	return key, nil
}

// fromURL is the secret of an otpauth:// URL whose codes are of AWS's kind.
func fromURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", errors.New("it is no otpauth:// URL that can be read")
	}
	q, err := url.ParseQuery(u.RawQuery)
	switch {
	case err != nil:
		return "", errors.New("it is no otpauth:// URL that can be read")
	case !strings.EqualFold(u.Host, "totp"):
		return "", errors.New("its URL is not of time-based codes (otpauth://totp/…)")
	case q.Get("secret") == "":
		return "", errors.New("its URL holds no secret")
	}
	for name, want := range map[string]string{"algorithm": "SHA1", "digits": "6", "period": "30"} {
		if got := q.Get(name); got != "" && !strings.EqualFold(got, want) && !(name == "algorithm" && strings.EqualFold(got, "HmacSHA1")) {
			return "", fmt.Errorf("its URL wants another %s than %s, and AWS's devices have no other", name, want)
		}
	}
	return q.Get("secret"), nil
}
