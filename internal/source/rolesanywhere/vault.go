package rolesanywhere

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"keyfob/internal/cred"
)

// Records of the vault.
const (
	certificatePrefix = "certificate/"
	passphrasePrefix  = "certificate-passphrase/"
)

// CertificateRecord is the record of `vault:NAME`: certificates and a key in
// PEM form.
func CertificateRecord(name string) string { return certificatePrefix + name }

// PassphraseRecord is the record of the passphrase of an encrypted key or
// PKCS #12 file, of the password of a key in a TPM, or of the PIN of a token.
// where is the setting's value: the absolute path, vault:NAME, or the
// `pkcs11:` URI (what stands after its ? does not count).
func PassphraseRecord(where string) string {
	sum := sha256.Sum256([]byte(locationOf(where).String()))
	return passphrasePrefix + hex.EncodeToString(sum[:16])
}

// locationOf is the place that a setting's value names.
func locationOf(where string) location {
	switch {
	case len(where) > len(vaultPrefix) && where[:len(vaultPrefix)] == vaultPrefix:
		return location{kind: inVault, name: where[len(vaultPrefix):]}
	case len(where) > len(pkcs11Prefix) && where[:len(pkcs11Prefix)] == pkcs11Prefix:
		return location{kind: onToken, name: where}
	}
	return location{kind: inFile, name: where}
}

// PutCertificate keeps a certificate with its private key, and with its
// intermediates if it has some, in the vault as vault:name. pem is in PEM
// form, or a PKCS #12 file or an encrypted key, which passphrase opens; the
// record then needs none. Errors (Is cred.ErrConfig): what is no certificate
// with its own key; those of the Store.
func PutCertificate(ctx context.Context, store cred.Store, name string, pem, passphrase cred.Secret) error {
	at := location{kind: inVault, name: name, setting: "certificate"}
	if !legalRecord(name) {
		return &settingsError{msg: fmt.Sprintf("cannot name a certificate %q", name), help: "use letters, digits and _.@-, 100 at most"}
	}
	p := &parser{at: at, wantKey: true, passphrase: func() (cred.Secret, error) { return passphrase, nil }}
	b, err := p.parse(pem)
	switch {
	case err != nil:
		return err
	case len(b.certs) == 0:
		return at.unusable("it holds no certificate", b.hint)
	case b.signer == nil && b.tpm == nil:
		return at.unusable("it holds no private key", "put certificate and key into one PEM file")
	}
	public := b.tpm.publicKey()
	if b.signer != nil {
		public = b.signer.public()
	}
	for _, c := range b.certs {
		if samePublic(public, c.PublicKey) {
			record, err := b.encode()
			if err != nil {
				return err
			}
			return store.Put(ctx, CertificateRecord(name), record)
		}
	}
	return at.unusable("the private key belongs to none of its certificates", "put the certificate and its own key into one file")
}

// GetCertificate is the record of vault:name. Errors: those of the Store
// (cred.ErrNotFound, cred.ErrLocked).
func GetCertificate(ctx context.Context, store cred.Store, name string) (cred.Secret, error) {
	return store.Get(ctx, CertificateRecord(name))
}

// PutPassphrase keeps the passphrase, password or PIN of where, which is as
// for PassphraseRecord. Errors: those of the Store.
func PutPassphrase(ctx context.Context, store cred.Store, where string, passphrase cred.Secret) error {
	return store.Put(ctx, PassphraseRecord(where), passphrase)
}

// fromVault reads vault:NAME.
func (s *source) fromVault(ctx context.Context, at location) (cred.Secret, error) {
	if s.d.Store == nil {
		return cred.Secret{}, at.unusable("there is no vault", "")
	}
	text, err := GetCertificate(ctx, s.d.Store, at.name)
	if errors.Is(err, cred.ErrNotFound) {
		return text, &settingsError{msg: "cannot use " + at.setting + " " + at.String() + ": the vault has no certificate of that name", help: "put one into the vault, or name a file", err: err}
	}
	return text, err
}

// passphrase reads the passphrase of a place, empty where there is none.
func (s *source) passphrase(ctx context.Context, at location) (cred.Secret, error) {
	if s.d.Store == nil {
		return cred.Secret{}, nil
	}
	p, err := s.d.Store.Get(ctx, PassphraseRecord(at.String()))
	if errors.Is(err, cred.ErrNotFound) {
		return cred.Secret{}, nil
	}
	return p, err
}
