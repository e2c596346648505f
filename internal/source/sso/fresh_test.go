package sso

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"keyfob/internal/access"
	"keyfob/internal/broker"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/interact"
	"keyfob/internal/peer"
	"keyfob/profiles"
)

// TestALoginFetchesOnce: `keyfob login` gets the role's credentials by one
// call, whether somebody signs in for it or the sign-in is there.
func TestALoginFetchesOnce(t *testing.T) {
	w := newWorld(t, people())
	file := filepath.Join(t.TempDir(), "config")
	config := fmt.Sprintf("[sso-session corp]\nsso_start_url = %s\nsso_region = eu-west-1\nsso_registration_scopes = sso:account:access\n", startURL)
	for _, role := range []string{"ReadOnly", "Admin"} {
		config += fmt.Sprintf("[profile %s]\nsso_session = corp\nsso_account_id = %s\nsso_role_name = %s\n", role, dev, role)
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := access.NewRules(access.RulesConfig{Owner: peer.Self()})
	if err != nil {
		t.Fatal(err)
	}
	queue := interact.NewQueue(interact.Config{})
	b := broker.New(broker.Config{Sources: sources{w.deps}, Store: w.vault, Asker: queue, Rules: rules, Log: w.deps.Log, SigninTimeout: 20 * time.Second})
	b.SetProfiles(profiles.Load(profiles.Input{ConfigFile: file, Env: map[string]string{"AWS_ENDPOINT_URL": w.url}}))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(ctx) })
	defer running.Wait()
	defer cancel()

	login := func(profile string) string {
		r := cred.Request{Caller: peer.Caller{UID: peer.Self(), Via: "unix"}, Profile: profile, MayAsk: true, Via: cred.Endpoint{Kind: cred.ViaLogin}}
		keys, _, err := b.Chain(r)
		if err != nil {
			t.Fatal(err)
		}
		defer queue.Attach(keys, &browserPerson{t: t})()
		snap, err := b.Fresh(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		return snap.AccessKeyID
	}
	first := login("ReadOnly")
	w.count("Authorize", 1, "CreateToken", 1, "GetRoleCredentials", 1)
	login("Admin") // the sign-in is there
	w.count("Authorize", 0, "GetRoleCredentials", 1)
	// With everything there the sign-in is looked at: AWS may have ended it.
	w.aws.EndSSOSessions()
	if login("ReadOnly") == first {
		t.Error("a login after the portal's session ended changed nothing")
	}
	w.count("Authorize", 1)
}

// TestThePortalSaysHowLong: Retry-After goes with the error.
func TestThePortalSaysHowLong(t *testing.T) {
	w := signedIn(t)
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Retry-After", "17")
		w.aws.Handler().ServeHTTP(rw, r)
	}))
	defer front.Close()
	l := w.link("corp", dev, "ReadOnly")
	l.Client.EndpointURL["sso"] = front.URL
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Action: "GetRoleCredentials"})
	_, err := w.fetch(l, nil)
	upstreamError(t, err, false, "limits the rate")
	if d := cred.RetryAfter(err); d != 17*time.Second {
		t.Errorf("Retry-After is %v", d)
	}
}
