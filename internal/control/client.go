package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"
)

// ErrNotRunning means that nobody listens on the socket. Dial wraps it.
var ErrNotRunning = errors.New("keyfobd is not running")

// ErrGone means that the daemon closed the connection before it replied, as
// one does that is just ending.
var ErrGone = errors.New("keyfobd ended the connection")

// ErrNotTrusted means that the server of the socket is another user, who is
// not the system daemon's. Nothing has been sent to it.
var ErrNotTrusted = errors.New("the server belongs to another user")

// Client is keyfob's side of one connection. It carries one call at a time.
type Client struct {
	// Version is keyfob's, for our Hello; to be set before the first call.
	Version string

	conn  Conn
	lines lineReader
	wmu   sync.Mutex // guards writes to conn

	serverPID int // as the kernel says, 0 where it does not
	greeted   bool
	hello     Hello
	id        int
}

// Dial connects to socket and checks that its server is the own user, root,
// or for SystemSocket the owner of that socket's directory. Errors:
// ErrNotRunning, ErrNotTrusted, ctx's.
func Dial(ctx context.Context, socket string) (*Client, error) {
	conn, pid, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, serverPID: pid}
	c.lines.r = conn
	return c, nil
}

// NewClient returns a client on a connection whose server the caller trusts.
func NewClient(conn Conn) *Client {
	c := &Client{conn: conn}
	c.lines.r = conn
	return c
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Server returns the daemon's Hello: the zero value before the first call.
func (c *Client) Server() Hello { return c.hello }

// ServerPID returns the process that listens, as the kernel tells it; 0
// where it does not. With socket activation that is not the daemon.
func (c *Client) ServerPID() int { return c.serverPID }

// WaitClosed waits for the daemon to close the connection, as it does when it
// ends. Its error is ctx's.
func (c *Client) WaitClosed(ctx context.Context) error {
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return nil
	}
	stop := afterDone(ctx, func() { _ = c.conn.SetReadDeadline(past) })
	defer stop()
	for {
		if _, err := c.lines.next(); err != nil {
			return ctx.Err()
		}
	}
}

// Call calls method and decodes the reply into result (nil to drop it). An
// Event is given to onEvent; for a prompt, the Answer it returns is sent, and
// its error ends the call. Errors: the daemon's *Error, ErrGone,
// ErrLineTooLong, ctx's, or what the connection says. After any but an
// *Error the client is of no further use.
func (c *Client) Call(ctx context.Context, method string, params, result any, onEvent func(Event) (*Answer, error)) error {
	var handle Handler
	if onEvent != nil {
		handle = func(_ context.Context, e Event) (*Answer, error) { return onEvent(e) }
	}
	return c.Do(ctx, method, params, result, handle)
}

// Handler is told of a call's events. For a prompt it returns the answer, nil
// for none (a browser's comes by another way); its error ends the call. Its
// context ends with the call or when the daemon asks something else: when
// somebody else has answered the question meanwhile, say.
type Handler func(ctx context.Context, e Event) (*Answer, error)

// Do is Call with a handler that learns when its question is settled.
func (c *Client) Do(ctx context.Context, method string, params, result any, handle Handler) error {
	raw, err := json.Marshal(params)
	if err != nil {
		return fmt.Errorf("cannot encode a request: %w", err)
	}
	reply, err := c.DoRaw(ctx, method, raw, handle)
	if err != nil {
		return err
	}
	if out, ok := result.(*json.RawMessage); ok {
		*out = append(json.RawMessage(nil), reply...)
		return nil
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(reply, result); err != nil {
		return fmt.Errorf("cannot read keyfobd's reply: %w", errNoJSON)
	}
	return nil
}

// DoRaw is Do for who has the params as JSON and wants the result as it was
// written. The result is valid until the next call.
func (c *Client) DoRaw(ctx context.Context, method string, params []byte, handle Handler) (json.RawMessage, error) {
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	if err := c.conn.SetWriteDeadline(deadline); err != nil {
		return nil, err
	}
	stop := afterDone(ctx, func() {
		_ = c.conn.SetReadDeadline(past)
		_ = c.conn.SetWriteDeadline(past)
	})
	defer stop()

	c.id++
	if err := c.send(c.request(method, params)); err != nil {
		// A daemon that refused us, or that was just ending, may have said
		// so before it closed.
		if line, e := c.line(); e == nil {
			if _, done, refused := c.settled(line); done && refused != nil {
				return nil, refused
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, c.explain(err)
	}
	p := prompts{client: c, handle: handle}
	defer p.stop()
	for {
		line, err := c.line()
		if err != nil {
			switch failed := p.failure(); {
			case failed != nil:
				return nil, failed
			case ctx.Err() != nil:
				return nil, ctx.Err()
			}
			return nil, c.explain(err)
		}
		result, done, err := c.settled(line)
		if done {
			return result, err
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil || e.Event == "" {
			return nil, fmt.Errorf("cannot read keyfobd's reply: %w", errNoJSON)
		}
		if err := p.event(ctx, e); err != nil {
			return nil, err
		}
	}
}

// request is the line of a call, behind our Hello if it is the first.
func (c *Client) request(method string, params []byte) []byte {
	line := make([]byte, 0, 512+len(params))
	if c.id == 1 {
		line = append(line, `{"keyfob":`...)
		line = strconv.AppendInt(line, Version, 10)
		line = append(line, `,"version":"`...)
		line = append(line, c.Version...) // set by the build: nothing to escape
		line = append(line, '"', '}', '\n')
	}
	line = append(line, `{"id":`...)
	line = strconv.AppendInt(line, int64(c.id), 10)
	line = append(line, `,"method":"`...)
	line = append(line, method...) // one of the Method constants: nothing to escape
	line = append(line, '"')
	if len(params) > 0 {
		line = append(line, `,"params":`...)
		line = append(line, params...)
	}
	return append(line, '}', '\n')
}

// line returns the next line that is no Hello.
func (c *Client) line() ([]byte, error) {
	line, err := c.lines.next()
	if err != nil || c.greeted {
		return line, err
	}
	c.greeted = true
	if err := c.greet(line); err != nil {
		return nil, err
	}
	return c.lines.next()
}

func (c *Client) greet(line []byte) error {
	if err := json.Unmarshal(line, &c.hello); err != nil || c.hello.Keyfob == 0 {
		return &Error{Code: CodeProtocol, Message: "cannot talk to the daemon: what answers is not keyfobd"}
	}
	if c.hello.Keyfob != Version {
		return &Error{Code: CodeProtocol,
			Message: fmt.Sprintf("cannot talk to keyfobd %s (pid %d): it speaks version %d of the control protocol and keyfob %s speaks %d", c.hello.Version, c.hello.PID, c.hello.Keyfob, c.Version, Version),
			Hint:    "keyfob stop"}
	}
	return nil
}

// ReadReply judges the two lines that a daemon answered to a first request
// with the id 1 that somebody else sent (package hot). done is false where
// the second is no reply.
func ReadReply(version string, hello, reply []byte) (result json.RawMessage, done bool, err error) {
	c := Client{Version: version, id: 1}
	if err := c.greet(hello); err != nil {
		return nil, true, err
	}
	return c.settled(reply)
}

// settled reports whether line is the reply to the call under way, and what
// it says.
func (c *Client) settled(line []byte) (result json.RawMessage, done bool, err error) {
	if result, ok := c.plainResult(line); ok {
		return result, true, nil
	}
	var r Reply
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, true, fmt.Errorf("cannot read keyfobd's reply: %w", errNoJSON)
	}
	switch {
	case r.Error != nil && (r.ID == c.id || r.ID == 0): // 0: refused before it read our request
		return nil, true, r.Error
	case r.Result != nil && r.ID == c.id:
		return r.Result, true, nil
	case r.Error != nil || r.Result != nil:
		return nil, true, fmt.Errorf("cannot use keyfobd's reply: it is for call %d, this is %d", r.ID, c.id)
	}
	return nil, false, nil
}

// plainResult takes the result out of `{"id":N,"result":…}`, as every daemon
// writes it, without decoding: credentials are printed as they came.
func (c *Client) plainResult(line []byte) (json.RawMessage, bool) {
	var head [48]byte
	want := append(head[:0], `{"id":`...)
	want = strconv.AppendInt(want, int64(c.id), 10)
	want = append(want, `,"result":`...)
	if !bytes.HasPrefix(line, want) || line[len(line)-1] != '}' {
		return nil, false
	}
	result := line[len(want) : len(line)-1]
	return result, json.Valid(result)
}

func (c *Client) send(line []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if len(line) > MaxLine {
		return ErrLineTooLong
	}
	_, err := c.conn.Write(line)
	return err
}

// explain turns what the connection says into words.
func (c *Client) explain(err error) error {
	var e *Error
	switch {
	case errors.As(err, &e) || errors.Is(err, ErrLineTooLong):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return context.DeadlineExceeded
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), isHangUp(err):
		return ErrGone
	}
	return fmt.Errorf("cannot talk to keyfobd: %w", err)
}
