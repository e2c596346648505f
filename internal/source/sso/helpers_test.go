package sso

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
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

const (
	startURL = "https://d-1234567890.awsapps.com/start"
	dev      = "111122223333"
	prod     = "444455556666"
)

// world is a fake AWS with an Identity Center, and a person.
type world struct {
	t      testing.TB
	aws    *fakeaws.Server
	url    string
	deps   Deps
	vault  *vault
	logs   *syncBuffer
	person *person
}

func people() fakeaws.SSOSpec {
	return fakeaws.SSOSpec{Accounts: []fakeaws.SSOAccount{
		{ID: dev, Name: "dev", Roles: []fakeaws.SSORole{{Name: "ReadOnly"}, {Name: "Admin"}}},
		{ID: prod, Name: "prod", Roles: []fakeaws.SSORole{{Name: "ReadOnly"}}},
	}}
}

func newWorld(t testing.TB, spec fakeaws.SSOSpec) *world {
	t.Helper()
	s, u := fakeawstest.Start(t)
	s.AddSSO(spec)
	return (&world{t: t, aws: s, url: u}).init(awsclient.PoolConfig{})
}

func (w *world) init(pool awsclient.PoolConfig) *world {
	w.logs, w.vault = &syncBuffer{}, &vault{}
	w.person = &person{w: w}
	log := logrus.New()
	log.SetOutput(w.logs)
	log.SetLevel(logrus.TraceLevel)
	pool.Proxy = func(*url.URL) (*url.URL, error) { return nil, nil }
	p := awsclient.NewPool(pool)
	w.t.Cleanup(p.CloseIdle)
	w.deps = Deps{Store: w.vault, Sessions: NewSessions(), Pool: p, Log: logrus.NewEntry(log)}
	return w
}

// restart is keyfob started again, with the vault as it is.
func (w *world) restart() { w.deps.Sessions = NewSessions() }

// link is a profile of the sso-session corp, or of none.
func (w *world) link(session, account, role string, more ...string) profiles.Link {
	l := profiles.Link{Kind: profiles.KindSSO, Profile: "p-" + role, Params: map[string]string{
		"sso_start_url": startURL, "sso_region": "eu-west-1", "sso_account_id": account, "sso_role_name": role},
		Client: profiles.Client{Region: "us-west-2", EndpointURL: map[string]string{"sso": w.url, "sso_oidc": w.url, "": "http://127.0.0.1:1"}}}
	if session != "" {
		l.Params["sso_session"] = session
	}
	for i := 0; i < len(more); i += 2 {
		l.Params[more[i]] = more[i+1]
	}
	return l
}

func (w *world) source(l profiles.Link) cred.SignInSource {
	w.t.Helper()
	s, err := New(l, w.deps)
	if err != nil {
		w.t.Fatal(err)
	}
	return s.(cred.SignInSource)
}

// fetch is one Fetch of a link; signin is how the person signs in, if at all.
func (w *world) fetch(l profiles.Link, signin *cred.Signin) (cred.Credentials, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	c, err := w.source(l).Fetch(ctx, cred.Input{Profile: l.Profile, Ask: w.person, Signin: signin})
	w.noSecrets(err)
	if err == nil {
		if !c.Temporary() || c.AccountID != l.Params["sso_account_id"] {
			w.t.Errorf("credentials %+v", c)
		}
		if x, ok := w.aws.Session(c.AccessKeyID); !ok || !strings.Contains(x.ARN, l.Params["sso_role_name"]) {
			w.t.Errorf("AWS knows them as %+v", x)
		}
	}
	return c, err
}

func (w *world) ok(l profiles.Link) cred.Credentials {
	w.t.Helper()
	c, err := w.fetch(l, nil)
	if err != nil {
		w.t.Fatal(err, cred.HintOf(err))
	}
	return c
}

// count compares how many calls of an action came since the last count.
func (w *world) count(want ...any) {
	w.t.Helper()
	for i := 0; i < len(want); i += 2 {
		if n := w.aws.Count(want[i].(string)); n != want[i+1].(int) {
			w.t.Errorf("%d calls of %s, want %d", n, want[i], want[i+1])
		}
	}
	w.aws.ResetCalls()
}

// record is the vault's record of a link's sign-in.
func (w *world) record(l profiles.Link) *record {
	w.t.Helper()
	v, err := w.vault.Get(context.Background(), tokenPrefix+w.source(l).AskKey().String())
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := decodeRecord(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// change changes that record.
func (w *world) change(l profiles.Link, fn func(*record)) {
	w.t.Helper()
	r := w.record(l)
	fn(r)
	v, err := r.encode()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.vault.Put(context.Background(), tokenPrefix+w.source(l).AskKey().String(), v); err != nil {
		w.t.Fatal(err)
	}
}

// noSecrets looks for every secret that the vault ever held in what people
// see.
func (w *world) noSecrets(err error) {
	w.t.Helper()
	seen := w.logs.String()
	for e := err; e != nil; e = errors.Unwrap(e) {
		seen += e.Error() + cred.HintOf(e) + fmt.Sprintf("%+v %#v", e, e)
	}
	for _, s := range w.vault.secrets() {
		if strings.Contains(seen, s) {
			w.t.Errorf("the secret %.12s… is shown in %s", s, seen)
		}
	}
}

// refused checks an error of a person's making.
func interactionError(t *testing.T, err error, parts ...string) *cred.InteractionError {
	t.Helper()
	var e *cred.InteractionError
	if !errors.As(err, &e) {
		t.Fatalf("%T %v is no InteractionError", err, err)
	}
	for _, p := range append(parts, "cannot ", "keyfob login "+e.Profile) {
		if !strings.Contains(e.Error()+"\n"+e.Hint(), p) {
			t.Errorf("%q is missing in %q, hint %q", p, e.Error(), e.Hint())
		}
	}
	return e
}

func upstreamError(t *testing.T, err error, refused bool, parts ...string) *cred.UpstreamError {
	t.Helper()
	var e *cred.UpstreamError
	if !errors.As(err, &e) {
		t.Fatalf("%T %v is no UpstreamError", err, err)
	}
	if m := e.Error(); !strings.HasPrefix(m, "cannot ") || strings.ContainsAny(m, "\r\n") || strings.HasSuffix(m, ".") || e.Op == "" || e.Refused != refused {
		t.Errorf("%q %+v", m, e)
	}
	for _, p := range parts {
		if !strings.Contains(e.Message+"\n"+e.Help, p) {
			t.Errorf("%q is missing in %q, hint %q", p, e.Message, e.Help)
		}
	}
	return e
}

// person answers questions, as a Queue does: calls of one key at a time are
// one question.
type person struct {
	w *world
	// does is what the person does; nil for a browser that opens the page.
	does func(ctx context.Context, q cred.Question) (cred.Secret, error)

	mu    sync.Mutex // guards what follows
	asked []cred.Question
	live  map[cred.LinkKey]int
}

func (p *person) Ask(ctx context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	p.mu.Lock()
	if p.live == nil {
		p.live = map[cred.LinkKey]int{}
	}
	p.live[key]++
	first := p.live[key] == 1
	if first {
		p.asked = append(p.asked, q)
		if u, err := url.Parse(q.URL); err == nil && u.Query().Get("state") != "" {
			p.w.vault.remember(u.Query().Get("state"))
		}
	}
	does := p.does
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.live[key]--
		p.mu.Unlock()
	}()
	if !first {
		<-ctx.Done()
		return cred.Secret{}, ctx.Err()
	}
	if does == nil {
		does = p.opens
	}
	return does(ctx, q)
}

// opens is a browser.
func (p *person) opens(ctx context.Context, q cred.Question) (cred.Secret, error) {
	fakeawstest.NewBrowser(p.w.t, true).Open(q.URL)
	<-ctx.Done()
	return cred.Secret{}, ctx.Err()
}

func (p *person) is(does func(ctx context.Context, q cred.Question) (cred.Secret, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.does = does
}

// questions returns what was asked since the last time.
func (p *person) questions() []cred.Question {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.asked
	p.asked = nil
	return q
}

func (w *world) asks(kinds ...string) {
	w.t.Helper()
	var got []string
	for _, q := range w.person.questions() {
		got = append(got, q.Kind)
	}
	if fmt.Sprint(got) != fmt.Sprint(kinds) {
		w.t.Errorf("asked %v, want %v", got, kinds)
	}
}

// nobody is there.
func nobody(_ context.Context, q cred.Question) (cred.Secret, error) {
	return cred.Secret{}, &cred.InteractionError{Kind: q.Kind, Profile: q.Profile, Message: "cannot get credentials: nobody is there"}
}

// vault is a Store in memory that remembers every secret it held, and can be
// made to fail.
type vault struct {
	mu      sync.Mutex // guards what follows
	records map[string]cred.Secret
	ever    map[string]bool
	getErr  error
	putErr  error
	puts    int
}

func (v *vault) Get(_ context.Context, name string) (cred.Secret, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.getErr != nil {
		return cred.Secret{}, v.getErr
	}
	s, ok := v.records[name]
	if !ok {
		return s, cred.ErrNotFound
	}
	return s, nil
}

func (v *vault) Put(_ context.Context, name string, value cred.Secret) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.putErr != nil {
		return v.putErr
	}
	if v.records == nil {
		v.records, v.ever = map[string]cred.Secret{}, map[string]bool{}
	}
	v.puts++
	v.records[name] = value
	if r, err := decodeRecord(value); err == nil {
		for _, s := range []cred.Secret{r.access, r.refresh, r.clientSecret} {
			if !s.IsZero() {
				v.ever[s.Reveal()] = true
			}
		}
	}
	if c := decodeClient(value); c != nil {
		v.ever[c.secret.Reveal()] = true
	}
	return nil
}

// remember makes s a secret that must not be seen.
func (v *vault) remember(secrets ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ever == nil {
		v.records, v.ever = map[string]cred.Secret{}, map[string]bool{}
	}
	for _, s := range secrets {
		v.ever[s] = true
	}
}

func (v *vault) Delete(_ context.Context, name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.records[name]; !ok {
		return cred.ErrNotFound
	}
	delete(v.records, name)
	return nil
}

func (v *vault) List(_ context.Context, prefix string) (names []string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for n := range v.records {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	return names, nil
}

func (v *vault) secrets() (all []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for s := range v.ever {
		all = append(all, s)
	}
	return all
}

// copy is the vault as a kill would leave it now.
func (v *vault) copy() *vault {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := &vault{records: map[string]cred.Secret{}, ever: map[string]bool{}}
	for k, s := range v.records {
		c.records[k] = s
	}
	for s := range v.ever {
		c.ever[s] = true
	}
	return c
}

func (v *vault) fail(get, put error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.getErr, v.putErr = get, put
}

type syncBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
