package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// fresh gives the person an empty terminal with a new shell.
func (x *tmux) fresh() {
	x.t.Helper()
	x.do("respawn-pane", "-k", "env PS1='$ ' PATH='"+bin+":'\"$PATH\" sh") // PATH is that of whoever asks tmux
	x.do("clear-history")
	x.expect("$ ")
}

// converse answers questions in their order: what is shown, and what is typed
// then.
func (x *tmux) converse(pairs ...string) {
	x.t.Helper()
	for i := 0; i+1 < len(pairs); i += 2 {
		x.expect(pairs[i])
		x.types(pairs[i+1])
	}
}

// byLine takes a profile's credentials as an SDK does: by the line that the
// wizard wrote into the AWS config.
func (p *person) byLine(profile, role string) {
	p.t.Helper()
	_, section, ok := strings.Cut(p.file(p.path(".aws/config")), "[profile "+profile+"]\n")
	section, _, _ = strings.Cut(section, "\n[")
	_, line, has := strings.Cut(section, "credential_process = ")
	line, _, _ = strings.Cut(line, "\n")
	if !ok || !has || !filepath.IsAbs(strings.Fields(line)[0]) {
		p.t.Fatalf("the AWS config has no line for %s:\n%s", profile, p.file(p.path(".aws/config")))
	}
	cmd := exec.Command("sh", "-c", line)
	cmd.Env, cmd.Dir = p.environ("KEYFOB_INTERACTIVE=never"), "/"
	r := p.finish(cmd)
	if r.code != 0 {
		p.t.Fatalf("%s: exit %d, %s", line, r.code, r.err)
	}
	p.belongs(p.parse(r), role)
}

// wizards are what a person types for each kind of profile (Identity Center
// and an IAM user's key: TestConfigureInTmux), and how it is signed in to.
func wizards(p *person) map[string]struct {
	start    string   // the command
	talk     []string // what is shown, what is typed
	signIn   string   // what is typed then, if anything
	signedIn string   // what that shows
	role     string   // whose the credentials are
} {
	t := p.t.(*testing.T)
	p.aws.AddRole(fakeaws.RoleSpec{ARN: federatedARN, Trust: []fakeaws.Trust{{Federated: []string{"*"}}}})
	p.aws.AddOIDC(fakeaws.OIDCSpec{})
	p.aws.AddSAML(fakeaws.SAMLSpec{Roles: []string{federatedARN}, ACS: p.url + "/saml"})
	assertion, err := p.aws.SAMLResponse("idp", nil)
	if err != nil {
		t.Fatal(err)
	}
	p.secrets.note("assertion", assertion)
	p.write("assertion", assertion)
	if err := p.aws.SetLogin(aliceARN); err != nil {
		t.Fatal(err)
	}
	root := fakeawstest.NewIssuer(t)
	leaf := root.Intermediate(t).Leaf(t, fakeawstest.LeafSpec{})
	box := p.aws.AddRole(fakeaws.RoleSpec{Name: "box", Trust: []fakeaws.Trust{{Federated: []string{"rolesanywhere.amazonaws.com"}}}})
	anchor := p.aws.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: string(root.PEM)})
	anywhere := p.aws.AddAnywhereProfile(fakeaws.AnywhereProfile{Roles: []string{box}})
	p.write("leaf.pem", string(leaf.CertPEM)+string(leaf.ChainPEM))
	p.write("key.pem", string(leaf.KeyPEM))

	const region, write = "Region for its programs [eu-west-1]: ", "Write that? [Y/n] "
	return map[string]struct {
		start    string
		talk     []string
		signIn   string
		signedIn string
		role     string
	}{
		"role": {start: "keyfob configure", talk: []string{
			"Kind (1 to 7): ", "2", "Name of the profile [default]: ", "ops", "ARN of the role: ", "role/entry",
			"that can't be: it has the form arn:aws:iam::123456789012:role/NAME", entryARN,
			"   2  base ", "2", "External id, where the role wants one (Enter for none): ", "",
			"MFA device, where the role wants a code (Enter for none): ", "", region, "", "+source_profile = base", "y"}, role: "entry"},
		"oidc": {start: "keyfob configure ops --kind oidc", talk: []string{
			"Issuer URL: ", p.url + "/oidc/idp", "Client id: ", "keyfob", "ARN of the role: ", federatedARN, region, "", write, ""},
			signIn: "keyfob login ops", signedIn: "signed in to ops until ", role: "federated"},
		"saml": {start: "keyfob configure ops", talk: []string{
			"Kind (1 to 7): ", "5", "Address that starts the sign-in to AWS: ", p.url + "/saml/idp/sso",
			"ARN of the role (empty: chosen at each sign-in) (Enter for none): ", federatedARN,
			"ARN of the SAML provider in IAM (empty: as the assertion says) (Enter for none): ", "", region, "eu-central-1", "+saml_url = ", "yes"},
			signIn: "keyfob login ops --assertion-file assertion", signedIn: "signed in to ops until ", role: "federated"},
		"roles-anywhere": {start: "keyfob configure ops", talk: []string{
			"Kind (1 to 7): ", "6", "ARN of the trust anchor: ", anchor, "ARN of the Roles Anywhere profile: ", anywhere, "ARN of the role: ", box,
			"Certificate: a file, vault:NAME or a pkcs11: URI: ", "leaf.pem", "Private key, where that does not hold it (Enter for none): ", "key.pem",
			region, "", "+roles_anywhere_certificate = " + p.path("leaf.pem"), ""}, role: "box"},
		"login": {start: "keyfob configure ops", talk: []string{"Kind (1 to 7): ", "7", region, "", "+[profile ops]", ""},
			signIn: "keyfob login ops", signedIn: "signed in to ops until ", role: "alice"},
		"existing": {start: "keyfob configure deploy", talk: []string{
			"Where do the credentials of deploy come from?", "", "Region for its programs [eu-west-1]: ", "", "moves from ", "", "+role_arn = " + deployARN, ""}, role: "deploy"},
	}
}

// TestWizardInTmux drives the wizard for each kind, in a terminal: questions,
// wrong answers, the change that is shown, and the answer to it. The profile
// then works by its line in the AWS config; and undone the files are what
// they were.
func TestWizardInTmux(t *testing.T) {
	t.Parallel()
	p := newPerson(t, "")
	x := newTmux(t, p)
	p.addKeys("base")
	before := p.file(p.path(".aws/config"))
	for kind, wizard := range wizards(p) {
		t.Run(kind, func(t *testing.T) {
			defer func(was *testing.T, w *testing.T) { p.t, x.t = was, w }(p.t.(*testing.T), x.t)
			p.t, x.t = t, t
			name := "ops"
			if kind == "existing" {
				name = "deploy"
			}
			x.fresh()
			x.types(wizard.start)
			x.converse(wizard.talk...)
			x.expect("configured " + name)
			if wizard.signIn != "" {
				x.types(wizard.signIn)
				x.expect(wizard.signedIn)
			}
			p.byLine(name, wizard.role)
			p.good(nil, "logout", name)
			for range 2 { // a login profile gets its login_session from the sign-in
				if p.file(p.path(".aws/config")) != before {
					p.good(nil, "configure", "undo", "--yes")
				}
			}
			if got := p.file(p.path(".aws/config")); got != before {
				t.Errorf("undone, the AWS config is\n%s\nit was\n%s", got, before)
			}
		})
	}

	// Broken off with Ctrl-C, or said no to: nothing is written.
	x.fresh()
	x.types("keyfob configure ops --kind login")
	x.expect("Region for its programs ")
	x.do("send-keys", "C-c")
	x.expect("^C")
	x.types("echo ended $?")
	x.expect("ended 130")
	x.types("keyfob configure ops --kind login --region eu-west-1; echo ended $?")
	x.converse("Write that? [Y/n] ", "perhaps", "y or n, please", "n")
	x.expect("keyfob: cannot configure: you said no, and no file was changed")
	x.expect("ended 1\n")
	if got := p.file(p.path(".aws/config")); got != before {
		t.Errorf("broken off, the AWS config is\n%s", got)
	}
}
