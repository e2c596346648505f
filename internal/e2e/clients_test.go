//go:build !windows

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// client is one real AWS client: a command that prints the ARN of whoever it
// is, from its environment alone.
type client struct {
	name string
	// why it can't run here, "" if it can
	missing func() string
	command func(w *world) []string
}

const asDeploy = "assumed-role/deploy/" // in the ARN of who has deploy

const botoScript = `
import os, boto3
print(boto3.client("sts", endpoint_url=os.environ["TEST_STS"]).get_caller_identity()["Arn"])`

const jsScript = `
import { createRequire } from "node:module";
const require = createRequire(process.env.TEST_JS + "/");
const { STSClient, GetCallerIdentityCommand } = require("@aws-sdk/client-sts");
const { Arn } = await new STSClient({ endpoint: process.env.TEST_STS }).send(new GetCallerIdentityCommand({}));
console.log(Arn);`

func onPath(name string) func() string {
	return func() string {
		if _, err := exec.LookPath(name); err != nil {
			return name + " is not installed"
		}
		return ""
	}
}

func pythonHas(python string) func() string {
	return func() string {
		if err := exec.Command(python, "-c", "import boto3").Run(); err != nil {
			return python + " has no boto3"
		}
		return ""
	}
}

func jsFolder() string {
	if d := os.Getenv("KEYFOB_TEST_JS"); d != "" {
		return d
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "keyfob-test", "js")
}

func hasJS() string {
	if m := onPath("node")(); m != "" {
		return m
	}
	if _, err := os.Stat(filepath.Join(jsFolder(), "node_modules", "@aws-sdk", "client-sts")); err != nil {
		return "there is no @aws-sdk/client-sts (scripts/test.sh --install brings it)"
	}
	return ""
}

func hasJS2() string {
	if m := onPath("node")(); m != "" {
		return m
	}
	if _, err := os.Stat(filepath.Join(jsFolder(), "node_modules", "aws-sdk")); err != nil {
		return "there is no aws-sdk, version 2 (scripts/test.sh --install brings it)"
	}
	return ""
}

const js2Script = `
const AWS = require(process.env.TEST_JS + "/node_modules/aws-sdk");
new AWS.STS({ endpoint: process.env.TEST_STS, region: "eu-west-1" }).getCallerIdentity({}, (err, r) => {
  if (err) { console.error(err); process.exit(1); }
  console.log(r.Arn);
});`

var clients = []client{
	{"AWS CLI on the path", onPath("aws"), func(w *world) []string {
		return []string{"aws", "--endpoint-url", w.url, "--output", "text", "--query", "Arn", "sts", "get-caller-identity"}
	}},
	{"AWS CLI of the distribution", onPath("/usr/bin/aws"), func(w *world) []string {
		return []string{"/usr/bin/aws", "--endpoint-url", w.url, "--output", "text", "--query", "Arn", "sts", "get-caller-identity"}
	}},
	{"boto3 on the path", pythonHas("python3"), func(*world) []string { return []string{"python3", "-c", botoScript} }},
	{"boto3 of the distribution", pythonHas("/usr/bin/python3"), func(*world) []string { return []string{"/usr/bin/python3", "-c", botoScript} }},
	{"AWS SDK for JavaScript v3", hasJS, func(*world) []string { return []string{"node", "--input-type=module", "-e", jsScript} }},
	// It reads the AWS config, where credential_process stands, only when told to.
	{"AWS SDK for JavaScript v2", hasJS2, func(*world) []string {
		return []string{"env", "AWS_SDK_LOAD_CONFIG=1", "AWS_SDK_JS_SUPPRESS_MAINTENANCE_MODE_MESSAGE=1", "node", "--no-deprecation", "-e", js2Script}
	}},
	{"AWS SDK for Go v2", func() string { return "" }, func(*world) []string {
		return []string{os.Args[0], "-test.run=^TestGoClient$", "-test.v"}
	}},
}

// TestGoClient is the Go SDK as a program of its own: it runs when another
// test starts this binary.
func TestGoClient(t *testing.T) {
	url := os.Getenv("TEST_STS")
	if url == "" {
		t.Skip("this is a program for TestEveryClientEveryWay, which runs it")
	}
	cfg, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	out, err := sts.NewFromConfig(cfg, func(o *sts.Options) { o.BaseEndpoint = &url }).GetCallerIdentity(context.Background(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(*out.Arn)
}

// goClientArg makes this binary a program that asks the STS at its next
// argument who it is, with the SDK's own search for credentials and region.
const goClientArg = "go-client"

func goClient(args []string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg, err := config.LoadDefaultConfig(ctx, config.WithEC2IMDSRegion())
	if err == nil {
		var out *sts.GetCallerIdentityOutput
		if out, err = sts.NewFromConfig(cfg, func(o *sts.Options) { o.BaseEndpoint = &args[0] }).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); err == nil {
			fmt.Println(*out.Arn)
			return 0
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// run starts the client with nothing of this machine in its environment but
// the path, and returns what it printed.
func (c client) run(w *world, env ...string) result {
	args := c.command(w)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.path("nohome"), "TEST_STS=" + w.url, "TEST_JS=" + jsFolder(),
		"NO_PROXY=127.0.0.1", "DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null"}, env...)
	if root := os.Getenv("PYENV_ROOT"); root != "" {
		cmd.Env = append(cmd.Env, "PYENV_ROOT="+root)
	}
	cmd.Dir = w.home
	cmd.Stdin = bytes.NewReader(nil)
	return w.finish(cmd)
}

// TestEveryClientEveryWay: real clients, by the metadata endpoint alone, by
// a credential_process line alone, and under exec, are the second role.
func TestEveryClientEveryWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("config/keyfob/config.toml", imdsToml)
	w.addKeys("base")
	w.credentials("deploy") // warm, as a metadata endpoint is
	imds := w.imds()

	ways := []struct {
		name string
		run  func(c client) result
	}{
		{"metadata endpoint", func(c client) result {
			return c.run(w, "AWS_EC2_METADATA_SERVICE_ENDPOINT="+imds+"/", "AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1",
				"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
		}},
		{"credential_process", func(c client) result {
			return c.run(w, append(w.environ("AWS_PROFILE=app", "AWS_CONFIG_FILE="+w.path(".aws/config"), "AWS_EC2_METADATA_DISABLED=true", "TEST_STS="+w.url), "AWS_DEFAULT_REGION=eu-west-1")...)
		}},
		{"exec", func(c client) result {
			args := c.command(w)
			cmd := w.command(filepath.Join(bin, "keyfob"), append([]string{"exec", "deploy", "--"}, args...)...)
			cmd.Env = w.environ("TEST_STS="+w.url, "TEST_JS="+jsFolder(), "PYENV_ROOT="+os.Getenv("PYENV_ROOT"))
			return w.finish(cmd)
		}},
	}
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			if why := c.missing(); why != "" {
				t.Skip(why)
			}
			for _, way := range ways {
				r := way.run(c)
				if r.code != 0 || !strings.Contains(r.out, "assumed-role/deploy/") {
					t.Errorf("%s: exit %d, printed %q, %q", way.name, r.code, r.out, r.err)
				}
			}
		})
	}
}

// TestExecReportsItsProfileWhateverElseIsSet: static keys in [default] and in
// the environment do not win over exec's profile.
func TestExecReportsItsProfileWhateverElseIsSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addKeys("base")
	w.write(".aws/credentials", "[default]\naws_access_key_id = AKIAWRONGWRONGWRONG0\naws_secret_access_key = wrong\n")
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			if why := c.missing(); why != "" {
				t.Skip(why)
			}
			cmd := w.command(filepath.Join(bin, "keyfob"), append([]string{"exec", "deploy", "--"}, c.command(w)...)...)
			cmd.Env = w.environ("TEST_STS="+w.url, "TEST_JS="+jsFolder(), "PYENV_ROOT="+os.Getenv("PYENV_ROOT"),
				"AWS_ACCESS_KEY_ID=AKIAWRONGWRONGWRONG1", "AWS_SECRET_ACCESS_KEY=wrong", "AWS_PROFILE=default")
			if r := w.finish(cmd); r.code != 0 || !strings.Contains(r.out, "assumed-role/deploy/") {
				t.Errorf("exit %d, printed %q, %q", r.code, r.out, r.err)
			}
		})
	}
}
