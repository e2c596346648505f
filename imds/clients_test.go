package imds

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	awsimds "github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"keyfob/internal/access"
	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

func checkGo(t *testing.T, c aws.Credentials, err error, s *cred.Snapshot) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if c.AccessKeyID != s.AccessKeyID || c.SecretAccessKey != canarySecret || c.SessionToken != canaryToken || !c.CanExpire {
		t.Errorf("the client read %s, expires %v", c.AccessKeyID, c.Expires)
	}
	if want := s.Expires.Add(-time.Minute).Truncate(time.Second); !c.Expires.Equal(want) {
		t.Errorf("the client reads %v as the end, want %v", c.Expires, want)
	}
}

// TestGoSDK: the Go SDK's clients of both endpoints.
func TestGoSDK(t *testing.T) {
	t.Parallel()
	broker := newBroker()
	address := metadataServer(t, func(c *MetadataConfig) { c.Broker = broker })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for name, endpoint := range map[string]string{"plain": "http://" + address, "slash at the end": "http://" + address + "/"} {
		t.Run(name, func(t *testing.T) {
			client := awsimds.New(awsimds.Options{Endpoint: endpoint, EnableFallback: aws.FalseTernary})
			c, err := ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = client }).Retrieve(ctx)
			checkGo(t, c, err, broker.warm.Load())
			region, err := client.GetRegion(ctx, nil)
			if err != nil || region.Region != "eu-central-1" {
				t.Errorf("region: %v %v", region, err)
			}
			document, err := client.GetInstanceIdentityDocument(ctx, nil)
			if err != nil || document.AccountID != testAccount || document.Region != "eu-central-1" || document.AvailabilityZone != "eu-central-1a" || document.PendingTime.Year() != 2026 {
				t.Errorf("document: %+v %v", document, err)
			}
			info, err := client.GetIAMInfo(ctx, nil)
			if err != nil || info.InstanceProfileArn != "arn:aws:iam::123456789012:instance-profile/deploy" {
				t.Errorf("iam/info: %+v %v", info, err)
			}
			out, err := client.GetMetadata(ctx, &awsimds.GetMetadataInput{Path: "local-hostname"})
			if err != nil {
				t.Fatal(err)
			}
			defer out.Content.Close()
			if b, _ := io.ReadAll(out.Content); string(b) != "laptop.example.net" {
				t.Errorf("local-hostname: %s", b)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		broker := newBroker()
		broker.get = func(context.Context, cred.Request) (*cred.Snapshot, error) {
			return nil, &cred.UpstreamError{Op: "AssumeRole", Refused: true, Message: "cannot assume deploy: ask for sts:AssumeRole"}
		}
		address := metadataServer(t, func(c *MetadataConfig) { c.Broker = broker })
		client := awsimds.New(awsimds.Options{Endpoint: "http://" + address})
		_, err := ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = client }).Retrieve(ctx)
		if err == nil || !strings.Contains(err.Error(), "ask for sts:AssumeRole") {
			t.Errorf("the client says %v", err)
		}
	})
	t.Run("container", func(t *testing.T) {
		grants := newGrants(t)
		_, token := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self()})
		address := containerServer(t, func(c *ContainerConfig) { c.Grants = grants; c.Broker = broker })
		url := "http://" + address + "/v1/credentials/dev"
		c, err := endpointcreds.New(url, func(o *endpointcreds.Options) { o.AuthorizationToken = token }).Retrieve(ctx)
		checkGo(t, c, err, broker.warm.Load())
		if c.AccountID != testAccount {
			t.Errorf("account is %q", c.AccountID)
		}
		_, err = endpointcreds.New(url, func(o *endpointcreds.Options) { o.AuthorizationToken = "wrong" }).Retrieve(ctx)
		if err == nil || !strings.Contains(err.Error(), "the token is missing or not valid") {
			t.Errorf("with a wrong token the client says %v", err)
		}
	})
}

// clientEnvironment is what a program under test sees: nothing of ours.
func clientEnvironment(t *testing.T, more ...string) []string {
	home := t.TempDir()
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "AWS_CONFIG_FILE=" + filepath.Join(home, "config"), "AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(home, "credentials"),
		"AWS_DEFAULT_REGION=eu-central-1", "DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null", "NO_PROXY=*", "AWS_PAGER=",
	}
	if root := os.Getenv("PYENV_ROOT"); root != "" {
		env = append(env, "PYENV_ROOT="+root)
	} else if real, err := os.UserHomeDir(); err == nil { // shims look under HOME otherwise
		if root := filepath.Join(real, ".pyenv"); exists(root) {
			env = append(env, "PYENV_ROOT="+root)
		}
	}
	return append(env, more...)
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// awsCommands are the AWS CLIs of this machine.
func awsCommands() map[string]string {
	found := map[string]string{}
	if path, err := exec.LookPath("aws"); err == nil {
		found["aws on PATH"] = path
	}
	if exists("/usr/bin/aws") {
		found["/usr/bin/aws"] = "/usr/bin/aws"
	}
	return found
}

func output(t *testing.T, env []string, name string, arg ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, arg...)
	cmd.Env = env
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, arg, err, errors.String())
	}
	return string(out)
}

// endpoints are the two ways in which a program is pointed at us.
func endpoints(t *testing.T) map[string][]string {
	metadata := metadataServer(t, nil)
	grants := newGrants(t)
	_, token := addGrant(t, grants, access.GrantSpec{Profiles: []string{"dev"}, UID: peer.Self()})
	container := containerServer(t, func(c *ContainerConfig) { c.Grants = grants })
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string][]string{
		"iam-role":       {"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://" + metadata + "/"},
		"container-role": {"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://" + container + "/v1/credentials/dev", "AWS_CONTAINER_AUTHORIZATION_TOKEN=" + token},
		"container-file": {"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://" + container + "/v1/credentials/dev", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + tokenFile},
	}
}

// TestAWSCLI: the AWS CLIs that are installed say where their credentials
// come from.
func TestAWSCLI(t *testing.T) {
	t.Parallel()
	commands := awsCommands()
	if len(commands) == 0 {
		t.Skip("no AWS CLI is installed")
	}
	for kind, env := range endpoints(t) {
		for name, path := range commands {
			if kind == "container-file" && name == "/usr/bin/aws" {
				continue // versions before 2.13 don't read the file
			}
			out := output(t, clientEnvironment(t, env...), path, "configure", "list")
			want := strings.Replace(kind, "-file", "-role", 1)
			if !strings.Contains(out, "LE12") || strings.Count(out, want) != 2 {
				t.Errorf("%s, %s:\n%s", name, kind, out)
			}
		}
	}
}

// TestBoto3: botocore reads the credentials, their end, and the region.
func TestBoto3(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	if err := exec.Command(python, "-c", "import boto3").Run(); err != nil {
		t.Skip("boto3 is not installed")
	}
	const script = `
import boto3, botocore.session
from botocore.utils import IMDSRegionProvider
c = boto3.Session().get_credentials()
f = c.get_frozen_credentials()
print(f.access_key, f.secret_key, f.token, c.method, c._expiry_time.strftime("%Y"), getattr(f, "account_id", None))
`
	for kind, env := range endpoints(t) {
		out := strings.Fields(output(t, clientEnvironment(t, env...), python, "-c", script))
		if len(out) != 6 || out[0] != "ASIAEXAMPLEEXAMPLE12" || out[1] != canarySecret || out[2] != canaryToken || out[3] != strings.Replace(kind, "-file", "-role", 1) ||
			out[4] != fmt.Sprint(time.Now().UTC().Add(59*time.Minute).Year()) {
			t.Errorf("%s: %.60q", kind, out)
		}
		if kind == "container-role" && out[5] != testAccount {
			t.Errorf("%s: account is %s", kind, out[5])
		}
	}
	metadata := metadataServer(t, nil)
	const region = `
import botocore.session
from botocore.utils import IMDSRegionProvider
print(IMDSRegionProvider(botocore.session.Session()).provide())
`
	if out := output(t, clientEnvironment(t, "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://"+metadata), python, "-c", region); strings.TrimSpace(out) != "eu-central-1" {
		t.Errorf("region is %q", out)
	}
}

// TestCurl: the two lines of shell that everybody writes.
func TestCurl(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	address := metadataServer(t, nil)
	env := clientEnvironment(t)
	token := output(t, env, curl, "-sfX", "PUT", "http://"+address+"/latest/api/token", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 21600")
	if len(token) != 56 {
		t.Fatalf("token is %q", token)
	}
	if out := output(t, env, curl, "-sfL", "http://"+address+"/latest/meta-data/iam/security-credentials/", "-H", withToken(token)); out != testRole {
		t.Errorf("list is %q", out)
	}
	// s3fs's way: an upload of nothing, announced.
	token = output(t, env, curl, "-sf", "-T", "/dev/null", "http://"+address+"/latest/api/token", "-H", "Expect: 100-continue", "-H", "Transfer-Encoding: chunked", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 21600")
	if len(token) != 56 {
		t.Errorf("uploaded nothing, and got %q", token)
	}
	// Through a proxy that is us: refused.
	out := output(t, append(env, "NO_PROXY=", "http_proxy=http://"+address), curl, "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://169.254.169.254/latest/meta-data/", "-H", withToken(token))
	if out != fmt.Sprint(http.StatusForbidden) {
		t.Errorf("as a proxy: %s", out)
	}
}
