package fakeaws

import (
	"encoding/json"
	"encoding/xml"
	"net/http"
	"strings"
	"time"
)

func invalidIdentity(format string, args ...any) *apiError {
	return fail(http.StatusBadRequest, "InvalidIdentityToken", format, args...)
}

// readFederated reads the parameters that both federated calls share.
func readFederated(q *request, c *checks) *assumeInput {
	return &assumeInput{roleARN: c.text("RoleArn", roleARNLimits), seconds: c.seconds(900, 43200, 3600), now: q.now}
}

// federatedRole judges the role for an identity provider's word.
func (s *Server) federatedRole(q *request, in *assumeInput, provider, audience, subject string) (*role, error) {
	r := s.roles[in.roleARN]
	if r == nil || r.refusesFederated(provider, audience, subject, in) {
		return nil, accessDenied("Not authorized to perform sts:%s", q.action)
	}
	if in.seconds > r.spec.MaxSessionDuration {
		return nil, invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	return r, nil
}

type xmlRoleUser struct {
	AssumedRoleID string `xml:"AssumedRoleId"`
	Arn           string
}

func roleUserOf(q *request, who *principal) xmlRoleUser {
	return xmlRoleUser{who.id, strings.Replace(who.arn, "::"+who.account+":", "::"+q.fault.account(who.account)+":", 1)}
}

var (
	webTokenLimits = limits{4, 20000, nil, "", true}
	assertionLimit = limits{4, 100000, nil, "", true}
	federationName = limits{2, 32, nameRE, `[\w+=,.@-]*`, true}
)

// tokenClaims are the claims that STS reads. aud is a string or a list.
type tokenClaims struct {
	Iss string    `json:"iss"`
	Sub string    `json:"sub"`
	Aud oneOrMore `json:"aud"`
	Azp string    `json:"azp"`
	Exp float64   `json:"exp"`
	Nbf float64   `json:"nbf"`
	Iat float64   `json:"iat"`

	SourceIdentity string `json:"https://aws.amazon.com/source_identity"`
	Tags           struct {
		Principal  map[string][]string `json:"principal_tags"`
		Transitive []string            `json:"transitive_tag_keys"`
	} `json:"https://aws.amazon.com/tags"`
}

func assumeRoleWithWebIdentity(s *Server, q *request) (any, error) {
	c := checks{params: q.params}
	in := readFederated(q, &c)
	in.sessionName = c.text("RoleSessionName", sessionNameLimits)
	token := c.text("WebIdentityToken", webTokenLimits)
	if err := in.readRest(q, &c); err != nil {
		return nil, err
	}
	x, err := parseJWS(token)
	var claims tokenClaims
	if err == nil {
		err = json.Unmarshal(x.payload, &claims)
	}
	if err != nil {
		return nil, invalidIdentity("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	_, acct, _, _ := splitARN(in.roleARN)
	p := s.trustedIssuerLocked(acct, claims.Iss)
	if p == nil {
		return nil, invalidIdentity("No OpenIDConnect provider found in your account for %s", claims.Iss)
	}
	if p.verify(x) != nil {
		return nil, invalidIdentity("Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements")
	}
	now := float64(q.now.UnixNano()) / 1e9
	if now >= claims.Exp {
		return nil, fail(http.StatusBadRequest, "ExpiredTokenException", "Token expired: current date/time %d must be before the expiration date/time %d", int64(now), int64(claims.Exp))
	}
	if claims.Sub == "" || claims.Iat == 0 || claims.Nbf > now+300 || claims.Iat > now+300 {
		return nil, invalidIdentity("Missing a required claim: sub, iat or exp, or the token is not valid yet")
	}
	audience := claims.Azp
	if len(claims.Aud) == 1 {
		audience = claims.Aud[0]
	}
	if !contains(p.audiences, audience) {
		return nil, invalidIdentity("Incorrect token audience")
	}
	in.sourceIdentity = claims.SourceIdentity
	for k, v := range claims.Tags.Principal {
		if len(v) > 0 {
			in.tags[k] = v[0]
		}
	}
	in.transitive = claims.Tags.Transitive
	r, err := s.federatedRole(q, in, p.arn, audience, claims.Sub)
	if err != nil {
		return nil, err
	}
	who := in.session(r)
	who.via = viaWebIdentity
	return struct {
		XMLName          xml.Name `xml:"AssumeRoleWithWebIdentityResult"`
		Subject          string   `xml:"SubjectFromWebIdentityToken"`
		Audience         string
		Provider         string
		SourceIdentity   string `xml:",omitempty"`
		AssumedRoleUser  xmlRoleUser
		Credentials      xmlCredentials
		PackedPolicySize int `xml:",omitempty"`
	}{Subject: claims.Sub, Audience: audience, Provider: p.arn, SourceIdentity: in.sourceIdentity, AssumedRoleUser: roleUserOf(q, &who),
		Credentials: credentialsOf(q, s.issueLocked(who, in.seconds)), PackedPolicySize: in.packed}, nil
}

func assumeRoleWithSAML(s *Server, q *request) (any, error) {
	c := checks{params: q.params}
	in := readFederated(q, &c)
	principalARN := c.text("PrincipalArn", roleARNLimits)
	text := c.text("SAMLAssertion", assertionLimit)
	if err := in.readRest(q, &c); err != nil {
		return nil, err
	}
	a, err := readAssertion(text)
	if err != nil {
		return nil, invalidIdentity("Invalid base64 SAMLResponse")
	}
	p := s.saml.trusted[principalARN]
	if p == nil {
		return nil, invalidIdentity("Specified provider doesn't exist")
	}
	if a.Issuer != p.issuer() {
		return nil, invalidIdentity("Issuer not present in specified provider")
	}
	if a.verify(p.signer()) != nil {
		return nil, invalidIdentity("Response signature invalid")
	}
	part, acct, _, _ := splitARN(in.roleARN)
	if !samlAudience(part, a.Audience) {
		return nil, invalidIdentity("Invalid audience: %s", a.Audience)
	}
	if !q.now.Before(a.NotOnOrAfter) || q.now.After(a.IssueInstant.Add(5*time.Minute)) {
		return nil, fail(http.StatusBadRequest, "ExpiredTokenException", "Token must be redeemed within 5 minutes of issuance")
	}
	if !a.offers(in.roleARN, principalARN) {
		return nil, accessDenied("Not authorized to perform sts:AssumeRoleWithSAML")
	}
	in.sessionName = a.value("RoleSessionName")
	in.sourceIdentity = a.value("SourceIdentity")
	for name, v := range a.Attributes {
		if k, ok := strings.CutPrefix(name, samlAttributes+"PrincipalTag:"); ok && len(v) > 0 {
			in.tags[k] = v[0]
		}
	}
	in.transitive = a.Attributes[samlAttributes+"TransitiveTagKeys"]
	c = checks{}
	c.value(in.sessionName, "roleSessionName", sessionNameLimits)
	if c.err() != nil {
		return nil, invalidIdentity("RoleSessionName is required in AuthnResponse")
	}
	// SessionDuration is what the console takes; this call goes by
	// DurationSeconds alone, and by the identity provider's own end.
	r, err := s.federatedRole(q, in, principalARN, a.Recipient, a.Subject)
	if err != nil {
		return nil, err
	}
	if !a.SessionNotOnOrAfter.IsZero() {
		in.seconds = min(in.seconds, int(a.SessionNotOnOrAfter.Sub(q.now).Seconds()))
		if in.seconds <= 0 {
			return nil, fail(http.StatusBadRequest, "ExpiredTokenException", "The session of the identity provider has ended")
		}
	}
	who := in.session(r)
	who.via = viaSAML
	return struct {
		XMLName          xml.Name `xml:"AssumeRoleWithSAMLResult"`
		Issuer           string
		Audience         string
		Subject          string
		SubjectType      string
		NameQualifier    string
		SourceIdentity   string `xml:",omitempty"`
		AssumedRoleUser  xmlRoleUser
		Credentials      xmlCredentials
		PackedPolicySize int `xml:",omitempty"`
	}{Issuer: a.Issuer, Audience: a.Recipient, Subject: a.Subject, SubjectType: "persistent", NameQualifier: nameQualifier(a.Issuer, acct, p.spec.Name),
		SourceIdentity: in.sourceIdentity, AssumedRoleUser: roleUserOf(q, &who), Credentials: credentialsOf(q, s.issueLocked(who, in.seconds)), PackedPolicySize: in.packed}, nil
}

func getFederationToken(s *Server, q *request) (any, error) {
	c := checks{params: q.params}
	in := &assumeInput{sessionName: c.text("Name", federationName), seconds: c.seconds(900, 129600, 43200), now: q.now}
	if err := in.readRest(q, &c); err != nil {
		return nil, err
	}
	if q.who.temp {
		return nil, accessDenied("Cannot call GetFederationToken with session credentials")
	}
	u := q.who.user
	if u.spec.Root {
		in.seconds = min(in.seconds, 3600)
	}
	who := principal{
		arn: "arn:" + u.spec.Partition + ":sts::" + u.spec.Account + ":federated-user/" + in.sessionName, id: u.spec.Account + ":" + in.sessionName,
		account: u.spec.Account, partition: u.spec.Partition, user: u, tags: in.tags, via: viaFederation,
		policy: in.policy, policyText: in.policyText, policyARNs: in.policyARNs,
	}
	if who.policy == nil {
		who.policy = &policy{} // without a policy the session may do nothing
	}
	x := s.issueLocked(who, in.seconds)
	out := struct {
		XMLName       xml.Name `xml:"GetFederationTokenResult"`
		FederatedUser struct {
			FederatedUserID string `xml:"FederatedUserId"`
			Arn             string
		}
		Credentials      xmlCredentials
		PackedPolicySize int
	}{Credentials: credentialsOf(q, x), PackedPolicySize: in.packed}
	out.FederatedUser.FederatedUserID, out.FederatedUser.Arn = who.id, who.arn
	return out, nil
}
