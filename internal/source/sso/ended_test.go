package sso

import (
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/interact"
)

// TestWhatHasEnded: where nobody is there to sign in, the error says what
// ended, and when.
func TestWhatHasEnded(t *testing.T) {
	w := newWorld(t, people())
	l := w.link("corp", dev, "ReadOnly")
	queue := interact.NewQueue(interact.Config{})
	says := func(parts ...string) {
		t.Helper()
		_, err := w.source(l).Fetch(t.Context(), cred.Input{Profile: "asked", Ask: queue})
		e := interactionError(t, err, append(parts, "cannot get credentials for asked: ", ": nobody is there to answer")...)
		if e.Hint() != "keyfob login asked" || strings.Count(e.Error(), "\n") != 0 {
			t.Errorf("%v, hint %q", e, e.Hint())
		}
		w.noSecrets(err)
	}
	says("nobody has signed in at " + startURL)
	w.ok(l)
	w.asks(cred.AskBrowser)

	// The portal's session ended; the token, with nothing to refresh it.
	w.aws.EndSSOSessions()
	says("the sign-in at "+startURL+" ended at "+time.Now().UTC().Format("2006-01-02T15:"), "AWS takes its token no more")
	w.restart()
	says("the sign-in at " + startURL + " ended at " + time.Now().UTC().Format("2006-01-02T15:"))
	w.ok(l)
	end := time.Now().Add(-3 * time.Hour)
	w.change(l, func(r *record) { r.expires, r.refresh = end, cred.Secret{} })
	says("the sign-in at " + startURL + " ended at " + end.UTC().Format(time.RFC3339))
	// A sign-in or a refresh ends the memory of it.
	w.ok(l)
	if r := w.record(l); !r.ended.IsZero() {
		t.Errorf("it ended at %v", r.ended)
	}
}

// TestThrottled: one attempt is one request, and no refusal: whoever asked
// waits as the broker says.
func TestThrottled(t *testing.T) {
	w := signedIn(t)
	l := w.link("corp", dev, "ReadOnly")
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Action: "GetRoleCredentials"})
	_, err := w.fetch(l, nil)
	e := upstreamError(t, err, false, "get credentials of role ReadOnly", "limits the rate")
	if e.Status != 429 || e.Code != "TooManyRequestsException" {
		t.Errorf("%+v", e)
	}
	w.count("GetRoleCredentials", 1, "CreateToken", 0)
	w.lateToken(-time.Second)
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Action: "CreateToken"})
	_, err = w.fetch(l, nil)
	if e = upstreamError(t, err, false, "refresh the session", "limits the rate"); e.Code != "SlowDownException" {
		t.Errorf("%+v", e)
	}
	w.count("CreateToken", 1)
	w.asks()
	// It is as good as before.
	w.aws.SetFaults()
	w.lateToken(-time.Second)
	w.restart()
	w.ok(l)
	w.asks()
}
