package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
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
	// Of a machine's daemon: all, and of one user who is no administrator.
	maxMachine = 4096
	maxUser    = 64
	// userLine bounds a line of such a user, all of whose connections hold
	// some in memory: a SAML assertion of 100,000 characters, and more.
	userLine       = 128 << 10
	idleConnection = 5 * time.Minute
	slowAccept     = 100 * time.Millisecond
)

// connections is the open control connections, each with whether it waits
// for its client to ask something.
type connections struct {
	limit     int // 0 is maxConnections
	limitUser int // of one user, 0 is none

	mu    sync.Mutex // guards what follows
	open  map[net.Conn]*atomic.Bool
	users map[net.Conn]string // whose it is, where that counts
	count map[string]int      // by user
}

func (c *connections) add(conn net.Conn) (idle *atomic.Bool, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.limit
	if limit == 0 {
		limit = maxConnections
	}
	if len(c.open) >= limit {
		return nil, false
	}
	if c.open == nil {
		c.open = map[net.Conn]*atomic.Bool{}
	}
	idle = &atomic.Bool{}
	idle.Store(true)
	c.open[conn] = idle
	return idle, true
}

// claim counts a connection as the user's, and reports whether it is not one
// too many. All who can't be told are one user.
func (c *connections) claim(conn net.Conn, uid string) bool {
	if c.limitUser == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users == nil {
		c.users, c.count = map[net.Conn]string{}, map[string]int{}
	}
	if c.count[uid] >= c.limitUser {
		return false
	}
	c.users[conn] = uid
	c.count[uid]++
	return true
}

func (c *connections) done(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
	if uid, ok := c.users[conn]; ok {
		delete(c.users, conn)
		if c.count[uid]--; c.count[uid] == 0 {
			delete(c.count, uid)
		}
	}
}

// hurry ends the conversations in which nothing was asked. One that says it
// is idle looks at the context only afterwards, so that none is missed.
func (c *connections) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn, idle := range c.open {
		if idle.Load() {
			_ = conn.Close()
		}
	}
}

// serveControl accepts until ctx ends, then joins every conversation.
//
// Whoever accepts a connection also serves it, so that a request is answered
// by the goroutine that the kernel woke; another one takes its place at the
// listener first. Most conversations are one short request, and a hand-over
// to another thread would cost more than its answer.
func (d *daemon) serveControl(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		_ = d.socket.Close()
		d.conns.hurry()
	})
	defer stop()
	a := &acceptors{}
	a.failed = make(chan error, 1)
	a.start(func() { d.accept(ctx, a) })
	a.wg.Wait()
	select {
	case err := <-a.failed:
		return err
	default:
		return nil
	}
}

// acceptors are the goroutines that accept on the control socket.
type acceptors struct {
	wg     sync.WaitGroup
	idle   atomic.Int32 // those at the listener
	failed chan error
}

// idleAcceptors is how many wait at the listener when nothing happens.
const idleAcceptors = 2

func (a *acceptors) start(f func()) {
	a.idle.Add(1)
	a.wg.Go(f)
}

// accept takes connections and serves each to its end. It returns when the
// listener is closed, or when enough others wait at it.
func (d *daemon) accept(ctx context.Context, a *acceptors) {
	for {
		conn, err := d.socket.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return
		case errors.Is(err, net.ErrClosed):
			select {
			case a.failed <- fmt.Errorf("cannot accept on the control socket: %w", err):
			default:
			}
			return
		default: // out of descriptors, most likely: it passes
			d.log.WithError(err).Warn("cannot accept on the control socket")
			select {
			case <-ctx.Done():
			case <-time.After(slowAccept):
			}
			continue
		}
		if a.idle.Add(-1) == 0 {
			a.start(func() { d.accept(ctx, a) })
		}
		if idle, ok := d.conns.add(conn); ok {
			d.converse(ctx, conn, idle)
			d.conns.done(conn)
		} else {
			d.log.Warn("too many control connections, one refused")
		}
		_ = conn.Close()
		if a.idle.Add(1) > idleAcceptors {
			a.idle.Add(-1)
			return
		}
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
func (d *daemon) converse(ctx context.Context, conn net.Conn, idle *atomic.Bool) {
	if ctx.Err() != nil {
		return
	}
	who, err := d.peers.Of(conn)
	log := func() *logrus.Entry { // made only where something is logged
		return d.log.WithFields(logrus.Fields{logging.Endpoint: "control", logging.Caller: who.UID, logging.PID: who.PID})
	}
	if !d.isOwner(who) && !d.conns.claim(conn, who.UID) {
		d.refusals.log(d, who, "", "one user has too many connections to the control socket")
		return // without a word: what is not answered can't be waited for
	}
	c := &conversation{ServerConn: control.NewServerConn(conn)}
	if d.system() && !d.isAdmin(who) {
		c.LimitLines(userLine)
	}
	refused := ""
	switch {
	case err != nil:
		refused = err.Error()
	case who.UID != d.uid && !d.system():
		refused = "not this daemon's user"
	}
	if _, err := c.Handshake(control.Hello{Version: d.opt.Version, PID: os.Getpid()}); err != nil {
		if !errors.Is(err, control.ErrProtocol) {
			return // gone before it said anything: a probe
		}
		log().WithField(logging.Reason, err.Error()).Info("control connection refused")
		return
	}
	for ctx.Err() == nil {
		req, err := c.ReadRequest(idleConnection)
		if err != nil {
			return
		}
		idle.Store(false)
		d.calls.Add(1)
		if refused != "" {
			d.refusals.log(d, who, "", refused)
			d.turnedAway(who, refused)
			_ = c.WriteReply(req.ID, nil, &control.Error{Code: control.CodeDenied, Message: "cannot use this keyfob: denied", Hint: "the log of keyfobd says why"})
			return
		}
		d.answer(ctx, c, who, req)
		if c.afterReply != nil {
			c.afterReply()
			return
		}
		idle.Store(true)
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
	cl := &call{ctx: ctx, caller: cred.Request{Caller: who}, params: req.Params, conn: c, admin: d.isAdmin(who)}
	var result any
	err := d.lockedByHandError(h)
	if err == nil && d.system() {
		if cl.params, err = ignoreEnvironment(cl.params); err == nil {
			err = d.admit(cl, req.Method)
		}
	}
	if err == nil {
		result, err = h.handle(d, cl)
	}
	if err != nil {
		e := d.wireError(err, h.what)
		switch {
		case cl.admin:
		case errors.Is(err, cred.ErrConfig):
			e.Message, e.Hint = "cannot "+h.what+": the profile does not work", adminKnows // its own words may quote the machine's files
		case e.Code == control.CodeUnknownProfile:
			e.Hint = "keyfob list" // the name that is nearest may be somebody else's
		}
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
