package metadata

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/profiles"
)

// wire is a network within the process, which can go.
type wire struct {
	conns chan net.Conn
	over  chan struct{}
	once  sync.Once
	down  bool
}

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.over:
		return nil, net.ErrClosed
	}
}
func (w *wire) Close() error   { w.once.Do(func() { close(w.over) }); return nil }
func (w *wire) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (w *wire) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if w.down {
		return nil, errors.New("network is unreachable")
	}
	a, b := net.Pipe()
	select {
	case w.conns <- b:
		return a, nil
	case <-w.over:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestWeek: an instance's and a container's credentials, got anew every half
// hour for a week, with the service away or in trouble each day: what is got
// has never ended, and is new when the service has new ones.
func TestWeek(t *testing.T) {
	const role = "arn:aws:iam::111122223333:role/box"
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("CANARY-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]profiles.Link{
		"instance":  imdsLink("ec2_metadata_service_endpoint", "http://127.0.0.1"),
		"container": linkOf(profiles.KindContainer, "full_uri", "http://127.0.0.1/container/task", "authorization_token_file", token),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				aws := fakeaws.New()
				aws.AddRole(fakeaws.RoleSpec{ARN: role})
				aws.SetInstance(fakeaws.InstanceSpec{Role: role})
				aws.AddContainer(fakeaws.ContainerSpec{Role: role, Token: "CANARY-token"})
				w := &wire{conns: make(chan net.Conn), over: make(chan struct{})}
				server := &http.Server{Handler: aws.Handler()}
				var serving sync.WaitGroup
				serving.Go(func() { _ = server.Serve(w) })
				defer serving.Wait()
				defer server.Close()
				s, err := New(l, Deps{})
				if err != nil {
					t.Fatal(err)
				}
				switch s := s.(type) {
				case *instance:
					s.c.dial = w.dial
				case *container:
					s.c.dial = w.dial
				}
				different, failures := map[string]bool{}, 0
				for n := 1; n <= 7*48; n++ {
					time.Sleep(30 * time.Minute)
					w.down = n%48 == 11
					if n%48 == 33 {
						aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Fail500, Count: 1})
					}
					c, err := s.Fetch(t.Context(), cred.Input{Profile: "dev"})
					if n%48 == 11 || n%48 == 33 {
						failures++
						fails(t, err, false)
						continue
					}
					if err != nil {
						t.Fatal(n, err)
					}
					different[c.AccessKeyID] = true
					if known, ok := aws.Session(c.AccessKeyID); !ok || !known.Expires.After(time.Now()) || time.Until(c.Expires) < 25*time.Minute {
						t.Fatalf("AWS knows %+v, until %v", known, c.Expires)
					}
				}
				if len(different) < 26 || len(different) > 40 || failures != 14 {
					t.Errorf("%d different sessions, %d failures", len(different), failures)
				}
			})
		})
	}
}
