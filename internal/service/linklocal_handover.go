//go:build unix

package service

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// A person's own daemon can't bind port 80, and a forwarder in front of it
// would hide who calls. So a small service that can do nothing else holds
// the listening sockets and gives that person's daemon duplicates of them:
// their connections then are the daemon's own, and the kernel names the
// caller. Only that user can connect (the socket's mode, and its peer
// credentials), and what they get is a socket and no privilege.

// handOverTime is what asking and answering may take.
const handOverTime = 2 * time.Second

// handOver serves the listeners at asked to the user with the given id, until
// ctx ends. Its errors are those of the asked listener.
func handOver(ctx context.Context, asked *net.UnixListener, listeners []*net.TCPListener, uid uint32) error {
	stop := context.AfterFunc(ctx, func() { _ = asked.SetDeadline(time.Now()) })
	defer stop()
	for {
		c, err := asked.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			return fail("", "cannot wait for keyfobd: %w", err)
		}
		// One after the other: an answer is one message, with a deadline.
		_ = c.SetDeadline(time.Now().Add(handOverTime))
		_ = answerHandOver(c, listeners, uid)
		_ = c.Close()
	}
}

// mayHandOver reports whether a caller with the uid gets the sockets of user.
func mayHandOver(caller, user uint32) bool { return caller == user || caller == 0 }

// handedOver asks for the listener at address, nil where nobody has it for
// this user.
func handedOver(at netip.AddrPort) net.Listener {
	if at.Port() != metadataPort || !isMetadata(at.Addr().Unmap()) {
		return nil
	}
	l, err := askHandOver(handOverPath(), at)
	if err != nil {
		return nil // the attempt to bind it says what is missing
	}
	return l
}

var errNotHanded = errors.New("it was not handed over")
