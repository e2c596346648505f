package saml

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/internal/source/command"
	"keyfob/profiles"
)

// TestMain: no test may leave a goroutine, and so a connection, behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	reader = "arn:aws:iam::444455556666:role/Reader"
	admin  = "arn:aws:iam::444455556666:role/path/Admin"
	remote = "arn:aws:iam::777788889999:role/Reader"
	idp    = "arn:aws:iam::444455556666:saml-provider/idp"
)

// world is a fake AWS with an identity provider, and what a source needs.
type world struct {
	t    *testing.T
	aws  *fakeaws.Server
	url  string
	deps Deps
	logs *bytes.Buffer
	asks *asker
	// given is what the person gave ahead.
	given string
	// secrets must be nowhere.
	secrets []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, logs: new(bytes.Buffer), asks: &asker{answers: map[string]string{}}}
	w.aws, w.url = fakeawstest.Start(t)
	for _, role := range []string{reader, admin, remote} {
		w.aws.AddRole(fakeaws.RoleSpec{ARN: role, MaxSessionDuration: 7200, Trust: []fakeaws.Trust{{Federated: []string{"*"}}}})
	}
	log := logrus.New()
	log.SetOutput(w.logs)
	log.SetLevel(logrus.TraceLevel)
	entry := logrus.NewEntry(log)
	pool := awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }})
	t.Cleanup(pool.CloseIdle)
	w.deps = Deps{Pool: pool, Log: entry, Commands: command.New(command.Config{Environ: []string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir()}, Log: entry, Timeout: 5 * time.Second})}
	return w
}

// posts has the identity provider post such a response.
func (w *world) posts(spec fakeaws.SAMLSpec, change func(*fakeaws.Assertion)) string {
	w.t.Helper()
	if spec.Roles == nil {
		spec.Roles = []string{reader}
	}
	w.aws.AddSAML(spec)
	text, err := w.aws.SAMLResponse("idp", change)
	if err != nil {
		w.t.Fatal(err)
	}
	w.answers(text)
	return text
}

func (w *world) answers(text string) {
	w.asks.answers[cred.AskSAML] = text
	if len(text) > 200 {
		// Its beginning is the same for all responses; this is the signature.
		w.secrets = append(w.secrets, text[len(text)/2:len(text)/2+100], text)
	}
}

// link makes a link of kv pairs; a saml_url unless they have a source.
func (w *world) link(kv ...string) profiles.Link {
	l := profiles.Link{Kind: profiles.KindSAML, Profile: "dev", Params: map[string]string{},
		Client: profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"sts": w.url}}}
	for i := 0; i < len(kv); i += 2 {
		if kv[i+1] != "" {
			l.Params[kv[i]] = kv[i+1]
		}
	}
	if l.Params["saml_process"] == "" {
		l.Params["saml_url"] = "https://idp.example.com/app/aws"
	}
	l.RoleARN = l.Params["role_arn"]
	return l
}

func (w *world) fetch(l profiles.Link) (cred.Credentials, error) {
	w.t.Helper()
	s, err := New(l, w.deps)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	in := cred.Input{Key: cred.LinkKey{1}, Profile: "asked", Ask: w.asks}
	if w.given != "" {
		in.Signin = &cred.Signin{Assertion: cred.NewSecret(w.given)}
	}
	c, err := s.Fetch(ctx, in)
	w.noSecrets(err, c)
	return c, err
}

// noSecrets looks at everything that people may see.
func (w *world) noSecrets(err error, c cred.Credentials) {
	w.t.Helper()
	seen := w.logs.String()
	for ; err != nil; err = errors.Unwrap(err) {
		seen += err.Error() + cred.HintOf(err)
	}
	for _, s := range append(w.secrets, c.SecretAccessKey.Reveal(), c.SessionToken.Reveal(), "canary") {
		if s != "" && strings.Contains(seen, s) {
			w.t.Errorf("a secret is shown in %q", seen)
		}
	}
}

// refused checks an error of Fetch: one line, and with these parts.
func refused(t *testing.T, err error, again bool, parts ...string) *cred.UpstreamError {
	t.Helper()
	var e *cred.UpstreamError
	if !errors.As(err, &e) {
		t.Fatalf("%T %v is no UpstreamError", err, err)
	}
	if m := e.Error(); !strings.HasPrefix(m, "cannot ") || strings.ContainsAny(m, "\r\n") || strings.HasSuffix(m, ".") || e.Op == "" {
		t.Errorf("%+v is not a line of ours", e)
	}
	if e.Refused == again {
		t.Errorf("refused: %v, want %v: %s", e.Refused, !again, e.Message)
	}
	for _, p := range parts {
		if !strings.Contains(e.Message+"\n"+e.Help, p) {
			t.Errorf("%q is missing in %q, hint %q", p, e.Message, e.Help)
		}
	}
	return e
}

// asker answers by the kind of question.
type asker struct {
	answers map[string]string
	asked   []cred.Question
}

func (a *asker) Ask(_ context.Context, key cred.LinkKey, q cred.Question) (cred.Secret, error) {
	a.asked = append(a.asked, q)
	answer, ok := a.answers[q.Kind]
	if !ok {
		return cred.Secret{}, &cred.InteractionError{Key: key, Kind: q.Kind, Profile: q.Profile}
	}
	return cred.NewSecret(answer), nil
}
