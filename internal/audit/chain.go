package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"hash"
	"strings"
)

// unkeyedMark stands before a hash that anybody can compute.
const unkeyedMark = "sha256:"

// hasher computes the field previous with one key.
type hasher struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

func newHasher(key [32]byte) *hasher { return &hasher{mac: hmac.New(sha256.New, key[:])} }

// keyed is the hash of a line under the key. The line before the first one
// is nil.
func (h *hasher) keyed(line []byte) string {
	h.mac.Reset()
	h.mac.Write(line)
	return hex.EncodeToString(h.mac.Sum(h.sum[:0]))
}

// unkeyed is the hash of a line while there is no key.
func unkeyed(line []byte) string {
	sum := sha256.Sum256(line)
	return unkeyedMark + hex.EncodeToString(sum[:])
}

// links reports whether a line whose field previous this is follows line,
// and whether the key says so.
func (h *hasher) links(previous string, line []byte) (ok, sealed bool) {
	if strings.HasPrefix(previous, unkeyedMark) {
		return same(previous, unkeyed(line)), false
	}
	return same(previous, h.keyed(line)), true
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
