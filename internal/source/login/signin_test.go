package login

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
)

func TestBrowserSignIn(t *testing.T) {
	w := newWorld(t)
	w.ask.answer = w.ask.signsIn
	s := w.source(alice)
	c := w.mustFetch(s, nil)
	if left := time.Until(c.Expires); left > 15*time.Minute || left < 14*time.Minute {
		t.Errorf("%v left", left)
	}
	q := w.ask.asked[0]
	u, _ := url.Parse(q.URL)
	v := u.Query()
	if w.ask.kinds() != "browser" || w.ask.keys[0] != s.AskKey() || q.Profile != "asked" || !strings.Contains(q.Text, alice) || u.Path != "/v1/authorize" ||
		v.Get("code_challenge_method") != "SHA-256" || len(v.Get("code_challenge")) != 43 || strings.ContainsAny(v.Get("code_challenge"), "+/=") || v.Get("scope") != "openid" {
		t.Errorf("asked %s: %+v", w.ask.kinds(), q)
	}
	if !w.store.has(recordName(alice)) {
		t.Error("it is not in the vault")
	}
	// After a restart: no person, and no call while it lasts.
	w.restart()
	w.ask.answer = nil
	if again := w.mustFetch(w.source(alice), nil); again.AccessKeyID != c.AccessKeyID || w.calls() != 1 {
		t.Errorf("%d calls", w.calls())
	}
	// A person who signs in with a session that lasts disturbs nothing.
	s = w.source(alice)
	w.mustFetch(s, nil)
	if again := w.mustFetch(s, &cred.Signin{}); again.AccessKeyID != c.AccessKeyID || w.calls() != 1 {
		t.Errorf("%d calls", w.calls())
	}
	// Without one, who comes back wants others: AWS may have refused them.
	if again := w.mustFetch(s, nil); again.AccessKeyID == c.AccessKeyID || w.calls() != 2 {
		t.Errorf("%d calls", w.calls())
	}
	if w.ask.kinds() != "browser" {
		t.Errorf("asked %s", w.ask.kinds())
	}
}

func TestRemoteSignIn(t *testing.T) {
	for name, how := range map[string]*cred.Signin{"remote": {Remote: true}, "device": {Device: true}, "no browser": nil} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ask.answer = func(ctx context.Context, q cred.Question) (string, error) {
				if q.Kind == cred.AskBrowser {
					return cred.AnswerNoBrowser, nil
				}
				code, err := w.ask.signsIn(ctx, q)
				return " " + code[:50] + "\n" + code[50:] + " ", err // as terminals break it
			}
			c := w.mustFetch(w.source(alice), how)
			want := "code"
			if how == nil {
				want = "browser code"
			}
			u, _ := url.Parse(w.ask.asked[len(w.ask.asked)-1].URL)
			if w.ask.kinds() != want || u.Query().Get("client_id") != crossDevice || u.Query().Get("redirect_uri") != w.url+"/v1/sessions/confirmation" {
				t.Errorf("asked %s: %s", w.ask.kinds(), u)
			}
			// It is refreshed as what it was made.
			w.restart()
			s := w.source(alice)
			w.mustFetch(s, nil)
			if again := w.mustFetch(s, nil); again.AccessKeyID == c.AccessKeyID || w.calls() != 2 {
				t.Errorf("%d calls", w.calls())
			}
		})
	}
}

func TestWhatIsPasted(t *testing.T) {
	const state = "11111111-2222-4333-8444-555555555555"
	enc := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for pasted, want := range map[string]string{
		enc("state=" + state + "&code=a+b%2F"):                                       "a b/",
		enc("code=x&state=" + state):                                                 "x",
		strings.TrimRight(enc("state="+state+"&code=xy"), "="):                       "xy",
		base64.URLEncoding.EncodeToString([]byte("state=" + state + "&code=~~~???")): "~~~???",
		enc("state=other&code=CANARY"):                                               "",
		enc("state=" + state):                                                        "",
		enc("state=" + state + "&code="):                                             "",
		enc("state=" + state + "&state=" + state + "&code=CANARY"):                   "",
		enc("state=&code=CANARY"):                                                    "",
		"state=" + state + "&code=CANARY":                                            "",
		"":                                                                           "",
		"CANARY":                                                                     "",
	} {
		code, why := codeOf(cred.NewSecret(pasted), state)
		if code != want || (why == "") != (want != "") || strings.Contains(why, "CANARY") {
			t.Errorf("%q: %q %q", pasted, code, why)
		}
	}
}

func TestWrongStateIsRefused(t *testing.T) {
	w := newWorld(t)
	w.aws.SetSignIn(fakeaws.SignInLogin, fakeaws.SignInWrongState)
	w.ask.answer = w.ask.signsIn
	_, err := w.fetch(w.source(alice), &cred.Signin{Remote: true})
	e := upstreamError(t, err)
	var wrong interface{ WrongCode() bool }
	if !e.Refused || !strings.Contains(e.Message, "state") || !errors.As(err, &wrong) || !wrong.WrongCode() || w.calls() != 0 || w.store.has(recordName(alice)) {
		t.Errorf("%v, %d calls", e, w.calls())
	}
	// In the browser it changes nothing: the right answer still counts.
	var status int
	w.ask.answer = func(ctx context.Context, q cred.Question) (string, error) {
		u, _ := url.Parse(q.URL)
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(u.Query().Get("redirect_uri") + "?state=wrong&code=CANARY")
		if err != nil {
			return "", err
		}
		_ = resp.Body.Close()
		status = resp.StatusCode
		w.aws.SetSignIn(fakeaws.SignInLogin, fakeaws.SignInAuto)
		return w.ask.signsIn(ctx, q)
	}
	w.mustFetch(w.source(alice), nil)
	if status != 400 || !strings.Contains(w.logs.String(), "state") || strings.Contains(w.logs.String(), "CANARY") {
		t.Errorf("%d, log %s", status, w.logs.String())
	}
}

func TestRefusedInTheBrowser(t *testing.T) {
	w := newWorld(t)
	w.aws.SetSignIn(fakeaws.SignInLogin, fakeaws.SignInDeny)
	w.ask.answer = w.ask.signsIn
	s := w.source(alice)
	_, err := w.fetch(s, nil)
	e := needsPerson(t, err, "refused in the browser")
	if e.Key != s.AskKey() || len(w.ask.ended) != 1 || !errors.Is(w.ask.ended[0], context.DeadlineExceeded) || w.calls() != 0 || w.store.has(recordName(alice)) {
		t.Errorf("%+v, the question ended with %v", e, w.ask.ended)
	}
}

func TestSomebodyElseSignsIn(t *testing.T) {
	w := newWorld(t)
	w.aws.AddUser(fakeaws.UserSpec{Name: "mallory"})
	const mallory = "arn:aws:iam::111122223333:user/mallory"
	if err := w.aws.SetLogin(mallory); err != nil {
		t.Fatal(err)
	}
	w.ask.answer = w.ask.signsIn
	_, err := w.fetch(w.source(alice), nil)
	if e := upstreamError(t, err); !e.Refused || !strings.Contains(e.Message, mallory) || !strings.Contains(e.Message, alice) {
		t.Errorf("%v", e)
	}
	if w.store.has(recordName(alice)) || w.store.has(recordName(mallory)) {
		t.Error("the session is kept")
	}
}

// A profile that names nobody learns who signed in, once; the same source
// goes on with that.
func TestWhoSignedInIsLearnt(t *testing.T) {
	w := newWorld(t)
	w.ask.answer = w.ask.signsIn
	var told []string
	fail := errors.New("the disk is full")
	w.deps.Learned = func(_ context.Context, profile, arn string) error {
		told = append(told, profile+" "+arn)
		if !w.store.has(recordName(arn)) {
			t.Error("it is told before it is kept")
		}
		return fail
	}
	s := w.source("")
	if _, err := w.fetch(s, nil); err == nil || !errors.Is(err, fail) || !strings.HasPrefix(err.Error(), "cannot ") {
		t.Fatal(err)
	}
	fail = nil
	w.mustFetch(s, nil)
	c := w.mustFetch(s, &cred.Signin{})
	if len(told) != 2 || told[1] != "dev "+alice || w.ask.kinds() != "browser" {
		t.Errorf("told %q, asked %s", told, w.ask.kinds())
	}
	// The profile now has login_session.
	w.restart()
	w.ask.answer = nil
	if again := w.mustFetch(w.source(alice), nil); again.AccessKeyID != c.AccessKeyID {
		t.Error("another session")
	}
	if w.source("").AskKey() == w.source(alice).AskKey() {
		t.Error("who is not known has the key of somebody")
	}
}

func TestSignInAgainKeepsWhatThereIs(t *testing.T) {
	w := newWorld(t)
	w.ask.answer = w.ask.signsIn
	s := w.source(alice)
	first := w.mustFetch(s, nil)
	w.aws.SetSignIn(fakeaws.SignInLogin, fakeaws.SignInDeny)
	w.deps.Sessions.Renew(s.AskKey())
	if c := w.mustFetch(w.source(alice), nil); c.AccessKeyID != first.AccessKeyID {
		t.Error("who does not sign in is disturbed")
	}
	if _, err := w.fetch(s, &cred.Signin{}); err == nil {
		t.Fatal("nobody was asked")
	}
	if c := w.mustFetch(s, &cred.Signin{}); c.AccessKeyID != first.AccessKeyID {
		t.Error("what there was is lost")
	}
	w.aws.SetSignIn(fakeaws.SignInLogin, fakeaws.SignInAuto)
	w.deps.Sessions.Renew(s.AskKey())
	if c := w.mustFetch(s, &cred.Signin{}); c.AccessKeyID == first.AccessKeyID || w.ask.kinds() != "browser browser browser" || !errors.Is(w.ask.ended[2], context.Canceled) {
		t.Errorf("asked %s", w.ask.kinds())
	}
	// A refresh that is under way for others does not stand in for it.
	w.aws.SetLatency("CreateOAuth2Token", 50*time.Millisecond)
	calls := w.calls()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = s.Fetch(t.Context(), w.input(nil)) })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := w.aws.Wait(ctx, "CreateOAuth2Token", calls+1); err != nil {
		t.Fatal(err)
	}
	w.deps.Sessions.Renew(s.AskKey())
	w.mustFetch(s, &cred.Signin{})
	wg.Wait()
	if w.ask.kinds() != "browser browser browser browser" {
		t.Errorf("asked %s", w.ask.kinds())
	}
}

// TestADayInTheLife: fetched as the broker does, a session is refreshed in
// silence until AWS ends it after 12 hours, with a restart each hour and the
// Signin service away for a while.
func TestADayInTheLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t)
		w.ask.answer = func(ctx context.Context, q cred.Question) (string, error) {
			if q.Kind == cred.AskBrowser {
				return cred.AnswerNoBrowser, nil // there are no sockets here
			}
			return w.ask.signsIn(ctx, q)
		}
		s := w.source(alice)
		c := w.mustFetch(s, nil)
		asks, fetches := 0, 0
		for end := time.Now().Add(24*time.Hour - 20*time.Minute); time.Now().Before(end); {
			time.Sleep(time.Until(c.Expires) / 2)
			fetches++
			if fetches%8 == 0 {
				w.restart()
				s = w.source(alice)
			}
			if fetches%20 == 0 {
				w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Fail500, Action: "CreateOAuth2Token", Count: 3})
				for range 3 {
					if _, err := w.fetch(s, nil); upstreamError(t, err).Refused || upstreamError(t, err).Status != 500 {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
			}
			before := len(w.ask.asked)
			next := w.mustFetch(s, nil)
			if next.AccessKeyID == c.AccessKeyID || time.Until(next.Expires) < 14*time.Minute {
				t.Fatalf("at fetch %d the same again", fetches)
			}
			c = next
			asks += len(w.ask.asked) - before
		}
		if asks != 2 { // a browser, then a code, once
			t.Errorf("a person was asked %d times in a day", asks)
		}
		t.Logf("%d fetches, %d calls", fetches, w.calls())
	})
}

func TestEndedSessions(t *testing.T) {
	for how, why := range map[fakeaws.LoginRefusal]string{fakeaws.LoginTokenExpired: "it has ended: nobody is there", fakeaws.LoginCredentialsChanged: "credentials were changed: nobody is there"} {
		t.Run(string(how), func(t *testing.T) {
			w := newWorld(t)
			w.ask.answer = w.ask.signsIn
			s := w.source(alice)
			w.mustFetch(s, nil)
			w.ask.answer = nil
			w.aws.RefuseLogin(how)
			_, err := w.fetch(s, nil)
			needsPerson(t, err, alice, why)
			// It is over whatever its expiry says, also after a restart, and
			// AWS is not asked again.
			w.aws.RefuseLogin(fakeaws.LoginWorks)
			w.restart()
			s = w.source(alice)
			calls := w.calls()
			_, err = w.fetch(s, &cred.Signin{})
			needsPerson(t, err)
			if w.calls() != calls {
				t.Error("a refused token was sent again")
			}
			w.ask.answer = w.ask.signsIn
			w.mustFetch(s, nil)
		})
	}
}

func TestOtherRefusals(t *testing.T) {
	w := newWorld(t)
	w.ask.answer = w.ask.signsIn
	w.aws.RefuseLogin(fakeaws.LoginNotPermitted)
	_, err := w.fetch(w.source(alice), nil)
	if e := upstreamError(t, err); !e.Refused || e.Code != "INSUFFICIENT_PERMISSIONS" || !strings.Contains(e.Help, Policy) {
		t.Errorf("%+v", e)
	}
	w.aws.RefuseLogin(fakeaws.LoginWorks)
	s := w.source(alice)
	w.mustFetch(s, nil)
	asked := w.ask.kinds()
	w.aws.RefuseLogin(fakeaws.LoginNotPermitted)
	_, err = w.fetch(s, nil)
	if e := upstreamError(t, err); !e.Refused || e.Code != "INSUFFICIENT_PERMISSIONS" || !strings.Contains(e.Help, Policy) || !strings.Contains(e.Message, alice) {
		t.Errorf("%+v", e)
	}
	w.aws.RefuseLogin(fakeaws.LoginWorks)
	for kind, status := range map[fakeaws.Kind]int{fakeaws.Throttle: 429, fakeaws.Fail500: 500} {
		w.aws.SetFaults(fakeaws.Fault{Kind: kind, Action: "CreateOAuth2Token", Count: 1})
		_, err = w.fetch(s, nil)
		if e := upstreamError(t, err); e.Refused || e.Status != status {
			t.Errorf("%s: %+v", kind, e)
		}
	}
	if err := w.aws.SetOutage(fakeaws.Refused); err != nil {
		t.Fatal(err)
	}
	_, err = w.fetch(s, nil)
	if e := upstreamError(t, err); e.Refused || e.Status != 0 || e.Code != "" {
		t.Errorf("%+v", e)
	}
	if s.Reach(t.Context()) == nil {
		t.Error("it is reached in an outage")
	}
	if err := w.aws.SetOutage(fakeaws.Up); err != nil {
		t.Fatal(err)
	}
	if err := s.Reach(t.Context()); err != nil || s.Upstream() != w.url {
		t.Errorf("%v %s", err, s.Upstream())
	}
	w.mustFetch(s, nil)
	if w.ask.kinds() != asked {
		t.Errorf("asked %s", w.ask.kinds())
	}
}

// A clock that is off by more than proofs may be costs a failed refresh, and
// a person nothing.
func TestWrongClock(t *testing.T) {
	for _, skew := range []time.Duration{time.Hour, -time.Hour} {
		w := newWorld(t)
		w.aws.SetClock(skew)
		w.ask.answer = w.ask.signsIn
		var told time.Duration
		w.deps.Skew = func(d time.Duration) { told = d }
		s := w.source(alice)
		c := w.mustFetch(s, nil)
		if off := time.Until(c.Expires) - skew - 15*time.Minute; off > 5*time.Second || off < -5*time.Second {
			t.Errorf("%v: expires %v", skew, c.Expires)
		}
		if d := told - skew; d > 2*time.Second || d < -2*time.Second || w.calls() != 2 || w.ask.kinds() != "browser" {
			t.Errorf("told %v, %d calls", told, w.calls())
		}
		w.mustFetch(s, nil)
		if w.calls() != 3 {
			t.Errorf("%d calls", w.calls())
		}
		// A daemon that has just started knows nothing of the clock: the
		// refresh is one call, and it may fail.
		fresh := newWorld(t)
		w.deps.Pool = fresh.deps.Pool
		w.restart()
		s = w.source(alice)
		if skew > 0 { // by our clock the credentials last: they are used
			w.mustFetch(s, nil)
		}
		_, err := w.fetch(s, nil)
		if e := upstreamError(t, err); e.Refused || e.Skew == 0 || !strings.Contains(e.Message, "clock") {
			t.Errorf("%+v", e)
		}
		w.mustFetch(s, nil)
		if w.calls() != 5 || w.ask.kinds() != "browser" {
			t.Errorf("%d calls, asked %s", w.calls(), w.ask.kinds())
		}
	}
}

// TestManyLinksAreOne: links of several regions and a hundred callers are one
// page, and afterwards one refresh.
func TestManyLinksAreOne(t *testing.T) {
	w := newWorld(t)
	gate := make(chan struct{})
	w.ask.answer = func(ctx context.Context, q cred.Question) (string, error) {
		<-gate
		return w.ask.signsIn(ctx, q)
	}
	var all []*Source
	for _, region := range []string{"eu-west-1", "us-east-1", "eu-central-1", "ap-south-1", "sa-east-1"} {
		l := w.link(alice)
		l.Client.Region = region
		s, err := New(l, w.deps)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s.(*Source))
	}
	round := func(n int) map[string]bool {
		var wg sync.WaitGroup
		var mu sync.Mutex
		ids := map[string]bool{}
		for i := range n {
			wg.Go(func() {
				c, err := all[i%len(all)].Fetch(t.Context(), w.input(nil))
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				ids[c.AccessKeyID] = true
			})
		}
		if gate != nil {
			time.Sleep(20 * time.Millisecond)
			close(gate)
		}
		wg.Wait()
		return ids
	}
	if ids := round(100); len(ids) != 1 || w.calls() != 1 || w.ask.kinds() != "browser" {
		t.Errorf("%d sessions, %d calls, asked %s", len(ids), w.calls(), w.ask.kinds())
	}
	gate = nil
	w.aws.SetLatency("CreateOAuth2Token", 30*time.Millisecond)
	if ids := round(5); len(ids) != 1 || w.calls() != 2 || w.ask.kinds() != "browser" {
		t.Errorf("%d sessions, %d calls, asked %s", len(ids), w.calls(), w.ask.kinds())
	}
	// All share a failure, too.
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Fail500, Action: "CreateOAuth2Token", Count: 1})
	var wg sync.WaitGroup
	for _, s := range all {
		wg.Go(func() { _, _ = s.Fetch(t.Context(), w.input(nil)) })
	}
	wg.Wait()
}

// Who leads may be given up; the others go on.
func TestTheLeaderLeaves(t *testing.T) {
	w := newWorld(t)
	asked := make(chan struct{}, 10)
	w.ask.answer = func(ctx context.Context, q cred.Question) (string, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return "", ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	led := make(chan error, 1)
	go func() { _, err := w.source(alice).Fetch(ctx, w.input(nil)); led <- err }()
	<-asked
	w.ask.mu.Lock()
	w.ask.answer = w.ask.signsIn
	w.ask.mu.Unlock()
	followed := make(chan error, 1)
	go func() { _, err := w.source(alice).Fetch(t.Context(), w.input(nil)); followed <- err }()
	time.Sleep(10 * time.Millisecond)
	cancel()
	if err := <-led; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-followed; err != nil {
		t.Error(err)
	}
	// A person who never comes.
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	w.ask.answer = func(ctx context.Context, _ cred.Question) (string, error) { <-ctx.Done(); return "", ctx.Err() }
	s := w.source(alice)
	w.deps.Sessions.Renew(s.AskKey())
	_, err := s.Fetch(ctx, w.input(&cred.Signin{}))
	needsPerson(t, err, "time limit")
}

func TestForget(t *testing.T) {
	w := newWorld(t)
	w.ask.answer = w.ask.signsIn
	s := w.source(alice)
	w.mustFetch(s, nil)
	if err := w.logout(); err != nil || w.store.has(recordName(alice)) {
		t.Error(err)
	}
	if err := w.logout(); err != nil {
		t.Error(err)
	}
	w.ask.answer = nil
	_, err := w.fetch(s, nil)
	needsPerson(t, err, "nobody has signed in as "+alice)
	// A logout while tokens are on their way.
	w.ask.answer = w.ask.signsIn
	w.store.putting = func(string) error {
		w.store.putting = nil
		return w.logout()
	}
	if _, err := w.fetch(s, nil); !errors.Is(err, cred.ErrUnavailable) || w.store.has(recordName(alice)) {
		t.Errorf("%v", err)
	}
	// A logout while a page is open.
	w.ask.answer = func(ctx context.Context, _ cred.Question) (string, error) {
		if err := w.logout(); err != nil {
			t.Error(err)
		}
		<-ctx.Done()
		return "", ctx.Err()
	}
	if _, err := w.fetch(s, nil); !errors.Is(err, cred.ErrUnavailable) {
		t.Error(err)
	}
	// The CLI's session is not ours to end.
	path := w.cliLogin(nil, time.Hour)
	if err := w.logout(); err != nil || !strings.Contains(w.logs.String(), "aws logout") {
		t.Error(err)
	}
	w.readFile(path)
}

func TestTheVault(t *testing.T) {
	w := newWorld(t)
	w.ask.answer = w.ask.signsIn
	s := w.source(alice)
	w.store.err = cred.ErrLocked
	if _, err := w.fetch(s, nil); !errors.Is(err, cred.ErrLocked) || w.ask.kinds() != "" {
		t.Errorf("%v, asked %q", err, w.ask.kinds())
	}
	w.store.err = nil
	full := errors.New("the disk is full")
	w.store.putting = func(string) error { return full }
	if _, err := w.fetch(s, nil); !errors.Is(err, full) {
		t.Errorf("tokens that are not kept were used: %v", err)
	}
	w.store.putting = nil
	w.mustFetch(s, nil)
	if err := w.store.Put(t.Context(), recordName(alice), cred.NewSecret(`{"version":2}`)); err != nil {
		t.Fatal(err)
	}
	asked := w.ask.kinds()
	if _, err := w.fetch(s, nil); err == nil || !strings.Contains(err.Error(), "newer keyfob") || w.ask.kinds() != asked {
		t.Error(err)
	}
	for _, bad := range []string{"", "{", `{"version":1,"login_session":"` + alice + `","session":{"dpop_key":"x"}}`, `{"version":1,"login_session":"x"}`, "null", "[]"} {
		_ = w.store.Put(t.Context(), recordName(alice), cred.NewSecret(bad))
		w.mustFetch(s, nil)
	}
}

// After a kill between a refresh and its answer the same token is sent once
// more, and AWS gives the same again.
func TestAnAnswerThatWasLost(t *testing.T) {
	w := newWorld(t)
	w.ask.answer = w.ask.signsIn
	s := w.source(alice)
	w.mustFetch(s, nil)
	killed := errors.New("killed")
	w.store.putting = func(string) error { return killed }
	if _, err := w.fetch(s, nil); !errors.Is(err, killed) {
		t.Fatal(err)
	}
	w.store.putting = nil
	w.restart()
	s = w.source(alice)
	w.mustFetch(s, nil) // what the vault has
	w.mustFetch(s, nil)
	if w.aws.Count("again:refresh_token") != 1 || w.ask.kinds() != "browser" {
		t.Errorf("sent again %d times, asked %s", w.aws.Count("again:refresh_token"), w.ask.kinds())
	}
}
