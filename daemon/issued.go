package daemon

import "sync"

// issuedKeys remembers the ids of keys that were handed out, so that a
// caller whose environment has one of them is known to use ours.
type issuedKeys struct {
	mu  sync.Mutex // guards ids and ring
	ids map[string]struct{}
	// ring bounds the memory: the oldest id leaves first.
	ring []string
	next int
}

const issuedKept = 4096

func (k *issuedKeys) add(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, known := k.ids[id]; known {
		return
	}
	if k.ids == nil {
		k.ids = map[string]struct{}{}
	}
	if len(k.ring) < issuedKept {
		k.ring = append(k.ring, id)
	} else {
		delete(k.ids, k.ring[k.next])
		k.ring[k.next] = id
		k.next = (k.next + 1) % issuedKept
	}
	k.ids[id] = struct{}{}
}

func (k *issuedKeys) has(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, known := k.ids[id]
	return known
}
