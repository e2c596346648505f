package rolesanywhere

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"strings"

	"software.sslmate.com/src/go-pkcs12"

	"keyfob/internal/cred"
)

// bundle is what a file or a record of the vault holds.
type bundle struct {
	certs    []*x509.Certificate
	signer   signer  // a key in software, nil for none
	tpm      *tpmKey // a key of a TPM, nil for none
	plainKey bool    // the key can be read by whoever can read the file
	hint     string  // what to do about something that is not what was looked for
}

// parser reads one bundle.
type parser struct {
	at         location
	wantKey    bool
	passphrase func() (cred.Secret, error) // empty where there is none
	b          bundle
}

// parse goes by what the file is, not by its name.
func (p *parser) parse(text cred.Secret) (*bundle, error) {
	raw := []byte(text.Reveal())
	defer clear(raw)
	var err error
	switch {
	case bytes.Contains(raw, []byte("-----BEGIN ")):
		err = p.readPEM(raw)
	case len(bytes.TrimSpace(raw)) == 0:
		err = p.at.unusable("it is empty", "")
	default:
		err = p.readDER(raw)
	}
	if err != nil {
		return nil, err
	}
	return &p.b, nil
}

func (p *parser) readPEM(raw []byte) error {
	for rest := raw; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if bytes.Contains(rest, []byte("-----BEGIN ")) {
				return p.at.unusable("a part of it is damaged PEM", "replace the file: a line is missing or changed")
			}
			return nil
		}
		if err := p.readBlock(block); err != nil {
			return err
		}
		clear(block.Bytes)
	}
}

func (p *parser) readBlock(block *pem.Block) error {
	switch block.Type {
	case "CERTIFICATE":
		return p.certificate(block.Bytes)
	case "EC PARAMETERS": // stands before keys that openssl ecparam made
	case "TSS2 PRIVATE KEY":
		if !p.wantKey {
			return nil
		}
		key, err := readTPMKey(block.Bytes)
		if err != nil {
			return p.at.unusable("the key of a TPM in it can't be read: "+printable(err.Error()), "")
		}
		if err := p.oneKey(); err != nil {
			return err
		}
		p.b.tpm = key
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		if !p.wantKey {
			return nil
		}
		return p.key(block)
	case "TRUSTED CERTIFICATE":
		p.b.hint = "it is in a form of OpenSSL's own: convert it with openssl x509 -in FILE -out NEW"
	case "PKCS7", "CMS":
		p.b.hint = "it is PKCS #7: convert it with openssl pkcs7 -print_certs -in FILE -out NEW"
	case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
		p.b.hint = "it is a request for a certificate: name what the authority has answered"
	case "OPENSSH PRIVATE KEY":
		p.b.hint = "it is a key in OpenSSH's form: convert it with ssh-keygen -p -m PKCS8 -f FILE"
	}
	return nil
}

func (p *parser) certificate(der []byte) error {
	c, err := x509.ParseCertificate(bytes.Clone(der)) // which keeps what it is given
	if err != nil {
		return p.at.unusable("a certificate in it can't be read: "+printable(strings.TrimPrefix(err.Error(), "x509: ")), "")
	}
	p.b.certs = append(p.b.certs, c)
	return nil
}

func (p *parser) oneKey() error {
	if p.b.signer != nil || p.b.tpm != nil {
		return p.at.unusable("it holds more than one private key", "name the certificate's own with "+settingKey)
	}
	return nil
}

// key reads a private key. Texts of errors are ours: those of parsers might
// quote a part of it.
func (p *parser) key(block *pem.Block) error {
	der, typ := block.Bytes, block.Type
	plain := true
	switch {
	case typ == "ENCRYPTED PRIVATE KEY":
		plain = false
		pass, err := p.needed()
		if err != nil {
			return err
		}
		if der, err = decryptPKCS8(der, pass); err != nil {
			return p.undecipherable(err)
		}
		typ = "PRIVATE KEY"
	case x509.IsEncryptedPEMBlock(block): //lint:ignore SA1019 old keys must still be read; they are not written
		plain = false
		pass, err := p.needed()
		if err != nil {
			return err
		}
		b := pass.AppendReveal(nil)
		der, err = x509.DecryptPEMBlock(block, b) //lint:ignore SA1019 as above
		clear(b)
		if err != nil {
			return p.undecipherable(errWrongPassphrase)
		}
	}
	if !plain {
		defer clear(der)
	}
	var key any
	var err error
	switch typ {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	default:
		key, err = x509.ParsePKCS8PrivateKey(der)
	}
	if err != nil {
		if !plain { // legacy PEM has no check of its own
			return p.undecipherable(errWrongPassphrase)
		}
		return p.at.unusable("the private key in it can't be read", "it is damaged, or of a kind that is not RSA or EC")
	}
	p.b.plainKey = p.b.plainKey || plain
	return p.keep(key)
}

func (p *parser) keep(key any) error {
	s, ok := key.(crypto.Signer)
	if !ok {
		return p.at.unusable("its private key can't sign", "Roles Anywhere takes RSA and EC keys")
	}
	if err := p.oneKey(); err != nil {
		return err
	}
	p.b.signer = software{s}
	return nil
}

// needed is the passphrase, or an error that says how to give one.
func (p *parser) needed() (cred.Secret, error) {
	pass, err := p.passphrase()
	if err != nil {
		return pass, err
	}
	if pass.IsZero() {
		return pass, p.at.unusable("its private key is encrypted, and the vault has no passphrase for it",
			"put the passphrase into the vault, or take it off: openssl pkey -in FILE -out NEW")
	}
	return pass, nil
}

var errWrongPassphrase = errors.New("the passphrase is wrong")

func (p *parser) undecipherable(err error) error {
	if errors.Is(err, errWrongPassphrase) {
		return p.at.unusable("the passphrase of the vault does not open its private key", "put the right one into the vault")
	}
	return p.at.unusable("its private key is encrypted in a way that keyfob can't read: "+printable(err.Error()),
		"encrypt it anew: openssl pkcs8 -topk8 -v2 aes-256-cbc -in FILE -out NEW")
}

// readDER reads a certificate, a key or a PKCS #12 file that is no PEM.
func (p *parser) readDER(raw []byte) error {
	var outer asn1.RawValue
	if rest, err := asn1.Unmarshal(raw, &outer); err != nil || len(rest) > 0 || outer.Tag != asn1.TagSequence || !outer.IsCompound {
		return p.at.unusable("it is neither PEM nor DER nor PKCS #12", "")
	}
	if certs, err := x509.ParseCertificates(bytes.Clone(raw)); err == nil {
		p.b.certs = certs
		return nil
	}
	var version int
	if rest, err := asn1.Unmarshal(outer.Bytes, &version); err == nil && version == 3 && len(rest) > 0 {
		return p.readPKCS12(raw)
	}
	if !p.wantKey {
		return nil
	}
	for _, typ := range []string{"PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"} {
		if err := p.key(&pem.Block{Type: typ, Bytes: raw}); err == nil || p.b.signer != nil {
			return err
		}
	}
	if encrypted(raw) {
		return p.key(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: raw})
	}
	return nil
}

// readPKCS12 tries without a passphrase first: then the vault may stay
// locked.
func (p *parser) readPKCS12(raw []byte) error {
	raw = bytes.Clone(raw) // certificates may keep it
	key, leaf, more, err := pkcs12.DecodeChain(raw, "")
	p.b.plainKey = err == nil && p.wantKey
	if errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption) {
		pass, perr := p.passphrase()
		if perr != nil {
			return perr
		}
		if pass.IsZero() {
			return p.at.unusable("it is PKCS #12 with a passphrase, and the vault has none for it", "put the passphrase into the vault")
		}
		key, leaf, more, err = pkcs12.DecodeChain(raw, pass.Reveal())
		if errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption) {
			return p.at.unusable("the passphrase of the vault does not open it", "put the right one into the vault")
		}
	}
	if err != nil {
		return p.at.unusable("it can't be read as PKCS #12: "+printable(strings.TrimPrefix(err.Error(), "pkcs12: ")), "it must hold one certificate with its private key")
	}
	p.b.certs = append([]*x509.Certificate{leaf}, more...)
	if !p.wantKey {
		return nil
	}
	return p.keep(key)
}

// encode is the bundle in PEM form with a key that is not encrypted, to be
// sealed in the vault.
func (b *bundle) encode() (cred.Secret, error) {
	var out bytes.Buffer
	for _, c := range b.certs {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	block := &pem.Block{Type: "TSS2 PRIVATE KEY"}
	if b.tpm != nil {
		block.Bytes = b.tpm.der
	} else {
		key := b.signer.(software).key
		switch key.(type) {
		case *rsa.PrivateKey, *ecdsa.PrivateKey:
		default:
			return cred.Secret{}, &settingsError{msg: "cannot keep the certificate: Roles Anywhere takes RSA and EC keys"}
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return cred.Secret{}, &settingsError{msg: "cannot keep the certificate: its private key can't be written"}
		}
		block.Type, block.Bytes = "PRIVATE KEY", der
	}
	_ = pem.Encode(&out, block)
	s := cred.SecretBytes(out.Bytes())
	clear(out.Bytes())
	return s, nil
}
