//go:build !windows

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/fakeaws"
)

// TestSoak runs for as long as KEYFOB_TEST_SOAK says, with 500 clients:
// scripts/soak.sh.
func TestSoak(t *testing.T) {
	v := os.Getenv("KEYFOB_TEST_SOAK")
	if v == "" {
		t.Skip("KEYFOB_TEST_SOAK names no duration (scripts/soak.sh does)")
	}
	length, err := time.ParseDuration(v)
	if err != nil || length < 30*time.Second {
		t.Fatalf("KEYFOB_TEST_SOAK is %q: a duration from 30s", v)
	}
	// Outages that no caller may feel three times a minute, and one that
	// outlasts every session in the middle and then every ten minutes.
	newSoak(t, soakPlan{length: length, clients: 500, pause: time.Second, life: 20 * time.Second,
		outage: 4 * time.Second, every: 20 * time.Second, long: 25 * time.Second, longEvery: min(length/2, 10*time.Minute),
		sample: max(2*time.Second, length/90)}).run()
}

// TestSoakSmoke is the soak in small, to see that it works and that nothing
// grows fast.
func TestSoakSmoke(t *testing.T) {
	t.Parallel()
	newSoak(t, soakPlan{length: 10 * time.Second, clients: 100, pause: 300 * time.Millisecond, life: 6 * time.Second,
		outage: time.Second, every: 3 * time.Second, sample: 400 * time.Millisecond}).run()
}

// soakPlan says what a soak is to be.
type soakPlan struct {
	length    time.Duration
	clients   int
	pause     time.Duration // of a client between two questions, on average
	life      time.Duration // of a session
	outage    time.Duration // of AWS, short enough to be felt by nobody
	every     time.Duration // between two of them
	long      time.Duration // of an outage that outlasts sessions; 0 for none
	longEvery time.Duration
	sample    time.Duration
}

// recovery is how soon after an outage credentials must be fresh again
// (CONTRACT.md §8).
const recovery = 10 * time.Second

// soakRoles is how many profiles there are besides deploy: a role each, over
// the same keys.
const soakRoles = 10

// soak is a world under a load that does not end.
type soak struct {
	*world
	t      *testing.T
	plan   soakPlan
	ledger *ledger
	role   map[string]string // profile to the ARN of its role
	below  map[string]string // role ARN to that of the role below it
	pid    int
	begin  time.Time

	good, failed, shown atomic.Int64
	showing             sync.Mutex // one client at a time shows its credentials to AWS

	mu      sync.Mutex     // guards what follows
	trouble []answer       // without credentials, to be judged when it is known what AWS did
	wrong   map[string]int // what may not be, and how often
	outages []window
	excused int
	samples []usage
	byKind  map[string]int
}

// usage is what the daemon takes of the machine.
type usage struct {
	at                     time.Duration
	rss, anon              float64 // MiB
	threads, fds           int
	cpu                    float64 // seconds so far
	good, failed, upstream int64   // so far
	log                    float64 // KiB
	outage                 bool
}

// newSoak makes the world: base -> entry -> deploy for the metadata
// endpoint, and ten roles straight over base.
func newSoak(t *testing.T, plan soakPlan) *soak {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("there is no /proc to look at the daemon by")
	}
	w := newWorld(t)
	s := &soak{world: w, t: t, plan: plan, ledger: newLedger(w.aws), wrong: map[string]int{}, byKind: map[string]int{},
		role: map[string]string{"deploy": deployARN}, below: map[string]string{deployARN: entryARN}}
	var conf strings.Builder
	conf.WriteString(w.read(".aws/config"))
	for i := range soakRoles {
		name := "r" + strconv.Itoa(i)
		s.role[name] = w.aws.AddRole(fakeaws.RoleSpec{Account: "222222222222", Name: name, Trust: []fakeaws.Trust{{Principals: []string{fakeaws.DefaultAccount}}}})
		fmt.Fprintf(&conf, "[profile %s]\nrole_arn = %s\nsource_profile = base\n", name, s.role[name])
	}
	w.write(".aws/config", conf.String())
	w.write("config/keyfob/config.toml", imdsToml+"[[endpoint]]\nkind = \"container\"\nlisten = \"127.0.0.1:0\"\n")
	w.aws.SetLifetime(plan.life)
	w.addKeys("base")
	for p := range s.role {
		w.credentials(p)
	}
	s.pid = w.daemonPID()
	return s
}

// callers makes the clients: four in ten keep a connection to the metadata
// endpoint, two in ten make a new one each time, two in ten use the container
// endpoint and two in ten the control socket, half of each with a connection
// that they keep; and a few run keyfob.
func (s *soak) callers() (all []caller) {
	var grant struct {
		URL       string `json:"url"`
		TokenFile string `json:"token_file"`
	}
	profiles := []string{}
	for i := range soakRoles {
		profiles = append(profiles, "r"+strconv.Itoa(i))
	}
	if err := json.Unmarshal([]byte(s.must(nil, "grant", "add", strings.Join(profiles, ","), "--json").out), &grant); err != nil {
		s.t.Fatal(err)
	}
	imds := s.imds()
	for i := range s.plan.clients {
		profile := profiles[i/10%soakRoles]
		switch k := i % 10; {
		case k < 4:
			all = append(all, &metadataCaller{url: imds, role: "deploy", client: httpClient(true), kind: "IMDS, kept", profile: "deploy"})
		case k < 6:
			all = append(all, &metadataCaller{url: imds, role: "deploy", client: httpClient(false), kind: "IMDS, fresh", profile: "deploy"})
		case k < 8:
			kind := []string{"container, kept", "container, fresh"}[k-6]
			url := strings.TrimSuffix(grant.URL, profiles[0]) + profile
			all = append(all, &containerCaller{url: url, tokenFile: grant.TokenFile, client: httpClient(k == 6), kind: kind, profile: profile})
		default:
			kind := []string{"control, kept", "control, fresh"}[k-8]
			p := control.CredentialsParams{Context: control.Context{Profile: profile, Named: true, Env: map[string]string{"AWS_ENDPOINT_URL": s.url}}}
			all = append(all, &controlCaller{socket: s.path("s"), params: p, kept: k == 8, kind: kind})
		}
	}
	for range 3 {
		all = append(all, &processCaller{w: s.world, profile: "deploy", kind: "credential-process"})
	}
	return all
}

// run soaks, prints the table and judges.
func (s *soak) run() {
	callers := s.callers()
	ctx, cancel := context.WithTimeout(context.Background(), s.plan.length)
	defer cancel()
	s.begin = time.Now()
	calls := s.aws.Count("AssumeRole")
	s.ledger.read()
	var wg sync.WaitGroup
	for _, c := range callers {
		wg.Go(func() { s.client(ctx, c) })
	}
	wg.Go(func() { s.weather(ctx) })
	s.t.Logf("%d clients, sessions of %v", len(callers), s.plan.life)
	s.t.Log(usageHead)
	for tick := time.NewTicker(s.plan.sample); ctx.Err() == nil; {
		select {
		case <-ctx.Done():
			tick.Stop()
		case <-tick.C:
			s.ledger.read() // before fakeaws forgets
			s.sample()
			s.settle(time.Now().Add(-2 * recovery))
		}
	}
	wg.Wait()
	s.settle(time.Now())
	s.judge(s.aws.Count("AssumeRole") - calls)
}

// client is one program: it asks, waits about a pause, and asks again.
func (s *soak) client(ctx context.Context, c caller) {
	pause := s.plan.pause
	if _, ok := c.(*processCaller); ok {
		pause = max(pause, time.Second) // a process costs a hundred requests
	}
	sleepFor(ctx, rand.N(2*pause)) // not all at once
	last := ""
	for ctx.Err() == nil {
		a := c.ask()
		if a.Err != "" {
			s.failed.Add(1)
			s.mu.Lock()
			s.trouble = append(s.trouble, a)
			s.mu.Unlock()
		} else {
			s.good.Add(1)
			if err := s.ledger.wrong(a, s.role[a.Profile]); err != nil {
				s.complain("wrong credentials for "+a.Kind, err.Error())
			}
			if a.ID != last && s.showing.TryLock() {
				s.show(a)
				s.showing.Unlock()
			}
		}
		s.mu.Lock()
		s.byKind[a.Kind]++
		s.mu.Unlock()
		last = a.ID
		sleepFor(ctx, pause/2+rand.N(pause))
	}
}

// show asks AWS whether it takes the credentials of an answer, unless it is
// out.
func (s *soak) show(a answer) {
	from := time.Now()
	err := identity(s.url, a)
	s.shown.Add(1)
	s.mu.Lock()
	out := slices.ContainsFunc(s.outages, func(w window) bool { return w.meets(from, time.Now()) })
	s.mu.Unlock()
	if err != nil && !out {
		s.complain("refused credentials of "+a.Kind, err.Error())
	}
}

// complain counts what may not be; the first of each kind is told at once.
func (s *soak) complain(kind, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrong[kind]++; s.wrong[kind] == 1 {
		s.t.Error(what)
	}
}

// weather is AWS's: it is out now and then, in every way.
func (s *soak) weather(ctx context.Context) {
	kinds := []fakeaws.Outage{fakeaws.Refused, fakeaws.Closed, fakeaws.Silent}
	nextLong := s.begin.Add(s.plan.longEvery)
	for n := 0; ; n++ {
		sleepFor(ctx, s.plan.every/2+rand.N(s.plan.every))
		length, kind := s.plan.outage, kinds[n%len(kinds)]
		if s.plan.long > 0 && time.Now().After(nextLong) {
			// The one whose end can be told by connecting: of the others the
			// next try tells, which after so long may be a minute away.
			length, kind, nextLong = s.plan.long, fakeaws.Refused, nextLong.Add(s.plan.longEvery)
		}
		// Its end and the recovery belong to the soak.
		if end, _ := ctx.Deadline(); ctx.Err() != nil || time.Now().Add(length+time.Second).After(end) {
			return
		}
		s.mu.Lock()
		s.outages = append(s.outages, window{from: time.Now()})
		s.mu.Unlock()
		if err := s.aws.SetOutage(kind); err != nil {
			s.complain("outage", err.Error())
		}
		sleepFor(ctx, length)
		if err := s.aws.SetOutage(fakeaws.Up); err != nil {
			s.complain("outage", err.Error())
		}
		s.mu.Lock()
		s.outages[len(s.outages)-1].to = time.Now()
		s.mu.Unlock()
	}
}

// settle judges the failures of before a time, when what AWS issued until
// then is known: each must meet a moment at which none could be had.
func (s *soak) settle(before time.Time) {
	s.ledger.read()
	s.mu.Lock()
	var due []answer
	s.trouble = slices.DeleteFunc(s.trouble, func(a answer) bool {
		if a.Got.Before(before) {
			due = append(due, a)
			return true
		}
		return false
	})
	outages := slices.Clone(s.outages)
	s.mu.Unlock()
	for _, a := range due {
		if s.impossible(a, outages) {
			s.mu.Lock()
			s.excused++
			s.mu.Unlock()
			if strings.HasPrefix(a.Err, notClean) {
				s.complain("command", a.Err)
			}
			continue
		}
		s.complain("no credentials for "+a.Kind, fmt.Sprintf("%s asked for %s %v after the start and failed %v later, although credentials could be had: %s",
			a.Kind, a.Profile, a.Asked.Sub(s.begin).Round(time.Millisecond), a.Got.Sub(a.Asked).Round(time.Millisecond), a.Err))
	}
}

// impossible reports whether there was a moment in the life of a question at
// which no session of its profile was good and AWS was out or had just come
// back.
func (s *soak) impossible(a answer, outages []window) bool {
	good := s.ledger.of(s.role[a.Profile])
	for at := a.Asked; !at.After(a.Got); at = at.Add(50 * time.Millisecond) {
		had := slices.ContainsFunc(good, func(x issued) bool { return !x.at.After(at.Add(-time.Second)) && x.expires.After(at) })
		out := slices.ContainsFunc(outages, func(w window) bool { return w.meets(at.Add(-recovery), at) })
		if !had && out {
			return true
		}
	}
	return false
}

const usageHead = "   time  RSS MiB  anonymous  threads  descriptors  CPU s  log KiB  answers  failures  AssumeRole"

func (u usage) String() string {
	mark := ""
	if u.outage {
		mark = "  AWS is out"
	}
	fds := strconv.Itoa(u.fds)
	if u.fds < 0 {
		fds = "-"
	}
	return fmt.Sprintf("%7s  %7.1f  %9.1f  %7d  %11s  %5.1f  %7.0f  %7d  %8d  %10d%s",
		u.at.Round(time.Second), u.rss, u.anon, u.threads, fds, u.cpu, u.log, u.good, u.failed, u.upstream, mark)
}

// sample looks at the daemon by what the kernel says of it.
func (s *soak) sample() {
	u := usage{at: time.Since(s.begin), good: s.good.Load(), failed: s.failed.Load(), upstream: int64(s.aws.Count("AssumeRole")), fds: -1}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		s.complain("the daemon has ended", err.Error())
		return
	}
	for _, line := range strings.Split(string(status), "\n") {
		key, v, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 64)
		switch key {
		case "VmRSS":
			u.rss = n / 1024
		case "RssAnon":
			u.anon = n / 1024
		case "Threads":
			u.threads = int(n)
		}
	}
	// The daemon is not dumpable: root alone sees its descriptors.
	if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid)); err == nil {
		u.fds = len(fds)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid)); err == nil {
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 13 {
			user, _ := strconv.ParseFloat(f[11], 64)
			system, _ := strconv.ParseFloat(f[12], 64)
			u.cpu = (user + system) / 100 // USER_HZ, which is 100 wherever Go runs
		}
	}
	if st, err := os.Stat(s.path("data/keyfobd.log")); err == nil {
		u.log = float64(st.Size()) / 1024
	}
	s.mu.Lock()
	n := len(s.outages)
	u.outage = n > 0 && s.outages[n-1].to.IsZero()
	s.samples = append(s.samples, u)
	s.mu.Unlock()
	s.t.Log(u)
}

// judge compares the first third after the warm-up with the last.
func (s *soak) judge(calls int) {
	t := s.t
	elapsed := time.Since(s.begin)
	kinds := []string{}
	for k, n := range s.byKind {
		kinds = append(kinds, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(kinds)
	t.Logf("asked in %v: %s", elapsed.Round(time.Second), strings.Join(kinds, "; "))
	t.Logf("%d answers with credentials, %d of them shown to AWS; %d failures while none could be had; %d outages", s.good.Load(), s.shown.Load(), s.excused, len(s.outages))
	for kind, n := range s.wrong {
		t.Errorf("%d times: %s", n, kind)
	}
	if pid := s.daemonPID(); pid != s.pid {
		t.Errorf("the daemon is %d, it was %d", pid, s.pid)
	}
	if want := int64(elapsed/s.plan.pause) * int64(s.plan.clients) / 3; s.good.Load() < want {
		t.Errorf("only %d answers, want %d or more: the test proves little", s.good.Load(), want)
	}
	// Due in the middle of a life that AWS tells in whole seconds, and a
	// tenth earlier by jitter. What an outage keeps away is not counted.
	links := len(s.role) + len(s.below)
	due := (s.plan.life - time.Second) * 45 / 100
	most := links * (int(elapsed/due) + 1)
	t.Logf("%d AssumeRole calls of %d links, at most %d are explained", calls, links, most)
	if calls > most {
		t.Errorf("%d AssumeRole calls, more than %d", calls, most)
	}

	warm := s.samples[len(s.samples)/5:]
	third := len(warm) / 3
	if third == 0 {
		t.Fatalf("only %d samples", len(s.samples))
	}
	first, last := warm[:third], warm[len(warm)-third:]
	for _, g := range []struct {
		name   string
		of     func(u usage) float64
		factor float64
		margin float64
	}{
		{"resident MiB", func(u usage) float64 { return u.rss }, 1.1, 4},
		{"anonymous MiB", func(u usage) float64 { return u.anon }, 1.1, 4},
		{"threads", func(u usage) float64 { return float64(u.threads) }, 1, 4},
		{"descriptors", func(u usage) float64 { return float64(u.fds) }, 1, 20},
	} {
		a, b := median(first, g.of), median(last, g.of)
		t.Logf("%-13s %6.1f in the first third, %6.1f in the last", g.name, a, b)
		if b > a*g.factor+g.margin {
			t.Errorf("%s grow from %.1f to %.1f", g.name, a, b)
		}
	}
}

func median(samples []usage, of func(usage) float64) float64 {
	v := make([]float64, len(samples))
	for i, u := range samples {
		v[i] = of(u)
	}
	slices.Sort(v)
	return v[len(v)/2]
}
