package cli

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

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
	var settings []string // NAME=VALUE
	for name, all := range values {
		for _, value := range all {
			settings = append(settings, name+"="+value)
		}
	}
	sort.Strings(settings)
	taken := 0
	try := func(args []string, set ...string) {
		t.Helper()
		env := append([]string{"HOME=/home/u", "XDG_CONFIG_HOME=" + filepath.Join(dir, "none")}, set...)
		request, socket, ok := hot.Prepare(args, env)
		if !ok {
			return // it may always leave it to us
		}
		taken++
		a := &app{Process: Process{Environ: env}}
		in, err := a.parse(args)
		if err != nil {
			t.Fatalf("%q %q: hot takes what is refused: %v", args, set, err)
		}
		if a.inLoop() {
			t.Fatalf("%q: hot takes what is a loop", set)
		}
		c, err := a.context(in)
		if err != nil {
			t.Fatalf("%q %q: hot takes what is refused: %v", args, set, err)
		}
		c.MayAsk = false
		if s, _ := a.settings(); s.Socket != socket {
			t.Fatalf("%q: hot uses the socket %s, settings %s", set, socket, s.Socket)
		}
		params, err := json.Marshal(control.CredentialsParams{Context: c})
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"keyfob":1}` + "\n" + `{"id":1,"method":"credentials","params":` + string(params) + "}\n"; string(request) != want {
			t.Fatalf("%q %q:\nhot asks %s\nwant     %s", args, set, request, want)
		}
	}
	words := []string{"p", "--profile=p", "--profile", "--region=r", "--role-arn=arn:x", "--region", "r", "", "--json", "é", "--profile=", "--", "-h", "--policy", "--policy=f", "--policy-arn=arn:aws:iam::1:policy/x", "--policy-arn"}
	for _, one := range words {
		try([]string{"credential-process", one})
		for _, two := range words {
			try([]string{"credential-process", one, two})
			for _, three := range words {
				try([]string{"credential-process", one, two, three})
			}
		}
	}
	for i, one := range settings {
		try([]string{"credential-process"}, one)
		for _, two := range settings[i:] {
			try([]string{"credential-process"}, one, two)
		}
	}
	// Six variables and more at once.
	rapid.Check(t, func(r *rapid.T) {
		try([]string{"credential-process", "p"}, rapid.SliceOfN(rapid.SampledFrom(settings), 6, 12).Draw(r, "settings")...)
	})
	if taken < 1000 {
		t.Errorf("hot took only %d", taken)
	}
}

// What a daemon may answer, and how.
func TestHotAnswers(t *testing.T) {
	const hello = `{"keyfob":1,"version":"x","pid":1}` + "\n"
	const doc = `{"Version":1,"AccessKeyId":"A","SecretAccessKey":"S{}\"\\","SessionToken":"t"}`
	const reply = `{"id":1,"result":` + doc + "}\n"
	long := `{"Version":1,"AccessKeyId":"A","SecretAccessKey":"S","SessionToken":"` + strings.Repeat("t", 60<<10) + `"}`
	for name, c := range map[string]struct {
		pieces   []string
		document string
		reply    string
	}{
		"at once":       {[]string{hello + reply}, doc, strings.TrimSpace(reply)},
		"in pieces":     {[]string{hello[:10], hello[10:], reply[:30], reply[30:]}, doc, strings.TrimSpace(reply)},
		"long":          {[]string{hello + `{"id":1,"result":` + long + "}\n"}, long, `{"id":1,"result":` + long + `}`},
		"an error":      {[]string{hello + `{"id":1,"error":{"code":"denied","message":"m"}}` + "\n"}, "", `{"id":1,"error":{"code":"denied","message":"m"}}`},
		"an event":      {[]string{hello + `{"id":1,"event":"notice","notice":"n"}` + "\n"}, "", `{"id":1,"event":"notice","notice":"n"}`},
		"more behind":   {[]string{hello + `{"id":1,"result":` + doc + `,"more":"x"}` + "\n"}, "", `{"id":1,"result":` + doc + `,"more":"x"}`},
		"another order": {[]string{hello + `{"result":` + doc + `,"id":1}` + "\n"}, "", `{"result":` + doc + `,"id":1}`},
		"protocol 2":    {[]string{`{"keyfob":2,"version":"x"}` + "\n" + reply}, "", strings.TrimSpace(reply)},
		"hello alone":   {[]string{hello}, "", ""},
		"half a reply":  {[]string{hello + reply[:40]}, "", ""},
		"nothing":       {nil, "", ""},
		"no end":        {[]string{strings.Repeat("x", 3<<20)}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			socket := filepath.Join(h.dir, "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 4096))
				for _, piece := range c.pieces {
					_, _ = conn.Write([]byte(piece))
					time.Sleep(2 * time.Millisecond)
				}
			}()
			a := hot.Ask([]string{"credential-process", "p"}, []string{"HOME=" + h.dir, "KEYFOB_SOCKET=" + socket})
			a.Close()
			_ = l.Close()
			<-done
			if !a.Asked || string(a.Document) != c.document || string(a.Reply) != c.reply || a.TimedOut {
				t.Errorf("got %v, %.200q, %.200q, %v", a.Asked, a.Document, a.Reply, a.TimedOut)
			}
		})
	}
	if a := hot.Ask([]string{"credential-process", "p"}, []string{"HOME=/home/u", "KEYFOB_SOCKET=/nowhere/s"}); a.Asked {
		t.Error("it asked nobody")
	}
}

// A server that another user put in the daemon's place is told nothing, on
// either path.
func TestServerOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be another user")
	}
	h := newHome(t)
	other := filepath.Join(h.dir, "other")
	if err := os.MkdirAll(other, 0o777); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{h.dir: 0o755, other: 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(filepath.Join(h.dir, "keyfobd"), program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(other, "s")
	cmd := exec.Command(filepath.Join(h.dir, "keyfobd"), "run", "--data-dir", other, "--socket", socket)
	cmd.Dir, cmd.Env = "/", h.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
	if err := cmd.Start(); err != nil {
		t.Skipf("cannot be another user here: %v", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	h.eventually("the other user listens", func() bool {
		st, err := os.Stat(socket)
		return err == nil && st.Mode().Type() == os.ModeSocket
	})
	for _, args := range [][]string{{"credential-process", "a"}, {"list"}} {
		cmd := h.command(args...)
		cmd.Env = append(cmd.Env, "KEYFOB_SOCKET="+socket)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "cannot trust "+socket) {
			t.Errorf("%v: %v, %s", args, err, out)
		}
	}
	if b, err := os.ReadFile(filepath.Join(other, "asked")); err == nil {
		t.Errorf("it was asked %s", b)
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
	policy := filepath.Join(h.dir, "policy.json")
	if err := os.WriteFile(policy, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("a session policy", document, "main: ", 0, "credential-process", "a", "--policy", policy)
	check("a session policy by ARN", document, "main: ", 0, "credential-process", "--policy-arn=arn:aws:iam::1:policy/x", "a")
	if asked := h.read("asked"); strings.Count(asked, `"policy":"{}"`) != 1 || strings.Count(asked, `"policy_arns":["arn:aws:iam::1:policy/x"]`) != 1 {
		t.Errorf("the session policies did not arrive: %s", asked)
	}
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
