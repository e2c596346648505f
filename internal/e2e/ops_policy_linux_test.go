package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// policyProfiles are chains whose policies need something of every kind.
const policyProfiles = `
[profile coded]
region = eu-west-1
role_arn = arn:aws:iam::222222222222:role/coded
source_profile = base
mfa_serial = arn:aws:iam::111122223333:mfa/alice
external_id = x-1
source_identity = alice
session_tags = team=a,stage=b
transitive_session_tags = team
[profile web]
region = eu-west-1
role_arn = arn:aws:iam::222222222222:role/web
oidc_issuer = https://idp.example
oidc_client_id = app
[profile federated]
region = eu-west-1
role_arn = arn:aws:iam::222222222222:role/federated
saml_url = https://idp.example/aws
principal_arn = arn:aws:iam::222222222222:saml-provider/idp
[profile box]
region = eu-west-1
role_arn = arn:aws:iam::222222222222:role/box
roles_anywhere_trust_anchor_arn = arn:aws:rolesanywhere:eu-west-1:222222222222:trust-anchor/t
roles_anywhere_profile_arn = arn:aws:rolesanywhere:eu-west-1:222222222222:profile/p
roles_anywhere_certificate = /nowhere/cert.pem
[profile top]
region = eu-west-1
role_arn = arn:aws:iam::333333333333:role/top
source_profile = coded
`

// TestPolicies: what `keyfob policy` prints is a policy by the schema, says
// what the chain needs, and Access Analyzer finds nothing in it.
func TestPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env["AWS_REGION"] = "eu-west-1"
	w.addKeys("base")
	w.write(".aws/config", w.file(w.path(".aws/config"))+policyProfiles)
	schema, err := filepath.Abs("../ops/testdata/policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	schemas := map[string]*jsonschema.Schema{}
	for _, kind := range []string{"trust", "identity"} {
		if schemas[kind], err = jsonschema.NewCompiler().Compile("file://" + schema + "#/$defs/" + kind); err != nil {
			t.Fatal(err)
		}
	}
	wants := map[string]map[string][]string{
		"trust": {
			"deploy":    {`"AWS": "` + entryARN + `"`, `"sts:AssumeRole"`},
			"coded":     {`"aws:MultiFactorAuthPresent": "true"`, `"sts:ExternalId": "x-1"`, `"sts:SetSourceIdentity"`, `"sts:TagSession"`, `"arn:aws:iam::111122223333:user/alice"`},
			"web":       {`"sts:AssumeRoleWithWebIdentity"`, `"arn:aws:iam::222222222222:oidc-provider/idp.example"`, `"idp.example:aud": "app"`},
			"federated": {`"sts:AssumeRoleWithSAML"`, `"arn:aws:iam::222222222222:saml-provider/idp"`, `"SAML:aud"`},
			"box":       {`"rolesanywhere.amazonaws.com"`, `"arn:aws:rolesanywhere:eu-west-1:222222222222:trust-anchor/t"`, `"sts:TagSession"`, `"sts:SetSourceIdentity"`},
			"top":       {`"AWS": "arn:aws:iam::222222222222:role/coded"`},
		},
		"identity": {
			"deploy": {`"sts:AssumeRole"`, `"Resource": "` + deployARN + `"`},
			"coded":  {`"Resource": "arn:aws:iam::222222222222:role/coded"`, `"sts:TagSession"`},
			"top":    {`"Resource": "arn:aws:iam::333333333333:role/top"`},
			"base":   {`"iam:ListMFADevices"`, "`keyfob rotate base` needs iam:CreateAccessKey"},
		},
	}
	for kind, profiles := range wants {
		for profile, parts := range profiles {
			r := w.must(nil, "policy", kind, profile)
			valid(t, schemas[kind], kind+" of "+profile, []byte(r.out))
			for _, part := range parts {
				if !strings.Contains(r.out+r.err, part) {
					t.Errorf("the %s policy of %s has no %s:\n%s%s", kind, profile, part, r.out, r.err)
				}
			}
			var all map[string]json.RawMessage
			if err := json.Unmarshal([]byte(w.must(nil, "policy", kind, profile, "--all").out), &all); err != nil {
				t.Errorf("%s of %s --all: %v", kind, profile, err)
			}
			for owner, text := range all {
				valid(t, schemas[kind], kind+" of "+owner, text)
			}
		}
	}
	if n := len(w.must(nil, "policy", "trust", "top", "--all", "--json").out); n == 0 {
		t.Error("nothing is printed")
	}
	before := w.aws.Count("ValidatePolicy")
	for _, kind := range []string{"trust", "identity"} {
		if r := w.must(nil, "policy", kind, "deploy", "--all", "--validate"); strings.Contains(r.err, ": error: ") {
			t.Errorf("%s", r.err)
		}
	}
	if w.aws.Count("ValidatePolicy") < before+3 {
		t.Errorf("Access Analyzer was asked %d times", w.aws.Count("ValidatePolicy")-before)
	}
}

func valid(t *testing.T, schema *jsonschema.Schema, what string, text []byte) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		t.Errorf("%s is no policy: %v\n%s", what, err, text)
	}
}
