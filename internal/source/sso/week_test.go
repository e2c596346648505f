package sso

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/profiles"
)

// pipes is a network within the process, for tests in a bubble: connections
// are pipes to the fake AWS.
type pipes struct {
	conns chan net.Conn
	dials atomic.Int32
	once  sync.Once
	over  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.over) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.dials.Add(1)
	a, b := net.Pipe()
	select {
	case p.conns <- b:
		return a, nil
	case <-p.over:
	case <-ctx.Done():
	}
	return nil, errors.New("nobody listens")
}

// bubble runs fn with a fake AWS in fake time. The person approves device
// codes after think.
func bubble(t *testing.T, spec fakeaws.SSOSpec, think time.Duration, fn func(w *world)) {
	t.Helper()
	networked(t, spec, think, func(w *world, _ *pipes) { fn(w) })
}

func networked(t *testing.T, spec fakeaws.SSOSpec, think time.Duration, fn func(w *world, p *pipes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := fakeaws.New()
		s.AddSSO(spec)
		p := &pipes{conns: make(chan net.Conn), over: make(chan struct{})}
		server := &http.Server{Handler: s.Handler()}
		var wg sync.WaitGroup
		wg.Go(func() { _ = server.Serve(p) })
		w := (&world{t: t, aws: s, url: "http://fake.test"}).init(awsclient.PoolConfig{Dial: p.dial})
		w.person.is(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
			if sleep(ctx, think) {
				s.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", q.URL, nil))
			}
			<-ctx.Done()
			return cred.Secret{}, ctx.Err()
		})
		fn(w, p)
		w.deps.Pool.CloseIdle()
		_ = server.Close()
		wg.Wait()
	})
}

// TestAWeek: three roles over one sign-in, each got anew every 25 minutes for
// a week, restarts and outages in between. A portal session lasts 8 hours:
// somebody is asked as often as that, and no token is sent twice.
func TestAWeek(t *testing.T) {
	bubble(t, people(), 20*time.Second, func(w *world) {
		links := []profiles.Link{w.link("", dev, "ReadOnly"), w.link("", dev, "Admin"), w.link("", prod, "ReadOnly")}
		began, failures := time.Now(), 0
		for step := 0; time.Since(began) < 7*24*time.Hour; step++ {
			if step%50 == 7 { // AWS in trouble
				w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Count: 1})
			}
			var wg sync.WaitGroup
			var mu sync.Mutex
			for _, l := range links {
				wg.Go(func() {
					c, err := w.fetch(l, nil)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err != nil:
						failures++
						var up *cred.UpstreamError
						if !errors.As(err, &up) || up.Refused {
							t.Errorf("step %d: %v", step, err)
						}
					case time.Until(c.Expires) < 59*time.Minute:
						t.Errorf("step %d: credentials for %v", step, time.Until(c.Expires))
					}
				})
			}
			wg.Wait()
			if step%20 == 13 {
				w.restart()
			}
			time.Sleep(25 * time.Minute)
		}
		asked, refreshes := len(w.person.questions()), 0
		for _, c := range w.aws.Calls("CreateToken") {
			if c.Params["grantType"] == grantRefresh {
				refreshes++
			}
		}
		t.Logf("asked %d times, %d refreshes, %d failed attempts", asked, refreshes, failures)
		if asked != 21 || failures > 9*3 || refreshes < 100 || refreshes > 240 {
			t.Errorf("asked %d times, %d refreshes, %d failures", asked, refreshes, failures)
		}
		w.count("reused:refresh_token", 0, "RegisterClient", 1)
	})
}

// TestARefreshHasAConnectionOfItsOwn: an idle one may be dead after sleep,
// and would take the one-use token with it.
func TestARefreshHasAConnectionOfItsOwn(t *testing.T) {
	networked(t, people(), 0, func(w *world, p *pipes) {
		l := w.link("", dev, "ReadOnly")
		w.ok(l)
		synctest.Wait() // connections have come back
		before := p.dials.Load()
		w.ok(l)
		if n := p.dials.Load() - before; n != 0 {
			t.Errorf("connections are not kept: %d new ones", n)
		}
		w.change(l, func(r *record) { r.expires = time.Now() })
		w.aws.SetLatency("CreateToken", time.Second)
		synctest.Wait()
		var wg sync.WaitGroup
		wg.Go(func() { w.ok(l) })
		synctest.Wait() // the refresh is under way
		if n := p.dials.Load() - before; n != 1 || w.aws.Count("CreateToken") != 2 {
			t.Errorf("%d new connections", n)
		}
		wg.Wait()
	})
}

// TestPolling: as often as AWS says, slower when it says so, through trouble,
// until the person has decided or the code has ended.
func TestPolling(t *testing.T) {
	spec := people()
	spec.Interval, spec.StrictInterval = 7, true
	bubble(t, spec, 5*time.Minute, func(w *world) {
		w.ok(w.link("", dev, "ReadOnly"))
		w.count("CreateToken", 43, "StartDeviceAuthorization", 1) // at 7, 14, … 301 s
	})
	spec.Interval = -1 // left out: 5 s
	bubble(t, spec, 58*time.Second, func(w *world) {
		w.ok(w.link("", dev, "ReadOnly"))
		w.count("CreateToken", 12)
	})
	bubble(t, people(), time.Minute, func(w *world) {
		w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Action: "CreateToken", Count: 2}, fakeaws.Fault{Kind: fakeaws.Fail500, Action: "CreateToken", Count: 1}, fakeaws.Fault{Kind: fakeaws.Drop, Action: "CreateToken", Count: 1})
		w.ok(w.link("", dev, "ReadOnly"))
		w.count("CreateToken", 5) // after 1, 7, 18 s (twice slower), 40 s (500) and 84 s (dropped)
	})
	spec = people()
	spec.DeviceSeconds = 120
	bubble(t, spec, time.Hour, func(w *world) {
		_, err := w.fetch(w.link("", dev, "ReadOnly"), nil)
		interactionError(t, err, "nobody confirmed the code in time")
		w.aws.DecideDevice("", false)
	})
	bubble(t, people(), time.Hour, func(w *world) {
		began := time.Now()
		go func() { time.Sleep(10 * time.Second); w.aws.DecideDevice("", false) }()
		_, err := w.fetch(w.link("", dev, "ReadOnly"), nil)
		interactionError(t, err, "refused in the browser")
		if d := time.Since(began); d > 12*time.Second {
			t.Errorf("the refusal was noticed after %v", d)
		}
	})
}

func TestLists(t *testing.T) {
	spec := people()
	spec.PageSize = 7
	for i := range 60 {
		spec.Accounts = append(spec.Accounts, fakeaws.SSOAccount{ID: fmt.Sprintf("5000000000%02d", i), Name: fmt.Sprint("team-", i), Email: fmt.Sprintf("t%d@example.com", i)})
		spec.Accounts[0].Roles = append(spec.Accounts[0].Roles, fakeaws.SSORole{Name: fmt.Sprint("R", i)})
	}
	bubble(t, spec, time.Second, func(w *world) {
		l := w.link("", dev, "ReadOnly")
		delete(l.Params, "sso_account_id")
		delete(l.Params, "sso_role_name")
		in := cred.Input{Profile: "new", Ask: w.person}
		// Throttled half of the time, and the token ends in the middle.
		var faults []fakeaws.Fault
		for i := range 5 {
			faults = append(faults, fakeaws.Fault{Kind: fakeaws.Throttle, Action: "ListAccounts", After: i, Count: 2})
		}
		w.aws.SetFaults(faults...)
		accounts, err := ListAccounts(w.t.Context(), l, w.deps, in)
		if err != nil || len(accounts) != 62 || accounts[0] != (Account{dev, "dev", "dev@example.com"}) || accounts[61].Email != "t59@example.com" {
			t.Fatalf("%d accounts, %v", len(accounts), err)
		}
		w.aws.ExpireSSOTokens()
		roles, err := ListRoles(w.t.Context(), l, w.deps, in, dev)
		if err != nil || len(roles) != 62 || roles[0] != "ReadOnly" || roles[61] != "R59" {
			t.Fatalf("%d roles, %v", len(roles), err)
		}
		w.asks(cred.AskDevice)
		_, err = ListRoles(w.t.Context(), l, w.deps, in, "999988887777")
		upstreamError(t, err, true, "the account 999988887777 is not assigned")
		if _, err = ListRoles(w.t.Context(), l, w.deps, in, "12"); !errors.Is(err, cred.ErrConfig) {
			t.Error(err)
		}
		began := time.Now()
		w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Action: "ListAccounts"})
		_, err = ListAccounts(w.t.Context(), l, w.deps, in)
		upstreamError(t, err, false, "list the accounts of Identity Center", "limits the rate")
		if d := time.Since(began); d < 25*time.Second || d > time.Minute {
			t.Errorf("gave up after %v", d)
		}
		w.noSecrets(err)
	})
}

// TestAssignments: a portal without any profile yet. Every account with its
// roles, by pages, a few accounts at a time, throttled in between; one
// sign-in for all of it.
func TestAssignments(t *testing.T) {
	spec := people()
	spec.PageSize = 7
	for i := range 40 {
		a := fakeaws.SSOAccount{ID: fmt.Sprintf("5000000000%02d", i), Name: fmt.Sprint("team-", i)}
		for j := range i % 12 {
			a.Roles = append(a.Roles, fakeaws.SSORole{Name: fmt.Sprint("R", j)})
		}
		spec.Accounts = append(spec.Accounts, a)
	}
	bubble(t, spec, time.Second, func(w *world) {
		// What the wizard has: no account, no role, no profile in any file.
		l := profiles.Link{Kind: profiles.KindSSO, Profile: "new", Client: w.link("", dev, "x").Client, Params: map[string]string{
			"sso_session": "corp", "sso_start_url": startURL, "sso_region": "eu-west-1", "sso_registration_scopes": "sso:account:access"}}
		in := cred.Input{Profile: "new", Ask: w.person, Signin: &cred.Signin{Device: true}}
		w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Action: "ListAccountRoles", After: 5, Count: 8},
			fakeaws.Fault{Kind: fakeaws.Throttle, Action: "ListAccounts", After: 1, Count: 1},
			fakeaws.Fault{Kind: fakeaws.Fail500, Action: "ListAccountRoles", After: 3, Count: 2})
		got, err := Assignments(w.t.Context(), l, w.deps, in)
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, a := range spec.Accounts {
			if len(a.Roles) == 0 {
				continue // nothing to be had there
			}
			if want < len(got) && (got[want].ID != a.ID || got[want].Name != a.Name || len(got[want].Roles) != len(a.Roles) || got[want].Roles[0] != a.Roles[0].Name) {
				t.Errorf("account %d is %+v, want %s with %d roles", want, got[want], a.ID, len(a.Roles))
			}
			want++
		}
		if len(got) != want {
			t.Errorf("%d accounts, want %d", len(got), want)
		}
		w.asks(cred.AskDevice)
		w.count("CreateToken", w.aws.Count("CreateToken"), "ListAccounts", 7)

		// The session is that of profiles to come.
		w.ok(w.link("corp", dev, "ReadOnly"))
		w.asks()

		// At most a few calls at a time.
		w.aws.SetFaults()
		w.aws.SetLatency("ListAccountRoles", time.Second)
		began := time.Now()
		if _, err := Assignments(w.t.Context(), l, w.deps, in); err != nil {
			t.Fatal(err)
		}
		calls := w.aws.Count("ListAccountRoles")
		if d := time.Since(began); d < time.Duration(calls/4)*time.Second || d > time.Duration(calls/4+8)*time.Second {
			t.Errorf("%d calls of a second took %v", calls, d)
		}
		// The first failure ends it.
		w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Status: 400, Code: "InvalidRequestException", Message: "no", Action: "ListAccountRoles", After: 9})
		w.aws.ResetCalls()
		_, err = Assignments(w.t.Context(), l, w.deps, in)
		upstreamError(t, err, true, "list the roles of account")
		if n := w.aws.Count("ListAccountRoles"); n > 9+2*atOnce {
			t.Errorf("%d calls after a failure", n)
		}
		w.noSecrets(err)
	})
}

func TestLogout(t *testing.T) {
	w := signedIn(t)
	l := w.link("corp", dev, "ReadOnly")
	if err := Logout(t.Context(), l, w.deps); err != nil {
		t.Fatal(err)
	}
	w.count("Logout", 1)
	if names, _ := w.vault.List(t.Context(), ""); len(names) != 1 || !strings.HasPrefix(names[0], clientPrefix) {
		t.Errorf("left in the vault: %v", names)
	}
	if err := Logout(t.Context(), l, w.deps); err != nil {
		t.Error(err)
	}
	w.count("Logout", 0)
	w.ok(l)
	w.asks(cred.AskBrowser)
	w.aws.EndSSOSessions() // what has ended there is no error
	if err := Logout(t.Context(), l, w.deps); err != nil {
		t.Error(err)
	}
	w.ok(l)
	if err := w.aws.SetOutage(fakeaws.Refused); err != nil {
		t.Fatal(err)
	}
	err := Logout(t.Context(), l, w.deps)
	upstreamError(t, err, false, "sign out of")
	if names, _ := w.vault.List(t.Context(), tokenPrefix); len(names) != 0 {
		t.Error("tokens outlive a sign-out without network")
	}
	if err := w.aws.SetOutage(fakeaws.Up); err != nil {
		t.Fatal(err)
	}

	// In the middle of a sign-in, and of a refresh.
	asked := make(chan struct{})
	w.person.is(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		close(asked)
		<-ctx.Done()
		return cred.Secret{}, ctx.Err()
	})
	var wg sync.WaitGroup
	wg.Go(func() { _, err = w.fetch(l, nil) })
	<-asked
	if err := Logout(t.Context(), l, w.deps); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if !errors.Is(err, cred.ErrUnavailable) || !strings.Contains(err.Error(), "signed out of") {
		t.Error(err)
	}
	w.person.is(nil)
	w.ok(l)
	w.lateToken(0)
	w.aws.ResetCalls()
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang, Seconds: 0.2, Action: "CreateToken"})
	wg.Go(func() { _, err = w.fetch(l, nil) })
	if err := wait(t, func() bool { return w.aws.Count("CreateToken") == 1 }); err != nil {
		t.Fatal(err)
	}
	if err := Logout(t.Context(), l, w.deps); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if names, _ := w.vault.List(t.Context(), tokenPrefix); len(names) != 0 || err == nil {
		t.Errorf("left in the vault: %v, %v", names, err)
	}
}
