package signin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// devtools speaks the Chrome DevTools Protocol
// (https://chromedevtools.github.io/devtools-protocol/) over two pipes: JSON
// objects, each ended by a zero byte. A port, which the protocol knows too,
// would open the person's cookies to every user of the machine.
//
// One goroutine uses it; a second one, which close joins, only reads.
type devtools struct {
	to       *os.File
	from     *os.File
	last     int
	early    []message // came while an answer was waited for
	messages chan message
	quit     chan struct{}
	done     chan struct{}
}

// message is what the browser says: an answer (ID) or an event (Method).
type message struct {
	ID        int             `json:"id"`
	SessionID string          `json:"sessionId"`
	Method    string          `json:"method"`
	Params    json.RawMessage `json:"params"`
	Result    json.RawMessage `json:"result"`
	Error     *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// maxMessage bounds one message. An assertion has at most 100,000 characters.
const maxMessage = 16 << 20

// errGone: the browser closed its end of the pipe.
var errGone = errors.New("the browser has ended")

// newDevtools starts reading. to and from are ours, and closed by close.
func newDevtools(to, from *os.File) *devtools {
	d := &devtools{to: to, from: from, messages: make(chan message), quit: make(chan struct{}), done: make(chan struct{})}
	go d.read()
	return d
}

// read passes messages on until the pipe ends.
func (d *devtools) read() {
	defer close(d.done)
	defer close(d.messages)
	r := bufio.NewReaderSize(d.from, 64<<10)
	for {
		b, err := readMessage(r)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(b, &m) != nil {
			continue
		}
		select {
		case d.messages <- m:
		case <-d.quit:
			return
		}
	}
}

func readMessage(r *bufio.Reader) ([]byte, error) {
	var b []byte
	for {
		part, err := r.ReadSlice(0)
		b = append(b, part...)
		switch {
		case len(b) > maxMessage:
			return nil, io.ErrShortBuffer
		case err == nil:
			return b[:len(b)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// close ends the conversation; a browser without one ends.
func (d *devtools) close() {
	close(d.quit)
	_ = d.to.Close()
	_ = d.from.Close()
	<-d.done
}

// send sends a command to a session ("" is the browser's own) and returns
// its number. A pipe that nobody reads shows when it is read from.
func (d *devtools) send(session, method string, params any) int {
	d.last++
	b, err := json.Marshal(struct {
		ID        int    `json:"id"`
		SessionID string `json:"sessionId,omitempty"`
		Method    string `json:"method"`
		Params    any    `json:"params,omitempty"`
	}{d.last, session, method, params})
	if err != nil {
		panic(err) // the parameters are ours
	}
	// A browser that hangs must not hang us.
	_ = d.to.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, _ = d.to.Write(append(b, 0))
	return d.last
}

// receive is the next message. Errors: errGone, or ctx's cause.
func (d *devtools) receive(ctx context.Context) (message, error) {
	select {
	case m, ok := <-d.messages:
		if !ok {
			return message{}, errGone
		}
		return m, nil
	case <-ctx.Done():
		return message{}, context.Cause(ctx)
	}
}

// call sends a command and waits for its answer. Events that come meanwhile
// wait in early. Its errors quote nothing but the protocol's own words.
func (d *devtools) call(ctx context.Context, session, method string, params, into any) error {
	id := d.send(session, method, params)
	for {
		m, err := d.receive(ctx)
		switch {
		case err != nil:
			return err
		case m.ID != id:
			d.early = append(d.early, m)
			continue
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, plain(m.Error.Message, 100))
		case into == nil:
			return nil
		}
		return json.Unmarshal(m.Result, into)
	}
}
