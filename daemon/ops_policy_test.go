//go:build !windows

package daemon

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"keyfob/internal/control"
	"keyfob/internal/fakeaws"
)

func TestPolicy(t *testing.T) {
	t.Parallel()
	w := newOpsWorld(t, 0)
	token := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://oidc.example.com/id/1","aud":"sts.amazonaws.com","sub":"system:serviceaccount:ns:app"}`))
	w.write("token", "x."+token+".CANARY")
	w.write(".aws/config", w.read(".aws/config")+"[profile pod]\nrole_arn = arn:aws:iam::222222222222:role/pod\nweb_identity_token_file = "+w.path("token")+"\n\n"+
		"[profile sso]\nsso_start_url = https://x.awsapps.com/start\nsso_region = eu-west-1\nsso_account_id = 111122223333\nsso_role_name = Admin\n")
	w.start()
	w.add("dev")
	get := func(profile, kind string, validate bool) (out control.PolicyResult, err error) {
		err = w.try(control.MethodPolicy, control.PolicyParams{Context: w.context(profile), Kind: kind, Validate: validate}, &out)
		return out, err
	}
	out, err := get("app", "trust", true)
	if err != nil || len(out.Documents) != 1 {
		t.Fatalf("%+v %v", out, err)
	}
	d := out.Documents[0]
	const want = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + aliceARN + `"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"e1"}}}]}`
	if d.For != "arn:aws:iam::222222222222:role/app" || d.Profile != "app" || string(d.Document) != want || len(d.Findings) != 0 {
		t.Errorf("%+v %s", d, d.Document)
	}
	if calls := w.aws.Calls("ValidatePolicy"); len(calls) != 1 || calls[0].Status != 200 || !strings.Contains(calls[0].Principal, ":assumed-role/app/") {
		t.Errorf("%+v", calls)
	}
	if out, err = get("app", "identity", false); err != nil || len(out.Documents) != 1 || out.Documents[0].For != aliceARN || len(w.aws.Calls("ValidatePolicy")) != 1 {
		t.Errorf("%+v %v", out, err)
	}
	if out, err = get("pod", "trust", false); err != nil || !strings.Contains(string(out.Documents[0].Document), `"oidc.example.com/id/1:sub":"system:serviceaccount:ns:app"`) {
		t.Errorf("%+v %v", out, err)
	}
	_, err = get("sso", "trust", false)
	mustFail(t, err, control.CodeFailed, "the permission set Admin, and Identity Center writes it")
	_, err = get("app", "both", false)
	mustFail(t, err, control.CodeUsage, `"both"`)
	_, err = get("nobody", "trust", false)
	mustFail(t, err, control.CodeUnknownProfile)
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Action: "ValidatePolicy", Status: 403, Code: "AccessDenied", Message: "not authorized"})
	_, err = get("app", "trust", true)
	mustFail(t, err, control.CodeFailed, "cannot have the policy checked by IAM Access Analyzer", "access-analyzer:ValidatePolicy")

	// Neither AWS nor an open vault is needed: what is not known is a note.
	w.must(control.MethodLock, nil, nil)
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Drop})
	if out, err = get("app", "trust", false); err != nil || !strings.Contains(string(out.Documents[0].Document), `:root"`) || !slices.ContainsFunc(out.Documents[0].Notes, func(n string) bool { return strings.Contains(n, "the user is not known here") }) {
		t.Errorf("%+v %v", out, err)
	}
}
