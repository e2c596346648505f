//go:build linux || darwin

package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if server := os.Getenv("CONTROL_TEST_LISTEN"); server != "" {
		listenAsOther(server)
		return
	}
	goleak.VerifyTestMain(m)
}

// serve listens on a socket of its own and runs handle on each connection.
func serve(t *testing.T, handle func(net.Conn)) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return socket
}

// serveCalls runs answer for each request of each connection.
func serveCalls(t *testing.T, answer func(*ServerConn, Request)) string {
	return serve(t, func(conn net.Conn) {
		s := NewServerConn(conn)
		if _, err := s.Handshake(Hello{Version: "1.2.3", PID: 42}); err != nil {
			return
		}
		for {
			r, err := s.ReadRequest(5 * time.Second)
			if err != nil {
				return
			}
			answer(s, r)
		}
	})
}

func dialTest(t *testing.T, socket string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	c.Version = "1.2.4"
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestCall(t *testing.T) {
	socket := serveCalls(t, func(s *ServerConn, r Request) {
		var p ProfileParams
		if err := json.Unmarshal(r.Params, &p); err != nil {
			t.Error(err)
		}
		switch p.Profile {
		case "bad":
			_ = s.WriteReply(r.ID, nil, &Error{Code: CodeDenied, Message: "cannot do it", Hint: "ask"})
		default:
			_ = s.WriteReply(r.ID, LoginResult{Profile: r.Method + " " + p.Profile}, nil)
		}
	})
	c := dialTest(t, socket)
	ctx := within(t, 10*time.Second)
	for _, profile := range []string{"a", "b"} { // one connection, several calls
		var r LoginResult
		if err := c.Call(ctx, MethodLogin, ProfileParams{Context{Profile: profile}}, &r, nil); err != nil || r.Profile != "login "+profile {
			t.Fatalf("got %+v, %v", r, err)
		}
	}
	if h := c.Server(); h.Version != "1.2.3" || h.PID != 42 || h.Keyfob != Version {
		t.Errorf("the daemon's hello is %+v", h)
	}
	var e *Error
	err := c.Call(ctx, MethodLogin, ProfileParams{Context{Profile: "bad"}}, nil, nil)
	if !errors.As(err, &e) || e.Code != CodeDenied || e.Message != "cannot do it" || e.Hint != "ask" {
		t.Fatalf("got %v", err)
	}
	var raw json.RawMessage
	if err := c.Call(ctx, MethodStatus, ProfileParams{Context{Profile: "z"}}, &raw, nil); err != nil || string(raw) != `{"profile":"status z"}` {
		t.Fatalf("after an error reply the connection gave %s, %v", raw, err)
	}
}

// One write each way is one wake-up each way: the client's two lines come
// together, and so do the daemon's.
func TestOneWriteEachWay(t *testing.T) {
	reads := make(chan string, 1)
	socket := serve(t, func(conn net.Conn) {
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Error(err)
		}
		reads <- string(b[:n])
		_, _ = conn.Write([]byte(`{"keyfob":1,"version":"x","pid":7}` + "\n" + `{"id":1,"result":{}}` + "\n"))
	})
	c := dialTest(t, socket)
	if err := c.Call(within(t, 5*time.Second), MethodStatus, Empty{}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := <-reads, `{"keyfob":1,"version":"1.2.4"}`+"\n"+`{"id":1,"method":"status","params":{}}`+"\n"; got != want {
		t.Errorf("the first read gave %q, want %q", got, want)
	}

	var writes countingConn
	s := NewServerConn(&writes)
	writes.in.WriteString(`{"keyfob":1,"version":"1"}` + "\n" + `{"id":1,"method":"status"}` + "\n")
	if _, err := s.Handshake(Hello{Version: "1"}); err != nil {
		t.Fatal(err)
	}
	r, err := s.ReadRequest(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WriteReply(r.ID, Empty{}, nil); err != nil {
		t.Fatal(err)
	}
	if writes.n != 1 || strings.Count(writes.out.String(), "\n") != 2 {
		t.Errorf("the daemon wrote %d times: %q", writes.n, writes.out.String())
	}
}

type countingConn struct {
	in, out bytes.Buffer
	n       int
}

func (c *countingConn) Read(b []byte) (int, error)         { return c.in.Read(b) }
func (c *countingConn) Write(b []byte) (int, error)        { c.n++; return c.out.Write(b) }
func (c *countingConn) Close() error                       { return nil }
func (c *countingConn) SetReadDeadline(_ time.Time) error  { return nil }
func (c *countingConn) SetWriteDeadline(_ time.Time) error { return nil }

// A client that waits for the daemon's hello before it asks gets it.
func TestHelloAlone(t *testing.T) {
	socket := serveCalls(t, func(*ServerConn, Request) {})
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte(`{"keyfob":1}` + "\n")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := conn.Read(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), `{"keyfob":1,`) {
		t.Fatalf("got %q, %v", b[:n], err)
	}
}

func TestPrompts(t *testing.T) {
	socket := serveCalls(t, func(s *ServerConn, r Request) {
		ctx, stop := s.Watch(context.Background())
		defer func() { stop(); _ = s.WriteReply(r.ID, Empty{}, nil) }()
		_ = s.WriteEvent(Event{ID: r.ID, Event: EventNotice, Notice: "hello"})
		for _, id := range []string{"i1", "i2"} {
			_ = s.WriteEvent(Event{ID: r.ID, Event: EventPrompt, Prompt: &Prompt{Interaction: id}})
			a, err := s.ReadAnswer(ctx)
			if err != nil || a.Interaction != id || a.Value != "code "+id || a.ID != r.ID {
				t.Errorf("the answer to %s is %+v, %v", id, a, err)
			}
		}
	})
	c := dialTest(t, socket)
	var notices []string
	err := c.Call(within(t, 5*time.Second), MethodLogin, Empty{}, nil, func(e Event) (*Answer, error) {
		if e.Event == EventNotice {
			notices = append(notices, e.Notice)
			return nil, nil
		}
		return &Answer{Value: "code " + e.Prompt.Interaction}, nil
	})
	if err != nil || len(notices) != 1 || notices[0] != "hello" {
		t.Fatalf("got %v, %v", notices, err)
	}
}

// A new question settles the one before, whose answer (a browser's redirect,
// somebody at another terminal) came by another way.
func TestPromptSettledByTheNext(t *testing.T) {
	asked := make(chan struct{})
	socket := serveCalls(t, func(s *ServerConn, r Request) {
		ctx, stop := s.Watch(context.Background())
		defer func() { stop(); _ = s.WriteReply(r.ID, Empty{}, nil) }()
		_ = s.WriteEvent(Event{ID: r.ID, Event: EventPrompt, Prompt: &Prompt{Interaction: "browser", Kind: PromptBrowser}})
		<-asked
		_ = s.WriteEvent(Event{ID: r.ID, Event: EventNotice, Notice: "a notice settles nothing"})
		_ = s.WriteEvent(Event{ID: r.ID, Event: EventPrompt, Prompt: &Prompt{Interaction: "mfa", Kind: PromptMFA}})
		if a, err := s.ReadAnswer(ctx); err != nil || a.Interaction != "mfa" || a.Value != "123456" {
			t.Errorf("the answer is %+v, %v", a, err)
		}
	})
	noticed, settled := false, false
	err := dialTest(t, socket).Do(within(t, 5*time.Second), MethodLogin, Empty{}, nil, func(ctx context.Context, e Event) (*Answer, error) {
		switch {
		case e.Event == EventNotice:
			noticed = true
		case e.Prompt.Kind == PromptBrowser:
			close(asked)
			<-ctx.Done()
			settled = true
			return &Answer{Value: AnswerNoBrowser}, nil // too late to be sent
		default:
			return &Answer{Value: "123456"}, nil
		}
		return nil, nil
	})
	if err != nil || !noticed || !settled {
		t.Fatalf("got %v, noticed %v, settled %v", err, noticed, settled)
	}
}

// Somebody else answers while the person here is asked: the call ends, and
// the handler is told.
func TestPromptSettledElsewhere(t *testing.T) {
	asked := make(chan struct{})
	socket := serveCalls(t, func(s *ServerConn, r Request) {
		if r.Method == MethodLogin {
			_ = s.WriteEvent(Event{ID: r.ID, Event: EventPrompt, Prompt: &Prompt{Interaction: "i"}})
			<-asked
		}
		_ = s.WriteReply(r.ID, Empty{}, nil)
	})
	c := dialTest(t, socket)
	told := false
	err := c.Do(within(t, 5*time.Second), MethodLogin, Empty{}, nil, func(ctx context.Context, e Event) (*Answer, error) {
		close(asked)
		<-ctx.Done()
		told = true
		return nil, ctx.Err()
	})
	if err != nil || !told {
		t.Fatalf("got %v, told %v", err, told)
	}
	if err := c.Call(within(t, 5*time.Second), MethodVersion, Empty{}, nil, func(Event) (*Answer, error) { return &Answer{Refused: true}, nil }); err != nil {
		t.Fatalf("the next call on the connection: %v", err)
	}
}

func TestHandlerErrorEndsTheCall(t *testing.T) {
	gone := make(chan error, 1)
	socket := serveCalls(t, func(s *ServerConn, r Request) {
		ctx, stop := s.Watch(context.Background())
		defer stop()
		_ = s.WriteEvent(Event{ID: r.ID, Event: EventPrompt, Prompt: &Prompt{Interaction: "i"}})
		<-ctx.Done()
		gone <- ctx.Err()
	})
	c := dialTest(t, socket)
	want := errors.New("no terminal")
	err := c.Call(within(t, 5*time.Second), MethodLogin, Empty{}, nil, func(Event) (*Answer, error) { return nil, want })
	if !errors.Is(err, want) {
		t.Fatalf("got %v", err)
	}
	_ = c.Close()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Fatal("the daemon does not see that its client has gone")
	}
}

func TestNoHandler(t *testing.T) {
	socket := serveCalls(t, func(s *ServerConn, r Request) {
		_ = s.WriteEvent(Event{ID: r.ID, Event: EventPrompt, Prompt: &Prompt{Interaction: "i"}})
	})
	var e *Error
	if err := dialTest(t, socket).Call(within(t, 5*time.Second), MethodLogin, Empty{}, nil, nil); !errors.As(err, &e) || e.Code != CodeInteraction {
		t.Fatalf("got %v", err)
	}
}

// ReadAnswer without Watch ends with its context, and a line half read then
// is not lost.
func TestReadAnswerContext(t *testing.T) {
	done := make(chan error, 1)
	socket := serveCalls(t, func(s *ServerConn, r Request) {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, err := s.ReadAnswer(ctx)
		_ = s.WriteEvent(Event{ID: r.ID, Event: EventNotice, Notice: "go on"})
		a, err2 := s.ReadAnswer(context.Background())
		if err2 != nil || a.Value != "xy" {
			t.Errorf("the answer is %+v, %v", a, err2)
		}
		_ = s.WriteReply(r.ID, Empty{}, nil)
		done <- err
	})
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(`{"keyfob":1}` + "\n" + `{"id":1,"method":"login"}` + "\n" + `{"id":1,"interaction":"i","val`))
	lines := lineReader{r: conn}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := lines.next(); err != nil { // hello
		t.Fatal(err)
	}
	if line, err := lines.next(); err != nil || !bytes.Contains(line, []byte("go on")) {
		t.Fatalf("got %s, %v", line, err)
	}
	_, _ = conn.Write([]byte(`ue":"xy"}` + "\n"))
	if line, err := lines.next(); err != nil || string(line) != `{"id":1,"result":{}}` {
		t.Fatalf("got %s, %v", line, err)
	}
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the first ReadAnswer gave %v", err)
	}
}

func TestLateAnswerIsPassedOver(t *testing.T) {
	socket := serveCalls(t, func(s *ServerConn, r Request) { _ = s.WriteReply(r.ID, Empty{}, nil) })
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = conn.Write([]byte(`{"keyfob":1}` + "\n" + `{"id":1,"interaction":"i","value":"1"}` + "\n" + `{"id":2,"method":"status"}` + "\n"))
	lines := lineReader{r: conn}
	for _, want := range []string{`{"keyfob":1,"version":"1.2.3","pid":42}`, `{"id":2,"result":{}}`} {
		if line, err := lines.next(); err != nil || string(line) != want {
			t.Fatalf("got %s, %v, want %s", line, err, want)
		}
	}
}

func TestVersions(t *testing.T) {
	t.Run("daemon", func(t *testing.T) {
		for _, hello := range []string{`{"keyfob":2,"version":"9"}`, `{"hello":"http"}`, `GET / HTTP/1.1`} {
			var conn countingConn
			conn.in.WriteString(hello + "\n" + `{"id":1,"method":"status"}` + "\n")
			if _, err := NewServerConn(&conn).Handshake(Hello{Version: "1"}); !errors.Is(err, ErrProtocol) {
				t.Errorf("%s: got %v", hello, err)
			}
			if out := conn.out.String(); !strings.HasPrefix(out, `{"keyfob":1,`) || !strings.Contains(out, `"protocol"`) || strings.Count(out, "\n") != 2 {
				t.Errorf("%s was told %q", hello, out)
			}
		}
	})
	t.Run("client", func(t *testing.T) {
		for _, hello := range []string{`{"keyfob":2,"version":"9.0.0","pid":8}`, `HTTP/1.1 400 Bad Request`, `{"keyfob":0}`} {
			socket := serve(t, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = conn.Write([]byte(hello + "\n" + `{"id":1,"result":{}}` + "\n"))
			})
			var e *Error
			err := dialTest(t, socket).Call(within(t, 5*time.Second), MethodStatus, Empty{}, nil, nil)
			if !errors.As(err, &e) || e.Code != CodeProtocol {
				t.Errorf("%s: got %v", hello, err)
			}
		}
	})
}

func TestReadReply(t *testing.T) {
	const hello = `{"keyfob":1,"version":"x","pid":7}`
	var e *Error
	if result, done, err := ReadReply("y", []byte(hello), []byte(`{"id":1,"result":{"a":1}}`)); !done || err != nil || string(result) != `{"a":1}` {
		t.Errorf("a result: %s, %v, %v", result, done, err)
	}
	if _, done, err := ReadReply("y", []byte(hello), []byte(`{"id":1,"error":{"code":"denied","message":"m"}}`)); !done || !errors.As(err, &e) || e.Code != CodeDenied {
		t.Errorf("an error: %v, %v", done, err)
	}
	if _, done, err := ReadReply("y", []byte(hello), []byte(`{"id":1,"event":"notice","notice":"n"}`)); done || err != nil {
		t.Errorf("an event: %v, %v", done, err)
	}
	if _, done, err := ReadReply("y", []byte(`{"keyfob":2,"version":"9"}`), []byte(`{"id":1,"result":{}}`)); !done || !errors.As(err, &e) || e.Code != CodeProtocol {
		t.Errorf("another protocol: %v, %v", done, err)
	}
}

func TestBrokenServers(t *testing.T) {
	const hello = `{"keyfob":1,"version":"x","pid":1}` + "\n"
	for name, c := range map[string]struct {
		says string
		want error
		text string
	}{
		"silence":       {"", ErrGone, ""},
		"hello alone":   {hello, ErrGone, ""},
		"half a reply":  {hello + `{"id":1,"resu`, ErrGone, ""},
		"another id":    {hello + `{"id":9,"result":{}}` + "\n", nil, "for call 9"},
		"no JSON":       {hello + "secret-canary\n", nil, "not JSON"},
		"broken result": {hello + `{"id":1,"result":{"a":secret-canary}}` + "\n", nil, "not JSON"},
		"neither nor":   {hello + `{"id":1}` + "\n", nil, "not JSON"},
		"no end":        {hello + strings.Repeat("x", MaxLine+10) + "\n", ErrLineTooLong, ""},
		"many asked":    {hello + strings.Repeat(`{"id":1,"event":"prompt","prompt":{"interaction":"i"}}`+"\n", 400), ErrGone, ""},
	} {
		t.Run(name, func(t *testing.T) {
			socket := serve(t, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = conn.Write([]byte(c.says))
			})
			block := make(chan struct{})
			err := dialTest(t, socket).Do(within(t, 5*time.Second), MethodStatus, Empty{}, &Empty{}, func(ctx context.Context, _ Event) (*Answer, error) {
				select {
				case <-ctx.Done():
				case <-block:
				}
				return nil, ctx.Err()
			})
			switch {
			case err == nil:
				t.Fatal("no error")
			case c.want != nil && !errors.Is(err, c.want), !strings.Contains(err.Error(), c.text), strings.Contains(err.Error(), "canary"):
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	for _, socket := range []string{filepath.Join(dir, "none"), stale, filepath.Join(dir, "no", "dir")} {
		if _, err := Dial(t.Context(), socket); !errors.Is(err, ErrNotRunning) {
			t.Errorf("Dial(%s): %v", socket, err)
		}
	}
	if _, err := Dial(t.Context(), "/"+strings.Repeat("x", 200)); err == nil || errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a path that is too long: %v", err)
	}
}

func TestCallDeadline(t *testing.T) {
	release := make(chan struct{})
	socket := serveCalls(t, func(*ServerConn, Request) { <-release })
	defer close(release)
	c := dialTest(t, socket)
	if err := c.Call(within(t, 50*time.Millisecond), MethodStatus, Empty{}, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	c = dialTest(t, socket)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := c.Call(ctx, MethodStatus, Empty{}, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestServerLimits(t *testing.T) {
	got := make(chan error, 1)
	socket := serve(t, func(conn net.Conn) {
		s := NewServerConn(conn)
		if _, err := s.Handshake(Hello{}); err != nil {
			got <- err
			return
		}
		_, err := s.ReadRequest(time.Second)
		got <- err
	})
	for name, c := range map[string]struct {
		sends string
		want  error
	}{
		"too long": {`{"keyfob":1}` + "\n" + strings.Repeat("x", MaxLine+5000), ErrLineTooLong},
		"silent":   {`{"keyfob":1}` + "\n", os.ErrDeadlineExceeded},
	} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = conn.Write([]byte(c.sends)) }()
		if err := <-got; !errors.Is(err, c.want) {
			t.Errorf("%s: got %v", name, err)
		}
		_ = conn.Close()
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte(`{"keyfob":1}` + "\n"))
	_ = conn.Close()
	if err := <-got; !errors.Is(err, io.EOF) && !isHangUp(err) {
		t.Errorf("a client that goes away: %v", err)
	}
}

func TestLargestLine(t *testing.T) {
	big := strings.Repeat("x", MaxLine-100)
	socket := serveCalls(t, func(s *ServerConn, r Request) { _ = s.WriteReply(r.ID, big, nil) })
	var got string
	if err := dialTest(t, socket).Call(within(t, 10*time.Second), MethodStatus, Empty{}, &got, nil); err != nil || got != big {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	s := NewServerConn(&countingConn{})
	if err := s.WriteReply(1, big+strings.Repeat("x", 200), nil); !errors.Is(err, ErrLineTooLong) {
		t.Errorf("a reply that no client reads: %v", err)
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"1.2.3", "1.2.4", true}, {"1.2.4", "1.2.3", false}, {"1.2.3", "1.2.3", false},
		{"1.9.0", "1.10.0", true}, {"0.9.9", "1.0.0", true}, {"v1.0.0", "1.0.1", true},
		{"1.0.0-rc1", "1.0.0", true}, {"1.0.0", "1.0.0-rc1", false}, {"1.0.0-rc1", "1.0.0-rc2", true},
		{"1.0.0+a", "1.0.0+b", false},
		{"dev", "1.0.0", false}, {"1.0.0", "dev", false}, {"", "1.0.0", false}, {"1.0", "1.0.1", false},
	} {
		if got := Older(c.a, c.b); got != c.want {
			t.Errorf("Older(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

func FuzzLineReader(f *testing.F) {
	f.Add([]byte("a\nbc\n\nd"), uint8(1))
	f.Add([]byte("\n"), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		lines := lineReader{r: &slowReader{data: data, step: int(step%7) + 1}}
		var got []byte
		for {
			line, err := lines.next()
			if err != nil {
				if rest := data[len(got):]; (err == io.EOF) != (len(rest) == 0) {
					t.Fatalf("%v with %q left", err, rest)
				}
				return
			}
			got = append(append(got, line...), '\n')
			if !bytes.HasPrefix(data, got) {
				t.Fatalf("%q is no beginning of %q", got, data)
			}
		}
	})
}

type slowReader struct {
	data []byte
	step int
}

func (s *slowReader) Read(b []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(s.step, len(b))], s.data)
	s.data = s.data[n:]
	return n, nil
}

// TestAnswerThatIsTooLong: who waits for an answer that no line can hold is
// told so.
func TestAnswerThatIsTooLong(t *testing.T) {
	socket := serveCalls(t, func(c *ServerConn, r Request) {
		if err := c.WriteReply(r.ID, map[string]string{"x": strings.Repeat("x", MaxLine)}, nil); !errors.Is(err, ErrLineTooLong) {
			t.Errorf("%v", err)
		}
	})
	c, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var e *Error
	if err := c.Call(ctx, MethodStatus, Empty{}, nil, nil); !errors.As(err, &e) || e.Code != CodeFailed {
		t.Errorf("%v", err)
	}
}

// TestLimitOfLines: a server that limits lines takes none that is longer.
func TestLimitOfLines(t *testing.T) {
	socket := serve(t, func(conn net.Conn) {
		s := NewServerConn(conn)
		s.LimitLines(1000)
		if _, err := s.Handshake(Hello{}); err != nil {
			t.Error(err)
		}
		for _, want := range []error{nil, ErrLineTooLong} {
			if _, err := s.ReadRequest(5 * time.Second); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		if n := len(s.lines.buf); n > 1000+2*firstBuffer {
			t.Errorf("it holds %d bytes", n)
		}
	})
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte("{\"keyfob\":1}\n{\"id\":1,\"method\":\"" + strings.Repeat("m", 900) + "\"}\n" + strings.Repeat("x", 100<<10)))
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	_, _ = io.Copy(io.Discard, conn)
}
