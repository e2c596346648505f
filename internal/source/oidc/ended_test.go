package oidc

import (
	"errors"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/interact"
)

// TestThrottled: one attempt is one request, whoever limits the rate, and no
// refusal; the tokens are as good as before.
func TestThrottled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{Rotate: true})
	w.must()
	for action, status := range map[string]int{"AssumeRoleWithWebIdentity": 503, "OIDCToken": 429} {
		w.expire()
		f := fakeaws.Fault{Kind: fakeaws.Throttle, Action: action}
		if action == "OIDCToken" {
			f.Status = status
		}
		w.aws.SetFaults(f)
		before := w.aws.Count(action)
		_, err := w.fetch()
		var up *cred.UpstreamError
		if !errors.As(err, &up) || up.Refused || up.Status != status || !errors.Is(err, cred.ErrUnavailable) {
			t.Errorf("%s: %+v", action, err)
		}
		wants(t, err, "limits the rate")
		if n := w.aws.Count(action) - before; n != 1 {
			t.Errorf("%s: %d requests", action, n)
		}
		w.aws.SetFaults()
		w.must()
	}
	if w.ask.count() != 1 {
		t.Errorf("%d questions", w.ask.count())
	}
}

// TestWhatHasEnded: where nobody is there to sign in, the error says what
// ended.
func TestWhatHasEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	queue := interact.NewQueue(interact.Config{})
	says := func(parts ...string) {
		t.Helper()
		_, err := w.fetchWith(w.link(), cred.Input{Ask: queue, Profile: "asked"})
		interaction(t, err)
		wants(t, err, append(parts, "cannot get credentials for asked: ", ": nobody is there to answer")...)
	}
	issuer := w.link().Params["oidc_issuer"]
	says("nobody has signed in at " + issuer)
	w.must()
	w.expire()
	w.aws.EndOIDCSessions()
	says("the sign-in at "+issuer+" ended at ", time.Now().UTC().Format("2006-"))
}
