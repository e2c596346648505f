package audit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Parts of a syslog message (RFC 5424).
const (
	facility = 10 // security and authorization, kept private
	appName  = "keyfobd"
)

// severity is what a line is worth by RFC 5424 section 6.2.1, which
// journald's priorities follow.
func severity(event string) int {
	switch event {
	case eventLost:
		return 3 // error
	case "refusal":
		return 4 // warning
	}
	return 6 // informational
}

// syslogSink speaks RFC 5424 to a syslog server: a datagram a message, or over
// a stream with octet counting (RFC 6587, RFC 5425).
type syslogSink struct {
	network, address string
	tls              *tls.Config // nil for none
	host             string
	pid              string
	conn             net.Conn // nil while there is none
	stream           bool
}

// NewSyslog returns a Sink to "unix:///path", "udp://HOST:PORT",
// "tcp://HOST:PORT" or "tls://HOST:PORT"; of the last the machine's own roots
// vouch for the server. It opens nothing.
func NewSyslog(address string) (Sink, error) {
	scheme, rest, _ := strings.Cut(address, "://")
	s := &syslogSink{network: scheme, address: rest, pid: strconv.Itoa(os.Getpid())}
	switch scheme {
	case "unix", "udp", "tcp":
	case "tls":
		host, _, err := net.SplitHostPort(rest)
		if err != nil {
			return nil, fmt.Errorf("cannot use the syslog server %s: %w", address, err)
		}
		s.network, s.tls = "tcp", &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	default:
		return nil, fmt.Errorf("cannot use the syslog server %s: it has no such scheme", address)
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	s.host = printable(host, 255)
	return s, nil
}

// Kind is syslog.
func (s *syslogSink) Kind() string { return "syslog" }

// Close closes the connection.
func (s *syslogSink) Close() {
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
}

func (s *syslogSink) open(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	switch {
	case s.network == "unix":
		// A local server takes datagrams; some take a stream.
		c, err := d.DialContext(ctx, "unixgram", s.address)
		if err == nil {
			s.conn, s.stream = c, false
			return nil
		}
		if s.conn, err = d.DialContext(ctx, "unix", s.address); err != nil {
			s.conn = nil
			return err
		}
	case s.tls != nil:
		c, err := (&tls.Dialer{NetDialer: &d, Config: s.tls}).DialContext(ctx, "tcp", s.address)
		if err != nil {
			return err
		}
		s.conn = c
	default:
		c, err := d.DialContext(ctx, s.network, s.address)
		if err != nil {
			return err
		}
		s.conn = c
	}
	s.stream = s.network != "udp"
	return nil
}

// Send delivers each line as one message. What a stream lost with its
// connection is not known; datagrams may be lost without a word.
func (s *syslogSink) Send(ctx context.Context, lines []Line) (sent, rejected int, err error) {
	fresh := s.conn == nil
	if !fresh && s.gone() != nil {
		s.Close()
		fresh = true
	}
	for sent < len(lines) {
		if err = s.open(ctx); err == nil {
			err = s.write(ctx, lines[sent])
		}
		if err == nil {
			sent++
			continue
		}
		s.Close()
		if fresh || ctx.Err() != nil {
			return sent, 0, fmt.Errorf("cannot send to the syslog server %s: %w", s.address, err)
		}
		fresh = true // the server may have been restarted
	}
	return sent, 0, nil
}

// gone reports a stream that the server has closed: writing into it would
// still succeed once.
func (s *syslogSink) gone() error {
	if !s.stream {
		return nil
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return err
	}
	var b [64]byte
	if _, err := s.conn.Read(b[:]); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

func (s *syslogSink) write(ctx context.Context, l Line) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := s.conn.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	_, err := s.conn.Write(s.frame(l))
	return err
}

func (s *syslogSink) frame(l Line) []byte {
	message := s.message(l)
	if !s.stream {
		return []byte(message)
	}
	return []byte(strconv.Itoa(len(message)) + " " + message)
}

// message is one line by RFC 5424 section 6:
// <PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG. MSG is
// ASCII, so that it needs no byte-order mark.
func (s *syslogSink) message(l Line) string {
	return fmt.Sprintf("<%d>1 %s %s %s %s %s - %s", facility*8+severity(l.Event), l.Time.UTC().Format("2006-01-02T15:04:05.000Z"),
		orNil(s.host), appName, s.pid, orNil(printable(l.Event, 32)), l.JSON)
}

// orNil is RFC 5424's NILVALUE for nothing.
func orNil(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// printable leaves of s what a header field may have: PRINTUSASCII.
func printable(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), max)]
}
