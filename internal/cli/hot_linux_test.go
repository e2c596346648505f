package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"keyfob/internal/control"
	"keyfob/internal/hot"
)

// Package hot decides the socket and the request by itself: they must be what
// settings, this package and the encoder make of the same arguments and
// environment.
func TestHotAgrees(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"none": "", "log": "[log]\nlevel = \"warn\"\n", "socket": "socket = \"/tmp/x/s\"\n", "profile": "profile = \"fromfile\"\n", "data": "data_dir = \"/tmp/d\"\n", "ask": "interactive = \"never\"\n"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "keyfob"), 0o700); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			if err := os.WriteFile(filepath.Join(dir, name, "keyfob", "config.toml"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	paths := []string{"", " ", "/a/b", "/a//b", "/a/../b", "/a/b/", "~/x", "rel", "/a/.hidden", "/a/..b/c", "/" + strings.Repeat("x", 101), "/" + strings.Repeat("x", 120), "/é", "/"}
	texts := []string{"", " ", "x", " y ", "a b", "é", `q"`, "a&b", "\t", "eu-west-1"}
	values := map[string][]string{
		"HOME":            {"/home/u", "/home/u/", "relative", "/h"},
		"XDG_CONFIG_HOME": {filepath.Join(dir, "none"), filepath.Join(dir, "log"), filepath.Join(dir, "socket"), filepath.Join(dir, "profile"), filepath.Join(dir, "data"), filepath.Join(dir, "ask"), "rel", ""},
		"XDG_DATA_HOME":   paths, "XDG_RUNTIME_DIR": paths,
		"KEYFOB_SOCKET": paths, "KEYFOB_DATA_DIR": paths,
		"AWS_CONFIG_FILE": paths, "AWS_SHARED_CREDENTIALS_FILE": paths, "AWS_CA_BUNDLE": paths,
		"AWS_PROFILE": texts, "AWS_DEFAULT_PROFILE": texts, "AWS_REGION": texts, "AWS_DEFAULT_REGION": texts,
		"AWS_ENDPOINT_URL": texts, "AWS_ENDPOINT_URL_STS": texts, "AWS_ACCESS_KEY_ID": texts, "AWS_SECRET_ACCESS_KEY": texts,
		"KEYFOB_INTERACTIVE": {"", "never", "auto", "always", "perhaps"}, "KEYFOB_CALL_DEPTH": {"", "0", "1"}, "KEYFOB_CONFIG": paths,
		"KEYFOB_EXEC_FILES": {"", "", "", "/a"}, "OTHER": texts,
	}
	var names []string
	for name := range values {
		names = append(names, name)
	}
	taken := 0
	rapid.Check(t, func(r *rapid.T) {
		env := []string{"HOME=/home/u", "XDG_CONFIG_HOME=" + filepath.Join(dir, "none")}
		for _, name := range rapid.SliceOfN(rapid.SampledFrom(names), 0, 6).Draw(r, "names") {
			env = append(env, name+"="+rapid.SampledFrom(values[name]).Draw(r, name))
		}
		args := []string{"credential-process"}
		args = append(args, rapid.SliceOfN(rapid.SampledFrom([]string{"p", "--profile=p", "--region=r", "--role-arn=arn:x", "--region", "r", "", "--json", "é", "--profile="}), 0, 3).Draw(r, "args")...)
		request, socket, ok := hot.Prepare(args, env)
		if !ok {
			return // it may always leave it to us
		}
		taken++

		a := &app{Process: Process{Environ: env}}
		in, err := a.parse(args)
		if err != nil {
			r.Fatalf("%q %q: hot takes what is refused: %v", args, env, err)
		}
		c, err := a.context(in)
		if err != nil {
			r.Fatalf("%q %q: hot takes what is refused: %v", args, env, err)
		}
		c.MayAsk = false
		if s, _ := a.settings(); s.Socket != socket {
			r.Fatalf("%q: hot uses the socket %s, settings %s", env, socket, s.Socket)
		}
		params, err := json.Marshal(control.CredentialsParams{Context: c})
		if err != nil {
			r.Fatal(err)
		}
		if want := `{"keyfob":1}` + "\n" + `{"id":1,"method":"credentials","params":` + string(params) + "}\n"; string(request) != want {
			r.Fatalf("%q %q:\nhot asks %s\nwant     %s", args, env, request, want)
		}
	})
	t.Logf("taken %d times", taken)
	if taken == 0 {
		t.Error("hot never took anything")
	}
}

// A warm credential-process makes one call on one connection, whatever else
// a command asks.
func TestHotAsksOnce(t *testing.T) {
	h := newHome(t)
	if out, err := h.command("status").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for profile, times := range map[string]int{"a": 1, "nope": 1, "denied": 1, "mfa": 1} {
		before := h.read("asked")
		cmd := h.command("credential-process", profile)
		cmd.Env = append(cmd.Env, "CI=1") // nobody is there
		_ = cmd.Run()
		if got := strings.TrimPrefix(h.read("asked"), before); !strings.HasPrefix(got, "credentials ") || strings.Count(got, "\n") != times {
			t.Errorf("%s: the daemon was asked %q", profile, got)
		}
	}
}

// The program itself, in which package early prints the credentials before
// main is reached: all that it leaves to others, and to whom.
func TestEarly(t *testing.T) {
	h := newHome(t)
	bin := t.TempDir()
	keyfob := filepath.Join(bin, "keyfob")
	build := exec.Command("go", "build", "-ldflags", "-X main.version=0.1.0 -X keyfob/internal/hot/early.Version=0.1.0", "-o", keyfob, "keyfob/cmd/keyfob")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run := func(args ...string) (string, string, int) {
		var out, errs strings.Builder
		cmd := exec.Command(keyfob, args...)
		cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = append(h.env, "GODEBUG=inittrace=1"), h.dir, &out, &errs
		_ = cmd.Run()
		var said []string
		reached := "early"
		for _, line := range strings.Split(errs.String(), "\n") {
			if strings.HasPrefix(line, "init reflect ") {
				reached = "main"
			}
			if line != "" && !strings.HasPrefix(line, "init ") {
				said = append(said, line)
			}
		}
		return out.String(), reached + ": " + strings.Join(said, "|"), cmd.ProcessState.ExitCode()
	}
	const document = `{"Version":1,"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"canarySECRETcanary","SessionToken":"token+/=","Expiration":"2031-01-02T03:04:05Z","AccountId":"123456789012"}` + "\n"
	check := func(name, wantOut, wantSaid string, wantCode int, args ...string) {
		t.Helper()
		if out, said, code := run(args...); out != wantOut || said != wantSaid || code != wantCode {
			t.Errorf("%s: got %q, %q, %d; want %q, %q, %d", name, out, said, code, wantOut, wantSaid, wantCode)
		}
	}
	check("no daemon: one is started", document, "main: ", 0, "credential-process", "a")
	check("warm", document, "early: ", 0, "credential-process", "a")
	check("warm, flags", document, "early: ", 0, "credential-process", "--profile", "a", "--region=x")
	check("another flag", document, "main: ", 0, "credential-process", "a", "--log-level", "info")
	check("denied", "", "main: keyfob: cannot get credentials for denied: denied", 4, "credential-process", "denied")
	check("a person must act", "", "main: keyfob: cannot get credentials for person: an MFA code is needed|hint: keyfob login person", 3, "credential-process", "person")
	check("unknown", "", "main: keyfob: cannot find profile nope|hint: keyfob list", 1, "credential-process", "nope")
	check("usage", "", "main: keyfob: cannot use --josn: keyfob credential-process has no such flag|hint: --json", 2, "credential-process", "--josn")
	h.set("version", "0.0.9")
	check("an older daemon: replaced behind the answer", document, "main: ", 0, "credential-process", "a")
	if n := strings.Count(h.read("started"), "\n"); n != 2 {
		t.Errorf("%d daemons were started", n)
	}
}
