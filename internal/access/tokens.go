package access

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"sync"
	"time"
)

// ErrBadToken means that a token opens nothing: it is malformed, of another
// endpoint, user, generation or key, revoked or expired. Which of these is
// not told.
var ErrBadToken = errors.New("the token is not valid")

// MaxTokenTTL is the longest life of a token, as in EC2's IMDSv2.
const MaxTokenTTL = 21600 * time.Second

// The form of a token: version (1 byte), expiry (6 bytes, milliseconds since
// 1970), nonce (11 bytes), and the first 24 bytes of HMAC-SHA256 over these
// and the Binding; 42 bytes, which are 56 characters of base64 without
// padding, as long as EC2's.
const (
	tokenVersion = 1
	expiryEnd    = 1 + 6
	headEnd      = expiryEnd + 11
	tokenSize    = headEnd + 24
	tokenLen     = 56
)

var tokenEncoding = base64.RawURLEncoding.Strict()

// Tokens mints and verifies the session tokens of IMDSv2. They are
// stateless: nothing is kept of a token but what stands in it.
type Tokens struct {
	also *Tokens   // whose tokens are good too; nil for none
	macs sync.Pool // of hash.Hash keyed with the key, so that it is expanded once
}

// Binding is what a token is good for. A token is refused where any of these
// is another.
type Binding struct {
	Endpoint   string // the listener
	UID        string // the caller's user, "" for an unidentified one
	Generation uint64 // of the endpoint's profile: a logout raises it
}

// NewTokens returns Tokens with this key. Tokens of another key are refused.
func NewTokens(key [32]byte) *Tokens {
	t := &Tokens{}
	t.macs.New = func() any { return hmac.New(sha256.New, key[:]) }
	return t
}

// Accepting makes the tokens of old good as well, until they end: those that
// were made while this key could not be read. It is called before t is used.
func (t *Tokens) Accepting(old *Tokens) *Tokens {
	t.also = old
	return t
}

// Mint returns a new token, 56 characters. A ttl under a second counts as
// one, and one over MaxTokenTTL as that: who must answer 400 to such a ttl
// checks it before.
func (t *Tokens) Mint(now time.Time, ttl time.Duration, b Binding) string {
	ttl = min(max(ttl, time.Second), MaxTokenTTL)
	var raw [tokenSize]byte
	raw[0] = tokenVersion
	putUint48(raw[1:], uint64(now.Add(ttl).UnixMilli()))
	rand.Read(raw[expiryEnd:headEnd]) // never fails (crypto/rand)
	sum := t.sum(raw[:headEnd], b)
	copy(raw[headEnd:], sum[:])
	return tokenEncoding.EncodeToString(raw[:])
}

// Verify returns when the token expires, or ErrBadToken. Its time does not
// depend on how much of a wrong token is right.
func (t *Tokens) Verify(token string, now time.Time, b Binding) (time.Time, error) {
	expires, err := t.verify(token, now, b)
	if err != nil && t.also != nil {
		return t.also.verify(token, now, b)
	}
	return expires, err
}

func (t *Tokens) verify(token string, now time.Time, b Binding) (time.Time, error) {
	if len(token) != tokenLen {
		return time.Time{}, ErrBadToken
	}
	var text [tokenLen]byte
	copy(text[:], token)
	var raw [tokenSize]byte
	// The decoder skips line feeds: fewer bytes than tokenSize then.
	if n, err := tokenEncoding.Decode(raw[:], text[:]); err != nil || n != tokenSize {
		return time.Time{}, ErrBadToken
	}
	sum := t.sum(raw[:headEnd], b)
	if !hmac.Equal(sum[:tokenSize-headEnd], raw[headEnd:]) || raw[0] != tokenVersion {
		return time.Time{}, ErrBadToken
	}
	expires := time.UnixMilli(int64(uint48(raw[1:])))
	if !now.Before(expires) {
		return time.Time{}, ErrBadToken
	}
	return expires, nil
}

// sum is the HMAC over the token's head and what it is bound to, each string
// with its length, so that no two bindings read alike.
func (t *Tokens) sum(head []byte, b Binding) [sha256.Size]byte {
	buf := make([]byte, 0, 192)
	buf = append(buf, "keyfob endpoint token\x00"...)
	buf = append(buf, head...)
	buf = binary.BigEndian.AppendUint64(buf, b.Generation)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(b.Endpoint)))
	buf = append(buf, b.Endpoint...)
	buf = append(buf, b.UID...)
	mac := t.macs.Get().(hash.Hash)
	mac.Reset()
	mac.Write(buf)
	var sum [sha256.Size]byte
	mac.Sum(sum[:0])
	t.macs.Put(mac)
	return sum
}

func putUint48(b []byte, v uint64) {
	binary.BigEndian.PutUint16(b, uint16(v>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(v))
}

func uint48(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
}
