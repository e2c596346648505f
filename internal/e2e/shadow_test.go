//go:build !windows

package e2e

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"

	"keyfob/profiles"
)

// What `keyfob explain --shadow` says of the SDKs is compared with the real
// ones. The server below makes an access key id that tells how it came about:
// role.of.KEY for a role assumed with KEY, IMDS, CONT, SSO, web.role. So one
// word is the whole chain, and each client prints the one that it ends with.

var credentialScope = regexp.MustCompile(`Credential=([^/]+)/`)

func shadowServer(t *testing.T) string {
	const document = `{"Code":"Success","Type":"AWS-HMAC","LastUpdated":"2030-01-01T00:00:00Z","AccessKeyId":%q,"SecretAccessKey":"s","Token":"t","Expiration":"2035-01-01T00:00:00Z"}`
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
		fmt.Fprint(w, "token")
	})
	mux.HandleFunc("GET /latest/meta-data/iam/security-credentials/", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			fmt.Fprint(w, "role")
			return
		}
		fmt.Fprintf(w, document, "IMDS")
	})
	mux.HandleFunc("GET /container", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, document, "CONT")
	})
	mux.HandleFunc("GET /federation/credentials", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"roleCredentials":{"accessKeyId":"SSO","secretAccessKey":"s","sessionToken":"t","expiration":%d}}`, time.Now().Add(time.Hour).UnixMilli())
	})
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		id := "nobody"
		if m := credentialScope.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
			id = m[1]
		}
		role := r.FormValue("RoleArn")
		role = role[strings.LastIndexByte(role, '/')+1:]
		action := r.FormValue("Action")
		made := role + ".of." + id
		if action == "AssumeRoleWithWebIdentity" {
			made = "web." + role
		}
		w.Header().Set("Content-Type", "text/xml")
		if action == "GetCallerIdentity" {
			fmt.Fprintf(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>%s</Arn><UserId>u</UserId><Account>1</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`, id)
			return
		}
		fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult><Credentials><AccessKeyId>%[2]s</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2035-01-01T00:00:00Z</Expiration></Credentials><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn><AssumedRoleId>i</AssumedRoleId></AssumedRoleUser></%[1]sResult></%[1]sResponse>`, action, made)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// shadowClient is a real client: a command that prints the access key id that
// it ends with, and fails where it finds none.
type shadowClient struct {
	name    string // for the test's own words
	id      string // of profiles.ClientShadow
	missing func() string
	command []string
	// plain: it calls AWS's own STS whatever AWS_ENDPOINT_URL says, so that
	// roles and sign-ins can't be tried.
	plain bool
}

const (
	shadowBoto = `import botocore.session; print(botocore.session.Session().get_credentials().get_frozen_credentials().access_key)`
	shadowJS   = `
import { createRequire } from "node:module";
const require = createRequire(process.env.TEST_JS + "/");
const { defaultProvider } = require("@aws-sdk/credential-provider-node");
console.log((await defaultProvider()()).accessKeyId);`
)

func shadowClients() []shadowClient {
	return []shadowClient{
		{"AWS SDK for Go", "go", func() string { return "" }, []string{os.Args[0], "-test.run=^TestShadowGoClient$", "-test.v"}, false},
		{"boto3 on the path", "botocore", pythonHas("python3"), []string{"python3", "-c", shadowBoto}, false},
		{"AWS CLI v2", "aws-cli-v2", hasCLI2, []string{"/usr/bin/aws", "--endpoint-url", "URL", "--output", "text", "--query", "Arn", "sts", "get-caller-identity"}, true},
		{"AWS SDK for JavaScript", "js", hasJS, []string{"node", "--input-type=module", "-e", shadowJS}, false},
	}
}

func hasCLI2() string {
	out, err := exec.Command("/usr/bin/aws", "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), "aws-cli/2.") {
		return "/usr/bin/aws is no AWS CLI v2"
	}
	return ""
}

const shadowGoVariable = "KEYFOB_TEST_SHADOW_GO"

// TestShadowGoClient is the Go SDK as a program of its own.
func TestShadowGoClient(t *testing.T) {
	if os.Getenv(shadowGoVariable) == "" {
		t.Skip("this is a program for TestShadow, which runs it")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(keys.AccessKeyID)
}

// shadowCase is a set-up. PROC in a file is a credential_process that prints
// the key PROC. profile is AWS_PROFILE, "" for none.
type shadowCase struct {
	name, config, credentials, profile string
	env                                map[string]string
	signIn                             bool // roles apart, it needs a call that only new clients send here
}

const (
	pairA   = "aws_access_key_id = AKIAA\naws_secret_access_key = s\n"
	pairB   = "aws_access_key_id = AKIAB\naws_secret_access_key = s\n"
	process = "credential_process = PROC\n"
	roleR   = "role_arn = arn:aws:iam::123456789012:role/R\n"
)

var envPair = map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "s"}

var shadowCases = []shadowCase{
	{name: "keys", config: "[profile p]\n" + pairA, profile: "p"},
	{name: "keys in both files", config: "[profile p]\n" + pairA, credentials: "[p]\n" + pairB, profile: "p"},
	{name: "process", config: "[profile p]\n" + process, profile: "p"},
	{name: "process beside keys in the credentials file", config: "[profile p]\n" + process, credentials: "[p]\n" + pairA, profile: "p"},
	{name: "process beside keys in the config file", config: "[profile p]\n" + process + pairA, profile: "p"},
	{name: "process beside a role", config: "[profile p]\n" + process + roleR, profile: "p"},
	{name: "process beside a role with a source", config: "[profile p]\n" + process + roleR + "source_profile = b\n[profile b]\n" + pairB, profile: "p"},
	{name: "role", config: "[profile p]\n" + roleR + "source_profile = b\n[profile b]\n" + pairB, profile: "p"},
	{name: "role with keys and no source", config: "[profile p]\n" + roleR + pairA, profile: "p"},
	{name: "role of itself", config: "[profile p]\n" + roleR + "source_profile = p\n" + pairA, profile: "p"},
	{name: "role of itself without keys", config: "[profile p]\n" + roleR + "source_profile = p\n", profile: "p"},
	{name: "two roles", config: "[profile p]\n" + roleR + "source_profile = q\n[profile q]\nrole_arn = arn:aws:iam::1:role/Q\nsource_profile = b\n[profile b]\n" + pairB, profile: "p"},
	{name: "source with keys and a role", config: "[profile p]\n" + roleR + "source_profile = q\n[profile q]\nrole_arn = arn:aws:iam::1:role/Q\nsource_profile = b\n" + pairA + "[profile b]\n" + pairB, profile: "p"},
	{name: "cycle", config: "[profile p]\n" + roleR + "source_profile = q\n[profile q]\nrole_arn = arn:aws:iam::1:role/Q\nsource_profile = p\n", profile: "p"},
	{name: "role of a process", config: "[profile p]\n" + roleR + "source_profile = b\n[profile b]\n" + process, profile: "p"},
	{name: "role of the environment", config: "[profile p]\n" + roleR + "credential_source = Environment\n", profile: "p", env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "s"}},
	{name: "role of the instance", config: "[profile p]\n" + roleR + "credential_source = Ec2InstanceMetadata\n", profile: "p"},
	{name: "role with an MFA device", config: "[profile p]\n" + roleR + "mfa_serial = arn:aws:iam::1:mfa/m\nsource_profile = b\n[profile b]\n" + pairB, profile: "p"},
	{name: "role without anything", config: "[profile p]\n" + roleR, profile: "p"},
	{name: "source_profile without a role", config: "[profile p]\nsource_profile = b\n" + process + "[profile b]\n" + pairB, profile: "p"},
	{name: "no such source", config: "[profile p]\n" + roleR + "source_profile = none\n", profile: "p"},
	{name: "keys of the environment and AWS_PROFILE", config: "[profile p]\n" + pairA, profile: "p", env: envPair},
	{name: "keys of the environment", config: "[default]\n" + pairA, env: envPair},
	{name: "half a pair in the environment", config: "[profile p]\n" + pairA, profile: "p", env: map[string]string{"AWS_ACCESS_KEY_ID": "AKIAENV"}},
	{name: "half a pair", credentials: "[p]\naws_access_key_id = AKIAA\n", config: "[profile p]\n" + process, profile: "p"},
	{name: "AWS_DEFAULT_PROFILE", config: "[profile p]\n" + pairA + "[profile q]\n" + pairB, profile: "p", env: map[string]string{"AWS_DEFAULT_PROFILE": "q"}},
	{name: "AWS_DEFAULT_PROFILE alone", config: "[profile q]\n" + pairB, env: map[string]string{"AWS_DEFAULT_PROFILE": "q"}},
	{name: "no such profile", config: "[profile p]\n" + pairA, profile: "none"},
	{name: "no such profile, and a container", config: "[profile p]\n" + pairA, profile: "none", env: map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "URL/container"}},
	{name: "container beside keys", config: "[default]\n" + pairA, env: map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "URL/container"}},
	{name: "container", config: "[default]\nregion = eu-west-1\n", env: map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "URL/container"}},
	{name: "instance", config: "[default]\nregion = eu-west-1\n"},
	{name: "nothing", config: "[default]\nregion = eu-west-1\n", env: map[string]string{"AWS_EC2_METADATA_DISABLED": "true"}},
	{name: "a key twice", config: "[profile p]\n" + pairA + "region = x\nregion = y\n", profile: "p"},
	{name: "a section twice", config: "[profile p]\n" + pairA + "[profile q]\nregion = x\n[profile p]\nregion = y\n", profile: "p"},
	{name: "web identity", config: "[profile p]\n" + roleR + "web_identity_token_file = TOKEN\n", profile: "p", signIn: true},
	{name: "web identity of the environment", config: "[profile p]\n" + pairA, profile: "p", signIn: true,
		env: map[string]string{"AWS_ROLE_ARN": "arn:aws:iam::1:role/E", "AWS_WEB_IDENTITY_TOKEN_FILE": "TOKEN"}},
	{name: "sso", config: "[profile p]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = R\n[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://x\n", profile: "p", signIn: true},
	{name: "sso beside keys", config: "[profile p]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = R\n" + pairA + "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://x\n", profile: "p", signIn: true},
	{name: "sso beside a process", config: "[profile p]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = R\n" + process + "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://x\n", profile: "p", signIn: true},
	{name: "no such sso-session", config: "[profile p]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = R\n", profile: "p", signIn: true},
}

func TestShadow(t *testing.T) {
	url := shadowServer(t)
	for _, client := range shadowClients() {
		t.Run(client.name, func(t *testing.T) {
			if why := client.missing(); why != "" {
				t.Skip(why)
			}
			t.Parallel()
			for _, c := range shadowCases {
				t.Run(c.name, func(t *testing.T) { c.compare(t, client, url) })
			}
		})
	}
}

func (c shadowCase) compare(t *testing.T, client shadowClient, url string) {
	home := t.TempDir()
	fill := strings.NewReplacer("PROC", filepath.Join(home, "proc"), "TOKEN", filepath.Join(home, "token"), "URL", url)
	session := sha1.Sum([]byte("s"))
	for name, text := range map[string]string{
		"config": fill.Replace(c.config), "credentials": fill.Replace(c.credentials), "token": "a.web.token",
		".aws/sso/cache/" + hex.EncodeToString(session[:]) + ".json": `{"startUrl":"https://x","region":"eu-west-1","accessToken":"t","expiresAt":"2035-01-01T00:00:00Z"}`,
		"proc": "#!/bin/sh\necho '{\"Version\":1,\"AccessKeyId\":\"PROC\",\"SecretAccessKey\":\"s\",\"SessionToken\":\"t\",\"Expiration\":\"2035-01-01T00:00:00Z\"}'\n",
	} {
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{}
	for k, v := range c.env {
		env[k] = fill.Replace(v)
	}
	if c.profile != "" {
		env["AWS_PROFILE"] = c.profile
	}
	set := profiles.Load(profiles.Input{ConfigFile: filepath.Join(home, "config"), CredentialsFile: filepath.Join(home, "credentials")})
	var said profiles.ClientShadow
	for _, s := range set.Shadow(profiles.ShadowQuery{Env: env}).Clients {
		if s.Client == client.id {
			said = s
		}
	}
	want := predicted(said)
	if client.plain && (c.signIn || strings.Contains(want, ".of.")) {
		t.Skip("this one calls AWS itself")
	}

	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	command := append([]string(nil), client.command...)
	for i := range command {
		command[i] = strings.ReplaceAll(command[i], "URL", url)
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = home
	cmd.Stdin = strings.NewReader("123456\n") // an MFA code
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "AWS_CONFIG_FILE=" + filepath.Join(home, "config"), "AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(home, "credentials"),
		"AWS_ENDPOINT_URL=" + url, "AWS_ENDPOINT_URL_STS=" + url, "AWS_ENDPOINT_URL_SSO=" + url, "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + url + "/", "AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1", "AWS_PAGER=",
		"TEST_JS=" + jsFolder(), "TEST_STS=x", shadowGoVariable + "=1"}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	out, err := cmd.CombinedOutput()
	got := "none"
	if err == nil {
		for _, line := range strings.Split(string(out), "\n") {
			if line = strings.TrimSpace(line); shadowKey.MatchString(line) {
				got = line
			}
		}
	}
	if got != want {
		t.Errorf("%s has %s, and it was said to have %s (%+v)\n%s", client.name, got, want, said, out)
	}
}

var shadowKey = regexp.MustCompile(`^(web\.\w+|(\w+\.of\.)*(AKIA\w+|PROC|IMDS|CONT|SSO))$`)

// predicted is what the server's keys would be for what was said.
func predicted(c profiles.ClientShadow) string {
	if c.Refuses != "" {
		return "none"
	}
	key := ""
	for _, l := range c.Chain {
		role := l.RoleARN[strings.LastIndexByte(l.RoleARN, '/')+1:]
		switch l.Kind {
		case profiles.KindAssumeRole:
			key = role + ".of." + key
		case profiles.KindWebIdentity:
			key = "web." + role
		case profiles.KindProcess:
			key = "PROC"
		case profiles.KindIMDS:
			key = "IMDS"
		case profiles.KindContainer:
			key = "CONT"
		case profiles.KindSSO:
			key = "SSO"
		default:
			key = c.AccessKeyID
		}
	}
	return key
}
