package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"keyfob/internal/cred"
)

// HeadRecord is the name of the vault's record that holds the hash of the
// last line: without it nobody could tell that the end was cut off.
const HeadRecord = "audit/head"

const (
	headEvery   = 5 * time.Second // how often the record is written at most
	headRetry   = time.Minute     // after an error
	headTimeout = 2 * time.Second
)

// headForm is the record.
type headForm struct {
	Version int       `json:"version"`
	Hash    string    `json:"hash"` // of the last line, keyed; of nothing before the first one
	Time    time.Time `json:"time"`
}

// loadHead returns the hash of the last line that the vault knows of, "" for
// none.
func loadHead(ctx context.Context, store cred.Store) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	v, err := store.Get(ctx, HeadRecord)
	if errors.Is(err, cred.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read where the audit log ends: %w", err)
	}
	var f headForm
	if err := json.Unmarshal([]byte(v.Reveal()), &f); err != nil || f.Version != 1 || f.Hash == "" {
		return "", fmt.Errorf("cannot read where the audit log ends: the record %s has another form", HeadRecord)
	}
	return f.Hash, nil
}

func saveHead(ctx context.Context, store cred.Store, hash string) error {
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	b, err := json.Marshal(headForm{Version: 1, Hash: hash, Time: time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := store.Put(ctx, HeadRecord, cred.SecretBytes(b)); err != nil {
		return fmt.Errorf("cannot note where the audit log ends: %w", err)
	}
	return nil
}

// continues reports whether the log has the line of that hash, and whether
// what follows it follows by the chain.
func (s snapshot) continues(h *hasher, hash string) (bool, error) {
	for i := len(s) - 1; i >= 0; i-- {
		for in := s[i].from(0); ; {
			line, whole, err := in.read()
			if err == io.EOF {
				break
			}
			if err != nil {
				return false, fmt.Errorf("cannot read the audit log: %w", err)
			}
			if whole && same(h.keyed(line), hash) {
				return s[i:].chained(h, line, in)
			}
		}
	}
	return false, nil
}

// chained checks what follows line, which was read last from the first file.
func (s snapshot) chained(h *hasher, line []byte, in *lines) (bool, error) {
	prev := append([]byte(nil), line...)
	for i := 0; ; {
		line, whole, err := in.read()
		switch {
		case err == io.EOF:
			if i++; i == len(s) {
				return true, nil
			}
			in = s[i].from(0)
			continue
		case err != nil:
			return false, fmt.Errorf("cannot read the audit log: %w", err)
		}
		e, ok := decode(line)
		if !ok || !whole {
			continue // what a crash left; Verify judges it
		}
		if ok, _ := h.links(e.Previous, prev); !ok {
			return false, nil
		}
		prev = append(prev[:0], line...)
	}
}

// sealed reports whether any entry has a keyed hash.
func (s snapshot) sealed() (bool, error) {
	for _, o := range s {
		for in := o.from(0); ; {
			line, _, err := in.read()
			if err == io.EOF {
				break
			}
			if err != nil {
				return false, fmt.Errorf("cannot read the audit log: %w", err)
			}
			if e, ok := decode(line); ok && !strings.HasPrefix(e.Previous, unkeyedMark) {
				return true, nil
			}
		}
	}
	return false, nil
}
