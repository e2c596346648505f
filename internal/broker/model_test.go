package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// model drives a broker with random events and knows, of every session that
// AWS gave, whether it may still be handed out and whether it must be.
type model struct {
	*rapid.T
	r       *rig
	set     set
	last    map[string]held // what each profile was given last
	locked  bool
	failing bool
	cut     bool // there is no way to AWS
	rules   *ruler
	person  bool
	blind   int // restarts that may have lost that a person was told
	events  int // that may cost calls beyond the hourly ones
	begin   time.Time
}

var modelProfiles = []string{"a", "b", "c", "base", "s", "t"}

// policy draws a request's policy for p and says under which p is then handed
// out: two that differ are refused.
func (m *model) policy(p string) (asked, holds string, refused bool) {
	if p != "a" && p != "c" && p != "t" {
		return "", "", false
	}
	asked = rapid.SampledFrom([]string{"", "", readOnly, noS3}).Draw(m.T, "policy")
	ruled := m.rules.policy[p]
	return asked, max(asked, ruled), asked != "" && ruled != "" && asked != ruled
}

// sent is a policy as the source gets it.
func sent(policy string) string {
	p, err := readPolicy(policy)
	if err != nil {
		panic(err)
	}
	return p.Inline + strings.Join(p.ARNs, ",")
}

type held struct {
	snap *cred.Snapshot
	end  time.Time // by AWS's clock
}

// aws is AWS's clock.
func (m *model) aws() time.Time { return time.Now().Add(m.clock()) }

// clock is AWS's clock minus ours.
func (m *model) clock() time.Duration {
	m.r.w.mu.Lock()
	defer m.r.w.mu.Unlock()
	return m.r.w.clock
}

func (m *model) profile() string {
	return rapid.SampledFrom(modelProfiles).Draw(m.T, "profile")
}

func (m *model) get(t *rapid.T) {
	m.T = t
	p := m.profile()
	ask := rapid.Bool().Draw(t, "may ask")
	asked := m.r.ask.asked.Load()
	calls := m.r.w.count("assume-role") + m.r.w.count("session-token")
	policy, holds, conflict := m.policy(p)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	s, err := m.r.b.Get(ctx, cred.Request{Caller: self, Profile: p, MayAsk: ask, Policy: policy})
	now := m.aws()
	if conflict {
		if !errors.Is(err, cred.ErrConfig) && !errors.Is(err, cred.ErrUnknownProfile) {
			t.Fatalf("%s: %v with two policies", p, err)
		}
		return
	}
	key := p + holds
	if !m.person && m.r.ask.asked.Load() != asked {
		t.Fatal("a person was asked who is not there")
	}
	h, had := m.last[key]
	if err == nil {
		m.r.w.mu.Lock()
		end := m.r.w.ends[s.AccessKeyID]
		m.r.w.mu.Unlock()
		if !end.After(now) {
			t.Fatalf("%s: handed out %v after its end", p, now.Sub(end))
		}
		if want := m.set[p].Chain[len(m.set[p].Chain)-1].RoleARN; s.RoleARN != want {
			t.Fatalf("%s: credentials of %q", p, s.RoleARN)
		}
		if got := m.r.policy(s); got != sent(holds) {
			t.Fatalf("%s: narrowed by %q, want %q", p, got, sent(holds))
		}
		if had && h.snap.AccessKeyID != s.AccessKeyID && s.Fetched.Before(h.snap.Fetched) {
			t.Fatalf("%s: an older session after a newer one", p)
		}
		m.last[key] = held{snap: s, end: end}
		return
	}
	if errors.Is(err, cred.ErrUnknownProfile) {
		if m.set[p] != nil {
			t.Fatalf("%s: %v", p, err)
		}
		return
	}
	if strings.Contains(err.Error(), canary) {
		t.Fatalf("a secret in %q", err)
	}
	if had && h.end.After(now) && !m.locked && m.r.b.skewNow() == m.clock() {
		t.Fatalf("%s: %v, though a session lasts for another %v", p, err, h.end.Sub(now))
	}
	if n := m.r.w.count("assume-role") + m.r.w.count("session-token"); n > calls+6 {
		t.Fatalf("%s: one failure cost %d calls", p, n-calls)
	}
	// With AWS up and nobody needed there is no excuse but a pause, which
	// Wake ends.
	if !m.failing && !m.cut && !m.locked && (m.person && ask || p == "a") {
		m.r.b.Wake("")
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if _, err := m.r.b.Get(ctx, cred.Request{Caller: self, Profile: p, MayAsk: ask, Policy: policy}); err != nil {
			t.Fatalf("%s: %v, though nothing is wrong", p, err)
		}
	}
}

// link is the active link of profile's chain at index i, or nil.
func (m *model) link(profile string, i int) *link {
	if m.set[profile] == nil {
		return nil
	}
	return m.r.b.links[keysOf(m.set[profile].Chain)[i]]
}

// fresh is login without --force.
func (m *model) fresh(t *rapid.T) {
	m.T = t
	p := m.profile()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	_, err := m.r.b.Fresh(ctx, cred.Request{Caller: self, Profile: p, MayAsk: true})
	switch {
	case m.set[p] == nil:
	case err == nil:
		for i := range m.set[p].Chain {
			if l := m.link(p, i); l != nil && l.mayNeedPerson() && l.endsSoon(t.Context(), time.Now()) {
				t.Fatalf("%s: signed in, and it ends soon", p)
			}
		}
	case !m.failing && !m.cut && !m.locked && (m.person || p == "a"):
		t.Fatalf("%s: %v, though nothing is wrong", p, err)
	}
}

// back opens the way: within 10 s what waited for it alone is fresh.
func (m *model) back(t *rapid.T) {
	m.T = t
	l := m.link("a", 1)
	waited := l != nil && l.offline != "" && l.retryAt.After(time.Now()) && m.r.w.probed("sts") > 0
	m.cut = false
	m.r.w.setWay("sts", true)
	time.Sleep(10 * time.Second)
	if !waited || m.failing || m.locked || l != m.link("a", 1) {
		return
	}
	if _, err := m.r.get("a"); err != nil {
		t.Fatalf("10 s after the network: %v", err)
	}
}

// drop forgets what a set of profiles was given.
func (m *model) drop(profiles ...string) {
	for _, p := range profiles {
		for _, policy := range []string{"", readOnly, noS3} {
			delete(m.last, p+policy)
		}
	}
	m.events++
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			full := func(other string) set {
				return set{}.add("a", static("ka"), role("a", "A"+other)).
					add("b", static("kb"), session("kb", mfa), role("b", "B")).
					add("c", static("kb"), session("kb", mfa), role("c", "C")).
					add("base", static("kb"), session("kb", mfa)).
					add("s", sso("s", "corp", "S")).
					add("t", sso("s", "corp", "S"), role("t", "T"))
			}
			m := &model{T: rt, set: full(""), last: map[string]held{}, begin: time.Now(), rules: &ruler{}}
			m.r = newRigOf(t, m.set, m.rules)
			defer func() { m.r.stop() }()
			m.r.w.latency = 100 * time.Millisecond
			m.r.w.life[profiles.KindAssumeRole] = rapid.SampledFrom([]time.Duration{15 * time.Minute, time.Hour}).Draw(rt, "life")
			person := func(there bool) {
				m.person = there
				m.r.ask.attach(nil)
				if there {
					m.r.ask.attach(after(time.Second, "123456"))
				}
			}
			rt.Repeat(map[string]func(*rapid.T){
				"get":  m.get,
				"get2": m.get,
				"get3": m.get,
				"pass": func(t *rapid.T) {
					time.Sleep(time.Duration(rapid.Int64Range(1, int64(3*time.Hour)).Draw(t, "time")))
				},
				"moment": func(t *rapid.T) {
					time.Sleep(time.Duration(rapid.Int64Range(1, int64(3*time.Second)).Draw(t, "time")))
				},
				"fail": func(t *rapid.T) {
					m.failing = true
					m.r.w.setFail(rapid.SampledFrom([]func(profiles.Kind, string) error{networkDown, refused}).Draw(t, "how"))
				},
				"mend": func(t *rapid.T) {
					m.failing = false
					m.r.w.setFail(nil)
				},
				"cut": func(t *rapid.T) {
					m.cut = true
					m.r.w.setWay("sts", false)
					m.r.w.mu.Lock()
					m.r.w.dial = rapid.SampledFrom([]time.Duration{0, 10 * time.Second}).Draw(t, "dial")
					m.r.w.mu.Unlock()
					time.Sleep(6 * time.Second) // for a probe to see it
				},
				"back":  m.back,
				"fresh": m.fresh,
				"jump": func(t *rapid.T) {
					// Our clock is set; the next answer tells.
					m.r.b.skew.Add(rapid.Int64Range(-int64(30*time.Hour), int64(30*time.Hour)).Draw(t, "by"))
					time.Sleep(time.Minute)
					m.r.b.SetSkew(m.clock())
					m.events++
				},
				"restart ahead": func(t *rapid.T) {
					// A daemon that starts before the clock is set right.
					m.r.stop()
					m.r.start(m.set)
					m.r.b.skew.Store(int64(m.clock()) + rapid.Int64Range(1, int64(40*time.Hour)).Draw(t, "by"))
					if m.locked {
						m.drop(modelProfiles...)
						m.blind++
					}
					before := m.last
					m.last = map[string]held{} // what is taken for ended is not served
					m.r.w.setFail(networkDown)
					for p := range m.set {
						_, _ = m.r.get(p)
					}
					if !m.failing {
						m.r.w.setFail(nil)
					}
					m.last = before
					m.r.b.SetSkew(m.clock())
					m.r.b.Wake("")
					m.events++
				},
				"sign-in ends": func(*rapid.T) {
					m.r.w.mu.Lock()
					m.r.w.signIns["corp"] = time.Now()
					m.r.w.mu.Unlock()
				},
				"rules": func(t *rapid.T) {
					m.rules = &ruler{policy: map[string]string{}}
					for _, p := range []string{"a", "c", "t"} {
						m.rules.policy[p] = rapid.SampledFrom([]string{"", "", readOnly}).Draw(t, "policy of "+p)
					}
					m.r.rules = m.rules
					m.r.b.SetRules(m.rules)
					m.drop("a", "c", "t") // who was asked for with another one is idle
				},
				"person": func(t *rapid.T) { person(rapid.Bool().Draw(t, "there")) },
				"reload": func(t *rapid.T) {
					m.events++
					switch rapid.SampledFrom([]string{"same", "without a", "another a"}).Draw(t, "what") {
					case "same":
						m.set = full("")
					case "without a":
						m.set = full("")
						delete(m.set, "a")
					case "another a":
						m.set = full(fmt.Sprint(m.events))
					}
					m.drop("a") // the same again only by luck
					m.r.b.SetProfiles(m.set)
				},
				"restart": func(t *rapid.T) {
					m.r.stop()
					m.r.start(m.set)
					m.r.b.skew.Store(int64(m.clock())) // which stands for the wall clock
					if m.locked {
						m.drop(modelProfiles...) // what could not be written is gone
						m.blind++
					}
					m.events++
				},
				"suspend": func(t *rapid.T) {
					d := time.Duration(rapid.Int64Range(1, int64(5*time.Hour)).Draw(t, "time"))
					m.r.w.mu.Lock()
					m.r.w.clock += d
					m.r.w.mu.Unlock()
					m.r.b.skew.Add(int64(d))
					m.events++
				},
				"lock": func(t *rapid.T) {
					m.locked = true
					m.r.store.lock(true)
				},
				"lock now": func(t *rapid.T) {
					m.locked = true
					m.r.store.lock(true)
					m.r.b.ForgetMemory()
					m.drop(modelProfiles...)
				},
				"unlock": func(t *rapid.T) {
					m.locked = false
					m.r.store.lock(false)
					m.r.b.Wake("")
					time.Sleep(time.Second)
				},
				"logout": func(t *rapid.T) {
					p := m.profile()
					before := m.r.b.Generation(p)
					if err := m.r.b.Forget(t.Context(), p); err != nil && !m.locked {
						t.Fatal(err)
					}
					if g := m.r.b.Generation(p); g == before {
						t.Fatalf("generation %d stays", g)
					}
					if _, ok := m.r.b.Peek(p); ok && m.set[p] != nil {
						t.Fatal("in memory still")
					}
					m.drop(p, "base", "s")
				},
				"": func(t *rapid.T) {
					synctest.Wait()
					hours := time.Since(m.begin).Hours() + 1
					for _, link := range []string{"assume-role A", "assume-role B", "assume-role C", "assume-role T", "session-token kb", "sso S"} {
						if n := m.r.w.count(link); float64(n) > 3*75*hours+float64(30*m.events)+100 {
							t.Fatalf("%s: %d calls in %.1f hours", link, n, hours)
						}
					}
					if n, most := len(m.r.announced()), m.r.w.count("session-token")+m.r.w.count("signed in")+2*m.blind; n > most {
						t.Fatalf("%d announcements of %d sessions", n, most)
					}
					if strings.Contains(m.r.logged(), canary) {
						t.Fatal("a secret is in the log")
					}
				},
			})
		})
	})
}
