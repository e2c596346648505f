package broker

import (
	"context"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// fakeSignIn is a source of roles behind a sign-in that its parameter
// "session" names.
type fakeSignIn struct{ fakeSource }

func (s *fakeSignIn) session() string { return s.link.Params["session"] }

func (s *fakeSignIn) AskKey() cred.LinkKey {
	return cred.KeyOf("test sign-in", map[string]string{"session": s.session()}, cred.LinkKey{})
}

func (s *fakeSignIn) SignInEnds(context.Context) time.Time {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.w.signIns[s.session()]
}

func (s *fakeSignIn) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	w := s.w
	w.mu.Lock()
	w.signins = append(w.signins, in.Signin)
	w.mu.Unlock()
	if left := time.Until(s.SignInEnds(ctx)); left <= 0 || in.Signin != nil && left <= signInNotice {
		if _, err := in.Ask.Ask(ctx, s.AskKey(), cred.Question{Kind: cred.AskBrowser, Profile: in.Profile, URL: "https://signin.test/"}); err != nil {
			return cred.Credentials{}, err
		}
		w.mu.Lock()
		if time.Until(w.signIns[s.session()]) < w.signLife-time.Minute {
			w.calls["signed in "+s.session()]++
			w.signIns[s.session()] = time.Now().Add(w.signLife)
		}
		w.mu.Unlock()
	}
	return s.fakeSource.Fetch(ctx, in)
}

func sso(profile, session, name string) profiles.Link {
	return profiles.Link{Kind: profiles.KindSSO, Profile: profile, Params: map[string]string{"name": name, "session": session}}
}
