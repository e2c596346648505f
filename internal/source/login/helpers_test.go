package login

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
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

const alice = "arn:aws:iam::111122223333:user/alice"

// world is a fake AWS with one user, and what sources need to call it.
type world struct {
	t     *testing.T
	aws   *fakeaws.Server
	url   string
	store *memStore
	deps  Deps
	logs  *safeBuffer
	ask   *asker
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	w.aws, w.url = fakeawstest.Start(t)
	w.furnish(awsclient.PoolConfig{})
	return w
}

// newBubble is newWorld without sockets, for synctest; its address has the
// host signin.test.
func newBubble(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, aws: fakeaws.New(), url: "http://signin.test"}
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: w.aws.Handler()}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-served })
	w.furnish(awsclient.PoolConfig{Dial: l.dial})
	return w
}

func (w *world) furnish(c awsclient.PoolConfig) {
	w.aws.AddUser(fakeaws.UserSpec{Name: "alice"})
	c.Proxy = func(*url.URL) (*url.URL, error) { return nil, nil }
	pool := awsclient.NewPool(c)
	w.t.Cleanup(pool.CloseIdle)
	w.logs, w.store = &safeBuffer{}, &memStore{all: map[string]cred.Secret{}}
	log := logrus.New()
	log.SetOutput(w.logs)
	log.SetLevel(logrus.TraceLevel)
	w.ask = &asker{w: w}
	w.deps = Deps{Store: w.store, Sessions: NewSessions(), CacheDir: filepath.Join(w.t.TempDir(), "cache"), Log: logrus.NewEntry(log), Pool: pool}
}

// pipes is a listener in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case l.conns <- b:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipes) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (w *world) link(arn string) profiles.Link {
	return profiles.Link{Kind: profiles.KindLogin, Profile: "dev", Params: map[string]string{"login_session": arn},
		Client: profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"signin": w.url, "": "http://127.0.0.1:1"}}}
}

func (w *world) source(arn string) *Source {
	w.t.Helper()
	s, err := New(w.link(arn), w.deps)
	if err != nil {
		w.t.Fatal(err)
	}
	return s.(*Source)
}

// restart forgets what is in memory only.
func (w *world) restart() { w.deps.Sessions = NewSessions() }

func (w *world) input(how *cred.Signin) cred.Input {
	return cred.Input{Profile: "asked", Ask: w.ask, Signin: how}
}

func (w *world) fetch(s *Source, how *cred.Signin) (cred.Credentials, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	c, err := s.Fetch(ctx, w.input(how))
	w.noSecrets(err, c.SecretAccessKey.Reveal(), c.SessionToken.Reveal())
	return c, err
}

func (w *world) mustFetch(s *Source, how *cred.Signin) cred.Credentials {
	w.t.Helper()
	c, err := w.fetch(s, how)
	if err != nil {
		w.t.Fatal(err)
	}
	if who, ok := w.aws.Session(c.AccessKeyID); !ok || c.AccountID != "111122223333" || !c.Temporary() {
		w.t.Fatalf("%+v of %+v", c, who)
	}
	return c
}

func (w *world) logout() error { return Logout(w.t.Context(), w.link(alice), w.deps) }

// calls is how many requests the token endpoint had.
func (w *world) calls() int { return w.aws.Count("CreateOAuth2Token") }

// noSecrets looks at everything that people may see for what the vault, the
// CLI's cache and the person's hands hold.
func (w *world) noSecrets(err error, more ...string) {
	w.t.Helper()
	seen := w.logs.String()
	for ; err != nil; err = errors.Unwrap(err) {
		seen += err.Error() + cred.HintOf(err)
	}
	secrets := append(more, w.ask.secrets()...)
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				if s, ok := x.(string); ok && regexp.MustCompile(`(?i)(secret|token|key)`).MatchString(k) && !regexp.MustCompile(`(?i)(keyid|key_id|tokentype)`).MatchString(k) {
					secrets = append(secrets, s)
					for _, line := range strings.Split(s, "\n") { // of a key in PEM
						if !strings.HasPrefix(line, "---") {
							secrets = append(secrets, line)
						}
					}
				}
				walk(x)
			}
		}
	}
	for _, v := range w.store.values() {
		var x any
		if json.Unmarshal(v, &x) == nil {
			walk(x)
		}
	}
	files, _ := filepath.Glob(filepath.Join(w.deps.CacheDir, "*.json"))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		var x any
		if json.Unmarshal(b, &x) == nil {
			walk(x)
		}
	}
	for _, s := range secrets {
		if len(s) > 8 && strings.Contains(seen, s) {
			w.t.Errorf("the secret %s is shown in %q", s, seen)
		}
	}
}

// upstreamError is err as one, with the rules that hold for all of them.
func upstreamError(t *testing.T, err error) *cred.UpstreamError {
	t.Helper()
	var e *cred.UpstreamError
	if !errors.As(err, &e) {
		t.Fatalf("%T %v is no UpstreamError", err, err)
	}
	line(t, e.Error())
	if e.Op == "" || errors.Is(err, cred.ErrUnavailable) == e.Refused {
		t.Errorf("%+v", e)
	}
	return e
}

func line(t *testing.T, m string) {
	t.Helper()
	if !strings.HasPrefix(m, "cannot ") || strings.ContainsAny(m, "\r\n") || strings.HasSuffix(m, ".") {
		t.Errorf("message %q is not a line of ours", m)
	}
}

// needsPerson is err as an InteractionError whose message holds parts.
func needsPerson(t *testing.T, err error, parts ...string) *cred.InteractionError {
	t.Helper()
	var e *cred.InteractionError
	if !errors.As(err, &e) {
		t.Fatalf("%T %v is no InteractionError", err, err)
	}
	line(t, e.Error())
	if e.Hint() != "keyfob login asked" {
		t.Errorf("hint %q", e.Hint())
	}
	for _, p := range parts {
		if !strings.Contains(e.Error(), p) {
			t.Errorf("%q is missing in %q", p, e.Error())
		}
	}
	return e
}

// asker is a person. What answers is nil for nobody. As at a Queue, calls
// with one question at a time are one question: when who put it leaves, the
// next one does.
type asker struct {
	w  *world
	mu sync.Mutex // guards what follows
	// busy is, by the page of a question, who puts it.
	busy map[string]chan struct{}
	// answer says what the person does with a question.
	answer func(ctx context.Context, q cred.Question) (string, error)
	asked  []cred.Question
	ended  []error // how the contexts of browsers' questions ended
	keys   []cred.LinkKey
	typed  []string
}

func (a *asker) Ask(ctx context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	a.mu.Lock()
	turn := a.busy[q.URL]
	if turn == nil {
		if a.busy == nil {
			a.busy = map[string]chan struct{}{}
		}
		turn = make(chan struct{}, 1)
		a.busy[q.URL] = turn
		a.asked, a.keys = append(a.asked, q), append(a.keys, key)
	}
	a.mu.Unlock()
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return cred.Secret{}, ctx.Err()
	}
	a.mu.Lock()
	answer := a.answer
	a.mu.Unlock()
	if answer == nil {
		return cred.Secret{}, &cred.InteractionError{Key: key, Kind: q.Kind, Profile: q.Profile, Help: "keyfob login " + q.Profile,
			Message: "cannot get credentials for " + q.Profile + ": a person must act: nobody is there to answer"}
	}
	s, err := answer(ctx, q)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.typed = append(a.typed, s)
	return cred.NewSecret(s), err
}

func (a *asker) kinds() (kinds string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, q := range a.asked {
		kinds += q.Kind + " "
	}
	return strings.TrimSpace(kinds)
}

func (a *asker) secrets() (all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.typed {
		if s == cred.AnswerNoBrowser {
			continue
		}
		all = append(all, s)
		if b, err := base64.StdEncoding.DecodeString(s); err == nil {
			v, _ := url.ParseQuery(string(b))
			all = append(all, v.Get("code"))
		}
	}
	return all
}

// signsIn is a person with a browser: it opens pages, or copies what they
// show.
func (a *asker) signsIn(ctx context.Context, q cred.Question) (string, error) {
	page, err := a.visit(q.URL)
	if err != nil {
		return "", err
	}
	if q.Kind == cred.AskCode {
		return codeOn(page), nil
	}
	<-ctx.Done()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = append(a.ended, ctx.Err())
	return "", ctx.Err()
}

// visit opens a page as a browser does.
func (a *asker) visit(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	if u.Host == "signin.test" { // of newBubble
		for {
			rec := httptest.NewRecorder()
			a.w.aws.Handler().ServeHTTP(rec, httptest.NewRequest("GET", u.String(), nil))
			next := rec.Header().Get("Location")
			if next == "" {
				return rec.Body.String(), nil
			}
			if u, err = u.Parse(next); err != nil {
				return "", err
			}
		}
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}).Get(address)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

var pasteRE = regexp.MustCompile(`[A-Za-z0-9+/]{60,}={0,2}`)

func codeOn(page string) string { return pasteRE.FindString(html.UnescapeString(page)) }

// memStore is a vault in memory.
type memStore struct {
	mu  sync.Mutex // guards what follows
	all map[string]cred.Secret
	err error // of every call
	// putting, if not nil, is called with each Put before it is done.
	putting func(name string) error
}

func (m *memStore) Get(_ context.Context, name string) (cred.Secret, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return cred.Secret{}, m.err
	}
	v, ok := m.all[name]
	if !ok {
		return v, cred.ErrNotFound
	}
	return v, nil
}

func (m *memStore) Put(_ context.Context, name string, v cred.Secret) error {
	m.mu.Lock()
	putting := m.putting
	m.mu.Unlock()
	if putting != nil {
		if err := putting(name); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[name] = v
	return m.err
}

func (m *memStore) Delete(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.all[name]; !ok {
		return cred.ErrNotFound
	}
	delete(m.all, name)
	return nil
}

func (m *memStore) List(context.Context, string) ([]string, error) { return nil, nil }

func (m *memStore) values() (all [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.all {
		all = append(all, v.AppendReveal(nil))
	}
	return all
}

func (m *memStore) has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.all[name]
	return ok
}

type safeBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// cliLogin makes a file as `aws login` does, for alice, with left to go.
func (w *world) cliLogin(key *ecdsa.PrivateKey, left time.Duration) string {
	w.t.Helper()
	if key == nil {
		var err error
		if key, err = newKey(); err != nil {
			w.t.Fatal(err)
		}
	}
	l, err := w.aws.NewLogin(alice, &key.PublicKey)
	if err != nil {
		w.t.Fatal(err)
	}
	pem, err := encodeKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	path := w.deps.cliPath(alice)
	w.writeFile(path, map[string]any{
		"accessToken": map[string]any{"accessKeyId": l.AccessKeyID, "secretAccessKey": l.SecretAccessKey, "sessionToken": l.SessionToken,
			"accountId": "111122223333", "expiresAt": time.Now().Add(left).UTC().Format(cliTime), "strange": []int{1}},
		"tokenType": "aws_sigv4", "clientId": l.ClientID, "refreshToken": l.RefreshToken, "idToken": "x.y.z", "dpopKey": pem,
		"newMember": map[string]any{"n": json.Number("12345678901234567890"), "html": "<&>"},
	})
	return path
}

func (w *world) writeFile(path string, v any) {
	w.t.Helper()
	b, ok := v.([]byte)
	if !ok {
		b, _ = json.Marshal(v)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) readFile(path string) (m map[string]any) {
	w.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		w.t.Fatal(err)
	}
	return m
}
