package fakeawstest

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
)

// Browser fetches pages as a person's browser does, without JavaScript: it
// follows redirects and keeps cookies.
type Browser struct {
	t      testing.TB
	client *http.Client
}

// Page is where a browser ended.
type Page struct {
	Status int
	URL    *url.URL
	Body   string
	// Location is the redirect that was not followed: to another place than
	// the server that was asked.
	Location string
}

// NewBrowser makes a browser that follows redirects within one server. One
// to elsewhere (a loopback listener) is followed as well if abroad says so.
func NewBrowser(t testing.TB, abroad bool) *Browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &Browser{t: t, client: &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}}
	b.client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if !abroad && r.URL.Host != via[0].URL.Host || len(via) > 10 {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return b
}

// Open fetches a page.
func (b *Browser) Open(address string) Page {
	b.t.Helper()
	resp, err := b.client.Get(address)
	return b.read(resp, err)
}

// Post sends a form.
func (b *Browser) Post(address string, fields ...string) Page {
	b.t.Helper()
	v := url.Values{}
	for i := 0; i+1 < len(fields); i += 2 {
		v.Set(fields[i], fields[i+1])
	}
	resp, err := b.client.Post(address, "application/x-www-form-urlencoded", strings.NewReader(v.Encode()))
	return b.read(resp, err)
}

func (b *Browser) read(resp *http.Response, err error) Page {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return Page{resp.StatusCode, resp.Request.URL, string(body), resp.Header.Get("Location")}
}
