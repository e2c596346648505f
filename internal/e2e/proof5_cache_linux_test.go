package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sharedCache runs in a namespace where AWS's names are this machine's: the
// AWS CLI of the distribution knows no endpoint settings. Each line that
// starts with a word and a colon is looked at.
const sharedCache = `
set -e
ip link set lo up
mount --bind "$DIR/hosts" /etc/hosts
fakeaws --listen 127.0.0.1:0 --tls 127.0.0.1:443 --tls-names "$NAMES" --ca-file "$DIR/ca.pem" --until-stdin-closes < "$DIR/hold" > "$DIR/ready" &
exec 3> "$DIR/hold"
trap 'keyfob stop >/dev/null 2>&1; exec 3>&-; wait' EXIT
for i in $(seq 100); do [ -s "$DIR/ready" ] && break; sleep 0.1; done
admin=$(sed 's/.*"admin":"\([^"]*\)".*/\1/' "$DIR/ready")
export AWS_CA_BUNDLE=$DIR/ca.pem BROWSER="sh $DIR/browser %s"
cache=$HOME/.aws/sso/cache
session() { sed "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/" "$(grep -l '"startUrl"' $cache/*.json | head -1)"; }
end() { # the access token is over, at AWS and by the file
	curl -fsS -d '{"what":"sso-tokens"}' "$admin/end" >/dev/null
	f=$(grep -l '"startUrl"' $cache/*.json | head -1)
	sed -i 's/"expiresAt": *"[^"]*"/"expiresAt": "2020-01-01T00:00:00Z"/' "$f"
}
who() { rm -rf "$HOME/.aws/cli/cache"; echo "$1: $("$AWS" sts get-caller-identity --query Arn --output text --profile "$2" 2>&1)"; }
tabs() { echo "$1: $(wc -l < "$DIR/tabs" | tr -d ' ')"; }

"$AWS" sso login --profile work </dev/null >/dev/null
tabs cli-tabs
keyfob credential-process --profile work > "$DIR/one"
tabs used-tabs
end
before=$(session refreshToken)
keyfob credential-process --profile read > "$DIR/two"
tabs refreshed-tabs
[ "$before" != "$(session refreshToken)" ] && echo "written: yes"
echo "mode: $(stat -c %a "$(grep -l '"startUrl"' $cache/*.json | head -1)")"
echo "json: $(python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); print(d["region"], "clientSecret" in d, d["expiresAt"][-1])' "$(grep -l '"startUrl"' $cache/*.json | head -1)")"
who cli-after-our-refresh work
# now the CLI is signed out and keyfob signs in
"$AWS" sso logout
rm -f $cache/*.json
keyfob login work --force >/dev/null 2>"$DIR/login"
tabs ours-tabs
who cli-after-our-sign-in read
# and without the setting nothing is written
keyfob stop
rm -f $cache/*.json
rm "$XDG_CONFIG_HOME/keyfob/config.toml"
keyfob login work --force >/dev/null 2>>"$DIR/login"
echo "files: $(ls $cache | grep -c json$ || true)"
echo "reused: $(curl -fsS "$admin/counters" | grep -c 'reused:refresh_token' || true)"
`

// TestCacheSharedWithTheCLI: with share_sso_cache one sign-in serves the AWS
// CLI of the distribution and keyfob, whoever signs in and whoever refreshes.
func TestCacheSharedWithTheCLI(t *testing.T) {
	t.Parallel()
	const aws = "/usr/bin/aws"
	if out, err := exec.Command(aws, "--version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "aws-cli/2.") {
		t.Skip(aws + " is not the AWS CLI v2")
	}
	for _, tool := range []string{"curl", "ip", "unshare", "mkfifo", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	ns := []string{"-n", "-m"}
	if os.Getuid() != 0 {
		ns = append(ns, "-r")
	}
	if exec.Command("unshare", append(ns, "true")...).Run() != nil {
		t.Skip("no namespaces here")
	}
	w := newWorld(t)
	names := []string{"oidc.eu-west-1.amazonaws.com", "portal.sso.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"}
	w.write("hosts", "127.0.0.1 localhost "+strings.Join(names, " ")+"\n")
	w.write("tabs", "")
	w.write("browser", "echo x >>"+w.path("tabs")+"\nexec curl -fsS -L --cacert "+w.path("ca.pem")+" -o /dev/null \"$1\"\n")
	const profile = "]\nsso_session = team\nsso_account_id = 444455556666\nregion = eu-west-1\nsso_role_name = "
	w.write(".aws/config", "[sso-session team]\nsso_start_url = https://d-1234567890.awsapps.com/start\nsso_region = eu-west-1\nsso_registration_scopes = sso:account:access\n"+
		"[profile work"+profile+"Administrator\n[profile read"+profile+"ReadOnly\n")
	w.write("config/keyfob/config.toml", "share_sso_cache = true\n")
	if out, err := exec.Command("mkfifo", w.path("hold")).CombinedOutput(); err != nil {
		t.Skipf("mkfifo: %s", out)
	}
	delete(w.env, "AWS_ENDPOINT_URL")
	w.env["KEYFOB_INTERACTIVE"] = "auto"
	w.env["PATH"] = bin + ":/usr/bin:/bin:/usr/sbin:/sbin"
	cmd := w.command("unshare", append(ns, "sh", "-c", sharedCache)...)
	cmd.Env = append(cmd.Env, "DIR="+w.home, "AWS="+aws, "NAMES="+strings.Join(names, ","), "AWS_PAGER=")
	cmd.WaitDelay = 10 * time.Second
	r := w.finish(cmd)
	if r.code != 0 {
		t.Fatalf("%+v\n%s", r, w.read("login"))
	}
	const administrator, reader = "arn:aws:sts::444455556666:assumed-role/AWSReservedSSO_Administrator_", "arn:aws:sts::444455556666:assumed-role/AWSReservedSSO_ReadOnly_"
	for what, want := range map[string]string{
		"cli-tabs": "1", "used-tabs": "1", "refreshed-tabs": "1", "written": "yes", "mode": "600", "json": "eu-west-1 True Z",
		"cli-after-our-refresh": administrator, "ours-tabs": "2", "cli-after-our-sign-in": reader, "files": "0", "reused": "0",
	} {
		if !strings.Contains("\n"+r.out, "\n"+what+": "+want) {
			t.Errorf("%s is not %s in %s\n%s", what, want, r.out, r.err)
		}
	}
	for name, role := range map[string]string{"one": "Administrator", "two": "ReadOnly"} {
		var d document
		if err := json.Unmarshal([]byte(w.read(name)), &d); err != nil || d.SessionToken == "" || d.AccountId != "444455556666" {
			t.Errorf("%s: %+v %v", role, d, err)
		}
	}
	if left, _ := filepath.Glob(w.path(".aws/sso/cache/*.new*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
