package ops

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"keyfob/internal/fakeaws"
	"keyfob/profiles"
)

// policies makes the policies of a chain, each of which must be one by the
// schema.
func policies(t *testing.T, r PolicyRequest) []PolicyDocument {
	t.Helper()
	r.Profile = orElse(r.Profile, "dev")
	docs, err := Policies(r)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := jsonschema.NewCompiler().Compile("file://" + filepath.ToSlash(mustAbs(t, "testdata/policy.schema.json")) + "#/$defs/" + r.Kind)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(d.Document)))
		if err == nil {
			err = schema.Validate(v)
		}
		if err != nil {
			t.Errorf("%s is no %s policy: %v", d.Document, r.Kind, err)
		}
		for _, n := range d.Notes {
			if strings.HasSuffix(n, ".") || strings.Contains(n, "\n") {
				t.Errorf("note %q", n)
			}
		}
		if d.Notes == nil {
			t.Error("Notes is nil")
		}
	}
	return docs
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// call is what IAM knows of a call that a trust policy judges: its action,
// who makes it, and the values of condition keys.
type call struct {
	actions   []string
	principal string // ARN of a user or role, or a federated provider, or a service
	keys      map[string][]string
}

func (c call) with(key string, values ...string) call {
	c.keys = maps.Clone(c.keys)
	if len(values) == 0 {
		delete(c.keys, key)
	} else {
		c.keys[key] = values
	}
	return c
}

// admits judges a call by a trust policy as IAM does: every permission that
// the call needs must be allowed by a statement whose principal and
// conditions all fit.
func admits(t *testing.T, doc json.RawMessage, c call) bool {
	t.Helper()
	var p struct {
		Statement []struct {
			Principal map[string]string
			Action    texts
			Condition map[string]map[string]texts
		}
	}
	if err := json.Unmarshal(doc, &p); err != nil {
		t.Fatal(err)
	}
	for _, action := range c.actions {
		ok := false
		for _, s := range p.Statement {
			ok = ok || slices.Contains(s.Action, action) && names(s.Principal, c.principal) && holds(t, s.Condition, c.keys)
		}
		if !ok {
			return false
		}
	}
	return true
}

// texts is one text or a list.
type texts []string

func (x *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*x = texts{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(x))
}

func names(principal map[string]string, who string) bool {
	for _, p := range principal {
		if p == who || strings.HasSuffix(p, ":root") && strings.HasPrefix(who, "arn:") && accountIn(p) == accountIn(who) {
			return true
		}
	}
	return false
}

func holds(t *testing.T, conditions map[string]map[string]texts, keys map[string][]string) bool {
	for operator, byKey := range conditions {
		for key, want := range byKey {
			have := keys[key]
			fits := func(v string) bool {
				return slices.ContainsFunc(want, func(w string) bool {
					if strings.HasPrefix(operator, "Arn") {
						return glob(w, v)
					}
					return v == w
				})
			}
			switch operator {
			case "Bool", "StringEquals", "ArnLike", "ArnEquals":
				if len(have) == 0 || !slices.ContainsFunc(have, fits) {
					return false
				}
			case "ForAllValues:StringEquals":
				if slices.ContainsFunc(have, func(v string) bool { return !fits(v) }) {
					return false
				}
			default:
				t.Fatalf("operator %s", operator)
			}
		}
	}
	return true
}

// glob matches with * and ?.
func glob(pattern, s string) bool {
	switch {
	case pattern == "":
		return s == ""
	case pattern[0] == '*':
		return glob(pattern[1:], s) || s != "" && glob(pattern, s[1:])
	}
	return s != "" && (pattern[0] == '?' || pattern[0] == s[0]) && glob(pattern[1:], s[1:])
}

// calls are the calls for roles that a chain has made, as IAM judges them.
func (w *world) calls() []call {
	var out []call
	session := map[string]fakeaws.Call{} // access key -> the call that gave it
	for _, c := range w.aws.Calls() {
		if c.Status != http.StatusOK {
			continue
		}
		signer, inherited := session[c.AccessKey], call{}
		session[c.Issued] = c
		if c.Action != "AssumeRole" {
			continue
		}
		x := call{actions: []string{"sts:AssumeRole"}, principal: c.Principal, keys: map[string][]string{"aws:MultiFactorAuthPresent": {"false"}}}
		if role := signer.Params["RoleArn"]; role != "" {
			x.principal = role
			for _, o := range out { // the caller's own session, for what passes on
				if slices.Equal(o.keys["role"], []string{role}) {
					inherited = o
				}
			}
		}
		if signer.Action == "GetSessionToken" && signer.Params["SerialNumber"] != "" || c.Params["SerialNumber"] != "" {
			x.keys["aws:MultiFactorAuthPresent"] = []string{"true"}
		}
		if v := c.Params["ExternalId"]; v != "" {
			x.keys["sts:ExternalId"] = []string{v}
		}
		if v := c.Params["SourceIdentity"]; v != "" {
			x.keys["sts:SourceIdentity"] = []string{v}
		} else if v := inherited.keys["passes identity"]; v != nil {
			x.keys["aws:SourceIdentity"] = v
		}
		x.keys["passes identity"] = slices.Concat(x.keys["sts:SourceIdentity"], x.keys["aws:SourceIdentity"])
		if len(x.keys["passes identity"]) > 0 {
			x.actions = append(x.actions, "sts:SetSourceIdentity")
		} else {
			delete(x.keys, "passes identity")
		}
		tags := slices.Clone(inherited.keys["passes tags"])
		for i := 1; c.Params[fmt.Sprintf("Tags.member.%d.Key", i)] != ""; i++ {
			k := c.Params[fmt.Sprintf("Tags.member.%d.Key", i)]
			x.keys["aws:RequestTag/"+k] = []string{c.Params[fmt.Sprintf("Tags.member.%d.Value", i)]}
			tags = append(tags, k)
		}
		if len(tags) > 0 {
			x.keys["aws:TagKeys"] = tags
			x.actions = append(x.actions, "sts:TagSession")
		}
		passes := slices.Clone(inherited.keys["passes tags"])
		for i := 1; c.Params[fmt.Sprintf("TransitiveTagKeys.member.%d", i)] != ""; i++ {
			k := c.Params[fmt.Sprintf("TransitiveTagKeys.member.%d", i)]
			x.keys["sts:TransitiveTagKeys"] = append(x.keys["sts:TransitiveTagKeys"], k)
			passes = append(passes, k)
		}
		x.keys["passes tags"], x.keys["role"] = passes, []string{c.Params["RoleArn"]}
		out = append(out, x)
	}
	return out
}

// TestTrustAdmitsTheChainAlone makes each chain's real calls and judges them
// by the policies made for it: they are let in, and what differs in one thing
// is not.
func TestTrustAdmitsTheChainAlone(t *testing.T) {
	const serial = "arn:aws:iam::111122223333:mfa/alice"
	w := newWorld(t, fakeaws.UserSpec{MFA: []fakeaws.MFASpec{{Serial: serial}}})
	role := func(name string) string {
		return w.aws.AddRole(fakeaws.RoleSpec{Name: name, Path: "/team/", Account: "222233334444"})
	}
	first, second, third := role("first"), role("second"), role("third")
	const user = "arn:aws:iam::111122223333:user/alice"
	mfa := w.link(profiles.KindSessionToken, "mfa_serial", serial)
	for name, chain := range map[string][]profiles.Link{
		"keys":        {w.vaultKeys(), w.link(profiles.KindAssumeRole, "role_arn", first)},
		"code":        {w.vaultKeys(), mfa, w.link(profiles.KindAssumeRole, "role_arn", first), w.link(profiles.KindAssumeRole, "role_arn", second)},
		"external id": {w.vaultKeys(), w.link(profiles.KindAssumeRole, "role_arn", first, "external_id", "a/b:c=1")},
		"everything": {w.vaultKeys(), mfa,
			w.link(profiles.KindAssumeRole, "role_arn", first, "external_id", "x1", "source_identity", "alice", "session_tags", "team=blue, cost centre=12", "transitive_session_tags", "team"),
			w.link(profiles.KindAssumeRole, "role_arn", second, "external_id", "x2", "session_tags", "stage=prod"),
			w.link(profiles.KindAssumeRole, "role_arn", third)},
	} {
		w.aws.ResetCalls()
		w.handedOut(chain...)
		calls := w.calls()
		docs := policies(t, PolicyRequest{Kind: PolicyTrust, Chain: chain, User: user, Account: account})
		if len(docs) != len(calls) || len(calls) == 0 {
			t.Fatalf("%s: %d documents for %d calls", name, len(docs), len(calls))
		}
		for i, d := range docs {
			c := calls[i]
			if !slices.Equal(c.keys["role"], []string{d.For}) {
				t.Errorf("%s: document %d is for %s, the call for %s", name, i, d.For, c.keys["role"])
			}
			if !admits(t, d.Document, c) {
				t.Errorf("%s: %s refuses %+v", name, d.Document, c)
			}
			for what, other := range others(c) {
				if admits(t, d.Document, other) {
					t.Errorf("%s: %s admits a call with %s", name, d.Document, what)
				}
			}
		}

		// Each identity may do what its call needs, and nothing else.
		ids := policies(t, PolicyRequest{Kind: PolicyIdentity, Chain: chain, User: user, Account: account})
		if len(ids) != len(calls) {
			t.Fatalf("%s: %d identities make %d calls", name, len(ids), len(calls))
		}
		for i, d := range ids {
			if d.For != calls[i].principal {
				t.Errorf("%s: document %d is for %s and not %s", name, i, d.For, calls[i].principal)
			}
			may := map[string]string{}
			for _, s := range read(t, d).Statement {
				for _, a := range s.Action {
					may[a] = s.Resource
				}
			}
			want := map[string]string{}
			for _, a := range calls[i].actions {
				want[a] = calls[i].keys["role"][0]
			}
			if i == 0 {
				want["iam:ListMFADevices"] = user
			}
			if !maps.Equal(may, want) {
				t.Errorf("%s: %v instead of %v", name, may, want)
			}
		}
	}
}

// others are calls that differ from c in one thing that a policy can see.
func others(c call) map[string]call {
	stranger := c
	stranger.principal = "arn:aws:iam::111122223333:user/mallory"
	out := map[string]call{"another principal": stranger}
	for _, key := range slices.Sorted(maps.Keys(c.keys)) {
		switch {
		case strings.Contains(key, "passes") || key == "role" || slices.Equal(c.keys[key], []string{"false"}):
		case key == "aws:TagKeys" || key == "sts:TransitiveTagKeys":
			out["another "+key] = c.with(key, append(slices.Clone(c.keys[key]), "more")...)
		default:
			out["no "+key] = c.with(key)
			out["another "+key] = c.with(key, "other")
		}
	}
	tag := c
	tag.actions = append(slices.Clone(c.actions), "sts:TagSession")
	if !slices.Contains(c.actions, "sts:TagSession") {
		out["tags"] = tag
	}
	return out
}

type readDocument struct {
	Statement []struct {
		Principal map[string]string
		Action    texts
		Resource  string
		Condition map[string]map[string]texts
	}
}

func read(t *testing.T, d PolicyDocument) (out readDocument) {
	t.Helper()
	if err := json.Unmarshal(d.Document, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// partitioned is the partitions with a region each.
var partitioned = map[string]string{"aws": "eu-west-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}

// TestOtherSources: the policies of chains that begin otherwise, in each
// partition.
func TestOtherSources(t *testing.T) {
	for partition, region := range partitioned {
		arn := func(rest string) string { return "arn:" + partition + ":" + rest }
		link := func(kind profiles.Kind, kv ...string) profiles.Link {
			l := profiles.Link{Kind: kind, Profile: string(kind), Params: map[string]string{}, Client: profiles.Client{Region: region}}
			for i := 0; i < len(kv); i += 2 {
				l.Params[kv[i]] = kv[i+1]
			}
			l.RoleARN = l.Params["role_arn"]
			return l
		}
		role := link(profiles.KindAssumeRole, "role_arn", arn("iam::222233334444:role/app"))
		base := arn("iam::111122223333:role/base")
		token := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://oidc.eks.example.com/id/ABC","aud":["sts.amazonaws.com"],"sub":"system:serviceaccount:ns:app"}`))
		saml := map[string]string{"aws": "https://signin.aws.amazon.com/saml", "aws-cn": "https://signin.amazonaws.cn/saml", "aws-us-gov": "https://signin.amazonaws-us-gov.com/saml"}[partition]
		anchor := arn("rolesanywhere:" + region + ":111122223333:trust-anchor/1111")
		for name, c := range map[string]struct {
			chain []profiles.Link
			token string
			trust []string // of each document: principal, and the call that it admits
			call  call
			notes string // of the first document
			ident []string
		}{
			"oidc": {
				chain: []profiles.Link{link(profiles.KindOIDC, "role_arn", base, "oidc_issuer", "https://idp.example.com/a", "oidc_client_id", "kf"), role},
				trust: []string{arn("iam::111122223333:oidc-provider/idp.example.com/a"), base},
				call:  call{actions: []string{"sts:AssumeRoleWithWebIdentity"}, keys: map[string][]string{"idp.example.com/a:aud": {"kf"}}},
				notes: "a condition on idp.example.com/a:sub names those who are meant",
				ident: []string{base},
			},
			"google": {
				chain: []profiles.Link{link(profiles.KindOIDC, "role_arn", base, "oidc_issuer", "https://accounts.google.com", "oidc_client_id", "kf")},
				trust: []string{"accounts.google.com"},
				call:  call{actions: []string{"sts:AssumeRoleWithWebIdentity"}, keys: map[string][]string{"accounts.google.com:aud": {"kf"}}},
				notes: "accounts.google.com:sub",
			},
			"web identity": {
				chain: []profiles.Link{link(profiles.KindWebIdentity, "role_arn", base, "web_identity_token_file", "/t")},
				token: "x." + token + ".y",
				trust: []string{arn("iam::111122223333:oidc-provider/oidc.eks.example.com/id/ABC")},
				call: call{actions: []string{"sts:AssumeRoleWithWebIdentity"}, keys: map[string][]string{"oidc.eks.example.com/id/ABC:aud": {"sts.amazonaws.com"},
					"oidc.eks.example.com/id/ABC:sub": {"system:serviceaccount:ns:app"}}},
				notes: "account 111122223333 needs the identity provider oidc.eks.example.com/id/ABC",
			},
			"web identity that can't be read": {
				chain: []profiles.Link{link(profiles.KindWebIdentity, "role_arn", base, "web_identity_token_file", "/t")},
				trust: []string{arn("iam::111122223333:oidc-provider/ISSUER")},
				call:  call{actions: []string{"sts:AssumeRoleWithWebIdentity"}, keys: map[string][]string{}},
				notes: "the token /t can't be read here",
			},
			"saml": {
				chain: []profiles.Link{link(profiles.KindSAML, "role_arn", base, "principal_arn", arn("iam::111122223333:saml-provider/idp")), role},
				trust: []string{arn("iam::111122223333:saml-provider/idp"), base},
				call:  call{actions: []string{"sts:AssumeRoleWithSAML"}, keys: map[string][]string{"SAML:aud": {saml}}},
				notes: "sts:TagSession and sts:SetSourceIdentity",
				ident: []string{base},
			},
			"saml without a role": {
				chain: []profiles.Link{link(profiles.KindSAML, "saml_url", "https://idp")},
				trust: []string{arn("iam::ACCOUNT:saml-provider/NAME")},
				call:  call{actions: []string{"sts:AssumeRoleWithSAML"}, keys: map[string][]string{"SAML:aud": {saml}}},
				notes: "the assertion names the roles",
			},
			"roles anywhere": {
				chain: []profiles.Link{link(profiles.KindRolesAnywhere, "role_arn", base, "roles_anywhere_trust_anchor_arn", anchor, "roles_anywhere_profile_arn", "P"), role},
				trust: []string{"rolesanywhere.amazonaws.com", base},
				call:  call{actions: []string{"sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"}, keys: map[string][]string{"aws:SourceArn": {anchor}}},
				notes: "the Roles Anywhere profile P must list the role",
				ident: []string{base},
			},
			"instance": {
				chain: []profiles.Link{link(profiles.KindIMDS), role},
				trust: []string{"ec2.amazonaws.com", arn("iam::222233334444:root")},
				call:  call{actions: []string{"sts:AssumeRole"}},
				notes: "which is not known here",
				ident: []string{""},
			},
			"container": {
				chain: []profiles.Link{link(profiles.KindContainer)},
				trust: []string{"ecs-tasks.amazonaws.com"},
				call:  call{actions: []string{"sts:AssumeRole"}},
				notes: "pods.eks.amazonaws.com",
			},
			"process": {
				chain: []profiles.Link{link(profiles.KindProcess), role},
				trust: []string{arn("iam::222233334444:root")},
				call:  call{actions: []string{"sts:AssumeRole"}},
				notes: "put the ARN that `keyfob whoami` shows",
				ident: []string{""},
			},
			"sign-in of a user": {
				chain: []profiles.Link{link(profiles.KindLogin, "login_session", arn("iam::111122223333:user/alice")), role},
				trust: []string{arn("iam::111122223333:user/alice")},
				call:  call{actions: []string{"sts:AssumeRole"}},
				ident: []string{arn("iam::111122223333:user/alice")},
			},
			"sign-in of a role": {
				chain: []profiles.Link{link(profiles.KindLogin, "login_session", arn("sts::111122223333:assumed-role/Dev/alice")), role},
				trust: []string{arn("iam::111122223333:role/Dev")},
				call:  call{actions: []string{"sts:AssumeRole"}},
				notes: "where it has one, put it in",
				ident: []string{arn("sts::111122223333:assumed-role/Dev/alice")},
			},
			"permission set": {
				chain: []profiles.Link{link(profiles.KindSSO, "sso_account_id", "111122223333", "sso_role_name", "Admin", "sso_region", region), role},
				trust: []string{arn("iam::111122223333:root")},
				call: call{actions: []string{"sts:AssumeRole"},
					keys: map[string][]string{"aws:PrincipalArn": {arn("iam::111122223333:role/aws-reserved/sso.amazonaws.com/" + region + "/AWSReservedSSO_Admin_0123456789abcdef")}}},
				notes: "everybody to whom the permission set Admin is assigned",
				ident: []string{""},
			},
		} {
			r := PolicyRequest{Kind: PolicyTrust, Chain: c.chain, Token: func(string) ([]byte, error) {
				if c.token == "" {
					return nil, fmt.Errorf("no")
				}
				return []byte(c.token), nil
			}}
			docs := policies(t, r)
			var principals []string
			for _, d := range docs {
				for _, p := range read(t, d).Statement[0].Principal {
					principals = append(principals, p)
				}
			}
			if !slices.Equal(principals, c.trust) {
				t.Errorf("%s in %s: %q instead of %q", name, partition, principals, c.trust)
				continue
			}
			c.call.principal = c.trust[0]
			if !admits(t, docs[0].Document, c.call) {
				t.Errorf("%s: %s refuses %+v", name, docs[0].Document, c.call)
			}
			for key := range c.call.keys {
				for _, bad := range []call{c.call.with(key), c.call.with(key, "other")} {
					if admits(t, docs[0].Document, bad) {
						t.Errorf("%s: %s admits %+v", name, docs[0].Document, bad)
					}
				}
			}
			if notes := strings.Join(docs[0].Notes, "; "); !strings.Contains(notes, c.notes) {
				t.Errorf("%s: %q is not in %q", name, c.notes, notes)
			}
			if name == "roles anywhere" && !slices.Contains(read(t, docs[1]).Statement[0].Action, "sts:SetSourceIdentity") {
				t.Errorf("the source identity of Roles Anywhere does not pass on: %s", docs[1].Document)
			}
			r.Kind = PolicyIdentity
			if len(c.ident) == 0 {
				if _, err := Policies(r); err == nil {
					t.Errorf("%s: nothing signs, and there is a policy", name)
				}
				continue
			}
			var owners []string
			for _, d := range policies(t, r) {
				owners = append(owners, d.For)
			}
			if !slices.Equal(owners, c.ident) {
				t.Errorf("%s: %q", name, owners)
			}
		}
	}
}

// TestPermissionSetsAreToldApart: a set whose name begins like another's is
// not let in, whatever Identity Center's region is.
func TestPermissionSetsAreToldApart(t *testing.T) {
	pattern := reservedRole("aws", "111122223333", "Admin")
	for arn, want := range map[string]bool{
		"arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Admin_0123456789abcdef":                true,
		"arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Admin_0123456789abcdef":      true,
		"arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Admin_Less_0123456789abcdef": false,
		"arn:aws:iam::999922223333:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Admin_0123456789abcdef":      false,
		"arn:aws:iam::111122223333:role/AWSReservedSSO_Admin_0123456789abcdef":                                               false,
	} {
		if glob(pattern, arn) != want {
			t.Errorf("%s: %t", arn, !want)
		}
	}
}

// TestUserPolicies: what is known of a user, and what a person must put in.
func TestUserPolicies(t *testing.T) {
	w := newWorld(t, fakeaws.UserSpec{})
	chain := []profiles.Link{w.vaultKeys(), w.link(profiles.KindSessionToken), w.link(profiles.KindAssumeRole, "role_arn", "arn:aws:iam::222233334444:role/app")}
	for _, c := range []struct{ user, account, principal, self string }{
		{"arn:aws:iam::111122223333:user/x/alice", account, "arn:aws:iam::111122223333:user/x/alice", "arn:aws:iam::111122223333:user/x/alice"},
		{"", account, "arn:aws:iam::111122223333:root", "arn:aws:iam::111122223333:user/${aws:username}"},
		{"", "", "arn:aws:iam::222233334444:root", "arn:aws:iam::*:user/${aws:username}"},
	} {
		trust := policies(t, PolicyRequest{Kind: PolicyTrust, Chain: chain, User: c.user, Account: c.account})
		if p := read(t, trust[0]).Statement[0].Principal["AWS"]; p != c.principal || (c.user == "") != strings.Contains(strings.Join(trust[0].Notes, ""), "put the user's ARN in the place of "+c.principal) {
			t.Errorf("%+v: %s %q", c, p, trust[0].Notes)
		}
		ident := policies(t, PolicyRequest{Kind: PolicyIdentity, Chain: chain, User: c.user, Account: c.account})
		st := read(t, ident[0]).Statement
		notes := strings.Join(ident[0].Notes, "\n")
		if len(ident) != 1 || ident[0].For != c.user || st[len(st)-1].Resource != c.self || !strings.Contains(notes, "iam:CreateAccessKey") || !strings.Contains(notes, "sts:GetSessionToken needs no permission") {
			t.Errorf("%+v: %+v %s", c, ident, notes)
		}
	}
	alone := policies(t, PolicyRequest{Kind: PolicyIdentity, Chain: chain[:2]})
	if len(alone) != 1 || len(read(t, alone[0]).Statement) != 1 {
		t.Errorf("%+v", alone)
	}
	_, err := Policies(PolicyRequest{Profile: "dev", Kind: PolicyTrust, Chain: chain[:2]})
	line(t, err, "cannot make a trust policy for dev: no role of IAM is on its chain", "keyfob policy identity dev")
	_, err = Policies(PolicyRequest{Profile: "dev", Kind: PolicyTrust, Chain: []profiles.Link{w.link(profiles.KindSSO, "sso_role_name", "Admin")}})
	line(t, err, "Identity Center writes it")
	_, err = Policies(PolicyRequest{Profile: "dev", Kind: "both", Chain: chain})
	line(t, err, `cannot make a policy of kind "both"`)
}

// TestValidatePolicy: what Access Analyzer says comes through, page by page;
// a fake one has nothing to say of what is made here.
func TestValidatePolicy(t *testing.T) {
	w := newWorld(t, fakeaws.UserSpec{})
	chain := []profiles.Link{w.vaultKeys(), w.link(profiles.KindAssumeRole, "role_arn", deployer(w))}
	for _, kind := range []string{PolicyTrust, PolicyIdentity} {
		for _, d := range policies(t, PolicyRequest{Kind: kind, Chain: chain, Account: account}) {
			if found, err := w.deps.ValidatePolicy(t.Context(), w.client(), w.keys, kind, d.Document); err != nil || len(found) != 0 || found == nil {
				t.Errorf("%s: %+v %v", d.Document, found, err)
			}
		}
	}
	found, err := w.deps.ValidatePolicy(t.Context(), w.client(), w.keys, PolicyIdentity, json.RawMessage(`{"Statement":[]}`))
	if err != nil || len(found) == 0 {
		t.Errorf("%+v %v", found, err)
	}

	var asked []string
	analyzer := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var in map[string]string
		_ = json.NewDecoder(r.Body).Decode(&in)
		asked = append(asked, r.URL.Path+" "+in["policyType"]+" "+in["validatePolicyResourceType"]+" "+r.URL.Query().Get("nextToken"))
		if in["policyDocument"] == `{"no":1}` {
			rw.Header().Set("X-Amzn-Errortype", "AccessDeniedException")
			rw.WriteHeader(http.StatusForbidden)
			fmt.Fprint(rw, `{"message":"User is not authorized"}`)
			return
		}
		next := `,"nextToken":"2"`
		if r.URL.Query().Get("nextToken") != "" {
			next = ""
		}
		fmt.Fprintf(rw, `{"findings":[{"findingType":"SECURITY_WARNING","issueCode":"C","findingDetails":"D","learnMoreLink":"https://docs.example",`+
			`"locations":[{"path":[{"value":"Statement"},{"index":0},{"key":"Principal"}],"span":{"start":{"line":1,"column":1,"offset":1},"end":{"line":1,"column":2,"offset":2}}}]}]%s}`, next)
	}))
	defer analyzer.Close()
	client := profiles.Client{Region: region, EndpointURL: map[string]string{"": "http://127.0.0.1:1", "accessanalyzer": analyzer.URL}}
	found, err = w.deps.ValidatePolicy(t.Context(), client, w.keys, PolicyTrust, json.RawMessage(`{}`))
	want := PolicyFinding{"SECURITY_WARNING", "C", "D", "Statement[0].Principal", "https://docs.example"}
	if err != nil || !slices.Equal(found, []PolicyFinding{want, want}) {
		t.Errorf("%+v %v", found, err)
	}
	if !slices.Equal(asked, []string{"/policy/validation RESOURCE_POLICY AWS::IAM::AssumeRolePolicyDocument ", "/policy/validation RESOURCE_POLICY AWS::IAM::AssumeRolePolicyDocument 2"}) {
		t.Errorf("%q", asked)
	}
	_, err = w.deps.ValidatePolicy(t.Context(), client, w.keys, PolicyTrust, json.RawMessage(`{"no":1}`))
	line(t, err, "cannot have the policy checked by IAM Access Analyzer: AWS answered AccessDeniedException", "access-analyzer:ValidatePolicy")
	w.noSecrets(err)
}
