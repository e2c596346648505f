//go:build linux

package e2e

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
)

// at runs a command in one of the four settings in which programs want
// credentials, and returns what was on its terminal as well.
//
//   - terminal: everything is on the terminal;
//   - captured: a program reads standard output and error, and the terminal is
//     still there (credential_process under the AWS CLI);
//   - user service: no terminal, no display;
//   - system service: the same with next to no environment.
func (p *person) at(setting string, c *console, typed [2]string, args ...string) (r result, shown string) {
	p.t.Helper()
	cmd := p.command(p.keyfob(), args...)
	switch setting {
	case "terminal":
		tty, err := os.OpenFile(c.name, os.O_RDWR|syscall.O_NOCTTY, 0)
		if err != nil {
			p.t.Fatal(err)
		}
		defer tty.Close()
		var out bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, &out, tty
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
		cmd.WaitDelay = 5 * time.Second
		if err := cmd.Start(); err != nil {
			p.t.Fatal(err)
		}
		kill := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if typed[0] != "" {
			shown = c.until(typed[0])
			c.typed(typed[1] + "\n")
		}
		_ = cmd.Wait()
		return result{out: out.String(), code: cmd.ProcessState.ExitCode()}, shown + c.rest()
	case "captured":
		wait := c.run(cmd)
		if typed[0] != "" {
			shown = c.until(typed[0])
			c.typed(typed[1] + "\n")
		}
		r = wait()
		return r, shown + c.rest()
	case "system service":
		env := cmd.Env[:0]
		for _, e := range cmd.Env {
			switch name, _, _ := strings.Cut(e, "="); name {
			case "BROWSER", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DBUS_SESSION_BUS_ADDRESS":
			default:
				env = append(env, e)
			}
		}
		cmd.Env = env
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return p.finish(cmd), ""
}

// until is expect that returns what was shown up to the text.
func (c *console) until(text string) string {
	c.t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c.mu.Lock()
		i := bytes.Index(c.shown.Bytes(), []byte(text))
		var seen string
		if i >= 0 {
			seen = string(c.shown.Next(i + len(text)))
		}
		all := c.shown.String()
		c.mu.Unlock()
		if i >= 0 {
			return seen
		}
		if time.Now().After(end) {
			c.t.Fatalf("the terminal does not show %q but %q", text, all)
		}
	}
}

// rest is what was shown since.
func (c *console) rest() string {
	time.Sleep(50 * time.Millisecond) // for the line discipline to hand it over
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.shown.Next(c.shown.Len()))
}

// TestPromptsInFourSettings: which process shows a question, or that there is
// none: exit 3 at once, with a hint.
func TestPromptsInFourSettings(t *testing.T) {
	t.Parallel()
	const serial = "arn:aws:iam::111122223333:mfa/alice"
	kinds := map[string]struct {
		prompt string // on the terminal
		typed  bool   // and something is typed there
		device bool   // or decided on elsewhere
		says   string // in place of a code
		hint   string // where nobody can be asked; "" is the login of prod
		make   func(*person)
	}{
		"MFA code": {prompt: "MFA code of " + serial, typed: true, make: func(p *person) {
			p.add("[profile prod]\nregion = eu-west-1\nrole_arn = " + entryARN + "\nsource_profile = base\nmfa_serial = " + serial + "\n")
			p.addKeys("base")
		}},
		"browser": {prompt: "/authorize?", make: func(p *person) {
			p.add(strings.ReplaceAll(ssoConfig, "[profile dev]", "[profile prod]"))
			p.aws.AddSSO(directory())
		}},
		"device code": {prompt: "user_code=", device: true, make: func(p *person) {
			p.add(strings.ReplaceAll(ssoConfig, "[profile dev]", "[profile prod]"))
			p.aws.AddSSO(directory())
			delete(p.env, "BROWSER")
		}},
		"SAML": {make: func(p *person) { // the pages are driven by keyfob-signin
			findChromium(p.t)
			p.aws.AddRole(fakeaws.RoleSpec{ARN: federatedARN, Trust: []fakeaws.Trust{{Federated: []string{"*"}}}})
			p.add("[profile prod]\nregion = eu-west-1\nrole_arn = " + federatedARN + "\nsaml_url = " + p.url + "/saml/idp\n")
			p.aws.AddSAML(fakeaws.SAMLSpec{Roles: []string{federatedARN}, ACS: p.url + "/saml"})
			p.env["KEYFOB_BROWSER_HEADLESS"] = "1"
			p.env["KEYFOB_BROWSER_ARGS"] = "--no-sandbox --disable-gpu --disable-quic --no-proxy-server"
		}},
		"confirmation": {prompt: "have the credentials of prod?", typed: true, says: "once", hint: "hint: keyfob answer", make: func(p *person) {
			p.add("[profile prod]\nregion = eu-west-1\nrole_arn = " + entryARN + "\nsource_profile = base\n")
			p.addKeys("base")
			p.write("config/keyfob/config.toml", "[[profile]]\nname = \"prod\"\nprotected = true\n")
			p.must(nil, "reload")
		}},
	}
	for kind, k := range kinds {
		for _, setting := range []string{"terminal", "captured", "user service", "system service"} {
			t.Run(kind+" at a "+setting, func(t *testing.T) {
				t.Parallel()
				p := newPerson(t, "")
				k.make(p)
				c := newConsole(t)
				p.run(nil, "status") // the daemon runs
				typed := [2]string{}
				decide := func() {}
				attended := setting == "terminal" || setting == "captured"
				if attended && k.typed {
					typed = [2]string{k.prompt, ""}
					if typed[1] = k.says; k.says == "" {
						typed[1] = p.aws.MFACode(serial)
					}
				}
				if attended && k.device {
					done := make(chan struct{})
					go func() {
						defer close(done)
						for end := time.Now().Add(15 * time.Second); time.Now().Before(end) && (p.aws.Count("CreateToken") == 0 || p.aws.DecideDevice("", true) == 0); {
							time.Sleep(50 * time.Millisecond) // a person's time
						}
					}()
					decide = func() { <-done }
				}
				begun := time.Now()
				r, shown := p.at(setting, c, typed, "credential-process", "--profile", "prod")
				decide()
				p.said = append(p.said, r.err, shown)
				if !attended {
					hint := k.hint
					if hint == "" {
						hint = "hint: keyfob login prod"
					}
					p.bad(r, 3, hint)
					if took := time.Since(begun); took > 5*time.Second {
						t.Errorf("that took %v", took)
					}
					p.wantTabs(0, 0, setting)
					if shown = c.rest(); shown != "" {
						t.Errorf("a terminal that is not its own shows %q", shown)
					}
					return
				}
				if r.code != 0 {
					t.Fatalf("%+v, on the terminal %q", r, shown)
				}
				p.parse(r)
				if kind == "browser" && p.tabs() != 1 {
					t.Errorf("%d tabs", p.tabs())
				}
				// A browser that answers at once leaves nothing to be shown.
				if kind != "browser" && kind != "SAML" && !strings.Contains(shown, k.prompt) {
					t.Errorf("the terminal shows %q, not %q", shown, k.prompt)
				}
				if k.prompt != "" && strings.Contains(r.err+r.out, k.prompt) {
					t.Errorf("the program that runs it is shown the question: %q", r.err)
				}
			})
		}
	}
}

// TestMetadataClientHasNoPerson: what a metadata client needs of a person is
// shown by status, opens nothing, and is answered by login.
func TestMetadataClientHasNoPerson(t *testing.T) {
	t.Parallel()
	p := newEmployee(t)
	at := p.imds()
	token, _ := p.call("PUT", at+"/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
	if body, code := p.call("GET", at+"/latest/meta-data/iam/security-credentials/Developer", "X-aws-ec2-metadata-token", token); code == 200 && !strings.Contains(body, "AssumeRoleUnauthorizedAccess") {
		t.Errorf("%d %s", code, body)
	}
	i := p.status().Interactions
	for end := time.Now().Add(5 * time.Second); len(i) == 0 && time.Now().Before(end); i = p.status().Interactions {
		time.Sleep(50 * time.Millisecond) // the client was not made to wait for the attempt
	}
	if len(i) != 1 || i[0].Profile != "dev" {
		t.Errorf("status shows %+v", i)
	}
	p.wantTabs(0, 0, "a metadata client")
	p.good(nil, "login", "dev")
	p.belongs(p.metadata(at), "Developer")
	if i := p.status().Interactions; len(i) != 0 {
		t.Errorf("status still shows %+v", i)
	}
}

// TestNeverAsks: interactive = never, and CI, are exit 3 although there is a
// terminal and a browser.
func TestNeverAsks(t *testing.T) {
	t.Parallel()
	p := newEmployee(t)
	c := newConsole(t)
	for name, value := range map[string]string{"KEYFOB_INTERACTIVE": "never", "CI": "true"} {
		was := p.env[name]
		p.env[name] = value
		p.bad(p.onTerminal(c, "credential-process", "--profile", "dev"), 3, "hint: keyfob login dev")
		p.env[name] = was
	}
	p.wantTabs(0, 0, "nobody is asked")
	p.aws.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInAuto)
	p.good(nil, "login", "dev")
}
