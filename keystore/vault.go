package keystore

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/atomicfile"
	"keyfob/internal/cred"
)

// DefaultTimeout is how long one Unlock may take, prompts of the keyring
// included.
const DefaultTimeout = 30 * time.Second

// Config says which vault to open and how.
type Config struct {
	Dir     string // the vault's directory, made with mode 0700 if absent
	Backend string // BackendAuto (or "") or one of the others
	// Helper is the path of keyfob-keyring; "" looks beside the running
	// program's own file (symlinks resolved), then on PATH.
	Helper  string
	Timeout time.Duration // of one Unlock; 0: DefaultTimeout
	// PassphraseFile, then Passphrase, serve backend "passphrase" when
	// Unlock is given none. A line end at the end of the file is not part
	// of the passphrase.
	PassphraseFile string
	Passphrase     cred.Secret
	Log            *logrus.Entry // nil: nothing is logged
}

// Vault is a cred.Store whose records are sealed on disk. All methods are
// safe for concurrent use, also by several processes on one directory.
type Vault struct {
	dir     string
	id      vaultID
	setting string // Config.Backend
	helper  helper
	file    string      // Config.PassphraseFile
	pass    cred.Secret // Config.Passphrase
	log     *logrus.Entry

	// unlocked is nil while the vault is locked. Readers load it once and
	// go on with what they loaded.
	unlocked atomic.Pointer[unlocked]

	base context.Context // ends with Close; parent of every unlocking
	stop context.CancelFunc
	wg   sync.WaitGroup // the unlocking's goroutine

	mu      sync.Mutex // guards what follows
	closed  bool
	locks   int     // counts Lock calls: an unlocking that began before one is void
	flight  *flight // the unlocking under way
	lastErr error   // of the last Unlock, nil after a success
	backend string  // as far as known: the header's, else the setting's
	aside   map[string]string
}

// unlocked is what an open vault keeps of its master key.
type unlocked struct {
	aead cipher.AEAD // seals records
}

var _ cred.Store = (*Vault)(nil)

// Open opens the vault in cfg.Dir and makes the directory and a header where
// there are none. It starts nothing and does not unlock: records can be
// listed and deleted, not read. Errors: ErrPermissions, ErrNewerVersion,
// ErrCorrupt (a header that is damaged, or missing where records are),
// ErrBackend, those of the file system.
func Open(cfg Config) (*Vault, error) {
	if cfg.Dir == "" {
		return nil, errors.New("cannot open the vault: no directory is given")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the vault: %w", err)
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	h, err := readHeader(dir)
	if errors.Is(err, fs.ErrNotExist) {
		h, err = firstHeader(dir)
	}
	if err != nil {
		return nil, err
	}
	backend, err := resolveBackend(cfg.Backend, h.Backend, dir)
	if err != nil {
		return nil, err
	}
	sweep(dir)

	v := &Vault{
		dir: dir, id: h.id(), setting: cfg.Backend,
		helper: helper{path: cfg.Helper, timeout: cfg.Timeout},
		file:   cfg.PassphraseFile, pass: cfg.Passphrase,
		log: cfg.Log, backend: backend, aside: map[string]string{},
	}
	if v.helper.timeout <= 0 {
		v.helper.timeout = DefaultTimeout
	}
	if v.log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		v.log = logrus.NewEntry(l)
	}
	_, corrupt, err := recordFiles(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range corrupt {
		record, _ := corruptOf(f)
		v.aside[record] = f
	}
	v.base, v.stop = context.WithCancel(context.Background())
	return v, nil
}

// makeDir makes dir and its parents, for the user alone, and makes that
// durable.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the vault: %w", err)
	}
	return atomicfile.SyncDir(filepath.Dir(dir))
}

// firstHeader writes the header of a new vault, unless another process has
// done so meanwhile. It refuses where records are: they belong to a header
// that was lost, and a new one would make them unreadable for good.
func firstHeader(dir string) (*header, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	unlock, err := (&Vault{dir: dir}).lockAlone(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if h, err := readHeader(dir); !errors.Is(err, fs.ErrNotExist) {
		return h, err
	}
	records, corrupt, err := recordFiles(dir)
	if err != nil {
		return nil, err
	}
	if n := len(records) + len(corrupt); n > 0 {
		return nil, cred.WithHint(fmt.Errorf("cannot open the vault %s: %w: %s is missing and %d records are there", dir, ErrCorrupt, headerFile, n),
			"restore "+headerFile+" from a backup, or move the directory away")
	}
	h := newHeader()
	if err := writeHeader(dir, h); err != nil {
		return nil, fmt.Errorf("cannot make the vault: %w", err)
	}
	return h, nil
}

// Lock forgets the vault's keys. Records can't be read until Unlock; an
// Unlock under way does not open the vault any more and fails with
// cred.ErrLocked.
func (v *Vault) Lock() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.locks++
	v.unlocked.Store(nil)
}

// Status is what `keyfob status` tells of the vault.
type Status struct {
	Backend string // the concrete one, never "auto"
	Locked  bool
	New     bool     // no master key was made yet: the first Unlock makes it
	Err     error    // why the last Unlock failed, nil after a success
	Corrupt []string // files of the vault's directory that were set aside, sorted
	Warning string   // as Warning
}

// Status reports the vault's state. It reads the directory.
func (v *Vault) Status() Status {
	_, corrupt, _ := recordFiles(v.dir)
	slices.Sort(corrupt)
	h, err := readHeader(v.dir)
	v.mu.Lock()
	defer v.mu.Unlock()
	s := Status{Backend: v.backend, Locked: v.unlocked.Load() == nil, Err: v.lastErr, Corrupt: corrupt, Warning: warningOf(v.backend)}
	s.New = err == nil && !h.keyed()
	return s
}

// Warning says what a person who adds keys should know of the backend, ""
// for nothing.
func (v *Vault) Warning() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return warningOf(v.backend)
}

func warningOf(backend string) string {
	if backend == BackendKeyctl {
		return "the keystore keyctl forgets the vault's key at reboot: what is stored can then be read with a recovery key only (keyfob vault recovery-key makes one)"
	}
	return ""
}

// Close locks the vault, ends an unlocking under way and waits for it.
func (v *Vault) Close() error {
	v.mu.Lock()
	v.closed = true
	v.locks++
	v.unlocked.Store(nil)
	v.mu.Unlock()
	v.stop()
	v.wg.Wait()
	return nil
}
