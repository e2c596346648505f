package sso

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/profiles"
)

func TestBrowserSignIn(t *testing.T) {
	w := newWorld(t, people())
	l := w.link("corp", dev, "ReadOnly")
	w.ok(l)
	w.count("RegisterClient", 1, "Authorize", 1, "CreateToken", 1, "GetRoleCredentials", 1, "*", 4)
	qs := w.person.questions()
	if len(qs) != 1 || qs[0].Kind != cred.AskBrowser || qs[0].Profile != l.Profile || !strings.Contains(qs[0].Text, "sso-session corp") {
		t.Fatalf("%+v", qs)
	}
	u, err := url.Parse(qs[0].URL)
	if err != nil || !strings.HasPrefix(qs[0].URL, w.url+"/authorize?") {
		t.Fatalf("%v, page %s", err, qs[0].URL)
	}
	v := u.Query()
	redirect, _ := url.Parse(v.Get("redirect_uri"))
	if v.Get("scopes") != defaultScope || len(v.Get("code_challenge")) != 43 || len(v.Get("state")) < 20 || redirect.Hostname() != "127.0.0.1" || redirect.Path != "/oauth/callback" || redirect.Port() == "" {
		t.Errorf("parameters %v", v)
	}
	// Other roles, and keyfob started again: nobody is asked.
	w.ok(w.link("corp", prod, "ReadOnly"))
	w.restart()
	w.ok(w.link("corp", dev, "Admin"))
	w.asks()
	w.count("GetRoleCredentials", 2, "*", 2)
}

func TestOneSignInForAHundred(t *testing.T) {
	spec := people()
	for i := range 100 {
		spec.Accounts[0].Roles = append(spec.Accounts[0].Roles, fakeaws.SSORole{Name: fmt.Sprint("R", i)})
	}
	w := newWorld(t, spec)
	var wg sync.WaitGroup
	all := make(chan struct{})
	w.person.is(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		<-all
		return w.person.opens(ctx, q)
	})
	for i := range 100 {
		wg.Go(func() {
			if _, err := w.fetch(w.link("corp", dev, fmt.Sprint("R", i)), nil); err != nil {
				t.Error(err)
			}
		})
	}
	for waiting := 0; waiting < 100; { // everybody has come, and asks
		w.person.mu.Lock()
		waiting = 0
		for _, n := range w.person.live {
			waiting += n
		}
		w.person.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	close(all)
	wg.Wait()
	w.asks(cred.AskBrowser)
	w.count("RegisterClient", 1, "CreateToken", 1, "Authorize", 1, "GetRoleCredentials", 100)
	// One refresh, too.
	w.aws.ExpireSSOTokens()
	w.change(w.link("corp", dev, "R1"), func(r *record) { r.expires = time.Now() })
	for i := range 100 {
		wg.Go(func() {
			if _, err := w.fetch(w.link("corp", dev, fmt.Sprint("R", i)), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w.asks()
	w.count("CreateToken", 1, "GetRoleCredentials", 100)
}

// TestWhoSharesASignIn: a session's links do, with whatever else they differ
// in; another session, scope or endpoint is another sign-in.
func TestWhoSharesASignIn(t *testing.T) {
	w := newWorld(t, people())
	key := func(l profiles.Link) cred.LinkKey { return w.source(l).AskKey() }
	same := key(w.link("corp", dev, "ReadOnly"))
	fips := w.link("corp", prod, "Admin", "sso_start_url", startURL+"/#/", "sso_registration_scopes", "sso:account:access")
	fips.Client.UseDualStack, fips.Client.CABundle = true, "/x"
	if key(fips) != same {
		t.Error("links of one session do not share it")
	}
	elsewhere := w.link("corp", dev, "ReadOnly")
	elsewhere.Client.EndpointURL = nil
	for i, l := range []profiles.Link{w.link("other", dev, "ReadOnly"), w.link("", dev, "ReadOnly"), elsewhere,
		w.link("corp", dev, "ReadOnly", "sso_registration_scopes", "sso:account:access, codewhisperer:completions"), w.link("corp", dev, "ReadOnly", "sso_region", "us-east-1")} {
		if key(l) == same {
			t.Errorf("link %d shares the sign-in", i)
		}
	}
	s := w.source(elsewhere).(interface{ Upstream() string })
	if u := s.Upstream(); u != "https://portal.sso.eu-west-1.amazonaws.com" {
		t.Errorf("upstream %s", u)
	}
}

func TestDeviceSignIn(t *testing.T) {
	for name, x := range map[string]struct {
		session string
		signin  *cred.Signin
		kinds   []string
	}{
		"a profile of the older form": {"", nil, []string{cred.AskDevice}},
		"--device":                    {"corp", &cred.Signin{Device: true}, []string{cred.AskDevice}},
		"no browser":                  {"corp", nil, []string{cred.AskBrowser, cred.AskDevice}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, people())
			w.person.is(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
				if q.Kind == cred.AskBrowser {
					return cred.NewSecret(cred.AnswerNoBrowser), nil
				}
				if q.UserCode == "" || !strings.HasSuffix(q.URL, "/device?user_code="+q.UserCode) {
					t.Errorf("%+v", q)
				}
				return w.person.opens(ctx, q)
			})
			if _, err := w.fetch(w.link(x.session, dev, "ReadOnly"), x.signin); err != nil {
				t.Fatal(err)
			}
			w.asks(x.kinds...)
			r := w.record(w.link(x.session, dev, "ReadOnly"))
			if r.refresh.IsZero() {
				t.Error("nothing refreshes it")
			}
		})
	}
}

// TestDeviceWhileOthersHaveABrowser: --device beside an open tab changes the
// way for all.
func TestDeviceWhileOthersHaveABrowser(t *testing.T) {
	w := newWorld(t, people())
	asked := make(chan struct{}, 9)
	w.person.is(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		asked <- struct{}{}
		if q.Kind == cred.AskDevice {
			return w.person.opens(ctx, q)
		}
		<-ctx.Done()
		return cred.Secret{}, ctx.Err()
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := w.fetch(w.link("corp", dev, "Admin"), nil); err != nil {
			t.Error(err)
		}
	})
	<-asked
	if _, err := w.fetch(w.link("corp", dev, "ReadOnly"), &cred.Signin{Device: true}); err != nil {
		t.Error(err)
	}
	wg.Wait()
	w.asks(cred.AskBrowser, cred.AskDevice)
}

func TestThePersonSaysNo(t *testing.T) {
	w := newWorld(t, people())
	w.aws.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInDeny)
	var err1 error
	w.person.is(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		fakeawstest.NewBrowser(t, true).Open(q.URL)
		<-ctx.Done()
		err1 = ctx.Err()
		return cred.Secret{}, ctx.Err()
	})
	for _, session := range []string{"corp", ""} {
		_, err := w.fetch(w.link(session, dev, "ReadOnly"), nil)
		interactionError(t, err, "refused in the browser")
		if !errors.Is(err1, context.DeadlineExceeded) {
			t.Errorf("the question ended with %v, which begins no cool-down", err1)
		}
	}
}

func TestNobodyIsThere(t *testing.T) {
	w := newWorld(t, people())
	w.person.is(nobody)
	for range 3 {
		_, err := w.fetch(w.link("corp", dev, "ReadOnly"), nil)
		var e *cred.InteractionError
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
	}
	w.count("RegisterClient", 1, "*", 1)
}

// TestForgedAnswers: the redirect of another page, with another state or
// Host, changes nothing, and the right one still counts.
func TestForgedAnswers(t *testing.T) {
	w := newWorld(t, people())
	w.aws.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInWrongState)
	w.person.is(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		b := fakeawstest.NewBrowser(t, true)
		if p := b.Open(q.URL); p.Status != http.StatusBadRequest {
			t.Errorf("a wrong state: %d", p.Status)
		}
		u, _ := url.Parse(q.URL)
		redirect := u.Query().Get("redirect_uri")
		for _, query := range []string{"?code=evil", "?code=evil&state=evil", "?error=access_denied&state=evil"} {
			if p := b.Open(redirect + query); p.Status != http.StatusBadRequest {
				t.Errorf("%s: %d", query, p.Status)
			}
		}
		r, _ := http.NewRequest("GET", redirect+"?code=evil&state="+u.Query().Get("state"), nil)
		r.Host = "rebound.example"
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
		if err != nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("another Host: %v %v", resp, err)
		}
		resp.Body.Close()
		w.aws.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInAuto)
		return w.person.opens(ctx, q)
	})
	w.ok(w.link("corp", dev, "ReadOnly"))
	w.count("CreateToken", 1)
	if n := strings.Count(w.logs.String(), "was refused"); n != 5 {
		t.Errorf("%d refusals logged: %s", n, w.logs.String())
	}
}

func TestCallersMayLeave(t *testing.T) {
	w := newWorld(t, people())
	open, stay := make(chan struct{}), make(chan struct{})
	w.person.is(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		close(open)
		<-stay
		fakeawstest.NewBrowser(t, true).Open(q.URL)
		<-ctx.Done()
		return cred.Secret{}, ctx.Err()
	})
	fetch := func(ctx context.Context, ask cred.Asker) error {
		_, err := w.source(w.link("corp", dev, "ReadOnly")).Fetch(ctx, cred.Input{Profile: "x", Ask: ask})
		return err
	}
	first, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var left, stayed error
	wg.Go(func() { left = fetch(first, silent{}) })
	wg.Go(func() { stayed = fetch(t.Context(), w.person) })
	<-open
	leave()
	time.Sleep(10 * time.Millisecond)
	close(stay)
	wg.Wait()
	if !errors.Is(left, context.Canceled) || stayed != nil {
		t.Errorf("who left: %v, who stayed: %v", left, stayed)
	}
	w.count("CreateToken", 1)

	// All leave: the listener closes, and the next one begins anew.
	w = newWorld(t, people())
	ctx, leave := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer leave()
	interactionError(t, fetch(ctx, silent{}), "nobody finished the sign-in in time")
	ctx, leave = context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, leave)
	if err := fetch(ctx, silent{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.ok(w.link("corp", dev, "ReadOnly"))
}

// silent is a person who does nothing.
type silent struct{}

func (silent) Ask(ctx context.Context, _ cred.LinkKey, _ cred.Question) (cred.Secret, error) {
	<-ctx.Done()
	return cred.Secret{}, ctx.Err()
}

func TestRegistrationsAreKeptAndRenewed(t *testing.T) {
	w := newWorld(t, people())
	l := w.link("corp", dev, "ReadOnly")
	for range 3 { // --force
		w.deps.Sessions.Renew(w.source(l).AskKey())
		if _, err := w.fetch(l, &cred.Signin{}); err != nil {
			t.Fatal(err)
		}
	}
	w.asks(cred.AskBrowser, cred.AskBrowser, cred.AskBrowser)
	w.count("RegisterClient", 1, "CreateToken", 3)
	// One made for PKCE is none for devices.
	w.deps.Sessions.Renew(w.source(l).AskKey())
	if _, err := w.fetch(l, &cred.Signin{Device: true}); err != nil {
		t.Fatal(err)
	}
	w.count("RegisterClient", 1)
	// Another session of the same start URL takes the same one.
	w.ok(w.link("other", dev, "ReadOnly"))
	w.count("RegisterClient", 0, "CreateToken", 1)

	spec := people()
	spec.ClientSeconds = 14 * 60
	w = newWorld(t, spec)
	for range 2 {
		w.deps.Sessions.Renew(w.source(l).AskKey())
		if _, err := w.fetch(w.link("corp", dev, "ReadOnly"), &cred.Signin{}); err != nil {
			t.Fatal(err)
		}
		w.deps.Sessions.Renew(w.source(w.link("corp", dev, "ReadOnly")).AskKey())
	}
	w.count("RegisterClient", 2)
}

// TestAForgottenRegistration: AWS may drop one before its time.
func TestAForgottenRegistration(t *testing.T) {
	w := newWorld(t, people())
	l := w.link("", dev, "ReadOnly")
	w.ok(l)
	w.aws.ExpireSSOClients()
	w.aws.EndSSOSessions()
	w.ok(l)
	w.asks(cred.AskDevice, cred.AskDevice)
}

func TestLogin(t *testing.T) {
	w := newWorld(t, people())
	l := w.link("corp", dev, "ReadOnly")
	w.ok(l)
	w.asks(cred.AskBrowser)
	// login with a valid session asks nobody; with --force it does, and one
	// that fails leaves the session as it is.
	if _, err := w.fetch(l, &cred.Signin{}); err != nil {
		t.Fatal(err)
	}
	w.asks()
	before := w.record(l)
	w.deps.Sessions.Renew(w.source(l).AskKey())
	w.person.is(nobody)
	if _, err := w.fetch(l, &cred.Signin{}); err == nil {
		t.Error("--force asked nobody")
	}
	if !before.access.Equal(w.record(l).access) {
		t.Error("a failed --force took the session")
	}
	w.person.is(nil)
	w.person.questions()
	w.ok(l)
	w.asks()
	// What AWS has refused since counts as ended, whatever its expiry.
	w.aws.EndSSOSessions()
	if _, err := w.fetch(l, &cred.Signin{}); err != nil {
		t.Fatal(err)
	}
	w.asks(cred.AskBrowser)
	// Without refresh token: within half an hour of its end login asks.
	w.change(l, func(r *record) { r.refresh = cred.Secret{}; r.expires = time.Now().Add(29 * time.Minute) })
	if ends := w.source(l).SignInEnds(t.Context()); time.Until(ends) > 29*time.Minute || ends.IsZero() {
		t.Errorf("the sign-in ends %v", ends)
	}
	w.ok(l)
	w.asks()
	if _, err := w.fetch(l, &cred.Signin{}); err != nil {
		t.Fatal(err)
	}
	w.asks(cred.AskBrowser)
	if ends := w.source(l).SignInEnds(t.Context()); !ends.IsZero() {
		t.Errorf("a session that is refreshed ends %v", ends)
	}
}
