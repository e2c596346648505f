package rolesanywhere

import (
	"context"
	"crypto"
	"crypto/x509"

	"keyfob/internal/cred"
)

// tokenSigner signs on a PKCS #11 token. It opens the token for each
// signature: they are half an hour apart, and a session that is kept would
// keep other programs from a token that has one alone.
type tokenSigner struct {
	s    *source
	at   location
	leaf crypto.PublicKey // of the certificate: finds its key where the URI leaves a choice
}

func (s *source) tokenSigner(at location) signer { return &tokenSigner{s: s, at: at} }

// public is nil: what the token has is known when it is open. The signature
// is checked instead.
func (t *tokenSigner) public() crypto.PublicKey { return nil }

// pin is the PIN of a token: from the URI, from its pin-source, or from the
// vault; empty where there is none.
func (s *source) pin(ctx context.Context, at location, u *tokenURI) (cred.Secret, error) {
	switch {
	case !u.pin.IsZero():
		return u.pin, nil
	case u.pinSource == "":
		return s.passphrase(ctx, at)
	}
	from := locationOf(u.pinSource)
	from.setting = "pin-source of " + at.setting
	if from.kind == inVault {
		return s.passphrase(ctx, from)
	}
	l := &loader{s: s}
	text, err := l.file(from)
	if err != nil {
		return text, err
	}
	b := text.AppendReveal(nil)
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	pin := cred.SecretBytes(b)
	clear(b)
	return pin, nil
}

// tokenCertificate reads a certificate from its token.
func (l *loader) tokenCertificate(ctx context.Context, at location) (*x509.Certificate, error) {
	var cert *x509.Certificate
	err := l.s.withToken(ctx, at, func(t token) (err error) {
		cert, err = t.certificate()
		return err
	})
	if err != nil {
		return nil, err
	}
	return cert, nil
}

func (t *tokenSigner) sign(ctx context.Context, digest []byte) ([]byte, error) {
	var signature []byte
	err := t.s.withToken(ctx, t.at, func(k token) (err error) {
		signature, err = k.sign(t.leaf, digest)
		return err
	})
	if err != nil {
		return nil, err
	}
	return signature, nil
}

// token is an open token.
type token interface {
	certificate() (*x509.Certificate, error)
	// sign signs a SHA-256 digest with the key of the URI; where that leaves
	// a choice, with the one that belongs to public.
	sign(public crypto.PublicKey, digest []byte) ([]byte, error)
}

// withToken calls fn with the token of a URI.
func (s *source) withToken(ctx context.Context, at location, fn func(token) error) error {
	u, err := parseURI(at.name)
	if err != nil {
		return at.unusable(err.Error(), "")
	}
	if !tokensBuilt {
		return &settingsError{msg: "cannot use " + at.setting + " " + at.String() + ": this keyfobd was built without PKCS #11",
			help: "build it with cgo and the tag pkcs11 (go build -tags pkcs11 ./cmd/keyfobd), or use a certificate file, with its key in a file, in the vault or in the TPM"}
	}
	pin, err := s.pin(ctx, at, u)
	if err != nil {
		return err
	}
	module := u.modulePath
	if module == "" {
		module = s.d.PKCS11Module
	}
	if module == "" {
		module = defaultModule
	}
	d := s.d.Devices
	// One at a time for the module: the library counts who has it open.
	return d.use(ctx, "the PKCS #11 module "+module, func() error {
		if !pin.IsZero() && !d.mayTry(u.device(), pin) {
			return wrongPIN(at, u, errPIN)
		}
		t, err := openToken(module, u, pin)
		if err != nil {
			if isWrongPIN(err) {
				d.note(u.device(), pin)
				return wrongPIN(at, u, err)
			}
			return tokenFailure(at, u, module, err)
		}
		defer t.close()
		if err := fn(t); err != nil {
			return tokenFailure(at, u, module, err)
		}
		return nil
	})
}

func wrongPIN(at location, u *tokenURI, err error) error {
	return &settingsError{msg: "cannot use " + at.setting + " " + at.String() + ": " + u.device() + " does not take the PIN",
		help: "put the right one into the vault; it is not tried again until it changes, or keyfobd starts anew, because a few wrong ones lock a token", err: err}
}
