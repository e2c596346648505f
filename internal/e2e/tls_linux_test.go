package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tlsWorld is a world with a container endpoint that speaks TLS, by what
// keyfobd make-certificate made.
type tlsWorld struct {
	*world
	url, tokenFile, ca string
}

// secureName is one that the certificate has, and that no resolver knows.
const secureName = "keyfob.internal"

func newTLSWorld(t *testing.T, more string) *tlsWorld {
	t.Helper()
	w := &tlsWorld{world: newWorld(t)}
	// Clients have to be told of what make-certificate printed, and of nothing else.
	made := w.finish(w.command(filepath.Join(bin, "keyfobd"), "make-certificate", w.path("tls"), secureName, "127.0.0.1"))
	if made.code != 0 {
		t.Fatalf("make-certificate: %+v", made)
	}
	w.ca = w.path("tls/ca.pem")
	w.write("config/keyfob/config.toml", "[[endpoint]]\nkind = \"container\"\nlisten = \"127.0.0.1:0\"\n"+made.out+more)
	w.addKeys("base")
	var g struct {
		URL       string
		TokenFile string `json:"token_file"`
	}
	if err := json.Unmarshal([]byte(w.must(nil, "grant", "add", "deploy", "--any-user", "--json").out), &g); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(g.URL, "https://127.0.0.1:") {
		t.Fatalf("the grant's URL is %s", g.URL)
	}
	w.url, w.tokenFile = g.URL, g.TokenFile
	return w
}

func (w *tlsWorld) address() string {
	u, err := url.Parse(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	return u.Host
}

func (w *tlsWorld) token() string {
	b, err := os.ReadFile(w.tokenFile)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// curl runs curl in the given way, and returns the status and the body.
func (w *tlsWorld) curl(how *syscall.SysProcAttr, args ...string) (status, body string, r result) {
	w.t.Helper()
	cmd := exec.Command("/usr/bin/curl", append([]string{"-q", "-sS", "-m", "20", "-w", "\n%{http_code}", "-H", "Authorization: " + w.token()}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.path("nohome")}
	cmd.SysProcAttr = how
	r = w.finish(cmd)
	i := strings.LastIndexByte(r.out, '\n')
	if i < 0 {
		return "", "", r
	}
	return r.out[i+1:], r.out[:i], r
}

// withAuthority is a copy of certifi, the authorities of Python programs from
// pip, with one more: what a Containerfile appends to the file itself.
func (w *tlsWorld) withAuthority() string {
	w.t.Helper()
	out, err := exec.Command("python3", "-c", "import certifi; print(certifi.__path__[0])").Output()
	if err != nil {
		return ""
	}
	dir := w.path("python")
	if err := os.CopyFS(filepath.Join(dir, "certifi"), os.DirFS(strings.TrimSpace(string(out)))); err != nil {
		w.t.Fatal(err)
	}
	bundle := filepath.Join(dir, "certifi", "cacert.pem")
	known, err := os.ReadFile(bundle)
	if err != nil {
		return ""
	}
	if err := os.WriteFile(bundle, append(known, w.read("tls/ca.pem")...), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// TestTLSClients: real clients take their credentials from an https endpoint
// when they are told of its authority in the way that docs/containers.md says,
// and none does otherwise.
func TestTLSClients(t *testing.T) {
	t.Parallel()
	w := newTLSWorld(t, "")
	overlay := w.withAuthority()
	told := map[string][]string{
		"AWS CLI on the path":       {"PYTHONPATH=" + overlay},
		"boto3 on the path":         {"PYTHONPATH=" + overlay},
		"AWS SDK for JavaScript v3": {"NODE_EXTRA_CA_CERTS=" + w.ca},
		"AWS SDK for JavaScript v2": {"NODE_EXTRA_CA_CERTS=" + w.ca},
		"AWS SDK for Go v2":         {"SSL_CERT_FILE=" + w.ca},
	}
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			how, ok := told[c.name]
			switch why := c.missing(); {
			case !ok:
				t.Skip("botocore before 1.31 takes https from nowhere")
			case why != "":
				t.Skip(why)
			case how[0] == "PYTHONPATH=":
				t.Skip("python3 has no certifi")
			}
			env := []string{"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + w.url, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + w.tokenFile,
				"AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-west-1", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
				"AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1"}
			if r := c.run(w.world, append(env, how...)...); r.code != 0 || !strings.Contains(r.out, asDeploy) {
				t.Errorf("exit %d, printed %q, %q", r.code, r.out, r.err)
			}
			if r := c.run(w.world, env...); r.code == 0 || strings.Contains(r.out, asDeploy) {
				t.Errorf("without the authority: exit %d, printed %q", r.code, r.out)
			}
			if strings.Contains(how[0], "PYTHON") { // docs/containers.md says so
				if r := c.run(w.world, append(env, "AWS_CA_BUNDLE="+w.ca)...); r.code == 0 {
					t.Error("AWS_CA_BUNDLE is used for this request by now: docs/containers.md should say so")
				}
			}
		})
	}
	t.Run("curl", func(t *testing.T) {
		if _, err := os.Stat("/usr/bin/curl"); err != nil {
			t.Skip("curl is not installed")
		}
		if status, body, r := w.curl(nil, "--cacert", w.ca, w.url); status != "200" || !strings.Contains(body, ":role/deploy") {
			t.Errorf("%+v", r)
		}
		name := []string{"--cacert", w.ca, "--connect-to", secureName + ":443:" + w.address(), "https://" + secureName + "/v1/credentials/deploy"}
		if status, body, r := w.curl(nil, name...); status != "200" || !strings.Contains(body, "SecretAccessKey") {
			t.Errorf("by the name: %+v", r)
		}
		if _, body, r := w.curl(nil, w.url); r.code != 60 || body != "" {
			t.Errorf("without the authority: %+v", r)
		}
		if status, body, r := w.curl(nil, "--insecure", "-H", "Host: evil.example", w.url); status != "403" || strings.Contains(body, "SecretAccessKey") {
			t.Errorf("another Host: %+v", r)
		}
		if status, body, r := w.curl(nil, strings.Replace(w.url, "https:", "http:", 1)); status != "400" || !strings.Contains(body, "speaks https") {
			t.Errorf("plain http: %+v", r)
		}
		if status, _, r := w.curl(nil, "--cacert", w.ca, "--http2", "-w", "%{http_version}\n%{http_code}", w.url); status != "200" || !strings.Contains(r.out, "}1.1\n") {
			t.Errorf("a client that would like HTTP/2: %+v", r)
		}
		if log := w.read("data/keyfobd.log"); !strings.Contains(log, "does not know the certificate's authority") || strings.Contains(log, w.token()) {
			t.Errorf("the log does not say why clients are refused: %s", log)
		}
	})
}

// TestTLSStrangers: a caller in another pid namespace, as in a container, is
// served inside TLS where the endpoint says allow_unidentified, and with a
// token alone.
func TestTLSStrangers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root makes pid namespaces")
	}
	if _, err := os.Stat("/usr/bin/curl"); err != nil {
		t.Skip("curl is not installed")
	}
	elsewhere := func() *syscall.SysProcAttr { return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID} }
	for more, want := range map[string]string{"": "403", "allow_unidentified = true\n": "200"} {
		w := newTLSWorld(t, more)
		status, body, r := w.curl(elsewhere(), "--cacert", w.ca, w.url)
		if status != want || strings.Contains(body, "SecretAccessKey") != (want == "200") {
			t.Errorf("%q: %+v", more, r)
		}
		if status, _, r := w.curl(elsewhere(), "--cacert", w.ca, "-H", "Authorization: "+strings.Repeat("x", 43), w.url); status != "403" && status != "401" {
			t.Errorf("%q, without its token: %+v", more, r)
		}
	}
}

// TestTLSRenegotiation: what openssl can ask for inside a connection opens
// nothing: a renegotiation, an old version, a key update without end.
func TestTLSRenegotiation(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	w := newTLSWorld(t, "")
	ask := fmt.Sprintf("GET /v1/credentials/deploy HTTP/1.1\nHost: %s\nAuthorization: %s\n\n", secureName, w.token())
	// The lines are given one after the other: s_client obeys those that begin
	// with a capital letter of its own.
	talk := func(lines []string, args ...string) string {
		cmd := exec.Command("openssl", append([]string{"s_client", "-connect", w.address(), "-servername", secureName, "-CAfile", w.ca, "-verify_return_error", "-crlf"}, args...)...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer in.Close()
			for _, l := range lines {
				time.Sleep(300 * time.Millisecond)
				if _, err := fmt.Fprint(in, l); err != nil {
					return
				}
			}
			time.Sleep(500 * time.Millisecond)
		}()
		r := w.finish(cmd)
		return r.out + r.err
	}
	if said := talk([]string{ask}); !strings.Contains(said, "SecretAccessKey") {
		t.Fatalf("openssl is not served: %s", said)
	}
	for name, said := range map[string]string{
		"renegotiation":   talk([]string{"R\n", ask}, "-tls1_2"),
		"TLS 1.1":         talk([]string{ask}, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
		"no forward keys": talk([]string{ask}, "-tls1_2", "-cipher", "AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA"),
		"HTTP/2 alone":    talk([]string{ask}, "-alpn", "h2"),
	} {
		if strings.Contains(said, "SecretAccessKey") {
			t.Errorf("%s: credentials", name)
		}
	}
	if said := talk([]string{"K\n", "K\n", ask}); !strings.Contains(said, "SecretAccessKey") {
		t.Errorf("after two key updates, which are no attack: %s", said)
	}
	if status := w.status(); status.ReloadError != "" {
		t.Errorf("%+v", status)
	}
	// A thousand key updates at once, or a thousand empty records, end the
	// connection; the endpoint goes on.
	talk([]string{strings.Repeat("K\n", 1000), ask})
	c, err := net.Dial("tcp", w.address())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte(strings.Repeat("\x17\x03\x03\x00\x00", 1000)))
	_ = c.Close()
	if said := talk([]string{ask}); !strings.Contains(said, "SecretAccessKey") {
		t.Error("the endpoint does not serve any more")
	}
}
