//go:build linux

package e2e

import (
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// TestConsole: the console of each partition, by the role's ARN: printed,
// and signed in by whoever opens it; a user's by a federation token; the link
// to switch roles; what can't be one is refused.
func TestConsole(t *testing.T) {
	t.Parallel()
	p := newPerson(t, "")
	delete(p.env, "AWS_REGION")
	p.env["KEYFOB_FEDERATION_ENDPOINT"] = p.url + "/federation"
	p.addKeys("base")
	for _, x := range []struct{ partition, region, host string }{
		{"aws", "eu-west-1", "console.aws.amazon.com"},
		{"aws-cn", "cn-north-1", "console.amazonaws.cn"},
		{"aws-us-gov", "us-gov-west-1", "console.amazonaws-us-gov.com"},
		{"aws-iso", "us-iso-east-1", "console.c2shome.ic.gov"},
		{"aws-iso-b", "us-isob-east-1", "console.sc2shome.sgov.gov"},
		{"aws-iso-e", "eu-isoe-west-1", "console.csphome.adc-e.uk"},
		{"aws-iso-f", "us-isof-south-1", "console.csphome.hci.ic.gov"},
	} {
		arn := p.aws.AddRole(fakeaws.RoleSpec{Partition: x.partition, Name: "viewer"})
		name := "view-" + x.partition
		p.add("[profile " + name + "]\nregion = " + x.region + "\nrole_arn = " + arn + "\nsource_profile = base\n")
		r := p.good(nil, "console", name, "--print", "--service", "s3")
		u, err := url.Parse(strings.TrimSpace(r.out))
		if err != nil || u.Query().Get("Action") != "login" || u.Query().Get("SigninToken") == "" {
			t.Fatalf("%s: %q %v", name, r.out, err)
		}
		p.secrets.note("token", u.Query().Get("SigninToken"))
		if to := u.Query().Get("Destination"); to != "https://"+x.host+"/s3/home?region="+x.region {
			t.Errorf("%s leads to %s", name, to)
		}
		if strings.Contains(r.err, u.Query().Get("SigninToken")) {
			t.Error("the address is shown where nobody asked for it")
		}
		if link := p.good(nil, "console", name, "--switch-role", "--print").out; !strings.Contains(link, "/switchrole?account=111122223333") || !strings.Contains(link, "roleName=viewer") {
			t.Errorf("%s: the link to switch roles is %q", name, link)
		}
		if strings.HasPrefix(x.partition, "aws-iso") {
			continue // the fake has no console of those
		}
		page := fakeawstest.NewBrowser(t, false).Open(strings.TrimSpace(r.out))
		if to := page.Location + page.Body; !strings.Contains(to, x.host) && !strings.Contains(to, "viewer") {
			t.Errorf("%s: %d %s", name, page.Status, to)
		}
	}
	if n := p.aws.Count("ConsoleLogin"); n != 3 {
		t.Errorf("%d sign-ins to the console", n)
	}
	p.bad(p.do(nil, "console", "view-aws", "--print", "--region", "us-iso-east-1"), 2, "partition", "hint: ")
	p.bad(p.do(nil, "console", "view-aws", "--print", "--service", "../iam"), 2, "../iam")

	// A user's keys make a federation token, and the browser is opened.
	p.browser(lastLine(p.file(p.path("browser"))))
	p.good(nil, "console", "base", "--region", "eu-west-1")
	for end := time.Now().Add(5 * time.Second); p.aws.Count("ConsoleLogin") < 4 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond) // nobody waits for the browser
	}
	if p.aws.Count("GetFederationToken") != 1 || p.aws.Count("ConsoleLogin") != 4 {
		t.Errorf("%v", p.aws.Counters())
	}
	p.wantTabs(0, 1, "the console")
}

// TestOpenStandardInput: a standard input that stays open and silent keeps
// nobody beyond the time limit of the sign-in.
func TestOpenStandardInput(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		source string
		args   []string
	}{
		"login --remote": {"login", []string{"--remote"}},
		"login --device": {"login", []string{"--device"}},
		"sso --device":   {"sso", []string{"--device"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := sources()[x.source].make(t)
			p.aws.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInClick)
			p.env["KEYFOB_SIGNIN_TIMEOUT"] = "2s"
			p.run(nil, "status") // the daemon runs
			cmd := p.command(p.keyfob(), append([]string{"login", "p"}, x.args...)...)
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer write.Close()
			cmd.Stdin = read
			begun := time.Now()
			done := make(chan result, 1)
			go func() { done <- p.finish(cmd) }()
			select {
			case r := <-done:
				p.refusal(r, 3, "hint: ")
			case <-time.After(8 * time.Second):
				t.Errorf("it still runs after %v", time.Since(begun))
				_ = write.Close()
				p.said = append(p.said, (<-done).err)
			}
			_ = read.Close()
		})
	}
}
