package fakeaws_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// cli runs a client with an environment of its own.
func cli(t *testing.T, url string, creds [3]string, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs strings.Builder
	c := exec.CommandContext(t.Context(), name, args...)
	home := t.TempDir()
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "PYENV_ROOT=" + os.Getenv("PYENV_ROOT"), "AWS_EC2_METADATA_DISABLED=true",
		"AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1", "AWS_ENDPOINT_URL=" + url, "URL=" + url, "AWS_PAGER=",
		"AWS_ACCESS_KEY_ID=" + creds[0], "AWS_SECRET_ACCESS_KEY=" + creds[1], "AWS_SESSION_TOKEN=" + creds[2]}
	c.Stdout, c.Stderr = &out, &errs
	err = c.Run()
	return out.String(), strings.TrimSpace(errs.String()), err
}

// clis finds the AWS command lines of this machine: the first on PATH and the
// distribution's. Skips by name when there is none.
func clis(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	var out []string
	for _, name := range []string{"aws", "/usr/bin/aws"} {
		if p, err := exec.LookPath(name); err == nil && !found[p] && exec.Command(p, "--version").Run() == nil {
			found[p] = true
			out = append(out, p)
		}
	}
	if out == nil {
		t.Skip("aws (the AWS command line) is not installed")
	}
	return out
}

func TestAWSCommandLine(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the AWS command line")
	}
	for _, aws := range clis(t) {
		t.Run(aws, func(t *testing.T) {
			s, url := fakeawstest.Start(t)
			id, secret := s.AddUser(fakeaws.UserSpec{})
			role := s.AddRole(fakeaws.RoleSpec{Account: "444455556666", Trust: []fakeaws.Trust{{ExternalIDs: []string{"e-1"}}}})
			url = strings.Replace(url, "127.0.0.1", "localhost", 1)
			run := func(creds [3]string, want string, args ...string) string {
				t.Helper()
				// Version 2.9 knows no AWS_ENDPOINT_URL.
				out, errs, err := cli(t, url, creds, aws, append(args, "--endpoint-url", url, "--output", "json")...)
				if (err == nil) != (want == "") || !strings.Contains(errs, want) {
					t.Fatalf("%v: %v\n%s\nwant %s", args, err, errs, want)
				}
				return out
			}
			keys := [3]string{id, secret, ""}
			if out := run(keys, "", "sts", "get-caller-identity"); !strings.Contains(out, `"Arn": "`+alice+`"`) {
				t.Errorf("identity: %s", out)
			}
			run([3]string{id, secret + "x", ""}, "An error occurred (SignatureDoesNotMatch) when calling the GetCallerIdentity operation: The request signature we calculated does not match the signature you provided.", "sts", "get-caller-identity")
			run(keys, "An error occurred (AccessDenied) when calling the AssumeRole operation: "+aliceTo+"sts:AssumeRole on resource: "+role, "sts", "assume-role", "--role-arn", role, "--role-session-name", "cli")
			run(keys, "An error occurred (AccessDenied) when calling the GetSessionToken operation: MultiFactorAuthentication failed", "sts", "get-session-token", "--serial-number", "arn:aws:iam::111122223333:mfa/x", "--token-code", "123456")
			var got struct {
				Credentials struct{ AccessKeyId, SecretAccessKey, SessionToken, Expiration string }
			}
			out := run(keys, "", "sts", "assume-role", "--role-arn", role, "--role-session-name", "cli", "--external-id", "e-1", "--tags", "Key=team,Value=core")
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatal(err)
			}
			c := got.Credentials
			session := [3]string{c.AccessKeyId, c.SecretAccessKey, c.SessionToken}
			if out := run(session, "", "sts", "get-caller-identity"); !strings.Contains(out, "arn:aws:sts::444455556666:assumed-role/role/cli") {
				t.Errorf("identity of the session: %s", out)
			}
			if out := run(session, "", "s3api", "list-buckets"); !strings.Contains(out, `"Buckets": []`) {
				t.Errorf("buckets: %s", out)
			}
			if out := run(keys, "", "iam", "list-access-keys"); !strings.Contains(out, id) {
				t.Errorf("keys: %s", out)
			}
		})
	}
}

const botoScript = `
import boto3, botocore, os, json, urllib.request
from botocore.exceptions import ClientError
from botocore.config import Config
sts = boto3.client('sts', config=Config(retries={'max_attempts': 0}), endpoint_url=os.environ['URL'])
role = 'arn:aws:iam::444455556666:role/role'
r = sts.assume_role(RoleArn=role, RoleSessionName='boto', DurationSeconds=900, Tags=[{'Key': 'a', 'Value': 'b'}], SourceIdentity='alice')
print(r['AssumedRoleUser']['Arn'], r['SourceIdentity'], r['PackedPolicySize'] > 0, r['Credentials']['Expiration'].tzinfo is not None)
c = r['Credentials']
s = boto3.Session(c['AccessKeyId'], c['SecretAccessKey'], c['SessionToken'])
sts2 = s.client('sts', endpoint_url=os.environ['URL'])
print(sts2.get_caller_identity()['Arn'])
print(urllib.request.urlopen(sts2.generate_presigned_url('get_caller_identity', ExpiresIn=60, HttpMethod='GET')).status)
print(s.client('s3', endpoint_url=os.environ['URL']).list_buckets()['Buckets'])
print(urllib.request.urlopen(s.client('s3', endpoint_url=os.environ['URL'], config=Config(signature_version='s3v4')).generate_presigned_url('list_buckets')).status)
try:
    sts.assume_role(RoleArn=role, RoleSessionName='boto', DurationSeconds=7200)
except ClientError as e:
    print(e.response['Error']['Type'], e.response['Error']['Code'], e.response['Error']['Message'], e.response['ResponseMetadata']['HTTPStatusCode'], len(e.response['ResponseMetadata']['RequestId']))
`

func TestBoto3(t *testing.T) {
	if testing.Short() {
		t.Skip("runs Python")
	}
	python, err := exec.LookPath("python3")
	if err != nil || exec.Command(python, "-c", "import boto3").Run() != nil {
		t.Skip("python3 with boto3 is not installed")
	}
	s, url := fakeawstest.Start(t)
	id, secret := s.AddUser(fakeaws.UserSpec{})
	s.AddRole(fakeaws.RoleSpec{Account: "444455556666"})
	out, errs, err := cli(t, url, [3]string{id, secret, ""}, python, "-c", botoScript)
	const want = `arn:aws:sts::444455556666:assumed-role/role/boto alice True True
arn:aws:sts::444455556666:assumed-role/role/boto
200
[]
200
Sender ValidationError The requested DurationSeconds exceeds the MaxSessionDuration set for this role. 400 36
`
	if err != nil || out != want {
		t.Errorf("%v\n%s\ngot\n%swant\n%s", err, errs, out, want)
	}
}
