package saml

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxAssertion is what AssumeRoleWithSAML takes, in characters of base64.
	maxAssertion = 100_000
	// maxDepth bounds how deep elements may stand in one another. Real
	// responses have about ten.
	maxDepth = 100

	protocolNS  = "urn:oasis:names:tc:SAML:2.0:protocol"
	assertionNS = "urn:oasis:names:tc:SAML:2.0:assertion"
	attributes  = "https://aws.amazon.com/SAML/Attributes/"
	success     = "urn:oasis:names:tc:SAML:2.0:status:Success"
)

// response is what is read of a SAML response (saml-core-2.0). Nothing in it
// is verified.
type response struct {
	text string // as AWS gets it: base64 without line ends

	status      string // the code's last word, "" for success
	issuer      string
	encrypted   bool // it holds an assertion that only AWS can read
	assertions  int
	audiences   []string
	recipients  []string
	ends        time.Time // the last moment is before this; zero for none
	sessionEnds time.Time // SessionNotOnOrAfter, zero for none
	roles       []grant
	badRoles    int // values of Role that are none
	seconds     int // SessionDuration, 0 for none
}

// grant is a role with the IAM provider by which it is assumed.
type grant struct{ role, provider string }

// read reads a response: base64, which may have line ends, or the XML that
// it encodes. Its errors hold nothing of what was read; they end "it is …".
func read(text string) (*response, error) {
	text = strings.TrimSpace(strings.TrimPrefix(text, "\ufeff"))
	var doc []byte
	if strings.HasPrefix(text, "<") {
		doc = []byte(text)
		text = base64.StdEncoding.EncodeToString(doc)
	} else {
		text = strings.Join(strings.Fields(text), "")
		if len(text) > maxAssertion {
			return nil, tooLong()
		}
		var err error
		if doc, err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, errors.New("it is not base64")
		}
	}
	switch {
	case text == "":
		return nil, errors.New("it is empty")
	case len(text) > maxAssertion:
		return nil, tooLong()
	}
	r := &response{text: text}
	if err := r.parse(doc); err != nil {
		return nil, err
	}
	return r, nil
}

func tooLong() error {
	return fmt.Errorf("it is longer than AWS takes (%d characters of base64)", maxAssertion)
}

// parse walks through the document. encoding/xml knows no entities but XML's
// own five; a document type, which could declare others, is refused.
func (r *response) parse(doc []byte) error {
	d := xml.NewDecoder(bytes.NewReader(doc))
	var path []xml.Name
	roots := 0
	var attribute string // the name of the attribute that we are in
	var text strings.Builder
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			line, _ := d.InputPos()
			return fmt.Errorf("it is not XML (line %d)", line)
		}
		switch t := token.(type) {
		case xml.Directive:
			return errors.New("it declares a document type, which no SAML response does")
		case xml.StartElement:
			if len(path) == 0 {
				if roots++; roots > 1 || t.Name != (xml.Name{Space: protocolNS, Local: "Response"}) {
					return errors.New("it is XML, but not a SAML response")
				}
			}
			if len(path) == maxDepth {
				return errors.New("its elements stand too deep in one another")
			}
			path = append(path, t.Name)
			text.Reset()
			if t.Name == (xml.Name{Space: assertionNS, Local: "Attribute"}) {
				attribute = attr(t, "Name")
			}
			if err := r.start(t); err != nil {
				return err
			}
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			r.end(t.Name, attribute, strings.TrimSpace(text.String()))
			text.Reset()
			path = path[:len(path)-1]
		}
	}
	if roots == 0 {
		return errors.New("it is not XML")
	}
	if r.assertions == 0 && !r.encrypted && r.status == "" {
		return errors.New("it is a SAML response without an assertion")
	}
	return nil
}

func attr(t xml.StartElement, name string) string {
	for _, a := range t.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return strings.TrimSpace(a.Value)
		}
	}
	return ""
}

// start reads an element's attributes.
func (r *response) start(t xml.StartElement) error {
	var err error
	switch t.Name {
	case xml.Name{Space: protocolNS, Local: "StatusCode"}:
		// The code within the code says more.
		if code := attr(t, "Value"); code != success && code != "" {
			r.status = code[strings.LastIndexByte(code, ':')+1:]
		}
	case xml.Name{Space: assertionNS, Local: "EncryptedAssertion"}:
		r.encrypted = true
	case xml.Name{Space: assertionNS, Local: "Assertion"}:
		r.assertions++
	case xml.Name{Space: assertionNS, Local: "SubjectConfirmationData"}:
		if to := attr(t, "Recipient"); to != "" {
			r.recipients = append(r.recipients, to)
		}
		err = earliest(&r.ends, attr(t, "NotOnOrAfter"))
	case xml.Name{Space: assertionNS, Local: "Conditions"}:
		err = earliest(&r.ends, attr(t, "NotOnOrAfter"))
	case xml.Name{Space: assertionNS, Local: "AuthnStatement"}:
		err = earliest(&r.sessionEnds, attr(t, "SessionNotOnOrAfter"))
	}
	return err
}

// earliest lowers at to a time of the document.
func earliest(at *time.Time, text string) error {
	if text == "" {
		return nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return errors.New("it has a time that is none")
	}
	if at.IsZero() || t.Before(*at) {
		*at = t.UTC()
	}
	return nil
}

// end reads an element's text.
func (r *response) end(name xml.Name, attribute, text string) {
	if name.Space != assertionNS {
		return
	}
	switch name.Local {
	case "Issuer":
		r.issuer = text
	case "Audience":
		r.audiences = append(r.audiences, text)
	case "AttributeValue":
		switch attribute {
		case attributes + "Role":
			if g, ok := readGrant(text); !ok {
				r.badRoles++
			} else if !slices.Contains(r.roles, g) {
				r.roles = append(r.roles, g)
			}
		case attributes + "SessionDuration":
			if n, err := strconv.Atoi(text); err == nil && n > 0 {
				r.seconds = n
			}
		}
	}
}

// readGrant reads a value of the attribute Role: the role's ARN and the
// provider's, in either order, with a comma between them.
func readGrant(text string) (grant, bool) {
	a, b, ok := strings.Cut(text, ",")
	g := grant{strings.TrimSpace(a), strings.TrimSpace(b)}
	if strings.Contains(g.role, ":saml-provider/") {
		g.role, g.provider = g.provider, g.role
	}
	return g, ok && isRole(g.role) && isProvider(g.provider)
}

func isRole(arn string) bool {
	return accountOf(arn) != "" && strings.HasPrefix(field(arn, 5), "role/")
}

func isProvider(arn string) bool {
	return accountOf(arn) != "" && strings.HasPrefix(field(arn, 5), "saml-provider/")
}

// field is the nth field, from 0, of arn:PARTITION:SERVICE:REGION:ACCOUNT:…
func field(arn string, n int) string {
	p := strings.SplitN(arn, ":", 6)
	if len(p) != 6 || p[0] != "arn" || strings.ContainsFunc(arn, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return ""
	}
	return p[n]
}

// accountOf is the account of an ARN of IAM, "" where there is none.
func accountOf(arn string) string {
	account := field(arn, 4)
	if field(arn, 2) != "iam" || len(account) != 12 || strings.Trim(account, "0123456789") != "" {
		return ""
	}
	return account
}
