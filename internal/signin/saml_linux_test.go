package signin

import (
	"testing"

	"github.com/chromedp/chromedp"

	"keyfob/internal/fakeaws"
)

func TestSAMLSignInByForm(t *testing.T) {
	p := newPerson(t)
	aws, url := provider(t, fakeaws.SignInForm, nil)
	page := url + "/saml/idp/idp"
	v := p.start(p.request(page, url+"/saml", withPort))
	p.hands(page, chromedp.SendKeys("#username", "bob"), chromedp.SendKeys("#password", fakeaws.SignInPassword), chromedp.Click("#submit"))
	first := v.end()
	first.assertion(t)
	t.Log(first.took)
	// Without a window, and without the person: the cookie is enough.
	r := p.signIn(p.request(page, url+"/saml", func(q *samlRequest) { q.Headless = false }))
	r.assertion(t)
	t.Log(r.took, aws.Counters())
}
