package service

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
)

// ControlName is the name of the control socket among the listeners that a
// service manager hands over (FileDescriptorName= in its unit).
const ControlName = "control"

// Inherited are the listeners that the service manager opened for the daemon
// (sd_listen_fds(3)). It is safe for concurrent use; a nil one is empty.
type Inherited struct {
	mu   sync.Mutex // guards list
	list []inherited
}

type inherited struct {
	name     string
	listener net.Listener
}

// Listeners takes the handed-over listeners over, and the variables that
// tell of them out of the environment. Call it once, before anything is
// started. Errors: a descriptor that is no listening stream socket; then
// all are closed.
func Listeners() (*Inherited, error) {
	in := &Inherited{}
	var err error
	for _, f := range activation.Files(true) {
		l, e := listenerOf(f)
		_ = f.Close() // the listener has a duplicate
		if e != nil {
			err = errors.Join(err, fail("ListenStream= and Accept=no in the socket unit", "cannot use the descriptor %s that the service manager hands over: %w", f.Name(), e))
			continue
		}
		in.list = append(in.list, inherited{name: f.Name(), listener: l})
	}
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

func listenerOf(f *os.File) (net.Listener, error) {
	// Listening once more makes the kernel name this process to whoever
	// connects from now on, and no longer the manager that listened first:
	// clients ask whose socket it is (unix(7), SO_PEERCRED).
	if err := relisten(f); err != nil {
		return nil, err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the path is the manager's
	}
	return l, nil
}

func (in *Inherited) take(match func(inherited) bool) net.Listener {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, h := range in.list {
		if match(h) {
			in.list = append(in.list[:i], in.list[i+1:]...)
			return h.listener
		}
	}
	return nil
}

// Control returns the listener of the control socket at path, which belongs
// to the caller from then on; nil where none was handed over. One with
// another path than the settings' is left in Rest.
func (in *Inherited) Control(path string) net.Listener {
	return in.take(func(h inherited) bool {
		a, ok := h.listener.Addr().(*net.UnixAddr)
		return ok && a.Name == path
	})
}

// TCP returns the listener at address, an "address:port", which belongs to
// the caller from then on; nil where none was handed over. For port 80 of a
// metadata address it asks the service that link-local made for a person's
// own daemon, also where in is nil.
func (in *Inherited) TCP(address string) net.Listener {
	want, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil
	}
	if l := in.take(func(h inherited) bool {
		a, ok := h.listener.Addr().(*net.TCPAddr)
		if !ok {
			return false
		}
		have := a.AddrPort()
		return have.Port() == want.Port() && have.Addr().Unmap() == want.Addr().Unmap()
	}); l != nil {
		return l
	}
	return handedOver(want)
}

// Rest names the listeners that nobody took: settings and units differ.
func (in *Inherited) Rest() []string {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	var names []string
	for _, h := range in.list {
		names = append(names, fmt.Sprintf("%s (%s)", h.name, h.listener.Addr()))
	}
	return names
}

// Close closes what nobody took.
func (in *Inherited) Close() error {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	var err error
	for _, h := range in.list {
		err = errors.Join(err, h.listener.Close())
	}
	in.list = nil
	return err
}
