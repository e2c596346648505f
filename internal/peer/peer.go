// Package peer says who is at the other end of a connection: which user,
// which process, which program. It asks the kernel, never the peer.
package peer

import "errors"

// ErrUnidentified means that the kernel would not say who the peer is, or
// that the peer lives in another user, pid or mount namespace. Callers treat
// it as nobody.
var ErrUnidentified = errors.New("cannot tell who is calling")

// Caller is who asks. The zero value is nobody and gets nothing.
type Caller struct {
	UID    string   // decimal user id, or a Windows SID; "" is nobody
	PID    int      // 0 where it is not known
	Exe    string   // the program's file, "" where it is not known
	Via    string   // "unix", "tcp" or "pipe"
	Parent *Process // the program that started keyfob, on the control socket
}

// Identified reports whether the user is known.
func (c Caller) Identified() bool { return c.UID != "" }

// Process is one process at one time: a PID alone may be another's by now.
type Process struct {
	PID   int
	Start uint64 // start time in the kernel's unit (Linux: clock ticks since boot)
	Exe   string
}
