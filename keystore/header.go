package keystore

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"keyfob/internal/cred"
	"keyfob/keystore/internal/wire"
)

const (
	headerFile    = "vault.json"
	headerVersion = 1
	masterSize    = 32
	checkSize     = 16
	wrappedSize   = chacha20poly1305.NonceSizeX + masterSize + chacha20poly1305.Overhead
)

// vaultID tells vaults apart: it is part of every record's seal and of the
// name of the keyring's item.
type vaultID [16]byte

func (id vaultID) String() string { return hex.EncodeToString(id[:]) }

// header is vault.json. It holds no secret: the master key stands in it
// wrapped only.
type header struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Created string `json:"created"`
	// Backend and Check are there as soon as the vault has a master key.
	Backend string `json:"backend,omitempty"`
	// Collection is the Secret Service collection that holds the item.
	Collection string `json:"collection,omitempty"`
	// Check is derived from the master key and tells another key from it.
	Check      []byte `json:"check,omitempty"`
	Passphrase *wrap  `json:"passphrase,omitempty"`
	Recovery   *wrap  `json:"recovery,omitempty"`
}

// wrap is the master key, sealed under another key.
type wrap struct {
	KDF    *wire.KDF `json:"argon2id,omitempty"` // of a passphrase
	Sealed []byte    `json:"sealed"`             // nonce and box
}

// keyed reports whether the vault has a master key. Until it has one no
// backend is chosen for good.
func (h *header) keyed() bool { return len(h.Check) > 0 }

func (h *header) id() (id vaultID) {
	_, _ = hex.Decode(id[:], []byte(h.ID)) // checked by parseHeader
	return id
}

func newHeader() *header {
	var id vaultID
	_, _ = rand.Read(id[:]) // never fails
	return &header{Version: headerVersion, ID: id.String(), Created: time.Now().UTC().Format(time.RFC3339)}
}

// parseHeader reads vault.json. Errors: ErrNewerVersion, ErrCorrupt.
func parseHeader(b []byte) (*header, error) {
	damaged := func(why string) error { return fmt.Errorf("%w: %s", ErrCorrupt, why) }
	// The version first: the rest of a newer header may mean anything.
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, damaged("it is not the JSON of a vault header")
	}
	if v.Version > headerVersion {
		return nil, fmt.Errorf("%w: format %d, this version knows up to %d", ErrNewerVersion, v.Version, headerVersion)
	}
	if v.Version < 1 {
		return nil, damaged("it has no format version")
	}
	h := &header{}
	if err := json.Unmarshal(b, h); err != nil {
		return nil, damaged("it is not the JSON of a vault header")
	}
	if raw, err := hex.DecodeString(h.ID); err != nil || len(raw) != len(vaultID{}) || hex.EncodeToString(raw) != h.ID {
		return nil, damaged("it has no vault id")
	}
	if !h.keyed() {
		if h.Backend != "" || h.Passphrase != nil || h.Recovery != nil {
			return nil, damaged("it has no key check value")
		}
		return h, nil
	}
	if len(h.Check) != checkSize {
		return nil, damaged("its key check value is cut off")
	}
	if _, known := platformsOf(h.Backend); !known {
		return nil, damaged(fmt.Sprintf("its backend %q is unknown", h.Backend))
	}
	if h.Backend == BackendPassphrase {
		if h.Passphrase == nil || !h.Passphrase.KDF.Valid() || len(h.Passphrase.Sealed) != wrappedSize {
			return nil, damaged("its wrapped key is not whole")
		}
	} else if h.Passphrase != nil {
		return nil, damaged("it has a passphrase, and its backend is " + h.Backend)
	}
	if h.Recovery != nil && len(h.Recovery.Sealed) != wrappedSize {
		return nil, damaged("its recovery key is not whole")
	}
	return h, nil
}

// readHeader reads dir's header. Errors: fs.ErrNotExist, ErrNewerVersion,
// ErrCorrupt, those of the file system; all name the file.
func readHeader(dir string) (*header, error) {
	path := filepath.Join(dir, headerFile)
	b, err := readFile(path, 64<<10)
	if err != nil {
		return nil, fmt.Errorf("cannot read the vault's header: %w", err)
	}
	h, err := parseHeader(b)
	if err != nil {
		err = fmt.Errorf("cannot use the vault's header %s: %w", path, err)
		if errors.Is(err, ErrNewerVersion) {
			return nil, cred.WithHint(err, "install the newer keyfob again")
		}
		return nil, cred.WithHint(err, "restore the file from a backup")
	}
	return h, nil
}

// writeHeader replaces dir's header. The caller holds the exclusive lock.
func writeHeader(dir string, h *header) error {
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(dir, headerFile, append(b, '\n'))
}

// derive is HKDF with SHA-256, salted with the vault's id.
func derive(secret []byte, id vaultID, label string, n int) []byte {
	b, err := hkdf.Key(sha256.New, secret, id[:], "keyfob vault v1 "+label, n)
	if err != nil { // n is a small constant: it can't be too long
		panic(err)
	}
	return b
}

func checkValue16(master []byte, id vaultID) []byte { return derive(master, id, "check", checkSize) }

// wrapData is the associated data of a wrapped key: what it is for, whose
// it is, and how its key is computed.
func wrapData(kind string, id vaultID, kdf *wire.KDF) []byte {
	b := append([]byte("keyfob wrap v1 "), kind...)
	b = append(b, 0)
	b = append(b, id[:]...)
	if kdf != nil {
		b = binary.BigEndian.AppendUint32(b, kdf.Time)
		b = binary.BigEndian.AppendUint32(b, kdf.Memory)
		b = append(b, kdf.Threads)
		b = append(b, kdf.Salt...)
	}
	return b
}

// wrapKey seals master under a 32-byte key.
func wrapKey(key, master []byte, kind string, id vaultID, kdf *wire.KDF) (*wrap, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	b := make([]byte, chacha20poly1305.NonceSizeX, wrappedSize)
	_, _ = rand.Read(b) // never fails
	return &wrap{KDF: kdf, Sealed: aead.Seal(b, b, master, wrapData(kind, id, kdf))}, nil
}

// unwrapKey opens w; ok is false when key is not the one that sealed it.
func unwrapKey(key []byte, w *wrap, kind string, id vaultID) (master []byte, ok bool) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil || len(w.Sealed) != wrappedSize {
		return nil, false
	}
	nonce, box := w.Sealed[:chacha20poly1305.NonceSizeX], w.Sealed[chacha20poly1305.NonceSizeX:]
	master, err = aead.Open(nil, nonce, box, wrapData(kind, id, w.KDF))
	return master, err == nil
}

// recordFiles returns the names of the record files in dir, also of those
// that were set aside.
func recordFiles(dir string) (records, corrupt []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("cannot list the vault: %w", err)
	}
	for _, e := range entries {
		if _, _, ok := recordName(e.Name()); ok {
			records = append(records, e.Name())
		} else if _, ok := corruptOf(e.Name()); ok {
			corrupt = append(corrupt, e.Name())
		}
	}
	return records, corrupt, nil
}
