package fakeaws_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

const anyRole = "arn:aws:iam::111122223333:role/machine"

// anyRequest is a CreateSession of a test.
type anyRequest struct {
	query, body map[string]string
	leaf        *fakeawstest.Leaf
	chain       []*x509.Certificate
	sign        func(toSign string) []byte // default: with the leaf's key
	spoil       func(*http.Request)        // after signing
	at          time.Time
}

type anyAnswer struct {
	CredentialSet []struct {
		Credentials     struct{ AccessKeyID, SecretAccessKey, SessionToken, Expiration string }
		AssumedRoleUser struct{ ARN string }
		SourceIdentity  string
	}
	SubjectARN, Message string
	status              int
	kind                string
}

func (a anyRequest) send(t *testing.T, base string) anyAnswer {
	t.Helper()
	v := url.Values{}
	for k, x := range a.query {
		v.Set(k, x)
	}
	if a.body == nil {
		a.body = map[string]string{}
	}
	body, _ := json.Marshal(a.body)
	raw := strings.ReplaceAll(v.Encode(), "+", "%20") // sorted, as the canonical request has it
	r, err := http.NewRequest("POST", base+"/sessions?"+raw, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if a.at.IsZero() {
		a.at = time.Now()
	}
	stamp := a.at.UTC().Format("20060102T150405Z")
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Amz-Date", stamp)
	r.Header.Set("X-Amz-X509", base64.StdEncoding.EncodeToString(a.leaf.Cert.Raw))
	headers := "content-type:application/json\nhost:" + r.URL.Host + "\nx-amz-date:" + stamp + "\nx-amz-x509:" + r.Header.Get("X-Amz-X509") + "\n"
	names := "content-type;host;x-amz-date;x-amz-x509"
	if a.chain != nil {
		var list []string
		for _, c := range a.chain {
			list = append(list, base64.StdEncoding.EncodeToString(c.Raw))
		}
		r.Header.Set("X-Amz-X509-Chain", strings.Join(list, ","))
		headers += "x-amz-x509-chain:" + r.Header.Get("X-Amz-X509-Chain") + "\n"
		names += ";x-amz-x509-chain"
	}
	sum := func(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }
	algorithm := "AWS4-X509-ECDSA-SHA256"
	if a.leaf.Cert.PublicKeyAlgorithm == x509.RSA {
		algorithm = "AWS4-X509-RSA-SHA256"
	}
	scope := stamp[:8] + "/eu-west-1/rolesanywhere/aws4_request"
	toSign := algorithm + "\n" + stamp + "\n" + scope + "\n" + sum("POST\n/sessions\n"+raw+"\n"+headers+"\n"+names+"\n"+sum(string(body)))
	if a.sign == nil {
		a.sign = func(toSign string) []byte {
			h := sha256.Sum256([]byte(toSign))
			b, err := a.leaf.Key.Sign(rand.Reader, h[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	r.Header.Set("Authorization", algorithm+" Credential="+a.leaf.Cert.SerialNumber.String()+"/"+scope+", SignedHeaders="+names+", Signature="+hex.EncodeToString(a.sign(toSign)))
	if a.spoil != nil {
		a.spoil(r)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	b, _ := io.ReadAll(resp.Body)
	out := anyAnswer{status: resp.StatusCode, kind: strings.SplitN(resp.Header.Get("X-Amzn-Errortype"), ":", 2)[0]}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return out
}

func TestRolesAnywhere(t *testing.T) {
	s, base := fakeawstest.Start(t)
	root := fakeawstest.NewIssuer(t)
	below := root.Intermediate(t)
	s.AddRole(fakeaws.RoleSpec{ARN: anyRole, MaxSessionDuration: 43200, Trust: []fakeaws.Trust{{Principals: []string{"rolesanywhere.amazonaws.com"}}}})
	other := s.AddRole(fakeaws.RoleSpec{Name: "other", Trust: []fakeaws.Trust{}})
	s.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: string(root.PEM)})
	s.AddAnywhereProfile(fakeaws.AnywhereProfile{})
	arns := func(role string) map[string]string {
		return map[string]string{"trustAnchorArn": fakeaws.DefaultTrustAnchorARN, "profileArn": fakeaws.DefaultAnywhereProfileARN, "roleArn": role}
	}
	leaf := root.Leaf(t, fakeawstest.LeafSpec{})
	p := as(t, s, "", "", "").at(base, nil)
	good := func(name string, a anyRequest) {
		t.Helper()
		out := a.send(t, base)
		if out.status != 201 || len(out.CredentialSet) != 1 || out.CredentialSet[0].SourceIdentity != "CN=machine.example.com" || !strings.HasPrefix(out.SubjectARN, "arn:aws:rolesanywhere:eu-west-1:111122223333:subject/") {
			t.Errorf("%s: %+v", name, out)
			return
		}
		c := out.CredentialSet[0].Credentials
		want := "arn:aws:sts::111122223333:assumed-role/machine/" + a.leaf.Cert.SerialNumber.Text(16)
		if who, err := p.with(&types.Credentials{AccessKeyId: &c.AccessKeyID, SecretAccessKey: &c.SecretAccessKey, SessionToken: &c.SessionToken}).who(); err != nil || who != want {
			t.Errorf("%s: %s %v", name, who, err)
		}
	}
	good("EC", anyRequest{query: arns(anyRole), leaf: leaf})
	good("in the body", anyRequest{body: arns(anyRole), leaf: leaf})
	good("RSA", anyRequest{query: arns(anyRole), leaf: root.Leaf(t, fakeawstest.LeafSpec{RSA: true})})
	deep := below.Intermediate(t).Leaf(t, fakeawstest.LeafSpec{})
	good("chain", anyRequest{query: arns(anyRole), leaf: deep, chain: deep.Chain})

	if openssl, err := exec.LookPath("openssl"); err == nil {
		for _, rsa := range []bool{false, true} {
			l := root.Leaf(t, fakeawstest.LeafSpec{RSA: rsa})
			key := filepath.Join(t.TempDir(), "key.pem")
			if err := os.WriteFile(key, l.KeyPEM, 0o600); err != nil {
				t.Fatal(err)
			}
			good("openssl", anyRequest{query: arns(anyRole), leaf: l, sign: func(toSign string) []byte {
				c := exec.Command(openssl, "dgst", "-sha256", "-sign", key)
				c.Stdin = strings.NewReader(toSign)
				b, err := c.Output()
				if err != nil {
					t.Fatal(err)
				}
				return b
			}})
		}
	}

	bad := func(name string, status int, kind, message string, a anyRequest) {
		t.Helper()
		if out := a.send(t, base); out.status != status || out.kind != kind || !strings.HasPrefix(out.Message, message) {
			t.Errorf("%s: %+v", name, out)
		}
	}
	untrusted := func(name string, l *fakeawstest.Leaf, chain []*x509.Certificate) {
		t.Helper()
		bad(name, 403, "AccessDeniedException", "Untrusted signing certificate", anyRequest{query: arns(anyRole), leaf: l, chain: chain})
	}
	untrusted("another authority", fakeawstest.NewIssuer(t).Leaf(t, fakeawstest.LeafSpec{}), nil)
	untrusted("without its chain", deep, nil)
	untrusted("expired", root.Leaf(t, fakeawstest.LeafSpec{NotBefore: -2 * time.Hour, NotAfter: -time.Hour}), nil)
	untrusted("not yet valid", root.Leaf(t, fakeawstest.LeafSpec{NotBefore: time.Hour}), nil)
	untrusted("an authority", root.Leaf(t, fakeawstest.LeafSpec{IsCA: true}), nil)
	untrusted("no digitalSignature", root.Leaf(t, fakeawstest.LeafSpec{NoDigitalSignature: true}), nil)
	with := func(k, v string) map[string]string { m := arns(anyRole); m[k] = v; return m }
	bad("role", 403, "AccessDeniedException", "Unable to assume role for ARN", anyRequest{query: arns(other), leaf: leaf})
	bad("anchor", 404, "ResourceNotFoundException", "Trust Anchor", anyRequest{query: with("trustAnchorArn", fakeaws.DefaultTrustAnchorARN+"0"), leaf: leaf})
	bad("region", 400, "ValidationException", "", anyRequest{query: with("profileArn", strings.Replace(fakeaws.DefaultAnywhereProfileARN, "eu-west-1", "us-east-1", 1)), leaf: leaf})
	bad("name", 403, "AccessDeniedException", "Not authorized to set roleSessionName.", anyRequest{body: with("roleSessionName", "web-1"), leaf: leaf})
	bad("late", 403, "AccessDeniedException", "Signature expired", anyRequest{query: arns(anyRole), leaf: leaf, at: time.Now().Add(-time.Hour)})
	bad("query", 403, "AccessDeniedException", "The request signature", anyRequest{query: arns(anyRole), leaf: leaf, spoil: func(r *http.Request) { r.URL.RawQuery += "&x=y" }})
	bad("other key", 403, "AccessDeniedException", "The request signature", anyRequest{query: arns(anyRole), leaf: leaf, spoil: func(r *http.Request) {
		r.Header.Set("X-Amz-X509", base64.StdEncoding.EncodeToString(root.Leaf(t, fakeawstest.LeafSpec{}).Cert.Raw))
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), leaf.Cert.SerialNumber.String(), mustCert(t, r).SerialNumber.String(), 1))
	}})
	bad("unsigned", 403, "AccessDeniedException", "", anyRequest{query: arns(anyRole), leaf: leaf, spoil: func(r *http.Request) { r.Header.Del("Authorization") }})

	s.AddAnywhereProfile(fakeaws.AnywhereProfile{AcceptRoleSessionName: true, DurationSeconds: 7200})
	out := anyRequest{body: with("roleSessionName", "web-1"), leaf: leaf}.send(t, base)
	if out.status != 201 || !strings.HasSuffix(out.CredentialSet[0].AssumedRoleUser.ARN, "/web-1") {
		t.Errorf("%+v", out)
	}
	s.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Action: "CreateSession", RoleARN: anyRole, Status: 503, Code: "ServiceUnavailableException", Count: 1})
	bad("fault", 503, "ServiceUnavailableException", "", anyRequest{query: arns(anyRole), leaf: leaf})
}

func mustCert(t *testing.T, r *http.Request) *x509.Certificate {
	der, _ := base64.StdEncoding.DecodeString(r.Header.Get("X-Amz-X509"))
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestInstanceAndContainer(t *testing.T) {
	s, base := fakeawstest.Start(t)
	role := s.AddRole(fakeaws.RoleSpec{Name: "instance"})
	p := as(t, s, "", "", "").at(base, nil)
	// A client asks no token again where it was told once that there are
	// none, so each read has its own.
	client := func() *imds.Client {
		return imds.New(imds.Options{Endpoint: base, HTTPClient: p.cfg.HTTPClient, Retryer: aws.NopRetryer{}})
	}
	read := func() (aws.Credentials, error) {
		c := client()
		return ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = c }).Retrieve(context.Background())
	}
	if _, err := read(); err == nil {
		t.Error("credentials without an instance")
	}
	s.SetInstance(fakeaws.InstanceSpec{Role: role})
	a, err := read()
	if err != nil {
		t.Fatal(err)
	}
	who := func(c aws.Credentials) string {
		x, err := p.with(&types.Credentials{AccessKeyId: &c.AccessKeyID, SecretAccessKey: &c.SecretAccessKey, SessionToken: &c.SessionToken}).who()
		if err != nil {
			t.Error(err)
		}
		return x
	}
	if x := who(a); x != "arn:aws:sts::111122223333:assumed-role/instance/i-0123456789abcdef0" {
		t.Error(x)
	}
	if b, err := read(); err != nil || b.AccessKeyID != a.AccessKeyID {
		t.Errorf("other credentials at once: %v", err)
	}
	if r, err := client().GetRegion(context.Background(), nil); err != nil || r.Region != "eu-west-1" {
		t.Errorf("%+v %v", r, err)
	}
	b := fakeawstest.NewBrowser(t, false)
	const list = "/latest/meta-data/iam/security-credentials/"
	if x := b.Open(base + list); x.Status != 401 {
		t.Errorf("without a token: %d", x.Status)
	}
	s.SetInstance(fakeaws.InstanceSpec{Role: role, V1: true})
	if x := b.Open(base + list); x.Status != 200 || x.Body != "instance" {
		t.Errorf("%+v", x)
	}
	s.SetInstance(fakeaws.InstanceSpec{Role: role, NoV2: true})
	if _, err := read(); err != nil || s.Count("IMDSToken") < 2 {
		t.Errorf("the old endpoint: %v", err)
	}
	s.SetInstance(fakeaws.InstanceSpec{Role: "arn:aws:iam::111122223333:role/gone"})
	if _, err := read(); err == nil || !strings.Contains(err.Error(), "AssumeRoleUnauthorizedAccess") {
		t.Errorf("%v", err)
	}

	path := s.AddContainer(fakeaws.ContainerSpec{Role: role, Token: "s3cret"})
	fetch := func(token string) (aws.Credentials, error) {
		return endpointcreds.New(base+path, func(o *endpointcreds.Options) {
			o.AuthorizationToken, o.HTTPClient, o.Retryer = token, p.cfg.HTTPClient, aws.NopRetryer{}
		}).Retrieve(context.Background())
	}
	if x, err := fetch("s3cret"); err != nil || !strings.HasSuffix(who(x), "/container-task") {
		t.Errorf("%v", err)
	}
	if _, err := fetch("other"); err == nil {
		t.Error("accepted")
	}
}
