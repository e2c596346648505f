package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// How long the daemon's side waits.
const (
	HelloTimeout = 10 * time.Second // for a client's Hello and its first Request
	writeTimeout = 10 * time.Second // for a client that does not read
)

// ErrProtocol means that the client speaks another version of the protocol
// or none; it has been told.
var ErrProtocol = errors.New("the client does not speak this version of the control protocol")

// ServerConn is the daemon's side of one connection. Requests are read and
// replied to one after the other. Its writing methods may be called by
// several goroutines, its reading methods by one at a time.
type ServerConn struct {
	conn  Conn
	lines lineReader

	mu   sync.Mutex // guards held and writes to conn
	held []byte     // our Hello, until something goes with it

	watcher atomic.Pointer[watcher] // while Watch runs
}

// NewServerConn returns the daemon's side of c. It reads and writes nothing.
func NewServerConn(c Conn) *ServerConn {
	s := &ServerConn{conn: c}
	s.lines.r = c
	return s
}

// LimitLines takes lines of the client that are at most n bytes long, and no
// longer ones up to MaxLine. It is called before Handshake.
func (s *ServerConn) LimitLines(n int) { s.lines.limit = n }

// Handshake reads the client's Hello and answers with mine (whose Keyfob
// member it sets). Ours leaves together with the first reply if the client
// has sent its first request already: one write, one wake-up less. A client
// of another version is told so and ErrProtocol is returned.
func (s *ServerConn) Handshake(mine Hello) (Hello, error) {
	mine.Keyfob = Version
	line, err := json.Marshal(mine)
	if err != nil {
		return Hello{}, fmt.Errorf("cannot encode the greeting: %w", err)
	}
	s.mu.Lock()
	s.held = append(line, '\n')
	s.mu.Unlock()

	got, err := s.next(HelloTimeout)
	if err != nil {
		return Hello{}, err
	}
	var theirs Hello
	if err := json.Unmarshal(got, &theirs); err != nil || theirs.Keyfob != Version {
		_ = s.WriteReply(0, nil, &Error{Code: CodeProtocol,
			Message: fmt.Sprintf("cannot talk to keyfobd %s: it speaks version %d of the control protocol and keyfob speaks %d", mine.Version, Version, theirs.Keyfob),
			Hint:    "keyfob stop"})
		return theirs, ErrProtocol
	}
	if !s.lines.ready() {
		if err := s.flush(); err != nil {
			return theirs, err
		}
	}
	return theirs, nil
}

// next returns the next line, waiting at most timeout (0: without end). What
// is there already, as a request mostly is when its connection has been
// judged, is had without a deadline: setting one wakes another thread.
func (s *ServerConn) next(timeout time.Duration) ([]byte, error) {
	if !s.lines.ready() {
		s.lines.take(s.conn)
	}
	if !s.lines.ready() {
		var deadline time.Time
		if timeout > 0 {
			deadline = time.Now().Add(timeout)
		}
		if err := s.conn.SetReadDeadline(deadline); err != nil {
			return nil, err
		}
	}
	return s.lines.next()
}

// ReadRequest returns the next request, waiting at most timeout (0: without
// end). Answers that come too late for their prompt are passed over. Errors:
// io.EOF when the client has gone, os.ErrDeadlineExceeded, ErrLineTooLong.
func (s *ServerConn) ReadRequest(timeout time.Duration) (Request, error) {
	for {
		line, err := s.next(timeout)
		if err != nil {
			return Request{}, err
		}
		var in struct {
			Request
			Interaction string `json:"interaction"`
		}
		if err := json.Unmarshal(line, &in); err != nil {
			return Request{}, fmt.Errorf("cannot read a request: %w", errNoJSON)
		}
		if in.Method == "" && in.Interaction != "" {
			continue
		}
		return in.Request, nil
	}
}

// errNoJSON stands for the decoder's own error, which may quote a secret.
var errNoJSON = errors.New("it is not JSON")

// WriteReply ends the call id: with e if it is not nil, else with result.
// A json.RawMessage goes out as it is.
func (s *ServerConn) WriteReply(id int, result any, e *Error) error {
	reply := Reply{ID: id, Error: e}
	if e == nil {
		raw, ok := result.(json.RawMessage)
		if !ok {
			if result == nil {
				result = Empty{}
			}
			var err error
			if raw, err = json.Marshal(result); err != nil {
				return fmt.Errorf("cannot encode a result: %w", err)
			}
		}
		reply.Result = raw
	}
	err := s.write(reply)
	if errors.Is(err, ErrLineTooLong) { // who waits for it is told
		_ = s.write(Reply{ID: id, Error: &Error{Code: CodeFailed, Message: "cannot answer: the answer is longer than a line of the control protocol may be"}})
	}
	return err
}

// WriteEvent sends an event of the call e.ID.
func (s *ServerConn) WriteEvent(e Event) error { return s.write(e) }

func (s *ServerConn) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot encode a line: %w", err)
	}
	if len(line) > MaxLine {
		return ErrLineTooLong
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.send(append(line, '\n'))
}

func (s *ServerConn) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.send(nil)
}

// send writes line behind what is held back. s.mu is held.
func (s *ServerConn) send(line []byte) error {
	if len(s.held) > 0 {
		line = append(s.held, line...)
		s.held = nil
	}
	if line = line[tryWrite(s.conn, line):]; len(line) == 0 {
		return nil
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := s.conn.Write(line)
	return err
}

// ReadAnswer returns the client's next Answer. Errors: ctx's, io.EOF when
// the client has gone. Answers are told apart by their Interaction: one that
// belongs to an earlier prompt is returned all the same.
func (s *ServerConn) ReadAnswer(ctx context.Context) (Answer, error) {
	if w := s.watcher.Load(); w != nil {
		select {
		case line, ok := <-w.lines:
			if !ok {
				return Answer{}, w.err
			}
			return decodeAnswer(line)
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		}
	}
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		return Answer{}, err
	}
	stop := afterDone(ctx, func() { _ = s.conn.SetReadDeadline(past) })
	line, err := s.lines.next()
	stop()
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			err = ctx.Err()
		}
		return Answer{}, err
	}
	return decodeAnswer(line)
}

func decodeAnswer(line []byte) (Answer, error) {
	var a Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return Answer{}, fmt.Errorf("cannot read an answer: %w", errNoJSON)
	}
	return a, nil
}

// afterDone calls f once ctx ends. stop prevents that, and returns when f,
// if it has begun, is through: a deadline that it sets late would end a read
// that it was not meant for.
func afterDone(ctx context.Context, f func()) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	done := make(chan struct{})
	prevent := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return func() {
		if !prevent() {
			<-done
		}
	}
}

// past is a deadline that wakes whoever reads.
var past = time.Unix(1, 0)

// watcher reads lines while a call waits.
type watcher struct {
	lines chan []byte
	err   error // why lines was closed; read after that
	done  chan struct{}
}

// Watch returns a context that also ends when the client goes away: for
// calls that wait. Until stop is called, which must happen before the next
// ReadRequest, answers are read through it. It costs a goroutine, joined by
// stop, so calls that are answered at once need not bother.
func (s *ServerConn) Watch(ctx context.Context) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancel(ctx)
	w := &watcher{lines: make(chan []byte, 8), done: make(chan struct{})}
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		cancel()
		return watched, func() {}
	}
	s.watcher.Store(w)
	stopping := make(chan struct{})
	go func() {
		defer close(w.done)
		defer close(w.lines)
		for {
			line, err := s.lines.next()
			if err != nil {
				w.err = err
				select {
				case <-stopping:
				default:
					cancel()
				}
				return
			}
			select {
			case w.lines <- append([]byte(nil), line...):
			case <-stopping:
				w.err = io.EOF
				return
			}
		}
	}()
	var once sync.Once
	return watched, func() {
		once.Do(func() {
			close(stopping)
			_ = s.conn.SetReadDeadline(past)
			<-w.done
			s.watcher.Store(nil)
			cancel()
		})
	}
}

// Close closes the connection. Reads and writes under way end.
func (s *ServerConn) Close() error { return s.conn.Close() }
