package rolesanywhere

import (
	"context"
	"crypto"
	"errors"
	"io/fs"
	"strings"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"

	"keyfob/internal/cred"
)

// tpmKey is a key file of a TPM 2.0: "TSS2 PRIVATE KEY"
// (https://www.hansenpartnership.com/draft-bottomley-tpm2-keys.html). What is
// in it only its own TPM can use.
type tpmKey struct {
	der  []byte
	key  *keyfile.TPMKey
	pub  crypto.PublicKey
	auth bool // it has a password
}

func (k *tpmKey) publicKey() crypto.PublicKey {
	if k == nil {
		return nil
	}
	return k.pub
}

func readTPMKey(der []byte) (k *tpmKey, err error) {
	defer func() {
		if v := recover(); v != nil { // the library does, for a public part that is damaged
			k, err = nil, errors.New("it is damaged")
		}
	}()
	key, err := keyfile.Parse(der)
	if err != nil {
		return nil, err
	}
	if !key.Keytype.Equal(keyfile.OIDLoadableKey) && !key.Keytype.Equal(keyfile.OIDImportableKey) {
		return nil, errors.New("it is no key that can be loaded")
	}
	pub, err := key.PublicKey()
	if err != nil {
		return nil, errors.New("its public part is damaged")
	}
	if !key.HasSigner() {
		return nil, errors.New("it is not a key for signing")
	}
	return &tpmKey{der: append([]byte(nil), der...), key: key, pub: pub, auth: key.HasAuth()}, nil
}

// tpmSigner signs on the TPM.
type tpmSigner struct {
	s   *source
	at  location // the key file
	key *tpmKey
}

func (t *tpmSigner) public() crypto.PublicKey { return t.key.pub }

func (t *tpmSigner) sign(ctx context.Context, digest []byte) ([]byte, error) {
	device := t.s.d.TPM
	what := "the TPM key " + t.at.String()
	var pass cred.Secret
	if t.key.auth {
		var err error
		if pass, err = t.s.passphrase(ctx, t.at); err != nil {
			return nil, err
		}
		if pass.IsZero() {
			return nil, t.at.unusable("the key has a password in the TPM, and the vault has none for it", "put the password into the vault")
		}
	}
	var signature []byte
	err := t.s.d.Devices.use(ctx, "the TPM "+device, func() (err error) {
		if !t.s.d.Devices.mayTry(what, pass) {
			return t.wrongPassword(errPIN)
		}
		tpm, err := openTPM(ctx, device)
		if err != nil {
			return t.failed(ctx, device, what, pass, err)
		}
		defer tpm.Close() //nolint:errcheck // the kernel frees what is in it
		session := keyfile.NewTPMSession(tpm)
		auth := pass.AppendReveal(nil)
		defer clear(auth)
		if signature, err = keyfile.SignASN1(session, t.key.key, nil, auth, digest, tpm2.TPMAlgSHA256, t.key.key.KeyAlgo()); err != nil {
			return t.failed(ctx, device, what, pass, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return signature, nil
}

func (t *tpmSigner) wrongPassword(err error) error {
	return &settingsError{msg: "cannot sign with " + t.at.String() + ": the TPM does not take the password of the vault", help: "put the right one into the vault; it is not tried again until it changes, or keyfobd starts anew", err: err}
}

// failed says what a TPM's failure means. The library keeps most of the
// TPM's codes as text alone.
func (t *tpmSigner) failed(ctx context.Context, device, what string, pass cred.Secret, err error) error {
	text := err.Error()
	has := func(codes ...string) bool {
		for _, c := range codes {
			if strings.Contains(text, c) {
				return true
			}
		}
		return false
	}
	e := &deviceError{msg: "cannot sign with " + t.at.String() + " on the TPM " + device + ": " + printable(text), err: err}
	switch {
	case ctx.Err() != nil, has("i/o timeout"):
		e.msg = "cannot use the TPM " + device + ": it did not answer in time"
	case errors.Is(err, fs.ErrNotExist):
		e.msg, e.help = "cannot use the TPM "+device+": there is none", "switch it on in the firmware, or give the right device in the settings"
	case errors.Is(err, fs.ErrPermission):
		e.msg, e.help = "cannot use the TPM "+device+": keyfobd's user may not", "on Linux: add the user to the group tss (usermod -aG tss USER) and sign in again"
	case has("TPM_RC_LOCKOUT"):
		e.msg, e.help = "cannot use the TPM "+device+": it is locked out after wrong passwords", "wait, or reset it: tpm2_dictionarylockout --clear-lockout"
	case has("creating primary key") && has("TPM_RC_AUTH_FAIL", "TPM_RC_BAD_AUTH"):
		e.msg, e.help = "cannot sign with "+t.at.String()+": the owner hierarchy of the TPM has a password", "make the key below a persistent parent (0x81…), which needs none"
	case has("TPM_RC_AUTH_FAIL", "TPM_RC_BAD_AUTH"):
		if !pass.IsZero() {
			t.s.d.Devices.note(what, pass)
		}
		return t.wrongPassword(err)
	case has("TPM_RC_INTEGRITY"):
		return &settingsError{msg: "cannot sign with " + t.at.String() + ": the key is not of this TPM", help: "it was made by another TPM, or this one was cleared since: make a new key and certificate", err: err}
	}
	return e
}
