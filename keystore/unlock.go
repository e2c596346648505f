package keystore

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"keyfob/internal/cred"
	"keyfob/keystore/internal/wire"
)

// flight is one unlocking; any number of callers wait for it.
type flight struct {
	pass cred.Secret   // that it tries; only a caller with the same one joins
	done chan struct{} // closed when err is set
	err  error
}

// Unlock makes the records readable: it has the helper fetch the master key
// from the keyring, or derive it from the passphrase (the one given, else
// that of Config.PassphraseFile, else Config.Passphrase). The first Unlock
// of a new vault makes the master key. Concurrent calls share one run of the
// helper. The whole takes at most Config.Timeout, and ctx bounds only how
// long this caller waits. Nothing is half set after a failure.
//
// Errors, by errors.Is: ErrNoKeyring, ErrKeyringLocked, ErrDismissed,
// ErrTimeout, ErrKeyMissing, ErrWrongKey, ErrPassphraseNeeded,
// ErrWrongPassphrase, ErrNewerVersion, ErrCorrupt, ErrBackend, ErrHelper,
// ErrReplaced, ErrClosed; cred.ErrLocked when Lock was called meanwhile; the
// context's.
func (v *Vault) Unlock(ctx context.Context, passphrase cred.Secret) error {
	return v.fly(ctx, passphrase, func(ctx context.Context) (*unlocked, string, error) {
		return v.open(ctx, passphrase)
	})
}

// fly joins the unlocking under way that tries the same passphrase, or
// starts one.
func (v *Vault) fly(ctx context.Context, pass cred.Secret, open func(context.Context) (*unlocked, string, error)) error {
	for {
		v.mu.Lock()
		if v.closed {
			v.mu.Unlock()
			return ErrClosed
		}
		if v.unlocked.Load() != nil {
			v.mu.Unlock()
			return nil
		}
		if v.backend != BackendPassphrase {
			pass = cred.Secret{} // a keyring takes none: all callers want the same
		}
		f := v.flight
		mine := f == nil
		if mine {
			f = &flight{pass: pass, done: make(chan struct{})}
			v.flight = f
			v.wg.Add(1)
			go v.run(f, v.locks, open)
		}
		v.mu.Unlock()
		select {
		case <-f.done:
			if mine || f.pass.Equal(pass) {
				return f.err
			}
		case <-ctx.Done():
			return fmt.Errorf("cannot wait for the vault to be unlocked: %w", ctx.Err())
		}
	}
}

func (v *Vault) run(f *flight, locks int, open func(context.Context) (*unlocked, string, error)) {
	defer v.wg.Done()
	ctx, cancel := context.WithTimeoutCause(v.base, v.helper.timeout, ErrTimeout)
	defer cancel()
	u, backend, err := open(ctx)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.closed:
		err = ErrClosed
	case err == nil && v.locks != locks:
		err = fmt.Errorf("cannot unlock the vault: %w again meanwhile", cred.ErrLocked)
	case err == nil:
		v.unlocked.Store(u)
	}
	if backend != "" {
		v.backend = backend
	}
	f.err, v.lastErr, v.flight = err, err, nil
	close(f.done)
}

// open gets the master key and makes the records' key of it.
func (v *Vault) open(ctx context.Context, pass cred.Secret) (*unlocked, string, error) {
	h, err := v.currentHeader()
	if err != nil {
		return nil, "", err
	}
	var master []byte
	if !h.keyed() {
		if h, master, err = v.makeKey(ctx, pass); err != nil {
			return nil, "", err
		}
	}
	if master == nil {
		if master, err = v.master(ctx, h, pass); err != nil {
			return nil, h.Backend, err
		}
	}
	defer clear(master)
	u, err := newUnlocked(master, v.id)
	return u, h.Backend, err
}

func newUnlocked(master []byte, id vaultID) (*unlocked, error) {
	key := derive(master, id, "records", chacha20poly1305.KeySize)
	defer clear(key)
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	return &unlocked{aead: aead}, nil
}

// currentHeader reads the header and makes sure that the directory still
// holds the vault that was opened: writing into another one would destroy
// its records. Errors: ErrReplaced, those of readHeader.
func (v *Vault) currentHeader() (*header, error) {
	h, err := readHeader(v.dir)
	if err != nil {
		return nil, err
	}
	if h.id() != v.id {
		return nil, cred.WithHint(fmt.Errorf("cannot use the vault %s: %w", v.dir, ErrReplaced), "restart keyfobd")
	}
	return h, nil
}

// master returns the master key of a vault that has one, checked.
func (v *Vault) master(ctx context.Context, h *header, pass cred.Secret) ([]byte, error) {
	backend, err := resolveBackend(v.setting, h.Backend, v.dir)
	if err != nil {
		return nil, err
	}
	var master []byte
	if backend == BackendPassphrase {
		secret, err := v.passphrase(pass)
		if err != nil {
			return nil, err
		}
		key, err := v.deriveKey(ctx, secret, h.Passphrase.KDF)
		if err != nil {
			return nil, v.explain(err, backend, true)
		}
		defer clear(key)
		var ok bool
		if master, ok = unwrapKey(key, h.Passphrase, BackendPassphrase, v.id); !ok {
			return nil, cred.WithHint(fmt.Errorf("cannot unlock the vault %s: %w", v.dir, ErrWrongPassphrase), "keyfob unlock")
		}
	} else {
		master, _, err = v.keyringGet(ctx, backend, h.Collection)
		if err != nil {
			return nil, v.explain(err, backend, true)
		}
	}
	if subtle.ConstantTimeCompare(checkValue16(master, v.id), h.Check) != 1 {
		clear(master)
		return nil, cred.WithHint(fmt.Errorf("cannot unlock the vault %s: %w", v.dir, ErrWrongKey),
			"restore the keyring, or move the directory away and add the keys again")
	}
	return master, nil
}

// makeKey makes the master key of a new vault, gives it to the backend's
// care and writes the header that says so. It never does so where a record
// is. If another process was faster, it returns that one's header and no key.
func (v *Vault) makeKey(ctx context.Context, pass cred.Secret) (h *header, master []byte, err error) {
	backend, err := resolveBackend(v.setting, "", v.dir)
	if err != nil {
		return nil, nil, err
	}
	unlock, err := v.lockAlone(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make the vault's key: %w", timeoutCause(ctx, err))
	}
	defer unlock()
	h, err = v.currentHeader()
	if err != nil || h.keyed() {
		return h, nil, err
	}
	records, corrupt, err := recordFiles(v.dir)
	if err != nil {
		return nil, nil, err
	}
	if n := len(records) + len(corrupt); n > 0 {
		return nil, nil, cred.WithHint(fmt.Errorf("cannot make a key for the vault %s: %w: %s knows of no key and %d records are there", v.dir, ErrCorrupt, headerFile, n),
			"restore "+headerFile+" from a backup, or move the directory away")
	}
	h.Backend = backend
	if backend == BackendPassphrase {
		master, err = v.makeWrapped(ctx, h, pass)
	} else {
		master, err = v.makeItem(ctx, h)
	}
	if err != nil {
		return nil, nil, err
	}
	h.Check = checkValue16(master, v.id)
	if err := v.saveHeader(h); err != nil {
		clear(master)
		return nil, nil, err
	}
	return h, master, nil
}

// makeWrapped makes a master key that the passphrase wraps.
func (v *Vault) makeWrapped(ctx context.Context, h *header, pass cred.Secret) ([]byte, error) {
	secret, err := v.passphrase(pass)
	if err != nil {
		return nil, err
	}
	master := newMaster()
	if h.Passphrase, err = v.wrapWithPassphrase(ctx, secret, master); err != nil {
		return nil, err
	}
	return master, nil
}

// makeItem makes a master key and has the keyring keep it.
func (v *Vault) makeItem(ctx context.Context, h *header) ([]byte, error) {
	// A process that was killed between the keyring and the header has
	// left an item of this vault: that is the key then.
	master, collection, err := v.keyringGet(ctx, h.Backend, "")
	if errors.Is(err, ErrKeyMissing) {
		master = newMaster()
		collection, err = v.keyringSet(ctx, h.Backend, master)
	}
	if err != nil {
		return nil, v.explain(err, h.Backend, false)
	}
	h.Collection = collection
	// Only what the keyring gives back is a key to seal records with.
	kept, _, err := v.keyringGet(ctx, h.Backend, collection)
	if err != nil {
		return nil, v.explain(err, h.Backend, false)
	}
	defer clear(kept)
	if !bytes.Equal(kept, master) {
		return nil, fmt.Errorf("cannot make the vault's key: %w: %s did not keep it", ErrWrongKey, h.Backend)
	}
	return master, nil
}

func (v *Vault) wrapWithPassphrase(ctx context.Context, secret cred.Secret, master []byte) (*wrap, error) {
	// The second recommended option of RFC 9106 section 4, for machines
	// where 2 GiB for a helper is too much: 3 passes over 64 MiB.
	kdf := &wire.KDF{Time: 3, Memory: 64 << 10, Threads: 4, Salt: make([]byte, 16)}
	_, _ = rand.Read(kdf.Salt) // never fails
	key, err := v.deriveKey(ctx, secret, kdf)
	if err != nil {
		return nil, v.explain(err, BackendPassphrase, false)
	}
	defer clear(key)
	return wrapKey(key, master, BackendPassphrase, v.id, kdf)
}

func (v *Vault) saveHeader(h *header) error {
	if err := writeHeader(v.dir, h); err != nil {
		return fmt.Errorf("cannot write the vault's header: %w", err)
	}
	return nil
}

func newMaster() []byte {
	b := make([]byte, masterSize)
	_, _ = rand.Read(b) // never fails
	return b
}

// passphrase chooses the passphrase: the given one, the file's, the
// setting's. Errors: ErrPassphraseNeeded, those of the file system.
func (v *Vault) passphrase(given cred.Secret) (cred.Secret, error) {
	if !given.IsZero() {
		return given, nil
	}
	if v.file != "" {
		b, err := readFile(v.file, 16<<10)
		if err != nil {
			return cred.Secret{}, fmt.Errorf("cannot read the passphrase file: %w", err)
		}
		defer clear(b)
		if info, err := os.Stat(v.file); err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o004 != 0 {
			// A warning only: secrets of container runtimes come so.
			v.log.WithField("file", v.file).Warn("every user of this machine can read the passphrase file")
		}
		line := bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
		if len(line) == 0 {
			return cred.Secret{}, fmt.Errorf("cannot use the passphrase file %s: %w: it is empty", v.file, ErrPassphraseNeeded)
		}
		return cred.SecretBytes(line), nil
	}
	if !v.pass.IsZero() {
		return v.pass, nil
	}
	return cred.Secret{}, cred.WithHint(fmt.Errorf("cannot unlock the vault %s: %w", v.dir, ErrPassphraseNeeded),
		"keyfob unlock, or set keystore.passphrase_file")
}

// itemPrefix marks the format of the keyring's item.
const itemPrefix = "keyfob-master-key-v"

func encodeItem(master []byte) []byte {
	return append([]byte(itemPrefix+"1:"), base64.StdEncoding.EncodeToString(master)...)
}

// decodeItem reads the keyring's item. Errors: ErrNewerVersion, ErrWrongKey.
func decodeItem(b []byte) ([]byte, error) {
	version, text, ok := strings.Cut(string(b), ":")
	if n, isOurs := strings.CutPrefix(version, itemPrefix); ok && isOurs && n != "1" {
		return nil, fmt.Errorf("the keyring's item was %w", ErrNewerVersion)
	}
	if !ok || version != itemPrefix+"1" {
		return nil, fmt.Errorf("%w: it is in no format of keyfob", ErrWrongKey)
	}
	master, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(master) != masterSize {
		return nil, fmt.Errorf("%w: it is cut off", ErrWrongKey)
	}
	return master, nil
}
