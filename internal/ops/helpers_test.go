package ops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/internal/source/sts"
	"keyfob/profiles"
)

const (
	account = "111122223333"
	region  = "eu-west-1"
)

// world is a fake AWS with one user, and what the operations need to call it.
type world struct {
	t       *testing.T
	aws     *fakeaws.Server
	url     string
	keys    cred.Credentials // alice's
	deps    Deps
	logs    *bytes.Buffer
	secrets []string
}

func newWorld(t *testing.T, user fakeaws.UserSpec) *world {
	t.Helper()
	w := &world{t: t, logs: new(bytes.Buffer)}
	w.aws, w.url = fakeawstest.Start(t)
	w.addUser(user)
	log := logrus.New()
	log.SetOutput(w.logs)
	log.SetLevel(logrus.TraceLevel)
	w.deps = Deps{Pool: pool(t), Log: logrus.NewEntry(log), Federation: w.url + "/federation"}
	return w
}

func (w *world) addUser(user fakeaws.UserSpec) {
	id, secret := w.aws.AddUser(user)
	w.keys = cred.Credentials{AccessKeyID: id, SecretAccessKey: cred.NewSecret(secret)}
	w.secrets = append(w.secrets, secret)
}

// pool never uses a proxy and leaves no connection behind.
func pool(t *testing.T) *awsclient.Pool {
	t.Helper()
	p := awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return nil, nil }})
	t.Cleanup(p.CloseIdle)
	return p
}

func (w *world) client() profiles.Client {
	return profiles.Client{Region: region, EndpointURL: map[string]string{"": w.url}}
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

// vaultKeys is the link of alice's pair.
func (w *world) vaultKeys() profiles.Link {
	return w.link(profiles.KindStaticKeys, "layer", string(profiles.FromKeystore), "profile", "dev")
}

// handedOut are the credentials of a chain above alice's keys.
func (w *world) handedOut(chain ...profiles.Link) cred.Credentials {
	w.t.Helper()
	c := w.keys
	for _, l := range chain[1:] {
		s, err := sts.New(l, sts.Deps{Pool: w.deps.Pool, User: "tester", AllowRoot: func(string) bool { return true }})
		if err != nil {
			w.t.Fatal(err)
		}
		if c, err = s.Fetch(w.t.Context(), cred.Input{Profile: "dev", Base: c, Ask: w}); err != nil {
			w.t.Fatal(err)
		}
		w.keep(c)
	}
	return c
}

func (w *world) keep(c cred.Credentials) {
	w.secrets = append(w.secrets, c.SecretAccessKey.Reveal(), c.SessionToken.Reveal())
}

// Ask is alice's phone.
func (w *world) Ask(_ context.Context, _ cred.LinkKey, q cred.Question) (cred.Secret, error) {
	return cred.NewSecret(w.aws.MFACode(q.Serial)), nil
}

func (w *world) readKeys(context.Context) (cred.Credentials, error) { return w.keys, nil }

func (w *world) request(chain ...profiles.Link) ConsoleRequest {
	return ConsoleRequest{Profile: "dev", Chain: chain, Region: region, Credentials: w.handedOut(chain...), Keys: w.readKeys, Person: "alice"}
}

// console calls Console and looks for secrets in whatever people may see.
func (w *world) console(r ConsoleRequest) (ConsoleLink, error) {
	w.t.Helper()
	link, err := w.deps.Console(w.t.Context(), r)
	w.noSecrets(err, link.Warning, link.SwitchRole, fmt.Sprintf("%v %+v %#v", link, link, link))
	return link, err
}

func (w *world) noSecrets(err error, more ...string) {
	w.t.Helper()
	seen := w.logs.String() + strings.Join(more, "\n")
	for ; err != nil; err = errors.Unwrap(err) {
		seen += fmt.Sprintf("%s\n%+v\n%s\n", err.Error(), err, cred.HintOf(err))
	}
	for _, s := range w.secrets {
		if s != "" && (strings.Contains(seen, s) || strings.Contains(seen, url.QueryEscape(s))) {
			w.t.Errorf("a secret is shown in %q", seen)
		}
	}
	if strings.Contains(seen, "SigninToken=") {
		w.t.Errorf("the sign-in token is shown in %q", seen)
	}
}

// console page of the fake, as a browser gets it.
type consolePage struct {
	arn, destination string
	until            time.Time
}

var pageField = regexp.MustCompile(`id="(arn|until|destination)"(?: href="([^"]*)")?>([^<]*)<`)

func (w *world) open(link ConsoleLink) consolePage {
	w.t.Helper()
	status, body := get(w.t, link.URL.Reveal())
	if status != http.StatusOK {
		w.t.Fatalf("the console answers %d %s", status, body)
	}
	var p consolePage
	for _, m := range pageField.FindAllStringSubmatch(body, -1) {
		switch m[1] {
		case "arn":
			p.arn = html.UnescapeString(m[3])
		case "until":
			p.until, _ = time.Parse(time.RFC3339, m[3])
		case "destination":
			p.destination = html.UnescapeString(m[2])
		}
	}
	return p
}

func get(t *testing.T, address string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// about says that two times are the same but for the time that a test takes.
func about(a, b time.Time) bool { return a.Sub(b).Abs() < 2*time.Minute }

// line is err with the rules that hold for all.
func line(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", parts)
	}
	m := err.Error()
	if !strings.HasPrefix(m, "cannot ") || strings.ContainsAny(m, "\r\n") || strings.HasSuffix(m, ".") {
		t.Errorf("message %q is not a line of ours", m)
	}
	for _, p := range parts {
		if !strings.Contains(m+"\n"+cred.HintOf(err), p) {
			t.Errorf("%q is missing in %q, hint %q", p, m, cred.HintOf(err))
		}
	}
}
