//go:build pkcs11

package rolesanywhere

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"strings"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"

	"keyfob/internal/cred"
)

const (
	tokensBuilt = true
	// defaultModule knows the modules that the system's packages have
	// installed. It is found by the dynamic linker.
	defaultModule = "p11-kit-proxy.so"
)

// openedToken is a token with a session, logged in where there is a PIN.
type openedToken struct {
	ctx *crypto11.Context
	uri *tokenURI
}

func openToken(module string, u *tokenURI, pin cred.Secret) (*openedToken, error) {
	cfg := &crypto11.Config{
		Path: module, Pin: pin.Reveal(), MaxSessions: 2,
		// An empty PIN is never tried: it would count as a wrong one.
		LoginNotSupported: pin.IsZero(),
	}
	switch { // crypto11 takes one of them
	case u.serial != "":
		cfg.TokenSerial = u.serial
	case u.token != "":
		cfg.TokenLabel = u.token
	default:
		cfg.SlotNumber = &u.slot
	}
	ctx, err := crypto11.Configure(cfg)
	if err != nil {
		return nil, err
	}
	return &openedToken{ctx: ctx, uri: u}, nil
}

func (t *openedToken) close() { _ = t.ctx.Close() }

var (
	errNoCertificate = errors.New("it has no such certificate")
	errNoKey         = errors.New("it has no such private key")
)

// named is id and label as crypto11 takes them: nil for what is not asked.
func (t *openedToken) named() (id, label []byte) {
	id = t.uri.id
	if t.uri.object != "" {
		label = []byte(t.uri.object)
	}
	return id, label
}

func (t *openedToken) certificate() (*x509.Certificate, error) {
	id, label := t.named()
	if id != nil || label != nil {
		c, err := t.ctx.FindCertificate(id, label, nil)
		if err == nil && c == nil {
			err = errNoCertificate
		}
		return c, err
	}
	pairs, err := t.ctx.FindAllPairedCertificates()
	switch {
	case err != nil:
		return nil, err
	case len(pairs) == 0:
		return nil, errNoCertificate
	case len(pairs) > 1:
		return nil, errors.New("it has more than one certificate with a key: name one with object or id")
	}
	return pairs[0].Leaf, nil
}

// sign looks for the key by id and label, then, because certificate and key
// often differ in their labels, for the one that belongs to public.
func (t *openedToken) sign(public crypto.PublicKey, digest []byte) ([]byte, error) {
	id, label := t.named()
	var key crypto.Signer
	if id != nil || label != nil {
		pairs, err := t.ctx.FindKeyPairs(id, label)
		if err != nil {
			return nil, err
		}
		key = belongs(pairs, public)
		if key == nil && len(pairs) > 0 {
			key = pairs[0] // another certificate's, as the signature will show
		}
	}
	if key == nil {
		pairs, err := t.ctx.FindAllKeyPairs()
		if err != nil {
			return nil, err
		}
		key = belongs(pairs, public)
	}
	if key == nil {
		return nil, errNoKey
	}
	return key.Sign(rand.Reader, digest, crypto.SHA256)
}

func belongs(pairs []crypto11.Signer, public crypto.PublicKey) crypto.Signer {
	for _, k := range pairs {
		if samePublic(k.Public(), public) {
			return k
		}
	}
	return nil
}

func isWrongPIN(err error) bool {
	var p pkcs11.Error
	return errors.As(err, &p) && (p == pkcs11.CKR_PIN_INCORRECT || p == pkcs11.CKR_PIN_INVALID || p == pkcs11.CKR_PIN_LEN_RANGE)
}

// tokenFailure says what a failure of a module means.
func tokenFailure(at location, u *tokenURI, module string, err error) error {
	var ours *settingsError
	var device *deviceError
	if errors.As(err, &ours) || errors.As(err, &device) {
		return err
	}
	text := printable(err.Error())
	e := &deviceError{msg: "cannot use " + at.setting + " " + at.String() + " (module " + module + "): " + text, err: err}
	var p pkcs11.Error
	code := pkcs11.Error(pkcs11.CKR_OK)
	if errors.As(err, &p) {
		code = p
	}
	switch {
	case errors.Is(err, errNoCertificate), errors.Is(err, errNoKey):
		e.msg = "cannot use " + at.setting + " " + at.String() + ": " + u.device() + ": " + text
		e.help = "check object and id (p11tool --list-all-certs URI); private keys are seen only with the PIN, which belongs into the vault"
	case code == pkcs11.CKR_PIN_LOCKED:
		e.msg, e.help = "cannot use "+at.setting+" "+at.String()+": the PIN of "+u.device()+" is locked", "unlock it with its own tools"
	case strings.Contains(text, "could not find PKCS#11 token"):
		e.msg = "cannot use " + at.setting + " " + at.String() + ": the module " + module + " sees no such token"
		e.help = "plug it in; p11tool --list-tokens shows what there is; module-path in the URI names another module"
	case strings.Contains(text, "failed to open module"):
		e.msg = "cannot use " + at.setting + " " + at.String() + ": the module " + module + " can't be loaded"
		e.help = "install it, or name another one with module-path in the URI"
	}
	return e
}
