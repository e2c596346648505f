package login

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/url"
	"strings"
	"testing"
	"time"
)

// paddedKey is a key one of whose coordinates begins with a zero byte: one
// in 128 does.
func paddedKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	for {
		key, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		if p, err := key.PublicKey.Bytes(); err == nil && (p[1] == 0 || p[33] == 0) {
			return key
		}
	}
}

func TestProofIsPadded(t *testing.T) {
	u, _ := url.Parse("https://eu-west-1.signin.aws.amazon.com/v1/token?x=1")
	p, err := proof(paddedKey(t), u, time.Unix(1700000000, 5e8))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(p, ".")
	var header struct {
		Typ, Alg string
		JWK      map[string]string
	}
	var claims map[string]any
	for i, to := range []any{&header, &claims} {
		b, err := b64url.DecodeString(parts[i])
		if err != nil || json.Unmarshal(b, to) != nil {
			t.Fatal(parts[i])
		}
	}
	if len(header.JWK["x"]) != 43 || len(header.JWK["y"]) != 43 || header.JWK["d"] != "" || len(header.JWK) != 4 {
		t.Errorf("%+v", header)
	}
	if header.Typ != "dpop+jwt" || header.Alg != "ES256" || claims["htu"] != "https://eu-west-1.signin.aws.amazon.com/v1/token" || claims["iat"] != 1700000000.0 || claims["htm"] != "POST" {
		t.Errorf("%+v %+v", header, claims)
	}
	if sig, err := b64url.DecodeString(parts[2]); err != nil || len(sig) != 64 {
		t.Errorf("a signature of %d bytes", len(sig))
	}
}

// The fake refuses coordinates that are not 32 bytes long.
func TestKeysThatNeedPaddingRefresh(t *testing.T) {
	w := newWorld(t)
	w.cliLogin(paddedKey(t), time.Minute)
	w.mustFetch(w.source(alice), nil)
	if w.calls() != 1 || w.ask.kinds() != "" {
		t.Errorf("%d calls, asked %q", w.calls(), w.ask.kinds())
	}
}

func TestParseKey(t *testing.T) {
	key, _ := newKey()
	text, err := encodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p8, _ := x509.MarshalPKCS8PrivateKey(key)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	der, _ := x509.MarshalECPrivateKey(p384)
	for name, good := range map[string]string{"sec1": text, "crlf": strings.ReplaceAll(text, "\n", "\r\n"), "pkcs8": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p8}))} {
		if k, err := parseKey(good); err != nil || !k.Equal(key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]string{
		"empty": "", "none": "CANARY", "half": text[:len(text)/2], "no PEM end": strings.TrimSuffix(text, "-----END EC PRIVATE KEY-----\n"),
		"garbage": "-----BEGIN EC PRIVATE KEY-----\nQ0FOQVJZ\n-----END EC PRIVATE KEY-----\n", "empty block": "-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----\n",
		"P-384": string(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})),
	} {
		if _, err := parseKey(bad); err == nil || strings.Contains(err.Error(), "CANARY") || strings.Contains(err.Error(), "Q0FO") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	key, _ := newKey()
	text, _ := encodeKey(key)
	f.Add(text)
	f.Add("-----BEGIN EC PRIVATE KEY-----\nQ0FOQVJZ\n-----END EC PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := parseKey(s); err == nil {
			if _, err := proof(k, &url.URL{Scheme: "https", Host: "x"}, time.Now()); err != nil {
				t.Error(err)
			}
		}
	})
}
