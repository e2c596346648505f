package sso

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
)

// lateToken makes the access token of a link one that ends in d.
func (w *world) lateToken(d time.Duration) {
	w.change(w.link("corp", dev, "ReadOnly"), func(r *record) {
		r.expires = time.Now().Add(d)
		r.obtained = r.expires.Add(-time.Hour)
	})
}

// signedIn is a world in which somebody has signed in to corp.
func signedIn(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, people())
	w.ok(w.link("corp", dev, "ReadOnly"))
	w.asks(cred.AskBrowser)
	w.aws.ResetCalls()
	return w
}

func TestRefresh(t *testing.T) {
	w := signedIn(t)
	l := w.link("corp", dev, "ReadOnly")
	first := w.record(l)
	w.lateToken(16 * time.Minute)
	w.ok(l)
	w.count("CreateToken", 0)
	for range 3 { // ahead, and with a token that has ended
		w.lateToken(14 * time.Minute)
		w.ok(l)
		w.lateToken(-time.Hour)
		w.restart()
		w.ok(l)
	}
	w.count("CreateToken", 6, "RegisterClient", 0, "reused:refresh_token", 0)
	if r := w.record(l); r.refresh.Equal(first.refresh) || !slices.Contains(r.spent, hashOf(first.refresh)) || time.Until(r.expires) < 59*time.Minute {
		t.Errorf("after six refreshes: until %v, %d spent", r.expires, len(r.spent))
	}
	// A token that the portal refuses before its time is refreshed as well.
	w.aws.ExpireSSOTokens()
	w.ok(l)
	w.count("CreateToken", 1, "GetRoleCredentials", 2)
	w.asks()
}

// TestKilledBetweenRefreshAndAnswer: the refresh token is noted as spent before
// it is sent, and the answer written before it is used.
func TestKilledBetweenRefreshAndAnswer(t *testing.T) {
	w := signedIn(t)
	l := w.link("corp", dev, "ReadOnly")
	w.lateToken(time.Second)
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang, Action: "CreateToken", Seconds: 0.5})
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = w.fetch(l, nil) })
	if err := wait(t, func() bool { return w.aws.Count("CreateToken") == 1 }); err != nil {
		t.Fatal(err)
	}
	killed := w.vault.copy() // what a kill -9 leaves
	wg.Wait()
	w.aws.SetFaults()
	w.aws.ResetCalls()

	w.restart()
	w.vault = killed
	w.deps.Store = killed
	w.person.is(nobody)
	for range 3 {
		var e *cred.InteractionError
		if _, err := w.fetch(l, nil); !errors.As(err, &e) {
			t.Fatalf("after the kill: %v", err)
		}
	}
	w.count("CreateToken", 0, "reused:refresh_token", 0)
	w.person.is(nil)
	w.ok(l)
	w.count("CreateToken", 1)
}

func wait(t *testing.T, ok func() bool) error {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok() {
			return nil
		}
	}
	return errors.New("it does not happen")
}

// TestNoAnswerToARefresh: a token that may have been taken is not sent again;
// one that surely was not is.
func TestNoAnswerToARefresh(t *testing.T) {
	for _, x := range []struct {
		name  string
		fault fakeaws.Fault
		again bool
	}{
		{"dropped", fakeaws.Fault{Kind: fakeaws.Drop}, false},
		{"done, and the answer lost", fakeaws.Fault{Kind: fakeaws.Late}, false},
		{"half an answer", fakeaws.Fault{Kind: fakeaws.Half}, false},
		{"a web page", fakeaws.Fault{Kind: fakeaws.Garbage}, false},
		{"an empty answer", fakeaws.Fault{Kind: fakeaws.Empty}, false},
		{"a proxy gave up", fakeaws.Fault{Kind: fakeaws.Garbage, Status: 504}, false},
		{"500", fakeaws.Fault{Kind: fakeaws.Fail500}, true},
		{"throttled with 400", fakeaws.Fault{Kind: fakeaws.Throttle}, true},
		{"throttled with 429", fakeaws.Fault{Kind: fakeaws.Error, Status: 429, Code: "TooManyRequestsException", Message: "x"}, true},
		{"redirected", fakeaws.Fault{Kind: fakeaws.Redirect, Location: "https://portal.example"}, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := signedIn(t)
			l := w.link("corp", dev, "ReadOnly")
			// While the access token is good the failure hurts nobody, and
			// is not repeated at once.
			x.fault.Action = "CreateToken"
			w.lateToken(10 * time.Minute)
			w.aws.SetFaults(x.fault)
			w.ok(l)
			w.ok(l)
			w.count("CreateToken", 1, "GetRoleCredentials", 2)
			if x.again {
				w.lateToken(-time.Second)
				_, err := w.fetch(l, nil)
				upstreamError(t, err, false, "refresh the session of Identity Center (sso-session corp)")
				w.count("CreateToken", 1)
			}
			w.aws.SetFaults()
			w.lateToken(-time.Second)
			w.restart()
			w.ok(l)
			if x.again {
				w.asks()
			} else {
				w.asks(cred.AskBrowser)
			}
			w.count("CreateToken", 1, "reused:refresh_token", 0)
		})
	}
}

// TestNoAnswerAndNoToken: the error of the very attempt says what it costs.
func TestNoAnswerAndNoToken(t *testing.T) {
	w := signedIn(t)
	w.lateToken(0)
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Drop, Action: "CreateToken"})
	_, err := w.fetch(w.link("corp", dev, "ReadOnly"), nil)
	upstreamError(t, err, false, "may be used up", "keyfob login p-ReadOnly")
	w.asks()
}

func TestNetworkGone(t *testing.T) {
	w := signedIn(t)
	l := w.link("corp", dev, "ReadOnly")
	w.lateToken(0)
	if err := w.aws.SetOutage(fakeaws.Refused); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, err := w.fetch(l, nil)
		if e := upstreamError(t, err, false); e.Status != 0 || !errors.Is(err, cred.ErrUnavailable) {
			t.Errorf("%+v", e)
		}
	}
	src := w.source(l).(interface{ Reach(context.Context) error })
	if src.Reach(t.Context()) == nil {
		t.Error("there is no way to it")
	}
	if err := w.aws.SetOutage(fakeaws.Up); err != nil {
		t.Fatal(err)
	}
	if err := src.Reach(t.Context()); err != nil {
		t.Error(err)
	}
	w.ok(l)
	w.asks()
	w.count("CreateToken", 1)
}

func TestSessionEnded(t *testing.T) {
	w := signedIn(t)
	l := w.link("corp", dev, "ReadOnly")
	w.aws.EndSSOSessions()
	w.person.is(nobody)
	for range 3 {
		var e *cred.InteractionError
		if _, err := w.fetch(l, nil); !errors.As(err, &e) {
			t.Fatal(err)
		}
	}
	// One look at the portal, one refresh, and then never again.
	w.count("GetRoleCredentials", 1, "CreateToken", 1)
	w.person.is(nil)
	w.ok(l)

	// The refresh token refused while the access token still does: it is
	// used to its end, which is then known.
	w = signedIn(t)
	w.lateToken(10 * time.Minute)
	w.change(w.link("corp", dev, "ReadOnly"), func(r *record) { r.refresh = cred.NewSecret("aorAAAAno") })
	w.ok(w.link("corp", dev, "ReadOnly"))
	w.ok(w.link("corp", dev, "ReadOnly"))
	w.count("CreateToken", 1, "GetRoleCredentials", 2)
	if left := time.Until(w.source(w.link("corp", dev, "ReadOnly")).SignInEnds(t.Context())); left < 9*time.Minute || left > 10*time.Minute {
		t.Errorf("the sign-in ends in %v", left)
	}
	w.asks()
	if _, err := w.fetch(w.link("corp", dev, "ReadOnly"), &cred.Signin{}); err != nil { // a person who logs in
		t.Fatal(err)
	}
	w.asks(cred.AskBrowser)
}

// TestVaultInTrouble: what can't be kept is not used, and not lost.
func TestVaultInTrouble(t *testing.T) {
	w := signedIn(t)
	l := w.link("corp", dev, "ReadOnly")
	w.vault.fail(cred.ErrLocked, cred.ErrLocked)
	if _, err := w.fetch(l, nil); !errors.Is(err, cred.ErrLocked) {
		t.Error(err)
	}
	w.vault.fail(nil, nil)
	full := errors.New("no space left on device")

	// No mark, no refresh.
	w.lateToken(0)
	w.vault.fail(nil, full)
	if _, err := w.fetch(l, nil); !errors.Is(err, full) {
		t.Error(err)
	}
	w.count("CreateToken", 0)

	// The answer can't be written: it is not used until it is.
	w.vault.fail(nil, nil)
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang, Action: "CreateToken", Seconds: 0.1})
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { _, err = w.fetch(l, nil) })
	if err := wait(t, func() bool { return w.aws.Count("CreateToken") == 1 }); err != nil {
		t.Fatal(err)
	}
	w.vault.fail(nil, full)
	wg.Wait()
	if !errors.Is(err, full) {
		t.Error(err)
	}
	if _, err := w.fetch(l, nil); !errors.Is(err, full) {
		t.Error(err)
	}
	w.count("GetRoleCredentials", 0)
	w.vault.fail(nil, nil)
	w.ok(l)
	w.asks()
	w.restart()
	w.ok(l)
	w.asks()
	w.count("CreateToken", 0)
}

// TestARefreshOutlivesItsCallers: its answer may be the only token there is.
func TestARefreshOutlivesItsCallers(t *testing.T) {
	w := signedIn(t)
	l := w.link("corp", dev, "ReadOnly")
	w.lateToken(0)
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang, Action: "CreateToken", Seconds: 0.2})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.source(l).Fetch(ctx, cred.Input{Profile: "x", Ask: w.person}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	w.aws.SetFaults()
	w.ok(l)
	w.asks()
	w.count("CreateToken", 1)
}

func TestRoleErrors(t *testing.T) {
	w := signedIn(t)
	for _, l := range []string{"Nobody", "Admin"} {
		account := prod
		if l == "Nobody" {
			account = dev
		}
		_, err := w.fetch(w.link("corp", account, l), nil)
		if e := upstreamError(t, err, true, "the role "+l+" in account "+account+" is not assigned", "keyfob configure", "sso_account_id"); e.Status != http.StatusForbidden || e.Code != "ForbiddenException" {
			t.Errorf("%+v", e)
		}
	}
	_, err := w.fetch(w.link("corp", "999988887777", "ReadOnly"), nil)
	upstreamError(t, err, true, "999988887777")
	for _, f := range []fakeaws.Fault{{Kind: fakeaws.Throttle}, {Kind: fakeaws.Error, Status: 400, Code: "SlowDownException", Message: "Rate exceeded"}} {
		f.Action = "GetRoleCredentials"
		w.aws.SetFaults(f)
		_, err := w.fetch(w.link("corp", dev, "ReadOnly"), nil)
		upstreamError(t, err, false, "limits the rate")
	}
	// A portal that takes no session asks a person once, not for ever.
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Status: 401, Code: "UnauthorizedException", Message: "Session token not found or invalid", Action: "GetRoleCredentials"})
	w.aws.EndSSOSessions()
	_, err = w.fetch(w.link("corp", dev, "ReadOnly"), nil)
	upstreamError(t, err, true, "the session of Identity Center (sso-session corp) has ended", "keyfob login p-ReadOnly")
	w.asks(cred.AskBrowser)
	for _, f := range []fakeaws.Kind{fakeaws.Garbage, fakeaws.Empty, fakeaws.Half, fakeaws.PastExpiry} {
		w := signedIn(t)
		w.aws.SetFaults(fakeaws.Fault{Kind: f, Action: "GetRoleCredentials"})
		_, err := w.fetch(w.link("corp", dev, "ReadOnly"), nil)
		upstreamError(t, err, false)
	}
}

func TestSignInErrors(t *testing.T) {
	w := newWorld(t, people())
	for _, session := range []string{"corp", ""} {
		_, err := w.fetch(w.link(session, dev, "ReadOnly", "sso_start_url", "https://d-9999999999.awsapps.com/start"), nil)
		upstreamError(t, err, true, "does not take the start URL https://d-9999999999.awsapps.com/start in region eu-west-1 (Invalid ", "sso_start_url and sso_region")
	}
	w.asks()
	// A region that there is not has no host.
	l := w.link("corp", dev, "ReadOnly", "sso_region", "mars-north-1")
	l.Client.EndpointURL = nil
	_, err := w.fetch(l, nil)
	upstreamError(t, err, false, "oidc.mars-north-1.amazonaws.com", "sso_region of [sso-session corp] (mars-north-1)")
	// The page says no to what we are.
	w.person.is(func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		q.URL = strings.Replace(q.URL, "scopes=sso", "scopes=none", 1)
		return w.person.opens(ctx, q)
	})
	_, err = w.fetch(w.link("corp", dev, "ReadOnly"), nil)
	upstreamError(t, err, true, "invalid_scope", "sso_registration_scopes")
	w.person.is(nil)
	// Between the redirect and the tokens.
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Status: 400, Code: "InvalidGrantException", Message: "no", Action: "CreateToken"})
	_, err = w.fetch(w.link("corp", dev, "ReadOnly"), nil)
	upstreamError(t, err, true, "cannot sign in to Identity Center (sso-session corp)", "InvalidGrantException")
}

func TestUnusableLinks(t *testing.T) {
	w := newWorld(t, people())
	for want, l := range map[string][]string{
		"sso_start_url":  {"sso_start_url", "d-1234567890"},
		"sso_region":     {"sso_region", "eu-west-1/../x"},
		"sso_account_id": {"sso_account_id", "123"},
		"sso_role_name":  {"sso_role_name", ""},
	} {
		_, err := New(w.link("corp", dev, "ReadOnly", l...), w.deps)
		if !errors.Is(err, cred.ErrConfig) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "cannot use profile p-") {
			t.Errorf("%s: %v", want, err)
		}
	}
	l := w.link("corp", dev, "ReadOnly")
	l.Kind = "saml"
	if _, err := New(l, w.deps); !errors.Is(err, cred.ErrConfig) {
		t.Error(err)
	}
	l = w.link("corp", dev, "ReadOnly")
	l.Client.EndpointURL["sso_oidc"] = "localhost:1"
	if _, err := w.fetch(l, nil); !errors.Is(err, cred.ErrConfig) || !strings.Contains(err.Error(), "localhost:1") {
		t.Error(err)
	}
}
