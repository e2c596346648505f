package imds

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	awsimds "github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// Programs that know no other address than EC2's are run in a network
// namespace of their own, where 169.254.169.254 and [fd00:ec2::254] are ours
// and nothing else is there. The test runs itself again in it.

const insideVariable = "KEYFOB_TEST_NAMESPACE"

// inside reports whether this is the namespace. If not, it runs the test in
// one and tells what came of it.
func inside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideVariable) == t.Name() {
		for _, args := range []string{"link set lo up", "addr add 169.254.169.254/32 dev lo", "addr add fd00:ec2::254/128 dev lo nodad"} {
			if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil && !strings.Contains(args, ":") {
				t.Fatalf("ip %s: %v: %s", args, err, out)
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
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=90s")
	cmd.Env = append(os.Environ(), insideVariable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Skipf("network namespaces can't be made here: %v", err)
	}
	if err != nil {
		t.Errorf("inside: %v\n%s", err, out)
	}
	return false
}

// ec2 serves on EC2's addresses with facts for everything.
func ec2(t *testing.T) Facts {
	t.Helper()
	facts := fullFacts(t)
	for _, address := range []string{"169.254.169.254:80", "[fd00:ec2::254]:80"} {
		l, err := Listen(t.Context(), address)
		if err != nil {
			if address[0] == '[' {
				continue // no IPv6 here
			}
			t.Fatal(err)
		}
		metadataServer(t, func(c *MetadataConfig) { c.Listener = l; c.Facts = func(string) Facts { return facts } })
	}
	return facts
}

// bare is what a program sees here: where programs are, and a home of its own.
func bare(t *testing.T) []string { return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()} }

// python is an interpreter that has a module, by its own path: shims need
// variables.
func python(t *testing.T, module string) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		out, err := exec.Command(name, "-c", "import sys, "+module+"; print(sys.executable)").Output()
		if err == nil {
			return strings.TrimSpace(string(out))
		}
	}
	t.Skipf("python3 has no module %s", module)
	return ""
}

func installed(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// TestLinkLocalCloudInit: cloud-init's EC2 data source crawls everything.
func TestLinkLocalCloudInit(t *testing.T) {
	interpreter := python(t, "cloudinit.sources.DataSourceEc2")
	if !inside(t) {
		return
	}
	facts := ec2(t)
	const script = `
import json, logging, sys
logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
from cloudinit import helpers
from cloudinit.sources import DataSourceEc2 as e
e.identify_platform = lambda: e.CloudNames.AWS
home = sys.argv[1]
ds = e.DataSourceEc2({"datasource": {"Ec2": {"max_wait": 10, "timeout": 5}}}, None, helpers.Paths({"cloud_dir": home, "run_dir": home}))
crawled = ds.crawl_metadata()
crawled["user-data"] = crawled["user-data"].decode("latin-1")
ds.metadata, ds.identity = crawled["meta-data"], crawled["dynamic"]["instance-identity"]["document"]
print(json.dumps({"crawled": crawled, "id": ds.get_instance_id(), "region": ds.region, "zone": ds.availability_zone,
  "keys": ds.get_public_ssh_keys(), "hostname": str(ds.get_hostname()), "api": ds.get_metadata_api_version(), "address": ds.metadata_address,
  "network": e.convert_ec2_metadata_network_config(crawled["meta-data"]["network"], macs_to_nics={"02:00:5e:00:53:01": "eth0"}, fallback_nic="eth0")}))
`
	cmd := exec.Command(interpreter, "-c", script, t.TempDir())
	cmd.Env = bare(t)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil || strings.Contains(errors.String(), "Failed fetching") || strings.Contains(errors.String(), "Skipped") {
		t.Fatalf("%v: %s\n%s", err, errors.String(), out)
	}
	var got struct {
		Crawled struct {
			Meta struct {
				AMI         string   `json:"ami-id"`
				ID          string   `json:"instance-id"`
				Groups      []string `json:"security-groups"`
				Keys        map[string]string
				PublicKeys  map[string]string `json:"public-keys"`
				Identity    map[string]any    `json:"identity-credentials"`
				IAM         map[string]any
				Tags        struct{ Instance map[string]string }
				BlockDevice map[string]string `json:"block-device-mapping"`
				Events      map[string]any
				Placement   map[string]string
				Network     struct {
					Interfaces struct{ Macs map[string]map[string]any }
				}
			} `json:"meta-data"`
			User    string `json:"user-data"`
			Dynamic map[string]map[string]map[string]any
		}
		ID, Region, Zone, API, Address, Hostname string
		Keys                                     []string
		Network                                  map[string]any
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	meta := got.Crawled.Meta
	mac := meta.Network.Interfaces.Macs[testMachine.mac]
	for what, ok := range map[string]bool{
		"ids":        got.ID == meta.ID && strings.HasPrefix(meta.ID, "i-") && strings.HasPrefix(meta.AMI, "ami-"),
		"region":     got.Region == "eu-central-1" && got.Zone == "eu-central-1a" && meta.Placement["region"] == "eu-central-1",
		"version":    got.API == "2021-03-23" && got.Address == "http://169.254.169.254",
		"groups":     strings.Join(meta.Groups, " ") == "web ssh",
		"keys":       meta.PublicKeys["laptop"] == facts.PublicKeys[0].Key && len(got.Keys) == 2,
		"user data":  got.Crawled.User == "#cloud-config\n",
		"tags":       len(meta.Tags.Instance) == 3 && meta.Tags.Instance["cost:center+a=b,c.d@e_f-g"] == "42",
		"iam":        meta.IAM["info"].(map[string]any)["Code"] == "Success",
		"identity":   got.Crawled.Dynamic["instance-identity"]["document"]["accountId"] == testAccount,
		"network":    mac["local-ipv4s"] == "10.1.2.3" && mac["owner-id"] == testAccount && mac["ipv4-associations"].(map[string]any)["203.0.113.7"] == "10.1.2.3",
		"net config": got.Network["ethernets"].(map[string]any)["eth0"] != nil,
		"devices":    meta.BlockDevice["root"] == "/dev/xvda",
		"hostname":   strings.Contains(got.Hostname, "laptop"),
	} {
		if !ok {
			t.Errorf("%s: %s", what, out)
		}
	}
	noSecret(t, "what cloud-init keeps", string(out))
}

// TestLinkLocalEC2Metadata: the script of Ubuntu's cloud-guest-utils.
func TestLinkLocalEC2Metadata(t *testing.T) {
	path := installed(t, "ec2metadata")
	if !inside(t) {
		return
	}
	facts := ec2(t)
	facts.fill(&testMachine)
	out := output(t, bare(t), path)
	for _, line := range []string{
		"instance-id: " + facts.instanceID(), "ami-id: " + facts.imageID(), "availability-zone: eu-central-1a", "local-ipv4: 10.1.2.3",
		"public-keys: ['" + facts.PublicKeys[0].Key + "', '" + facts.PublicKeys[1].Key + "']", `user-data: b'#cloud-config\n'`, "mac: 02:00:5e:00:53:01", "kernel-id: unavailable",
	} {
		if !strings.Contains(out, line+"\n") {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}
	if out := output(t, bare(t), path, "--instance-type"); strings.TrimSpace(out) != "t3.micro" {
		t.Errorf("instance type is %q", out)
	}
}

// TestLinkLocalEC2MetadataScript: Amazon's script.
func TestLinkLocalEC2MetadataScript(t *testing.T) {
	path := installed(t, "ec2-metadata")
	installed(t, "curl")
	if !inside(t) {
		return
	}
	facts := ec2(t)
	facts.fill(&testMachine)
	out := output(t, bare(t), path, "--all")
	for _, line := range []string{
		"ami-id: " + facts.imageID(), "ami-manifest-path: (unknown)", "ancestor-ami-ids: not available", "\t ami: /dev/xvda", "\t root: /dev/xvda",
		"instance-id: " + facts.instanceID(), "placement: eu-central-1a", "public-ipv4: 203.0.113.7", "keyname:laptop", "index:0", "format:openssh-key",
		facts.PublicKeys[0].Key, "security-groups: web", "user-data: #cloud-config", "\t Name: build box", "\t cost:center+a=b,c.d@e_f-g: 42",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}
}

// TestLinkLocalBoto3: credentials and region with no setting at all.
func TestLinkLocalBoto3(t *testing.T) {
	interpreter := python(t, "boto3")
	if !inside(t) {
		return
	}
	ec2(t)
	const script = `
import boto3, botocore.session
from botocore.utils import IMDSRegionProvider, InstanceMetadataRegionFetcher
c = boto3.Session().get_credentials()
f = c.get_frozen_credentials()
print(f.access_key, f.secret_key, c.method, IMDSRegionProvider(botocore.session.Session()).provide(), InstanceMetadataRegionFetcher().retrieve_region())
`
	if out := output(t, bare(t), interpreter, "-c", script); strings.TrimSpace(out) != "ASIAEXAMPLEEXAMPLE12 "+canarySecret+" iam-role eu-central-1 eu-central-1" {
		t.Errorf("%q", out)
	}
}

// TestLinkLocalAWSCLI: the CLI finds the role with no setting at all.
func TestLinkLocalAWSCLI(t *testing.T) {
	if len(awsCommands()) == 0 {
		t.Skip("no AWS CLI is installed")
	}
	if !inside(t) {
		return
	}
	ec2(t)
	env := bare(t)
	for _, v := range clientEnvironment(t) {
		if strings.HasPrefix(v, "PYENV_ROOT=") {
			env = append(env, v) // or a shim finds no interpreter
		}
	}
	for name, path := range awsCommands() {
		if out := output(t, env, path, "configure", "list"); !strings.Contains(out, "LE12") || strings.Count(out, "iam-role") != 2 {
			t.Errorf("%s:\n%s", name, out)
		}
	}
}

// TestLinkLocalGoSDK: both addresses, and what Terraform asks for.
func TestLinkLocalGoSDK(t *testing.T) {
	if !inside(t) {
		return
	}
	facts := ec2(t)
	facts.fill(&testMachine)
	for name, mode := range map[string]awsimds.EndpointModeState{"IPv4": awsimds.EndpointModeStateIPv4, "IPv6": awsimds.EndpointModeStateIPv6} {
		if mode == awsimds.EndpointModeStateIPv6 {
			if l, err := net.Listen("tcp", "[fd00:ec2::254]:0"); err != nil {
				t.Logf("no IPv6 here: %v", err)
				continue
			} else {
				l.Close()
			}
		}
		client := awsimds.New(awsimds.Options{EndpointMode: mode})
		document, err := client.GetInstanceIdentityDocument(t.Context(), nil)
		if err != nil || document.InstanceID != facts.instanceID() || document.AccountID != testAccount {
			t.Errorf("%s: %+v %v", name, document, err)
		}
		region, err := client.GetRegion(t.Context(), nil)
		if err != nil || region.Region != "eu-central-1" {
			t.Errorf("%s: %+v %v", name, region, err)
		}
		info, err := client.GetIAMInfo(t.Context(), nil)
		if err != nil || info.InstanceProfileArn == "" {
			t.Errorf("%s: %+v %v", name, info, err)
		}
		data, err := client.GetUserData(t.Context(), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b, err := io.ReadAll(data.Content); string(b) != "#cloud-config\n" {
			t.Errorf("%s: %q %v", name, b, err)
		}
		data.Content.Close()
	}
}

// TestLinkLocalCurl: the two lines of AWS's documentation.
func TestLinkLocalCurl(t *testing.T) {
	installed(t, "curl")
	sh := installed(t, "sh")
	if !inside(t) {
		return
	}
	ec2(t)
	const script = `TOKEN=$(curl -sX PUT "http://169.254.169.254/latest/api/token" -H "X-aws-ec2-metadata-token-ttl-seconds: 21600") &&
curl -s -H "X-aws-ec2-metadata-token: $TOKEN" http://169.254.169.254/latest/meta-data/placement/region &&
curl -s -o %s -w ' %%{http_code}' -H "X-aws-ec2-metadata-token: $TOKEN" http://169.254.169.254/latest/user-data`
	name := filepath.Join(t.TempDir(), "out")
	if out := output(t, bare(t), sh, "-c", fmt.Sprintf(script, name)); out != "eu-central-1 200" {
		t.Errorf("%q", out)
	}
	if b, _ := os.ReadFile(name); string(b) != "#cloud-config\n" {
		t.Errorf("user data is %q", b)
	}
}
