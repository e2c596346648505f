package broker

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/source/sts"
	"keyfob/profiles"
)

// pipes is a network inside a bubble: real HTTP over connections in memory,
// so that a minute without an answer takes no time.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	cut   atomic.Bool
}

func (p *pipes) setCut(on bool) { p.cut.Store(on) }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.done) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if p.cut.Load() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("network is unreachable")}
	}
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.done:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("no way")}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// realSources are the sources that the daemon uses.
type realSources struct{ deps sts.Deps }

func (r realSources) For(l profiles.Link) (cred.Source, error) { return sts.New(l, r.deps) }

// aRig is a broker over the real sts source and a fake AWS, in a bubble.
type aRig struct {
	*testing.T
	aws  *fakeaws.Server
	b    *Broker
	net  *pipes
	role string

	id, secret string // of the user
}

func realBubble(t *testing.T, f func(a *aRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := &aRig{T: t, aws: fakeaws.New()}
		id, secret := a.aws.AddUser(fakeaws.UserSpec{Name: "alice"})
		a.id, a.secret = id, secret
		a.role = a.aws.AddRole(fakeaws.RoleSpec{Name: "deploy", Account: "222233334444", MaxSessionDuration: 43200})
		wire := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		a.net = wire
		srv := &http.Server{Handler: a.aws.Handler()}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = srv.Serve(wire)
		}()
		pool := awsclient.NewPool(awsclient.PoolConfig{Dial: wire.dial, Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }})
		client := profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"sts": "http://sts.test"}}
		base := profiles.Link{Kind: profiles.KindStaticKeys, Profile: "dev", Params: map[string]string{"aws_access_key_id": id, "layer": string(profiles.FromKeystore)}}
		role := profiles.Link{Kind: profiles.KindAssumeRole, Profile: "dev", RoleARN: a.role, Client: client,
			Params: map[string]string{"role_arn": a.role}}
		vault := newStore()
		vault.m[sts.KeyRecord("dev")] = sts.EncodeKeys(cred.Credentials{AccessKeyID: id, SecretAccessKey: cred.NewSecret(secret)}).Reveal()
		a.b = New(Config{Sources: realSources{sts.Deps{Store: vault, Pool: pool, User: "tester", Skew: func(d time.Duration) { a.b.SetSkew(d) }}},
			Store: vault, Rules: rules{}})
		a.b.SetProfiles(set{}.add("dev", base, role))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = a.b.Run(ctx)
		}()
		defer func() {
			cancel()
			<-done
			pool.CloseIdle()
			_ = srv.Close()
			<-served
		}()
		f(a)
	})
}

func (a *aRig) get() (*cred.Snapshot, error) {
	ctx, cancel := context.WithTimeout(a.Context(), 55*time.Second)
	defer cancel()
	return a.b.Get(ctx, cred.Request{Caller: self, Profile: "dev"})
}

func (a *aRig) must() *cred.Snapshot {
	a.Helper()
	s, err := a.get()
	if err != nil {
		a.Fatal(err)
	}
	return s
}

// lastError is the one line that status shows.
func (a *aRig) lastError() string { return a.b.Sessions()[0].LastError }

// Whatever an upstream answers: one clear line in status, the good
// credential kept to its end, no spin, and all is well once it is.
func TestBadAnswersOfARealUpstream(t *testing.T) {
	t.Run("AssumeRole", func(t *testing.T) { badAnswers(t, "AssumeRole") })
	t.Run("GetSessionToken", func(t *testing.T) { badAnswers(t, "GetSessionToken") })
}

func badAnswers(t *testing.T, op string) {
	for _, c := range []struct {
		name  string
		fault fakeaws.Fault
		says  string // in the last error
	}{
		{"garbage", fakeaws.Fault{Kind: fakeaws.Garbage}, "answered with a web page"},
		{"garbage, no page", fakeaws.Fault{Kind: fakeaws.Garbage, Body: "\x00\x01{{{" + strings.Repeat("z", 5000)}, "answered with a web page"},
		{"empty", fakeaws.Fault{Kind: fakeaws.Empty}, "holds no credentials"},
		{"half", fakeaws.Fault{Kind: fakeaws.Half}, "sent half an answer"},
		{"late", fakeaws.Fault{Kind: fakeaws.Late}, "closed the connection without an answer"},
		{"past expiry", fakeaws.Fault{Kind: fakeaws.PastExpiry}, "ended at"},
		{"expiry in a year", fakeaws.Fault{Kind: fakeaws.FarExpiry}, "longer than any session of AWS"},
		{"another account", fakeaws.Fault{Kind: fakeaws.WrongAccount}, "in another account"},
		{"redirect", fakeaws.Fault{Kind: fakeaws.Redirect, Location: "http://elsewhere.test/"}, "redirects (HTTP 307) to elsewhere.test"},
		{"error in 200", fakeaws.Fault{Kind: fakeaws.ErrorIn200}, ""},
		{"refused", fakeaws.Fault{Kind: fakeaws.Error, Status: 403, Code: "AccessDenied", Message: "User: x is not authorized"}, "AWS denies it"},
		{"throttled", fakeaws.Fault{Kind: fakeaws.Throttle}, "limits the rate"},
		{"500", fakeaws.Fault{Kind: fakeaws.Fail500}, "an error of its own"},
		{"nothing", fakeaws.Fault{Kind: fakeaws.Hang}, "did not answer in time"},
		{"nothing for a minute", fakeaws.Fault{Kind: fakeaws.Hang, Seconds: 60}, "did not answer in time"},
		{"dropped", fakeaws.Fault{Kind: fakeaws.Drop}, "closed the connection without an answer"},
	} {
		if op == "GetSessionToken" && c.fault.Kind == fakeaws.WrongAccount {
			continue // its answer names no account
		}
		t.Run(c.name, func(t *testing.T) {
			realBubble(t, func(a *aRig) {
				begins := "cannot assume role " + a.role
				if op == "GetSessionToken" {
					begins = "cannot get a session for the access key " + a.id
					chain := a.b.resolver.(set)["dev"].Chain
					a.b.SetProfiles(set{}.add("dev", chain[0], profiles.Link{Kind: profiles.KindSessionToken, Profile: "dev",
						Client: chain[1].Client, Params: map[string]string{"duration_seconds": "7200"}}))
				}
				// Cold: the caller is told, whatever it is.
				a.aws.SetFaults(c.fault)
				_, err := a.get()
				if err == nil || !strings.HasPrefix(err.Error(), begins) && !strings.HasPrefix(err.Error(), "cannot use the answer") ||
					!strings.Contains(err.Error(), c.says) || strings.ContainsAny(err.Error(), "\n\r\x00") || len(err.Error()) > 500 {
					t.Errorf("cold: %v", err)
				}
				if got := a.lastError(); err == nil || got != err.Error() {
					t.Errorf("status says %q", got)
				}
				if s, ok := a.b.Peek("dev"); ok {
					t.Fatalf("it is handed out until %v", s.Expires)
				}
				a.aws.SetFaults()
				a.b.Wake("dev")
				good := a.must()

				// Hot: nothing is felt.
				a.aws.SetFaults(c.fault)
				a.aws.ResetCalls()
				for time.Until(good.Expires) > 2*time.Minute {
					if s := a.must(); s != good {
						t.Fatalf("another one: %v", s.Expires)
					}
					time.Sleep(time.Minute)
				}
				if n := a.aws.Count(op); n < 15 || n > 55 {
					t.Errorf("%d attempts in the time after it was due", n)
				}
				if got := a.lastError(); !strings.Contains(got, c.says) {
					t.Errorf("status says %q", got)
				}
				for time.Until(good.Expires) > -time.Second {
					_, _ = a.get()
					time.Sleep(time.Second)
				}
				if _, err := a.get(); err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("after its end: %v", err)
				}
				a.aws.SetFaults()
				time.Sleep(2 * time.Minute) // a hanging attempt, and the longest pause
				before := a.aws.Count(op)
				a.must()
				if a.aws.Count(op) != before {
					t.Error("it was not back before somebody asked")
				}
				if got := a.lastError(); got != "" {
					t.Errorf("%q stays", got)
				}
			})
		})
	}
}

// A role over a role lasts an hour at most, whatever its profile says: two
// calls an hour keep it.
func TestRoleChainingLimit(t *testing.T) {
	realBubble(t, func(a *aRig) {
		second := a.aws.AddRole(fakeaws.RoleSpec{Name: "second", Account: "222233334444", MaxSessionDuration: 43200})
		p := a.b.resolver.(set)["dev"]
		first := p.Chain[1]
		first.Params = map[string]string{"role_arn": a.role, "duration_seconds": "43200"}
		l := first
		l.RoleARN, l.Params = second, map[string]string{"role_arn": second, "duration_seconds": "43200"}
		a.b.SetProfiles(set{}.add("dev", p.Chain[0], first, l))
		for range 24 * 6 {
			if left := time.Until(a.must().Expires); left > time.Hour || left < 26*time.Minute {
				t.Fatalf("%v left", left)
			}
			time.Sleep(10 * time.Minute)
		}
		counts := map[string]int{}
		for _, c := range a.aws.Calls("AssumeRole") {
			counts[c.Params["RoleArn"]]++
		}
		if n := counts[second]; n < 48 || n > 58 {
			t.Errorf("%d calls a day for an hour's role", n)
		}
		if n := counts[a.role]; n < 3 || n > 5 {
			t.Errorf("%d calls a day for the twelve hours below it", n)
		}
	})
}

// The clock of this machine is wrong: the first answer says by how much.
func TestWrongClockWithARealUpstream(t *testing.T) {
	for _, off := range []time.Duration{-26 * time.Hour, -2 * time.Hour, 2 * time.Hour, 26 * time.Hour} {
		realBubble(t, func(a *aRig) {
			a.aws.SetClock(off)
			for i := 0; ; i++ {
				if _, err := a.get(); err == nil {
					break
				} else if i > 3 {
					t.Fatalf("%v: %v", off, err)
				}
				time.Sleep(2 * time.Second) // the first was signed with our time
			}
			begin := a.aws.Count("AssumeRole")
			for range 60 {
				s := a.must()
				if left := time.Until(s.Expires); left > time.Hour+time.Minute || left < 26*time.Minute {
					t.Fatalf("%v: %v left by the clock that clients judge by", off, left)
				}
				time.Sleep(10 * time.Minute)
			}
			if n := a.aws.Count("AssumeRole") - begin; n > 26 {
				t.Errorf("%v: %d calls in ten hours", off, n)
			}
			if d := a.b.Sessions()[0].Skew - off; d < -2*time.Second || d > 2*time.Second {
				t.Errorf("status says %v, not %v", a.b.Sessions()[0].Skew, off)
			}
		})
	}
}

// With the real source: no way for the better part of an hour, then a way.
func TestNetworkReturnsToARealSource(t *testing.T) {
	realBubble(t, func(a *aRig) {
		a.must()
		a.net.setCut(true)
		time.Sleep(50 * time.Minute)
		if got := a.lastError(); !strings.Contains(got, "cannot assume role") {
			t.Errorf("status says %q", got)
		}
		a.net.setCut(false)
		back := time.Now()
		time.Sleep(10 * time.Second)
		if s, ok := a.b.Peek("dev"); !ok || s.Fetched.Before(back) {
			t.Error("not fresh within 10 s")
		}
		if got := a.lastError(); got != "" {
			t.Errorf("%q stays", got)
		}
	})
}
