package saml

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
	"keyfob/profiles"
)

// What AWS would refuse is said early, in one line, and AWS is not called.
func TestWrongAssertions(t *testing.T) {
	w := newWorld(t)
	xml := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	response := func(inner string) string {
		return xml(`<p:Response xmlns:p="urn:oasis:names:tc:SAML:2.0:protocol" xmlns="urn:oasis:names:tc:SAML:2.0:assertion">` + inner + `</p:Response>`)
	}
	role := []string{reader}
	audience := func(a string) string {
		return w.posts(fakeaws.SAMLSpec{Roles: role, Audience: a}, nil)
	}
	recipient := func(a string) string { return w.posts(fakeaws.SAMLSpec{Roles: role, ACS: a}, nil) }
	change := func(f func(*fakeaws.Assertion)) string { return w.posts(fakeaws.SAMLSpec{Roles: role}, f) }
	for _, c := range []struct{ name, text, want, help string }{
		{"audience", audience("urn:somebody:else"), "it is for another audience, urn:somebody:else", "AWS takes urn:amazon:webservices in partition aws"},
		{"china's audience", audience("urn:amazon:webservices:cn-north-1"), "another audience, urn:amazon:webservices:cn-north-1 (partition aws-cn)", "correct the audience at the identity provider, or region"},
		{"govcloud's address as audience", audience("https://signin.amazonaws-us-gov.com/saml"), "(partition aws-us-gov)", ""},
		{"recipient", recipient("https://elsewhere.example.com/saml"), "it is for another recipient, https://elsewhere.example.com/saml", "AWS takes https://signin.aws.amazon.com/saml"},
		{"china's recipient", recipient("https://signin.amazonaws.cn/saml"), "another recipient, https://signin.amazonaws.cn/saml (partition aws-cn)", ""},
		{"recipient in look-alike", recipient("https://signin.aws.amazon.com.evil.example/saml"), "another recipient", ""},
		{"recipient without TLS", recipient("http://signin.aws.amazon.com/saml"), "another recipient", ""},
		{"no role", change(func(a *fakeaws.Assertion) { delete(a.Attributes, attributes+"Role") }), "it offers no role", "needs values of the form"},
		{"bad roles", change(func(a *fakeaws.Assertion) { a.Attributes[attributes+"Role"] = []string{"x", reader, idp + "," + idp} }), "its 3 roles are not written as AWS wants", ""},
		{"another partition's role", change(func(a *fakeaws.Assertion) {
			a.Attributes[attributes+"Role"] = []string{strings.ReplaceAll(reader+","+idp, "arn:aws:", "arn:aws-cn:")}
		}), "does not offer", "it offers arn:aws-cn:"},
		{"status", response(`<p:Status><p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Responder"><p:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:AuthnFailed"/></p:StatusCode></p:Status>`), "refused the sign-in (AuthnFailed)", ""},
		{"encrypted", response(`<EncryptedAssertion><x/></EncryptedAssertion>`), "it is encrypted, so that its roles can't be read", "set role_arn and principal_arn"},
		{"no assertion", response(`<Issuer>x</Issuer>`), "without an assertion", ""},
		{"not base64", "canary!", "it is not base64", "the identity provider's page posted it"},
		{"not XML", xml("canary"), "it is not XML", ""},
		{"half XML", response("\n<canary>\n"), "it is not XML (line 3)", ""},
		{"HTML", xml("<!DOCTYPE html><html>canary</html>"), "declares a document type", ""},
		{"entities", xml(`<!DOCTYPE x [<!ENTITY a "canary">]><x>&a;</x>`), "declares a document type", ""},
		{"undeclared entity", response("&canary;"), "it is not XML", ""},
		{"another charset", xml(`<?xml version="1.0" encoding="ISO-8859-1"?><x/>`), "it is not XML", ""},
		{"an assertion alone", xml(`<Assertion xmlns="urn:oasis:names:tc:SAML:2.0:assertion"/>`), "not a SAML response", ""},
		{"another Response", xml(`<Response/>`), "not a SAML response", ""},
		{"two documents", xml(`<Response xmlns="urn:oasis:names:tc:SAML:2.0:protocol"></Response><Response xmlns="urn:oasis:names:tc:SAML:2.0:protocol"/>`), "not a SAML response", ""},
		{"deep", response(strings.Repeat("<x>", 5000)), "too deep", ""},
		{"long", base64.StdEncoding.EncodeToString(make([]byte, 75_001)), "longer than AWS takes", ""},
		{"long XML", "<x>" + strings.Repeat("y", 80_000) + "</x>", "longer than AWS takes", ""},
		{"a time that is none", response(`<Assertion><Conditions NotOnOrAfter="canary"/></Assertion>`), "has a time that is none", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, l := range []profiles.Link{w.link(), w.link("role_arn", reader)} {
				w.t = t
				w.answers(c.text)
				_, err := w.fetch(l)
				refused(t, err, false, "cannot use the assertion of profile dev: ", c.want, c.help)
			}
		})
	}
	if n := len(w.aws.Calls()); n != 0 {
		t.Errorf("AWS was called %d times", n)
	}
}

// AWS takes a region's own address, and the provider's number behind it.
func TestRightAddresses(t *testing.T) {
	a := addresseeOf(profiles.Client{EndpointURL: map[string]string{"signin": "http://127.0.0.1:80"}}, "aws")
	for _, to := range []string{"https://signin.aws.amazon.com/saml", "https://eu-west-1.signin.aws.amazon.com/saml", "https://signin.aws.amazon.com/saml/acs/SAMLSP123", "http://127.0.0.1:80/saml"} {
		if !a.takes(to) || !a.hears(to) {
			t.Errorf("%s is refused", to)
		}
	}
	if !a.hears("signin.aws.amazon.com") || !a.hears("urn:amazon:webservices") || a.hears("urn:amazon:webservices:govcloud") {
		t.Error("audiences")
	}
	for _, to := range []string{"https://signin.aws.amazon.com/samlx", "https://signin.aws.amazon.com/saml/x", "https://xsignin.aws.amazon.com/saml", "http://127.0.0.1:81/saml", "%"} {
		if a.takes(to) {
			t.Errorf("%s is taken", to)
		}
	}
}

// An assertion that the person kept is judged here; one that comes fresh out
// of a browser is AWS's to judge, because our clock may be the wrong one.
func TestExpiredAssertion(t *testing.T) {
	w := newWorld(t)
	old := w.posts(fakeaws.SAMLSpec{}, func(a *fakeaws.Assertion) { a.NotOnOrAfter = time.Now().Add(-time.Hour) })
	_, err := w.fetch(w.link("role_arn", reader))
	refused(t, err, false, "AWS says that the assertion has expired", "sign in again")
	w.given = old
	calls := len(w.aws.Calls())
	_, err = w.fetch(w.link("role_arn", reader))
	refused(t, err, false, "cannot use the assertion of profile dev: it expired at ", "within five minutes")
	w.given = w.posts(fakeaws.SAMLSpec{}, func(a *fakeaws.Assertion) { a.SessionNotOnOrAfter = time.Now().Add(-time.Hour) })
	_, err = w.fetch(w.link("role_arn", reader))
	refused(t, err, false, "the session at the identity provider ended at ")
	if len(w.aws.Calls()) != calls {
		t.Error("AWS was called")
	}
}

// With our clock an hour ahead, an assertion that the person kept is good
// once AWS has shown its clock.
func TestExpiryByAWSsClock(t *testing.T) {
	w := newWorld(t)
	w.aws.SetClock(-time.Hour)
	var skew time.Duration
	w.deps.Skew = func(d time.Duration) { skew = d }
	text := w.posts(fakeaws.SAMLSpec{}, nil)
	if _, err := w.fetch(w.link("role_arn", reader)); err != nil {
		t.Fatal(err)
	}
	if skew > -59*time.Minute || skew < -61*time.Minute {
		t.Errorf("skew %v", skew)
	}
	w.given = text
	if _, err := w.fetch(w.link("role_arn", reader)); err != nil {
		t.Error(err)
	}
	w.given = w.posts(fakeaws.SAMLSpec{}, func(a *fakeaws.Assertion) { a.NotOnOrAfter = time.Now().Add(-2 * time.Hour) })
	_, err := w.fetch(w.link("role_arn", reader))
	refused(t, err, false, "it expired at ")
}

// What can't be read is passed on where the profile says whose it is.
func TestEncryptedAssertion(t *testing.T) {
	w := newWorld(t)
	w.answers(base64.StdEncoding.EncodeToString([]byte(`<p:Response xmlns:p="urn:oasis:names:tc:SAML:2.0:protocol" xmlns="urn:oasis:names:tc:SAML:2.0:assertion"><EncryptedAssertion/></p:Response>`)))
	_, err := w.fetch(w.link("role_arn", reader, "principal_arn", idp))
	refused(t, err, false, "AWS does not accept the assertion of the identity provider")
	if calls := w.aws.Calls(); len(calls) != 1 || calls[0].Params["RoleArn"] != reader || calls[0].Params["PrincipalArn"] != idp || calls[0].Params["DurationSeconds"] != "3600" {
		t.Errorf("%+v", calls)
	}
}

// What AWS refuses is said in words that help.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	fetch := func(spec fakeaws.SAMLSpec, kv ...string) error {
		w.posts(spec, nil)
		_, err := w.fetch(w.link(append([]string{"role_arn", reader}, kv...)...))
		return err
	}
	refused(t, fetch(fakeaws.SAMLSpec{Wrong: "signature"}), false, "AWS does not accept the assertion of https://idp.example.com/saml", "metadata")
	refused(t, fetch(fakeaws.SAMLSpec{Wrong: "issuer"}), false, "AWS does not accept the assertion of https://elsewhere.example.com")
	refused(t, fetch(fakeaws.SAMLSpec{SessionDuration: 10000}), false, "less than the 10000 s of the assertion's SessionDuration", "set a lower duration_seconds in profile dev")
	refused(t, fetch(fakeaws.SAMLSpec{}, "duration_seconds", "10000"), false, "less than the 10000 s of duration_seconds")
	w.aws.AddRole(fakeaws.RoleSpec{ARN: reader, Trust: []fakeaws.Trust{{Federated: []string{idp + "x"}}}})
	e := refused(t, fetch(fakeaws.SAMLSpec{}), false, "AWS denies it to the bearer of the assertion", "sts:AssumeRoleWithSAML to "+idp)
	if e.Code != "AccessDenied" || e.Status != 403 || e.Target != reader {
		t.Errorf("%+v", e)
	}
	w.aws.SetOutage(fakeaws.Refused)
	e = refused(t, fetch(fakeaws.SAMLSpec{}), true, "cannot assume role "+reader+": ")
	if e.Status != 0 {
		t.Errorf("%+v", e)
	}
}

// An answer that quotes the assertion, whole or cut, shows nothing of it.
func TestQuotedAssertion(t *testing.T) {
	w := newWorld(t)
	text := w.posts(fakeaws.SAMLSpec{}, nil)
	w.secrets = append(w.secrets, text[:100], text[len(text)/2:][:60])
	for _, quoted := range []string{text, text[:120], text[len(text)/2:][:200]} {
		s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/xml")
			rw.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(rw, `<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code><Message>Value '%s' at 'sAMLAssertion' failed.</Message></Error></ErrorResponse>`, quoted)
		}))
		t.Cleanup(s.Close)
		l := w.link("role_arn", reader)
		l.Client.EndpointURL = map[string]string{"sts": s.URL}
		_, err := w.fetch(l)
		refused(t, err, false, "AWS takes no such assertion (Value '[redacted]' at 'sAMLAssertion' failed)")
	}
}

// No text makes the reader fall over, and none is echoed.
func FuzzRead(f *testing.F) {
	f.Add(`<p:Response xmlns:p="urn:oasis:names:tc:SAML:2.0:protocol" xmlns="urn:oasis:names:tc:SAML:2.0:assertion"><Assertion><Conditions NotOnOrAfter="2026-01-02T03:04:05Z"/><AttributeStatement><Attribute Name="https://aws.amazon.com/SAML/Attributes/Role"><AttributeValue>a,b</AttributeValue></Attribute></AttributeStatement></Assertion></p:Response>`)
	f.Add("PHg+")
	f.Add("\ufeff <x>&#0;</x>")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := read(text)
		if err == nil && (r.text == "" || len(r.text) > maxAssertion || r.assertions == 0 && !r.encrypted && r.status == "") {
			t.Errorf("%q gave %+v", text, r)
		}
		if err != nil && len(text) > 12 && strings.Contains(err.Error(), strings.TrimSpace(text)) {
			t.Errorf("%v quotes it", err)
		}
	})
}
