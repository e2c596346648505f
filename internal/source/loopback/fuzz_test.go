package loopback

import (
	"bufio"
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzRequests: no request ends a wait but a GET of the path, at our host,
// with the one right state; and no page repeats anything of a request.
func FuzzRequests(f *testing.F) {
	const host = "127.0.0.1:4711"
	for _, s := range []string{
		"GET /oauth/callback?code=x&state=" + state + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"GET /oauth/callback?error=access_denied&state=" + state + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"GET /oauth/callback?error=%00&error_description=%ff&state=" + state + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"GET http://" + host + "/oauth/callback?code=x&state=" + state + " HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /oauth/callback HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 3\r\n\r\na=b",
		"GET /oauth/%63allback?code=x&state=" + state + "&state=y HTTP/1.0\r\n\r\n",
		"CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return
		}
		w := &waiter{host: host, state: sha256.Sum256([]byte(state)), came: make(chan struct{})}
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		ended := false
		select {
		case <-w.came:
			ended = true
		default:
		}
		switch rec.Code {
		case 200:
			if !ended {
				t.Errorf("200 without an answer: %q", raw)
			}
		case 400, 404, 405:
			if ended {
				t.Errorf("%d, and the wait ended: %q", rec.Code, raw)
			}
		default:
			t.Errorf("%d for %q", rec.Code, raw)
		}
		switch body := rec.Body.String(); body {
		default:
			t.Errorf("the page %q for %q", body, raw)
		case text(donePage), text(deniedPage), text(failedPage), text(refusedPage):
		}
		if !ended {
			return
		}
		q, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil || r.Method != "GET" || r.Host != host || r.URL.Path != Path || len(q["state"]) != 1 || q["state"][0] != state {
			t.Errorf("%q ended the wait", raw)
		}
		if (w.err == nil) != (w.values.Get("code") != "") || w.err != nil && strings.ContainsAny(w.err.Error(), "\x00\x1b\r\n") {
			t.Errorf("%v, %q for %q", w.values, w.err, raw)
		}
		// A second one is late, whatever it says.
		rec = httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		if rec.Code != 410 {
			t.Errorf("the second of %q: %d", raw, rec.Code)
		}
	})
}

func text(words string) string {
	rec := httptest.NewRecorder()
	page(rec, 200, words)
	return rec.Body.String()
}
