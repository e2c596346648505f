package sts

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
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

// world is a fake AWS with one user, and what sources need to call it.
type world struct {
	aws  *fakeaws.Server
	url  string
	base cred.Credentials
	deps Deps
	logs *bytes.Buffer
	asks *asker
}

const serial = "arn:aws:iam::111122223333:mfa/alice"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{logs: new(bytes.Buffer), asks: &asker{}}
	w.aws, w.url = fakeawstest.Start(t)
	id, secret := w.aws.AddUser(fakeaws.UserSpec{Name: "alice", MFA: []fakeaws.MFASpec{{Serial: serial}}})
	w.base = cred.Credentials{AccessKeyID: id, SecretAccessKey: cred.NewSecret(secret)}
	log := logrus.New()
	log.SetOutput(w.logs)
	log.SetLevel(logrus.TraceLevel)
	w.deps = Deps{Log: logrus.NewEntry(log), Pool: pool(t), User: "tester"}
	return w
}

// pool never uses a proxy and leaves no connection behind.
func pool(t *testing.T) *awsclient.Pool {
	t.Helper()
	p := awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }})
	t.Cleanup(p.CloseIdle)
	return p
}

func (w *world) client() profiles.Client {
	return profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"sts": w.url, "": "http://127.0.0.1:1"}}
}

// link makes a link of kv pairs.
func (w *world) link(kind profiles.Kind, kv ...string) profiles.Link {
	l := profiles.Link{Kind: kind, Profile: "dev", Params: map[string]string{}, Client: w.client()}
	for i := 0; i < len(kv); i += 2 {
		l.Params[kv[i]] = kv[i+1]
	}
	l.RoleARN = l.Params["role_arn"]
	return l
}

func (w *world) fetch(t *testing.T, l profiles.Link, base cred.Credentials) (cred.Credentials, error) {
	t.Helper()
	s, err := New(l, w.deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := s.Fetch(ctx, cred.Input{Profile: "asked", Base: base, Ask: w.asks})
	w.noSecrets(t, err, base, c)
	return c, err
}

// noSecrets looks at everything that people may see.
func (w *world) noSecrets(t *testing.T, err error, all ...cred.Credentials) {
	t.Helper()
	seen := w.logs.String()
	for ; err != nil; err = errors.Unwrap(err) {
		seen += err.Error() + cred.HintOf(err)
	}
	for _, c := range all {
		for _, s := range []cred.Secret{c.SecretAccessKey, c.SessionToken, w.asks.last} {
			if !s.IsZero() && strings.Contains(seen, s.Reveal()) {
				t.Errorf("a secret is shown in %q", seen)
			}
		}
	}
}

// asker answers with what codes gives.
type asker struct {
	codes func(q cred.Question) (string, error)
	asked []cred.Question
	keys  []cred.LinkKey
	last  cred.Secret
}

func (a *asker) Ask(_ context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	a.asked, a.keys = append(a.asked, q), append(a.keys, key)
	if a.codes == nil {
		return cred.Secret{}, &cred.InteractionError{Key: key, Kind: q.Kind, Profile: q.Profile}
	}
	s, err := a.codes(q)
	a.last = cred.NewSecret(s)
	return a.last, err
}

// upstream answers every request with one body and keeps the forms.
type upstream struct {
	*httptest.Server
	mu    sync.Mutex // guards forms
	forms []url.Values
}

func answering(t *testing.T, status int, ctype, body string) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		u.mu.Lock()
		u.forms = append(u.forms, r.PostForm)
		u.mu.Unlock()
		w.Header().Set("Content-Type", ctype)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(u.Close)
	return u
}

// upstreamError is err as one, with the rules that hold for all of them.
func upstreamError(t *testing.T, err error) *cred.UpstreamError {
	t.Helper()
	var e *cred.UpstreamError
	if !errors.As(err, &e) {
		t.Fatalf("%T %v is no UpstreamError", err, err)
	}
	if m := e.Error(); !strings.HasPrefix(m, "cannot ") || strings.ContainsAny(m, "\r\n") || strings.HasSuffix(m, ".") {
		t.Errorf("message %q is not a line of ours", m)
	}
	if e.Op == "" || errors.Is(err, cred.ErrUnavailable) == e.Refused {
		t.Errorf("%+v", e)
	}
	return e
}

func refusedWith(t *testing.T, err error, code string, parts ...string) *cred.UpstreamError {
	t.Helper()
	e := upstreamError(t, err)
	if e.Code != code {
		t.Errorf("code %q, want %q", e.Code, code)
	}
	for _, p := range parts {
		if !strings.Contains(e.Message+"\n"+e.Help, p) {
			t.Errorf("%q is missing in %q, hint %q", p, e.Message, e.Help)
		}
	}
	return e
}
