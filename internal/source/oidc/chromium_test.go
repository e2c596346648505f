package oidc

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
)

// TestChromium: a real browser, the provider's page, a click on the button,
// and the page that says that it is done; then the other button.
func TestChromium(t *testing.T) {
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("there is no Chromium on the PATH")
	}
	home := t.TempDir()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(home), chromedp.Env("HOME="+home), chromedp.NoSandbox,
		chromedp.Flag("no-proxy-server", true))
	timeout, end := context.WithTimeout(context.Background(), time.Minute)
	defer end()
	alloc, quit := chromedp.NewExecAllocator(timeout, options...)
	defer quit()
	browser, closeIt := chromedp.NewContext(alloc)
	defer func() {
		if err := chromedp.Cancel(browser); err != nil && timeout.Err() == nil {
			t.Log(err)
		}
		closeIt()
		_ = os.RemoveAll(home)
	}()
	if err := chromedp.Run(browser); err != nil {
		t.Fatal(err)
	}

	w := newWorld(t, fakeaws.OIDCSpec{})
	w.aws.SetSignIn(fakeaws.SignInOIDC, fakeaws.SignInClick)
	press := func(button string) func(context.Context, cred.Question) (cred.Secret, error) {
		return func(ctx context.Context, q cred.Question) (cred.Secret, error) {
			tab, closeTab := chromedp.NewContext(browser)
			defer closeTab()
			var text string
			err := chromedp.Run(tab, chromedp.Navigate(q.URL), chromedp.WaitVisible("#what"), chromedp.Click(button), chromedp.WaitNotPresent("#what"),
				chromedp.Text("body", &text))
			if err != nil || strings.Contains(text, "state=") {
				t.Errorf("the page says %q: %v", text, err)
			}
			t.Logf("the page says %q", text)
			<-ctx.Done()
			return cred.Secret{}, ctx.Err()
		}
	}
	w.ask.does = press("#deny")
	_, err := w.fetch()
	wants(t, err, "refused in the browser")
	w.ask.does = press("#allow")
	w.must()
}
