// Package peer says who is at the other end of a connection: which user,
// which process, which program. It asks the kernel, never the peer.
//
// What it says of the user is a fact. What it says of the program is a guard
// rail and a record, not a boundary: programs of one user can trace, preload
// and impersonate one another, and a port forwarder (ssh -L, a rootless
// container's relay) arrives as the user who runs it.
package peer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
)

// ErrUnidentified means that the kernel would not say who the peer is, or
// that the peer lives in another user, pid or mount namespace. Callers treat
// it as nobody.
var ErrUnidentified = errors.New("cannot tell who is calling")

// ErrNoProgram means that the user is known and the program is not: it runs
// as another user and this process may not look, or it has ended. A rule
// that wants a program says no.
var ErrNoProgram = errors.New("cannot tell which program is calling")

// The values of Caller.Via.
const (
	ViaUnix = "unix" // a Unix socket
	ViaTCP  = "tcp"  // a TCP connection within this machine
	ViaPipe = "pipe" // a named pipe of Windows
)

// Caller is who asks. The zero value is nobody and gets nothing. It is taken
// once per connection, by Resolver.Of, and copied freely.
type Caller struct {
	UID   string // decimal user id, or a Windows SID; "" is nobody
	PID   int    // 0 where it is not known, always for a TCP peer on Linux
	Start uint64 // when PID started, as in Process; 0 where it is not known
	Exe   string // the program's file, "" where it is not known
	Via   string // "unix", "tcp" or "pipe"
	// Parent is the program that started keyfob, on the control socket. It is
	// the kernel's parent, and nobody further up: a shell that stays between
	// is it. Where that has ended before the caller was looked at, it is who
	// took the orphan in (init), and never a process that has its number now.
	Parent *Process
	// Terminal names the controlling terminal of PID within this machine,
	// "" where there is none or it is not known: two callers with the same
	// one share a screen, so that one prompt is enough for both.
	Terminal string

	// behind is what is found out when it is first wanted, and then kept for
	// the connection; nil for a Caller that no Resolver made.
	behind *behind
}

// Identified reports whether the user is known.
func (c Caller) Identified() bool { return c.UID != "" }

// Process is one process at one time: a PID alone may be another's by now.
type Process struct {
	PID   int
	Start uint64 // start time in the kernel's unit (Linux: clock ticks since boot)
	Exe   string // the program's file, "" where it is not known
}

// Program returns the process that the rules and the audit speak of: on the
// control socket the parent of the process at the other end (which is
// keyfob), elsewhere that process itself.
//
// For a TCP peer on Linux the first call looks in /proc for the owner of the
// socket (see finder); the answer is kept for the connection. It takes some
// microseconds for a process that was found before, and can take a tenth of a
// second for another among thousands; it gives up after two seconds.
//
// Errors: ErrUnidentified when the process turns out to live in another
// user, pid or mount namespace (such a caller is nobody, whatever UID says);
// ErrNoProgram when it can't be found or its file can't be read; the
// context's error when that ends first.
func (c Caller) Program(ctx context.Context) (Process, error) {
	var p Process
	switch {
	case c.Via == ViaUnix || c.Via == ViaPipe:
		if c.Parent == nil {
			return Process{}, ErrNoProgram
		}
		p = *c.Parent
	case c.behind != nil && c.behind.find != nil:
		var err error
		if p, err = c.behind.process(ctx); err != nil {
			return Process{}, err
		}
	default:
		p = Process{PID: c.PID, Start: c.Start, Exe: c.Exe}
	}
	if p.Exe == "" {
		return Process{}, ErrNoProgram
	}
	return p, nil
}

// Known is what Program would return, where it takes no search any more: the
// process was found for this connection before, or needed none.
func (c Caller) Known() (Process, bool) {
	switch {
	case c.Via == ViaUnix || c.Via == ViaPipe:
		if c.Parent == nil {
			return Process{}, false
		}
		return *c.Parent, c.Parent.Exe != ""
	case c.behind != nil && c.behind.find != nil:
		return c.behind.known()
	}
	return Process{PID: c.PID, Start: c.Start, Exe: c.Exe}, c.Exe != ""
}

// AtHome returns nil when the caller's process lives in the namespaces of
// this one. Of has seen to that for a Unix socket; for a TCP peer on Linux it
// takes a search, as for Program, and a process that can't be found, because
// it may not be looked at, is not at home: one that hides could be anywhere.
// Where there are no namespaces it is nil.
//
// Errors: ErrUnidentified, with which the caller is nobody, whatever UID says;
// the context's error when that ends first.
func (c Caller) AtHome(ctx context.Context) error {
	if c.behind == nil || c.behind.find == nil {
		return nil
	}
	_, err := c.behind.process(ctx)
	if errors.Is(err, ErrNoProgram) {
		return errNotFound
	}
	return err
}

var errNotFound = unidentified("no process that may be looked at holds the connection")

// ProgramSHA256 is the hash of the file that Program runs. Of a file of some
// size it is kept, until the file changes (hashes); reading gives up after
// two seconds and the next call goes on from there. On Linux it is the file
// that runs, also where its path leads to another by now; elsewhere it is the
// one at the path.
//
// Errors: those of Program; ErrNoProgram also when the file can't be read, or
// not in that time.
func (c Caller) ProgramSHA256(ctx context.Context) ([sha256.Size]byte, error) {
	p, err := c.Program(ctx)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	if c.behind == nil {
		return new(hashes).of(ctx, p)
	}
	return c.behind.hash(ctx, p)
}

// unidentified is ErrUnidentified with the reason, for the log.
func unidentified(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUnidentified, fmt.Errorf(format, args...))
}
