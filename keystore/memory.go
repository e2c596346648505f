package keystore

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"keyfob/internal/cred"
)

// NewMemory returns a Store that keeps its records in memory and is never
// locked: for tests.
func NewMemory() cred.Store { return &memory{records: map[string]cred.Secret{}} }

type memory struct {
	mu      sync.RWMutex // guards records
	records map[string]cred.Secret
}

func (m *memory) Get(ctx context.Context, name string) (cred.Secret, error) {
	if err := checkCall(ctx, name); err != nil {
		return cred.Secret{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, ok := m.records[name]
	if !ok {
		return cred.Secret{}, notFound(name)
	}
	return s, nil
}

func (m *memory) Put(ctx context.Context, name string, value cred.Secret) error {
	if err := checkCall(ctx, name); err != nil {
		return err
	}
	if err := checkValue(name, value); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records[name] = value
	return nil
}

func (m *memory) Delete(ctx context.Context, name string) error {
	if err := checkCall(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.records[name]; !ok {
		return notFound(name)
	}
	delete(m.records, name)
	return nil
}

func (m *memory) List(ctx context.Context, prefix string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	names := slices.DeleteFunc(slices.Collect(maps.Keys(m.records)), func(n string) bool {
		return !strings.HasPrefix(n, prefix)
	})
	slices.Sort(names)
	return names, nil
}
