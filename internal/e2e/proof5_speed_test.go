//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/access"
	"keyfob/internal/awsclient"
	"keyfob/internal/broker"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/internal/peer"
	"keyfob/internal/source/command"
	"keyfob/internal/source/login"
	"keyfob/internal/source/oidc"
	"keyfob/internal/source/sso"
	"keyfob/profiles"
)

// warmth is a broker with one profile p of one source, that has credentials.
func warmth(tb testing.TB, x weekOf) (get func() *cred.Snapshot) {
	tb.Helper()
	dir := tb.TempDir()
	w := &week{t: tb, dir: dir, vault: &weekVault{all: map[string]cred.Secret{}}, logs: &bytes.Buffer{}, tool: x.tool}
	w.aws, w.base = fakeawstest.Start(tb)
	w.pool = awsclient.NewPool(awsclient.PoolConfig{})
	tb.Cleanup(w.pool.CloseIdle)
	log := logrus.New()
	log.SetOutput(&guarded{w: w.logs})
	w.log = logrus.NewEntry(log)
	w.run = command.New(command.Config{})
	w.sso, w.oidc, w.login = sso.NewSessions(), oidc.NewSessions(), login.NewSessions()
	x.begin(w)
	if x.does != nil {
		x.does(w, 0)
	}
	config := w.write("config", "[default]\nregion = eu-west-1\n"+strings.ReplaceAll(x.config(w), "[profile p]\n", "[profile p]\nregion = eu-west-1\n"))
	rules, err := access.NewRules(access.RulesConfig{Owner: peer.Self()})
	if err != nil {
		tb.Fatal(err)
	}
	b := broker.New(broker.Config{Sources: w, Store: w.vault, Asker: w, Rules: rules, Log: w.log})
	b.SetProfiles(profiles.Load(profiles.Input{ConfigFile: config, Env: map[string]string{"AWS_ENDPOINT_URL": w.base}}))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(ctx) })
	tb.Cleanup(func() { cancel(); running.Wait() })
	request := cred.Request{Caller: peer.Caller{UID: peer.Self(), Via: "unix"}, Profile: "p", MayAsk: true, Via: cred.Endpoint{Kind: cred.ViaProcess}}
	get = func() *cred.Snapshot {
		s, err := b.Get(ctx, request)
		if err != nil {
			tb.Fatal(err)
		}
		return s
	}
	get()
	return get
}

// TestWarmAnswersCostTheSame: a warm answer is the same look at the same
// memory, whatever its source: it allocates as much for one as for another.
func TestWarmAnswersCostTheSame(t *testing.T) {
	// not parallel: it counts the allocations of the whole process
	costs := map[float64][]string{}
	for name, x := range everySourceForAWeek() {
		get := warmth(t, x)
		least := 1e9
		for range 5 { // other goroutines may allocate meanwhile
			least = min(least, testing.AllocsPerRun(200, func() { get() }))
		}
		costs[least] = append(costs[least], name)
	}
	t.Logf("allocations: %v", costs)
	if len(costs) != 1 || len(costs[0]) == 0 {
		t.Errorf("warm answers cost different allocations, or some: %v", costs)
	}
}

// BenchmarkWarmBySource measures warm answers of every source in turns, and
// reports the dearest as a multiple of the cheapest.
func BenchmarkWarmBySource(b *testing.B) {
	gets, times := map[string]func() *cred.Snapshot{}, map[string][]float64{}
	for name, x := range everySourceForAWeek() {
		gets[name] = warmth(b, x)
	}
	const calls = 2000
	for range max(b.N, 50) {
		for name, get := range gets {
			began := time.Now()
			for range calls {
				get()
			}
			times[name] = append(times[name], float64(time.Since(began).Nanoseconds())/calls)
		}
	}
	least, most := 1e12, 0.0
	for name, all := range times {
		m := middle(all)
		least, most = min(least, m), max(most, m)
		b.ReportMetric(m, strings.ReplaceAll(name, " ", "-")+"-ns")
	}
	b.ReportMetric(most/least, "dearest/cheapest")
	b.ReportMetric(0, "ns/op")
}

func middle(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// stopwatch stands before AWS and adds up how long it takes itself.
type stopwatch struct {
	next http.Handler
	took atomic.Int64
}

func (s *stopwatch) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	s.next.ServeHTTP(w, r)
	s.took.Add(int64(time.Since(began)))
}

// BenchmarkColdBySource is what keyfob adds to the upstream's own time when a
// profile of one link is asked for that nobody has asked for before: the time
// of the whole program `keyfob credential-process`, less AWS's own, less that
// of the same program when it is warm. Daemon, vault and programs are real.
func BenchmarkColdBySource(b *testing.B) {
	const many = 40
	w := newWorld(b)
	watch := &stopwatch{next: w.aws.Handler()}
	front := httptest.NewServer(watch)
	b.Cleanup(front.Close)
	w.env["AWS_ENDPOINT_URL"] = front.URL
	w.addKeys("base")

	sso := fakeaws.SSOSpec{Accounts: []fakeaws.SSOAccount{{}}}
	var config strings.Builder
	config.WriteString(w.read(".aws/config") + "\n[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = " + startURL + "\nsso_registration_scopes = sso:account:access\n")
	root := fakeawstest.NewIssuer(b)
	w.aws.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: string(root.PEM)})
	w.aws.AddAnywhereProfile(fakeaws.AnywhereProfile{})
	leaf := root.Leaf(b, fakeawstest.LeafSpec{NotAfter: 90 * 24 * time.Hour})
	w.write("both.pem", string(leaf.CertPEM)+string(leaf.KeyPEM))
	w.aws.AddOIDC(fakeaws.OIDCSpec{})
	token, err := w.aws.IDToken(front.URL, "idp", "pod")
	if err != nil {
		b.Fatal(err)
	}
	w.write("token", token)
	for i := range many {
		sso.Accounts[0].Roles = append(sso.Accounts[0].Roles, fakeaws.SSORole{Name: fmt.Sprint("R", i)})
		role := w.aws.AddRole(fakeaws.RoleSpec{Name: fmt.Sprint("cold", i)})
		fmt.Fprintf(&config, "[profile sso%d]\nsso_session = corp\nsso_account_id = 111122223333\nsso_role_name = R%d\n", i, i)
		fmt.Fprintf(&config, "[profile web%d]\nregion = eu-west-1\nrole_arn = %s\nweb_identity_token_file = %s\n", i, role, w.path("token"))
		fmt.Fprintf(&config, "[profile any%d]\nregion = eu-west-1\nrole_arn = %s\nroles_anywhere_trust_anchor_arn = %s\nroles_anywhere_profile_arn = %s\nroles_anywhere_certificate = %s\n",
			i, role, fakeaws.DefaultTrustAnchorARN, fakeaws.DefaultAnywhereProfileARN, w.path("both.pem"))
		fmt.Fprintf(&config, "[profile role%d]\nregion = eu-west-1\nrole_arn = %s\nsource_profile = base\n", i, role)
	}
	w.write(".aws/config", config.String())
	w.aws.AddSSO(sso)
	tokens, err := w.aws.NewSSOTokens(startURL)
	if err != nil {
		b.Fatal(err)
	}
	w.write(filepath.Join(".aws/sso/cache", sha1Hex("corp")+".json"), fmt.Sprintf(`{"startUrl":%q,"region":%q,"accessToken":%q,"expiresAt":%q}`,
		tokens.StartURL, tokens.Region, tokens.AccessToken, tokens.Expires.UTC().Format(time.RFC3339)))
	w.must(nil, "reload")

	timed := func(profile string) (all, upstream time.Duration) {
		before, began := watch.took.Load(), time.Now()
		w.must(nil, "credential-process", "--profile", profile)
		return time.Since(began), time.Duration(watch.took.Load() - before)
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	for _, name := range []string{"sso", "web", "any", "role"} {
		var over, own, warm []float64
		timed(name + "0") // connections are made
		for i := 1; i < many; i++ {
			all, upstream := timed(fmt.Sprint(name, i))
			again, _ := timed(fmt.Sprint(name, i))
			over, own, warm = append(over, ms(all-upstream-again)), append(own, ms(upstream)), append(warm, ms(again))
		}
		b.ReportMetric(middle(over), name+"-added-ms")
		b.ReportMetric(middle(own), name+"-upstream-ms")
		b.ReportMetric(middle(warm), name+"-warm-ms")
	}
	b.ReportMetric(0, "ns/op")
}
