package saml

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/profiles"
)

func near(t *testing.T, at time.Time, d time.Duration) {
	t.Helper()
	if left := time.Until(at); left < d-10*time.Second || left > d+10*time.Second {
		t.Errorf("%v left, want %v", left, d)
	}
}

func TestAssertionFromThePersonsBrowser(t *testing.T) {
	w := newWorld(t)
	w.posts(fakeaws.SAMLSpec{}, nil)
	c, err := w.fetch(w.link("role_arn", reader))
	if err != nil {
		t.Fatal(err)
	}
	if !c.Temporary() || c.RoleARN != reader || c.AccountID != "444455556666" || c.Expires.Location() != time.UTC {
		t.Errorf("%+v", c)
	}
	near(t, c.Expires, time.Hour)
	want := cred.Question{Kind: cred.AskSAML, Profile: "asked", Text: "sign in for profile asked", URL: "https://idp.example.com/app/aws", SAMLEndpoint: "https://signin.aws.amazon.com/saml"}
	if len(w.asks.asked) != 1 || !reflect.DeepEqual(w.asks.asked[0], want) {
		t.Errorf("asked %+v", w.asks.asked)
	}
	calls := w.aws.Calls()
	if len(calls) != 1 {
		t.Fatalf("%d calls", len(calls))
	}
	p := calls[0].Params
	wanted := map[string]string{"Action": "AssumeRoleWithSAML", "Version": "2011-06-15", "RoleArn": reader, "PrincipalArn": idp, "DurationSeconds": "3600"}
	for k, v := range p {
		if k != "SAMLAssertion" && wanted[k] != v {
			t.Errorf("sent %s=%s", k, v)
		}
	}
	if len(p) != len(wanted)+1 || calls[0].AccessKey != "" {
		t.Errorf("sent %v signed by %q", p, calls[0].AccessKey)
	}
}

func TestSessionPolicyGoesAlong(t *testing.T) {
	w := newWorld(t)
	w.posts(fakeaws.SAMLSpec{}, nil)
	file := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(file, []byte("{\"Version\": \"2012-10-17\",\n\"Statement\": []}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.fetch(w.link("role_arn", reader, "session_policy", file, "session_policy_arns", "arn:aws:iam::aws:policy/ReadOnlyAccess")); err != nil {
		t.Fatal(err)
	}
	p := w.aws.Calls()[0].Params
	if p["Policy"] != `{"Version":"2012-10-17","Statement":[]}` || p["PolicyArns.member.1.arn"] != "arn:aws:iam::aws:policy/ReadOnlyAccess" {
		t.Errorf("sent %v", p)
	}
	// What is wrong with it is said before a person signs in.
	if err := os.WriteFile(file, []byte("oops"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.asks.asked = nil
	if _, err := w.fetch(w.link("role_arn", reader, "session_policy", file)); !errors.Is(err, cred.ErrConfig) || len(w.asks.asked) != 0 {
		t.Errorf("%v, asked %v", err, w.asks.asked)
	}
}

func TestRoleIsChosenAmongTheAssertions(t *testing.T) {
	w := newWorld(t)
	w.posts(fakeaws.SAMLSpec{Reversed: true, Roles: []string{admin, reader, remote}}, nil)
	fetch := func(kv ...string) (cred.Credentials, error) {
		w.asks.asked = nil
		return w.fetch(w.link(kv...))
	}
	kinds := func() (all []string) {
		for _, q := range w.asks.asked {
			all = append(all, q.Kind)
		}
		return all
	}
	// By role, by provider.
	if c, err := fetch("role_arn", admin); err != nil || c.RoleARN != admin || len(kinds()) != 1 {
		t.Errorf("%+v %v, asked %v", c, err, kinds())
	}
	if c, err := fetch("principal_arn", "arn:aws:iam::777788889999:saml-provider/idp"); err != nil || c.RoleARN != remote || len(kinds()) != 1 {
		t.Errorf("%+v %v, asked %v", c, err, kinds())
	}
	// By a person.
	w.asks.answers[cred.AskChoice] = reader
	c, err := fetch()
	if err != nil || c.RoleARN != reader || !reflect.DeepEqual(kinds(), []string{cred.AskSAML, cred.AskChoice}) {
		t.Fatalf("%+v %v, asked %v", c, err, kinds())
	}
	if q := w.asks.asked[1]; !reflect.DeepEqual(q.Choices, []string{admin, reader, remote}) || q.Profile != "asked" || q.Text == "" {
		t.Errorf("%+v", q)
	}
	// By nobody.
	delete(w.asks.answers, cred.AskChoice)
	var nobody *cred.InteractionError
	if _, err := fetch(); !errors.As(err, &nobody) {
		t.Errorf("%v", err)
	}
	w.asks.answers[cred.AskChoice] = "something else"
	if _, err := fetch(); !errors.As(err, &nobody) || !strings.Contains(err.Error(), "none of the roles") {
		t.Errorf("%v", err)
	}
	// Among none.
	_, err = fetch("role_arn", reader+"x")
	refused(t, err, false, "does not offer role "+reader+"x", "it offers "+admin+" with "+idp+", "+reader)
	_, err = fetch("principal_arn", idp+"x")
	refused(t, err, false, "does not offer a role of "+idp+"x")
	_, err = fetch("role_arn", reader, "principal_arn", idp+"x")
	refused(t, err, false, "does not offer role "+reader+" with "+idp+"x")
}

// One role by two providers: the person sees which.
func TestOneRoleOfTwoProviders(t *testing.T) {
	w := newWorld(t)
	w.posts(fakeaws.SAMLSpec{}, func(a *fakeaws.Assertion) {
		a.Attributes[attributes+"Role"] = []string{reader + "," + idp, idp + "2," + reader, "nonsense", reader + ",x", " " + reader + " , " + idp + "\n"}
	})
	w.asks.answers[cred.AskChoice] = reader + " with " + idp
	if _, err := w.fetch(w.link("role_arn", reader)); err != nil {
		t.Fatal(err)
	}
	if q := w.asks.asked[1]; !reflect.DeepEqual(q.Choices, []string{reader + " with " + idp, reader + " with " + idp + "2"}) {
		t.Errorf("%q", q.Choices)
	}
}

func TestAssertionGivenAhead(t *testing.T) {
	w := newWorld(t)
	text := w.posts(fakeaws.SAMLSpec{}, nil)
	delete(w.asks.answers, cred.AskSAML)
	var lines []string
	for b := text; b != ""; b = b[min(76, len(b)):] {
		lines = append(lines, b[:min(76, len(b))])
	}
	w.given = strings.Join(lines, "\r\n") + "\n"
	if c, err := w.fetch(w.link("role_arn", reader)); err != nil || c.RoleARN != reader || len(w.asks.asked) != 0 {
		t.Errorf("%+v %v, asked %v", c, err, w.asks.asked)
	}
	// It goes before a process.
	if _, err := w.fetch(w.link("role_arn", reader, "saml_process", "exit 1")); err != nil {
		t.Error(err)
	}
}

func TestSAMLProcess(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("skipped: the lines are for sh")
	}
	w := newWorld(t)
	text := w.posts(fakeaws.SAMLSpec{}, nil)
	delete(w.asks.answers, cred.AskSAML)
	file := filepath.Join(t.TempDir(), "assertion")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(text + "\n")
	l := w.link("role_arn", reader, "saml_process", "cat '"+file+"' >&2; cat '"+file+"'")
	s, err := New(l, w.deps)
	if err != nil || s.Interactive() {
		t.Errorf("interactive: %v", err)
	}
	if c, err := w.fetch(l); err != nil || c.RoleARN != reader {
		t.Errorf("%+v %v", c, err)
	}
	// As XML.
	doc, _ := base64.StdEncoding.DecodeString(text)
	write(string(doc))
	if _, err := w.fetch(l); err != nil {
		t.Error(err)
	}
	write("please: sign in\n")
	_, err = w.fetch(l)
	refused(t, err, true, "cannot use the assertion of profile dev: it is not base64", "saml_process must print")
	write("")
	_, err = w.fetch(l)
	refused(t, err, true, "it is empty")
	_, err = w.fetch(w.link("role_arn", reader, "saml_process", "echo canary; exit 3"))
	refused(t, err, true, "cannot get an assertion: saml_process of profile dev ended with exit code 3")
	if len(w.asks.asked) != 0 {
		t.Errorf("asked %v", w.asks.asked)
	}
	// An old one of a process: the next one may be better.
	write(w.posts(fakeaws.SAMLSpec{}, func(a *fakeaws.Assertion) { a.NotOnOrAfter = time.Now().Add(-time.Hour) }))
	_, err = w.fetch(l)
	refused(t, err, true, "AWS says that the assertion has expired")
}

func TestDuration(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		spec  fakeaws.SAMLSpec
		set   string
		sent  string
		lasts time.Duration
	}{
		{fakeaws.SAMLSpec{}, "", "3600", time.Hour},
		{fakeaws.SAMLSpec{SessionDuration: 7200}, "", "7200", 2 * time.Hour},
		{fakeaws.SAMLSpec{SessionDuration: 7200}, "1800", "1800", 30 * time.Minute},
		{fakeaws.SAMLSpec{SessionDuration: 60}, "", "900", 15 * time.Minute},
		{fakeaws.SAMLSpec{SessionDuration: 7200, SessionSeconds: 600}, "", "900", 10 * time.Minute},
	} {
		w.posts(c.spec, nil)
		got, err := w.fetch(w.link("role_arn", reader, "duration_seconds", c.set))
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		calls := w.aws.Calls()
		if sent := calls[len(calls)-1].Params["DurationSeconds"]; sent != c.sent {
			t.Errorf("%+v: asked for %s s", c, sent)
		}
		near(t, got.Expires, c.lasts)
	}
	// A little less than what is left at the provider.
	w.posts(fakeaws.SAMLSpec{SessionSeconds: 1800}, nil)
	got, err := w.fetch(w.link("role_arn", reader))
	if err != nil {
		t.Fatal(err)
	}
	near(t, got.Expires, 30*time.Minute)
	calls := w.aws.Calls()
	if sent := calls[len(calls)-1].Params["DurationSeconds"]; sent != "1800" && sent != "1799" {
		t.Errorf("asked for %s s", sent)
	}
}

func TestInteractive(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		l    profiles.Link
		want bool
	}{
		{w.link("role_arn", reader), true}, {w.link(), true},
		{w.link("role_arn", reader, "saml_process", "x"), false}, {w.link("saml_process", "x"), true},
	} {
		s, err := New(c.l, w.deps)
		if err != nil || s.Interactive() != c.want {
			t.Errorf("%v: %v", c.l.Params, err)
		}
	}
	s, _ := New(w.link("role_arn", reader), w.deps)
	u := s.(interface{ Upstream() string }).Upstream()
	if u != w.url {
		t.Errorf("upstream %q", u)
	}
}

func TestUnusableSettings(t *testing.T) {
	w := newWorld(t)
	with := func(change func(*profiles.Link), kv ...string) profiles.Link {
		l := w.link(kv...)
		if change != nil {
			change(&l)
		}
		return l
	}
	for want, l := range map[string]profiles.Link{
		`role_arn = "x" is not`:                                 with(nil, "role_arn", "x"),
		`is not the ARN of a role`:                              with(nil, "role_arn", idp),
		`is not the ARN of a SAML provider`:                     with(nil, "role_arn", reader, "principal_arn", reader),
		`are in two accounts`:                                   with(nil, "role_arn", remote, "principal_arn", idp),
		`"soon" is no number`:                                   with(nil, "role_arn", reader, "duration_seconds", "soon"),
		`not the ARN of a managed policy`:                       with(nil, "role_arn", reader, "session_policy_arns", "x"),
		`saml_url is not a web address`:                         with(func(l *profiles.Link) { l.Params["saml_url"] = "javascript:1" }, "role_arn", reader),
		`is none of package saml`:                               with(func(l *profiles.Link) { l.Kind = profiles.KindSSO }, "role_arn", reader),
		`is in partition aws, and region cn-north-1 in aws-`:    with(func(l *profiles.Link) { l.Client = profiles.Client{Region: "cn-north-1"} }, "role_arn", reader),
		`where identity providers post to in partition aws-iso`: with(func(l *profiles.Link) { l.Client = profiles.Client{Region: "us-iso-east-1"} }),
	} {
		_, err := New(l, w.deps)
		if !errors.Is(err, cred.ErrConfig) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "cannot use profile dev: ") {
			t.Errorf("%s: %v", want, err)
		}
	}
	d := w.deps
	d.Commands = nil
	if _, err := New(w.link("role_arn", reader, "saml_process", "x"), d); !errors.Is(err, cred.ErrConfig) {
		t.Errorf("%v", err)
	}
}

// The address that the browser watches, by partition and by endpoint URL.
func TestSAMLEndpoint(t *testing.T) {
	w := newWorld(t)
	for want, l := range map[string]profiles.Link{
		"https://signin.amazonaws.cn/saml":         {Client: profiles.Client{Region: "cn-north-1"}},
		"https://signin.amazonaws-us-gov.com/saml": {Client: profiles.Client{Region: "us-gov-west-1"}, RoleARN: "arn:aws-us-gov:iam::444455556666:role/x"},
		"http://127.0.0.1:7/saml":                  {Client: profiles.Client{Region: "us-east-1", EndpointURL: map[string]string{"signin": "http://127.0.0.1:7/", "": "http://127.0.0.1:8"}}},
		"http://127.0.0.1:8/saml":                  {Client: profiles.Client{Region: "us-iso-east-1", EndpointURL: map[string]string{"": "http://127.0.0.1:8"}}},
		"https://signin.aws.amazon.com/saml":       {Client: profiles.Client{Region: "eu-west-1"}},
	} {
		l.Kind, l.Params = profiles.KindSAML, map[string]string{"saml_url": "https://idp.example.com/"}
		s, err := New(l, w.deps)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Fetch(t.Context(), cred.Input{Ask: w.asks})
		var nobody *cred.InteractionError
		if got := w.asks.asked[len(w.asks.asked)-1].SAMLEndpoint; got != want || !errors.As(err, &nobody) {
			t.Errorf("%s, want %s: %v", got, want, err)
		}
	}
}
