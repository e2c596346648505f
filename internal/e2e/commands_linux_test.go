package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/rogpeppe/go-internal/testscript"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// ran is one run of keyfob by a script.
type ran struct {
	script string
	words  []string // of keyfob's command line, nil for another program's
	done   bool     // to a good end, or what that is depends on the machine
	err    string   // standard error, and what a terminal showed
}

// record is what all scripts have run.
type record struct {
	mu   sync.Mutex // guards runs
	runs []ran
}

func (r *record) add(x ran) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runs = append(r.runs, x)
}

// TestCommands runs the scripts of testdata/script with the real programs: each
// on a machine of its own, with a daemon that its first command starts and a
// fake AWS. Then it looks whether anything was left out: a command, a flag, a
// message.
//
// How much of internal/cli they reach: build cmd/keyfob with -cover
// -coverpkg=keyfob/cmd/keyfob,keyfob/internal/cli beside the other programs and
// probe, and run this with that directory in KEYFOB_TEST_BIN and one for the
// counters in GOCOVERDIR.
func TestCommands(t *testing.T) {
	all := &record{}
	t.Run("scripts", func(t *testing.T) {
		testscript.RunT(scriptT{t}, testscript.Params{
			Dir:             "testdata/script",
			WorkdirRoot:     t.TempDir(),
			ContinueOnError: true,
			Deadline:        time.Now().Add(2 * time.Minute), // whatever hangs is ended
			Setup:           func(e *testscript.Env) error { return setUpScript(e, all) },
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"code": scriptCode, "try": scriptTry, "fake": scriptFake, "killdaemon": scriptKillDaemon, "replace": scriptReplace, "until": scriptUntil, "browser": scriptBrowser, "setfile": scriptSetFile,
			},
		})
	})
	if t.Failed() || strings.Contains(flag.Lookup("test.run").Value.String(), "/") {
		return // not all of them have run
	}
	t.Run("every command and flag", func(t *testing.T) { everyFlagRan(t, all.runs) })
	t.Run("every message", func(t *testing.T) { everyMessageShown(t, all.runs) })
}

// scriptT gives the scripts' commands the test that they run in.
type scriptT struct{ *testing.T }

func (t scriptT) Run(name string, f func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { f(scriptT{t}) })
}

func (t scriptT) Verbose() bool { return testing.Verbose() }

type scriptKey int

const (
	keyWorld  scriptKey = iota // *world
	keyRecord                  // *record
)

// setUpScript gives a script the environment of a new world: the chain base →
// entry → deploy, and an empty vault. Its variables: HOME, DATA, KEY and SECRET
// (alice's), SERIAL (of her MFA device), URL (the fake AWS).
func setUpScript(e *testscript.Env, all *record) error {
	w := newWorld(e.T().(scriptT).T)
	for name, value := range w.env {
		e.Setenv(name, value)
	}
	serial := "arn:aws:iam::" + fakeaws.DefaultAccount + ":mfa/alice"
	for name, value := range map[string]string{
		"DATA": w.path("data"), "KEY": w.keyID, "SECRET": w.secret, "SERIAL": serial, "URL": w.url, "CONFIG": w.path("config/keyfob"),
		"AWS_REGION": "eu-west-1", "KEYFOB_SIGNIN_TIMEOUT": "20s", "TERM": "xterm", "LC_ALL": "C.UTF-8", "BIN": bin, "GORACE": "atexit_sleep_ms=0",
		"GOCOVERDIR": os.Getenv("GOCOVERDIR"),
	} {
		e.Setenv(name, value)
	}
	if err := os.WriteFile(filepath.Join(e.WorkDir, "keys.json"), w.keysJSON(), 0o600); err != nil {
		return err
	}
	e.Values[keyWorld], e.Values[keyRecord] = w, all
	return nil
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(keyWorld).(*world) }

// scriptCode is `code N CMD …`: CMD ends with the exit code N.
func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N CMD …")
	}
	if got := runRecorded(ts, args[1:], false); strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s ended with %d, want %s\nstdout: %s\nstderr: %s", strings.Join(args[1:], " "), got, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// scriptTry is `try CMD …`: CMD may end as it likes.
func scriptTry(ts *testscript.TestScript, _ bool, args []string) { runRecorded(ts, args, true) }

// runRecorded runs a command, and looks at the form of what it says.
func runRecorded(ts *testscript.TestScript, args []string, anyCode bool) int {
	code := 0
	if err := ts.Exec(args[0], args[1:]...); err != nil {
		var perr error
		if code, perr = strconv.Atoi(strings.TrimPrefix(err.Error(), "exit status ")); perr != nil {
			ts.Fatalf("%s: %v", strings.Join(args, " "), err)
		}
	}
	ts.Setenv("KEYFOB_INTERACTIVE", "never") // until a script has a person there
	stderr := ts.ReadFile("stderr")
	run := ran{script: ts.Name(), done: code == 0 || anyCode, err: stderr + ts.ReadFile("ttyout")}
	if i := slices.Index(args, "keyfob"); i >= 0 && args[0] != "sh" {
		run.words = args[i+1:]
	}
	ts.Value(keyRecord).(*record).add(run)
	if args[0] != "timeout" {
		checkMessages(ts, code, ts.ReadFile("stdout"), stderr)
	}
	for _, secret := range []string{worldOf(ts).secret, "CANARY"} {
		if strings.Contains(stderr, secret) {
			ts.Fatalf("standard error shows a secret: %s", stderr)
		}
	}
	return code
}

// checkMessages looks at the form of what is said: a failure is a line
// `keyfob: cannot …`, a hint follows something, and no line is of anything else
// that a program of ours can blurt out.
func checkMessages(ts *testscript.TestScript, code int, stdout, stderr string) {
	said := false
	for _, line := range strings.Split(stderr, "\n") {
		said = said || strings.HasPrefix(line, "keyfob: ")
		for _, bad := range []string{"panic: ", "goroutine ", "%!", "<nil>", "cannot cannot", "hint: hint"} {
			if strings.Contains(line, bad) {
				ts.Fatalf("standard error has %q: %s", bad, stderr)
			}
		}
	}
	if code != 0 && code < 5 && !said && !strings.Contains(stdout, "failed") {
		ts.Fatalf("it ended with %d and no message: %q", code, stderr)
	}
}

// scriptFake is `fake …`, what AWS is and does:
//
//	fault KIND ACTION [CODE [MESSAGE [COUNT]]]   heal        outage KIND|up
//	clock DURATION      code FILE (alice's MFA code)         user NAME FILE (its keys as JSON)
//	second-key FILE (one more for that user)                 anywhere CERT KEY CHAIN ARNS
//	saml FILE (assertion of the provider idp)                sso           login ARN
//	sso-empty URL (where nothing is assigned)
//	role ARN            deactivate ID           approve-devices (whatever waits, from now on)
func scriptFake(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	write := func(file, text string) { ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600)) }
	switch arg(0) {
	case "fault":
		count, _ := strconv.Atoi(arg(5))
		w.aws.AddFault(fakeaws.Fault{Kind: fakeaws.Kind(arg(1)), Action: arg(2), Code: arg(3), Message: arg(4), Count: count})
	case "heal":
		w.aws.SetFaults()
	case "outage":
		ts.Check(w.aws.SetOutage(fakeaws.Outage(strings.TrimPrefix(arg(1), "up"))))
	case "clock":
		d, err := time.ParseDuration(arg(1))
		ts.Check(err)
		w.aws.SetClock(d)
	case "code":
		write(arg(1), w.aws.MFACode(ts.Getenv("SERIAL"))+"\n")
	case "user":
		id, secret := w.aws.AddUser(fakeaws.UserSpec{Name: arg(1), Root: arg(1) == "root", Deny: args[3:]})
		write(arg(2), fmt.Sprintf(`{"AccessKeyId":%q,"SecretAccessKey":%q}`, id, secret))
	case "saml":
		role := w.aws.AddRole(fakeaws.RoleSpec{Account: "222222222222", Name: "federated", Trust: []fakeaws.Trust{{Federated: []string{"arn:aws:iam::*:saml-provider/*"}}}})
		w.aws.AddSAML(fakeaws.SAMLSpec{Name: "idp", Roles: []string{role}, ACS: w.url + "/saml"})
		text, err := w.aws.SAMLResponse("idp", nil)
		ts.Check(err)
		write(arg(1), text)
	case "sso":
		w.aws.AddSSO(directory())
	case "sso-empty":
		w.aws.AddSSO(fakeaws.SSOSpec{StartURL: arg(1), Accounts: []fakeaws.SSOAccount{}})
	case "login":
		ts.Check(w.aws.SetLogin(arg(1)))
	case "approve-devices":
		// A person with another machine, for the rest of the script.
		var done sync.WaitGroup
		end := make(chan struct{})
		done.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-end:
					return
				case <-tick.C:
					w.aws.DecideDevice("", true)
				}
			}
		})
		ts.Defer(func() { close(end); done.Wait() })
	case "second-key":
		var pair struct{ AccessKeyId, SecretAccessKey string } //nolint:revive // the names of the wire form
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(arg(1))), &pair))
		_, err := w.iam(pair.AccessKeyId, pair.SecretAccessKey).CreateAccessKey(w.t.Context(), &iam.CreateAccessKeyInput{})
		ts.Check(err)
	case "anywhere":
		t := w.t.(*testing.T)
		root := fakeawstest.NewIssuer(t)
		leaf := root.Intermediate(t).Leaf(t, fakeawstest.LeafSpec{})
		role := w.aws.AddRole(fakeaws.RoleSpec{Name: "box", Trust: []fakeaws.Trust{{Federated: []string{"rolesanywhere.amazonaws.com"}}}})
		anchor := w.aws.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: string(root.PEM)})
		profile := w.aws.AddAnywhereProfile(fakeaws.AnywhereProfile{Roles: []string{role}})
		write(arg(1), string(leaf.CertPEM))
		write(arg(2), string(leaf.KeyPEM))
		write(arg(3), string(leaf.ChainPEM))
		write(arg(4), fmt.Sprintf("ANCHOR=%s PROFILE=%s ROLE=%s\n", anchor, profile, role))
	case "role":
		w.aws.AddRole(fakeaws.RoleSpec{ARN: arg(1)})
	case "deactivate":
		if !w.aws.SetKeyActive(arg(1), false) {
			ts.Fatalf("there is no key %s", arg(1))
		}
	default:
		ts.Fatalf("fake does not know %q", args)
	}
}

// iam is a client of a user's own.
func (w *world) iam(id, secret string) *iam.Client {
	return iam.New(iam.Options{Region: "us-east-1", BaseEndpoint: aws.String(w.url), Credentials: credentials.NewStaticCredentialsProvider(id, secret, "")})
}

// scriptKillDaemon is `killdaemon`: SIGKILL.
func scriptKillDaemon(ts *testscript.TestScript, _ bool, _ []string) { worldOf(ts).killDaemon() }

// scriptUntil is `until PATTERN CMD …`: CMD is run until what it prints matches.
func scriptUntil(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(args[0])
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err := ts.Exec(args[1], args[2:]...); err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("%s does not print %q but %s", strings.Join(args[1:], " "), args[0], ts.ReadFile("stdout"))
}

// scriptBrowser is `browser`: $BROWSER opens pages as a person's does, whom
// AWS knows already.
func scriptBrowser(ts *testscript.TestScript, _ bool, _ []string) {
	w := worldOf(ts)
	curl, err := exec.LookPath("curl")
	if err != nil {
		w.t.Skip("skipped: there is no curl on the PATH")
	}
	w.write("browser", "#!/bin/sh\nexec "+curl+" --noproxy '*' -s -L -o /dev/null --max-time 20 \"$1\"\n")
	ts.Check(os.Chmod(w.path("browser"), 0o700))
	ts.Setenv("BROWSER", w.path("browser"))
}

// scriptSetFile is `setfile VARIABLE FILE`: the file's first line.
func scriptSetFile(ts *testscript.TestScript, _ bool, args []string) {
	line, _, _ := strings.Cut(ts.ReadFile(args[1]), "\n")
	ts.Setenv(args[0], line)
}

// scriptReplace is `replace FILE OLD NEW`.
func scriptReplace(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o600))
}

// flagsOf lists a command's own flags, as `keyfob help COMMAND` does.
func (w *world) flagsOf(command string) []string {
	w.t.Helper()
	var flags []string
	_, list, _ := strings.Cut(w.must(nil, append([]string{"help"}, strings.Fields(command)...)...).out, "\nFlags:\n")
	list, _, _ = strings.Cut(list, "\nGeneral flags:\n")
	for _, line := range strings.Split(list, "\n") {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "--"); ok {
			flags = append(flags, "--"+strings.FieldsFunc(name, func(r rune) bool { return r == ' ' || r == '=' })[0])
		}
	}
	return flags
}

// everyFlagRan fails for a command that no script runs to a good end, and for
// a flag that no script gives it.
func everyFlagRan(t *testing.T, runs []ran) {
	w := &world{t: t, home: t.TempDir(), env: map[string]string{"HOME": "/nowhere"}}
	commands := []string{"overview"}
	_, list, _ := strings.Cut(w.must(nil, "help").out, "\nCommands:\n")
	list, general, _ := strings.Cut(list, "\nGeneral flags:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for _, line := range strings.Split(list, "\n") {
		name := strings.TrimSpace(line)
		for i := range name { // the arguments are written otherwise than a command
			if rest := name[i:]; strings.HasPrefix(rest, "  ") || len(rest) > 1 && rest[0] == ' ' && !(rest[1] >= 'a' && rest[1] <= 'z') {
				name = name[:i]
				break
			}
		}
		if first, second, _ := strings.Cut(name, " "); strings.Contains(second, "|") {
			name = first // service install|uninstall
		}
		commands = append(commands, name)
	}
	if len(commands) < 40 {
		t.Fatalf("the help lists %q", commands)
	}
	flags, used := 0, map[string]bool{}
	for _, x := range runs {
		if x.words == nil {
			continue
		}
		name := commandOf(x.words, commands)
		if x.done {
			used[name] = true
		}
		for _, word := range x.words {
			if word == "--" {
				break
			}
			if strings.HasPrefix(word, "--") {
				word, _, _ = strings.Cut(word, "=")
				used[name+" "+word], used[word] = true, true
			}
		}
	}
	for _, c := range commands {
		if !used[c] {
			t.Errorf("no script runs `keyfob %s`", c)
		}
		for _, f := range w.flagsOf(c) {
			flags++
			if !used[c+" "+f] {
				t.Errorf("no script runs `keyfob %s %s`", c, f)
			}
		}
	}
	for _, line := range strings.Split(general, "\n") {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[0], "--") {
			if flags++; !used[f[0]] {
				t.Errorf("no script gives %s", f[0])
			}
		}
	}
	t.Logf("%d runs of keyfob: %d commands, %d flags", len(runs), len(commands), flags)
}

// commandOf finds the command in a command line: flags may stand before it.
func commandOf(words, commands []string) string {
	for i, word := range words {
		if i+1 < len(words) && slices.Contains(commands, word+" "+words[i+1]) {
			return word + " " + words[i+1]
		}
		if slices.Contains(commands, word) {
			for _, next := range words[i+1:] { // `audit --json verify`
				if slices.Contains(commands, word+" "+next) {
					return word + " " + next
				}
			}
			return word
		}
	}
	return "overview"
}
