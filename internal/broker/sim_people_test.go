package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"keyfob/internal/cred"
)

// simPerson has an MFA device, or a sign-in, behind some profiles. He learns
// from an announcement or from status that he is needed, reacts after a while
// and signs in for one of the profiles, again until it works.
type simPerson struct {
	name    string
	profile string // for which he signs in
	key     cred.LinkKey
	life    time.Duration
	rng     *rand.Rand
	call    chan struct{} // cap 1: he is needed

	// Guarded by sim.mu.
	there    bool // signing in now
	asking   chan struct{}
	prompts  int
	wasted   int // the call after it failed
	early    int // while there was plenty of time
	told     int
	logins   int
	sessions []simSession
}

// simSession lasts from a time of the bubble to one of AWS's clock.
type simSession struct{ from, ends time.Duration }

// has notes a session that was given. sim.mu is held.
func (p *simPerson) has(from, ends time.Duration) {
	p.sessions = append(p.sessions, simSession{from, ends})
}

// ends is when the last session ends, by AWS's clock. sim.mu is held.
func (p *simPerson) ends() time.Duration {
	if n := len(p.sessions); n > 0 {
		return p.sessions[n-1].ends
	}
	return 0
}

// back is when the last session without one right before it began. sim.mu is
// held.
func (p *simPerson) back(s *sim) time.Duration {
	for i := len(p.sessions) - 1; i > 0; i-- {
		if s.awsAt(p.sessions[i].from) > p.sessions[i-1].ends {
			return p.sessions[i].from
		}
	}
	return 0
}

// personFrom is the first time from t on at which l's person has a session.
func (s *sim) personFrom(l *simLink, t time.Duration) time.Duration {
	if l.person == nil || l.isBase {
		return t
	}
	for _, x := range l.person.sessions {
		switch {
		case x.from > t:
			return x.from
		case s.awsAt(t) < x.ends:
			return t
		}
	}
	return 1 << 62
}

func (s *sim) person(name, profile string, key cred.LinkKey, life time.Duration) *simPerson {
	p := &simPerson{name: name, profile: profile, key: key, life: life, call: make(chan struct{}, 1), rng: rand.New(rand.NewPCG(uint64(len(s.persons)), 11))}
	s.persons = append(s.persons, p)
	return p
}

// Ask is the queue of interactions: one for each key, answered by who is
// there.
func (s *sim) Ask(ctx context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	s.mu.Lock()
	var p *simPerson
	for _, x := range s.persons {
		if x.key == key {
			p = x
		}
	}
	if p == nil || !p.there {
		s.mu.Unlock()
		return cred.Secret{}, &cred.InteractionError{Key: key, Kind: q.Kind, Profile: q.Profile}
	}
	if done := p.asking; done != nil {
		s.mu.Unlock()
		<-done
		return cred.NewSecret("123456"), nil
	}
	done := make(chan struct{})
	p.asking = done
	p.prompts++
	if p.ends()-s.now()-s.aws > max(notice(p.life), signInNotice)+minute {
		p.early++
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		p.asking = nil
		s.mu.Unlock()
		close(done)
	}()
	select {
	case <-time.After(5*time.Second + time.Duration(p.rng.Int64N(int64(40*time.Second)))):
		return cred.NewSecret("123456"), nil
	case <-ctx.Done():
		return cred.Secret{}, ctx.Err()
	}
}

func (s *sim) announce(a Announcement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.persons {
		if s.links[a.Profile].person == p {
			p.told++
			p.needed()
		}
	}
}

func (p *simPerson) needed() {
	select {
	case p.call <- struct{}{}:
	default:
	}
}

// watch looks at status now and then for all persons.
func (s *sim) watch(end time.Duration) {
	for s.now() < end-hour {
		time.Sleep(17 * minute)
		for _, x := range s.cur.Load().Sessions() {
			if p := s.links[x.Profile].person; p != nil && x.NeedsPerson {
				p.needed()
			}
		}
	}
}

func (p *simPerson) run(t *testing.T, s *sim, end time.Duration) {
	p.needed() // to begin with
	for {
		select {
		case <-p.call:
		case <-time.After(time.Until(s.begin.Add(end - minute))):
			return
		}
		delay := time.Duration(p.rng.Int64N(int64(25 * minute)))
		if p.rng.IntN(5) == 0 { // at lunch, asleep
			delay = time.Duration(p.rng.Int64N(int64(5 * hour)))
		}
		for {
			if s.now()+delay > end-hour {
				return
			}
			time.Sleep(delay)
			if p.login(s) == nil {
				break
			}
			delay = minute + time.Duration(p.rng.Int64N(int64(3*minute)))
		}
	}
}

func (p *simPerson) login(s *sim) error {
	s.mu.Lock()
	p.there = true
	p.logins++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		p.there = false
		s.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 10*minute)
	defer cancel()
	_, err := s.cur.Load().Fresh(ctx, cred.Request{Caller: self, Profile: p.profile, MayAsk: true, Via: cred.Endpoint{Kind: cred.ViaLogin}})
	return err
}

// simSignIn is a source of roles behind a person's sign-in.
type simSignIn struct{ *simSource }

func (x *simSignIn) AskKey() cred.LinkKey { return x.link.person.key }

// SignInEnds is by the clock that the broker reads, which is the bubble's.
func (x *simSignIn) SignInEnds(context.Context) time.Time {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	if x.link.person.ends() == 0 {
		return time.Time{}
	}
	return x.s.begin.Add(x.link.person.ends() - x.s.aws)
}

func (x *simSignIn) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	s, p := x.s, x.link.person
	if left := time.Until(x.SignInEnds(ctx)); left <= 0 || in.Signin != nil && left <= signInNotice {
		if _, err := in.Ask.Ask(ctx, p.key, cred.Question{Kind: cred.AskBrowser, Profile: in.Profile}); err != nil {
			return cred.Credentials{}, err
		}
		if err := s.connect(ctx); err != nil {
			s.mu.Lock()
			p.wasted = max(p.wasted, p.prompts-len(p.sessions)) // others may have been with it
			s.mu.Unlock()
			return cred.Credentials{}, &cred.UpstreamError{Op: "CreateToken", Message: "cannot reach AWS", Err: err}
		}
		s.mu.Lock()
		if p.ends()-s.now()-s.aws < p.life-minute { // another link's attempt has it already
			p.has(s.now(), s.now()+s.aws+p.life)
		}
		s.mu.Unlock()
	}
	return x.simSource.Fetch(ctx, in)
}

// report says how often the persons were disturbed.
func (s *sim) report(t *testing.T) (lines []string) {
	for _, p := range s.persons {
		lines = append(lines, fmt.Sprintf("%-12s %3d sessions, %3d prompts, %2d in vain, %2d early, told %3d times, %3d sign-ins", p.name, len(p.sessions), p.prompts, p.wasted, p.early, p.told, p.logins))
		if p.early > 0 {
			t.Errorf("%s was asked %d times with plenty of time left", p.name, p.early)
		}
		if p.prompts != len(p.sessions)+p.wasted {
			t.Errorf("%s was asked %d times for %d sessions and %d calls in vain", p.name, p.prompts, len(p.sessions), p.wasted)
		}
		if p.told > len(p.sessions) {
			t.Errorf("%s was told %d times of the ends of %d sessions", p.name, p.told, len(p.sessions))
		}
	}
	return lines
}
