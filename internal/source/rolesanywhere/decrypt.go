package rolesanywhere

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/scrypt"

	"keyfob/internal/cred"
)

// Limits on what an encrypted key may ask for: a fetch must not be held up by
// a damaged file.
const (
	maxRounds = 10_000_000
	maxScrypt = 1 << 20 // N·r of scrypt: 128 MiB
)

// encryptedKey is RFC 5958's EncryptedPrivateKeyInfo.
type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

// What RFC 8018 §A has as parameters of PBES2 and PBKDF2, and RFC 7914 §7 of
// scrypt.
type (
	pbes2Params struct{ Derivation, Cipher pkix.AlgorithmIdentifier }

	pbkdf2Params struct {
		Salt   []byte
		Rounds int
		Length int                      `asn1:"optional"`
		Hash   pkix.AlgorithmIdentifier `asn1:"optional"`
	}

	scryptParams struct {
		Salt    []byte
		N, R, P int
		Length  int `asn1:"optional"`
	}
)

const (
	oidPBES2  = "1.2.840.113549.1.5.13"
	oidPBKDF2 = "1.2.840.113549.1.5.12"
	oidScrypt = "1.3.6.1.4.1.11591.4.11"
)

var keyHashes = map[string]func() hash.Hash{
	"":                    sha1.New, // the default
	"1.2.840.113549.2.7":  sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
}

type blockCipher struct {
	size int
	make func([]byte) (cipher.Block, error)
}

var keyCiphers = map[string]blockCipher{
	"2.16.840.1.101.3.4.1.2":  {16, aes.NewCipher},
	"2.16.840.1.101.3.4.1.22": {24, aes.NewCipher},
	"2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
	"1.2.840.113549.3.7":      {24, des.NewTripleDESCipher},
}

// encrypted reports whether der is an encrypted private key.
func encrypted(der []byte) bool {
	var k encryptedKey
	rest, err := asn1.Unmarshal(der, &k)
	return err == nil && len(rest) == 0 && len(k.Data) > 0
}

// decryptPKCS8 opens an encrypted PKCS #8 key (PBES2). errWrongPassphrase
// when the passphrase, or the data, is wrong.
func decryptPKCS8(der []byte, passphrase cred.Secret) ([]byte, error) {
	var k encryptedKey
	var scheme pbes2Params
	if rest, err := asn1.Unmarshal(der, &k); err != nil || len(rest) > 0 {
		return nil, errors.New("it is damaged")
	}
	if oid := k.Algorithm.Algorithm.String(); oid != oidPBES2 {
		return nil, fmt.Errorf("its scheme %s is not PBES2", oid)
	}
	if err := params(k.Algorithm, &scheme); err != nil {
		return nil, err
	}
	c, ok := keyCiphers[scheme.Cipher.Algorithm.String()]
	if !ok {
		return nil, fmt.Errorf("its cipher %s is unknown", scheme.Cipher.Algorithm)
	}
	key, err := derive(scheme.Derivation, passphrase, c.size)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := c.make(key)
	if err != nil {
		return nil, err
	}
	var iv []byte
	if err := params(scheme.Cipher, &iv); err != nil {
		return nil, err
	}
	size := block.BlockSize()
	if len(iv) != size || len(k.Data) == 0 || len(k.Data)%size != 0 {
		return nil, errors.New("it is damaged")
	}
	plain := make([]byte, len(k.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, k.Data)
	pad := int(plain[len(plain)-1])
	if pad == 0 || pad > size {
		return nil, errWrongPassphrase
	}
	for _, b := range plain[len(plain)-pad:] {
		if int(b) != pad {
			return nil, errWrongPassphrase
		}
	}
	return plain[:len(plain)-pad], nil
}

func derive(a pkix.AlgorithmIdentifier, passphrase cred.Secret, size int) ([]byte, error) {
	switch oid := a.Algorithm.String(); oid {
	case oidPBKDF2:
		var p pbkdf2Params
		if err := params(a, &p); err != nil {
			return nil, err
		}
		name := ""
		if len(p.Hash.Algorithm) > 0 {
			name = p.Hash.Algorithm.String()
		}
		h, ok := keyHashes[name]
		switch {
		case !ok:
			return nil, fmt.Errorf("its hash %s is unknown", name)
		case p.Rounds < 1 || p.Rounds > maxRounds:
			return nil, fmt.Errorf("it wants %d rounds of key derivation", p.Rounds)
		}
		return pbkdf2.Key(h, passphrase.Reveal(), p.Salt, p.Rounds, size)
	case oidScrypt:
		var p scryptParams
		if err := params(a, &p); err != nil {
			return nil, err
		}
		if p.N < 2 || p.R < 1 || p.P < 1 || p.P > 16 || p.N > maxScrypt || p.R > maxScrypt/p.N {
			return nil, errors.New("it wants too much memory for its key derivation")
		}
		b := passphrase.AppendReveal(nil)
		defer clear(b)
		return scrypt.Key(b, p.Salt, p.N, p.R, p.P, size)
	default:
		return nil, fmt.Errorf("its key derivation %s is unknown", oid)
	}
}

func params(a pkix.AlgorithmIdentifier, to any) error {
	if rest, err := asn1.Unmarshal(a.Parameters.FullBytes, to); err != nil || len(rest) > 0 {
		return errors.New("it is damaged")
	}
	return nil
}
