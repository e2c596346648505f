package imds

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// A container endpoint with a certificate speaks TLS: clients take credentials
// over plain http from this machine's own addresses alone, and a token must
// not be seen by whoever listens on a bridge. TLS lies below everything else:
// who calls is asked of the socket, limits count the connection before its
// handshake, and the requests inside are read by the same loop, and judged by
// the same rules, as those of a plain endpoint.

const (
	handshakeTimeout = 5 * time.Second
	alertTimeout     = time.Millisecond // for the last bytes to who does not read: the kernel takes so few at once
	pauseHandshake   = 100 * time.Microsecond
)

// tlsConfig is of every connection, whatever certificate there is at the time.
// Tickets would be one more secret, for clients that come a few times an hour.
func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  []string{"http/1.1"},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true, // an answer is one record
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := s.live.Load().Certificate; c != nil {
				return &c.pair, nil
			}
			return nil, errNoTLS
		},
	}
}

var errNoTLS = errors.New("the endpoint does not speak TLS any more")

// secure puts TLS on a connection that was just accepted. Nothing is read yet.
func (c *conn) secure() {
	c.wire = &wire{Conn: c.raw, c: c}
	c.Conn = tls.Server(c.wire, c.server.tls)
}

// wire is the socket below TLS.
type wire struct {
	net.Conn
	c      *conn
	ending atomic.Bool // nothing but an alert is written any more

	// Of the goroutine that shakes hands.
	shaking bool
	until   time.Time // the handshake's deadline
	greeted bool      // the client has said something
	inLine  bool      // this handshake is being computed
}

// Read reads from the socket. During a handshake it is where the client's time
// is told from ours: while we wait the connection may be closed to make room,
// and what was read is worked on in turn.
func (w *wire) Read(p []byte) (int, error) {
	if !w.shaking {
		return w.Conn.Read(p)
	}
	w.leave()
	w.c.setReading(true)
	n, err := w.Conn.Read(p)
	w.c.setReading(false)
	if n > 0 {
		w.greeted = true
		w.c.heard.Store(true)
	}
	if err != nil {
		return n, err
	}
	return n, w.enter()
}

// enter waits for this handshake's turn: among those of its user or address
// first, of whom one at a time stands in line with the others. A signature is
// the work of ten requests, and whoever asks for thousands must take neither
// the processor nor the turns of anybody else.
func (w *wire) enter() error {
	w.c.spare.Store(true)
	defer w.c.spare.Store(false)
	late := time.NewTimer(time.Until(w.until))
	defer late.Stop()
	if err := w.c.takeTurns(w.c.turn, w.c.server.limits.handshakes, late.C); err != nil {
		return err
	}
	w.inLine = true
	return nil
}

// leave ends the turn after a pause, in which Go looks for what has come on
// other connections (while there is work it does so every ten milliseconds only).
func (w *wire) leave() {
	if w.inLine {
		time.Sleep(pauseHandshake)
		<-w.c.server.limits.handshakes
		<-w.c.turn
		w.inLine = false
	}
}

// SetWriteDeadline sets the deadline. Package tls wants five seconds for its
// last alert.
func (w *wire) SetWriteDeadline(t time.Time) error {
	if w.ending.Load() {
		if soon := time.Now().Add(alertTimeout); t.IsZero() || t.After(soon) {
			t = soon
		}
	}
	return w.Conn.SetWriteDeadline(t)
}

// handshake reports whether a connection can be used. If not, nothing was
// granted, and why is logged where that may help somebody.
func (s *Server) handshake(c *conn) bool {
	now := time.Now()
	c.wire.until = now.Add(handshakeTimeout)
	_ = c.raw.SetDeadline(c.wire.until)
	defer c.wire.leave() // also when it panics
	c.wire.shaking = true
	err := c.Conn.(*tls.Conn).Handshake()
	c.wire.leave()
	c.wire.shaking = false
	if err == nil {
		return true
	}
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &header) && isHTTP(header.RecordHeader[:]):
		s.log.handshake("plain http, and this endpoint speaks https alone", c, now)
		c.refuseRaw("this endpoint speaks https alone")
	case !c.wire.greeted, errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
		// It looked whether the port is open, or was too slow.
	default:
		s.log.handshake("the TLS handshake failed: "+handshakeText(err), c, now)
	}
	return false
}

// handshakeText says what an error of a handshake means. A client that does not
// accept the certificate says so (an alert), says so in the clear where
// ciphertext is due (OpenSSL), or hangs up (Node.js).
func handshakeText(err error) string {
	text := strings.TrimPrefix(err.Error(), "tls: ")
	var network *net.OpError
	if errors.Is(err, io.EOF) || errors.As(err, &network) && network.Op != "local error" || strings.HasSuffix(text, "bad record MAC") {
		return "the client ended it (" + text + "), as one does that does not know the certificate's authority, or calls the endpoint by another name"
	}
	return text
}

// isHTTP reports whether the first bytes on a connection are those of a request.
func isHTTP(b []byte) bool {
	switch string(b) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH", "CONNE", "TRACE", "PRI *":
		return true
	}
	return false
}

// isTLS reports whether the first byte on a connection is that of a handshake
// (RFC 8446, section 5.1).
func isTLS(b []byte) bool { return b[0] == 22 }

// refuseRaw answers, on the socket itself, a client that speaks TLS with a
// plain endpoint or the other way round, and waits a moment for it to have
// read that.
func (c *conn) refuseRaw(message string) {
	c.spare.Store(true)
	_ = c.raw.SetDeadline(time.Now().Add(silentTimeout))
	body := object(&fault{code: "BadRequest", message: message})
	var a reply
	a.status, a.body = 400, body
	a.header = map[string][]string{headerType: typeJSON}
	if _, err := c.raw.Write(a.append(nil, c.server.dateOf(time.Now()), true)); err != nil {
		return
	}
	if half, ok := c.raw.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c.raw, maxHeaderBytes)
	}
}
