package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"keyfob/internal/cred"
)

// generationPrefix is where generations lie in the Store, by profile. The
// record of the prefix itself counts for all profiles.
const generationPrefix = "generation/"

// generations are the numbers that logout raises. They are seconds of the
// clock when it happened, so that a number can be raised while the one in
// the vault can't be read.
type generations struct {
	known atomic.Pointer[map[string]uint64] // immutable; stored with mu held

	mu      sync.Mutex      // guards what follows, and is held over the Store
	unsaved map[string]bool // raised in memory only
}

// unreadable is the generation while the vault does not tell it and nobody
// logged out: no token made before has it.
const unreadable = math.MaxUint64

// Generation returns the number to which tokens for profile are bound.
// Forget raises it, for good. While the vault can't be read it is one that
// no older token has.
func (b *Broker) Generation(profile string) uint64 {
	all, ok1 := b.gens.get(b, "")
	own, ok2 := b.gens.get(b, profile)
	n := max(all, own)
	if !ok1 || !ok2 {
		// A logout in this state changes it, too.
		return unreadable - n
	}
	return n
}

func (g *generations) get(b *Broker, profile string) (uint64, bool) {
	if m := g.known.Load(); m != nil {
		if n, ok := (*m)[profile]; ok {
			return n, true
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.known.Load(); m != nil {
		if n, ok := (*m)[profile]; ok {
			return n, true
		}
	}
	n, err := g.read(context.Background(), b, profile)
	if err != nil {
		return 0, false
	}
	g.set(profile, n)
	return n, true
}

// read returns what the vault has. mu is held.
func (g *generations) read(ctx context.Context, b *Broker, profile string) (uint64, error) {
	s, err := b.storeGet(ctx, generationPrefix+profile)
	if errors.Is(err, cred.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s.Reveal(), 10, 64)
	if err != nil {
		return 0, errors.New("cannot read a generation record")
	}
	return n, nil
}

// set publishes a number. mu is held.
func (g *generations) set(profile string, n uint64) {
	next := map[string]uint64{}
	if m := g.known.Load(); m != nil {
		maps.Copy(next, *m)
	}
	next[profile] = n
	g.known.Store(&next)
}

// raise makes the profile's number higher than any before, at once in
// memory. The error says that it could not be written; flush tries again.
func (g *generations) raise(ctx context.Context, b *Broker, profile string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var old uint64
	known := false
	if m := g.known.Load(); m != nil {
		old, known = (*m)[profile]
	}
	if !known {
		old, _ = g.read(ctx, b, profile) // unreadable: the clock is ahead of it
	}
	g.set(profile, max(old+1, uint64(time.Now().Unix())))
	return g.write(ctx, b, profile)
}

// write stores the number in memory. mu is held.
func (g *generations) write(ctx context.Context, b *Broker, profile string) error {
	n := (*g.known.Load())[profile]
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := b.cfg.Store.Put(ctx, generationPrefix+profile, cred.NewSecret(strconv.FormatUint(n, 10))); err != nil {
		if g.unsaved == nil {
			g.unsaved = map[string]bool{}
		}
		g.unsaved[profile] = true
		return err
	}
	delete(g.unsaved, profile)
	return nil
}

// flush writes what could not be written before.
func (g *generations) flush(b *Broker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for profile := range g.unsaved {
		if g.write(context.Background(), b, profile) != nil {
			return
		}
	}
}

// Forget is logout: it drops every session of profile's chains from memory
// and vault, shared ones too, so that what needed a person needs one again,
// and raises Generation(profile). "" is all profiles. A profile that nobody
// knows is no error: its sessions may be all that is left of it.
//
// The memory is cleared whatever happens; the error says what could not be
// done in the vault. While the vault is locked sessions of links that are not
// active and belong to another way of asking for profile stay in it, and the
// error Is cred.ErrLocked.
func (b *Broker) Forget(ctx context.Context, profile string) error {
	gone := map[cred.LinkKey]*link{}
	b.mu.Lock()
	for k := range b.keysOfProfile(profile) {
		gone[k] = b.links[k]
	}
	for _, e := range b.view.Load().entries() {
		if profile != "" && e.profile != profile {
			continue
		}
		for l := e.last; l != nil; l = l.below {
			gone[l.key] = l
		}
	}
	b.mu.Unlock()

	genErr := b.gens.raise(ctx, b, profile)
	for _, l := range gone {
		if l != nil {
			l.forget(false)
		}
	}
	var first error
	for k, l := range gone {
		if err := b.deleteRecord(ctx, k, l); err != nil && first == nil {
			first = err
		}
	}
	if err := b.forgetRecords(ctx, profile); err != nil && first == nil {
		first = err
	}
	if first == nil && genErr != nil {
		first = fmt.Errorf("cannot record the logout of %s in the vault: %w", profile, genErr)
	}
	b.pokeMinder()
	return first
}

// deleteRecord deletes the record of k, after any write of l under way.
func (b *Broker) deleteRecord(ctx context.Context, k cred.LinkKey, l *link) error {
	if l != nil {
		l.storeMu.Lock()
		defer l.storeMu.Unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := b.cfg.Store.Delete(ctx, recordName(k)); err != nil && !errors.Is(err, cred.ErrNotFound) {
		return fmt.Errorf("cannot delete a session from the vault: %w", err)
	}
	return nil
}
