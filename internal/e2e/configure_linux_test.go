package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// tmux is a terminal of a person who works in tmux.
type tmux struct {
	t      *testing.T
	socket string
}

// newTmux starts one with a shell in the person's environment.
func newTmux(t *testing.T, p *person) *tmux {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("skipped: tmux is not installed")
	}
	x := &tmux{t: t, socket: p.path("tmux")}
	cmd := exec.Command("tmux", "-f", "/dev/null", "-S", x.socket, "new-session", "-d", "-x", "150", "-y", "60", "env PS1='$ ' sh")
	cmd.Env = append(p.environ(), "TERM=xterm", "LC_ALL=C.UTF-8", "SHELL=/bin/sh")
	cmd.Dir = p.home
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot start tmux: %v: %s", err, out)
	}
	t.Cleanup(func() { x.do("kill-server") })
	return x
}

func (x *tmux) do(args ...string) string {
	x.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", x.socket}, args...)...).CombinedOutput()
	if err != nil && args[0] != "kill-server" {
		x.t.Fatalf("tmux %v: %v: %s", args, err, out)
	}
	return string(out)
}

// types sends keys as a person does, and Enter.
func (x *tmux) types(text string) {
	x.t.Helper()
	if text != "" {
		x.do("send-keys", "-l", text)
	}
	x.do("send-keys", "Enter")
}

// screen is all that was shown, the part that has scrolled away too; lines
// that were broken at the edge are one.
func (x *tmux) screen() string { return x.do("capture-pane", "-p", "-J", "-S", "-") }

// expect waits for a text below the last line that was expected.
func (x *tmux) expect(text string) {
	x.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(30 * time.Millisecond) {
		if strings.Contains(x.screen(), text) {
			return
		}
		if time.Now().After(end) {
			x.t.Fatalf("tmux does not show %q but\n%s", text, x.screen())
		}
	}
}

// TestConfigureInTmux drives the wizard through a person's first minutes:
// Identity Center, then an IAM user with an MFA device, and both undone.
func TestConfigureInTmux(t *testing.T) {
	t.Parallel()
	p := newPerson(t, "")
	p.aws.AddSSO(fakeaws.SSOSpec{Accounts: []fakeaws.SSOAccount{
		{Name: "Dev (EU)", Roles: []fakeaws.SSORole{{Name: "Developer"}, {Name: "ReadOnly"}}},
		{ID: "222222222222", Name: "Prod", Roles: []fakeaws.SSORole{{Name: "ReadOnly"}}}}})
	before := p.file(p.path(".aws/config"))
	x := newTmux(t, p)

	x.types("keyfob configure")
	x.expect("Kind (1 to 7): ")
	x.types("3")
	x.expect("Start URL, as https://d-1234567890.awsapps.com/start: ")
	x.types("awsapps")
	x.expect("that can't be: it is an address that begins with https://")
	x.types(startURL)
	x.expect("Region of Identity Center: ")
	x.types("eu-west-1")
	x.expect("Name of this sign-in [d-1234567890]: ")
	x.types("corp")
	x.expect("   3  222222222222  Prod      ReadOnly")
	x.expect("a text to look for: ")
	x.types("1,3")
	x.expect("Region for its programs [eu-west-1]: ")
	x.types("eu-central-1")
	x.expect("+sso_role_name = Developer")
	x.expect("Write that? [Y/n] ")
	if p.file(p.path(".aws/config")) != before {
		t.Error("written before the answer")
	}
	x.types("y")
	x.expect("configured Prod-ReadOnly")
	x.expect("hint: keyfob whoami Dev-EU-Developer")
	p.wantTabs(0, 1, "the wizard's sign-in")
	p.uses("Dev-EU-Developer", "Developer")
	p.uses("Prod-ReadOnly", "ReadOnly")
	p.wantTabs(0, 1, "its profiles share it")
	for _, line := range []string{"[profile Dev-EU-Developer]\ncredential_process = " + p.keyfob() + " credential-process --profile Dev-EU-Developer\nregion = eu-central-1\n"} {
		if !strings.Contains(p.file(p.path(".aws/config")), line) {
			t.Errorf("the AWS config lacks %q:\n%s", line, p.file(p.path(".aws/config")))
		}
	}

	// The region of the profile, and by the line that was written: what an
	// SDK would run.
	line := exec.Command("sh", "-c", p.keyfob()+" credential-process --profile Prod-ReadOnly")
	line.Env, line.Dir = p.environ(), p.home
	p.parse(p.finish(line))

	x.types("clear; keyfob configure alice --kind user")
	x.expect("AWS access key ID for alice: ")
	x.types(p.keyID)
	x.expect("AWS secret access key: ")
	time.Sleep(200 * time.Millisecond) // for the echo to be off: the prompt is written just after
	x.types(p.secret)
	x.expect("the key is arn:aws:iam::111122223333:user/alice's, and in the vault")
	x.expect("The user has the MFA device arn:aws:iam::111122223333:mfa/alice. Ask for its code at each sign-in? [Y/n] ")
	x.types("")
	x.expect("Region for its programs [eu-west-1]: ")
	x.types("")
	x.expect("+mfa_serial = arn:aws:iam::111122223333:mfa/alice")
	x.types("y")
	x.expect("configured alice")
	if strings.Contains(x.screen(), p.secret) {
		t.Error("the terminal shows the secret")
	}
	p.bad(p.do(nil, "credential-process", "--profile", "alice", "--interactive", "never"), 3, "MFA")

	x.types("clear; keyfob configure undo")
	x.expect(`Take back "configure alice", of `)
	x.types("y")
	x.expect("undid 2 (configure alice)")
	if r := p.good(nil, "configure", "undo", "--yes"); r.out != "undid 1 (configure 2 profiles)\n" {
		t.Errorf("undo printed %q", r.out)
	}
	if got := p.file(p.path(".aws/config")); got != before {
		t.Errorf("undone, the AWS config is\n%s\nit was\n%s", got, before)
	}
	if _, err := os.Stat(p.path("config/keyfob/profiles")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("keyfob's file: %v", err)
	}
}

// TestConfigureByFlags: no sign-in is asked for where nobody can be asked,
// and a sign-in that is there is enough.
func TestConfigureByFlags(t *testing.T) {
	t.Parallel()
	p := newPerson(t, "")
	p.aws.AddSSO(directory())
	sso := []string{"configure", "--kind", "sso", "--start-url", startURL, "--sso-region", "eu-west-1", "--sso-session", "corp", "--role", "read*", "--yes"}
	p.env["KEYFOB_INTERACTIVE"] = "never"
	p.bad(p.do(nil, sso...), 3, "a person must sign in at "+startURL)
	p.env["KEYFOB_INTERACTIVE"] = "always"
	if r := p.good(nil, sso...); !strings.HasPrefix(r.out, "configured ") || strings.Count(r.out, "\n") != 1 {
		t.Errorf("it printed %q", r.out)
	}
	p.wantTabs(0, 1, "the sign-in")
	p.env["KEYFOB_INTERACTIVE"] = "never"
	p.good(nil, append(sso, "--name-template", "again-{role}")...)
	p.uses("again-ReadOnly", "ReadOnly")
}

// TestImport: plain-text keys of the credentials file, then those of
// aws-vault's files, with a daemon and AWS behind.
func TestImport(t *testing.T) {
	t.Parallel()
	p := newPerson(t, "")
	text := "# mine\n[base] ; c\naws_access_key_id=" + p.keyID + "\naws_secret_access_key = " + p.secret + "\noutput = json\n[wrong]\naws_access_key_id = AKIAAAAAAAAAAAAAAAAA\naws_secret_access_key = x\n"
	p.write(".aws/credentials", text)
	r := p.do(nil, "import", "--all", "--yes")
	if r.code != 1 || r.out != "imported base arn:aws:iam::111122223333:user/alice\n" || !strings.Contains(r.err, "keyfob: cannot import wrong: ") {
		t.Errorf("exit %d, %q, %q", r.code, r.out, r.err)
	}
	want := "# mine\n[base] ; c\noutput = json\n[wrong]\naws_access_key_id = AKIAAAAAAAAAAAAAAAAA\naws_secret_access_key = x\n"
	if got := p.file(p.path(".aws/credentials")); got != want {
		t.Errorf("the file is %q", got)
	}
	p.uses("base", "alice")
	p.uses("deploy", "deploy") // a role above it
	backups, _ := filepath.Glob(p.path(".aws/credentials.keyfob-backup-*"))
	if len(backups) != 1 || p.file(backups[0]) != text {
		t.Errorf("backups %v", backups)
	}

	id, secret := p.aws.AddUser(fakeaws.UserSpec{Name: "bela"})
	program := p.path("awsvault")
	build := exec.Command("go", "build", "-o", program, "./testdata/awsvault")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	in, err := json.Marshal(map[string]string{"Dir": p.path(".awsvault/keys"), "Passphrase": "CANARY of aws-vault", "Name": "bela", "AccessKeyID": id, "SecretAccessKey": secret})
	if err != nil {
		t.Fatal(err)
	}
	write := p.command(program)
	write.Stdin = strings.NewReader(string(in))
	if r := p.finish(write); r.code != 0 {
		t.Fatal(r.err)
	}
	p.refusal(p.do([]byte("wrong\n"), "import", "--from", "aws-vault", "--backend", "file", "bela", "--yes"), 3, "wrong passphrase")
	if r := p.good([]byte("CANARY of aws-vault\n"), "import", "--from", "aws-vault", "--backend", "file", "--all", "--yes"); r.out != "imported bela arn:aws:iam::111122223333:user/bela\n" {
		t.Errorf("it printed %q", r.out)
	}
	p.uses("bela", "bela")
	for _, said := range p.said {
		for _, s := range []string{p.secret, secret, "CANARY of aws-vault"} {
			if strings.Contains(said, s) {
				t.Errorf("a secret was said: %q", said)
			}
		}
	}
	for _, f := range []string{"data/keyfobd.log", ".aws/config"} {
		for _, s := range []string{p.secret, secret, "CANARY of aws-vault"} {
			if strings.Contains(p.file(p.path(f)), s) {
				t.Errorf("a secret is in %s", f)
			}
		}
	}
}

// TestCertificates: a certificate in the vault signs for Roles Anywhere.
func TestCertificates(t *testing.T) {
	t.Parallel()
	p := newPerson(t, "")
	root := fakeawstest.NewIssuer(t)
	leaf := root.Intermediate(t).Leaf(t, fakeawstest.LeafSpec{})
	role := p.aws.AddRole(fakeaws.RoleSpec{Name: "box", Trust: []fakeaws.Trust{{Federated: []string{"rolesanywhere.amazonaws.com"}}}})
	anchor := p.aws.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: string(root.PEM)})
	profile := p.aws.AddAnywhereProfile(fakeaws.AnywhereProfile{Roles: []string{role}})
	p.write("leaf.pem", string(leaf.CertPEM))
	p.write("key.pem", string(leaf.KeyPEM))
	p.write("chain.pem", string(leaf.ChainPEM))
	add := []string{"certificate", "add", "host", "--certificate", "leaf.pem", "--private-key", "key.pem", "--intermediates", "chain.pem"}
	if r := p.good(nil, add...); !strings.HasPrefix(r.out, "added host: CN=machine.example.com, until ") || !strings.Contains(r.err, "host: it ends in 0 days") {
		t.Errorf("%q %q", r.out, r.err)
	}
	p.bad(p.do(nil, add...), 1, "has one named host", "--force replaces it")
	p.bad(p.do(nil, "certificate", "add", "bad", "--certificate", "leaf.pem"), 1, "no private key")
	if r := p.good(nil, "certificate", "list"); !strings.HasPrefix(r.out, "vault:host  CN=machine.example.com  serial "+leaf.Cert.SerialNumber.String()) {
		t.Errorf("the list is %q", r.out)
	}
	p.good(nil, "configure", "box", "--kind", "roles-anywhere", "--trust-anchor-arn", anchor, "--profile-arn", profile, "--role-arn", role, "--certificate", "vault:host", "--yes")
	p.uses("box", "box")
	p.good([]byte("CANARY-passphrase-of-a-key\n"), "certificate", "passphrase", "key.pem")
	if r := p.good(nil, "certificate", "list", "--json"); !strings.Contains(r.out, p.path("key.pem")) || strings.Contains(r.out, "CANARY") {
		t.Errorf("the list is %q", r.out)
	}
	p.good(nil, "certificate", "remove", "./key.pem", "--yes")
	p.good(nil, "certificate", "remove", "host", "--yes")
	p.bad(p.do(nil, "certificate", "remove", "host", "--yes"), 1, "the vault has none")
	if r := p.good(nil, "certificate", "list"); r.out != "" {
		t.Errorf("the list is %q", r.out)
	}
}
