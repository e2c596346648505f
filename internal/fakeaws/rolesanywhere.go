package fakeaws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// TrustAnchorSpec is a Roles Anywhere trust anchor.
type TrustAnchorSpec struct {
	ARN      string `json:"arn"`      // default one of DefaultAccount in eu-west-1
	PEM      string `json:"pem"`      // the authority's certificate or certificates
	Disabled bool   `json:"disabled"` // requests are refused
}

// AnywhereProfile is a Roles Anywhere profile.
type AnywhereProfile struct {
	ARN                   string   `json:"arn"`              // default one of DefaultAccount in eu-west-1
	Roles                 []string `json:"roles"`            // ARNs; nil is every role that trusts the service
	DurationSeconds       int      `json:"duration_seconds"` // default 3600, the most that can be asked
	AcceptRoleSessionName bool     `json:"accept_role_session_name"`
	Disabled              bool     `json:"disabled"`
}

// Names used where a spec gives none.
const (
	DefaultTrustAnchorARN     = "arn:aws:rolesanywhere:eu-west-1:" + DefaultAccount + ":trust-anchor/11111111-2222-4333-8444-555555555555"
	DefaultAnywhereProfileARN = "arn:aws:rolesanywhere:eu-west-1:" + DefaultAccount + ":profile/66666666-7777-4888-9999-000000000000"
	anywhereService           = "rolesanywhere.amazonaws.com"
)

// anywhereRoom is IAM Roles Anywhere's CreateSession, which is in no SDK
// model: as the official credential helper and the user guide have it.
var anywhereRoom = restRoom("rolesanywhere", anywhereFailure, &apiError{status: 429, code: "ThrottlingException", message: "Rate exceeded"},
	route{"POST", "/sessions", "CreateSession", action{run: createSession, unsigned: true}}, // signed by a certificate
)

func anywhereFailure(_ *request, e *apiError) *answer {
	e = generic(e, map[string]string{"InternalFailure": "InternalServerException", "InvalidAction": "UnknownOperationException", "ValidationError": "ValidationException",
		"AccessDenied": "AccessDeniedException", "IncompleteSignature": "AccessDeniedException", "SignatureDoesNotMatch": "AccessDeniedException"})
	a := jsonAnswer(e.status, map[string]string{"message": e.message})
	a.code = e.code
	return a.errorType(e.code)
}

// anywhereState is Roles Anywhere's memory. Server.mu guards it.
type anywhereState struct {
	anchors  map[string]*anchor
	profiles map[string]*AnywhereProfile
}

type anchor struct {
	spec  TrustAnchorSpec
	roots *x509.CertPool
}

// AddTrustAnchor adds or replaces a trust anchor and returns its ARN.
func (s *Server) AddTrustAnchor(spec TrustAnchorSpec) (arn string) {
	arn, err := s.addTrustAnchor(spec)
	if err != nil {
		panic("fakeaws: " + err.Error())
	}
	return arn
}

func (s *Server) addTrustAnchor(spec TrustAnchorSpec) (string, error) {
	set(&spec.ARN, DefaultTrustAnchorARN)
	a := &anchor{spec: spec, roots: x509.NewCertPool()}
	for rest := []byte(spec.PEM); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return "", fmt.Errorf("trust anchor %s: %w", spec.ARN, err)
		}
		a.roots.AddCert(c)
	}
	if a.roots.Equal(x509.NewCertPool()) {
		return "", fmt.Errorf("trust anchor %s: no certificate in PEM", spec.ARN)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.anywhere.anchors[spec.ARN] = a
	return spec.ARN, nil
}

// AddAnywhereProfile adds or replaces a Roles Anywhere profile and returns
// its ARN.
func (s *Server) AddAnywhereProfile(p AnywhereProfile) (arn string) {
	set(&p.ARN, DefaultAnywhereProfileARN)
	setInt(&p.DurationSeconds, 3600)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.anywhere.profiles[p.ARN] = &p
	return p.ARN
}

func anywhereDenied(format string, args ...any) error {
	return fail(http.StatusForbidden, "AccessDeniedException", format, args...)
}

func createSession(s *Server, q *request) (any, error) {
	leaf, chain, err := anywhereCertificates(q)
	if err != nil {
		return nil, err
	}
	sig, err := verifyX509Request(s, q, leaf)
	if err != nil {
		return nil, err
	}
	one := func(name string) string { return q.params.Get(name) } // query or body
	if one("trustAnchorArn") == "" || one("profileArn") == "" || one("roleArn") == "" {
		return nil, fail(http.StatusBadRequest, "ValidationException", "trustAnchorArn, profileArn and roleArn are required")
	}
	for _, name := range []string{"trustAnchorArn", "profileArn"} {
		if p := strings.Split(one(name), ":"); len(p) != 6 || p[2] != "rolesanywhere" || p[3] != sig.region {
			return nil, fail(http.StatusBadRequest, "ValidationException", "%s is not a resource of the region %s", name, sig.region)
		}
	}
	t, p := s.anywhere.anchors[one("trustAnchorArn")], s.anywhere.profiles[one("profileArn")]
	if t == nil {
		return nil, fail(http.StatusNotFound, "ResourceNotFoundException", "Trust Anchor with ARN %s was not found.", one("trustAnchorArn"))
	}
	if p == nil {
		return nil, fail(http.StatusNotFound, "ResourceNotFoundException", "Profile with ARN %s was not found.", one("profileArn"))
	}
	if t.spec.Disabled {
		return nil, anywhereDenied("Trust Anchor is not enabled")
	}
	if p.Disabled {
		return nil, anywhereDenied("Profile is not enabled")
	}
	if !trusted(leaf, chain, t.roots, q.now) {
		return nil, anywhereDenied("Untrusted signing certificate")
	}
	in := &assumeInput{roleARN: one("roleArn"), sessionName: leaf.SerialNumber.Text(16), sourceIdentity: "CN=" + leaf.Subject.CommonName, now: q.now, seconds: p.DurationSeconds, tags: map[string]string{}}
	if v := q.params.Get("durationSeconds"); v != "" {
		var n int
		if _, err := fmt.Sscan(v, &n); err != nil || n < 900 || n > 43200 {
			return nil, fail(http.StatusBadRequest, "ValidationException", "durationSeconds must be between 900 and 43200")
		}
		in.seconds = min(n, p.DurationSeconds)
	}
	if name := one("roleSessionName"); name != "" {
		if !p.AcceptRoleSessionName {
			return nil, anywhereDenied("Not authorized to set roleSessionName.")
		}
		c := checks{}
		if c.value(name, "roleSessionName", sessionNameLimits); c.err() != nil {
			return nil, fail(http.StatusBadRequest, "ValidationException", "%v", c.wrong[0])
		}
		in.sessionName = name
	}
	r := s.roles[in.roleARN]
	if p.Roles != nil && !contains(p.Roles, in.roleARN) || r == nil || r.refusesFederated(anywhereService, "", "", in) || in.seconds > r.spec.MaxSessionDuration {
		return nil, anywhereDenied("Unable to assume role for ARN: %s", in.roleARN)
	}
	who := in.session(r)
	who.via = viaAnywhere
	x := s.issueLocked(who, in.seconds)
	q.issued = x.id
	_, acct, _, _ := splitARN(t.spec.ARN)
	subject := sha256.Sum256(leaf.RawSubject)
	a := jsonAnswer(http.StatusCreated, map[string]any{
		"credentialSet": []any{map[string]any{
			"assumedRoleUser": map[string]string{"arn": who.arn, "assumedRoleId": who.id},
			"credentials": map[string]string{"accessKeyId": x.id, "secretAccessKey": x.secret, "sessionToken": x.token,
				"expiration": q.fault.expiration(x.expires, q.now).UTC().Format(xmlTime)},
			"packedPolicySize": 0, "roleArn": r.spec.ARN, "sourceIdentity": in.sourceIdentity,
		}},
		"subjectArn": "arn:aws:rolesanywhere:" + sig.region + ":" + acct + ":subject/" + uuidOf(subject[:16]),
	})
	return a, nil
}

func uuidOf(b []byte) string {
	x := hex.EncodeToString(b)
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

// anywhereCertificates reads X-Amz-X509 and X-Amz-X509-Chain.
func anywhereCertificates(q *request) (leaf *x509.Certificate, chain []*x509.Certificate, err error) {
	bad := fail(http.StatusBadRequest, "ValidationException", "X-Amz-X509 or X-Amz-X509-Chain is not base64 of DER certificates")
	read := func(text string) (*x509.Certificate, bool) {
		der, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || strings.ContainsAny(text, "\r\n") {
			return nil, false
		}
		c, err := x509.ParseCertificate(der)
		return c, err == nil
	}
	var ok bool
	if q.http.Header.Get("X-Amz-X509") == "" {
		return nil, nil, anywhereDenied("Missing Authentication Token")
	}
	if leaf, ok = read(q.http.Header.Get("X-Amz-X509")); !ok {
		return nil, nil, bad
	}
	if v := q.http.Header.Get("X-Amz-X509-Chain"); v != "" {
		for part := range strings.SplitSeq(v, ",") {
			c, ok := read(part)
			if !ok || len(chain) == 5 {
				return nil, nil, bad
			}
			chain = append(chain, c)
		}
	}
	return leaf, chain, nil
}

// trusted judges the leaf and its chain, by the user guide's "Signature
// verification" and "Certificate requirements".
func trusted(leaf *x509.Certificate, chain []*x509.Certificate, roots *x509.CertPool, now time.Time) bool {
	strong := []x509.SignatureAlgorithm{x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512}
	if leaf.Version != 3 || leaf.IsCA || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 || !slices.Contains(strong, leaf.SignatureAlgorithm) {
		return false
	}
	between := x509.NewCertPool()
	for _, c := range chain {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

// verifyX509Request judges the signature: SigV4's canonical request, signed
// by the certificate's key itself.
func verifyX509Request(s *Server, q *request, leaf *x509.Certificate) (*signature, error) {
	algorithm := strings.SplitN(q.http.Header.Get("Authorization"), " ", 2)[0]
	var check func(digest, value []byte) bool
	switch k := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		check = func(d, v []byte) bool { return rsa.VerifyPKCS1v15(k, crypto.SHA256, d, v) == nil }
		if algorithm != "AWS4-X509-RSA-SHA256" {
			return nil, anywhereDenied("Unsupported algorithm for an RSA key: '%s'", algorithm)
		}
	case *ecdsa.PublicKey:
		check = func(d, v []byte) bool { return ecdsa.VerifyASN1(k, d, v) }
		if algorithm != "AWS4-X509-ECDSA-SHA256" {
			return nil, anywhereDenied("Unsupported algorithm for an EC key: '%s'", algorithm)
		}
	default:
		return nil, anywhereDenied("Untrusted signing certificate")
	}
	sig, err := readSignatureAs(q.http, nil, algorithm)
	if err != nil {
		return nil, err
	}
	q.sig = sig
	if err := sig.checkScope("rolesanywhere", s.set.regions); err != nil {
		return nil, err
	}
	if err := sig.checkTime(q.now); err != nil {
		return nil, err
	}
	need := []string{"host", "x-amz-date", "x-amz-x509"}
	for _, h := range []string{"Content-Type", "X-Amz-X509-Chain"} {
		if q.http.Header.Get(h) != "" {
			need = append(need, strings.ToLower(h))
		}
	}
	for _, h := range need {
		if !contains(sig.headers, h) {
			return nil, anywhereDenied("'%s' must be a 'SignedHeader' in the AWS Authorization.", h)
		}
	}
	if !slices.IsSorted(sig.headers) {
		return nil, anywhereDenied("SignedHeaders must be sorted")
	}
	if sig.keyID != leaf.SerialNumber.String() {
		return nil, anywhereDenied("The serial in the credential is not the certificate's")
	}
	toSign, err := sig.stringToSign(q.http, q.body, algorithm)
	if err != nil {
		return nil, err
	}
	value, herr := hex.DecodeString(sig.value)
	digest := sha256.Sum256([]byte(toSign))
	if herr != nil || !check(digest[:], value) {
		return nil, anywhereDenied("The request signature we calculated does not match the signature you provided.")
	}
	return sig, nil
}
