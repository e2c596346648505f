package rolesanywhere

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/smithy-go"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/profiles"
)

// service is the id of the service in profiles.Client.EndpointURL, in the
// credential scope and in host names.
const service = "rolesanywhere"

// maxChain is how many intermediates a request may carry.
const maxChain = 5

// endpoint is the URL of Roles Anywhere by these settings. Errors:
// *awsclient.SettingsError.
func endpoint(ctx context.Context, c profiles.Client) (*url.URL, error) {
	cfg, err := awsclient.Config(ctx, c, nil, awsclient.Options{Service: service})
	if err != nil {
		return nil, err
	}
	if cfg.BaseEndpoint != nil {
		return url.Parse(*cfg.BaseEndpoint)
	}
	// The names follow the general form of each partition, whose suffixes
	// the rules of STS know.
	u, err := awsclient.STSEndpoint(ctx, profiles.Client{Region: c.Region, UseDualStack: c.UseDualStack})
	suffix := ""
	if err == nil {
		suffix = strings.TrimPrefix(u.Host, "sts."+c.Region+".")
	}
	if err != nil || suffix == u.Host {
		return nil, &awsclient.SettingsError{Text: "cannot tell the endpoint of Roles Anywhere in region " + c.Region,
			Help: "check the region of " + settingAnchor + " and use_dualstack_endpoint", Err: err}
	}
	name := service
	if c.UseFIPS {
		name += "-fips"
	}
	return &url.URL{Scheme: "https", Host: name + "." + c.Region + "." + suffix}, nil
}

// call is one CreateSession.
type call struct {
	s        *source
	id       *identity
	pool     *awsclient.Pool
	endpoint *url.URL
	seen     awsclient.Seen
}

// body is what stands in the request beside its ARNs, which are in the query.
type body struct {
	DurationSeconds int    `json:"durationSeconds"`
	RoleSessionName string `json:"roleSessionName,omitempty"`
}

// answer is CreateSession's.
type answer struct {
	CredentialSet []struct {
		AssumedRoleUser struct {
			ARN string `json:"arn"`
		} `json:"assumedRoleUser"`
		Credentials struct {
			AccessKeyID     string    `json:"accessKeyId"`
			SecretAccessKey string    `json:"secretAccessKey"`
			SessionToken    string    `json:"sessionToken"`
			Expiration      time.Time `json:"expiration"`
		} `json:"credentials"`
	} `json:"credentialSet"`
	SubjectARN string `json:"subjectArn"`
}

// createSession makes the call at now, by AWS's clock where it is known.
func (c *call) createSession(ctx context.Context, now time.Time) (cred.Credentials, error) {
	text, err := json.Marshal(body{c.s.duration, c.s.sessionName})
	if err != nil {
		return cred.Credentials{}, err
	}
	r, err := newRequest(ctx, c.endpoint, c.s.anchor.text, c.s.profile.text, c.s.role.text, text)
	if err != nil {
		return cred.Credentials{}, err
	}
	if err := c.id.signRequest(ctx, r, text, c.s.region, now); err != nil {
		return cred.Credentials{}, err
	}
	cfg, err := awsclient.Config(ctx, c.s.link.Client, nil, awsclient.Options{Service: service, Pool: c.pool, Seen: &c.seen})
	if err != nil {
		return cred.Credentials{}, c.failed(err)
	}
	out, err := c.exchange(cfg.HTTPClient, r)
	if f := c.seen.Facts(); f.DateKnown && c.s.d.Skew != nil {
		c.s.d.Skew(f.Skew)
	}
	if err != nil {
		return cred.Credentials{}, c.failed(err)
	}
	return c.granted(out)
}

// newRequest makes the request without its signature.
func newRequest(ctx context.Context, base *url.URL, anchor, profile, role string, text []byte) (*http.Request, error) {
	u := *base
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/")+"/sessions", ""
	// sorted, and escaped as the canonical request has it
	u.RawQuery = "profileArn=" + escape(profile) + "&roleArn=" + escape(role) + "&trustAnchorArn=" + escape(anchor)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	// What is signed is what is sent: a default port may be dropped on the way.
	r.Host = u.Host
	if port := u.Port(); port == "443" && u.Scheme == "https" || port == "80" && u.Scheme == "http" {
		r.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "keyfob")
	return r, nil
}

// escape leaves RFC 3986's unreserved characters alone.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// The algorithms of the Authorization header.
const (
	algorithmRSA   = "AWS4-X509-RSA-SHA256"
	algorithmECDSA = "AWS4-X509-ECDSA-SHA256"
)

// signedHeaders are those of r that are signed, sorted.
var signedHeaders = [...]string{"content-type", "host", "x-amz-date", "x-amz-x509", "x-amz-x509-chain"}

// signRequest adds the certificate, its chain and the signature to r.
func (id *identity) signRequest(ctx context.Context, r *http.Request, text []byte, region string, now time.Time) error {
	date := now.UTC().Format("20060102T150405Z")
	r.Header.Set("X-Amz-Date", date)
	r.Header.Set("X-Amz-X509", base64.StdEncoding.EncodeToString(id.leaf.Raw))
	if len(id.chain) > 0 {
		parts := make([]string, len(id.chain))
		for i, c := range id.chain {
			parts[i] = base64.StdEncoding.EncodeToString(c.Raw)
		}
		r.Header.Set("X-Amz-X509-Chain", strings.Join(parts, ","))
	}
	algorithm := algorithmECDSA
	if id.leaf.PublicKeyAlgorithm == x509.RSA {
		algorithm = algorithmRSA
	}
	canonical, names := canonicalRequest(r, text)
	scope := date[:8] + "/" + region + "/" + service + "/aws4_request"
	toSign := algorithm + "\n" + date + "\n" + scope + "\n" + hexSum([]byte(canonical))
	digest := sha256.Sum256([]byte(toSign))
	signature, err := id.signer.sign(ctx, digest[:])
	if err != nil {
		return err
	}
	if !verified(id.leaf.PublicKey, digest[:], signature) {
		// A key that lives in a device may differ from what its file says.
		return id.mismatch()
	}
	r.Header.Set("Authorization", algorithm+" Credential="+id.leaf.SerialNumber.String()+"/"+scope+
		", SignedHeaders="+names+", Signature="+hex.EncodeToString(signature))
	return nil
}

// canonicalRequest is r as Signature Version 4 has it, and the names of the
// signed headers.
func canonicalRequest(r *http.Request, text []byte) (canonical, names string) {
	var headers, list strings.Builder
	for _, name := range signedHeaders {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		if value == "" {
			continue
		}
		headers.WriteString(name + ":" + value + "\n")
		if list.Len() > 0 {
			list.WriteByte(';')
		}
		list.WriteString(name)
	}
	return strings.Join([]string{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, headers.String(), list.String(), hexSum(text)}, "\n"), list.String()
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// verified checks a signature with the public key of the certificate.
func verified(public crypto.PublicKey, digest, signature []byte) bool {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, signature)
	}
	return false
}

// exchange sends the request. An answer that is no session is an error that
// awsclient.Explain knows how to read.
func (c *call) exchange(client interface {
	Do(*http.Request) (*http.Response, error)
}, r *http.Request) (*answer, error) {
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusCreated || resp.StatusCode == http.StatusOK {
		var out answer
		if err := json.Unmarshal(text, &out); err != nil || out.CredentialSet == nil {
			return nil, errForeign
		}
		return &out, nil
	}
	var fault struct {
		Message string `json:"message"`
		Capital string `json:"Message"`
		Code    string `json:"code"`
		Type    string `json:"__type"`
	}
	_ = json.Unmarshal(text, &fault)
	code := resp.Header.Get("X-Amzn-Errortype")
	for _, other := range []string{fault.Code, fault.Type} {
		if code == "" {
			code = other
		}
	}
	code, _, _ = strings.Cut(code, ":")
	code = code[strings.LastIndexByte(code, '#')+1:]
	if code == "" {
		return nil, errForeign
	}
	if fault.Message == "" {
		fault.Message = fault.Capital
	}
	return nil, &smithy.GenericAPIError{Code: code, Message: fault.Message}
}

// granted turns an answer into credentials, and refuses half an answer: a
// program that gets keys without a token, or keys that have ended, fails
// later and with worse words.
func (c *call) granted(out *answer) (cred.Credentials, error) {
	if len(out.CredentialSet) == 0 {
		return cred.Credentials{}, c.bad("AWS's answer holds no credentials")
	}
	set := out.CredentialSet[0]
	k := set.Credentials
	got := cred.Credentials{
		AccessKeyID:     k.AccessKeyID,
		SecretAccessKey: cred.NewSecret(k.SecretAccessKey),
		SessionToken:    cred.NewSecret(k.SessionToken),
		Expires:         k.Expiration.UTC(),
		AccountID:       c.s.role.account,
		RoleARN:         c.s.role.text,
	}
	who, _ := parseARN(set.AssumedRoleUser.ARN)
	switch {
	case got.AccessKeyID == "" || got.SecretAccessKey.IsZero() || got.SessionToken.IsZero():
		return cred.Credentials{}, c.bad("AWS's answer lacks a part of the credentials")
	case k.Expiration.IsZero():
		return cred.Credentials{}, c.bad("AWS's answer does not say when the credentials end")
	case !got.Expires.After(time.Now().Add(c.seen.Facts().Skew)):
		return cred.Credentials{}, c.bad("AWS's answer holds credentials that ended at " + stamp(got.Expires))
	case who.account != got.AccountID:
		return cred.Credentials{}, c.bad("AWS's answer is for " + printable(who.text) + ", which is not in the role's account")
	}
	if c.s.d.Log != nil {
		c.s.d.Log.WithField(logging.Profile, c.s.link.Profile).WithField("role", c.s.role.text).WithField("subject", printable(out.SubjectARN)).
			WithField("session", printable(set.AssumedRoleUser.ARN)).WithField("certificate_serial", c.id.leaf.SerialNumber.Text(16)).
			WithField(logging.Expires, got.Expires).Debug("Roles Anywhere session created")
	}
	return got, nil
}
