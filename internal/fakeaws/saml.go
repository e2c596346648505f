package fakeaws

import (
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // AWS's NameQualifier is defined over SHA-1
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	samlAttributes   = "https://aws.amazon.com/SAML/Attributes/"
	defaultSAMLPlace = "https://signin.aws.amazon.com/saml"
)

// SAMLSpec describes a SAML identity provider of the fake: its page is
// URL/saml/idp/NAME (URL/saml/idp for "idp"). It takes the parameters acs
// (where the form posts to) and RelayState.
type SAMLSpec struct {
	Name string `json:"name"` // default "idp"
	User string `json:"user"` // the NameID and RoleSessionName, default alice@example.com; a form's user name goes before
	// Roles are the ARNs offered; each one's account has an IAM SAML
	// provider of the name.
	Roles []string `json:"roles"`
	// SessionDuration and SessionSeconds (SessionNotOnOrAfter) in seconds;
	// 0 leaves them out.
	SessionDuration int `json:"session_duration"`
	SessionSeconds  int `json:"session_seconds"`
	// AssertionSeconds is how long the assertion can be used, default 300.
	AssertionSeconds int               `json:"assertion_seconds"`
	SourceIdentity   string            `json:"source_identity"`
	Tags             map[string]string `json:"tags"`
	TransitiveTags   []string          `json:"transitive_tags"`
	Audience         string            `json:"audience"` // default urn:amazon:webservices
	ACS              string            `json:"acs"`      // default https://signin.aws.amazon.com/saml
	// Reversed writes PROVIDER,ROLE with white space around.
	Reversed bool `json:"reversed"`
	// Wrong makes its responses wrong: "signature" or "issuer".
	Wrong string `json:"wrong"`
}

// samlRoom is a SAML identity provider, and AWS's sign-in address that its
// form posts to.
var samlRoom = restRoom("saml", pageFailure, &apiError{status: 429, code: "TooManyRequests", message: "Too many requests"},
	route{"", "/saml/idp", "SAMLLogin", action{run: samlLogin, unsigned: true}},
	route{"", "/saml/idp/{p}", "SAMLLogin", action{run: samlLogin, unsigned: true}},
	route{"GET", "/saml/metadata/{p}", "SAMLMetadata", action{run: samlMetadata, unsigned: true}},
	route{"POST", "/saml", "SAMLSignIn", action{run: samlSignIn, unsigned: true}},
	route{"POST", "/saml/acs/{id}", "SAMLSignIn", action{run: samlSignIn, unsigned: true}},
)

func pageFailure(_ *request, e *apiError) *answer { return note(e.status, e.code, e.message) }

// samlState is the memory of the SAML side. Server.mu guards it.
type samlState struct {
	providers map[string]*samlProvider
	trusted   map[string]*samlProvider // by the ARN of the IAM provider
}

func newSAMLState() samlState {
	return samlState{providers: map[string]*samlProvider{}, trusted: map[string]*samlProvider{}}
}

type samlProvider struct {
	spec SAMLSpec
	key  *rsa.PrivateKey // made at its first use
}

func (p *samlProvider) signer() *rsa.PrivateKey {
	if p.key == nil {
		p.key = newRSAKey()
	}
	return p.key
}

func (p *samlProvider) issuer() string { return "https://" + p.spec.Name + ".example.com/saml" }

// SAMLProviderARN is the ARN of the IAM SAML provider of a name.
func SAMLProviderARN(acct, name string) string {
	return "arn:aws:iam::" + acct + ":saml-provider/" + name
}

// providerOf is the IAM provider that goes with a role.
func providerOf(roleARN, name string) string {
	part, acct, _, _ := splitARN(roleARN)
	return "arn:" + part + ":iam::" + acct + ":saml-provider/" + name
}

// AddSAML adds a SAML identity provider, or replaces that of the same name
// (its key stays), and returns the path of its page.
func (s *Server) AddSAML(spec SAMLSpec) (path string) {
	path, err := s.addSAML(spec)
	if err != nil {
		panic("fakeaws: " + err.Error())
	}
	return path
}

func (s *Server) addSAML(spec SAMLSpec) (string, error) {
	set(&spec.Name, "idp")
	set(&spec.User, "alice@example.com")
	set(&spec.Audience, "urn:amazon:webservices")
	set(&spec.ACS, defaultSAMLPlace)
	setInt(&spec.AssertionSeconds, 300)
	for _, arn := range spec.Roles {
		if _, _, resource, ok := splitARN(arn); !ok || !strings.HasPrefix(resource, "role/") {
			return "", fmt.Errorf("SAML provider %s: %q is not a role ARN", spec.Name, arn)
		}
	}
	if spec.Wrong != "" && spec.Wrong != "signature" && spec.Wrong != "issuer" {
		return "", fmt.Errorf("a SAML response can't be wrong in %q", spec.Wrong)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.saml.providers[spec.Name]
	if p == nil {
		p = &samlProvider{}
		s.saml.providers[spec.Name] = p
	}
	p.spec = spec
	for _, arn := range spec.Roles {
		s.saml.trusted[providerOf(arn, spec.Name)] = p
	}
	return "/saml/idp/" + spec.Name, nil
}

// SAMLResponse makes a response as the provider's page would post it, base64.
// change, if not nil, may change the assertion before it is signed.
func (s *Server) SAMLResponse(provider string, change func(*Assertion)) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.saml.providers[provider]
	if p == nil {
		return "", errors.New("there is no SAML provider " + provider)
	}
	return s.samlResponseLocked(p, p.spec.User, p.spec.ACS, change), nil
}

func (s *Server) samlResponseLocked(p *samlProvider, user, acs string, change func(*Assertion)) string {
	now := s.nowLocked().Truncate(time.Second)
	x := p.spec
	a := &Assertion{Issuer: p.issuer(), Subject: user, Audience: x.Audience, Recipient: acs, IssueInstant: now, NotOnOrAfter: now.Add(time.Duration(x.AssertionSeconds) * time.Second),
		Attributes: map[string][]string{samlAttributes + "RoleSessionName": {user}}}
	for _, arn := range x.Roles {
		pair := arn + "," + providerOf(arn, x.Name)
		if x.Reversed {
			pair = " " + providerOf(arn, x.Name) + " ,\n  " + arn + " "
		}
		a.Attributes[samlAttributes+"Role"] = append(a.Attributes[samlAttributes+"Role"], pair)
	}
	if x.SessionDuration > 0 {
		a.Attributes[samlAttributes+"SessionDuration"] = []string{itoa(x.SessionDuration)}
	}
	if x.SessionSeconds > 0 {
		a.SessionNotOnOrAfter = now.Add(time.Duration(x.SessionSeconds) * time.Second)
	}
	if x.SourceIdentity != "" {
		a.Attributes[samlAttributes+"SourceIdentity"] = []string{x.SourceIdentity}
	}
	for k, v := range x.Tags {
		a.Attributes[samlAttributes+"PrincipalTag:"+k] = []string{v}
	}
	if len(x.TransitiveTags) > 0 {
		a.Attributes[samlAttributes+"TransitiveTagKeys"] = x.TransitiveTags
	}
	key := p.signer()
	switch x.Wrong {
	case "issuer":
		a.Issuer = "https://elsewhere.example.com"
	case "signature":
		key = newRSAKey()
	}
	if change != nil {
		change(a)
	}
	return a.response(key)
}

func samlLogin(s *Server, q *request) (any, error) {
	p := s.saml.providers[orElse(q.path["p"], "idp")]
	if p == nil {
		return nil, fail(http.StatusNotFound, "NotFound", "There is no such provider.")
	}
	v, user, page := s.consentLocked(q, SignInSAML, "Sign in to "+p.spec.Name)
	switch {
	case page != nil:
		return page, nil
	case v == refusedByPerson:
		return note(http.StatusForbidden, "AccessDenied", "You may not use this application."), nil
	}
	acs := orElse(q.query.Get("acs"), p.spec.ACS)
	if u, err := url.Parse(acs); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Path != "/saml" && !strings.HasPrefix(u.Path, "/saml/acs/") {
		return nil, badOAuth("BadRequest", "acs is not a SAML sign-in address of AWS.")
	}
	return htmlPage(http.StatusOK, selfPoster, struct{ Action, Response, RelayState string }{
		acs, s.samlResponseLocked(p, orElse(user, p.spec.User), acs, nil), q.query.Get("RelayState")}), nil
}

func samlMetadata(s *Server, q *request) (any, error) {
	p := s.saml.providers[q.path["p"]]
	if p == nil {
		return nil, fail(http.StatusNotFound, "NotFound", "There is no such provider.")
	}
	e := base64.StdEncoding.EncodeToString
	body := `<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="` + xmlText(p.issuer()) + `"><IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">` +
		`<KeyDescriptor use="signing"><KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><KeyValue><RSAKeyValue><Modulus>` + e(p.signer().N.Bytes()) + `</Modulus><Exponent>AQAB</Exponent></RSAKeyValue></KeyValue></KeyInfo></KeyDescriptor>` +
		`<SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="` + xmlText(q.base()+"/saml/idp/"+p.spec.Name) + `"/></IDPSSODescriptor></EntityDescriptor>`
	return &answer{status: http.StatusOK, contentType: "application/samlmetadata+xml", body: []byte(body)}, nil
}

// samlSignIn is the page behind https://signin.aws.amazon.com/saml. A client
// that takes the assertion out of the browser never gets here: its counter
// says so.
func samlSignIn(s *Server, q *request) (any, error) {
	a, err := readAssertion(q.params.Get("SAMLResponse"))
	if err != nil {
		return nil, badOAuth("InvalidSAML", "Your request included an invalid SAML response.")
	}
	var roles []string
	for _, pair := range a.pairs() {
		if p := s.saml.trusted[pair[1]]; p != nil && a.Issuer == p.issuer() && a.verify(p.signer()) == nil && q.now.Before(a.NotOnOrAfter) {
			roles = append(roles, pair[0])
		}
	}
	if roles == nil {
		return nil, fail(http.StatusForbidden, "InvalidSAML", "Your request included an invalid SAML response.")
	}
	return htmlPage(http.StatusOK, rolesPage, roles), nil
}

// samlAudience judges an assertion's audience for a partition.
func samlAudience(partition, audience string) bool {
	ok := map[string][]string{
		"aws":        {"urn:amazon:webservices", "signin.aws.amazon.com"},
		"aws-cn":     {"urn:amazon:webservices:cn-north-1", "signin.amazonaws.cn"},
		"aws-us-gov": {"urn:amazon:webservices:govcloud", "signin.amazonaws-us-gov.com"},
	}[partition]
	if contains(ok, audience) {
		return true
	}
	u, err := url.Parse(audience)
	return err == nil && u.Scheme == "https" && slices.ContainsFunc(ok, func(h string) bool {
		return (u.Host == h || strings.HasSuffix(u.Host, "."+h)) && (u.Path == "/saml" || strings.HasPrefix(u.Path, "/saml/acs/"))
	})
}

// nameQualifier is AWS's hash that tells identity providers apart.
func nameQualifier(issuer, acct, provider string) string {
	sum := sha1.Sum([]byte(issuer + acct + "/" + provider)) //nolint:gosec // as AWS defines it
	return base64.StdEncoding.EncodeToString(sum[:])
}
