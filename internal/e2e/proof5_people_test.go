//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os/user"
	"strings"
	"sync"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
)

// TestNobodyComesBack: the browser is opened and closed again, for every
// source that opens one: exit 3 when the time is over, and a second sign-in
// works.
func TestNobodyComesBack(t *testing.T) {
	t.Parallel()
	for name, x := range sources() {
		if x.tabs == 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := x.make(t)
			good := lastLine(p.file(p.path("browser")))
			p.browser("exit 0")
			p.env["KEYFOB_SIGNIN_TIMEOUT"] = "2s"
			p.refusal(p.do(nil, "login", "p"), 3, "hint: keyfob login p")
			// A program is not sent to a browser again so soon.
			c := newConsole(t)
			before := p.tabs()
			p.bad(p.onTerminal(c, "credential-process", "--profile", "p"), 3, "hint: ")
			p.wantTabs(before, 0, "the cool-down")
			p.browser(good)
			p.good(nil, "stop")
			p.env["KEYFOB_SIGNIN_TIMEOUT"] = "20s"
			p.good(nil, "login", "p")
		})
	}
}

// TestAccessDenied: the role's trust policy lets nobody in.
func TestAccessDenied(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"oidc", "web token", "saml", "roles anywhere"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := sources()[name]
			p := x.make(t)
			p.aws.AddRole(fakeaws.RoleSpec{ARN: federatedARN, Trust: []fakeaws.Trust{}})
			var in []byte
			if x.stdin != nil {
				in = x.stdin(p)
			}
			r := p.do(in, append([]string{"login", "p"}, x.login...)...)
			p.refusal(r, 1, federatedARN, "hint: ")
			if strings.Contains(r.err, "in vain") || !strings.Contains(r.err, "trust") {
				t.Errorf("it does not say what to look at: %q", r.err)
			}
		})
	}
}

// TestPeopleHoldNobodyUp: many people who think, and many programs of others
// that hang, are in nobody's way who needs neither.
func TestPeopleHoldNobodyUp(t *testing.T) {
	t.Parallel()
	const many = 40
	p := newPerson(t, "")
	p.aws.AddOIDC(fakeaws.OIDCSpec{})
	p.aws.SetSignIn(fakeaws.SignInOIDC, fakeaws.SignInWait)
	var config strings.Builder
	for i := range many {
		role := p.aws.AddRole(fakeaws.RoleSpec{Name: fmt.Sprint("r", i), Trust: []fakeaws.Trust{{Federated: []string{"*"}}}})
		fmt.Fprintf(&config, "[profile think%d]\nregion = eu-west-1\nrole_arn = %s\noidc_issuer = %s/oidc/idp\noidc_client_id = client%d\n", i, role, p.url, i)
		fmt.Fprintf(&config, "[profile hang%d]\nregion = eu-west-1\ncredential_process = exec sleep 30.%03d\n", i, i)
	}
	p.add(config.String())
	p.addKeys("base")
	p.browser("exit 0") // the page waits for its person
	p.env["KEYFOB_SIGNIN_TIMEOUT"] = "60s"
	var waiting sync.WaitGroup
	begun := time.Now()
	stop := make(chan struct{})
	for i := range many {
		for _, name := range []string{"think", "hang"} {
			waiting.Go(func() {
				cmd := p.command(p.keyfob(), "login", fmt.Sprint(name, i))
				if err := cmd.Start(); err != nil {
					t.Error(err)
					return
				}
				<-stop
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
		}
	}
	defer waiting.Wait()
	defer close(stop)
	for end := time.Now().Add(15 * time.Second); p.tabs() < many && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond) // until all of them think
	}
	if n := p.tabs(); n != many {
		t.Errorf("%d of %d people are at their pages", n, many)
	}
	asked := time.Now()
	p.uses("deploy", "deploy") // two links, cold
	took := time.Since(asked)
	if time.Since(begun) > 29*time.Second {
		t.Skip("the machine is too slow: the programs may have ended")
	}
	t.Logf("two cold links took %v while %d people think and %d programs hang", took, many, many)
	if i := p.status().Interactions; len(i) != many {
		t.Errorf("%d people are waited for", len(i))
	}
}

// TestWhoIsWho: what AWS's log shows names the person, and whoami says who
// somebody is and what is wrong with the keys.
func TestWhoIsWho(t *testing.T) {
	t.Parallel()
	p := newPerson(t, "")
	me, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	p.aws.AddRole(fakeaws.RoleSpec{ARN: secondARN})
	p.aws.SetClock(-200 * 24 * time.Hour)
	id, secret := p.aws.AddUser(fakeaws.UserSpec{Name: "old"})
	p.aws.SetClock(0)
	p.secrets.note("secretAccessKey", secret)
	p.add("[profile old]\nregion = eu-west-1\n\n[profile named]\nregion = eu-west-1\nrole_arn = " + secondARN + "\nsource_profile = old\nsource_identity = old.person\n" +
		"\n[profile chosen]\nregion = eu-west-1\nrole_arn = " + secondARN + "\nsource_profile = old\nrole_session_name = the-name\n")
	p.good([]byte(fmt.Sprintf(`{"AccessKeyId":%q,"SecretAccessKey":%q}`, id, secret)), "add", "old")
	d := p.uses("named", "second")
	if s, _ := p.aws.Session(d.AccessKeyId); s.SourceIdentity != "old.person" || !strings.Contains(s.ARN, "/keyfob-"+me.Username) {
		t.Errorf("AWS's log shows %s, source identity %s", s.ARN, s.SourceIdentity)
	}
	if s, _ := p.aws.Session(p.uses("chosen", "second").AccessKeyId); !strings.HasSuffix(s.ARN, "/the-name") {
		t.Errorf("AWS's log shows %s", s.ARN)
	}
	var who struct {
		ARN      string `json:"arn"`
		Warnings []string
	}
	r := p.good(nil, "whoami", "named", "--json")
	if err := json.Unmarshal([]byte(r.out), &who); err != nil || !strings.Contains(who.ARN, "assumed-role/second/keyfob-") {
		t.Errorf("%s %v", r.out, err)
	}
	said := strings.Join(who.Warnings, "\n")
	for _, part := range []string{"is 200 days old", "keyfob rotate old", "no MFA device"} {
		if !strings.Contains(said, part) {
			t.Errorf("%q is not in %q", part, said)
		}
	}
	root, rootSecret := p.aws.AddUser(fakeaws.UserSpec{Root: true})
	p.secrets.note("secretAccessKey", rootSecret)
	p.bad(p.do([]byte(fmt.Sprintf(`{"AccessKeyId":%q,"SecretAccessKey":%q}`, root, rootSecret)), "add", "base"), 1, "root", "hint: ")
}
