package awsclient

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyfob/profiles"
)

// hostileEnvironment holds what a daemon may have in its environment and a
// resolved profile must not notice: other values, and malformed ones.
func hostileEnvironment(t *testing.T) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	evil := filepath.Join(home, "evil")
	if err := os.WriteFile(evil, []byte("[default]\nregion=ap-south-1\nendpoint_url=http://192.0.2.7\nuse_fips_endpoint=true\n[profile evil]\nregion=ap-south-2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL":                       "http://192.0.2.1:1",
		"AWS_ENDPOINT_URL_STS":                   "http://192.0.2.2:2",
		"AWS_REGION":                             "af-south-1",
		"AWS_DEFAULT_REGION":                     "af-south-1",
		"AWS_PROFILE":                            "nosuch",
		"AWS_DEFAULT_PROFILE":                    "nosuch",
		"AWS_CONFIG_FILE":                        evil,
		"AWS_SHARED_CREDENTIALS_FILE":            evil,
		"AWS_ACCESS_KEY_ID":                      "AKIAEVIL",
		"AWS_SECRET_ACCESS_KEY":                  "evil",
		"AWS_SESSION_TOKEN":                      "evil",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI":     "http://127.0.0.1:9/evil",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/evil",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN":      "evil",
		"AWS_WEB_IDENTITY_TOKEN_FILE":            "/nosuch",
		"AWS_ROLE_ARN":                           "arn:aws:iam::999999999999:role/evil",
		"AWS_CA_BUNDLE":                          "/nosuch/ca.pem",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT":      "http://192.0.2.3",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "neither",
		"AWS_EC2_METADATA_DISABLED":              "false",
		"AWS_USE_FIPS_ENDPOINT":                  "true",
		"AWS_USE_DUALSTACK_ENDPOINT":             "true",
		"AWS_MAX_ATTEMPTS":                       "many",
		"AWS_RETRY_MODE":                         "hopeful",
		"AWS_DEFAULTS_MODE":                      "auto",
		"AWS_STS_REGIONAL_ENDPOINTS":             "legacy",
		"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS":    "perhaps",
		"AWS_SDK_UA_APP_ID":                      "evil",
		"AWS_DISABLE_CLOCK_SKEW_CORRECTION":      "perhaps",
		"AWS_ACCOUNT_ID_ENDPOINT_MODE":           "evil",
		"AWS_AUTH_SCHEME_PREFERENCE":             "noauth",
		"AWS_NEW_RETRIES_2026":                   "true",
	} {
		t.Setenv(name, value)
	}
}

// TestHostsOfPartitions dials a TLS server that holds every name, through
// the resolved CA bundle alone: the host, the signature's region and the
// certificate's name must be those of the settings whatever stands in the
// environment.
func TestHostsOfPartitions(t *testing.T) {
	ca := newAuthority(t)
	up := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, time.Now().Add(time.Hour),
		"sts.amazonaws.com", "*.amazonaws.com", "*.us-east-1.amazonaws.com", "*.eu-central-1.amazonaws.com", "*.us-gov-west-1.amazonaws.com",
		"*.cn-north-1.amazonaws.com.cn", "*.us-east-1.api.aws", "*.cn-north-1.api.amazonwebservices.com.cn", "*.us-gov-east-1.api.aws", "*.me-central-1.amazonaws.com")}}, answerIdentity)
	bundle := ca.file(t)
	cases := []struct {
		c            profiles.Client
		host, signed string
	}{
		{profiles.Client{Region: "us-east-1"}, "sts.us-east-1.amazonaws.com", "us-east-1/sts"},
		{profiles.Client{Region: "eu-central-1"}, "sts.eu-central-1.amazonaws.com", "eu-central-1/sts"},
		{profiles.Client{Region: "cn-north-1"}, "sts.cn-north-1.amazonaws.com.cn", "cn-north-1/sts"},
		{profiles.Client{Region: "us-gov-west-1"}, "sts.us-gov-west-1.amazonaws.com", "us-gov-west-1/sts"},
		{profiles.Client{Region: "us-east-1", UseFIPS: true}, "sts-fips.us-east-1.amazonaws.com", "us-east-1/sts"},
		{profiles.Client{Region: "us-gov-west-1", UseFIPS: true}, "sts.us-gov-west-1.amazonaws.com", "us-gov-west-1/sts"},
		{profiles.Client{Region: "us-east-1", UseDualStack: true}, "sts.us-east-1.api.aws", "us-east-1/sts"},
		{profiles.Client{Region: "cn-north-1", UseDualStack: true}, "sts.cn-north-1.api.amazonwebservices.com.cn", "cn-north-1/sts"},
		{profiles.Client{Region: "us-gov-east-1", UseDualStack: true, UseFIPS: true}, "sts-fips.us-gov-east-1.api.aws", "us-gov-east-1/sts"},
		{profiles.Client{Region: "eu-central-1", STSLegacy: true}, "sts.amazonaws.com", "us-east-1/sts"},
		{profiles.Client{Region: "me-central-1", STSLegacy: true}, "sts.me-central-1.amazonaws.com", "me-central-1/sts"}, // no legacy region
		{profiles.Client{Region: "cn-north-1", STSLegacy: true}, "sts.cn-north-1.amazonaws.com.cn", "cn-north-1/sts"},
		{profiles.Client{}, "sts.us-east-1.amazonaws.com", "us-east-1/sts"},
	}
	for _, hostile := range []bool{false, true} {
		if hostile {
			hostileEnvironment(t)
		}
		pool := direct(t, up.addr())
		for _, x := range cases {
			x.c.CABundle = bundle
			seen, err := call(t, x.c, Options{Pool: pool})
			if err != nil {
				t.Errorf("%+v: %v", x.c, err)
				continue
			}
			all := up.requests()
			last := all[len(all)-1]
			if last.Host != x.host || signedFor(last) != x.signed || seen.Facts().Host != x.host {
				t.Errorf("hostile %v %+v: asked %s signed for %s, want %s and %s", hostile, x.c, last.Host, signedFor(last), x.host, x.signed)
			}
			if !strings.Contains(last.Header.Get("Authorization"), canaryID) {
				t.Errorf("signed by others: %s", last.Header.Get("Authorization"))
			}
			if ua := last.UserAgent(); !strings.Contains(ua, "app/keyfob") || strings.Contains(ua, "evil") {
				t.Errorf("User-Agent %s", ua)
			}
			if u, err := STSEndpoint(t.Context(), x.c); err != nil || u.Host != x.host {
				t.Errorf("STSEndpoint says %v %v, called was %s", u, err, x.host)
			}
		}
	}
}

func TestEndpointOfTheServiceBeatsTheCommonOne(t *testing.T) {
	own, common := serve(t, nil, answerIdentity), serve(t, nil, answerIdentity)
	for _, hostile := range []bool{false, true} {
		if hostile {
			hostileEnvironment(t)
		}
		if _, err := call(t, profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"": common.URL, "sts": own.URL + "/base/"}}, Options{Pool: direct(t, "")}); err != nil {
			t.Fatal(err)
		}
		if _, err := call(t, profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"": common.URL, "iam": "http://192.0.2.9"}}, Options{Pool: direct(t, "")}); err != nil {
			t.Fatal(err)
		}
	}
	// The SDK's clients look for this one by themselves.
	if err := os.Unsetenv("AWS_ENDPOINT_URL_STS"); err != nil { // restored by hostileEnvironment's Setenv
		t.Fatal(err)
	}
	if _, err := call(t, endpoint(own.URL), Options{Pool: direct(t, "")}); err != nil {
		t.Fatal(err)
	}
	if len(own.requests()) != 3 || len(common.requests()) != 2 {
		t.Errorf("own endpoint got %d, common one %d", len(own.requests()), len(common.requests()))
	}
	if r := own.requests()[0]; !strings.HasPrefix(r.URL.Path, "/base") || signedFor(r) != "eu-west-1/sts" {
		t.Errorf("asked %s, signed for %s", r.URL, signedFor(r))
	}
}

func TestUnusableSettings(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.pem")
	if err := os.WriteFile(bad, []byte("none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		c    profiles.Client
		want string
	}{
		{profiles.Client{EndpointURL: map[string]string{"sts": "localhost:4566"}}, "endpoint URL localhost:4566"},
		{profiles.Client{EndpointURL: map[string]string{"sts": "ftp://u:" + canarySecret + "@h"}}, "endpoint URL ftp://h"},
		{profiles.Client{EndpointURL: map[string]string{"": "https://u:" + canarySecret + "@h"}}, "endpoint URL of h"},
		{profiles.Client{EndpointURL: map[string]string{"": "https://h"}, UseFIPS: true}, "use_fips_endpoint"},
		{profiles.Client{EndpointURL: map[string]string{"": "https://h"}, UseDualStack: true}, "use_dualstack_endpoint"},
		{profiles.Client{CABundle: "/nosuch/ca.pem"}, "cannot use the CA bundle /nosuch/ca.pem: no such file or directory"},
		{profiles.Client{CABundle: bad}, "no certificate"},
		{profiles.Client{Region: "eu west 1"}, "region eu west 1"},
	} {
		seen, err := call(t, x.c, Options{Pool: direct(t, "127.0.0.1:1")})
		var s *SettingsError
		if !errors.As(err, &s) || !strings.HasPrefix(err.Error(), "cannot ") || !strings.Contains(err.Error(), x.want) || s.Hint() == "" {
			t.Errorf("%+v: %v, want %q", x.c, err, x.want)
			continue
		}
		if f := Explain(err, seen); f.Kind != Settings || seen.Facts().Requests != 0 || strings.Contains(err.Error(), canarySecret) {
			t.Errorf("%+v: %+v after %d requests", x.c, f, seen.Facts().Requests)
		}
	}
}

func TestOneRequestUnlessRetriesAreWanted(t *testing.T) {
	up := serve(t, nil, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	c := profiles.Client{Region: "us-east-1", EndpointURL: map[string]string{"": up.URL}, MaxAttempts: 2, RetryMode: "standard"}
	seen, err := call(t, c, Options{Pool: direct(t, "")})
	if err == nil || len(up.requests()) != 1 || seen.Facts().Requests != 1 {
		t.Fatalf("%d requests, %v", len(up.requests()), err)
	}
	seen, err = call(t, c, Options{Pool: direct(t, ""), Retry: true})
	if err == nil || len(up.requests()) != 3 || seen.Facts().Requests != 2 {
		t.Fatalf("%d requests with retries, %v", len(up.requests())-1, err)
	}
}

// TestRedirectsAreNotFollowed: net/http would repeat the request as a GET
// after a 302, and as it was after a 307.
func TestRedirectsAreNotFollowed(t *testing.T) {
	other := serve(t, nil, answerIdentity)
	for _, status := range []int{302, 307} {
		up := serve(t, nil, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+"/login", status) })
		seen, err := call(t, endpoint(up.URL), Options{Pool: direct(t, "")})
		if err == nil || len(other.requests()) != 0 {
			t.Fatalf("%d requests followed, %v", len(other.requests()), err)
		}
		f := Explain(err, seen)
		oneLine(t, f)
		if f.Kind != Foreign || f.Status != status || !strings.Contains(f.Text, " redirects (HTTP 30") || !strings.Contains(f.Text, " to "+other.addr()) {
			t.Errorf("%+v", f)
		}
	}
}

func TestPoolSharesTransportsAndRereadsBundles(t *testing.T) {
	ca, next := newAuthority(t), newAuthority(t)
	bundle := ca.file(t)
	pool := direct(t, "")
	for range 1000 {
		for _, path := range []string{"", bundle} {
			if _, err := Config(t.Context(), profiles.Client{CABundle: path}, nil, Options{Pool: pool}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(pool.bundles) != 2 {
		t.Fatalf("%d transports", len(pool.bundles))
	}
	before := pool.bundles[bundle].transport
	up := serve(t, &tls.Config{Certificates: []tls.Certificate{next.leaf(t, time.Now().Add(time.Hour), "127.0.0.1")}}, answerIdentity)
	c := profiles.Client{CABundle: bundle, EndpointURL: map[string]string{"sts": up.URL}}
	if _, err := call(t, c, Options{Pool: pool}); err == nil {
		t.Fatal("a certificate of another root was taken")
	}
	// The way that programs write files: a new one in place of the old.
	if err := os.WriteFile(bundle+".new", append(ca.pem, next.pem...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(bundle+".new", bundle); err != nil {
		t.Fatal(err)
	}
	if _, err := call(t, c, Options{Pool: pool}); err != nil {
		t.Fatalf("the new bundle is not used: %v", err)
	}
	if len(pool.bundles) != 2 || pool.bundles[bundle].transport == before {
		t.Error("the old transport is still there")
	}
}

func TestReach(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	pool := direct(t, "")
	u, err := STSEndpoint(t.Context(), profiles.Client{EndpointURL: map[string]string{"": "http://" + addr}})
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.Reach(t.Context(), u); err != nil {
		t.Error(err)
	}
	l.Close()
	if err := pool.Reach(t.Context(), u); !refused(err) {
		t.Errorf("reaching nobody: %v", err)
	}
}
