package fakeaws_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"keyfob/internal/fakeaws"
)

const identityForm = "Action=GetCallerIdentity&Version=2011-06-15"

type signed struct {
	service, region string
	at              time.Time
	creds           aws.Credentials
}

func newRequest(method, target, body string) *http.Request {
	r, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	}
	return r
}

// sign signs with the Go SDK's signer: an implementation that is not ours.
func (g signed) sign(t *testing.T, r *http.Request, body string) *http.Request {
	t.Helper()
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(context.Background(), g.creds, r, hex.EncodeToString(sum[:]), g.service, g.region, g.at); err != nil {
		t.Fatal(err)
	}
	return r
}

func ask(t *testing.T, s *fakeaws.Server, r *http.Request) (int, string) {
	t.Helper()
	resp, err := inProcess{s.Handler()}.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestSignatureAgainstTheSDKsSigner(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{})
	g := signed{"sts", "eu-west-1", time.Now(), aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}}
	odd := "https://sts.eu-west-1.amazonaws.com/?" + identityForm + "&b=2&a=%20%2F~%C3%BC&a=1&a-b=x&a=&novalue"
	for name, r := range map[string]*http.Request{
		"form":      g.sign(t, newRequest("POST", "https://sts.amazonaws.com/", identityForm), identityForm),
		"odd host":  g.sign(t, newRequest("POST", "http://127.0.0.1:9/", identityForm), identityForm),
		"odd query": g.sign(t, newRequest("GET", odd, ""), ""),
		"odd path":  g.sign(t, newRequest("POST", "https://x.example/a%20b/~c/%C3%BC", identityForm), identityForm),
		"odd header": g.sign(t, func() *http.Request {
			r := newRequest("POST", "https://x/", identityForm)
			r.Header["X-Amz-Meta"] = []string{" a   b ", "c"}
			return r
		}(), identityForm),
	} {
		if status, body := ask(t, s, r); status != 200 || !strings.Contains(body, "<Arn>"+alice+"</Arn>") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	// Presigned.
	r := newRequest("GET", odd+"&X-Amz-Expires=60", "")
	sum := sha256.Sum256(nil)
	u, _, err := v4.NewSigner().PresignHTTP(context.Background(), g.creds, r, hex.EncodeToString(sum[:]), "sts", "eu-west-1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if status, body := ask(t, s, newRequest("GET", u, "")); status != 200 {
		t.Errorf("presigned: %d %s", status, body)
	}
	if status, body := ask(t, s, newRequest("GET", strings.Replace(u, "b=2", "b=3", 1), "")); status != 403 || !strings.Contains(body, "SignatureDoesNotMatch") {
		t.Errorf("presigned and changed: %d %s", status, body)
	}
}

func TestTamperedRequestsAreRefused(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{})
	inactive, isecret := s.AddUser(fakeaws.UserSpec{Name: "bob"})
	s.SetKeyActive(inactive, false)
	at := time.Now().UTC()
	good := signed{"sts", "eu-west-1", at, aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}}
	const mismatch = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
	const unknown = "The security token included in the request is invalid."
	for _, c := range []struct {
		name          string
		sign          func(*signed)
		change        func(*http.Request)
		status        int
		code, message string
	}{
		{name: "as it is", status: 200},
		{name: "wrong secret", sign: func(g *signed) { g.creds.SecretAccessKey += "x" }, status: 403, code: "SignatureDoesNotMatch", message: mismatch},
		{name: "unknown key", sign: func(g *signed) { g.creds.AccessKeyID = "AKIAAAAAAAAAAAAAAAAA" }, status: 403, code: "InvalidClientTokenId", message: unknown},
		{name: "inactive key", sign: func(g *signed) { g.creds.AccessKeyID, g.creds.SecretAccessKey = inactive, isecret }, status: 403, code: "InvalidClientTokenId", message: unknown},
		{name: "a token it never had", sign: func(g *signed) { g.creds.SessionToken = "x" }, status: 403, code: "InvalidClientTokenId", message: unknown},
		{name: "other body", change: func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(identityForm+"&x=")), int64(len(identityForm)+3)
		}, status: 403, code: "SignatureDoesNotMatch", message: mismatch},
		{name: "other host", change: func(r *http.Request) { r.Host = "evil.example" }, status: 403, code: "SignatureDoesNotMatch", message: mismatch},
		{name: "other method", change: func(r *http.Request) { r.Method = "PUT"; r.URL.RawQuery = identityForm }, status: 403, code: "SignatureDoesNotMatch", message: mismatch},
		{name: "other path", change: func(r *http.Request) { r.URL.Path = "/x" }, status: 403, code: "SignatureDoesNotMatch", message: mismatch},
		{name: "other query", change: func(r *http.Request) { r.URL.RawQuery = "x=1" }, status: 403, code: "SignatureDoesNotMatch", message: mismatch},
		{name: "other date", change: func(r *http.Request) { r.Header.Set("X-Amz-Date", at.Add(time.Second).Format("20060102T150405Z")) }, status: 403, code: "SignatureDoesNotMatch", message: mismatch},
		{name: "other service", sign: func(g *signed) { g.service = "iam" }, status: 403, code: "SignatureDoesNotMatch", message: "Credential should be scoped to correct service: 'sts'. "},
		{name: "no region", sign: func(g *signed) { g.region = "aws-global" }, status: 403, code: "SignatureDoesNotMatch", message: "Credential should be scoped to a valid region, not 'aws-global'. "},
		{name: "unsigned", change: func(r *http.Request) { r.Header.Del("Authorization") }, status: 403, code: "MissingAuthenticationToken", message: "Request is missing Authentication Token"},
		{name: "half a header", change: func(r *http.Request) {
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+id+"/20260101/eu-west-1/sts/aws4_request, SignedHeaders=host")
		}, status: 400, code: "IncompleteSignature", message: "Authorization header requires 'Signature' parameter."},
		{name: "another scheme", change: func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, status: 400, code: "IncompleteSignature", message: "Unsupported AWS 'algorithm': 'Bearer'"},
		{name: "host not signed", change: func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "host;", "", 1))
		}, status: 403, code: "SignatureDoesNotMatch", message: "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := good
			if c.sign != nil {
				c.sign(&g)
			}
			r := g.sign(t, newRequest("POST", "https://sts.eu-west-1.amazonaws.com/", identityForm), identityForm)
			if c.change != nil {
				c.change(r)
			}
			status, body := ask(t, s, r)
			if status != c.status || c.code != "" && !strings.Contains(body, "<Code>"+c.code+"</Code>") {
				t.Errorf("got %d %s\nwant %d %s", status, body, c.status, c.code)
			}
			if text := strings.ReplaceAll(body, "&#39;", "'"); c.message != "" && !strings.Contains(text, "<Message>"+c.message+"</Message>") {
				t.Errorf("got %s\nwant the message %s", text, c.message)
			}
			if c.status >= 400 && (!strings.Contains(body, "<Type>Sender</Type>") || !strings.Contains(body, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">`)) {
				t.Errorf("not the shape of the query protocol's errors: %s", body)
			}
		})
	}
}

func TestClockSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeaws.New()
		id, secret := s.AddUser(fakeaws.UserSpec{})
		now := time.Now().UTC()
		g := signed{"sts", "eu-west-1", now, aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}}
		text := func(at time.Time) string { return at.Format("20060102T150405Z") }
		for _, c := range []struct {
			off  time.Duration // of the server's clock
			want string        // message, "" for fine
		}{
			{0, ""}, {15 * time.Minute, ""}, {-15 * time.Minute, ""},
			{15*time.Minute + time.Second, "Signature expired: " + text(now) + " is now earlier than " + text(now.Add(time.Second)) + " (" + text(now.Add(901*time.Second)) + " - 15 min.)"},
			{-15*time.Minute - time.Second, "Signature not yet current: " + text(now) + " is still later than " + text(now.Add(-time.Second)) + " (" + text(now.Add(-901*time.Second)) + " + 15 min.)"},
		} {
			s.SetClock(c.off)
			resp, err := inProcess{s.Handler()}.RoundTrip(g.sign(t, newRequest("POST", "https://sts/", identityForm), identityForm))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if c.want == "" && resp.StatusCode != 200 || c.want != "" && (resp.StatusCode != 403 || !bytes.Contains(body, []byte("<Code>SignatureDoesNotMatch</Code>")) || !bytes.Contains(body, []byte("<Message>"+c.want+"</Message>"))) {
				t.Errorf("clock off by %v: %d %s\nwant %s", c.off, resp.StatusCode, body, c.want)
			}
			if date := resp.Header.Get("Date"); date != now.Add(c.off).Format(http.TimeFormat) {
				t.Errorf("clock off by %v: Date is %s", c.off, date)
			}
		}
		// A presigned request lives as long as it says.
		s.SetClock(0)
		sum := sha256.Sum256(nil)
		u, _, err := v4.NewSigner().PresignHTTP(context.Background(), g.creds, newRequest("GET", "https://sts/?"+identityForm+"&X-Amz-Expires=60", ""), hex.EncodeToString(sum[:]), "sts", "eu-west-1", now)
		if err != nil {
			t.Fatal(err)
		}
		if status, body := ask(t, s, newRequest("GET", u, "")); status != 200 {
			t.Errorf("presigned: %d %s", status, body)
		}
		time.Sleep(61 * time.Second)
		if status, body := ask(t, s, newRequest("GET", u, "")); status != 403 || !strings.Contains(body, "Signature expired: ") {
			t.Errorf("presigned, a second late: %d %s", status, body)
		}
	})
}

func TestUnknownActions(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{})
	g := signed{"sts", "eu-west-1", time.Now(), aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}}
	for form, want := range map[string]string{
		"Action=Nonsense&Version=2011-06-15":          "Could not find operation Nonsense for version 2011-06-15",
		"Action=GetCallerIdentity":                    "Could not find operation GetCallerIdentity for version NO_VERSION_SPECIFIED",
		"Action=GetCallerIdentity&Version=2010-05-08": "Could not find operation GetCallerIdentity for version 2010-05-08",
		"": "Could not find operation NO_ACTION_SPECIFIED for version NO_VERSION_SPECIFIED",
	} {
		status, body := ask(t, s, g.sign(t, newRequest("POST", "https://sts/", form), form))
		if status != 400 || !strings.Contains(body, "<Code>InvalidAction</Code>") || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", form, status, body)
		}
	}
	if s.Count("?") != 4 {
		t.Errorf("counted %v", s.Counters())
	}
}
