package awsclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// SkewLimit is how far two clocks may differ before anybody is told
// (CONTRACT.md §8).
const SkewLimit = time.Minute

// Seen is what was seen of the HTTP exchange of one call; the facts of the
// last request count. It is safe for concurrent use.
type Seen struct {
	mu sync.Mutex // guards f
	f  Facts
}

// Facts are what a Seen has recorded.
type Facts struct {
	Requests int    // HTTP requests that were sent or tried
	Host     string // of the last request, with its port if any
	Proxy    string // host of the proxy it went through, "" for none
	Status   int    // HTTP status, 0 when there was no answer
	Redirect string // host of Location, "" for none
	HTML     bool   // the answer is a web page
	// DateKnown: the answer's Date can be trusted (verified TLS, or an
	// endpoint that the settings name), and Skew says something.
	DateKnown bool
	// Skew is the upstream's clock minus ours, 0 within SkewLimit; without
	// DateKnown that of an earlier answer.
	Skew time.Duration
	// RetryAfter is how long the answer says to wait before the next call, 0
	// where it does not (RFC 9110 §10.2.3; in seconds, as AWS's services have
	// it).
	RetryAfter time.Duration
}

// Facts returns a copy.
func (s *Seen) Facts() Facts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.f
}

func (s *Seen) update(fn func(*Facts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(&s.f)
}

// recorder is the RoundTripper of one client: it fills Seen, keeps the clock
// offset, and bounds the answer's body.
type recorder struct {
	next       http.RoundTripper
	pool       *Pool
	seen       *Seen
	configured bool // the endpoint is one that the settings name
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	f := Facts{Host: req.URL.Host}
	if proxy, err := r.pool.proxy(req.URL); err == nil && proxy != nil {
		f.Proxy = proxy.Host
	}
	r.seen.update(func(x *Facts) { f.Requests = x.Requests + 1; *x = f })
	resp, err := r.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	f.Status = resp.StatusCode
	if loc, err := resp.Location(); err == nil {
		f.Redirect = loc.Host
	}
	f.Skew = r.pool.Skew(req.URL.Host)
	f.HTML = strings.HasPrefix(strings.ToLower(resp.Header.Get("Content-Type")), "text/html")
	if r.configured || resp.TLS != nil && len(resp.TLS.VerifiedChains) > 0 {
		if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			f.DateKnown, f.Skew = true, 0
			// Date has whole seconds: half of one is its mean error.
			if d := time.Until(date.Add(500 * time.Millisecond)).Round(time.Second); d > SkewLimit || d < -SkewLimit {
				f.Skew = d
			}
			r.pool.setSkew(req.URL.Host, f.Skew)
		}
	}
	if n, err := strconv.Atoi(strings.TrimSpace(resp.Header.Get("Retry-After"))); err == nil && n > 0 {
		f.RetryAfter = time.Duration(min(n, maxRetryAfter)) * time.Second
	}
	r.seen.update(func(x *Facts) { *x = f })
	resp.Body = &boundedBody{body: resp.Body, left: maxBody, seen: r.seen}
	return resp, nil
}

// maxRetryAfter is the longest pause in seconds that is believed.
const maxRetryAfter = 3600

// errTooLong is an answer of more than maxBody bytes.
var errTooLong = errors.New("the answer is longer than 1 MiB")

// boundedBody passes on at most left bytes and looks at the first ones.
type boundedBody struct {
	body io.ReadCloser
	left int
	read bool
	seen *Seen
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	if len(p) > b.left {
		p = p[:b.left]
	}
	n, err := b.body.Read(p)
	b.left -= n
	if n > 0 && !b.read {
		b.read = true
		if looksLikeHTML(p[:n]) {
			b.seen.update(func(f *Facts) { f.HTML = true })
		}
	}
	return n, err
}

func (b *boundedBody) Close() error { return b.body.Close() }

func looksLikeHTML(start []byte) bool {
	start = bytes.ToLower(bytes.TrimLeft(start[:min(len(start), 64)], " \t\r\n\ufeff"))
	return bytes.HasPrefix(start, []byte("<!doctype html")) || bytes.HasPrefix(start, []byte("<html"))
}

// proxyError is a proxy's answer to CONNECT other than 200.
type proxyError struct {
	proxy  string // its host: the URL may hold a password
	status int
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy %s answered %d %s", e.proxy, e.status, http.StatusText(e.status))
}

func onProxyConnect(_ context.Context, proxy *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode != http.StatusOK {
		return &proxyError{proxy: proxy.Host, status: answer.StatusCode}
	}
	return nil
}
