package metadata

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/profiles"
)

const taskRole = "arn:aws:iam::444455556666:role/task"

func TestContainerGivesItsRole(t *testing.T) {
	t.Parallel()
	aws, url := fakeawstest.Start(t)
	aws.AddRole(fakeaws.RoleSpec{ARN: taskRole})
	path := aws.AddContainer(fakeaws.ContainerSpec{Role: taskRole, Token: canary})
	file := filepath.Join(t.TempDir(), "token")
	s, err := New(linkOf(profiles.KindContainer, "full_uri", url+path, "authorization_token_file", file), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = fetchFrom(t, s)
	fails(t, err, false, file, "no such file")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	_, err = fetchFrom(t, s)
	if u := fails(t, err, false, "HTTP 401 Unauthorized: AccessDenied: the authorization token is not right", "AUTHORIZATION_TOKEN_FILE"); u.Code != "AccessDenied" || u.Status != 401 {
		t.Errorf("%+v", u)
	}
	for _, text := range []string{canary, canary + "\n", canary + "\r\n"} { // read anew each time
		write(text)
		c, err := fetchFrom(t, s)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Temporary() || c.RoleARN != taskRole || c.AccountID != "444455556666" || time.Until(c.Expires) < 5*time.Hour {
			t.Errorf("%+v", c)
		}
	}
	for text, want := range map[string]string{"": "it is empty", "\n": "it is empty", canary + "\n" + canary: "more than one line", "a\x00b": "no header has",
		strings.Repeat("x", maxTokenFile+1): "longer than"} {
		write(text)
		_, err := fetchFrom(t, s)
		fails(t, err, false, want)
	}
	aws.AddContainer(fakeaws.ContainerSpec{Role: "arn:aws:iam::444455556666:role/gone", Token: canary})
	write(canary)
	_, err = fetchFrom(t, s)
	fails(t, err, true, "HTTP 403")
	aws.AddContainer(fakeaws.ContainerSpec{Role: taskRole, Token: canary})
	aws.SetFaults(fakeaws.Fault{Kind: fakeaws.PastExpiry, Action: "ContainerCredentials"})
	_, err = fetchFrom(t, s)
	fails(t, err, false, "ended at")
	aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Action: "ContainerCredentials"})
	_, err = fetchFrom(t, s)
	fails(t, err, false, "HTTP 429")
}

// The path is the service's own business: it arrives as it was written.
func TestContainerPathIsKept(t *testing.T) {
	t.Parallel()
	end := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	body := `{"AccessKeyId":"ASIAX","SecretAccessKey":"` + canary + `","Token":"t","AccountId":"111122223333","Expiration":"` + end + `"}`
	const path = "/v2//creds/%2Fa%20b/../x?id=1&b=%3D"
	o := newOdd(t, map[string]oddAnswer{"GET " + path: {body: body}, "GET /": {body: body}})
	c, err := fetch(t, linkOf(profiles.KindContainer, "full_uri", o.URL+path), Deps{})
	if err != nil || c.AccountID != "111122223333" || c.RoleARN != "" {
		t.Errorf("%+v %v", c, err)
	}
	if _, err := fetch(t, linkOf(profiles.KindContainer, "full_uri", o.URL), Deps{}); err != nil {
		t.Error(err)
	}
	if o.seen()[0] != "GET "+path+" " {
		t.Errorf("%q", o.seen())
	}
	// A relative URI beats a full one, and goes to ECS's address.
	s, err := New(linkOf(profiles.KindContainer, "full_uri", "http://127.0.0.1:1/", "relative_uri", path), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	s.(*container).c.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr != "169.254.170.2:80" {
			t.Errorf("dials %s", addr)
		}
		return (&net.Dialer{}).DialContext(ctx, network, o.Listener.Addr().String())
	}
	if _, err := fetchFrom(t, s); err != nil {
		t.Error(err)
	}
}

func TestContainerHosts(t *testing.T) {
	t.Parallel()
	for _, uri := range []string{"http://127.0.0.1/x", "http://127.9.9.9:80/x", "http://localhost/x", "http://169.254.170.2/x", "http://169.254.170.23/v1/credentials",
		"http://[fd00:ec2::23]/v1/credentials", "http://[::1]:81/x", "http://[::ffff:127.0.0.1]/x", "https://creds.example/x", "https://8.8.8.8/x"} {
		if _, err := New(linkOf(profiles.KindContainer, "full_uri", uri), Deps{}); err != nil {
			t.Errorf("%s: %v", uri, err)
		}
	}
	for _, uri := range []string{"http://8.8.8.8/x", "http://10.0.0.1/x", "http://169.254.169.254/x", "http://[fd00:ec2::24]/x", "ftp://127.0.0.1/x", "127.0.0.1/x", "http:///x", "http://u:p@127.0.0.1/"} {
		_, err := New(linkOf(profiles.KindContainer, "full_uri", uri), Deps{})
		configError(t, err, envFull)
	}
	_, err := New(linkOf(profiles.KindContainer), Deps{})
	configError(t, err, envRelative, envFull)
	_, err = New(linkOf(profiles.KindContainer, "relative_uri", "x@127.0.0.1/"), Deps{})
	configError(t, err, "does not begin with /")
	// A name counts by where it leads: not to another machine.
	s, err := New(linkOf(profiles.KindContainer, "full_uri", "http://localhost:1/x"), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	s.(*container).c.base.Host = "192.0.2.1:1" // as if the name led there
	_, err = fetchFrom(t, s)
	configError(t, err, "not allowed")
}

func TestContainerIsGivenUpAndFollowsNothing(t *testing.T) {
	t.Parallel()
	o := newOdd(t, map[string]oddAnswer{
		"GET /slow": {wait: true},
		"GET /away": {status: http.StatusFound, header: map[string]string{"Location": "/creds"}},
		"GET /text": {body: "<html>"},
		"GET /leak": {status: 400, body: `{"code":"Bad","message":"token ` + canary + ` is bad"}`},
		"GET /long": {body: strings.Repeat("x", maxAnswer+1)},
	})
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, c := range map[string]struct {
		refused bool
		want    string
	}{"/away": {false, "HTTP 302"}, "/text": {false, "not the JSON expected"}, "/leak": {true, "Bad: token [redacted] is bad"}, "/long": {false, "longer than"}} {
		_, err := fetch(t, linkOf(profiles.KindContainer, "full_uri", o.URL+path, "authorization_token_file", file), Deps{})
		fails(t, err, c.refused, c.want)
	}
	s, err := New(linkOf(profiles.KindContainer, "full_uri", o.URL+"/slow"), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	s.(*container).c.limit = 200 * time.Millisecond
	_, err = fetchFrom(t, s)
	fails(t, err, false, "did not answer within 200ms")
	for _, r := range o.seen() {
		if strings.HasPrefix(r, "GET /creds") {
			t.Error("the redirect was followed")
		}
	}
}
