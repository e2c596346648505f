//go:build linux

package e2e

import (
	"crypto/sha1" //nolint:gosec // the name of a file
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
)

// newEmployee is a person of an Identity Center.
func newEmployee(t *testing.T) *person {
	t.Helper()
	p := newPerson(t, ssoConfig)
	p.write("config/keyfob/config.toml", strings.ReplaceAll(imdsToml, "deploy", "dev"))
	p.aws.AddSSO(directory())
	return p
}

// TestIdentityCenter: one sign-in in the browser, and every exit, every
// profile of the session, a role above it and a new daemon live on it.
func TestIdentityCenter(t *testing.T) {
	t.Parallel()
	p := newEmployee(t)
	p.bad(p.do(nil, "credential-process", "--profile", "dev"), 3, "hint: keyfob login dev")
	p.wantTabs(0, 0, "nobody was asked")
	if r := p.good(nil, "login", "dev"); !strings.HasPrefix(r.out, "signed in to dev until ") {
		t.Errorf("login printed %q", r.out)
	}
	p.wantTabs(0, 1, "login")
	if c := p.aws.Calls("Authorize"); len(c) != 1 || c[0].Params["code_challenge_method"] != "S256" || c[0].Params["code_challenge"] == "" {
		t.Errorf("no PKCE: %+v", c)
	}
	first := p.uses("dev", "Developer")
	if d := p.metadata(p.imds()); d.AccessKeyId != first.AccessKeyId || d.SessionToken != first.SessionToken {
		t.Errorf("the metadata endpoint gives %s, credential-process %s", d.AccessKeyId, first.AccessKeyId)
	}
	p.uses("reader", "ReadOnly")
	p.uses("above", "entry")
	if r := p.good(nil, "login", "dev"); !strings.Contains(r.out, "has a valid session") {
		t.Errorf("a second login printed %q", r.out)
	}
	p.wantTabs(1, 0, "a second login")
	first = p.uses("dev", "Developer")
	p.again()
	if d := p.uses("dev", "Developer"); d.AccessKeyId != first.AccessKeyId {
		t.Error("a new daemon asked AWS again")
	}
	p.aws.ExpireSSOTokens()
	p.wantTabs(1, 0, "after the first sign-in")
	p.good(nil, "login", "dev", "--force")
	p.wantTabs(1, 1, "login --force")

	if n := p.aws.EndSSOSessions(); n == 0 {
		t.Fatal("no session was alive")
	}
	p.again()
	p.write(".aws/config", p.file(p.path(".aws/config"))+"\n[profile third]\nsso_session = corp\nsso_account_id = 111122223333\nsso_role_name = ReadOnly\nregion = us-east-1\n")
	p.good(nil, "logout", "reader")
	p.bad(p.do(nil, "credential-process", "--profile", "reader"), 3, "hint: keyfob login reader")
	p.wantTabs(2, 0, "a session that was ended at the portal")
}

// TestIdentityCenterEnded: a session that is ended at the portal is a
// person's affair, and no browser opens for whoever can't see it.
func TestIdentityCenterEnded(t *testing.T) {
	t.Parallel()
	p := newEmployee(t)
	p.good(nil, "login", "dev")
	p.aws.EndSSOSessions()
	p.bad(p.do(nil, "credential-process", "--profile", "reader"), 3, "hint: keyfob login reader")
	p.bad(p.do(nil, "env", "reader"), 3, "hint: keyfob login reader")
	p.bad(p.do(nil, "exec", "reader", "--", "true"), 3, "hint: keyfob login reader")
	p.wantTabs(0, 1, "login")
	p.good(nil, "login", "reader")
	p.uses("reader", "ReadOnly")
	p.wantTabs(0, 2, "login after the end")
}

// TestIdentityCenterLogout: the profiles of the session are signed out with
// the one, at the portal too.
func TestIdentityCenterLogout(t *testing.T) {
	t.Parallel()
	p := newEmployee(t)
	p.good(nil, "login", "dev")
	p.uses("reader", "ReadOnly")
	p.good(nil, "logout", "dev")
	if p.aws.Count("Logout") != 1 {
		t.Errorf("%d calls of Logout", p.aws.Count("Logout"))
	}
	for _, profile := range []string{"dev", "above"} {
		p.bad(p.do(nil, "credential-process", "--profile", profile), 3, "hint: keyfob login "+profile)
	}
	p.again()
	p.bad(p.do(nil, "credential-process", "--profile", "dev"), 3, "hint: keyfob login dev")
	p.wantTabs(0, 1, "login")
}

// device is a login that shows a code, which is decided upon elsewhere.
func (p *person) device(approve bool, args ...string) result {
	p.t.Helper()
	cmd := p.command(p.keyfob(), append([]string{"login"}, args...)...)
	asked := p.aws.Count("CreateToken")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if p.aws.Count("CreateToken") > asked && p.aws.DecideDevice("", approve) > 0 {
				return
			}
		}
		p.t.Error("no device sign-in waits")
	}()
	r := p.finish(cmd)
	p.said = append(p.said, r.err)
	<-done
	return r
}

// TestIdentityCenterDevice: the code is shown, nothing is opened; approved,
// then refused.
func TestIdentityCenterDevice(t *testing.T) {
	t.Parallel()
	for _, profile := range []string{"dev", "old"} {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			p := newEmployee(t)
			p.aws.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInClick)
			login := func(approve bool) result { return p.device(approve, profile, "--device") }
			p.refusal(login(false), 3, "refused in the browser")
			r := login(true)
			if r.code != 0 || !strings.Contains(r.err, "user_code=") || !strings.Contains(r.err, "and check that it shows the code") {
				t.Fatalf("exit %d: %q %q", r.code, r.out, r.err)
			}
			p.uses(profile, "Developer")
			p.wantTabs(0, 0, "--device")
			if profile == "dev" {
				p.uses("reader", "ReadOnly")
			}
		})
	}
}

// TestIdentityCenterNoBrowser: with no browser at all, or one that fails,
// the code is shown.
func TestIdentityCenterNoBrowser(t *testing.T) {
	t.Parallel()
	for what, script := range map[string]string{"none": "", "one that fails": "exit 7"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := newEmployee(t)
			p.browser(script)
			if script == "" {
				delete(p.env, "BROWSER")
			}
			r := p.device(true, "dev")
			if r.code != 0 || !strings.Contains(r.err, "user_code=") || script != "" && !strings.Contains(r.err, "keyfob: cannot open a browser: ") {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestIdentityCenterDenied: no at the page ends the sign-in and makes a
// pause for all but login, also where an endpoint's refresher wanted the
// credentials first.
func TestIdentityCenterDenied(t *testing.T) {
	t.Parallel()
	for what, config := range map[string]string{"alone": "", "with an endpoint": strings.ReplaceAll(imdsToml, "deploy", "dev")} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := newEmployee(t)
			p.write("config/keyfob/config.toml", config)
			p.aws.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInDeny)
			p.refusal(p.do(nil, "login", "dev"), 3, "refused in the browser")
			p.aws.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInAuto)
			c := newConsole(t)
			p.bad(p.onTerminal(c, "credential-process", "--profile", "dev"), 3)
			p.wantTabs(0, 1, "the cool-down")
			p.good(nil, "login", "dev")
			p.uses("dev", "Developer")
			p.wantTabs(0, 2, "login ignores it")
		})
	}
}

// TestHundredCallersOneTab: programs of one terminal that want credentials
// at once, of two profiles of a session, then as many sign-ins.
func TestHundredCallersOneTab(t *testing.T) {
	t.Parallel()
	const callers = 100
	t.Run("credential-process", func(t *testing.T) {
		t.Parallel()
		p := newEmployee(t)
		p.browser("sleep 1; " + strings.TrimPrefix(lastLine(p.file(p.path("browser"))), "exec "))
		c := newConsole(t)
		script := fmt.Sprintf(`i=0; while [ $i -lt %d ]; do p=dev; [ $((i %% 2)) = 0 ] && p=reader
			keyfob credential-process --profile $p >out.$i 2>err.$i & i=$((i+1)); done; wait`, callers)
		if r := c.run(p.command("sh", "-c", script))(); r.code != 0 {
			t.Fatalf("%+v", r)
		}
		ids := map[string]int{}
		for i := range callers {
			e := p.file(p.path(fmt.Sprint("err.", i)))
			p.said = append(p.said, e)
			d := p.parse(result{out: p.file(p.path(fmt.Sprint("out.", i)))})
			ids[d.AccessKeyId]++
			if e != "" {
				t.Errorf("caller %d: %q", i, e)
			}
		}
		if len(ids) != 2 {
			t.Errorf("%d sessions for two profiles: %v", len(ids), ids)
		}
		p.wantTabs(0, 1, "a hundred programs")
		if n := p.aws.Count("Authorize"); n != 1 {
			t.Errorf("%d pages", n)
		}
	})
	t.Run("login", func(t *testing.T) {
		t.Parallel()
		p := newEmployee(t)
		p.browser("sleep 1; " + strings.TrimPrefix(lastLine(p.file(p.path("browser"))), "exec "))
		var wg sync.WaitGroup
		all := make([]result, callers/4)
		for i := range all {
			wg.Go(func() { all[i] = p.run(nil, "login", []string{"dev", "reader"}[i%2]) })
		}
		wg.Wait()
		for _, r := range all {
			p.said = append(p.said, r.err)
			if r.code != 0 {
				t.Errorf("%+v", r)
			}
		}
		p.wantTabs(0, 1, "as many sign-ins")
	})
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// TestIdentityCenterInChromium: the sign-in pages in a real browser.
func TestIdentityCenterInChromium(t *testing.T) {
	t.Parallel()
	p := newEmployee(t)
	p.chromium()
	p.good(nil, "login", "dev")
	p.uses("dev", "Developer")
	p.uses("reader", "ReadOnly")
	p.wantTabs(0, 1, "one sign-in")
	if b, err := os.ReadFile(p.path("data/keyfobd.log")); err != nil || strings.Contains(string(b), `"level":"error"`) {
		t.Errorf("%v: %s", err, b)
	}
}

// TestSharedCache: the AWS CLI's own cache is used while its token is valid.
func TestSharedCache(t *testing.T) {
	t.Parallel()
	p := newEmployee(t)
	tokens, err := p.aws.NewSSOTokens(startURL)
	if err != nil {
		t.Fatal(err)
	}
	p.secrets.note("accessToken", tokens.AccessToken)
	p.secrets.note("refreshToken", tokens.RefreshToken)
	// the name is the SHA-1 of the session's, as botocore and the CLI write it
	p.write(".aws/sso/cache/"+sha1Hex("corp")+".json", fmt.Sprintf(`{"startUrl":%q,"region":%q,"accessToken":%q,"expiresAt":%q,"refreshToken":%q,"clientId":%q,"clientSecret":%q,"registrationExpiresAt":%q}`,
		tokens.StartURL, tokens.Region, tokens.AccessToken, tokens.Expires.UTC().Format(time.RFC3339), tokens.RefreshToken, tokens.ClientID, tokens.ClientSecret,
		tokens.RegistrationUntil.UTC().Format(time.RFC3339)))
	p.uses("dev", "Developer")
	p.wantTabs(0, 0, "the CLI has signed in")
}

func sha1Hex(s string) string {
	sum := sha1.Sum([]byte(s)) //nolint:gosec // the name of a file
	return hex.EncodeToString(sum[:])
}
