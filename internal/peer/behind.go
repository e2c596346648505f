package peer

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"
)

// lookTimeout bounds one search for a program, and one reading of its file.
const lookTimeout = 2 * time.Second

// behind is what is found out about a connection's caller at most once, when
// it is first wanted.
type behind struct {
	find  func(context.Context) (Process, error) // the process of a TCP peer; nil where it is known
	quick func() (p Process, ok bool, err error) // the same where it takes no search and no waiting; nil for never
	files *hashes

	mu     sync.Mutex // guards what follows, and lets one caller look at a time
	found  bool
	p      Process
	err    error
	hashed bool
	sum    [sha256.Size]byte
}

func (b *behind) process(ctx context.Context) (Process, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.found {
		return b.p, b.err
	}
	if b.quick != nil {
		if p, ok, err := b.quick(); ok {
			b.found, b.p, b.err = true, p, err
			return p, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	p, err := b.find(ctx)
	if err != nil && ctx.Err() != nil { // not the kernel's answer: the next caller searches again
		return Process{}, ctx.Err()
	}
	b.found, b.p, b.err = true, p, err
	return p, err
}

// known is the process if it was found. It does not wait for a search that
// is under way.
func (b *behind) known() (Process, bool) {
	if !b.mu.TryLock() {
		return Process{}, false
	}
	defer b.mu.Unlock()
	return b.p, b.found && b.err == nil && b.p.Exe != ""
}

func (b *behind) hash(ctx context.Context, p Process) ([sha256.Size]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hashed {
		return b.sum, nil
	}
	sum, err := b.files.of(ctx, p)
	if err == nil {
		b.hashed, b.sum = true, sum
	}
	return sum, err
}
