package keystore

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"keyfob/internal/cred"
)

// A recovery key is 20 random bytes and 5 bytes of their SHA-256, which tell
// a slip of the pen from a wrong key, in base32 (RFC 4648): eight groups of
// five characters.
const (
	recoveryRandom = 20
	recoveryCheck  = 5
	wrapRecovery   = "recovery"
)

// RecoveryKey makes a recovery key, a second way to the master key beside
// the keyring or the passphrase, and returns it for a person to write down:
// it is stored nowhere. A former one ends. passphrase is as for Unlock: the
// master key is fetched anew, since an open vault does not keep it.
// Errors: those of Unlock.
func (v *Vault) RecoveryKey(ctx context.Context, passphrase cred.Secret) (cred.Secret, error) {
	ctx, done, err := v.task(ctx)
	if err != nil {
		return cred.Secret{}, err
	}
	defer done()
	h, err := v.currentHeader()
	if err != nil {
		return cred.Secret{}, err
	}
	if !h.keyed() {
		return cred.Secret{}, cred.WithHint(errors.New("cannot make a recovery key: the vault has no key yet"), "keyfob unlock")
	}
	master, err := v.master(ctx, h, passphrase)
	if err != nil {
		return cred.Secret{}, err
	}
	defer clear(master)
	raw := make([]byte, recoveryRandom)
	defer clear(raw)
	_, _ = rand.Read(raw) // never fails
	wrapped, err := wrapKey(recoveryWrapKey(raw, v.id), master, wrapRecovery, v.id, nil)
	if err != nil {
		return cred.Secret{}, err
	}
	if err := v.changeHeader(ctx, func(h *header) { h.Recovery = wrapped }); err != nil {
		return cred.Secret{}, err
	}
	return recoveryText(raw), nil
}

// UnlockRecovery unlocks with a recovery key. With backend "passphrase" a
// passphrase that is not empty becomes the vault's; with a keyring that
// answers and has lost the key, the keyring is given it back. Errors:
// ErrWrongRecoveryKey, and as Unlock for what fails after it.
func (v *Vault) UnlockRecovery(ctx context.Context, recovery, passphrase cred.Secret) error {
	ctx, done, err := v.task(ctx)
	if err != nil {
		return err
	}
	defer done()
	v.mu.Lock()
	locks := v.locks
	v.mu.Unlock()
	h, err := v.currentHeader()
	if err != nil {
		return err
	}
	raw, ok := parseRecovery(recovery)
	defer clear(raw)
	if !ok {
		return fmt.Errorf("cannot unlock the vault %s: %w: it is mistyped", v.dir, ErrWrongRecoveryKey)
	}
	if h.Recovery == nil {
		return fmt.Errorf("cannot unlock the vault %s: %w: the vault has none", v.dir, ErrWrongRecoveryKey)
	}
	master, ok := unwrapKey(recoveryWrapKey(raw, v.id), h.Recovery, wrapRecovery, v.id)
	if !ok || subtle.ConstantTimeCompare(checkValue16(master, v.id), h.Check) != 1 {
		return fmt.Errorf("cannot unlock the vault %s: %w", v.dir, ErrWrongRecoveryKey)
	}
	defer clear(master)
	if h.Backend == BackendPassphrase {
		if !passphrase.IsZero() {
			wrapped, err := v.wrapWithPassphrase(ctx, passphrase, master)
			if err != nil {
				return err
			}
			if err := v.changeHeader(ctx, func(h *header) { h.Passphrase = wrapped }); err != nil {
				return err
			}
		}
	} else if err := v.giveBack(ctx, h, master); err != nil {
		v.log.WithError(err).Warn("the vault was unlocked with its recovery key, and the keyring was not given the key back")
	}
	u, err := newUnlocked(master, v.id)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return ErrClosed
	}
	if v.locks != locks {
		return fmt.Errorf("cannot unlock the vault: %w again meanwhile", cred.ErrLocked)
	}
	v.unlocked.Store(u)
	v.lastErr = nil
	return nil
}

// giveBack stores the master key in a keyring that says that it has none.
func (v *Vault) giveBack(ctx context.Context, h *header, master []byte) error {
	kept, _, err := v.keyringGet(ctx, h.Backend, h.Collection)
	defer clear(kept)
	if !errors.Is(err, ErrKeyMissing) {
		return err
	}
	collection, err := v.keyringSet(ctx, h.Backend, master)
	if err != nil {
		return err
	}
	if kept, _, err = v.keyringGet(ctx, h.Backend, collection); err != nil {
		return err
	}
	defer clear(kept)
	if !bytes.Equal(kept, master) {
		return ErrWrongKey
	}
	return v.changeHeader(ctx, func(h *header) { h.Collection = collection })
}

// task begins a call that may run the helper: Close ends it and waits for
// it.
func (v *Vault) task(ctx context.Context) (context.Context, func(), error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, nil, ErrClosed
	}
	v.wg.Add(1)
	ctx, cancel := context.WithTimeoutCause(ctx, v.helper.timeout, ErrTimeout)
	undo := context.AfterFunc(v.base, cancel)
	return ctx, func() { undo(); cancel(); v.wg.Done() }, nil
}

// changeHeader changes the header as it is now.
func (v *Vault) changeHeader(ctx context.Context, change func(*header)) error {
	unlock, err := v.lockAlone(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	h, err := v.currentHeader()
	if err != nil {
		return err
	}
	change(h)
	return v.saveHeader(h)
}

// recoveryWrapKey is the key that a recovery key wraps with. Its 160 random
// bits need no slow hash.
func recoveryWrapKey(raw []byte, id vaultID) []byte {
	return derive(raw, id, "recovery", chacha20poly1305.KeySize)
}

var recoveryEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

func recoveryText(raw []byte) cred.Secret {
	sum := sha256.Sum256(raw)
	text := recoveryEncoding.EncodeToString(append(bytes.Clone(raw), sum[:recoveryCheck]...))
	var groups []string
	for ; len(text) > 5; text = text[5:] {
		groups = append(groups, text[:5])
	}
	return cred.NewSecret(strings.Join(append(groups, text), "-"))
}

// parseRecovery reads a recovery key as people type it: in either case, with
// spaces or dashes anywhere, 0 and 1 and 8 for the letters that they look
// like, which base32 does not have.
func parseRecovery(s cred.Secret) ([]byte, bool) {
	text := strings.Map(func(r rune) rune {
		switch r {
		case '-', ' ', '\t', '\r', '\n':
			return -1
		case '0':
			return 'O'
		case '1':
			return 'I'
		case '8':
			return 'B'
		}
		return r
	}, strings.ToUpper(s.Reveal()))
	// The decoder would drop what is typed past the last whole byte.
	if len(text) != recoveryEncoding.EncodedLen(recoveryRandom+recoveryCheck) {
		return nil, false
	}
	b, err := recoveryEncoding.DecodeString(text)
	if err != nil || len(b) != recoveryRandom+recoveryCheck {
		return nil, false
	}
	sum := sha256.Sum256(b[:recoveryRandom])
	return b[:recoveryRandom], subtle.ConstantTimeCompare(sum[:recoveryCheck], b[recoveryRandom:]) == 1
}
