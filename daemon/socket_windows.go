package daemon

import (
	"fmt"
	"net"

	"github.com/Microsoft/go-winio"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// controlSocket is the control listener: a named pipe that only this user
// and the system may open.
type controlSocket struct {
	net.Listener
}

// listenControl takes the pipe, which every user who is signed in may open or
// this one alone. Windows lets one process be the first
// instance of a pipe's name, which makes this daemon the only one on it.
func listenControl(path string, everybody bool, _ net.Listener) (*controlSocket, error) {
	sid := peer.Self()
	if sid == "" {
		return nil, fmt.Errorf("cannot listen on the pipe %s: %w", path, peer.ErrUnidentified)
	}
	access := "O:" + sid + "D:P(A;;GA;;;" + sid + ")(A;;GA;;;SY)"
	if everybody {
		// To read and to write, and not FILE_CREATE_PIPE_INSTANCE: another
		// server of this pipe would be taken for ours.
		access += "(A;;GA;;;BA)(A;;0x12019b;;;AU)"
	}
	l, err := winio.ListenPipe(path, &winio.PipeConfig{SecurityDescriptor: access})
	if err != nil {
		return nil, cred.WithHint(fmt.Errorf("cannot listen on the pipe %s: %w", path, err), "keyfob stop ends another daemon on it")
	}
	return &controlSocket{Listener: l}, nil
}

// Release lets the next daemon in.
func (c *controlSocket) Release() { _ = c.Close() }
