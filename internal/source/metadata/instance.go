package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

const (
	instanceIPv4 = "http://169.254.169.254"
	instanceIPv6 = "http://[fd00:ec2::254]"

	instanceLimit = time.Second // of one request
	tokenSeconds  = "300"       // of the session token, which serves one fetch

	rolePath = "/latest/meta-data/iam/security-credentials/"
	infoPath = "/latest/meta-data/iam/info"
)

// service is what errors call it.
const service = "the instance metadata service"

// instance is the metadata service of an EC2 instance.
type instance struct {
	link   profiles.Link
	c      client
	d      Deps
	prefix string // of paths, where the endpoint has one
	v1     bool   // requests without a token may be made

	mu      sync.Mutex // guards account
	account string     // of the instance, "" until it is known
}

func newInstance(link profiles.Link, d Deps) (cred.Source, error) {
	s := &instance{link: link, d: d}
	if b, err := boolean(link, "ec2_metadata_disabled", false); err != nil {
		return nil, err
	} else if b {
		return nil, unusable(link, "its source is the instance, and ec2_metadata_disabled (AWS_EC2_METADATA_DISABLED) forbids to ask for it", "")
	}
	v1Disabled, err := boolean(link, "ec2_metadata_v1_disabled", true)
	if err != nil {
		return nil, err
	}
	s.v1 = !v1Disabled
	endpoint, name := link.Params["ec2_metadata_service_endpoint"], "ec2_metadata_service_endpoint"
	if endpoint == "" {
		name = "ec2_metadata_service_endpoint_mode"
		switch mode := link.Params[name]; strings.ToLower(mode) {
		case "", "ipv4":
			endpoint = instanceIPv4
		case "ipv6":
			endpoint = instanceIPv6
		default:
			return nil, unusable(link, name+" = "+printable(mode)+" is neither IPv4 nor IPv6", "")
		}
	}
	base, err := parseBase(endpoint)
	if err != nil || base.RawQuery != "" {
		return nil, unusable(link, name+" = "+printable(endpoint)+" is no http URL of a service", "")
	}
	s.prefix = strings.TrimRight(base.EscapedPath(), "/")
	s.c = client{base: base, d: &s.d, limit: instanceLimit}
	if d.Own != nil && d.Own(s.c.address()) {
		return nil, unusable(link, "its source is the instance, and "+base.Host+" is keyfob itself, which would ask itself for ever", "set ec2_metadata_service_endpoint to the instance's own")
	}
	return s, nil
}

// boolean reads a setting that is true or false.
func boolean(link profiles.Link, key string, unset bool) (bool, error) {
	switch v := link.Params[key]; strings.ToLower(strings.TrimSpace(v)) {
	case "":
		return unset, nil
	case "true":
		return true, nil
	case "false":
		return false, nil
	default:
		return false, unusable(link, key+" = "+printable(v)+" is neither true nor false", "")
	}
}

func (s *instance) Interactive() bool { return false }

// Reach tells whether the service can be connected to.
func (s *instance) Reach(ctx context.Context) error { return s.c.reach(ctx) }

// Upstream names the service.
func (s *instance) Upstream() string { return s.c.upstream() }

// Fetch asks for a token, the role's name and its credentials. Errors:
// *cred.UpstreamError, Refused where the instance has no role or says no;
// one that Is cred.ErrConfig where the address is keyfob's own; the context's
// when that was cancelled.
func (s *instance) Fetch(ctx context.Context, _ cred.Input) (cred.Credentials, error) {
	call := s.c.open()
	defer call.close()
	header, err := s.token(ctx, call)
	if err != nil {
		return cred.Credentials{}, err
	}
	role, err := s.get(ctx, call, rolePath, header)
	if err != nil {
		return cred.Credentials{}, err
	}
	name := strings.TrimRight(string(role.body), "\r\n")
	if !roleName(name) {
		return cred.Credentials{}, s.bad("its list of roles is not one name")
	}
	doc, err := s.get(ctx, call, rolePath+name, header)
	if err != nil {
		return cred.Credentials{}, err
	}
	c, err := s.read(doc)
	if err != nil {
		return cred.Credentials{}, err
	}
	c.AccountID = s.accountID(ctx, call, header)
	return c, nil
}

// token is the header that requests need, none where they are to be made
// without.
func (s *instance) token(ctx context.Context, call *session) ([]string, error) {
	r, err := call.do(ctx, http.MethodPut, s.prefix+"/latest/api/token", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds", tokenSeconds)
	if err != nil {
		e := s.unanswered(ctx, call, err)
		var u *cred.UpstreamError
		if errors.As(e, &u) {
			u.Help = "keyfobd must run on an EC2 instance; in a container there, its HttpPutResponseHopLimit must be 2 or more"
		}
		return nil, e
	}
	text := strings.TrimRight(string(r.body), "\r\n")
	switch r.status {
	case http.StatusOK:
		if text == "" || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			return nil, s.bad("its session token is none")
		}
		return []string{"X-Aws-Ec2-Metadata-Token", text}, nil
	case http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		if s.v1 {
			return nil, nil
		}
		e := s.status(r.status)
		e.Refused = true
		e.Message += " to a request for a session token (IMDSv2)"
		e.Help = "where the service is that old, ec2_metadata_v1_disabled = false allows requests without one"
		if r.status == http.StatusForbidden {
			e.Help = "the instance's metadata options forbid it (HttpEndpoint), or a proxy stands in between"
		}
		return nil, e
	}
	return nil, s.status(r.status)
}

// get is one GET; an answer other than 200 is an error.
func (s *instance) get(ctx context.Context, call *session, path string, header []string) (response, error) {
	r, err := call.do(ctx, http.MethodGet, s.prefix+path, header...)
	switch {
	case err != nil:
		return r, s.unanswered(ctx, call, err)
	case r.status == http.StatusOK:
		return r, nil
	}
	e := s.status(r.status)
	switch {
	case r.status == http.StatusNotFound && path == rolePath:
		e = failure(s.link, service, "the instance has no role", "attach an instance profile to it")
		e.Status, e.Refused = r.status, true
	case r.status == http.StatusUnauthorized && header == nil:
		e.Help = "the instance wants session tokens (IMDSv2), and a request for one was refused"
	}
	return r, e
}

func (s *instance) read(r response) (cred.Credentials, error) {
	var doc struct {
		Code, Message, AccessKeyID, SecretAccessKey, Token, Expiration string
	}
	defer clear(r.body)
	if err := json.Unmarshal(r.body, &doc); err != nil {
		return cred.Credentials{}, s.bad("its answer is not the JSON expected")
	}
	if doc.Code != "Success" {
		why := "it does not say Success"
		if doc.Code != "" {
			why = "it says " + printable(doc.Code)
			if m := printable(doc.Message); m != "" {
				why += ": " + m
			}
		}
		e := failure(s.link, service, why, "check the role's trust policy (ec2.amazonaws.com) and the instance profile")
		e.Code, e.Status, e.Refused = printable(doc.Code), r.status, true
		return cred.Credentials{}, e
	}
	c, why := usable(cred.Credentials{AccessKeyID: doc.AccessKeyID, SecretAccessKey: cred.NewSecret(doc.SecretAccessKey), SessionToken: cred.NewSecret(doc.Token)},
		doc.Expiration, s.d.now())
	if why != "" {
		return cred.Credentials{}, s.bad(why)
	}
	return c, nil
}

// accountID is the account of the instance, which is that of its role. It
// is asked for until it is known; credentials are as good without.
func (s *instance) accountID(ctx context.Context, call *session, header []string) string {
	s.mu.Lock()
	known := s.account
	s.mu.Unlock()
	if known != "" {
		return known
	}
	r, err := call.do(ctx, http.MethodGet, s.prefix+infoPath, header...)
	var doc struct{ InstanceProfileArn string }
	if err != nil || r.status != http.StatusOK || json.Unmarshal(r.body, &doc) != nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account = account(doc.InstanceProfileArn)
	return s.account
}

// roleName: what IAM takes for a role's name.
func roleName(s string) bool {
	if s == "" || len(s) > 128 || strings.Trim(s, ".") == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("+=,.@_-", c) >= 0) {
			return false
		}
	}
	return true
}

func (s *instance) bad(why string) error {
	e := failure(s.link, service, why, "check ec2_metadata_service_endpoint: who answers is "+s.c.base.Host)
	e.Status = http.StatusOK
	return e
}

func (s *instance) status(status int) *cred.UpstreamError {
	return statusFailure(s.link, service, status)
}

func (s *instance) unanswered(ctx context.Context, call *session, err error) error {
	return unanswered(ctx, s.link, service, call, err)
}
