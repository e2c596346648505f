package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
)

// found is one line of the doctor's.
type found struct{ ID, Group, State, Message, File, About, Fix, Hint string }

func (w *world) doctor(args ...string) (checks []found, code int) {
	w.t.Helper()
	r := w.run(nil, append([]string{"doctor", "--json"}, args...)...)
	var out struct{ Checks []found }
	if err := json.Unmarshal([]byte(r.out), &out); err != nil || len(out.Checks) == 0 {
		w.t.Fatalf("doctor %v: exit %d, %q, %q", args, r.code, r.out, r.err)
	}
	return out.Checks, r.code
}

// illness is one thing that is wrong, and the doctor's line for it.
type illness struct {
	name    string
	make    func(w *world)
	args    []string // of doctor
	state   string   // "failed", "warning"
	line    string   // pattern of its message
	fix     string   // pattern of the command that mends it; "" for none
	hint    string   // pattern of the advice, where it is no command
	answers string   // what a person types to the command
	cure    func(w *world)
}

// TestDoctor makes each thing that the doctor knows of go wrong: it says so in
// one line, with the command that mends it; that command is run, and the line is
// gone.
func TestDoctor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env["AWS_REGION"] = "eu-west-1"
	w.addKeys("base")
	if all, code := w.doctor("deploy"); code != 0 || sick(all) != "" {
		t.Fatalf("a healthy machine: exit %d, %s", code, sick(all))
	}
	for _, x := range illnesses(w) {
		t.Run(x.name, func(t *testing.T) {
			w.t = t
			x.examine(t, w)
		})
		w.t = t
	}
	if all, code := w.doctor("deploy"); code != 0 || sick(all) != "" {
		t.Errorf("all is mended: exit %d, %s", code, sick(all))
	}
}

// sick are the lines that are no good.
func sick(all []found) string {
	var b strings.Builder
	for _, c := range all {
		if c.State == "failed" || c.State == "warning" {
			fmt.Fprintf(&b, "%+v\n", c)
		}
	}
	return b.String()
}

func (x illness) find(all []found) []found {
	var hits []found
	for _, c := range all {
		if len(hits) > 0 && hits[0].ID == c.ID && hits[0].Message == c.Message {
			hits = hits[1:] // told twice: by keyfob, and by keyfobd with its advice
		}
		if c.State == x.state && regexp.MustCompile(x.line).MatchString(c.Message) {
			hits = append(hits, c)
		}
	}
	return hits
}

func (x illness) examine(t *testing.T, w *world) {
	x.make(w)
	all, code := w.doctor(x.args...)
	hits := x.find(all)
	if len(hits) != 1 {
		t.Errorf("%d lines say that; the doctor says:\n%s", len(hits), sick(all))
	}
	if (code != 0) != strings.Contains(sick(all), "State:failed") {
		t.Errorf("exit %d with\n%s", code, sick(all))
	}
	if len(hits) > 0 {
		c := hits[0]
		if x.fix != "" && !regexp.MustCompile("^(?:"+x.fix+")$").MatchString(c.Fix) {
			t.Errorf("what mends it is %q, want %s: %+v", c.Fix, x.fix, c)
		}
		if x.hint != "" && !regexp.MustCompile(x.hint).MatchString(c.Hint) {
			t.Errorf("the advice is %q, want %s: %+v", c.Hint, x.hint, c)
		}
		text := w.run(nil, append([]string{"doctor"}, x.args...)...).out
		advice := c.Fix
		if advice == "" {
			advice = c.Hint
		}
		if !regexp.MustCompile(`(?m)^  ` + x.state + ` +` + `.*\n           → ` + regexp.QuoteMeta(advice) + `$`).MatchString(text) {
			t.Errorf("people are not shown %q:\n%s", advice, text)
		}
		if x.fix != "" {
			w.obey(t, c.Fix, x.answers)
		}
	}
	if x.cure != nil {
		x.cure(w)
	}
	if after := x.find(first(w.doctor(x.args...))); len(after) > 0 {
		t.Errorf("the line is still there: %+v", after)
	}
}

func first(all []found, _ int) []found { return all }

// obey runs a command line in the person's shell, whose variables stay.
func (w *world) obey(t *testing.T, line, answers string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", line+"\nr=$?; env -0 >"+w.path("shell")+"; exit $r")
	cmd.Env, cmd.Dir = w.environ(), w.home
	cmd.Stdin = strings.NewReader(answers)
	if r := w.finish(cmd); r.code != 0 {
		t.Errorf("%s: exit %d, %s%s", line, r.code, r.out, r.err)
	}
	now := map[string]string{}
	for _, entry := range strings.Split(w.file(w.path("shell")), "\x00") {
		if name, value, ok := strings.Cut(entry, "="); ok && name != "PWD" && name != "_" && name != "SHLVL" && name != "OLDPWD" {
			now[name] = value
		}
	}
	w.env = now
}

func illnesses(w *world) []illness {
	aws, own := w.path(".aws/config"), w.path("config/keyfob/config.toml")
	healthy, err := os.ReadFile(aws)
	if err != nil {
		w.t.Fatal(err)
	}
	restore := func(w *world) { w.write(".aws/config", string(healthy)) }
	add := func(text string) func(*world) {
		return func(w *world) { w.write(".aws/config", string(healthy)+text) }
	}
	mode := func(p string, m os.FileMode) func(*world) {
		return func(w *world) {
			if err := os.Chmod(w.path(p), m); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	set := func(pairs ...string) func(*world) {
		return func(w *world) {
			for i := 0; i < len(pairs); i += 2 {
				w.env[pairs[i]] = pairs[i+1]
			}
		}
	}
	serial := "arn:aws:iam::" + fakeaws.DefaultAccount + ":mfa/alice"
	at := regexp.QuoteMeta
	return []illness{
		// Files and permissions.
		{name: "credentials that others read", make: func(w *world) {
			w.write(".aws/credentials", "[x]\nregion = eu-west-1\n")
			mode(".aws/credentials", 0o644)(w)
		},
			state: "warning", line: "^others on this machine may read " + at(w.path(".aws/credentials")) + ` \(0644\)$`, fix: "chmod 600 .*/credentials"},
		{name: "a config that others write", make: mode(".aws/config", 0o666), state: "failed", line: "^whoever may write to " + at(aws) + " decides", fix: "chmod go-w .*/config"},
		{name: "settings that others write", make: func(w *world) { w.write("config/keyfob/config.toml", ""); mode("config/keyfob/config.toml", 0o666)(w) },
			state: "failed", line: "^whoever may write to " + at(own) + " decides", fix: "chmod go-w .*/config.toml"},
		{name: "a data directory that others enter", make: mode("data", 0o755), state: "failed", line: at(w.path("data")), fix: "chmod 700 .*/data"},
		{name: "a config that is no grammar", make: add("nonsense\n"), state: "failed", line: "^cannot read " + at(aws) + ":16: no `=`$", hint: "^mend it; what was read before is used until then$", cure: restore},
		{name: "AWS_CONFIG_FILE of nothing", make: func(w *world) { w.must(nil, "stop"); w.env["AWS_CONFIG_FILE"] = w.path("none") },
			state: "warning", line: "^AWS_CONFIG_FILE names .*/none, which does not exist$", fix: "unset AWS_CONFIG_FILE; keyfob stop"},
		{name: "settings that can't be read", make: func(w *world) {
			w.must(nil, "status")
			w.write("config/keyfob/config.toml", "nonsense = 1\n")
			w.run(nil, "reload")
		},
			state: "failed", line: "^the last change is not in force: .*config.toml:1", cure: func(w *world) { w.write("config/keyfob/config.toml", ""); w.must(nil, "reload") }},
		{name: "keys in plain text", make: func(w *world) {
			w.write(".aws/credentials", fmt.Sprintf("[plain]\naws_access_key_id = %s\naws_secret_access_key = %s\n", w.keyID, w.secret))
		}, state: "warning", line: "^the long-lived keys of plain stand in plain text in .*/credentials:2$|^profile plain has a long-lived key in plain text",
			cure: func(w *world) {
				w.must(nil, "import", "--all", "--yes", "--shred")
				restore(w)
				w.must(nil, "remove", "plain", "--yes")
			}},
		{name: "a program that does not ask keyfob", make: add("[profile mixed]\ncredential_process = " + w.keyfob() + " credential-process --profile deploy\nrole_arn = " + deployARN + "\n"),
			state: "warning", line: "^profile mixed asks keyfob, but not with ", fix: "keyfob explain mixed --shadow", cure: restore},

		// The environment.
		{name: "keys in the environment", make: set("AWS_ACCESS_KEY_ID", "AKIAOTHER", "AWS_SECRET_ACCESS_KEY", "x"), state: "warning",
			line: "^AWS_ACCESS_KEY_ID is set: most SDKs use this key and no profile$", fix: "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"},
		{name: "a web identity in the environment", make: set("AWS_WEB_IDENTITY_TOKEN_FILE", "/t", "AWS_ROLE_ARN", "r"), state: "warning",
			line: "^AWS_WEB_IDENTITY_TOKEN_FILE is set: ", fix: "unset AWS_WEB_IDENTITY_TOKEN_FILE AWS_ROLE_ARN"},
		{name: "AWS_PROFILE of nothing", make: set("AWS_PROFILE", "none"), state: "warning", line: "^AWS_PROFILE names none, and no file has such a profile$", fix: "unset AWS_PROFILE"},
		{name: "two profiles", make: set("AWS_PROFILE", "app", "AWS_DEFAULT_PROFILE", "deploy"), state: "warning", line: "^AWS_PROFILE is app and AWS_DEFAULT_PROFILE is deploy: ",
			fix: "unset AWS_DEFAULT_PROFILE", cure: func(w *world) { delete(w.env, "AWS_PROFILE") }},
		{name: "a proxy without exceptions", make: set("http_proxy", "http://proxy.example:3128"), state: "warning",
			line: "^http_proxy is set, and NO_PROXY has not 169.254.169.254, 169.254.170.2, 127.0.0.1, localhost: ", fix: "export NO_PROXY=.* no_proxy=.*",
			cure: set("http_proxy", "", "NO_PROXY", "", "no_proxy", "")},
		{name: "another endpoint than the daemon's", make: set("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), state: "failed", line: "AWS_ENDPOINT_URL is http://127.0.0.1:9 here and .* for the running daemon$", fix: "keyfob stop",
			cure: func(w *world) { w.must(nil, "stop"); w.env["AWS_ENDPOINT_URL"] = w.url }},

		// The daemon and its endpoints.
		{name: "an older daemon", make: (*world).oldDaemon, state: "warning", line: "^keyfob is dev and keyfobd is 0.0.1$", fix: "keyfob stop"},
		{name: "a proxy of the daemon's without exceptions", make: func(w *world) {
			w.must(nil, "stop")
			w.env["http_proxy"] = "http://proxy.example:3128"
			w.must(nil, "status")
		}, state: "warning", line: "^http_proxy is set in the environment of keyfobd and NO_PROXY does not name 169.254.169.254, 169.254.170.2, 127.0.0.1: ", fix: "export NO_PROXY=.*keyfob stop",
			cure: func(w *world) { set("http_proxy", "", "NO_PROXY", "", "no_proxy", "")(w); w.must(nil, "stop") }},
		{name: "a daemon that can't start", make: func(w *world) { w.must(nil, "stop"); w.env["KEYFOB_IMDS"] = "192.0.2.1:9999" }, state: "failed",
			line: "^cannot start keyfobd: .*192.0.2.1:9999", hint: ".", cure: func(w *world) { delete(w.env, "KEYFOB_IMDS") }},
		{name: "an endpoint for no profile", make: func(w *world) {
			w.write("config/keyfob/config.toml", "[[endpoint]]\nkind = \"imds\"\nlisten = \"127.0.0.1:0\"\nprofile = \"none\"\n")
			w.must(nil, "reload")
		}, state: "failed", line: "hands out profile none, and there is none$", hint: "^correct profile of the endpoint in ",
			cure: func(w *world) { w.write("config/keyfob/config.toml", ""); w.must(nil, "reload") }},

		// The vault.
		{name: "a locked vault", make: func(w *world) { w.must(nil, "lock") }, state: "failed", line: "^keyfob is locked$", fix: "keyfob unlock"},
		{name: "a rotation that was killed", make: func(w *world) {
			w.must(nil, "status")
			w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang, Action: "UpdateAccessKey"})
			cmd := w.command(w.keyfob(), "rotate", "base")
			if err := cmd.Start(); err != nil {
				w.t.Fatal(err)
			}
			eventually(w.t, "the old key is to be deactivated", func() bool { return w.aws.Count("UpdateAccessKey") > 0 })
			w.killDaemon()
			_ = cmd.Wait()
			w.aws.SetFaults()
			w.must(nil, "status")
		}, state: "warning", line: "^the rotation of the keys of base is not finished$", fix: "keyfob rotate base"},

		// The way to AWS.
		{name: "a clock that is off", make: func(w *world) { w.aws.SetClock(5 * time.Minute) }, state: "failed", line: "clock", hint: "^set this machine's clock",
			cure: func(w *world) { w.aws.SetClock(0) }},
		{name: "STS out of reach", make: func(w *world) { w.outage(fakeaws.Refused) }, state: "failed", line: "^cannot reach STS: ", hint: ".",
			cure: func(w *world) { w.outage(fakeaws.Up) }},
		{name: "an endpoint that is none", make: func(w *world) { w.must(nil, "stop"); w.env["AWS_ENDPOINT_URL_STS"] = "http://127.0.0.1:9" },
			state: "failed", line: "^cannot reach STS: .*127.0.0.1:9", hint: "endpoint_url", cure: func(w *world) { w.must(nil, "stop"); delete(w.env, "AWS_ENDPOINT_URL_STS") }},

		// One profile.
		{name: "no such profile", make: func(*world) {}, args: []string{"depoly"}, state: "failed", line: "depoly", hint: "deploy", cure: add("[profile depoly]\nrole_arn = " + entryARN + "\nsource_profile = base\n")},
		{name: "a device that the user has not", make: add("[profile coded]\nregion = eu-west-1\nrole_arn = " + entryARN + "\nsource_profile = base\nmfa_serial = arn:aws:iam::111122223333:mfa/none\n"),
			args: []string{"coded"}, state: "failed", line: "^the user has no MFA device arn:aws:iam::111122223333:mfa/none, which mfa_serial names$", hint: "^mfa_serial = " + serial + "$",
			cure: add("[profile coded]\nregion = eu-west-1\nrole_arn = " + entryARN + "\nsource_profile = base\nmfa_serial = " + serial + "\n")},
		{name: "a session that needs a person", make: func(*world) {}, args: []string{"coded"}, state: "warning", line: "^coded needs an MFA code of " + serial + "$", fix: "keyfob login coded",
			answers: w.aws.MFACode(serial) + "\n", cure: restore},
		{name: "a role that AWS refuses", make: func(w *world) {
			w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Action: "AssumeRole", Status: 403, Code: "AccessDenied", Message: "not authorized"})
			w.must(nil, "logout", "deploy")
		}, args: []string{"deploy"}, state: "failed", line: "AWS denies it|AccessDenied", hint: "trust policy", cure: func(w *world) { w.aws.SetFaults(); w.must(nil, "login", "deploy") }},
	}
}

func (w *world) outage(o fakeaws.Outage) {
	if err := w.aws.SetOutage(o); err != nil {
		w.t.Fatal(err)
	}
}

// oldDaemon has an older release's daemon run.
func (w *world) oldDaemon() {
	w.must(nil, "stop")
	old := w.path("old/keyfobd")
	build := exec.Command("go", "build", "-ldflags", "-X main.version=0.0.1", "-o", old, "keyfob/cmd/keyfobd")
	if out, err := build.CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"keyfob", "keyfob-keyring", "keyfob-signin"} {
		if err := os.Symlink(filepath.Join(bin, name), w.path("old/"+name)); err != nil {
			w.t.Fatal(err)
		}
	}
	cmd := w.command(old, "run", "--on-demand")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	eventually(w.t, "the old daemon answers", func() bool {
		c, err := net.Dial("unix", w.path("s"))
		if err == nil {
			_ = c.Close()
		}
		return err == nil && w.daemonPID() == cmd.Process.Pid
	})
}
