package login

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/url"
	"time"

	smithyrand "github.com/aws/smithy-go/rand"
)

// pemType is how the CLI's cache has the key: SEC 1 in PEM (RFC 5915).
const pemType = "EC PRIVATE KEY"

var b64url = base64.RawURLEncoding

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func encodeKey(key *ecdsa.PrivateKey) (string, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})), nil
}

// parseKey reads a key of encodeKey's form, or one in PKCS #8. The error never
// shows what text holds.
func parseKey(text string) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("it is no key in PEM form")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		other, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("its PEM holds no EC private key")
		}
		k, ok := other.(*ecdsa.PrivateKey)
		if !ok {
			return nil, errors.New("it is not an EC key")
		}
		key = k
	}
	if key.Curve != elliptic.P256() {
		return nil, errors.New("it is not a P-256 key")
	}
	return key, nil
}

// half is the length of a coordinate and of each number of a signature of
// P-256 in JOSE: leading zeros stay (RFC 7518 §6.2.1.2 and §3.4).
const half = 32

// proof makes the DPoP header of one POST to u (RFC 9449 §4.2).
func proof(key *ecdsa.PrivateKey, u *url.URL, at time.Time) (string, error) {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return "", err
	}
	type jwk struct {
		Kty string `json:"kty"`
		Crv string `json:"crv"`
		X   string `json:"x"`
		Y   string `json:"y"`
	}
	header, err := json.Marshal(struct {
		Typ string `json:"typ"`
		Alg string `json:"alg"`
		JWK jwk    `json:"jwk"`
	}{"dpop+jwt", "ES256", jwk{"EC", "P-256", b64url.EncodeToString(point[1 : 1+half]), b64url.EncodeToString(point[1+half:])}})
	if err != nil {
		return "", err
	}
	id, err := newUUID()
	if err != nil {
		return "", err
	}
	target := *u
	target.RawQuery, target.Fragment = "", ""
	claims, err := json.Marshal(struct {
		HTM string `json:"htm"`
		HTU string `json:"htu"`
		IAT int64  `json:"iat"`
		JTI string `json:"jti"`
	}{"POST", target.String(), at.Unix(), id})
	if err != nil {
		return "", err
	}
	signed := b64url.EncodeToString(header) + "." + b64url.EncodeToString(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return "", err
	}
	var sig [2 * half]byte
	r.FillBytes(sig[:half])
	s.FillBytes(sig[half:])
	return signed + "." + b64url.EncodeToString(sig[:]), nil
}

func newUUID() (string, error) { return smithyrand.NewUUID(rand.Reader).GetUUID() }
