package control

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// ErrLineTooLong means that the other side sent a line of more than MaxLine
// bytes. The connection is of no further use.
var ErrLineTooLong = errors.New("a line of the control protocol is too long")

// Conn is what the protocol needs of a connection; every net.Conn is one.
// This package does not import net: with cgo that makes a dynamically linked
// program of keyfob, whose start takes nearly twice as long.
type Conn interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// lineReader reads lines of at most max bytes. What was read of a line
// when a deadline passed is kept, and the next call goes on from there.
type lineReader struct {
	r          io.Reader
	buf        []byte
	start, end int // what is read and not yet handed out
	scanned    int // of that, bytes known to hold no line feed
	limit      int // of one line, 0 is MaxLine
}

func (l *lineReader) max() int {
	if l.limit > 0 {
		return l.limit
	}
	return MaxLine
}

const firstBuffer = 4 << 10 // holds a greeting and an answer in one read

// next returns the next line without its line feed; it is valid until the
// following call. Errors: io.EOF between lines, io.ErrUnexpectedEOF within
// one, ErrLineTooLong, or what the connection says.
func (l *lineReader) next() ([]byte, error) {
	for {
		if i := bytes.IndexByte(l.buf[l.start+l.scanned:l.end], '\n'); i >= 0 {
			line := l.buf[l.start : l.start+l.scanned+i]
			l.start += l.scanned + i + 1
			l.scanned = 0
			if len(line) > l.max() {
				return nil, ErrLineTooLong
			}
			return line, nil
		}
		l.scanned = l.end - l.start
		if l.scanned > l.max() {
			return nil, ErrLineTooLong
		}
		l.makeRoom()
		n, err := l.r.Read(l.buf[l.end:])
		l.end += n
		if n > 0 {
			continue
		}
		if err == nil {
			continue
		}
		if err == io.EOF && l.end > l.start {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
}

// ready reports whether next would return a line without reading.
func (l *lineReader) ready() bool {
	return bytes.IndexByte(l.buf[l.start:l.end], '\n') >= 0
}

// take puts what is there already into the buffer, without waiting.
func (l *lineReader) take(c Conn) {
	l.makeRoom()
	n, _ := tryRead(c, l.buf[l.end:]) // the end of input will be read again by next
	l.end += n
}

func (l *lineReader) makeRoom() {
	if l.start == l.end {
		l.start, l.end = 0, 0
	}
	if l.end < len(l.buf) {
		return
	}
	if l.start > 0 {
		l.end = copy(l.buf, l.buf[l.start:l.end])
		l.start = 0
		return
	}
	grown := make([]byte, max(firstBuffer, min(2*len(l.buf), l.max()+firstBuffer)))
	copy(grown, l.buf)
	l.buf = grown
}
