//go:build !windows

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/fakeaws"
)

// forceLife is how long sessions live while they are short: a refresh is due
// in their middle, so that many a kill comes upon one.
const forceLife = 5 * time.Second

// forceLatency is how long AWS takes to answer AssumeRole: a window for
// kills, and short enough for two calls in the patience of an IMDS client.
const forceLatency = 30 * time.Millisecond

// forceRoles is how many roles there are besides entry and deploy, each
// asked for by a loop of keyfob credential-process.
const forceRoles = 4

// TestAHundredKills kills the daemon with SIGKILL again and again while
// programs ask it by every way: in the midst of refreshes, before it is
// ready, before the vault is open. After each start the vault is whole, the
// grant of exec works with its address and token, and IMDSv2 tokens of before
// count. All told no code was asked for again, no call was made to AWS that
// lifetimes do not explain, nobody got what had expired, and no two daemons
// lived at once.
func TestAHundredKills(t *testing.T) {
	t.Parallel()
	kills := 100
	if testing.Short() || raceDetector() {
		kills = 25
	}
	f := newForce(t)
	begin := time.Now()
	defer f.stop()
	f.start()
	for n := range kills {
		if n == kills/2 {
			f.lengthen()
		}
		if f.rng.IntN(3) == 0 {
			f.killYoung()
		} else {
			f.killAtWork()
		}
		if t.Failed() {
			break
		}
	}
	f.up()
	f.stop()
	f.judge(kills)
	t.Logf("%d kills in %v", kills, time.Since(begin).Round(100*time.Millisecond))
}

// raceDetector reports whether this test runs under it.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// force is a world whose daemon is killed under load.
type force struct {
	*world
	t      *testing.T
	rng    *rand.Rand
	ledger *ledger
	role   map[string]string // profile to the ARN of its role
	file   map[string]string // role ARN to the file of its session's record
	imds   string

	leave context.CancelFunc // ends the callers
	wg    sync.WaitGroup
	child *exec.Cmd
	stdin io.Closer // of child: it ends with it

	killed int // pid of the daemon that was killed last, 0 for none

	mu      sync.Mutex // guards what follows
	answers []answer
	latest  map[string]time.Time // by kind of caller: when the last one that was answered had asked
	crowd   map[string]int       // daemons seen alive together
	deaths  []death
	down    []window
	quiet   window // in which lifetimes explain no call at all
}

// death is one kill.
type death struct {
	at    time.Time
	saved map[string]time.Time // role ARN to when the record that it left was written
	late  bool                 // saved may be the next daemon's work already
}

// window is a stretch of time; its end is zero while it lasts.
type window struct{ from, to time.Time }

func (w window) meets(from, to time.Time) bool {
	return !to.Before(w.from) && (w.to.IsZero() || !from.After(w.to))
}

// The kinds of callers.
const (
	byProcess   = "credential-process"
	byIMDSKept  = "IMDS, kept connections"
	byIMDSFresh = "IMDS, fresh connections"
	byIMDSToken = "IMDS, its first token"
	byExecKept  = "exec, kept connections"
	byExecFresh = "exec, fresh connections"
)

var forceKinds = []string{byProcess, byIMDSKept, byIMDSFresh, byIMDSToken, byExecKept, byExecFresh}

// newForce makes a world whose chain needs an MFA code, gives the code, and
// learns which record of the vault is whose session.
func newForce(t *testing.T) *force {
	w := newWorld(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := &force{world: w, t: t, rng: rand.New(rand.NewPCG(seed, 0)), ledger: newLedger(w.aws),
		role: map[string]string{}, file: map[string]string{}, latest: map[string]time.Time{}, crowd: map[string]int{}}
	serial := "arn:aws:iam::" + fakeaws.DefaultAccount + ":mfa/alice"
	w.aws.AddRole(fakeaws.RoleSpec{ARN: entryARN, MaxSessionDuration: 43200,
		Trust: []fakeaws.Trust{{Principals: []string{fakeaws.DefaultAccount}, MFA: true}}})
	conf := strings.Replace(w.read(".aws/config"), "[profile base]\n", "[profile base]\nmfa_serial = "+serial+"\n", 1)
	f.role["entry"], f.role["deploy"] = entryARN, deployARN
	for i := range forceRoles {
		name := "r" + strconv.Itoa(i)
		f.role[name] = w.aws.AddRole(fakeaws.RoleSpec{Account: "222222222222", Name: name, MaxSessionDuration: 43200,
			Trust: []fakeaws.Trust{{Principals: []string{fakeaws.DefaultAccount}, MFA: true}}})
		conf += fmt.Sprintf("\n[profile %s]\nrole_arn = %s\nsource_profile = base\n", name, f.role[name])
	}
	w.write(".aws/config", conf)
	w.addKeys("base")
	w.must([]byte(w.aws.MFACode(serial)+"\n"), "login", "base")
	before := f.sessionFiles()
	if len(before) != 1 {
		t.Fatalf("a session with a code left the records %v", before)
	}
	w.aws.SetLifetime(forceLife) // of what is issued from now on
	w.aws.SetLatency("AssumeRole", forceLatency)
	for _, profile := range slices.SortedFunc(maps.Keys(f.role), func(a, b string) int { return strings.Compare(b, a) }) {
		f.learnFile(profile) // entry before deploy
	}

	port := quietPort(t)
	f.imds = "http://127.0.0.1:" + strconv.Itoa(port)
	w.must(nil, "stop")
	w.write("config/keyfob/config.toml", strings.Replace(imdsToml, ":0\"", ":"+strconv.Itoa(port)+"\"", 1))
	w.credentials("deploy")
	return f
}

func (f *force) sessionFiles() []string {
	names, err := filepath.Glob(f.path("data/vault/session+*.rec"))
	if err != nil {
		f.t.Fatal(err)
	}
	return names
}

// learnFile gets a profile's first session and finds the record that is new.
func (f *force) learnFile(profile string) {
	before := f.sessionFiles()
	f.credentials(profile)
	for _, name := range f.sessionFiles() {
		if !slices.Contains(before, name) {
			f.file[f.role[profile]] = name
		}
	}
	if f.file[f.role[profile]] == "" {
		f.t.Fatalf("the session of %s is not in the vault", profile)
	}
}

// quietPort is a free port that the kernel gives nobody by chance: the
// daemon must find it free at each start.
func quietPort(t *testing.T) int {
	for range 100 {
		port := 20000 + rand.IntN(10000)
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// start starts the callers.
func (f *force) start() {
	ctx, cancel := context.WithCancel(context.Background())
	f.leave = cancel
	for i := range forceRoles {
		f.loop(ctx, &processCaller{w: f.world, profile: "r" + strconv.Itoa(i), kind: byProcess}, 120*time.Millisecond)
	}
	f.wg.Go(func() { f.count(ctx) })
	f.startChild()
	f.up() // before, a temporary key would make the token that one of these keeps
	for _, c := range []*metadataCaller{
		{client: httpClient(true), kind: byIMDSKept},
		{client: httpClient(false), kind: byIMDSFresh},
		{client: httpClient(true), kind: byIMDSToken, stubborn: true},
	} {
		c.url, c.role, c.profile = f.imds, "deploy", "deploy"
		f.loop(ctx, c, 20*time.Millisecond)
	}
}

// loop asks until ctx ends, and shows what it gets to AWS.
func (f *force) loop(ctx context.Context, c caller, pause time.Duration) {
	f.wg.Go(func() {
		last := ""
		for n := 0; ctx.Err() == nil; n++ {
			a := c.ask()
			f.note(a, a.ID != last || n%20 == 0)
			last = a.ID
			sleepFor(ctx, pause)
		}
	})
}

func sleepFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// note keeps an answer; show asks AWS what it is worth, at once.
func (f *force) note(a answer, show bool) {
	f.mu.Lock()
	f.answers = append(f.answers, a)
	if a.Err == "" {
		f.latest[a.Kind] = a.Asked
	}
	f.mu.Unlock()
	if show && a.Err == "" {
		if err := identity(f.url, a); err != nil {
			f.t.Error(err)
		}
	}
}

// startChild runs the program under exec: this binary, TestForceChild.
func (f *force) startChild() {
	f.child = f.command(filepath.Join(bin, "keyfob"), "exec", "deploy", "--", os.Args[0], "-test.run=^TestForceChild$")
	f.child.Env = f.environ("TEST_STS="+f.url, "TEST_FORCE_CHILD=1")
	var errb bytes.Buffer
	f.child.Stderr = &errb
	stdin, err := f.child.StdinPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	stdout, err := f.child.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.child.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.stdin = stdin
	f.wg.Go(func() {
		last := map[string]string{}
		lines := bufio.NewScanner(stdout)
		for n := 0; lines.Scan(); n++ {
			var a answer
			if json.Unmarshal(lines.Bytes(), &a) != nil || a.Kind == "" {
				continue // the test framework's own words
			}
			f.note(a, a.ID != last[a.Kind] || n%20 == 0)
			last[a.Kind] = a.ID
		}
		if err := f.child.Wait(); err != nil {
			f.t.Errorf("the program under exec: %v: %s", err, errb.String())
		}
	})
}

// TestForceChild is the program that TestAHundredKills runs under exec: it
// asks by the address and the token that it was given at its start, and says
// what it got, until its standard input ends.
func TestForceChild(t *testing.T) {
	if os.Getenv("TEST_FORCE_CHILD") == "" {
		t.Skip("this is a program for TestAHundredKills, which runs it")
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var out sync.Mutex
	var wg sync.WaitGroup
	for _, kept := range []bool{true, false} {
		c := &containerCaller{url: os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI"), tokenFile: os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
			client: httpClient(kept), kind: byExecFresh, profile: "deploy"}
		if kept {
			c.kind = byExecKept
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				line, err := json.Marshal(c.ask())
				if err != nil {
					panic(err)
				}
				out.Lock()
				fmt.Printf("%s\n", line)
				out.Unlock()
				sleepFor(ctx, 20*time.Millisecond)
			}
		})
	}
	wg.Wait()
}

// stop ends the callers and joins them. A second call does nothing.
func (f *force) stop() {
	if f.leave == nil {
		return
	}
	f.leave()
	f.leave = nil
	if f.stdin != nil {
		_ = f.stdin.Close()
	}
	f.wg.Wait()
}

// count looks all the time at how many daemons are alive.
func (f *force) count(ctx context.Context) {
	for ; ctx.Err() == nil; sleepFor(ctx, 10*time.Millisecond) {
		if pids := f.daemons(); len(pids) > 1 {
			f.mu.Lock()
			f.crowd[fmt.Sprint(pids)]++
			f.mu.Unlock()
		}
	}
}

// daemons are the living processes that are this world's daemon, by what
// /proc says; nil where there is none.
func (f *force) daemons() (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && f.isDaemon(pid) {
			pids = append(pids, pid)
		}
	}
	if len(pids) < 2 {
		return pids
	}
	// Between fork and exec a daemon's helper looks like the daemon.
	all := slices.Clone(pids)
	return slices.DeleteFunc(pids, func(pid int) bool { return slices.Contains(all, parentOf(pid)) || !f.isDaemon(pid) })
}

// parentOf is a process's parent, 0 where there is none to be found.
func parentOf(pid int) (parent int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	var state string
	_, rest, _ := bytes.Cut(b, []byte(") "))
	if _, err := fmt.Sscan(string(rest), &state, &parent); err != nil {
		return 0
	}
	return parent
}

// isDaemon reports whether a process is this world's daemon. One that has
// ended and is not yet waited for has no command line any more.
func (f *force) isDaemon(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if os.IsNotExist(err) {
		if _, noproc := os.Stat("/proc/self"); noproc != nil {
			return pid == f.daemonPID()
		}
	}
	args := strings.Split(string(b), "\x00")
	i := slices.Index(args, "--data-dir")
	return filepath.Base(args[0]) == "keyfobd" && i > 0 && i+1 < len(args) && args[i+1] == f.path("data")
}

// up waits for the daemon that somebody's question started, until it says
// that its vault is open and its endpoints listen. It returns its pid.
func (f *force) up() int {
	f.t.Helper()
	var last error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var st control.StatusResult
		if last = f.ask(control.MethodStatus, &st); last != nil || st.PID == f.killed {
			continue
		}
		if st.Keystore.Error != "" || st.ReloadError != "" || len(st.Interactions) > 0 || len(st.Warnings) > 0 {
			f.t.Fatalf("after a start status says: keystore %q, reload %q, interactions %v, warnings %q", st.Keystore.Error, st.ReloadError, st.Interactions, st.Warnings)
		}
		if !st.Keystore.Locked && slices.ContainsFunc(st.Endpoints, func(e control.EndpointStatus) bool { return e.Kind == "container" }) {
			f.mu.Lock()
			if n := len(f.down); n > 0 && f.down[n-1].to.IsZero() {
				f.down[n-1].to = time.Now()
			}
			f.mu.Unlock()
			return st.PID
		}
	}
	f.t.Fatalf("no daemon is up within 30 s: %v", last)
	return 0
}

// ask makes one call on the control socket and starts no daemon.
func (f *force) ask(method string, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := control.Dial(ctx, f.path("s"))
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Call(ctx, method, control.Empty{}, result, nil)
}

// killAtWork lets the daemon come up and answer every kind of caller, looks
// at what the last one left, and kills it at some moment.
func (f *force) killAtWork() {
	f.t.Helper()
	pid := f.up()
	since := time.Now()
	f.leftovers()
	for end := since.Add(15 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		waits := f.unanswered(since)
		if len(waits) == 0 {
			break
		}
		if time.Now().After(end) {
			f.t.Fatalf("15 s after a start these have nothing: %v", waits)
		}
	}
	if f.quiet.from.IsZero() && f.rng.IntN(4) == 0 {
		// Upon a refresh: before AWS has answered, or has the vault.
		calls := f.aws.Count("AssumeRole")
		for end := time.Now().Add(forceLife / 2); f.aws.Count("AssumeRole") == calls && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(f.rng.IntN(int(2*forceLatency + forceLatency/2))))
	} else {
		time.Sleep(time.Duration(f.rng.IntN(60)) * time.Millisecond)
	}
	f.kill(pid)
}

// unanswered lists the kinds of callers of which none asked since and got
// credentials.
func (f *force) unanswered(since time.Time) (kinds []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range forceKinds {
		if !f.latest[k].After(since) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// killYoung kills a daemon that has just been started, mostly before its
// vault is open, often before it is ready.
func (f *force) killYoung() {
	f.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		for _, pid := range f.daemons() {
			if pid != f.killed {
				time.Sleep(time.Duration(f.rng.IntN(250)) * time.Millisecond)
				f.kill(pid)
				return
			}
		}
	}
	f.t.Fatal("nobody started a daemon within 30 s")
}

// kill kills a daemon and looks at once at what it had written.
func (f *force) kill(pid int) {
	f.t.Helper()
	p, err := os.FindProcess(pid) // holds on to this very process where the system can
	if err != nil {
		f.t.Fatal(err)
	}
	defer p.Release()
	if !f.isDaemon(pid) {
		return // it has ended by itself, the daemon's log says why
	}
	f.mu.Lock()
	d := death{at: time.Now(), saved: map[string]time.Time{}}
	if n := len(f.down); n == 0 || !f.down[n-1].to.IsZero() {
		f.down = append(f.down, window{from: d.at})
	}
	f.mu.Unlock()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		f.t.Fatal(err)
	}
	for end := d.at.Add(10 * time.Second); f.isDaemon(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("process %d does not end", pid)
		}
	}
	for role, name := range f.file {
		if st, err := os.Stat(name); err == nil {
			d.saved[role] = st.ModTime()
		} else {
			f.t.Errorf("the record of a session is gone: %v", err)
		}
	}
	// The next one must first open the vault, which takes longer.
	d.late = time.Since(d.at) > 100*time.Millisecond
	f.killed = pid
	f.mu.Lock()
	f.deaths = append(f.deaths, d)
	f.mu.Unlock()
}

// lengthen makes sessions long-lived and waits until all are, in memory and
// in the vault: from then on no start and no kill may cost a call.
func (f *force) lengthen() {
	f.t.Helper()
	f.up()
	f.aws.SetLifetime(0)
	for end := time.Now().Add(3 * forceLife); ; time.Sleep(20 * time.Millisecond) {
		long := 0
		for role, name := range f.file {
			all := f.ledger.of(role)
			last := all[len(all)-1]
			st, err := os.Stat(name)
			if err == nil && last.expires.Sub(last.at) > time.Minute && !st.ModTime().Before(last.at.Add(-tick)) {
				long++
			}
		}
		if long == len(f.file) {
			break
		}
		if time.Now().After(end) {
			f.t.Fatalf("sessions of %v are not refreshed within %v", forceLife, 3*forceLife)
		}
	}
	f.mu.Lock()
	f.quiet.from = time.Now()
	f.mu.Unlock()
}

// forceSave is more than it takes to get a session and to write it down.
const forceSave = time.Second

// tick is more than the clock of file times lags behind.
const tick = 20 * time.Millisecond
