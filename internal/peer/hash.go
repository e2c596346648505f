package peer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"time"
)

const (
	hashesKept = 256
	hashChunk  = 1 << 20 // bytes between two looks at the time
	// hashSettled is how long a file must have been left alone before its
	// hash is kept: within the clock's grain a file can change twice at one
	// time.
	hashSettled = 2 * time.Second
)

// fileID is what tells one state of a file from another. The change time
// can't be set by who owns the file.
type fileID struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds since 1970
}

// hashes are the SHA-256 of files, kept until they change. The zero value is
// ready.
type hashes struct {
	mu    sync.Mutex // guards files
	files map[fileID]*fileHash
}

// fileHash is one file's hash, or how far reading it has come.
type fileHash struct {
	turn  chan struct{} // of one place: held while what follows is used
	state hash.Hash
	at    int64
	done  bool
	sum   [sha256.Size]byte
}

// of is the hash of the file that p runs.
func (h *hashes) of(ctx context.Context, p Process) (sum [sha256.Size]byte, err error) {
	f, err := openProgram(p)
	if err != nil {
		return sum, fmt.Errorf("%w: %w", ErrNoProgram, err)
	}
	defer f.Close()
	id, err := identity(f)
	if err != nil {
		return sum, fmt.Errorf("%w: %w", ErrNoProgram, err)
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	e := h.entry(id)
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return sum, fmt.Errorf("%w: its file could not be read in time: %w", ErrNoProgram, ctx.Err())
	}
	if e.done {
		return e.sum, nil
	}
	if err := e.read(ctx, f); err != nil {
		return sum, fmt.Errorf("%w: %w", ErrNoProgram, err)
	}
	after, err := identity(f)
	if err != nil || after != id {
		h.drop(id)
		return sum, fmt.Errorf("%w: its file changed while it was read", ErrNoProgram)
	}
	if time.Since(time.Unix(0, max(id.ctime, id.mtime))) < hashSettled {
		h.drop(id)
	}
	return e.sum, nil
}

func (h *hashes) entry(id fileID) *fileHash {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.files[id]
	if e == nil {
		if h.files == nil || len(h.files) >= hashesKept {
			h.files = map[fileID]*fileHash{}
		}
		e = &fileHash{turn: make(chan struct{}, 1), state: sha256.New()}
		h.files[id] = e
	}
	return e
}

func (h *hashes) drop(id fileID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.files, id)
}

// read goes on reading where it was left. e.turn is held.
func (e *fileHash) read(ctx context.Context, f *os.File) error {
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("its file could not be read in time: %w", err)
		}
		n, err := io.Copy(e.state, io.NewSectionReader(f, e.at, hashChunk))
		e.at += n
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n < hashChunk {
			e.sum, e.done = [sha256.Size]byte(e.state.Sum(nil)), true
			e.state = nil
			return nil
		}
	}
}
