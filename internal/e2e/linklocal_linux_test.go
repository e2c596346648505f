package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Programs that know no other address than EC2's and ECS's run in a network
// namespace of their own, where those addresses are ours and nothing else is
// there. The test runs itself again in it, and everything that the real
// programs do goes by there.

const insideVariable = "KEYFOB_TEST_NAMESPACE"

var linkLocal = []string{"169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "fd00:ec2::254/128", "fd00:ec2::23/128"}

// inNamespace reports whether this is the namespace. If not, it runs the test
// in one and tells what came of it; subtests are logged.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideVariable) == t.Name() {
		ip := func(args ...string) error {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %s: %w: %s", args, err, out)
			}
			return nil
		}
		if err := ip("link", "set", "lo", "up"); err != nil {
			t.Fatal(err)
		}
		for _, a := range linkLocal {
			args := []string{"addr", "add", a, "dev", "lo"}
			if strings.Contains(a, ":") {
				args = append(args, "nodad")
			}
			if err := ip(args...); err != nil && !strings.Contains(a, ":") {
				t.Fatal(err)
			}
		}
		return true
	}
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip (iproute2) is not installed")
	}
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=3m")
	cmd.Env = append(os.Environ(), insideVariable+"="+t.Name(), binVariable+"="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil && len(out) == 0:
		t.Skipf("network namespaces can't be made here: %v", err)
	case err != nil:
		t.Errorf("inside: %v\n%s", err, out)
	case testing.Verbose():
		t.Logf("inside:\n%s", out)
	default: // what was skipped is to be known
		for _, line := range strings.Split(string(out), "\n") {
			if strings.Contains(line, "SKIP") || strings.Contains(line, "skipped") {
				t.Log(line)
			}
		}
	}
	return false
}

// hasIPv6 reports whether EC2's IPv6 address could be made.
func hasIPv6() bool {
	l, err := net.Listen("tcp", "[fd00:ec2::254]:0")
	if err == nil {
		_ = l.Close()
	}
	return err == nil
}

const linkLocalToml = `
[[endpoint]]
kind = "imds"
listen = "169.254.169.254:80"
profile = "deploy"

[[endpoint]]
kind = "container"
listen = "169.254.170.2:80"

[[endpoint]]
kind = "container"
listen = "169.254.170.23:80"
`

const linkLocalToml6 = `
[[endpoint]]
kind = "imds"
listen = "[fd00:ec2::254]:80"
profile = "deploy"
`

// linkLocalWorld is a world whose daemon has the machine's addresses, with a
// warm session.
func linkLocalWorld(t *testing.T) *world {
	w := newWorld(t)
	toml := linkLocalToml
	if hasIPv6() {
		toml += linkLocalToml6
	}
	w.write("config/keyfob/config.toml", toml)
	w.addKeys("base")
	w.credentials("deploy")
	return w
}

// bareEnv is an environment with nothing in it but where programs are.
func bareEnv() []string {
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output(); err == nil {
		// The interpreter's own place: a shim needs variables.
		path = filepath.Dir(strings.TrimSpace(string(out))) + ":" + path
	}
	for _, name := range []string{"node", "rclone", "restic", "s3cmd", "s3fs", "gdalinfo"} {
		if p, err := exec.LookPath(name); err == nil && !strings.Contains(path, filepath.Dir(p)) {
			path += ":" + filepath.Dir(p)
		}
	}
	return []string{"PATH=" + path, "HOME=/nohome"}
}

// bareClient is a program that gets nothing but its arguments.
type bareClient struct {
	name    string
	missing func() string
	args    func(w *world) []string
	// out is what it prints when all went well, "" where fakeaws is not
	// enough of an S3 for that.
	out         string
	fetchesOnly bool   // it makes no call with what it gets
	program     string // as the audit log names it, "" for an interpreter's
}

const (
	bareBoto = `
import sys, boto3
print(boto3.client("sts", region_name="eu-west-1", endpoint_url=sys.argv[1]).get_caller_identity()["Arn"])`
	bareJS = `
import { createRequire } from "node:module";
const require = createRequire(process.argv[2] + "/");
const { STSClient, GetCallerIdentityCommand } = require("@aws-sdk/client-sts");
const { Arn } = await new STSClient({ endpoint: process.argv[1], region: "eu-west-1" }).send(new GetCallerIdentityCommand({}));
console.log(Arn);`
	bareJS2 = `
const AWS = require(process.argv[2] + "/node_modules/aws-sdk");
new AWS.STS({ endpoint: process.argv[1], region: "eu-west-1" }).getCallerIdentity({}, (err, r) => {
  if (err) { console.error(err); process.exit(1); }
  console.log(r.Arn);
});`
)

func host(url string) string { return strings.TrimPrefix(url, "http://") }

var bareClients = []bareClient{
	{name: "curl", program: "curl", missing: onPath("curl"), fetchesOnly: true, out: `"Code" : "Success"`, args: func(*world) []string {
		return []string{"sh", "-c", `T=$(curl -sX PUT http://169.254.169.254/latest/api/token -H "X-aws-ec2-metadata-token-ttl-seconds: 60") &&
curl -s -H "X-aws-ec2-metadata-token: $T" http://169.254.169.254/latest/meta-data/iam/security-credentials/deploy`}
	}},
	{name: "AWS CLI on the path", missing: onPath("aws"), out: asDeploy, args: func(w *world) []string {
		return []string{"aws", "--region", "eu-west-1", "--endpoint-url", w.url, "--output", "text", "--query", "Arn", "sts", "get-caller-identity"}
	}},
	{name: "AWS CLI of the distribution", missing: onPath("/usr/bin/aws"), out: asDeploy, args: func(w *world) []string {
		return []string{"/usr/bin/aws", "--region", "eu-west-1", "--endpoint-url", w.url, "--output", "text", "--query", "Arn", "sts", "get-caller-identity"}
	}},
	{name: "boto3 on the path", missing: pythonHas("python3"), out: asDeploy, args: func(w *world) []string {
		return []string{"python3", "-c", bareBoto, w.url}
	}},
	{name: "boto3 of the distribution", missing: pythonHas("/usr/bin/python3"), out: asDeploy, args: func(w *world) []string {
		return []string{"/usr/bin/python3", "-c", bareBoto, w.url}
	}},
	{name: "AWS SDK for JavaScript v3", missing: hasJS, out: asDeploy, args: func(w *world) []string {
		return []string{"node", "--input-type=module", "-e", bareJS, w.url, jsFolder()}
	}},
	{name: "AWS SDK for JavaScript v2", missing: hasJS2, out: asDeploy, args: func(w *world) []string {
		return []string{"node", "--no-deprecation", "-e", bareJS2, w.url, jsFolder()}
	}},
	{name: "AWS SDK for Go v2", missing: func() string { return "" }, out: asDeploy, args: func(w *world) []string {
		return []string{os.Args[0], goClientArg, w.url}
	}},
	{name: "s3cmd", missing: onPath("s3cmd"), args: func(w *world) []string {
		return []string{"s3cmd", "-c", "/dev/null", "--no-ssl", "--region=eu-west-1", "--host=" + host(w.url), "--host-bucket=" + host(w.url), "ls"}
	}},
	{name: "rclone", program: "rclone", missing: onPath("rclone"), args: func(w *world) []string {
		return []string{"rclone", "--config", "", "--retries", "1", "--low-level-retries", "1", "lsd", ":s3,provider=AWS,env_auth,force_path_style,region=eu-west-1,endpoint='" + w.url + "':"}
	}},
	{name: "restic", program: "restic", missing: onPath("restic"), args: func(w *world) []string {
		return []string{"timeout", "-k", "1", "10", "restic", "--no-cache", "--password-command", "echo x", "-r", "s3:" + w.url + "/bucket/backup", "snapshots"}
	}},
	// iam_role=auto of s3fs 1.90 looks for the role's name without a token,
	// which EC2 refuses as well where IMDSv2 is required.
	{name: "s3fs", program: "s3fs", missing: onPath("s3fs"), args: func(w *world) []string {
		return []string{"timeout", "-k", "1", "10", "s3fs", "bucket", w.path("mount"), "-f", "-o", "iam_role=deploy,url=" + w.url + ",use_path_request_style,retries=1,endpoint=eu-west-1"}
	}},
	{name: "GDAL", program: "gdalinfo", missing: onPath("gdalinfo"), args: func(w *world) []string {
		return []string{"gdalinfo", "/vsis3/bucket/picture.tif", "--config", "CPL_AWS_AUTODETECT_EC2", "NO", "--config", "AWS_S3_ENDPOINT", host(w.url), "--config", "AWS_HTTPS", "NO", "--config", "AWS_VIRTUAL_HOSTING", "FALSE", "--config", "AWS_REGION", "eu-west-1"}
	}},
}

// signers are the access keys that requests were signed with, whether fakeaws
// knows the operation or not.
type signers struct {
	mu  sync.Mutex // guards ids
	ids []string
}

// recordSigners puts a recorder before fakeaws: w.url leads to it from here
// on. The daemon keeps the address that it has.
func (w *world) recordSigners() *signers {
	s := &signers{}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, rest, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
			id, _, _ := strings.Cut(rest, "/")
			s.mu.Lock()
			s.ids = append(s.ids, id)
			s.mu.Unlock()
		}
		w.aws.Handler().ServeHTTP(rw, r)
	}))
	w.t.Cleanup(srv.Close)
	w.url = srv.URL
	return s
}

// take returns what was recorded since the last time.
func (s *signers) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.ids
	s.ids = nil
	return ids
}

// bare runs a program with an empty environment.
func (w *world) bare(args ...string) result {
	cmd := exec.Command(args[0], args[1:]...)
	env := bareEnv()
	cmd.Env = env
	for _, dir := range filepath.SplitList(strings.TrimPrefix(env[0], "PATH=")) {
		if !strings.Contains(args[0], "/") {
			if p, err := exec.LookPath(filepath.Join(dir, args[0])); err == nil {
				cmd.Path, cmd.Err = p, nil
				break
			}
		}
	}
	cmd.Dir = w.home
	return w.finish(cmd)
}

// TestLinkLocalClients: with no environment variable at all, real clients
// find a real keyfobd at EC2's address and call AWS as its profile.
func TestLinkLocalClients(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	w := linkLocalWorld(t)
	if err := os.Mkdir(w.path("mount"), 0o700); err != nil {
		t.Fatal(err)
	}
	signers := w.recordSigners()
	for _, c := range bareClients {
		t.Run(c.name, func(t *testing.T) {
			if why := c.missing(); why != "" {
				t.Skip(why)
			}
			signers.take()
			handouts := w.handouts("deploy")
			r := w.bare(c.args(w)...)
			if c.out != "" && (r.code != 0 || !strings.Contains(r.out, c.out)) {
				t.Errorf("exit %d, printed %q, %q", r.code, r.out, r.err)
			}
			ids := signers.take()
			for _, id := range ids {
				if s, ok := w.aws.Session(id); !ok || !strings.Contains(s.ARN, ":"+asDeploy) {
					t.Errorf("a request was signed by %s (%s)", id, s.ARN)
				}
			}
			if len(ids) == 0 && !c.fetchesOnly {
				t.Errorf("it made no signed request: exit %d, %q, %q", r.code, r.out, r.err)
			}
			eventually(t, "the hand-out is in the audit log", func() bool { return w.handouts("deploy") > handouts })
			if c.program != "" {
				path, _ := exec.LookPath(c.program)
				if real, err := filepath.EvalSymlinks(path); err != nil || len(w.audit("--event", "handout", "--program", real)) == 0 {
					t.Errorf("the audit log has no hand-out to %s: %+v", real, w.audit())
				}
			}
		})
	}
}

// TestLinkLocalIPv6: the address of EC2 in IPv6.
func TestLinkLocalIPv6(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	if !hasIPv6() {
		t.Skip("there is no IPv6 here")
	}
	w := linkLocalWorld(t)
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if why := pythonHas(python)(); why != "" {
			t.Log("skipped: " + why)
			continue
		}
		r := w.bare(python, "-c", `
import sys, boto3, botocore.session, botocore.config
from botocore.utils import InstanceMetadataFetcher
print(InstanceMetadataFetcher(config={"ec2_metadata_service_endpoint_mode": "ipv6"}).retrieve_iam_role_credentials()["role_name"])`)
		if r.code != 0 || strings.TrimSpace(r.out) != "deploy" {
			t.Errorf("%s: exit %d, %q, %q", python, r.code, r.out, r.err)
		}
	}
	if a := w.probe("imds", "http://[fd00:ec2::254]"); a.Status != 200 || !strings.Contains(a.Body, "Success") {
		t.Errorf("%+v", a)
	}
}

// TestLinkLocalContainers: the addresses of ECS and EKS, which every SDK
// takes over plain http, by a grant with a token and by a relative one.
func TestLinkLocalContainers(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	w := linkLocalWorld(t)
	g := w.grant("deploy")
	if !strings.HasPrefix(g.URL, "http://169.254.170.2:80/") && !strings.HasPrefix(g.URL, "http://169.254.170.2/") {
		t.Errorf("the grant is for %s", g.URL)
	}
	rel := w.grant("deploy", "--relative")
	if rel.RelativeURI == "" {
		t.Fatalf("%+v", rel)
	}
	ways := map[string][]string{
		"ECS, by token":    {"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + g.URL, "AWS_CONTAINER_AUTHORIZATION_TOKEN=" + w.file(g.TokenFile)},
		"EKS, by token":    {"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/credentials/deploy", "AWS_CONTAINER_AUTHORIZATION_TOKEN=" + w.file(g.TokenFile)},
		"EKS, by file":     {"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/credentials/deploy", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + g.TokenFile},
		"ECS, by its path": {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=" + rel.RelativeURI},
	}
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			if why := c.missing(); why != "" {
				t.Skip(why)
			}
			for way, env := range ways {
				// botocore before 1.31 knows no file, and before that no host but 169.254.170.2.
				if c.name == "AWS CLI of the distribution" || c.name == "boto3 of the distribution" {
					if strings.HasPrefix(way, "EKS") {
						continue
					}
				}
				// Its FULL_URI may be on 169.254.170.23 and this machine alone.
				if c.name == "AWS SDK for JavaScript v2" && way == "ECS, by token" {
					continue
				}
				env := append(env, "AWS_EC2_METADATA_DISABLED=true", "AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
				if r := c.run(w, env...); r.code != 0 || !strings.Contains(r.out, asDeploy) {
					t.Errorf("%s: exit %d, %q, %q", way, r.code, r.out, r.err)
				}
			}
		})
	}
}
