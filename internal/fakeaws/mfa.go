package fakeaws

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // TOTP is defined over SHA-1 (RFC 6238)
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

const totpStep = 30 // seconds, RFC 6238

// NewSeed makes a TOTP seed in base32, of the length of AWS's (64
// characters).
func NewSeed() string { return base32.StdEncoding.EncodeToString(random(40)) }

func decodeSeed(seed string) ([]byte, error) {
	seed = strings.ToUpper(strings.ReplaceAll(seed, " ", ""))
	b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.TrimRight(seed, "="))
	if err != nil || len(b) == 0 {
		return nil, errors.New("not base32")
	}
	return b, nil
}

// Code is the six digit TOTP code (RFC 6238, SHA-1, 30 s) of a base32 seed
// at a time.
func Code(seed string, at time.Time) (string, error) {
	key, err := decodeSeed(seed)
	if err != nil {
		return "", err
	}
	return codeOf(key, at.Unix()/totpStep), nil
}

func codeOf(key []byte, step int64) string {
	m := hmac.New(sha1.New, key)
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(step))
	m.Write(b[:])
	sum := m.Sum(nil)
	o := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[o:])&0x7fffffff%1_000_000)
}

// device is a virtual MFA device of a user.
type device struct {
	serial  string
	seed    []byte
	enabled time.Time
	used    map[int64]bool // steps whose code was accepted
}

// accept takes a code of the current step or one of its neighbours, each
// step once.
func (d *device) accept(code string, now time.Time) bool {
	at := now.Unix() / totpStep
	for step := at - 1; step <= at+1; step++ {
		if !d.used[step] && codeOf(d.seed, step) == code {
			d.used[step] = true
			return true
		}
	}
	return false
}

// next is a code that accept will take, "" when the three at hand are used.
func (d *device) next(now time.Time) string {
	at := now.Unix() / totpStep
	for _, step := range []int64{at, at + 1, at - 1} {
		if !d.used[step] {
			return codeOf(d.seed, step)
		}
	}
	return ""
}

// MFACode returns a code that the device will accept now: the current one,
// or, since a code is accepted only once, a neighbour's. It is "" for an
// unknown device and when all three codes of the moment are used up.
func (s *Server) MFACode(serial string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.users {
		for _, d := range u.devices {
			if d.serial == serial {
				return d.next(s.nowLocked())
			}
		}
	}
	return ""
}
