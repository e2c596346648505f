package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The script runs in a network and mount namespace of its own, where AWS's
// names are this machine's and the test's authority is the one trusted: no
// endpoint setting is needed, which this AWS CLI does not know.
const ssoLogin = `
set -e
ip link set lo up
mount --bind "$DIR/hosts" /etc/hosts
FAKEAWS_IS_MAIN=1 "$SELF" --listen 127.0.0.1:0 --tls 127.0.0.1:443 --tls-names "$NAMES" --ca-file "$DIR/ca.pem" --until-stdin-closes < "$DIR/hold" > "$DIR/ready" &
exec 3> "$DIR/hold"
for i in $(seq 100); do [ -s "$DIR/ready" ] && break; sleep 0.1; done
export AWS_CA_BUNDLE=$DIR/ca.pem BROWSER="curl -fsS --cacert $DIR/ca.pem -o $DIR/page %s"
"$AWS" sso login --profile work </dev/null
"$AWS" sts get-caller-identity --query Arn --output text --profile work
"$AWS" sso logout
admin=$(sed 's/.*"admin":"\([^"]*\)".*/\1/' "$DIR/ready")
curl -fsS "$admin/counters"
exec 3>&-
wait
`

func TestAWSCommandLineSignsIn(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the AWS command line")
	}
	const aws = "/usr/bin/aws"
	if out, err := exec.Command(aws, "--version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "aws-cli/2.") {
		t.Skip(aws + " is not the AWS CLI v2")
	}
	for _, tool := range []string{"curl", "ip", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	ns := []string{"-n", "-m"}
	if os.Getuid() != 0 {
		ns = []string{"-r", "-n", "-m"}
	}
	if exec.Command("unshare", append(ns, "true")...).Run() != nil {
		t.Skip("no namespaces here")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	names := []string{"oidc.eu-west-1.amazonaws.com", "portal.sso.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("hosts", "127.0.0.1 localhost "+strings.Join(names, " ")+"\n")
	write(".aws/config", `[sso-session team]
sso_start_url = https://d-1234567890.awsapps.com/start
sso_region = eu-west-1
sso_registration_scopes = sso:account:access
[profile work]
sso_session = team
sso_account_id = 444455556666
sso_role_name = Administrator
region = eu-west-1
`)
	if out, err := exec.Command("mkfifo", filepath.Join(dir, "hold")).CombinedOutput(); err != nil {
		t.Skipf("mkfifo: %s", out)
	}
	c := exec.CommandContext(t.Context(), "unshare", append(ns, "sh", "-c", ssoLogin)...)
	c.WaitDelay = 10 * time.Second
	c.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + dir, "DIR=" + dir, "SELF=" + self, "AWS=" + aws, "NAMES=" + strings.Join(names, ","), "AWS_PAGER="}
	out, err := c.CombinedOutput()
	if text := string(out); err != nil || !strings.Contains(text, "Successfully logged into") || !strings.Contains(text, "arn:aws:sts::444455556666:assumed-role/AWSReservedSSO_Administrator_") ||
		!strings.Contains(text, "/alice@example.com") || !strings.Contains(text, `"Logout":1`) {
		t.Errorf("%v\n%s", err, text)
	}
	if page, err := os.ReadFile(filepath.Join(dir, "page")); err != nil || !strings.Contains(string(page), "Request approved") {
		t.Errorf("the page: %s %v", page, err)
	}
}
