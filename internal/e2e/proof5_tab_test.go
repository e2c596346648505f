//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"keyfob/internal/fakeaws"
)

// TestHundredCallersOneChromium: a hundred programs of one terminal, of two
// profiles of one sign-in, in a real browser: one tab, and the page's button
// is pressed there once.
func TestHundredCallersOneChromium(t *testing.T) {
	t.Parallel()
	const callers = 100
	for name, x := range map[string]struct {
		profiles, roles [2]string
		page            string // what a sign-in calls once
		make            func(t *testing.T) *person
	}{
		"sso": {[2]string{"dev", "reader"}, [2]string{"Developer", "ReadOnly"}, "Authorize", newEmployee},
		"oidc": {[2]string{"base0", "base1"}, [2]string{"federated", "second"}, "OIDCAuthorize", func(t *testing.T) *person {
			p := newFederated(t, oidcConfig+strings.NewReplacer("base0", "base1", federatedARN, secondARN).Replace(oidcConfig))
			p.aws.AddOIDC(fakeaws.OIDCSpec{})
			return p
		}},
		"login": {[2]string{"me", "too"}, [2]string{"alice", "alice"}, "SigninAuthorize", func(t *testing.T) *person {
			return newPerson(t, "[profile me]\nregion = eu-west-1\nlogin_session = "+aliceARN+"\n\n[profile too]\nregion = eu-west-1\nlogin_session = "+aliceARN+"\n")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := x.make(t)
			p.chromium()
			p.run(nil, "status") // the daemon runs
			c := newConsole(t)
			script := fmt.Sprintf(`i=0; while [ $i -lt %d ]; do p=%s; [ $((i %% 2)) = 0 ] && p=%s
				keyfob credential-process --profile $p >out.$i 2>err.$i & i=$((i+1)); done; wait`, callers, x.profiles[0], x.profiles[1])
			if r := c.run(p.command("sh", "-c", script))(); r.code != 0 {
				t.Fatalf("%+v", r)
			}
			for i := range callers {
				e := p.file(p.path(fmt.Sprint("err.", i)))
				p.said = append(p.said, e)
				d := p.parse(result{out: p.file(p.path(fmt.Sprint("out.", i)))})
				p.belongs(d, x.roles[(i+1)%2])
				if e != "" {
					t.Errorf("caller %d: %q", i, e)
				}
			}
			p.wantTabs(0, 1, "a hundred programs")
			if n := p.aws.Count(x.page); n != 1 {
				t.Errorf("%d pages, of %v", n, p.aws.Counters())
			}
		})
	}
}
