package oidc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/profiles"
)

// world is a fake AWS with an OpenID provider and a role that trusts it.
type world struct {
	t    *testing.T
	aws  *fakeaws.Server
	url  string // of STS
	base string // of the provider
	idp  *idp
	deps Deps
	vault
	logs     lines
	ask      *person
	roles    []string
	canaries canaries
}

func newWorld(t *testing.T, spec fakeaws.OIDCSpec) *world {
	t.Helper()
	w := &world{t: t, aws: fakeaws.New(), vault: vault{m: map[string]cred.Secret{}}}
	w.idp = &idp{aws: w.aws, next: w.aws.Handler(), canaries: &w.canaries}
	server := httptest.NewServer(w.idp)
	t.Cleanup(server.Close)
	w.url, w.base = server.URL, server.URL
	p := awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }})
	t.Cleanup(p.CloseIdle)
	w.set(spec, p)
	t.Cleanup(w.noSecrets)
	return w
}

func (w *world) set(spec fakeaws.OIDCSpec, p *awsclient.Pool) {
	w.aws.AddOIDC(spec)
	for _, name := range []string{"federated", "second"} {
		w.roles = append(w.roles, w.aws.AddRole(fakeaws.RoleSpec{Name: name, MaxSessionDuration: 43200,
			Trust: []fakeaws.Trust{{Federated: []string{"arn:aws:iam::*:oidc-provider/*"}}}}))
	}
	log := logrus.New()
	log.SetOutput(&w.logs)
	log.SetLevel(logrus.TraceLevel)
	w.ask = &person{t: w.t, canaries: &w.canaries}
	w.deps = Deps{Store: &w.vault, Log: logrus.NewEntry(log), Pool: p, User: "tester", Sessions: NewSessions()}
}

// link is an oidc link, changed by pairs of kv.
func (w *world) link(kv ...string) profiles.Link {
	l := profiles.Link{Kind: profiles.KindOIDC, Profile: "dev", Client: profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"sts": w.url}},
		Params: map[string]string{"role_arn": w.roles[0], "oidc_issuer": w.base + "/oidc/idp", "oidc_client_id": "keyfob", "oidc_scopes": "openid,offline_access"}}
	for i := 0; i < len(kv); i += 2 {
		l.Params[kv[i]] = kv[i+1]
	}
	l.RoleARN = l.Params["role_arn"]
	return l
}

func (w *world) source(l profiles.Link) cred.Source {
	w.t.Helper()
	s, err := New(l, w.deps)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) fetchWith(l profiles.Link, in cred.Input) (cred.Credentials, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if in.Profile == "" {
		in.Profile = "asked"
	}
	if in.Ask == nil {
		in.Ask = w.ask
	}
	c, err := w.source(l).Fetch(ctx, in)
	w.canaries.add(c.SecretAccessKey.Reveal(), c.SessionToken.Reveal())
	w.canaries.said(err)
	return c, err
}

func (w *world) fetch(kv ...string) (cred.Credentials, error) {
	w.t.Helper()
	return w.fetchWith(w.link(kv...), cred.Input{})
}

// must is fetch without an error.
func (w *world) must(kv ...string) cred.Credentials {
	w.t.Helper()
	c, err := w.fetch(kv...)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// restart forgets what is in memory.
func (w *world) restart() { w.deps.Sessions = NewSessions() }

// expire makes the ID token of the vault look ended.
func (w *world) expire() {
	w.t.Helper()
	w.change(func(r map[string]any) {
		parts := strings.Split(r["id_token"].(string), ".")
		payload, _ := json.Marshal(map[string]any{"iss": "x", "exp": time.Now().Add(-time.Minute).Unix()})
		r["id_token"] = parts[0] + "." + b64(payload) + "." + parts[2]
	})
}

// change edits the one record of the vault.
func (w *world) change(fn func(r map[string]any)) {
	w.t.Helper()
	w.vault.mu.Lock()
	defer w.vault.mu.Unlock()
	if len(w.vault.m) != 1 {
		w.t.Fatalf("the vault has %d records", len(w.vault.m))
	}
	for name, v := range w.vault.m {
		var r map[string]any
		if err := json.Unmarshal([]byte(v.Reveal()), &r); err != nil {
			w.t.Fatal(err)
		}
		fn(r)
		b, _ := json.Marshal(r)
		w.vault.m[name] = cred.SecretBytes(b)
	}
}

func (w *world) record() (r map[string]any) {
	w.t.Helper()
	w.change(func(x map[string]any) { r = maps.Clone(x) })
	return r
}

// noSecrets looks at everything that people may see.
func (w *world) noSecrets() {
	for _, v := range w.vault.all() {
		var r recordJSON
		if json.Unmarshal([]byte(v.Reveal()), &r) == nil {
			w.canaries.add(r.Refresh, r.IDToken)
		}
	}
	w.canaries.mu.Lock()
	defer w.canaries.mu.Unlock()
	seen := w.logs.String() + strings.Join(w.canaries.seen, "\n")
	for _, s := range w.canaries.secrets {
		if len(s) > 8 && strings.Contains(seen, s) {
			w.t.Errorf("a secret is shown: %.12s… in %s", s, seen)
		}
	}
}

// canaries are secrets, and what people saw.
type canaries struct {
	mu      sync.Mutex // guards both
	secrets []string
	seen    []string
}

func (c *canaries) add(s ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets = append(c.secrets, s...)
}

func (c *canaries) said(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; err != nil; err = errors.Unwrap(err) {
		c.seen = append(c.seen, err.Error(), cred.HintOf(err))
	}
}

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// vault is a cred.Store in memory.
type vault struct {
	mu     sync.Mutex // guards what follows
	m      map[string]cred.Secret
	locked bool
	full   bool // nothing can be written
	puts   int
}

func (v *vault) Get(_ context.Context, name string) (cred.Secret, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.locked {
		return cred.Secret{}, cred.ErrLocked
	}
	s, ok := v.m[name]
	if !ok {
		return s, cred.ErrNotFound
	}
	return s, nil
}

func (v *vault) Put(_ context.Context, name string, value cred.Secret) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.locked:
		return cred.ErrLocked
	case v.full:
		return errors.New("cannot write the record: no space left on device")
	}
	v.puts++
	v.m[name] = value
	return nil
}

func (v *vault) Delete(_ context.Context, name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.m[name]; !ok {
		return cred.ErrNotFound
	}
	delete(v.m, name)
	return nil
}

func (v *vault) List(context.Context, string) ([]string, error) {
	return slices.Collect(maps.Keys(v.all())), nil
}

func (v *vault) all() map[string]cred.Secret {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.m)
}

func (v *vault) set(fn func(v *vault)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fn(v)
}

// person answers questions: with a browser, unless told otherwise.
type person struct {
	t        testing.TB
	canaries *canaries
	// does answers a question; the default opens its URL, and waits.
	does func(ctx context.Context, q cred.Question) (cred.Secret, error)

	mu    sync.Mutex // guards what follows
	asked []cred.Question
	ends  []error // of the contexts of the questions
}

func (p *person) Ask(ctx context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	p.mu.Lock()
	p.asked = append(p.asked, q)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ends = append(p.ends, ctx.Err())
	}()
	if p.does != nil {
		return p.does(ctx, q)
	}
	open(p.t, q.URL)
	<-ctx.Done()
	return cred.Secret{}, ctx.Err()
}

func (p *person) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

func (p *person) last() cred.Question {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asked) == 0 {
		return cred.Question{}
	}
	return p.asked[len(p.asked)-1]
}

// nobody is there.
func nobody(_ context.Context, q cred.Question) (cred.Secret, error) {
	return cred.Secret{}, &cred.InteractionError{Kind: q.Kind, Profile: q.Profile, Message: "cannot get credentials for " + q.Profile + ": nobody is there to answer"}
}

func open(t testing.TB, address string) fakeawstest.Page {
	return fakeawstest.NewBrowser(t, true).Open(address)
}

// idp stands before the fake's provider and adds what that lacks: a device
// grant and the end of sessions. It keeps the tokens that it sees go by.
type idp struct {
	aws      *fakeaws.Server
	next     http.Handler
	canaries *canaries
	discover func(doc map[string]any) // changes the discovery

	mu       sync.Mutex // guards what follows
	before   hook
	approved bool // the device's code was used
	polls    []time.Time
	polled   func(n int) (code string) // an error for the nth poll, "" for none
	ended    []url.Values
	refreshs []string // refresh tokens, as they came
}

// hook comes before the provider; true says that it has answered.
type hook func(w http.ResponseWriter, r *http.Request) bool

func (p *idp) intercept(h hook) { p.set(func(p *idp) { p.before = h }) }

func (p *idp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	before := p.before
	p.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	base := "http://" + r.Host
	if r.TLS != nil {
		base = "https://" + r.Host
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
		rec := httptest.NewRecorder()
		p.next.ServeHTTP(rec, r)
		var doc map[string]any
		if rec.Code != http.StatusOK || json.Unmarshal(rec.Body.Bytes(), &doc) != nil {
			copyAnswer(w, rec)
			return
		}
		doc["device_authorization_endpoint"], doc["end_session_endpoint"] = base+"/device_authorization_", base+"/end_session"
		if p.discover != nil {
			p.discover(doc)
		}
		_ = json.NewEncoder(w).Encode(doc)
	case r.URL.Path == "/end_session":
		_ = r.ParseForm()
		p.mu.Lock()
		p.ended = append(p.ended, r.PostForm)
		p.mu.Unlock()
		http.Redirect(w, r, "https://elsewhere.example.com/bye", http.StatusFound)
	case r.URL.Path == "/device_authorization_":
		p.canaries.add("device-code-canary")
		_, _ = fmt.Fprintf(w, `{"device_code":"device-code-canary","user_code":"ABCD-EFGH","verification_uri":"%s/d","verification_uri_complete":"%s/d?c=ABCD-EFGH","expires_in":60,"interval":1}`, base, base)
	case strings.HasSuffix(r.URL.Path, "/token"):
		p.token(w, r, base)
	default:
		p.next.ServeHTTP(w, r)
	}
}

func (p *idp) token(w http.ResponseWriter, r *http.Request, base string) {
	body := new(bytes.Buffer)
	_, _ = body.ReadFrom(r.Body)
	form, _ := url.ParseQuery(body.String())
	if form.Get("grant_type") == "urn:ietf:params:oauth:grant-type:device_code" {
		p.mu.Lock()
		p.polls = append(p.polls, time.Now())
		n, approved := len(p.polls), p.approved
		code := ""
		if p.polled != nil {
			code = p.polled(n)
		}
		p.mu.Unlock()
		if code == "" && !approved {
			code = "authorization_pending"
		}
		if code != "" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"error":%q,"error_description":"about device-code-canary"}`, code)
			return
		}
		body = bytes.NewBufferString(p.code(base).Encode())
	}
	p.mu.Lock()
	if t := form.Get("refresh_token"); t != "" {
		p.refreshs = append(p.refreshs, t)
	}
	p.mu.Unlock()
	p.canaries.add(form.Get("code"), form.Get("code_verifier"), form.Get("refresh_token"))
	again := httptest.NewRequest("POST", base+r.URL.Path, body)
	again.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	rec := httptest.NewRecorder()
	p.next.ServeHTTP(rec, again)
	var t map[string]any
	_ = json.Unmarshal(rec.Body.Bytes(), &t)
	for _, k := range []string{"id_token", "access_token", "refresh_token"} {
		if s, _ := t[k].(string); s != "" {
			p.canaries.add(s)
		}
	}
	copyAnswer(w, rec)
}

// code signs in at the fake as a browser would.
func (p *idp) code(base string) url.Values {
	verifier := strings.Repeat("v", 43)
	q := url.Values{"response_type": {"code"}, "client_id": {"keyfob"}, "redirect_uri": {"http://127.0.0.1:1/x"}, "scope": {"openid offline_access"},
		"state": {"s"}, "code_challenge": {challenge(verifier)}, "code_challenge_method": {"S256"}}
	rec := httptest.NewRecorder()
	p.next.ServeHTTP(rec, httptest.NewRequest("GET", base+"/oidc/idp/authorize?"+q.Encode(), nil))
	to, _ := url.Parse(rec.Header().Get("Location"))
	return url.Values{"grant_type": {"authorization_code"}, "client_id": {"keyfob"}, "code": {to.Query().Get("code")},
		"redirect_uri": {"http://127.0.0.1:1/x"}, "code_verifier": {verifier}}
}

func (p *idp) sent() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.refreshs)
}

func (p *idp) set(fn func(p *idp)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn(p)
}

func copyAnswer(w http.ResponseWriter, rec *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}
