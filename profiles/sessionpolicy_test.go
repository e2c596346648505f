package profiles

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const readOnly = "arn:aws:iam::aws:policy/ReadOnlyAccess"

// The policy of a query is the last link's, and where it can't be, nothing
// works.
func TestPolicyOfAQuery(t *testing.T) {
	const role2 = "arn:aws:iam::123456789012:role/second"
	w := world{config: "[profile base]\n" + pair +
		"[profile a]\nrole_arn = " + testRole + "\nsource_profile = base\n" +
		"[profile b]\nrole_arn = " + role2 + "\nsource_profile = inner\n" +
		"[profile inner]\nrole_arn = " + testRole + "\nsource_profile = base\nsession_policy_arns = " + readOnly + "\n" +
		"[profile mfa]\nmfa_serial = " + testMFA + "\n" + pair +
		"[profile web]\nrole_arn = " + testRole + "\nweb_identity_token_file = /t\n" +
		"[profile oidc]\nrole_arn = " + testRole + "\noidc_issuer = https://i\noidc_client_id = c\n" +
		"[profile saml]\nrole_arn = " + testRole + "\nsaml_url = https://i\n" +
		"[profile own]\nrole_arn = " + testRole + "\nsource_profile = base\nsession_policy = p.json\n" +
		"[profile arns]\nrole_arn = " + testRole + "\nsource_profile = base\nsession_policy_arns = " + readOnly + "\n" +
		"[profile sso]\nsso_start_url = u\nsso_region = eu-west-1\nsso_account_id = 1\nsso_role_name = r\n" +
		"[profile login]\nlogin_session = s\n" +
		"[profile process]\ncredential_process = /bin/x\n" +
		"[profile anywhere]\nrole_arn = " + testRole + "\nroles_anywhere_trust_anchor_arn = " + testRole + "\nroles_anywhere_profile_arn = " + testRole + "\nroles_anywhere_certificate = c\n"}
	s, _ := w.load(t)
	for _, c := range []struct{ profile, role, err, hint string }{
		{profile: "a"},
		{profile: "b"}, // the policy of the link below is that link's
		{profile: "web"},
		{profile: "oidc"},
		{profile: "saml"},
		{profile: "sso", role: role2},
		{profile: "base", role: role2},
		{"base", "", "a link of kind session-token, and only the session of a role takes one", "name a role"},
		{"mfa", "", "a link of kind session-token", "name a role"},
		{"sso", "", "a link of kind sso", "name a role"},
		{"login", "", "a link of kind login", "name a role"},
		{"process", "", "a link of kind process", "name a role"},
		{"anywhere", "", "a link of kind roles-anywhere", "name a role"},
		{"own", "", "one of its own, session_policy (", "without session_policy"},
		{"arns", "", "one of its own, session_policy_arns (", "without session_policy_arns"},
	} {
		for _, inline := range []string{"", `{"Statement":[]}`} {
			q := byFlag(c.profile)
			q.RoleARN = c.role
			q.PolicyInline, q.PolicyARNs = inline, []string{readOnly, "arn:aws:iam::1:policy/b"}
			p := mustResolve(t, s, q)
			if c.err != "" {
				if p.Err == nil || !strings.HasPrefix(p.Err.Message, "cannot narrow profile "+c.profile+" by a session policy: ") ||
					!strings.Contains(p.Err.Message, c.err) || !strings.Contains(p.Err.Help, c.hint) || p.Err.File == "" || p.Err.Line == 0 {
					t.Errorf("%s: %+v", c.profile, p.Err)
				}
				continue
			}
			if p.Err != nil {
				t.Errorf("%s: %v", c.profile, p.Err)
				continue
			}
			for i, l := range p.Chain {
				want := []string{"", ""}
				if i == len(p.Chain)-1 {
					want = []string{inline, readOnly + ",arn:aws:iam::1:policy/b"}
				} else if l.Profile == "inner" {
					want = []string{"", readOnly}
				}
				if got := []string{l.Params["session_policy_inline"], l.Params["session_policy_arns"]}; !slices.Equal(got, want) {
					t.Errorf("%s: link %d has %q, want %q", c.profile, i, got, want)
				}
			}
		}
		// What one query was given stays with it.
		q := byFlag(c.profile)
		q.RoleARN = c.role
		p := mustResolve(t, s, q)
		if l := p.Chain[len(p.Chain)-1]; p.Err != nil || c.err == "" && l.Params["session_policy_arns"]+l.Params["session_policy_inline"] != "" {
			t.Errorf("%s without a policy: %v, %v", c.profile, p.Err, l.Params)
		}
	}
}

func TestSessionPolicyOfALink(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "p.json")
	if err := os.WriteFile(file, []byte("\ufeff{\n \"a\" : \"b  c\"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	arns := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("arn:aws:iam::123456789012:policy/p%d", i))
		}
		return strings.Join(list, ", ")
	}
	long := func(n int) string { return `{"a":"` + strings.Repeat("é", n-8) + `"}` }
	for _, c := range []struct {
		params map[string]string
		inline string
		n      int
		err    string
	}{
		{},
		{params: map[string]string{"session_policy": file}, inline: `{"a":"b  c"}`},
		{params: map[string]string{"session_policy_inline": " { \"a\": 1 } "}, inline: `{"a":1}`},
		{params: map[string]string{"session_policy_inline": long(2048)}, inline: long(2048)},
		{params: map[string]string{"session_policy_inline": long(2049)}, err: "has 2049 characters, and AWS allows 2048"},
		{params: map[string]string{"session_policy_inline": "{\n\n\"a\": oops}"}, err: "line 3 of the session policy is not JSON"},
		{params: map[string]string{"session_policy_inline": `[1]`}, err: "is no JSON object"},
		{params: map[string]string{"session_policy_inline": `null`}, err: "is no JSON object"},
		{params: map[string]string{"session_policy_inline": `{"a":"ż"}`}, err: "AWS takes none above U+00FF"},
		{params: map[string]string{"session_policy_inline": `{}`, "session_policy": file}, err: "two session policies"},
		{params: map[string]string{"session_policy_arns": arns(10)}, n: 10},
		{params: map[string]string{"session_policy_arns": "arn:aws-cn:iam::aws:policy/x,arn:aws:iam::123456789012:policy/team/a,b=c@d.e_f-+"}, n: 2},
		{params: map[string]string{"session_policy_arns": arns(11)}, err: "11 session policy ARNs, and AWS takes 10"},
		{params: map[string]string{"session_policy_arns": "ReadOnlyAccess"}, err: `"ReadOnlyAccess" is not the ARN of a managed policy`},
		{params: map[string]string{"session_policy_arns": testRole}, err: "is not the ARN of a managed policy"},
	} {
		l := Link{Profile: "dev", Params: c.params}
		inline, list, err := l.SessionPolicy()
		if c.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), "cannot use profile dev: ") || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v: %v", c.params, err)
			}
			continue
		}
		if err != nil || inline != c.inline || len(list) != c.n {
			t.Errorf("%v: %q, %q, %v", c.params, inline, list, err)
		}
	}
}

func TestProtected(t *testing.T) {
	for value, want := range map[string]string{"": "false", "true": "true", "TRUE": "true", "False": "false",
		"yes": "cannot use profile a: protected (", "1": "must be true or false"} {
		p := world{config: "[profile a]\nprotected = " + value + "\n" + pair}.resolve(t, byFlag("a"))
		if p.Err != nil {
			if !strings.Contains(p.Err.Message, want) || !p.Protected {
				t.Errorf("%q: %v, protected %v", value, p.Err, p.Protected)
			}
		} else if fmt.Sprint(p.Protected) != want {
			t.Errorf("%q: %v", value, p.Protected)
		}
	}
}
