package rolesanywhere

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"keyfob/internal/cred"
)

// Devices is what the sources of a daemon share of the TPM and the tokens of
// this machine. One thing at a time is asked of each, and a PIN that was
// refused is not tried again: after a few wrong ones a token locks itself,
// and a daemon tries for ever.
type Devices struct {
	mu      sync.Mutex // guards what follows
	busy    map[string]chan struct{}
	refused map[string]cred.Secret // by token or TPM key: its wrong PIN
	running sync.WaitGroup
}

// NewDevices returns the devices of a daemon. It opens none.
func NewDevices() *Devices {
	return &Devices{busy: map[string]chan struct{}{}, refused: map[string]cred.Secret{}}
}

// Wait joins what is still under way: a call into a device may outlast the
// fetch that made it, because most devices offer no way to break it off. ctx
// bounds the wait.
func (d *Devices) Wait(ctx context.Context) {
	done := make(chan struct{})
	go func() { d.running.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// use calls fn, alone for the device of that name. When ctx ends first, use
// returns and fn goes on: what it writes must not be read then. The next use
// waits for it.
func (d *Devices) use(ctx context.Context, name string, fn func() error) error {
	d.mu.Lock()
	turn := d.busy[name]
	if turn == nil {
		turn = make(chan struct{}, 1)
		d.busy[name] = turn
	}
	d.mu.Unlock()
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return &deviceError{msg: "cannot use " + name + ": it has not finished what it was asked before", err: ctx.Err()}
	}
	done := make(chan error, 1)
	d.running.Go(func() {
		defer func() { <-turn }()
		defer func() {
			if v := recover(); v != nil { // a library's fault must not end the daemon
				done <- &deviceError{msg: fmt.Sprintf("cannot use %s: internal error (%T)", name, v)}
			}
		}()
		done <- fn()
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return &deviceError{msg: "cannot use " + name + ": it did not answer in time", help: "a device that waits for a touch or for another program can do so", err: ctx.Err()}
	}
}

// errPIN is a PIN or password that a device does not take.
var errPIN = errors.New("the PIN is wrong")

// mayTry reports whether a PIN has not been refused yet. It counts only when
// it is asked inside use.
func (d *Devices) mayTry(what string, pin cred.Secret) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	wrong, ok := d.refused[what]
	return !ok || !wrong.Equal(pin)
}

// note keeps a PIN that was refused.
func (d *Devices) note(what string, pin cred.Secret) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused[what] = pin
}
