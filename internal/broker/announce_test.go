package broker

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// signedIn is a rig with a person's session of the given life and a role
// over it.
func signedIn(t *testing.T, r *rig, life time.Duration) *cred.Snapshot {
	t.Helper()
	r.ask.attach(after(0, "123456"))
	r.w.life[profiles.KindSessionToken] = life
	s, err := r.getAs("base", true, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.getAs("dev", true, time.Minute); err != nil {
		t.Fatal(err)
	}
	r.ask.attach(nil)
	return s
}

func (r *rig) status(profile string) Session {
	r.t.Helper()
	for _, s := range r.b.Sessions() {
		if s.Profile == profile {
			return s
		}
	}
	r.t.Fatalf("%s is not active", profile)
	return Session{}
}

func TestNotice(t *testing.T) {
	for life, want := range map[time.Duration]time.Duration{
		36 * time.Hour: 90 * time.Minute, 12 * time.Hour: 30 * time.Minute, 8 * time.Hour: 20 * time.Minute,
		time.Hour: 15 * time.Minute, 15 * time.Minute: 225 * time.Second,
	} {
		if got := notice(life); got != want {
			t.Errorf("notice of %v is %v, want %v", life, got, want)
		}
	}
}

// Before a session that needs a person ends the person is told, once, and
// for each session anew; a restart is not a session.
func TestAnnouncedOnce(t *testing.T) {
	for _, c := range []struct{ life, before time.Duration }{
		{12 * time.Hour, 30 * time.Minute}, {time.Hour, 15 * time.Minute}, {15 * time.Minute, 225 * time.Second},
	} {
		t.Run(c.life.String(), func(t *testing.T) {
			bubble(t, mfaRole(), func(t *testing.T, r *rig) {
				for round := 1; round <= 3; round++ {
					s := signedIn(t, r, c.life)
					for time.Until(s.Expires) > c.before+time.Second {
						time.Sleep(min(5*time.Minute, time.Until(s.Expires)-c.before-time.Second))
						r.must("dev")
					}
					if n := len(r.announced()); n != round-1 {
						t.Fatalf("announced %d times, %v before the end", n, time.Until(s.Expires))
					}
					if st := r.status("dev"); st.NeedsPerson || !st.EndsAt.Equal(s.Expires) {
						t.Errorf("status before: %+v", st)
					}
					time.Sleep(2 * time.Second)
					synctest.Wait()
					all := r.announced()
					if len(all) != round {
						t.Fatalf("announced %d times, %v before the end", len(all), time.Until(s.Expires))
					}
					want := Announcement{Profile: "dev", Kind: "session-token", Expires: s.Expires, Hint: "keyfob login dev"}
					if all[round-1] != want {
						t.Errorf("announced %+v, want %+v", all[round-1], want)
					}
					for _, st := range r.b.Sessions() {
						if !st.NeedsPerson || !st.EndsAt.Equal(s.Expires) {
							t.Errorf("status: %+v", st)
						}
					}
					r.b.SetSkew(time.Duration(round) * 10 * time.Second) // not another session
					r.must("dev")
					r.stop()
					r.start(mfaRole())
					r.b.SetSkew(time.Duration(round) * 10 * time.Second)
					r.must("dev")
					r.must("base")
					time.Sleep(time.Until(s.Expires) + 10*time.Minute)
					if n := len(r.announced()); n != round {
						t.Fatalf("announced %d times in all", n)
					}
					if st := r.status("base"); !st.NeedsPerson || !st.EndsAt.IsZero() {
						t.Errorf("status after the end: %+v", st)
					}
					time.Sleep(time.Hour) // the role ends, too
					r.b.SetSkew(0)
				}
			})
		})
	}
}

// What nobody used lately is not announced, until somebody uses it.
func TestNotAnnouncedForNobody(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		r.b.SetActive(plain("dev")) // never idle, and never asked for at the start
		s := signedIn(t, r, 12*time.Hour)
		r.stop()
		r.start(mfaRole())
		r.b.SetActive(plain("dev"))
		time.Sleep(time.Until(s.Expires) - 20*time.Minute)
		if n := len(r.announced()); n != 0 {
			t.Fatalf("announced %d times", n)
		}
		r.must("dev")
		time.Sleep(maxTick + time.Second)
		if n := len(r.announced()); n != 1 {
			t.Fatalf("announced %d times after it was used", n)
		}
	})
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		r.b.SetActive(plain("dev"))
		s := signedIn(t, r, 12*time.Hour)
		time.Sleep(time.Until(s.Expires))
		if n := len(r.announced()); n != 0 {
			t.Fatalf("announced %d times, though nobody asked since the start", n)
		}
	})
	bubble(t, dev(), func(t *testing.T, r *rig) {
		for range 30 {
			r.must("dev") // needs no person
			time.Sleep(time.Hour)
		}
		if n := len(r.announced()); n != 0 {
			t.Fatalf("announced %d times", n)
		}
		if st := r.b.Sessions()[0]; st.NeedsPerson || !st.EndsAt.IsZero() {
			t.Errorf("status: %+v", st)
		}
	})
}

func TestStatusSaysThatAPersonIsNeeded(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		if _, err := r.get("dev"); interactionOf(err) == nil {
			t.Fatal(err)
		}
		if st := r.b.Sessions()[0]; !st.NeedsPerson || !st.EndsAt.IsZero() {
			t.Errorf("status: %+v", st)
		}
	})
}

// login without --force: whoever signs in at nine has the day before him,
// also when the role would do for another hour.
func TestFresh(t *testing.T) {
	bubble(t, mfaRole(), func(t *testing.T, r *rig) {
		req := cred.Request{Caller: self, Profile: "dev", MayAsk: true}
		first := signedIn(t, r, 12*time.Hour)
		r.ask.attach(after(time.Second, "123456"))
		fresh := func(asked int32, why string) *cred.Snapshot {
			t.Helper()
			s, err := r.b.Fresh(t.Context(), req)
			if err != nil {
				t.Fatalf("%s: %v", why, err)
			}
			if n := r.ask.asked.Load(); n != asked {
				t.Fatalf("%s: a person was asked %d times, want %d", why, n, asked)
			}
			return s
		}
		fresh(1, "enough is left")
		r.stop()
		r.start(mfaRole())
		fresh(1, "enough is left in the vault")

		for time.Until(first.Expires) > 25*time.Minute {
			r.must("dev")
			time.Sleep(5 * time.Minute)
		}
		role := r.must("dev")
		if s := fresh(2, "25 min are left"); s.AccessKeyID != role.AccessKeyID {
			t.Error("the role that was good is not what is handed out")
		}
		if left := time.Until(r.must("base").Expires); left < 11*time.Hour {
			t.Errorf("%v left after signing in", left)
		}
		fresh(2, "again")

		// Refused: what there was stays, and is still handed out.
		base := r.must("base")
		for time.Until(base.Expires) > 25*time.Minute {
			r.must("dev")
			time.Sleep(5 * time.Minute)
		}
		r.ask.attach(nil)
		if _, err := r.b.Fresh(t.Context(), req); interactionOf(err) == nil {
			t.Fatalf("got %v", err)
		}
		r.must("dev")
		if r.must("base") != base {
			t.Error("the session that was good is gone")
		}
		if _, err := r.b.Fresh(t.Context(), cred.Request{Profile: "dev"}); err == nil || err.Error() != "denied" {
			t.Errorf("nobody got %v", err)
		}
	})
	// A profile that needs no person: nothing is fetched, but a back-off ends.
	bubble(t, dev(), func(t *testing.T, r *rig) {
		req := cred.Request{Caller: self, Profile: "dev"}
		r.w.setFail(refused)
		for range 120 {
			_, _ = r.get("dev")
			time.Sleep(time.Second)
		}
		r.w.setFail(nil)
		n := r.w.count("assume-role")
		if _, err := r.b.Fresh(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if _, err := r.b.Fresh(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		r.wantCalls("assume-role", n+1)
	})
}

// Fifty logins at once are one question.
func TestFreshTogether(t *testing.T) {
	bubble(t, fiftyRoles(), func(t *testing.T, r *rig) {
		r.ask.attach(after(5*time.Second, "123456"))
		done := make(chan error)
		for i := range 50 {
			go func() {
				_, err := r.b.Fresh(t.Context(), cred.Request{Caller: self, Profile: []string{"r1", "r2"}[i%2], MayAsk: true})
				done <- err
			}()
		}
		for range 50 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		for n := 1; n <= 2; n++ {
			if got := r.ask.asked.Load(); int(got) != n {
				t.Fatalf("asked %d times, want %d", got, n)
			}
			time.Sleep(12*time.Hour - 20*time.Minute)
			for i := range 50 {
				go func() {
					_, err := r.b.Fresh(t.Context(), cred.Request{Caller: self, Profile: []string{"r1", "r2"}[i%2], MayAsk: true})
					done <- err
				}()
			}
			for range 50 {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// Each link that got credentials is told of, and none that did not.
func TestFetched(t *testing.T) {
	bubble(t, dev(), func(t *testing.T, r *rig) {
		r.must("dev")
		r.must("dev")
		keys, _, err := r.b.Chain(cred.Request{Caller: self, Profile: "dev"})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.fetched; len(got) == 0 || !slices.Contains(got, keys[len(keys)-1]) || len(got) > len(keys) {
			t.Errorf("told of %v, the links are %v", got, keys)
		}
	})
}
