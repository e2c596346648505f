package fakeaws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// The little of JOSE that is needed: compact JWS (RFC 7515) with RS256 and
// ES256 (RFC 7518), public keys as JWK (RFC 7517).

var b64 = base64.RawURLEncoding.Strict()

// opaque makes a random token of n bytes in base64url.
func opaque(n int) string { return b64.EncodeToString(random(n)) }

type jwk struct {
	Kty string `json:"kty"`
	Use string `json:"use,omitempty"`
	Alg string `json:"alg,omitempty"`
	Kid string `json:"kid,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
	Crv string `json:"crv,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
	D   string `json:"d,omitempty"` // only to refuse private keys
}

// jwkSet is a JSON Web Key Set.
type jwkSet struct {
	Keys []jwk `json:"keys"`
}

func rsaJWK(k *rsa.PublicKey, kid string) jwk {
	return jwk{Kty: "RSA", Use: "sig", Alg: "RS256", Kid: kid, N: b64.EncodeToString(k.N.Bytes()), E: b64.EncodeToString(big.NewInt(int64(k.E)).Bytes())}
}

func (k jwk) public() (crypto.PublicKey, error) {
	switch {
	case k.D != "":
		return nil, errors.New("a private key")
	case k.Kty == "RSA":
		n, err1 := b64.DecodeString(k.N)
		e, err2 := b64.DecodeString(k.E)
		if err := errors.Join(err1, err2); err != nil || len(n) < 128 || len(e) == 0 || len(e) > 4 {
			return nil, errors.New("no RSA key")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
	case k.Kty == "EC" && k.Crv == "P-256":
		x, err1 := b64.DecodeString(k.X)
		y, err2 := b64.DecodeString(k.Y)
		if err := errors.Join(err1, err2); err != nil || len(x) != 32 || len(y) != 32 {
			return nil, errors.New("x and y must be 32 bytes each")
		}
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	}
	return nil, fmt.Errorf("no key of kind %q is known here", k.Kty)
}

// thumbprint tells keys apart (RFC 7638 in spirit: the required members).
func (k jwk) thumbprint() string {
	return k.Kty + "|" + k.Crv + "|" + k.X + "|" + k.Y + "|" + k.N + "|" + k.E
}

type jwsHeader struct {
	Typ string `json:"typ,omitempty"`
	Alg string `json:"alg"`
	Kid string `json:"kid,omitempty"`
	JWK *jwk   `json:"jwk,omitempty"`
}

// jws is a token taken apart, not yet verified.
type jws struct {
	header  jwsHeader
	payload []byte
	signed  string // header and payload as they were signed
	value   []byte // the signature
}

func parseJWS(token string) (*jws, error) {
	p := strings.Split(token, ".")
	if len(p) != 3 {
		return nil, errors.New("not three parts")
	}
	h, err1 := b64.DecodeString(p[0])
	payload, err2 := b64.DecodeString(p[1])
	value, err3 := b64.DecodeString(p[2])
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	x := &jws{payload: payload, signed: p[0] + "." + p[1], value: value}
	return x, json.Unmarshal(h, &x.header)
}

func (x *jws) verify(key crypto.PublicKey) error {
	sum := sha256.Sum256([]byte(x.signed))
	switch k := key.(type) {
	case *rsa.PublicKey:
		if x.header.Alg != "RS256" {
			return fmt.Errorf("algorithm %q with an RSA key", x.header.Alg)
		}
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], x.value)
	case *ecdsa.PublicKey:
		if x.header.Alg != "ES256" || len(x.value) != 64 {
			return fmt.Errorf("algorithm %q and a signature of %d bytes with an EC key", x.header.Alg, len(x.value))
		}
		if !ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(x.value[:32]), new(big.Int).SetBytes(x.value[32:])) {
			return errors.New("wrong signature")
		}
		return nil
	}
	return errors.New("no key")
}

// signJWT signs claims with RS256.
func signJWT(key *rsa.PrivateKey, kid string, claims any) string {
	h, _ := json.Marshal(jwsHeader{Typ: "JWT", Alg: "RS256", Kid: kid})
	c, err := json.Marshal(claims)
	if err != nil {
		panic(err) // the claims are ours
	}
	signed := b64.EncodeToString(h) + "." + b64.EncodeToString(c)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return signed + "." + b64.EncodeToString(sig)
}

// s256 is the PKCE challenge of a verifier (RFC 7636 §4.2).
func s256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return b64.EncodeToString(sum[:])
}

func newRSAKey() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // only for sizes that are not allowed
	}
	return k
}
