package ops

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyfob/internal/awsclient"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/profiles"
)

func TestReachSTS(t *testing.T) {
	w := newWorld(t, fakeaws.UserSpec{})
	got, err := w.deps.ReachSTS(t.Context(), w.client())
	if err != nil || got.URL != w.url || got.Proxy != "" || !got.ClockKnown || got.Skew != 0 {
		t.Errorf("%+v %v", got, err)
	}
	for _, c := range w.aws.Calls() {
		if c.AccessKey != "" {
			t.Errorf("%+v is signed", c)
		}
	}
	w.aws.SetClock(10 * time.Minute)
	if got, err = w.deps.ReachSTS(t.Context(), w.client()); err != nil || got.Skew < 9*time.Minute || got.Skew > 11*time.Minute {
		t.Errorf("%+v %v", got, err)
	}
	w.aws.SetClock(0)

	// TLS, with and without the authority that the settings must name.
	_, secure, ca := fakeawstest.StartTLS(t)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(secure, "https://"))
	secure = "https://localhost:" + port
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(bundle, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	client := profiles.Client{Region: region, EndpointURL: map[string]string{"": secure}}
	_, err = w.deps.ReachSTS(t.Context(), client)
	line(t, err, "cannot reach STS: the certificate of", "unknown authority", "ca_bundle")
	client.CABundle = bundle
	if got, err = w.deps.ReachSTS(t.Context(), client); err != nil || !got.ClockKnown {
		t.Errorf("%+v %v", got, err)
	}

	// What is in the way is named.
	for name, c := range map[string]struct {
		url  string
		want string
	}{
		"nobody listens": {"http://127.0.0.1:1", "127.0.0.1:1 refuses the connection"},
		"no such host":   {"http://sts.invalid", "sts.invalid"},
		"a bad URL":      {"ftp://x", "cannot use the endpoint URL"},
	} {
		got, err := w.deps.ReachSTS(t.Context(), profiles.Client{Region: region, EndpointURL: map[string]string{"": c.url}})
		if err == nil || !strings.Contains(err.Error()+got.URL, strings.TrimPrefix(c.want, "cannot ")) || !strings.HasPrefix(err.Error(), "cannot reach STS: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	portal := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("<html>sign in</html>")) }))
	defer portal.Close()
	_, err = w.deps.ReachSTS(t.Context(), profiles.Client{Region: region, EndpointURL: map[string]string{"": portal.URL}})
	line(t, err, "cannot reach STS:", "web page", "captive portal")

	// Through a proxy, which is named without its password.
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusProxyAuthRequired) }))
	defer proxy.Close()
	at, _ := url.Parse(strings.Replace(proxy.URL, "http://", "http://user:CANARY@", 1))
	p := awsclient.NewPool(awsclient.PoolConfig{Proxy: func(*url.URL) (*url.URL, error) { return at, nil }})
	defer p.CloseIdle()
	got, err = Deps{Pool: p}.ReachSTS(t.Context(), profiles.Client{Region: region})
	line(t, err, "the proxy "+at.Host+" wants a user and a password")
	if got.Proxy != at.Host || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("%+v %v", got, err)
	}
}

func TestProxyTakes(t *testing.T) {
	all := []string{"169.254.169.254", "169.254.170.2", "127.0.0.1", "fd00:ec2::254"}
	for _, c := range []struct {
		env   map[string]string
		proxy string
		taken []string
	}{
		{nil, "", nil},
		{map[string]string{"https_proxy": "http://p:1"}, "", nil}, // the metadata service is http
		{map[string]string{"http_proxy": "http://p:1"}, "http_proxy", all},
		{map[string]string{"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost, 127.0.0.0/8,.example.com"}, "HTTP_PROXY", []string{all[0], all[1], all[3]}},
		{map[string]string{"ALL_PROXY": "socks5://p:1", "no_proxy": "169.254.169.254:80,169.254.170.2,127.0.0.1"}, "ALL_PROXY", all[3:]},
		{map[string]string{"http_proxy": "http://p:1", "no_proxy": "169.254.0.0/16,127.0.0.1,fd00:ec2::/32"}, "", nil},
		{map[string]string{"http_proxy": "http://p:1", "no_proxy": "*"}, "", nil},
		{map[string]string{"http_proxy": " "}, "", nil},
	} {
		if proxy, taken := ProxyTakes(c.env, all...); proxy != c.proxy || !slices.Equal(taken, c.taken) {
			t.Errorf("%v: %s %q", c.env, proxy, taken)
		}
	}
}
