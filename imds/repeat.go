package imds

import (
	"bytes"
	"net/http"
	"runtime"
	"strconv"
	"time"
)

// A client that polls sends the same bytes over and over on one connection.
// What the parser, the guard and the route table said of them the first time
// they would say again, because all three look at nothing but these bytes
// and at what never changes during a connection. So a request that is, byte
// for byte, the one before it is answered without asking them; whatever can
// have changed in between (rules, token, role, credentials) is judged anew,
// by the same code. Anything else goes to net/http, which sees the
// connection as idle meanwhile.

// phase says what net/http has been given of a connection's bytes.
type phase uint8

const (
	phaseStart   phase = iota // between two requests: none of the next
	phaseFed                  // some of a request, maybe all
	phaseServing              // that request is being answered
	phaseLost                 // it can't be told any more where requests begin
)

// maxInRow is after how many repeated answers others have their turn.
const maxInRow = 32

// maxCandidate bounds what is kept of a request, in bytes.
const maxCandidate = 2 << 10

// repeater is the part of a connection that recognises its last request.
type repeater struct {
	phase     phase
	second    bool   // a request was answered: most connections have one, which is not worth a copy
	whole     bool   // what was fed is the head of one request, and nothing else
	candidate []byte // what was fed; empty for a first request that came whole
	// ready says that candidate was answered with what again judges.
	ready bool
	// What tells a pipelined request: a handler runs; nothing was read since
	// the last one ended.
	serving, stale bool
}

// feed notes bytes that are about to be given to net/http; c.mu is held. A
// request often comes as one byte and the rest, because net/http tries to
// read a byte while it writes an answer.
func (p *repeater) feed(b []byte) {
	p.ready = false
	if !p.serving {
		p.stale = false
	}
	switch {
	case p.phase == phaseStart:
		p.phase, p.whole, p.candidate = phaseFed, whole(b), p.candidate[:0]
		if p.second || !p.whole { // net/http changes names of headers where they stand: a copy is needed now
			p.candidate = append(p.candidate, b...)
		}
	case p.phase == phaseFed && !p.whole:
		p.candidate = append(p.candidate, b...)
		p.whole = whole(p.candidate)
	default:
		p.phase = phaseLost
	}
	if len(p.candidate) > maxCandidate {
		p.phase, p.candidate = phaseLost, nil
	}
}

// begin notes that a handler starts, for a request that has a body or none,
// and reports whether the request is pipelined: it was read together with the
// one before it, or with one that is behind it. c.mu is held.
func (p *repeater) begin(body bool) (pipelined bool) {
	pipelined = p.stale || !body && p.phase == phaseFed && !p.whole && followed(p.candidate)
	p.serving = true
	if p.phase == phaseFed && p.whole {
		p.phase = phaseServing
	} else {
		p.phase = phaseLost // there is something behind the request: a body, or another one
	}
	p.second = true
	return pipelined
}

// end notes that the handler has answered, and whether that may be repeated.
// c.mu is held.
func (p *repeater) end(repeatable bool) {
	p.serving, p.stale = false, true
	if p.phase != phaseServing {
		p.phase = phaseLost
		return
	}
	p.phase, p.ready = phaseStart, repeatable && len(p.candidate) > 0
}

// repeated reports whether b is the request before it, with an answer that
// may be repeated; c.mu is held.
func (p *repeater) repeated(b []byte) bool {
	return p.phase == phaseStart && p.ready && bytes.Equal(p.candidate, b)
}

// whole reports whether b is exactly one head of a request: lines that end
// in CR LF, of which the last alone is empty. (Other readers take a bare LF
// for the end of a line.)
func whole(b []byte) bool {
	for start := 0; start < len(b); {
		end := bytes.IndexByte(b[start:], '\n')
		if end < 1 || b[start+end-1] != '\r' {
			return false
		}
		if end == 1 {
			return start > 0 && start+2 == len(b)
		}
		start += end + 1
	}
	return false
}

// followed reports whether there is anything behind the first head of a request
// in b. (Heads with a bare LF are not looked for: the requests behind them are
// told by having been read with them.)
func followed(b []byte) bool {
	_, behind, _ := bytes.Cut(b, []byte("\r\n\r\n"))
	return len(behind) > 0
}

// repeatable reports whether the request is one that net/http would answer
// the same way, and keep the connection, each time.
func repeatable(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor == 1 && !r.Close &&
		r.ContentLength == 0 && r.Header["Connection"] == nil && r.Header["Expect"] == nil
}

// answerAgain writes the answer to the last request once more. It reports
// whether it did; if not, nothing was written. It runs where handlers do: on
// the goroutine of the connection, which is reading the next request.
func (c *conn) answerAgain() bool {
	// The end of the server waits for answers that were begun, and none
	// begins afterwards.
	c.answering.Store(true)
	defer c.answering.Store(false)
	if c.server.draining.Load() {
		return false
	}
	now := time.Now()
	body, expires := c.server.again(c, now)
	if body == nil {
		return false
	}
	c.server.repeated.Add(1)
	if c.row++; c.row%maxInRow == 0 {
		runtime.Gosched() // for a client that does not wait for its answers
	}
	if second := now.Unix(); second != c.dateAt {
		c.dateAt, c.date = second, now.UTC().AppendFormat(c.date[:0], http.TimeFormat)
	}
	b := append(c.out[:0], "HTTP/1.1 200 OK\r\nContent-Length: "...)
	b = append(b, body.length[0]...)
	b = append(b, "\r\nContent-Type: text/plain\r\nServer: EC2ws\r\n"...)
	if !expires.IsZero() {
		b = append(b, headerTTL+": "...)
		b = strconv.AppendInt(b, int64(expires.Sub(now)/time.Second), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "Date: "...)
	b = append(b, c.date...)
	b = append(b, "\r\n\r\n"...)
	b = append(b, body.body...)
	_, err := c.writeAt(b, now)
	clear(b)
	c.out = b
	if err != nil {
		_ = c.raw.Close() // the next Read says so
	}
	c.stayIdle(now)
	return true
}

// stayIdle moves the idle deadline on, in steps that are worth it.
func (c *conn) stayIdle(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if next := now.Add(idleTimeout); next.Sub(c.readWanted) > idleTimeout/16 {
		c.readWanted = next
	}
}
