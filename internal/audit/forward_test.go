package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// rfc5424 is the grammar of RFC 5424 section 6, with STRUCTURED-DATA as
// NILVALUE alone, which is all that we send.
var rfc5424 = regexp.MustCompile(`^<(0|[1-9][0-9]{0,2})>([1-9][0-9]{0,2}) ` +
	`(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:Z|[+-]\d{2}:\d{2})) ` +
	`(-|[\x21-\x7e]{1,255}) (-|[\x21-\x7e]{1,48}) (-|[\x21-\x7e]{1,128}) (-|[\x21-\x7e]{1,32}) (-)(?: (.*))?$`)

// parsed is a message that was read strictly.
type parsed struct {
	priority int
	id       string
	entry    entry
}

func parse5424(t *testing.T, message string) (p parsed) {
	t.Helper()
	m := rfc5424.FindStringSubmatch(message)
	if m == nil {
		t.Fatalf("no message of RFC 5424: %q", message)
	}
	if _, err := time.Parse(time.RFC3339Nano, m[3]); err != nil || m[2] != "1" {
		t.Fatalf("version %s, time %v", m[2], err)
	}
	p.priority, _ = strconv.Atoi(m[1])
	p.id = m[7]
	if p.priority > 191 || m[5] != "keyfobd" || m[6] != strconv.Itoa(os.Getpid()) {
		t.Fatalf("%q", m)
	}
	for _, c := range []byte(m[9]) {
		if c >= 0x80 {
			t.Fatalf("MSG is not ASCII: %q", m[9])
		}
	}
	var ok bool
	if p.entry, ok = decode([]byte(m[9])); !ok {
		t.Fatalf("MSG is no entry: %q", m[9])
	}
	return p
}

// octets reads a frame of RFC 6587 section 3.4.1.
func octets(r *bufio.Reader) (string, error) {
	length, err := r.ReadString(' ')
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
	if err != nil || n <= 0 || length[0] == '0' {
		return "", fmt.Errorf("the length %q", length)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return string(b), err
}

// recording runs a log with a forwarder to sink and returns what records.
func recording(t *testing.T, sink Sink) (*Log, *Forwarder, func()) {
	t.Helper()
	f := NewForwarder(nil, sink)
	l := Open(Config{Path: filepath.Join(t.TempDir(), "audit.jsonl"), Forward: f.Forward, Users: func(string) string { return "zoë 🦊" }})
	ctx, cancel := context.WithCancel(context.Background())
	forwarding, end := context.WithCancel(context.Background())
	var wg, after sync.WaitGroup
	wg.Go(func() { _ = l.Run(ctx) })
	after.Go(func() { _ = f.Run(forwarding) })
	stop := sync.OnceFunc(func() { cancel(); wg.Wait(); end(); after.Wait() })
	t.Cleanup(stop)
	return l, f, stop
}

func handOutOf(profile string) cred.Event {
	return cred.Event{Kind: cred.EventHandOut, Profile: profile, Via: cred.Endpoint{Kind: cred.ViaProcess}, Caller: peer.Caller{UID: "1000"}, AccessKeyID: "ASIAEXAMPLE"}
}

// TestSyslog: strict RFC 5424 by every way there is.
func TestSyslog(t *testing.T) {
	for _, network := range []string{"unixgram", "unix", "udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.HasPrefix(network, "unix") {
				t.Skip("no such sockets here")
			}
			messages := make(chan string, 100)
			address := listenSyslog(t, network, messages)
			sink, err := NewSyslog(address)
			if err != nil {
				t.Fatal(err)
			}
			l, f, _ := recording(t, sink)
			l.Record(handOutOf("app ünïcode"))
			l.Record(cred.Event{Kind: cred.EventRefusal, Profile: "x", Caller: peer.Caller{UID: "1001"}, Reason: "line\nfeed"})
			seen := map[string]parsed{}
			for range 2 {
				select {
				case m := <-messages:
					p := parse5424(t, m)
					seen[p.id] = p
				case <-time.After(10 * time.Second):
					t.Fatalf("no message; %+v", f.Deliveries())
				}
			}
			if p := seen["handout"]; p.priority != 10*8+6 || p.entry.Profile != "app ünïcode" || p.entry.Caller.User != "zoë 🦊" {
				t.Errorf("%+v", p)
			}
			if p := seen["refusal"]; p.priority != 10*8+4 || p.entry.Reason != "line\nfeed" {
				t.Errorf("%+v", p)
			}
		})
	}
}

func listenSyslog(t *testing.T, network string, messages chan<- string) (address string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	switch network {
	case "unixgram", "udp":
		at := "127.0.0.1:0"
		if network == "unixgram" {
			at = path
		}
		c, err := net.ListenPacket(network, at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			b := make([]byte, 64<<10)
			for {
				n, _, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				messages <- string(b[:n])
			}
		}()
		if network == "udp" {
			return "udp://" + c.LocalAddr().String()
		}
		return "unix://" + path
	}
	at := "127.0.0.1:0"
	if network == "unix" {
		at = path
	}
	l, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					m, err := octets(r)
					if err != nil {
						return
					}
					messages <- m
				}
			}()
		}
	}()
	if network == "unix" {
		return "unix://" + path
	}
	return "tcp://" + l.Addr().String()
}

// TestSyslogComesBack: a server that was restarted gets what it missed.
func TestSyslogComesBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	sink, err := NewSyslog("tcp://" + at)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	line := Line{Time: time.Now(), Event: "handout", JSON: `{"version":1,"event":"handout","previous":"x"}`}
	accept := func(l net.Listener) net.Conn {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if n, _, err := sink.Send(t.Context(), []Line{line}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	c := accept(l)
	if _, err := octets(bufio.NewReader(c)); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	_ = l.Close()
	if n, _, err := sink.Send(t.Context(), []Line{line, line}); n != 0 || err == nil {
		t.Fatalf("sent to nobody: %d, %v", n, err)
	}
	if l, err = net.Listen("tcp", at); err != nil {
		t.Skipf("the port was taken meanwhile: %v", err)
	}
	defer l.Close()
	if n, _, err := sink.Send(t.Context(), []Line{line, line}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	r := bufio.NewReader(accept(l))
	for range 2 {
		if m, err := octets(r); err != nil {
			t.Fatal(err)
		} else {
			parse5424(t, m)
		}
	}
}

// collector is an OTLP collector that reads strictly.
type collector struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
	answer func(n int, w http.ResponseWriter) bool // true: it has answered
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	n := 0
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m struct {
			ResourceLogs []struct {
				Resource struct {
					Attributes []struct {
						Key   string
						Value struct{ StringValue *string }
					}
				}
				ScopeLogs []struct {
					Scope      struct{ Name, Version string }
					LogRecords []struct {
						TimeUnixNano, ObservedTimeUnixNano, SeverityText string
						SeverityNumber                                   int
						Body                                             struct{ StringValue *string }
						Attributes                                       []struct {
							Key   string
							Value struct{ StringValue *string }
						}
					}
				}
			}
		}
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&m); err != nil || r.Method != "POST" || r.Header.Get("Content-Type") != "application/json" || len(m.ResourceLogs) != 1 {
			t.Errorf("%s %s: %v", r.Method, r.Header, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		n++
		if c.answer != nil && c.answer(n, w) {
			return
		}
		for _, rec := range m.ResourceLogs[0].ScopeLogs[0].LogRecords {
			if ns, err := strconv.ParseInt(rec.TimeUnixNano, 10, 64); err != nil || time.Since(time.Unix(0, ns)) > time.Hour || rec.SeverityNumber == 0 || rec.Body.StringValue == nil {
				t.Errorf("%+v", rec)
				continue
			}
			c.bodies = append(c.bodies, *rec.Body.StringValue)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"partialSuccess":{}}`)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) got() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.bodies...)
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) { // another goroutine's work
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestOTLP(t *testing.T) {
	c := newCollector(t)
	c.answer = func(n int, w http.ResponseWriter) bool {
		if n == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return n == 1
	}
	l, f, stop := recording(t, NewOTLP(c.URL+"/v1/logs", "1.2.3"))
	l.Record(handOutOf("app"))
	waitFor(t, "no record", func() bool { return len(c.got()) == 1 })
	if e, ok := decode([]byte(c.got()[0])); !ok || e.Profile != "app" {
		t.Errorf("%q", c.got())
	}
	l.Record(handOutOf("last")) // what is recorded at the end goes out too
	stop()
	if got := c.got(); len(got) != 2 {
		t.Errorf("%d records at the end", len(got))
	}
	if d := f.Deliveries()[0]; d.Sent != 2 || d.Dropped != 0 || d.Error != "" {
		t.Errorf("%+v", d)
	}
}

// TestOTLPRefusals: what a collector does not want is counted and not sent for
// ever; a redirect is not followed.
func TestOTLPRefusals(t *testing.T) {
	lines := []Line{{Event: "handout", JSON: "{}", Time: time.Now()}, {Event: "handout", JSON: "{}", Time: time.Now()}}
	var elsewhere atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Store(true) }))
	defer other.Close()
	for _, x := range []struct {
		status         int
		body, header   string
		sent, rejected int
		fails          bool
	}{
		{200, `{}`, "", 2, 0, false},
		{200, `{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}`, "", 2, 1, false},
		{200, `{"partialSuccess":{"rejectedLogRecords":7}}`, "", 2, 2, false},
		{400, ``, "", 2, 2, false},
		{401, ``, "", 0, 0, true},
		{429, ``, "", 0, 0, true},
		{307, ``, other.URL, 0, 0, true},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if x.header != "" {
				w.Header().Set("Location", x.header)
			}
			w.WriteHeader(x.status)
			_, _ = io.WriteString(w, x.body)
		}))
		sink := NewOTLP(s.URL, "1")
		sent, rejected, err := sink.Send(t.Context(), lines)
		if sent != x.sent || rejected != x.rejected || (err != nil) != x.fails {
			t.Errorf("%d %s: %d, %d, %v", x.status, x.body, sent, rejected, err)
		}
		sink.Close()
		s.Close()
	}
	if elsewhere.Load() {
		t.Error("a redirect was followed")
	}
}

func TestJournal(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such sockets here")
	}
	path := filepath.Join(t.TempDir(), "socket")
	c, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, _, _ := recording(t, NewJournal(path))
	l.Record(handOutOf("app"))
	b := make([]byte, 64<<10)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := c.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for _, line := range strings.Split(strings.TrimSuffix(string(b[:n]), "\n"), "\n") {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Fatalf("%q", line)
		}
		fields[name] = value
	}
	if e, ok := decode([]byte(fields["MESSAGE"])); !ok || e.Profile != "app" || fields["PRIORITY"] != "6" || fields["KEYFOB_EVENT"] != "handout" || len(fields["MESSAGE_ID"]) != 32 {
		t.Errorf("%q", fields)
	}
}
