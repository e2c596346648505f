package imds

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"keyfob/internal/peer"
)

// TestSecureSlow: a handshake has five seconds, whatever comes in drops; one
// that is under way does not hold up the end of the server.
func TestSecureSlow(t *testing.T) {
	t.Parallel()
	s := newSecure(t, nil)
	hello := clientHello(t)
	begin := time.Now()
	var all sync.WaitGroup
	for name, drip := range map[string]func(c net.Conn, i int) error{
		"silent":         func(net.Conn, int) error { return nil },
		"drop by drop":   func(c net.Conn, i int) error { _, err := c.Write(hello[i : i+1]); return err },
		"half a hello":   func(c net.Conn, i int) error { return once(c, i, hello[:len(hello)/2]) },
		"hello, no more": func(c net.Conn, i int) error { return once(c, i, hello) },
	} {
		all.Go(func() {
			c := dial(t, s.address)
			defer c.Close()
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				_, _ = io.Copy(io.Discard, c)
			}()
			for i := 0; ; i++ {
				if err := drip(c, i); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				select {
				case <-gone:
					if took := time.Since(begin); took < 4*time.Second || took > 9*time.Second {
						t.Errorf("%s: ended after %s", name, took)
					}
					return
				case <-time.After(100 * time.Millisecond):
				}
				if i == 90 {
					t.Errorf("%s: open after %s", name, time.Since(begin))
					return
				}
			}
		})
	}
	all.Wait()
}

func once(c net.Conn, i int, b []byte) error {
	if i > 0 {
		return nil
	}
	_, err := c.Write(b)
	return err
}

// clientHello is the first message of a handshake, as a client sends it.
func clientHello(t testing.TB) []byte {
	t.Helper()
	here, there := net.Pipe()
	go func() {
		_ = tls.Client(here, &tls.Config{ServerName: secureName}).Handshake()
	}()
	b := make([]byte, 16<<10)
	n, err := there.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	_ = there.Close()
	return b[:n]
}

// TestSecureCloses: what TLS says last holds up nobody, least of all whoever
// closes a connection to make room for another. Over a pipe every write waits
// for its reader.
func TestSecureCloses(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(c *conn){
		"Close":      func(c *conn) { _ = c.Close() },
		"CloseWrite": func(c *conn) { _ = c.CloseWrite() },
		"evict":      func(c *conn) { c.evict() },
	} {
		l := newPipes()
		s := newSecure(t, func(c *ContainerConfig) { c.Listener, c.identify = l, someone(peer.Self()) })
		p := l.dial(t)
		defer p.Close()
		client := tls.Client(p.Conn, s.config())
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for _, c := range s.server.limits.of(s.server) {
			end(c)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("%s takes %s when nobody reads", name, took)
		}
	}
}

// addressed is a listener whose connections come from the addresses named.
type addressed struct {
	*pipeListener
	from chan string
}

func (a *addressed) Accept() (net.Conn, error) {
	c, err := a.pipeListener.Accept()
	if err != nil {
		return nil, err
	}
	return fromAddress{c, <-a.from}, nil
}

// TestSecureTurns: however many handshakes one address asks for, another's
// waits for one of them at most.
func TestSecureTurns(t *testing.T) {
	t.Parallel()
	l := &addressed{newPipes(), make(chan string, 1)}
	s := newSecure(t, func(c *ContainerConfig) { c.Listener, c.identify, c.AllowUnidentified = l, nobody, true })
	line := s.server.limits.handshakes
	line <- struct{}{} // nobody gets on
	done := make(chan string, 100)
	begin := func(address string) {
		l.from <- address
		c := l.dial(t)
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			if err := tls.Client(c.Conn, s.config()).Handshake(); err != nil {
				address += ": " + err.Error()
			}
			done <- address
		}()
	}
	const many = 30
	for range many {
		begin("10.0.0.3")
	}
	begin("10.0.0.2")
	waiting := func() (n int) {
		for _, c := range s.server.limits.of(s.server) {
			if c.spare.Load() {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(4 * time.Second); waiting() < many+1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d wait", waiting())
		}
	}
	<-line
	for i := 1; ; i++ {
		address, failed, _ := strings.Cut(<-done, ": ")
		if failed != "" {
			t.Errorf("%s: %s", address, failed)
		}
		if address == "10.0.0.2" {
			if i > 5 { // two steps each, in turn
				t.Errorf("it came after %d others", i-1)
			}
			break
		}
	}
	for range many {
		<-done
	}
	line <- struct{}{} // nobody has kept it
	begin("10.0.0.2")
	for len(s.server.limits.of(s.server)) <= many+1 || waiting() == 0 {
		time.Sleep(time.Millisecond)
	}
	// The end of the server does not wait for it for longer than for a handshake.
}
