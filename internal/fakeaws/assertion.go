package fakeaws

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"sort"
	"strings"
	"time"
)

// Assertion is a SAML 2.0 assertion (saml-core-2.0) as far as AWS reads it.
type Assertion struct {
	Issuer, Subject, Audience, Recipient            string
	IssueInstant, NotOnOrAfter, SessionNotOnOrAfter time.Time
	Attributes                                      map[string][]string // by full name

	signed    string // the assertion without its signature, as it was written
	signature string // the ds:Signature element
	id        string
}

// xmlText escapes text and attribute values alike, where no canonical form is
// needed.
func xmlText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "\r", "&#xD;").Replace(s)
}

// innerText is canonical XML's text: a quotation mark stays itself.
func innerText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#xD;").Replace(s)
}

// xmlAttr is canonical XML's attribute value: > stays itself.
func xmlAttr(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", `"`, "&quot;", "\t", "&#x9;", "\n", "&#xA;", "\r", "&#xD;").Replace(s)
}

// write makes the assertion in exclusive canonical form (xml-exc-c14n), so
// that its signature is one over its very bytes; the signature goes between
// the two parts.
func (a *Assertion) write(id string) (before, after string) {
	const t = "2006-01-02T15:04:05Z"
	at := func(x time.Time) string { return x.UTC().Format(t) }
	before = `<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="` + id + `" IssueInstant="` + at(a.IssueInstant) + `" Version="2.0">` +
		`<saml:Issuer>` + innerText(a.Issuer) + `</saml:Issuer>`
	var b strings.Builder
	b.WriteString(`<saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">` + innerText(a.Subject) + `</saml:NameID>` +
		`<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData NotOnOrAfter="` + at(a.NotOnOrAfter) + `" Recipient="` + xmlAttr(a.Recipient) + `"></saml:SubjectConfirmationData></saml:SubjectConfirmation></saml:Subject>` +
		`<saml:Conditions NotBefore="` + at(a.IssueInstant) + `" NotOnOrAfter="` + at(a.NotOnOrAfter) + `"><saml:AudienceRestriction><saml:Audience>` + innerText(a.Audience) + `</saml:Audience></saml:AudienceRestriction></saml:Conditions>` +
		`<saml:AuthnStatement AuthnInstant="` + at(a.IssueInstant) + `" SessionIndex="` + id + `"`)
	if !a.SessionNotOnOrAfter.IsZero() {
		b.WriteString(` SessionNotOnOrAfter="` + at(a.SessionNotOnOrAfter) + `"`)
	}
	b.WriteString(`><saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement><saml:AttributeStatement>`)
	names := make([]string, 0, len(a.Attributes))
	for k := range a.Attributes {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		b.WriteString(`<saml:Attribute Name="` + xmlAttr(k) + `">`)
		for _, v := range a.Attributes[k] {
			b.WriteString(`<saml:AttributeValue>` + innerText(v) + `</saml:AttributeValue>`)
		}
		b.WriteString(`</saml:Attribute>`)
	}
	b.WriteString(`</saml:AttributeStatement></saml:Assertion>`)
	return before, b.String()
}

const (
	dsig          = "http://www.w3.org/2000/09/xmldsig#"
	signedInfoTag = `<ds:SignedInfo xmlns:ds="` + dsig + `">` // as it is signed; in the document the namespace stands one element up
	responseStart = `<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol"`
)

func signedInfo(id string, digest []byte) string {
	return `<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"></ds:SignatureMethod>` +
		`<ds:Reference URI="#` + id + `"><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></ds:Transform><ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:Transform></ds:Transforms>` +
		`<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></ds:DigestMethod><ds:DigestValue>` + base64.StdEncoding.EncodeToString(digest) + `</ds:DigestValue></ds:Reference></ds:SignedInfo>`
}

// response signs the assertion and makes the SAMLResponse of a form: base64
// of a response that holds it.
func (a *Assertion) response(key *rsa.PrivateKey) string {
	id := "_" + requestID()
	before, after := a.write(id)
	digest := sha256.Sum256([]byte(before + after))
	info := signedInfo(id, digest[:])
	sum := sha256.Sum256([]byte(signedInfoTag + info))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	ds := `<ds:Signature xmlns:ds="` + dsig + `"><ds:SignedInfo>` + info + `<ds:SignatureValue>` + base64.StdEncoding.EncodeToString(sig) + `</ds:SignatureValue></ds:Signature>`
	doc := responseStart + ` Destination="` + xmlAttr(a.Recipient) + `" ID="_` + requestID() + `" IssueInstant="` + a.IssueInstant.UTC().Format("2006-01-02T15:04:05Z") + `" Version="2.0">` +
		`<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"></samlp:StatusCode></samlp:Status>` + before + ds + after + `</samlp:Response>`
	return base64.StdEncoding.EncodeToString([]byte(doc))
}

// readAssertion reads a SAMLResponse that response made. It reads the very
// bytes that verify judges, so nothing outside them is believed.
func readAssertion(text string) (*Assertion, error) {
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, err
	}
	doc := string(b)
	from, to := strings.Index(doc, "<saml:Assertion "), strings.Index(doc, "</saml:Assertion>")
	if from < 0 || to < from || strings.Count(doc, "<saml:Assertion ") != 1 {
		return nil, errors.New("not one assertion")
	}
	doc = doc[from : to+len("</saml:Assertion>")]
	a := &Assertion{signed: doc, Attributes: map[string][]string{}}
	const end = "</ds:Signature>"
	if i, j := strings.Index(doc, "<ds:Signature "), strings.Index(doc, end); i >= 0 && j > i {
		a.signature, a.signed = doc[i:j+len(end)], doc[:i]+doc[j+len(end):]
	}
	var x struct {
		ID           string    `xml:"ID,attr"`
		IssueInstant time.Time `xml:"IssueInstant,attr"`
		Issuer       string    `xml:"Issuer"`
		Subject      struct {
			NameID string `xml:"NameID"`
			Data   struct {
				NotOnOrAfter time.Time `xml:"NotOnOrAfter,attr"`
				Recipient    string    `xml:"Recipient,attr"`
			} `xml:"SubjectConfirmation>SubjectConfirmationData"`
		} `xml:"Subject"`
		Audience string `xml:"Conditions>AudienceRestriction>Audience"`
		Authn    struct {
			End string `xml:"SessionNotOnOrAfter,attr"`
		} `xml:"AuthnStatement"`
		Attributes []struct {
			Name   string   `xml:"Name,attr"`
			Values []string `xml:"AttributeValue"`
		} `xml:"AttributeStatement>Attribute"`
	}
	if err := xml.Unmarshal([]byte(a.signed), &x); err != nil {
		return nil, err
	}
	a.id, a.Issuer, a.Subject, a.Audience, a.Recipient = x.ID, x.Issuer, x.Subject.NameID, x.Audience, x.Subject.Data.Recipient
	a.IssueInstant, a.NotOnOrAfter = x.IssueInstant, x.Subject.Data.NotOnOrAfter
	if x.Authn.End != "" {
		if a.SessionNotOnOrAfter, err = time.Parse(time.RFC3339, x.Authn.End); err != nil {
			return nil, err
		}
	}
	for _, t := range x.Attributes {
		a.Attributes[t.Name] = t.Values
	}
	return a, nil
}

// verify judges the XML signature (xmldsig-core, RSA-SHA256, exclusive
// canonical form). Only documents that are written in canonical form, as ours
// are, verify.
func (a *Assertion) verify(key *rsa.PrivateKey) error {
	var x struct {
		Value string `xml:"SignatureValue"`
	}
	if a.signature == "" || xml.Unmarshal([]byte(a.signature), &x) != nil {
		return errors.New("not signed")
	}
	digest := sha256.Sum256([]byte(a.signed))
	// The whole SignedInfo follows from the assertion: whatever else the
	// document's says, the signature is then not one over this.
	info := signedInfo(a.id, digest[:])
	sig, err := base64.StdEncoding.DecodeString(x.Value)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(signedInfoTag + info))
	return rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], sig)
}

func (a *Assertion) value(name string) string {
	if v := a.Attributes[samlAttributes+name]; len(v) > 0 {
		return strings.TrimSpace(v[0])
	}
	return ""
}

// pairs are the roles offered, each with its provider.
func (a *Assertion) pairs() [][2]string {
	var out [][2]string
	for _, v := range a.Attributes[samlAttributes+"Role"] {
		x, y, ok := strings.Cut(v, ",")
		x, y = strings.TrimSpace(x), strings.TrimSpace(y)
		if strings.Contains(x, ":saml-provider/") {
			x, y = y, x
		}
		if ok {
			out = append(out, [2]string{x, y})
		}
	}
	return out
}

func (a *Assertion) offers(role, provider string) bool {
	for _, p := range a.pairs() {
		if p == [2]string{role, provider} {
			return true
		}
	}
	return false
}
