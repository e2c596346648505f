//go:build !windows

package e2e

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const containerToml = "[[endpoint]]\nkind = \"container\"\nlisten = \"127.0.0.1:0\"\n"

// TestGrants: their files, their life and their end, as a client sees it
// that keeps its connection.
func TestGrants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if r := w.run(nil, "grant", "add", "deploy"); r.code == 0 {
		t.Errorf("without an endpoint: exit %d, %q", r.code, r.out)
	}
	w.addKeys("base")
	if r := w.run(nil, "grant", "add", "deploy"); r.code != 1 || !strings.Contains(r.err, "hint: ") || !strings.Contains(r.err, "--container") {
		t.Errorf("without an endpoint: exit %d, %q", r.code, r.err)
	}
	w.write("config/keyfob/config.toml", containerToml)
	w.must(nil, "reload")

	chosen := w.path("chosen-token")
	g := w.grant("deploy,entry", "--note", "for the test", "--expires", "1h", "--token-file", chosen)
	if g.TokenFile != chosen || len(g.Profiles) != 2 || !strings.HasSuffix(g.URL, "/v1/credentials/deploy") {
		t.Errorf("%+v", g)
	}
	if end, err := time.Parse(time.RFC3339, g.Expires); err != nil || time.Until(end) > time.Hour || time.Until(end) < 59*time.Minute {
		t.Errorf("it ends at %q", g.Expires)
	}
	own := w.grant("deploy")
	for _, file := range []string{chosen, own.TokenFile} {
		st, err := os.Stat(file)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, st.Mode(), err)
		}
		b, err := os.ReadFile(file)
		if err != nil || len(b) < 32 || strings.ContainsAny(string(b), " \r\n\t") {
			t.Errorf("%s holds %d bytes, %v", file, len(b), err)
		}
	}
	if out := w.must(nil, "grant", "add", "deploy").out; !strings.HasPrefix(out, "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:") || !strings.Contains(out, "\nAWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/") || strings.Count(out, "\n") != 2 {
		t.Errorf("two lines: %q", out)
	}
	list := w.must(nil, "grant", "list").out
	if !strings.Contains(list, "for the test") || !strings.Contains(list, g.ID) {
		t.Errorf("%q", list)
	}
	for _, secret := range []string{string(mustRead(t, chosen)), string(mustRead(t, own.TokenFile))} {
		for _, out := range []string{list, w.must(nil, "grant", "list", "--json").out, w.must(nil, "status", "--json").out, w.read("data/keyfobd.log")} {
			if strings.Contains(out, secret) {
				t.Error("a token is shown")
			}
		}
	}

	// A client that runs.
	c := &containerCaller{url: g.URL, tokenFile: chosen, client: httpClient(true)}
	other := &containerCaller{url: strings.Replace(g.URL, "deploy", "entry", 1), tokenFile: chosen, client: httpClient(true)}
	outside := &containerCaller{url: strings.Replace(g.URL, "deploy", "base", 1), tokenFile: chosen, client: httpClient(true)}
	unknown := &containerCaller{url: strings.Replace(g.URL, "deploy", "nothing", 1), tokenFile: chosen, client: httpClient(true)}
	for range 3 {
		if s := w.session(c.ask()); !strings.Contains(s.ARN, asDeploy) {
			t.Errorf("%+v", s)
		}
	}
	if s := w.session(other.ask()); !strings.Contains(s.ARN, "assumed-role/entry/") {
		t.Errorf("%+v", s)
	}
	a, b := outside.ask(), unknown.ask()
	if a.Status != 403 || b.Status != 403 || a.Err != b.Err {
		t.Errorf("outside of the grant: %d %s; unknown: %d %s", a.Status, a.Err, b.Status, b.Err)
	}
	kept, err := os.ReadFile(chosen)
	if err != nil {
		t.Fatal(err)
	}
	w.must(nil, "grant", "remove", g.ID)
	status, body, err := fetch(c.client, "GET", g.URL, "Authorization", string(kept))
	if err != nil || status != 401 || !strings.Contains(string(body), `"code"`) || !strings.Contains(string(body), `"message"`) {
		t.Errorf("after it was revoked: %d %q %v", status, body, err)
	}
	if _, err := os.Stat(chosen); err == nil {
		t.Error("the token's file stays")
	}
	if r := w.run(nil, "grant", "remove", g.ID); r.code != 1 {
		t.Errorf("removed twice: exit %d, %q", r.code, r.err)
	}
	still := &containerCaller{url: own.URL, tokenFile: own.TokenFile, client: httpClient(true)}
	w.session(still.ask())

	// One that expires under its client.
	short := w.grant("deploy", "--expires", "3s")
	made := time.Now()
	d := &containerCaller{url: short.URL, tokenFile: short.TokenFile, client: httpClient(true)}
	token := string(mustRead(t, short.TokenFile))
	w.session(d.ask())
	eventually(t, "it expires", func() bool {
		status, _, err := fetch(d.client, "GET", short.URL, "Authorization", token)
		return err == nil && status == 401
	})
	if after := time.Since(made); after < 2*time.Second || after > 6*time.Second {
		t.Errorf("a grant of 3 s ended after %v", after)
	}

	// By its path.
	rel := w.grant("deploy", "--relative")
	base := rel.URL[:strings.Index(rel.URL, "/v1/")]
	if !strings.HasPrefix(rel.RelativeURI, "/v2/credentials/") {
		t.Fatalf("%+v", rel)
	}
	if out := w.must(nil, "grant", "add", "deploy", "--relative").out; !strings.HasPrefix(out, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/") {
		t.Errorf("%q", out)
	}
	client := httpClient(true)
	if status, body, err := fetch(client, "GET", base+rel.RelativeURI, "X-Nothing", "1"); err != nil || status != 200 || !strings.Contains(string(body), "AccessKeyId") {
		t.Errorf("by its path: %d %v", status, err)
	}
	last := rel.RelativeURI[len(rel.RelativeURI)-1]
	guess := rel.RelativeURI[:len(rel.RelativeURI)-1] + string("0123456789abcdef"[(strings.IndexByte("0123456789abcdef", last)+1)%16])
	for what, path := range map[string]string{"a guess": guess, "no relative one": "/v2/credentials/" + own.ID} {
		if status, body, _ := fetch(client, "GET", base+path, "X-Nothing", "1"); status != 401 || strings.Contains(string(body), "AccessKeyId") {
			t.Errorf("%s: %d", what, status)
		}
	}
	// logout revokes what is left.
	w.must(nil, "logout", "deploy")
	if a := still.ask(); a.ID != "" || a.Err == "" {
		t.Errorf("after logout: %+v", a)
	}
	if status, _, _ := fetch(client, "GET", base+rel.RelativeURI, "X-Nothing", "1"); status != 401 {
		t.Errorf("by its path, after logout: %d", status)
	}
	if out := w.must(nil, "grant", "list", "--json").out; strings.Contains(out, `"id"`) {
		t.Errorf("after logout: %s", out)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEndpointsComeAndGo: a reload adds and removes endpoints, and a client
// of another does not notice: its connection stays, and the settings of its
// own endpoint change under it.
func TestEndpointsComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one := "[[endpoint]]\nkind = \"imds\"\nlisten = \"127.0.0.1:" + port(t) + "\"\nprofile = \"deploy\"\n"
	second := port(t)
	two := "[[endpoint]]\nkind = \"imds\"\nlisten = \"127.0.0.1:" + second + "\"\nprofile = \"entry\"\n"
	conf := func(text string) {
		t.Helper()
		w.write("config/keyfob/config.toml", text)
		w.must(nil, "reload")
	}
	w.write("config/keyfob/config.toml", one)
	w.addKeys("base")
	url := w.imds()
	w.credentials("deploy")
	client := httpClient(true)
	_, token, err := fetch(client, "PUT", url+"/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "600")
	if err != nil {
		t.Fatal(err)
	}
	reused := 0
	ask := func() (status int, role string) {
		t.Helper()
		req, err := http.NewRequest("GET", url+"/latest/meta-data/iam/security-credentials/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-aws-ec2-metadata-token", string(token))
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
			if i.Reused {
				reused++
			}
		}}
		resp, err := client.Do(req.WithContext(httptrace.WithClientTrace(t.Context(), trace)))
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
	want := func(when, role string) {
		t.Helper()
		before := reused
		if status, got := ask(); status != 200 || got != role {
			t.Errorf("%s: %d %q", when, status, got)
		}
		if reused != before+1 {
			t.Errorf("%s: the connection was not kept", when)
		}
	}
	want("at first", "deploy")
	conf(one + two)
	want("with another endpoint", "deploy")
	other := &metadataCaller{url: "http://127.0.0.1:" + second, role: "entry", client: httpClient(true)}
	eventually(t, "the new one serves", func() bool { return other.ask().Status == 200 })
	// A token is one endpoint's.
	if status, _, _ := fetch(httpClient(false), "GET", other.url+"/latest/meta-data/", "X-aws-ec2-metadata-token", string(token)); status != 401 {
		t.Errorf("a token of another endpoint: %d", status)
	}
	conf(one)
	want("without it", "deploy")
	if a := other.ask(); a.Status != 0 {
		t.Errorf("the endpoint that was removed answers %d", a.Status)
	}
	conf(one + "allow_users = []\n")
	if status, _ := ask(); status != 403 {
		t.Errorf("closed to everybody, the kept connection gets %d", status)
	}
	conf(one)
	want("opened again", "deploy")
	// A bad edit changes nothing.
	w.write("config/keyfob/config.toml", one+two+"profil = \"x\"\n")
	if r := w.run(nil, "reload"); r.code != 1 {
		t.Errorf("a bad edit: exit %d, %q", r.code, r.err)
	}
	want("after a bad edit", "deploy")
	if n := len(w.status().Endpoints); n != 1 {
		t.Errorf("after a bad edit there are %d endpoints", n)
	}
}

func port(t *testing.T) string { return strconv.Itoa(quietPort(t)) }
