package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

const (
	containerHost = "http://169.254.170.2" // of a relative URI
	// containerLimit of one request: EKS's agent asks EKS first.
	containerLimit = 5 * time.Second
	maxTokenFile   = 64 << 10

	containerService = "the container's credential service"

	envRelative  = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
	envFull      = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
	envToken     = "AWS_CONTAINER_AUTHORIZATION_TOKEN"
	envTokenFile = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
)

// containerAddresses are those that plain http may be used for besides the
// loopback ones: ECS's, and those of EKS Pod Identity.
var containerAddresses = []netip.Addr{
	netip.MustParseAddr("169.254.170.2"), netip.MustParseAddr("169.254.170.23"), netip.MustParseAddr("fd00:ec2::23"),
}

// container is the credential service of ECS, EKS Pod Identity and what
// speaks like them.
type container struct {
	link profiles.Link
	c    client
	d    Deps
	path string // with its query, byte for byte
}

func newContainer(link profiles.Link, d Deps) (cred.Source, error) {
	s := &container{link: link, d: d}
	raw, name := link.Params["full_uri"], envFull
	if rel := link.Params["relative_uri"]; rel != "" {
		raw, name = containerHost+rel, envRelative
		if !strings.HasPrefix(rel, "/") {
			return nil, unusable(link, name+" does not begin with /", "")
		}
	}
	if raw == "" {
		return nil, unusable(link, "its source is the container (EcsContainer), and neither "+envRelative+" nor "+envFull+" is set for keyfobd",
			"keyfobd must run inside the task or pod, in the foreground: keyfobd run")
	}
	base, err := parseBase(raw)
	if err != nil {
		return nil, unusable(link, name+" "+err.Error(), "")
	}
	if i := strings.Index(raw, "://"); i >= 0 {
		if j := strings.IndexAny(raw[i+3:], "/?"); j >= 0 {
			s.path = raw[i+3+j:]
		}
	}
	if !strings.HasPrefix(s.path, "/") {
		s.path = "/" + s.path
	}
	s.c = client{base: base, d: &s.d, limit: containerLimit}
	if base.Scheme == "http" {
		s.c.may = mayPlain
		if a, err := netip.ParseAddr(base.Hostname()); err == nil && !mayPlain(a.Unmap().WithZone("")) {
			return nil, unusable(link, name+" names "+base.Host+", and "+errForbidden.Error(), "https is allowed from everywhere")
		}
	}
	if d.Own != nil && d.Own(s.c.address()) {
		return nil, unusable(link, name+" names "+base.Host+", which is keyfob itself and would ask itself for ever", "start keyfobd without that variable")
	}
	return s, nil
}

func mayPlain(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	for _, x := range containerAddresses {
		if a == x {
			return true
		}
	}
	return false
}

func (s *container) Interactive() bool { return false }

// Reach tells whether the service can be connected to.
func (s *container) Reach(ctx context.Context) error { return s.c.reach(ctx) }

// Upstream names the service.
func (s *container) Upstream() string { return s.c.upstream() }

// Fetch makes one request. Errors: *cred.UpstreamError, Refused where the
// service says no (a wrong token is none: the file may be about to change);
// one that Is cred.ErrConfig where the address may not be asked; the
// context's when that was cancelled.
func (s *container) Fetch(ctx context.Context, _ cred.Input) (cred.Credentials, error) {
	token, err := s.authorization()
	if err != nil {
		return cred.Credentials{}, err
	}
	header := []string{"Accept", "application/json"}
	if !token.IsZero() {
		header = append(header, "Authorization", token.Reveal())
	}
	call := s.c.open()
	defer call.close()
	r, err := call.do(ctx, http.MethodGet, s.path, header...)
	if err != nil {
		return cred.Credentials{}, unanswered(ctx, s.link, containerService, call, err)
	}
	defer clear(r.body)
	if r.status != http.StatusOK {
		return cred.Credentials{}, s.refused(r, token)
	}
	var doc struct {
		RoleArn, AccessKeyID, SecretAccessKey, Token, AccountID, Expiration string
	}
	if err := json.Unmarshal(r.body, &doc); err != nil {
		return cred.Credentials{}, s.bad("its answer is not the JSON expected")
	}
	c, why := usable(cred.Credentials{AccessKeyID: doc.AccessKeyID, SecretAccessKey: cred.NewSecret(doc.SecretAccessKey), SessionToken: cred.NewSecret(doc.Token)},
		doc.Expiration, s.d.now())
	if why != "" {
		return cred.Credentials{}, s.bad(why)
	}
	if c.AccountID = doc.AccountID; len(c.AccountID) != 12 || strings.Trim(c.AccountID, "0123456789") != "" {
		c.AccountID = account(doc.RoleArn)
	}
	if account(doc.RoleArn) != "" {
		c.RoleARN = doc.RoleArn
	}
	return c, nil
}

// authorization is the token as it is now: EKS writes a new one into the
// file every few hours. The file beats the variable, as in most SDKs.
func (s *container) authorization() (cred.Secret, error) {
	path := s.link.Params["authorization_token_file"]
	if path == "" {
		if s.link.Secrets == nil {
			return cred.Secret{}, nil
		}
		_, token := s.link.Secrets.Reveal()
		if !headerText(token) {
			return cred.Secret{}, unusable(s.link, envToken+" holds a line end or another character that no header has", "")
		}
		return cred.NewSecret(token), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return cred.Secret{}, s.badFile(path, reason(err))
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, maxTokenFile+1)
	defer clear(b)
	n := 0
	for n < len(b) {
		m, err := f.Read(b[n:])
		n += m
		if m == 0 || err != nil {
			break
		}
	}
	token := strings.TrimRight(string(b[:n]), "\r\n")
	switch {
	case n > maxTokenFile:
		return cred.Secret{}, s.badFile(path, fmt.Sprintf("it is longer than %d bytes", maxTokenFile))
	case token == "":
		return cred.Secret{}, s.badFile(path, "it is empty")
	case !headerText(token):
		return cred.Secret{}, s.badFile(path, "it holds more than one line, or a character that no header has")
	}
	return cred.NewSecret(token), nil
}

func (s *container) badFile(path, why string) error {
	return failure(s.link, containerService, "the token file "+path+" ("+envTokenFile+") can't be used: "+why, "")
}

func headerText(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c >= 0x7f })
}

// reason is an error's own words without the path.
func reason(err error) string {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// refused is an answer other than 200: {"code","message"} where the service
// is of ECS's kind.
func (s *container) refused(r response, token cred.Secret) error {
	e := statusFailure(s.link, containerService, r.status)
	var doc struct{ Code, Message string }
	if json.Unmarshal(r.body, &doc) == nil && doc.Code+doc.Message != "" {
		text := doc.Code
		if doc.Message != "" {
			text = strings.TrimPrefix(text+": "+doc.Message, ": ")
		}
		if !token.IsZero() {
			text = strings.ReplaceAll(text, token.Reveal(), cred.Redacted)
		}
		if text = printable(text); text != "" {
			e.Message += ": " + text
		}
		e.Code = printable(doc.Code)
	}
	switch r.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		e.Help = "check " + envTokenFile + " or " + envToken + " in the environment of keyfobd"
	}
	return e
}

func (s *container) bad(why string) error {
	e := failure(s.link, containerService, why, "check "+envFull+" in the environment of keyfobd: who answers is "+s.c.base.Host)
	e.Status = http.StatusOK
	return e
}

// statusFailure is an HTTP answer that is none of success. Whatever is no
// sign of a passing trouble is a refusal.
func statusFailure(link profiles.Link, what string, status int) *cred.UpstreamError {
	text := http.StatusText(status)
	if text != "" {
		text = " " + text
	}
	why := fmt.Sprintf("it answered HTTP %d%s", status, text)
	if status == http.StatusTooManyRequests {
		why = "it limits the rate of calls: " + why
	}
	e := failure(link, what, why, "")
	e.Status = status
	e.Refused = status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout && status != http.StatusUnauthorized
	if status >= 300 && status < 400 {
		e.Help = "redirects are not followed: check the endpoint"
	}
	return e
}

// unanswered is a request without an answer.
func unanswered(ctx context.Context, link profiles.Link, what string, call *session, err error) error {
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	if errors.Is(err, errOwn) || errors.Is(err, errForbidden) {
		return unusable(link, call.words(err), "")
	}
	e := failure(link, what, call.words(err), "check that keyfobd runs on the instance or in the container")
	e.Err = errors.New(call.words(err))
	return e
}
