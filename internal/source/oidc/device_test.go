package oidc

import (
	"context"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
)

// waits answers a question for another device: it is over when the source
// says so. meanwhile is run once it is shown.
func waits(meanwhile func(q cred.Question)) func(context.Context, cred.Question) (cred.Secret, error) {
	return func(ctx context.Context, q cred.Question) (cred.Secret, error) {
		if q.Kind == cred.AskBrowser {
			return cred.NewSecret(cred.AnswerNoBrowser), nil
		}
		meanwhile(q)
		<-ctx.Done()
		return cred.Secret{}, ctx.Err()
	}
}

// TestDevice: by --device, and where no browser can be opened.
func TestDevice(t *testing.T) {
	t.Parallel()
	for name, signin := range map[string]*cred.Signin{"asked for": {Device: true}, "no browser": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeaws.OIDCSpec{})
			w.ask.does = waits(func(cred.Question) { w.idp.set(func(p *idp) { p.approved = true }) })
			if _, err := w.fetchWith(w.link(), cred.Input{Signin: signin}); err != nil {
				t.Fatal(err)
			}
			q := w.ask.last()
			if q.Kind != cred.AskDevice || q.UserCode != "ABCD-EFGH" || !strings.HasSuffix(q.URL, "/d?c=ABCD-EFGH") {
				t.Errorf("question %+v", q)
			}
			if n := w.ask.count(); signin != nil && n != 1 || signin == nil && n != 2 {
				t.Errorf("%d questions", n)
			}
			w.expire()
			w.must() // the refresh token serves as well
		})
	}
}

// TestDeviceRefused: what becomes of a code that nobody uses as hoped.
func TestDeviceRefused(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"access_denied":       "refused in the browser",
		"expired_token":       "the code ABCD-EFGH expired",
		"unauthorized_client": "oidc_client_id",
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeaws.OIDCSpec{})
			w.idp.polled = func(int) string { return code }
			w.ask.does = waits(func(cred.Question) {})
			_, err := w.fetchWith(w.link(), cred.Input{Signin: &cred.Signin{Device: true}})
			wants(t, err, want)
			if w.ask.ends[0] != context.DeadlineExceeded {
				t.Errorf("the question ended with %v", w.ask.ends[0])
			}
		})
	}
}

// TestNoDevice: a provider without the grant.
func TestNoDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	w.idp.discover = func(d map[string]any) { delete(d, "device_authorization_endpoint") }
	w.ask.does = waits(func(cred.Question) { t.Error("asked for a device") })
	_, err := w.fetch()
	wants(t, err, "no browser can be opened here", "no sign-in by a code", "keyfob login asked")
	interaction(t, err)
}

// TestDevicePace: the provider's interval holds, slow_down adds five seconds
// (RFC 8628 §3.5), and the code ends when the provider said.
func TestDevicePace(t *testing.T) {
	t.Parallel()
	bubble(t, fakeaws.OIDCSpec{}, func(w *world) {
		w.idp.polled = func(n int) string {
			if n == 3 {
				return "slow_down"
			}
			return ""
		}
		w.ask.does = waits(func(cred.Question) {})
		_, err := w.fetchWith(w.link(), cred.Input{Signin: &cred.Signin{Device: true}})
		// The test's own limit is 20 s.
		wants(t, err, "nobody finished it in time")
		var gaps []time.Duration
		for i := 1; i < len(w.idp.polls); i++ {
			gaps = append(gaps, w.idp.polls[i].Sub(w.idp.polls[i-1]))
		}
		if len(gaps) != 4 || gaps[0] != time.Second || gaps[1] != time.Second || gaps[2] != 6*time.Second || gaps[3] != 6*time.Second {
			t.Errorf("gaps between polls: %v", gaps)
		}

		w.idp.polled, w.idp.polls = nil, nil
		ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Minute)
		defer cancel()
		_, err = w.source(w.link()).Fetch(ctx, cred.Input{Profile: "asked", Ask: w.ask, Signin: &cred.Signin{Device: true}})
		wants(t, err, "the code ABCD-EFGH expired before anybody used it")
		if n := len(w.idp.polls); n < 55 || n > 60 {
			t.Errorf("%d polls in a minute, want about 60", n)
		}
	})
}
