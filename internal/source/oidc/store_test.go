package oidc

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
)

// TestLocked: a locked vault gives nothing, and nobody is asked.
func TestLocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	w.must()
	w.vault.set(func(v *vault) { v.locked = true })
	if _, err := w.fetch(); !errors.Is(err, cred.ErrLocked) {
		t.Errorf("error %v", err)
	}
	if w.ask.count() != 1 {
		t.Error("somebody was asked")
	}
	if !w.source(w.link()).(cred.SignInSource).SignInEnds(t.Context()).IsZero() {
		t.Error("an end is known")
	}
}

// TestFullDisk: without the mark nothing is sent; an answer that can't be
// written is kept, used after it was written, and lost by a lock.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{Rotate: true})
	w.must()
	w.expire()
	w.vault.set(func(v *vault) { v.full = true })
	_, err := w.fetch()
	if err == nil || !strings.Contains(err.Error(), "no space") || len(w.idp.sent()) != 0 {
		t.Errorf("error %v, %d tokens sent", err, len(w.idp.sent()))
	}
	w.vault.set(func(v *vault) { v.full = false })
	full := false
	w.idp.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/token") && !full {
			full = true
			w.vault.set(func(v *vault) { v.full = true })
		}
		return false
	})
	_, err = w.fetch()
	if err == nil || !strings.Contains(err.Error(), "no space") || w.aws.Count("AssumeRoleWithWebIdentity") != 1 {
		t.Errorf("error %v: the token was used before it was written", err)
	}
	w.vault.set(func(v *vault) { v.full = false })
	w.must()
	if n := len(w.idp.sent()); n != 1 || w.ask.count() != 1 {
		t.Errorf("%d refreshes, %d questions", n, w.ask.count())
	}
}

// TestStrangeRecord: what can't be read is signed in anew.
func TestStrangeRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	w.must()
	w.change(func(r map[string]any) { r["version"] = 99 })
	w.must()
	if w.ask.count() != 2 || !strings.Contains(w.logs.String(), "can't be read") {
		t.Errorf("%d questions; log %s", w.ask.count(), w.logs.String())
	}
}

// TestLogout: forgotten here, revoked there, for all who share it.
func TestLogout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	if err := Logout(t.Context(), w.link(), w.deps); err != nil {
		t.Errorf("nobody signed in: %v", err)
	}
	w.must()
	r := w.record()
	if err := Logout(t.Context(), w.link("role_arn", w.roles[1]), w.deps); err != nil {
		t.Fatal(err)
	}
	if len(w.vault.all()) != 0 {
		t.Error("the record is still there")
	}
	if w.aws.Count("OIDCRevoke") != 1 {
		t.Error("nothing was revoked")
	}
	if len(w.idp.ended) != 1 || w.idp.ended[0].Get("id_token_hint") != r["id_token"] || w.idp.ended[0].Get("client_id") != "keyfob" {
		t.Errorf("end of session: %v", len(w.idp.ended))
	}
	if n := w.aws.EndOIDCSessions(); n != 0 {
		t.Errorf("%d sessions are alive at the provider", n)
	}
	w.ask.does = nobody
	_, err := w.fetch()
	interaction(t, err)

	// Out of reach: forgotten all the same, and said.
	w.ask.does = nil
	w.must()
	w.idp.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/revoke") {
			http.Error(rw, "no", http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	err = Logout(t.Context(), w.link(), w.deps)
	w.canaries.said(err)
	wants(t, err, "cannot sign out at", "HTTP 503", "forgotten here")
	if len(w.vault.all()) != 0 {
		t.Error("the record is still there")
	}
}

// TestLogoutDuring: a logout ends a sign-in and a refresh under way, and what
// they bring is not kept.
func TestLogoutDuring(t *testing.T) {
	t.Parallel()
	for _, refresh := range []bool{false, true} {
		w := newWorld(t, fakeaws.OIDCSpec{})
		w.canaries.add("x")
		if refresh {
			w.must()
			w.expire()
		}
		reached, out := make(chan struct{}), make(chan error, 1)
		w.idp.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/token") {
				_ = r.ParseForm()
				close(reached)
				<-r.Context().Done()
				return true
			}
			return false
		})
		go func() { _, err := w.fetch(); out <- err }()
		<-reached
		if err := Logout(t.Context(), w.link(), w.deps); err != nil {
			t.Error(err)
		}
		if err := <-out; !errors.Is(err, errForgotten) || !errors.Is(err, cred.ErrUnavailable) {
			t.Errorf("the sign-in under way: %v", err)
		}
		if len(w.vault.all()) != 0 {
			t.Error("a record is there")
		}
	}
}

// TestNoAnswer: after a refresh without an answer the token is not sent
// again, unless it is known to be good for many uses; what never left the
// machine was not sent.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	drop := func(w *world) {
		dropped := false
		w.idp.intercept(func(rw http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/token") && !dropped {
				dropped = true
				if c, _, err := rw.(http.Hijacker).Hijack(); err == nil {
					_ = c.Close()
				}
				return true
			}
			return false
		})
	}
	w := newWorld(t, fakeaws.OIDCSpec{Rotate: true})
	w.must()
	w.expire()
	drop(w)
	w.must() // a person signs in at once
	if w.ask.count() != 2 || len(w.idp.sent()) != 0 || !strings.Contains(w.logs.String(), "good for one use") {
		t.Errorf("%d questions, %d tokens sent", w.ask.count(), len(w.idp.sent()))
	}

	w = newWorld(t, fakeaws.OIDCSpec{})
	w.must()
	w.expire()
	w.must()
	w.expire()
	drop(w)
	_, err := w.fetch()
	wants(t, err, "closed the connection without an answer")
	w.must()
	if w.ask.count() != 1 {
		t.Errorf("%d questions, want 1", w.ask.count())
	}

	w = newWorld(t, fakeaws.OIDCSpec{Rotate: true})
	w.must()
	w.expire()
	w.deps.Sessions.of(w.source(w.link()).(cred.SignInSource).AskKey()).provider.Token = "http://127.0.0.1:1/token"
	_, err = w.fetch()
	wants(t, err, "refuses the connection")
	w.restart()
	w.must()
	if w.ask.count() != 1 || w.aws.Count("reused:refresh_token") != 0 {
		t.Errorf("%d questions, want 1", w.ask.count())
	}
}

// TestEndKnown: some providers say when a refresh token ends.
func TestEndKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	w.must()
	w.change(func(r map[string]any) { r["refresh_ends"] = "2100-01-02T03:04:05Z" })
	src := w.source(w.link()).(cred.SignInSource)
	if end := src.SignInEnds(t.Context()); end.Year() != 2100 {
		t.Errorf("end %v", end)
	}
	w.expire()
	w.change(func(r map[string]any) { r["refresh_ends"] = "2001-01-02T03:04:05Z" })
	w.must()
	if w.ask.count() != 2 || len(w.idp.sent()) != 0 {
		t.Errorf("an ended token was sent")
	}
	u, _ := url.Parse(w.ask.last().URL)
	if u.Query().Get("nonce") == "" || u.Query().Get("state") == "" {
		t.Error("no nonce or state")
	}
}
