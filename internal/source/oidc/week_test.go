package oidc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
)

// pipes is a listener whose connections are in memory, so that time is that
// of the bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.conns <- b:
		return a, nil
	case <-p.done:
		return nil, errors.New("gone")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bubble runs fn with a world in simulated time.
func bubble(t *testing.T, spec fakeaws.OIDCSpec, fn func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, aws: fakeaws.New(), vault: vault{m: map[string]cred.Secret{}}, url: "http://127.0.0.1", base: "http://127.0.0.1"}
		w.idp = &idp{aws: w.aws, next: w.aws.Handler(), canaries: &w.canaries}
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		server := &http.Server{Handler: w.idp}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		p := awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }, Dial: l.dial})
		w.set(spec, p)
		fn(w)
		w.noSecrets()
		p.CloseIdle()
		_ = server.Close()
		<-served
	})
}

// TestWeek: a role refreshed every 25 minutes for a week, with restarts, and
// a provider that is now and then away, asks a person once.
func TestWeek(t *testing.T) {
	t.Parallel()
	for _, rotate := range []bool{false, true} {
		t.Run(fmt.Sprintf("rotate=%v", rotate), func(t *testing.T) {
			t.Parallel()
			bubble(t, fakeaws.OIDCSpec{Rotate: rotate, SessionSeconds: 8 * 24 * 3600}, func(w *world) {
				w.idp.approved = true
				w.ask.does = waits(func(cred.Question) {})
				device := cred.Input{Signin: &cred.Signin{Device: true}}
				if _, err := w.fetchWith(w.link(), device); err != nil {
					t.Fatal(err)
				}
				begin, failed := time.Now(), 0
				for n := 1; time.Since(begin) < 7*24*time.Hour; n++ {
					if n%50 == 0 {
						w.restart()
					}
					if n%40 == 0 {
						w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Fail500, Action: "OIDCToken", Count: 2})
					}
					if n%60 == 0 {
						w.aws.RotateOIDCKeys("idp", true)
					}
					if n == 400 {
						w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Code: "IDPCommunicationError", Action: "AssumeRoleWithWebIdentity", Count: 1})
					}
					time.Sleep(25 * time.Minute)
					for {
						_, err := w.fetch()
						if err == nil {
							break
						}
						if upstreamError(t, err).Refused {
							t.Fatal(err)
						}
						failed++
						time.Sleep(time.Second)
					}
				}
				tokens := w.aws.Count("OIDCToken")
				if w.ask.count() != 1 || failed < 3 || tokens < 130 || tokens > 220 || w.aws.Count("reused:refresh_token") != 0 {
					t.Errorf("%d questions, %d failures, %d calls of the token endpoint, %d tokens reused", w.ask.count(), failed, tokens, w.aws.Count("reused:refresh_token"))
				}
				// And then the session ends.
				time.Sleep(24 * time.Hour)
				w.ask.does = nobody
				_, err := w.fetch()
				interaction(t, err)
			})
		})
	}
}

// TestShortTokens: ID tokens that live for less than a minute are used.
func TestShortTokens(t *testing.T) {
	t.Parallel()
	bubble(t, fakeaws.OIDCSpec{TokenSeconds: 50, Rotate: true}, func(w *world) {
		w.idp.approved = true
		w.ask.does = waits(func(cred.Question) {})
		if _, err := w.fetchWith(w.link(), cred.Input{Signin: &cred.Signin{Device: true}}); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			time.Sleep(10 * time.Minute)
			w.must()
			w.must("role_arn", w.roles[1])
		}
		if n := w.aws.Count("OIDCToken"); n != 6 {
			t.Errorf("%d calls of the token endpoint, want 6", n)
		}
	})
}

// TestLoginThatNothingProlongs: a person who comes to sign in while there is
// half an hour left at most is not sent away.
func TestLoginThatNothingProlongs(t *testing.T) {
	t.Parallel()
	bubble(t, fakeaws.OIDCSpec{NoRefreshToken: true}, func(w *world) {
		w.idp.approved = true
		w.ask.does = waits(func(cred.Question) {})
		login := cred.Input{Signin: &cred.Signin{Device: true}}
		for i, wait := range []time.Duration{0, 20 * time.Minute, 15 * time.Minute} {
			time.Sleep(wait)
			if _, err := w.fetchWith(w.link(), login); err != nil {
				t.Fatal(err)
			}
			if want := []int{1, 1, 2}[i]; w.ask.count() != want {
				t.Errorf("after %v: %d questions, want %d", wait, w.ask.count(), want)
			}
		}
		// --force.
		src := w.source(w.link()).(cred.SignInSource)
		w.deps.Sessions.Renew(src.AskKey())
		w.must() // no login: nobody is asked
		if _, err := w.fetchWith(w.link(), login); err != nil || w.ask.count() != 3 {
			t.Errorf("--force: %v, %d questions, want 3", err, w.ask.count())
		}
	})
}
