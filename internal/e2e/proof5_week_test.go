//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
	processsource "keyfob/internal/source/process"
	"keyfob/internal/source/rolesanywhere"
	"keyfob/internal/source/saml"
	"keyfob/internal/source/sso"
	"keyfob/internal/source/sts"
	"keyfob/profiles"
)

// week is a fake AWS, the broker and every source in simulated time: as the
// daemon puts them together, but for sockets and processes.
type week struct {
	t     testing.TB
	think time.Duration // a person's time
	aws   *fakeaws.Server
	dir   string
	base  string // the address of all services
	vault *weekVault
	pool  *awsclient.Pool
	log   *logrus.Entry
	logs  *bytes.Buffer
	down  atomic.Bool // there is no network

	tool     func(ctx context.Context, w *week) // what the program of the source does
	toolKeys cred.Credentials

	signIns atomic.Int32 // how often a person was asked to sign in

	sso   *sso.Sessions
	oidc  *oidc.Sessions
	login *login.Sessions
	run   *command.Runner
}

// For is the daemon's choice of a source, as in daemon/sources.go.
func (w *week) For(l profiles.Link) (cred.Source, error) {
	st := sts.Deps{Store: w.vault, Pool: w.pool, Log: w.log, User: "alice"}
	switch l.Kind {
	case profiles.KindWebIdentity, profiles.KindOIDC:
		return oidc.New(l, oidc.Deps{Store: w.vault, Sessions: w.oidc, Pool: w.pool, Log: w.log, User: "alice"})
	case profiles.KindSSO:
		return sso.New(l, sso.Deps{Store: w.vault, Sessions: w.sso, Pool: w.pool, Log: w.log})
	case profiles.KindLogin:
		return login.New(l, login.Deps{Store: w.vault, Sessions: w.login, Pool: w.pool, Log: w.log})
	case profiles.KindSAML:
		src, err := saml.New(l, saml.Deps{Pool: w.pool, Commands: w.run, Log: w.log})
		return &toolSource{src, w}, err
	case profiles.KindRolesAnywhere:
		return rolesanywhere.New(l, rolesanywhere.Deps{Store: w.vault, Pool: w.pool, Log: w.log})
	case profiles.KindProcess:
		src, err := processsource.New(l, processsource.Deps{Run: w.run, STS: st, Log: w.log})
		return &toolSource{src, w}, err
	}
	return sts.New(l, st)
}

// toolSource is a source whose program makes its answer when it is run.
type toolSource struct {
	cred.Source
	w *week
}

func (s *toolSource) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	s.w.tool(ctx, s.w)
	return s.Source.Fetch(ctx, in)
}

// Ask is a person who is always there, and signs in wherever it is asked to.
func (w *week) Ask(ctx context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	switch q.Kind {
	case cred.AskBrowser: // its redirect would need a socket
		return cred.NewSecret(cred.AnswerNoBrowser), nil
	case cred.AskDevice:
		w.signIns.Add(1)
		time.Sleep(w.think)
		w.visit(q.URL)
		<-ctx.Done()
		return cred.Secret{}, ctx.Err()
	case cred.AskCode:
		w.signIns.Add(1)
		_, text, _ := strings.Cut(w.visit(q.URL), "<pre id=\"code\"")
		_, text, _ = strings.Cut(text, ">")
		text, _, _ = strings.Cut(text, "<")
		return cred.NewSecret(text), nil
	}
	return cred.Secret{}, &cred.InteractionError{Key: key, Kind: q.Kind, Profile: q.Profile, Message: "cannot ask for " + q.Kind}
}

// visit opens a page as a browser does, and returns what it shows.
func (w *week) visit(address string) string {
	u, err := url.Parse(address)
	for range 5 {
		if err != nil {
			w.t.Error(err)
			return ""
		}
		rec := httptest.NewRecorder()
		w.aws.Handler().ServeHTTP(rec, httptest.NewRequest("GET", u.String(), nil))
		next := rec.Header().Get("Location")
		if next == "" {
			return rec.Body.String()
		}
		u, err = u.Parse(next)
	}
	return ""
}

func (w *week) write(name, text string) string {
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		w.t.Error(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		w.t.Error(err)
	}
	return path
}

// weekOf is one source for a week.
type weekOf struct {
	// config is the profile p; URL is the address of all services.
	config func(w *week) string
	// begin makes what AWS knows of it.
	begin func(w *week)
	// every so often the machine around it does something: it replaces a
	// token file, or a certificate.
	every time.Duration
	does  func(w *week, n int)
	// tool is what a program of somebody else does when it is run.
	tool func(ctx context.Context, w *week)
	// call is what its refreshes call; least and most how often in a week.
	call        string
	least, most int
	signIns     int // of a person
}

func everySourceForAWeek() map[string]weekOf {
	const role = "role_arn = " + federatedARN + "\n"
	federate := func(w *week) {
		w.aws.AddRole(fakeaws.RoleSpec{ARN: federatedARN, MaxSessionDuration: 7200, Trust: []fakeaws.Trust{{Federated: []string{"*"}}}})
	}
	return map[string]weekOf{
		"sso": {
			config: func(*week) string {
				return "[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = " + startURL + "\nsso_registration_scopes = sso:account:access\n[profile p]\n" +
					"sso_session = corp\nsso_account_id = 111122223333\nsso_role_name = Developer\n"
			},
			begin: func(w *week) { w.aws.AddSSO(directory()) },
			call:  "GetRoleCredentials", least: 160, most: 420, signIns: 21, // a session lasts for eight hours
		},
		"login": {
			config: func(*week) string { return "[profile p]\nlogin_session = " + aliceARN + "\n" },
			begin:  func(w *week) { w.aws.AddUser(fakeaws.UserSpec{Name: "alice"}) },
			call:   "CreateOAuth2Token", least: 600, most: 1900, signIns: 14, // for twelve
		},
		"web-identity": {
			config: func(w *week) string {
				return "[profile p]\n" + role + "web_identity_token_file = " + filepath.Join(w.dir, "token") + "\n"
			},
			begin: func(w *week) { federate(w); w.aws.AddOIDC(fakeaws.OIDCSpec{TokenSeconds: 7200}) },
			every: time.Hour,
			does: func(w *week, _ int) {
				text, err := w.aws.IDToken(w.base, "idp", "pod")
				if err != nil {
					w.t.Error(err)
				}
				w.write("token", text)
			},
			call: "AssumeRoleWithWebIdentity", least: 160, most: 420,
		},
		"saml": {
			config: func(w *week) string {
				return "[profile p]\n" + role + "duration_seconds = 7200\nsaml_process = cat '" + filepath.Join(w.dir, "assertion") + "'\n"
			},
			begin: func(w *week) {
				federate(w)
				w.aws.AddSAML(fakeaws.SAMLSpec{Roles: []string{federatedARN}})
			},
			tool: func(_ context.Context, w *week) {
				text, err := w.aws.SAMLResponse("idp", nil)
				if err != nil {
					w.t.Error(err)
				}
				w.write("assertion", text)
			},
			call: "AssumeRoleWithSAML", least: 80, most: 220,
		},
		"roles-anywhere": {
			config: func(w *week) string {
				return "[profile p]\n" + role + "roles_anywhere_trust_anchor_arn = " + fakeaws.DefaultTrustAnchorARN + "\nroles_anywhere_profile_arn = " +
					fakeaws.DefaultAnywhereProfileARN + "\nroles_anywhere_certificate = " + filepath.Join(w.dir, "both.pem") + "\n"
			},
			begin: func(w *week) {
				w.aws.AddRole(fakeaws.RoleSpec{ARN: federatedARN, Trust: []fakeaws.Trust{{Principals: []string{"rolesanywhere.amazonaws.com"}}}})
				w.aws.AddAnywhereProfile(fakeaws.AnywhereProfile{})
			},
			every: 12 * time.Hour, // a certificate lasts for a day
			does: func() func(*week, int) {
				var root *fakeawstest.Issuer
				return func(w *week, n int) {
					if n == 0 {
						root = fakeawstest.NewIssuer(w.t)
						w.aws.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: string(root.PEM)})
					}
					leaf := root.Leaf(w.t, fakeawstest.LeafSpec{})
					w.write("both.pem", string(leaf.CertPEM)+string(leaf.KeyPEM))
				}
			}(),
			call: "CreateSession", least: 160, most: 420,
		},
		"process": {
			config: func(w *week) string {
				return "[profile p]\ncredential_process = cat '" + filepath.Join(w.dir, "doc") + "'\n"
			},
			begin: func(w *week) {
				id, secret := w.aws.AddUser(fakeaws.UserSpec{Name: "alice"})
				w.toolKeys = cred.Credentials{AccessKeyID: id, SecretAccessKey: cred.NewSecret(secret)}
				w.aws.AddRole(fakeaws.RoleSpec{ARN: entryARN, MaxSessionDuration: 7200})
			},
			tool: func(ctx context.Context, w *week) {
				role, err := sts.New(profiles.Link{Kind: profiles.KindAssumeRole, Profile: "tool", RoleARN: entryARN, Params: map[string]string{"role_arn": entryARN, "duration_seconds": "7200"},
					Client: profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"sts": w.base}}}, sts.Deps{Pool: w.pool, User: "alice"})
				if err != nil {
					w.t.Error(err)
					return
				}
				if s, err := role.Fetch(ctx, cred.Input{Profile: "tool", Ask: w, Base: w.toolKeys}); err == nil { // else it prints what it has
					w.write("doc", fmt.Sprintf(`{"Version":1,"AccessKeyId":%q,"SecretAccessKey":%q,"SessionToken":%q,"Expiration":%q}`,
						s.AccessKeyID, s.SecretAccessKey.Reveal(), s.SessionToken.Reveal(), s.Expires.UTC().Format(time.RFC3339)))
				}
			},
			call: "AssumeRole", least: 80, most: 220,
		},
	}
}

// TestEverySourceForAWeek: a program asks every 20 minutes for a week, the
// daemon is restarted each day, AWS limits the rate or fails now and then,
// and the network goes for a quarter of an hour each day. Nobody ever gets
// what has ended, nobody is refused, and a person signs in as seldom as AWS
// allows.
func TestEverySourceForAWeek(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts many programs")
	}
	for name, x := range everySourceForAWeek() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			rules, err := access.NewRules(access.RulesConfig{Owner: peer.Self()})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) { live(t, x, dir, rules) })
		})
	}
}

func live(t *testing.T, x weekOf, dir string, rules *access.RuleSet) {
	w := &week{t: t, think: 20 * time.Second, aws: fakeaws.New(), dir: dir, base: "http://127.0.0.1", tool: x.tool, vault: &weekVault{all: map[string]cred.Secret{}}, logs: &bytes.Buffer{}}
	wire := &wires{conns: make(chan net.Conn), over: make(chan struct{})}
	server := &http.Server{Handler: w.aws.Handler()}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(wire) })
	w.pool = awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }, Dial: w.dialer(wire)})
	log := logrus.New()
	log.SetOutput(&guarded{w: w.logs})
	w.log = logrus.NewEntry(log)
	w.run = command.New(command.Config{Environ: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}})
	x.begin(w)
	config := w.write("config", "[default]\nregion = eu-west-1\n"+strings.ReplaceAll(x.config(w), "[profile p]\n", "[profile p]\nregion = eu-west-1\n"))
	set := profiles.Load(profiles.Input{ConfigFile: config, Env: map[string]string{"AWS_ENDPOINT_URL": w.base, "AWS_REGION": "eu-west-1"}})

	var b *broker.Broker
	var running sync.WaitGroup
	stop := func() {}
	restart := func() {
		stop()
		running.Wait()
		w.sso, w.oidc, w.login = sso.NewSessions(), oidc.NewSessions(), login.NewSessions()
		b = broker.New(broker.Config{Sources: w, Store: w.vault, Asker: w, Rules: rules, Log: w.log})
		b.SetProfiles(set)
		ctx, cancel := context.WithCancel(context.Background())
		stop = cancel
		running.Go(func() { _ = b.Run(ctx) })
	}
	get := func(profile string) *cred.Snapshot {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		s, err := b.Get(ctx, cred.Request{Caller: peer.Caller{UID: peer.Self(), Via: "unix"}, Profile: profile, MayAsk: true, Via: cred.Endpoint{Kind: cred.ViaProcess}})
		if err != nil {
			t.Errorf("%v, hint %s", err, cred.HintOf(err))
			return nil
		}
		if known, ok := w.aws.Session(s.AccessKeyID); !ok || !s.Expires.After(time.Now()) || !known.Expires.After(time.Now()) {
			t.Errorf("AWS knows what was got as %+v, until %v, and it is %v", known, s.Expires, time.Now())
		}
		return s
	}
	restart()
	over := make(chan struct{})
	var around sync.WaitGroup
	if x.does != nil {
		x.does(w, 0)
		around.Go(func() {
			tick := time.NewTicker(x.every)
			defer tick.Stop()
			for n := 1; ; n++ {
				select {
				case <-over:
					return
				case <-tick.C:
					x.does(w, n)
				}
			}
		})
	}
	began, different := time.Now(), map[string]bool{}
	for step := 0; time.Since(began) < 7*24*time.Hour && !t.Failed(); step++ {
		switch {
		case step%72 == 40:
			restart()
		case step%50 == 20:
			w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Count: 2})
		case step%50 == 45:
			w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Fail500, Count: 2})
		}
		if s := get("p"); s != nil {
			different[s.AccessKeyID] = true
		}
		if step%72 == 60 {
			// sessions of fifteen minutes have ten left at most
			w.down.Store(true)
			w.pool.CloseIdle()
			time.Sleep(4 * time.Minute)
			if got := get("p"); got == nil {
				t.Errorf("nothing is handed out while the network is gone")
			}
			w.down.Store(false)
			time.Sleep(16 * time.Minute)
			continue
		}
		time.Sleep(20 * time.Minute)
	}
	close(over)
	around.Wait()
	stop()
	running.Wait()
	w.pool.CloseIdle()
	_ = server.Close()
	serving.Wait()
	calls := w.aws.Count(x.call)
	t.Logf("%d different sessions, %d calls of %s, a person signed in %d times", len(different), calls, x.call, w.signIns.Load())
	if calls < x.least || calls > x.most || len(different) < x.least*6/10 {
		t.Errorf("%d calls, want %d to %d", calls, x.least, x.most)
	}
	if n := int(w.signIns.Load()); n < x.signIns-1 || n > x.signIns+1 {
		t.Errorf("a person signed in %d times, want %d", n, x.signIns)
	}
	w.clean()
}

// clean looks for what the vault holds in the log.
func (w *week) clean() {
	for _, s := range w.vault.all {
		var m map[string]any
		if json.Unmarshal([]byte(s.Reveal()), &m) != nil {
			continue
		}
		for name, v := range m {
			if text, ok := v.(string); ok && len(text) > 20 && (strings.Contains(strings.ToLower(name), "secret") || strings.Contains(strings.ToLower(name), "token")) && strings.Contains(w.logs.String(), text) {
				w.t.Errorf("%s is in the log", name)
			}
		}
	}
}

// guarded is a writer for many goroutines.
type guarded struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func (g *guarded) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.w.Write(b)
}
