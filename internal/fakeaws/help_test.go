package fakeaws_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	"go.uber.org/goleak"

	"keyfob/internal/fakeaws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inProcess is a transport that calls the handler without a socket, so that
// tests of time can run in a synctest bubble.
type inProcess struct{ h http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	in := r.Clone(r.Context())
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	p.h.ServeHTTP(w, in)
	return w.Result(), nil
}

// person is somebody with credentials and a Go SDK.
type person struct {
	t   *testing.T
	cfg aws.Config
}

func as(t *testing.T, s *fakeaws.Server, id, secret, token string) person {
	return person{t, aws.Config{
		Region: "eu-west-1", HTTPClient: &http.Client{Transport: inProcess{s.Handler()}},
		Credentials: credentials.NewStaticCredentialsProvider(id, secret, token),
		Retryer:     func() aws.Retryer { return aws.NopRetryer{} },
	}}
}

// at is the same person calling a URL over real sockets.
func (p person) at(url string, client *http.Client) person {
	p.cfg.BaseEndpoint = &url
	if client == nil {
		tr := &http.Transport{DisableKeepAlives: true}
		client = &http.Client{Transport: tr}
	}
	p.cfg.HTTPClient = client
	return p
}

func (p person) with(c *types.Credentials) person {
	p.cfg.Credentials = credentials.NewStaticCredentialsProvider(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
	return p
}

func (p person) sts() *sts.Client { return sts.NewFromConfig(p.cfg) }
func (p person) iam() *iam.Client { return iam.NewFromConfig(p.cfg) }

func (p person) who() (string, error) {
	out, err := p.sts().GetCallerIdentity(context.Background(), nil)
	if err != nil {
		return "", err
	}
	return *out.Arn, nil
}

func (p person) assume(arn string, change func(*sts.AssumeRoleInput)) (*sts.AssumeRoleOutput, error) {
	in := &sts.AssumeRoleInput{RoleArn: &arn, RoleSessionName: aws.String("sess")}
	if change != nil {
		change(in)
	}
	return p.sts().AssumeRole(context.Background(), in)
}

func (p person) mustAssume(arn string, change func(*sts.AssumeRoleInput)) person {
	p.t.Helper()
	out, err := p.assume(arn, change)
	if err != nil {
		p.t.Fatalf("AssumeRole %s: %v", arn, err)
	}
	return p.with(out.Credentials)
}

// refused checks AWS's code, text and HTTP status.
func refused(t *testing.T, err error, status int, code, message string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) {
		t.Fatalf("got %v, want the AWS error %s", err, code)
	}
	if api.ErrorCode() != code || api.ErrorMessage() != message {
		t.Errorf("got  %s: %s\nwant %s: %s", api.ErrorCode(), api.ErrorMessage(), code, message)
	}
	var resp *awshttp.ResponseError
	if !errors.As(err, &resp) || resp.HTTPStatusCode() != status || resp.ServiceRequestID() == "" {
		t.Errorf("got status %v with request id %q, want %d with an id", resp.HTTPStatusCode(), resp.ServiceRequestID(), status)
	}
}

func near(t *testing.T, what string, got, want time.Time) {
	t.Helper()
	if d := got.Sub(want); d > time.Second || d < -2*time.Second {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func credsOf(id, secret string) aws.Credentials {
	return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}
}

// trusting is a client that trusts one authority alone.
func trusting(t *testing.T, pem []byte) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("the authority is no PEM")
	}
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
}

func (p person) federate(name, policy string) (*sts.GetFederationTokenOutput, error) {
	in := &sts.GetFederationTokenInput{Name: &name}
	if policy != "" {
		in.Policy = &policy
	}
	return p.sts().GetFederationToken(context.Background(), in)
}
