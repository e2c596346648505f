package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/peer"
)

// Limits of the control socket. Its peers are programs of one user; the
// limits keep a broken one from taking all descriptors.
const (
	maxConnections = 512
	idleConnection = 5 * time.Minute
	slowAccept     = 100 * time.Millisecond
)

// connections is the open control connections, so that the end can be
// waited for.
type connections struct {
	mu   sync.Mutex // guards open
	open map[net.Conn]struct{}
	wg   sync.WaitGroup
}

func (c *connections) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= maxConnections {
		return false
	}
	if c.open == nil {
		c.open = map[net.Conn]struct{}{}
	}
	c.open[conn] = struct{}{}
	c.wg.Add(1)
	return true
}

func (c *connections) done(conn net.Conn) {
	c.mu.Lock()
	delete(c.open, conn)
	c.mu.Unlock()
	c.wg.Done()
}

// hurry makes whoever waits for a next request see the end.
func (c *connections) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// serveControl accepts until ctx ends, then joins every conversation.
func (d *daemon) serveControl(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		_ = d.socket.Close()
		d.conns.hurry()
	})
	defer stop()
	defer d.conns.wg.Wait()
	for {
		conn, err := d.socket.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("cannot accept on the control socket: %w", err)
		default: // out of descriptors, most likely: it passes
			d.log.WithError(err).Warn("cannot accept on the control socket")
			select {
			case <-ctx.Done():
			case <-time.After(slowAccept):
			}
			continue
		}
		if !d.conns.add(conn) {
			d.log.Warn("too many control connections, one refused")
			_ = conn.Close()
			continue
		}
		go func() {
			defer d.conns.done(conn)
			defer conn.Close()
			d.converse(ctx, conn)
		}()
	}
}

// conversation is one control connection. Its methods are called by the one
// goroutine that serves it, prompt also by the interaction queue.
type conversation struct {
	*control.ServerConn
	id         int        // of the request being answered
	asking     sync.Mutex // one prompt at a time
	afterReply func()
}

// converse serves one connection: who is it, then request by request.
func (d *daemon) converse(ctx context.Context, conn net.Conn) {
	who, err := d.peers.Of(conn)
	log := d.log.WithFields(logrus.Fields{logging.Endpoint: "control", logging.Caller: who.UID, logging.PID: who.PID})
	c := &conversation{ServerConn: control.NewServerConn(conn)}
	refused := ""
	switch {
	case err != nil:
		refused = err.Error()
	case who.UID != d.uid:
		refused = "not this daemon's user"
	}
	if _, err := c.Handshake(control.Hello{Version: d.opt.Version, PID: os.Getpid()}); err != nil {
		if !errors.Is(err, control.ErrProtocol) {
			return // gone before it said anything: a probe
		}
		log.WithField(logging.Reason, err.Error()).Info("control connection refused")
		return
	}
	for ctx.Err() == nil {
		req, err := c.ReadRequest(idleConnection)
		if err != nil {
			return
		}
		d.calls.Add(1)
		if refused != "" {
			log.WithField(logging.Reason, refused).Warn("control request refused")
			_ = c.WriteReply(req.ID, nil, &control.Error{Code: control.CodeDenied, Message: "cannot use this keyfob: denied", Hint: "the log of keyfobd says why"})
			return
		}
		d.answer(ctx, c, who, req)
		if c.afterReply != nil {
			c.afterReply()
			return
		}
	}
}

func (d *daemon) answer(ctx context.Context, c *conversation, who peer.Caller, req control.Request) {
	c.id = req.ID
	h, ok := handlers[req.Method]
	if !ok {
		_ = c.WriteReply(req.ID, nil, &control.Error{Code: control.CodeProtocol,
			Message: fmt.Sprintf("cannot do %q: this daemon (%s) does not know it", req.Method, d.opt.Version), Hint: "keyfob stop, so that the daemon of this version starts"})
		return
	}
	cl := &call{ctx: ctx, caller: cred.Request{Caller: who}, params: req.Params, conn: c}
	var result any
	err := d.lockedByHandError(h)
	if err == nil {
		result, err = h.handle(d, cl)
	}
	if err != nil {
		e := d.wireError(err, h.what)
		d.log.WithFields(logrus.Fields{logging.Method: req.Method, logging.PID: who.PID, logging.Status: e.Code}).WithError(err).Debug("control request failed")
		_ = c.WriteReply(req.ID, nil, e)
		return
	}
	if err := c.WriteReply(req.ID, result, nil); err != nil {
		d.log.WithError(err).WithField(logging.Method, req.Method).Debug("control reply not delivered")
	}
}

func (d *daemon) lockedByHandError(h handler) error {
	if !h.locked && d.lockedByHand.Load() {
		return &cred.InteractionError{Kind: "unlock", Message: "cannot " + h.what + ": keyfob is locked", Help: "keyfob unlock"}
	}
	return nil
}
