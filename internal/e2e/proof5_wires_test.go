//go:build linux

package e2e

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"

	"keyfob/internal/cred"
)

// weekVault is a vault in memory.
type weekVault struct {
	mu  sync.Mutex // guards all
	all map[string]cred.Secret
}

func (v *weekVault) Get(_ context.Context, name string) (cred.Secret, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, ok := v.all[name]
	if !ok {
		return s, cred.ErrNotFound
	}
	return s, nil
}

func (v *weekVault) Put(_ context.Context, name string, s cred.Secret) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all[name] = s
	return nil
}

func (v *weekVault) Delete(_ context.Context, name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.all[name]; !ok {
		return cred.ErrNotFound
	}
	delete(v.all, name)
	return nil
}

func (v *weekVault) List(_ context.Context, prefix string) (names []string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name := range v.all {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names, nil
}

// wires is a network within the process.
type wires struct {
	conns chan net.Conn
	over  chan struct{}
	once  sync.Once
}

func (l *wires) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}
func (l *wires) Close() error   { l.once.Do(func() { close(l.over) }); return nil }
func (l *wires) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (w *week) dialer(l *wires) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		if w.down.Load() {
			return nil, errors.New("network is unreachable")
		}
		a, b := net.Pipe()
		select {
		case l.conns <- b:
			return a, nil
		case <-l.over:
			return nil, net.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
