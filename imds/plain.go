package imds

import (
	"context"
	"net/http"
	"strconv"
	"strings"
)

// Most requests are plain: a GET or PUT without a body, with a few headers
// that every client sends, in one piece and with nothing behind it. Those are
// read here, for a fraction of what net/http takes: it starts a second goroutine
// for each request and keeps two buffers for each connection. What is the
// least bit different is net/http's, every byte of it, and so is the
// connection from then on (see attend).
//
// What a plain request means must be what net/http takes it for: the fuzz test
// compares them.

const (
	maxPlain        = 1 << 10 // bytes of a request
	maxPlainHeaders = 12
)

// plain reads requests and holds answers, for one connection after the other.
type plain struct {
	r       *http.Request
	values  [maxPlainHeaders]string
	answer  reply
	in, out []byte
}

func newPlain(ctx context.Context) *plain {
	r := (&http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody}).WithContext(ctx)
	return &plain{r: r, answer: reply{header: http.Header{}}, in: make([]byte, maxPlain)}
}

// read makes the request of b. It reports false for one that is not plain;
// then nothing is said of it.
func (p *plain) read(b []byte) bool {
	if !whole(b) {
		return false
	}
	r := p.r
	clear(r.Header)
	r.Host, r.Close = "", false
	text := string(b[:len(b)-len("\r\n")]) // each line with its end
	line, text, _ := strings.Cut(text, "\r\n")
	var ok bool
	if r.Method, r.RequestURI, ok = plainLine(line); !ok {
		return false
	}
	for n := 0; text != ""; n++ {
		line, text, _ = strings.Cut(text, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if !ok || n == maxPlainHeaders {
			return false
		}
		name = plainName(name)
		value = strings.Trim(value, " \t")
		if name == "" || !visible(value) {
			return false
		}
		if _, twice := r.Header[name]; twice {
			return false
		}
		switch name {
		case "Host":
			if r.Host != "" || !plainHost(value) {
				return false
			}
			r.Host = value
			continue
		case headerLength:
			if value != "0" {
				return false
			}
		case "Connection":
			switch value {
			case "close":
				r.Close = true
			case "keep-alive", "Keep-Alive":
			default:
				return false
			}
		}
		p.values[n] = value
		r.Header[name] = p.values[n : n+1 : n+1]
	}
	return r.Host != ""
}

// forget drops what is the client's, also after a handler that panicked.
func (p *plain) forget() {
	p.answer.reset()
	clear(p.out)
	clear(p.r.Header)
	clear(p.values[:])
	clear(p.in)
	p.r.RequestURI, p.r.Host = "", ""
}

// plainLine takes a request line apart.
func plainLine(line string) (method, target string, ok bool) {
	switch {
	case strings.HasPrefix(line, "GET /"):
		method = http.MethodGet
	case strings.HasPrefix(line, "PUT /"):
		method = http.MethodPut
	default:
		return "", "", false
	}
	target, ok = strings.CutSuffix(line[len("GET "):], " HTTP/1.1")
	for i := 0; ok && i < len(target); i++ {
		ok = inTarget[target[i]]
	}
	return method, target, ok
}

// inTarget are the bytes of a plain target: those that stand for themselves in
// every part of a URI's path (RFC 3986, unreserved), and the slash.
var inTarget = bytesOf("/-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

// inHost are the bytes of a plain Host.
var inHost = bytesOf("-.:[]0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

func bytesOf(s string) (set [256]bool) {
	for i := range len(s) {
		set[s[i]] = true
	}
	return set
}

func plainHost(s string) bool {
	for i := range len(s) {
		if !inHost[s[i]] {
			return false
		}
	}
	return s != ""
}

func visible(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// plainName returns a header's name in the form that net/http keeps it in, ""
// for one that a plain request does not have.
func plainName(s string) string {
	var b [len(headerTTL)]byte
	if len(s) > len(b) {
		return ""
	}
	start := true
	for i := range len(s) {
		c := s[i]
		switch {
		case start && 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		case !start && 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		b[i], start = c, c == '-'
	}
	switch string(b[:len(s)]) {
	case "Host":
		return "Host"
	case "User-Agent":
		return "User-Agent"
	case "Accept":
		return "Accept"
	case "Accept-Encoding":
		return "Accept-Encoding"
	case "Amz-Sdk-Invocation-Id":
		return "Amz-Sdk-Invocation-Id"
	case "Amz-Sdk-Request":
		return "Amz-Sdk-Request"
	case "Connection":
		return "Connection"
	case headerLength:
		return headerLength
	case headerType:
		return headerType
	case headerToken:
		return headerToken
	case headerTTL:
		return headerTTL
	case headerAuthorization:
		return headerAuthorization
	}
	return ""
}

// reply is the http.ResponseWriter of a plain request: it keeps what is
// written until the handler has ended.
type reply struct {
	header http.Header
	status int // 0: 200
	body   []byte
}

// Header returns the headers that will be sent.
func (a *reply) Header() http.Header { return a.header }

// WriteHeader sets the status, once.
func (a *reply) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write adds to the body.
func (a *reply) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, b...)
	return len(b), nil
}

// WriteString adds to the body.
func (a *reply) WriteString(s string) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, s...)
	return len(s), nil
}

// reset makes a ready for the next answer. Nothing of the last one stays: it
// may be secret.
func (a *reply) reset() {
	clear(a.header)
	clear(a.body)
	a.status, a.body = 0, a.body[:0]
}

// append appends the answer as it is sent. date is the value of its header.
func (a *reply) append(b []byte, date string, last bool) []byte {
	if a.status == 0 || a.status == http.StatusOK {
		b = append(b, "HTTP/1.1 200 OK\r\n"...)
	} else {
		b = append(b, "HTTP/1.1 "...)
		b = strconv.AppendInt(b, int64(a.status), 10)
		b = append(b, ' ')
		b = append(b, http.StatusText(a.status)...)
		b = append(b, "\r\n"...)
	}
	for name, values := range a.header {
		if name == headerLength || name == "Connection" {
			continue // below
		}
		for _, v := range values {
			b = append(b, name...)
			b = append(b, ": "...)
			b = appendValue(b, v)
			b = append(b, "\r\n"...)
		}
	}
	if last {
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, "Date: "...)
	b = append(b, date...)
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(a.body)), 10)
	b = append(b, "\r\n\r\n"...)
	return append(b, a.body...)
}

// appendValue appends a header's value: no value may end its line.
func appendValue(b []byte, v string) []byte {
	start := len(b)
	b = append(b, v...)
	for i := start; i < len(b); i++ {
		if b[i] == '\r' || b[i] == '\n' {
			b[i] = ' '
		}
	}
	return b
}

// closes reports whether the connection ends with this answer.
func (a *reply) closes() bool {
	values := a.header["Connection"]
	return len(values) > 0 && values[0] == "close"
}
