package metadata

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

func imdsLink(kv ...string) profiles.Link { return linkOf(profiles.KindIMDS, kv...) }

func linkOf(kind profiles.Kind, kv ...string) profiles.Link {
	l := profiles.Link{Kind: kind, Profile: "dev", Params: map[string]string{}}
	for i := 0; i < len(kv); i += 2 {
		l.Params[kv[i]] = kv[i+1]
	}
	return l
}

func fetch(t *testing.T, l profiles.Link, d Deps) (cred.Credentials, error) {
	t.Helper()
	s, err := New(l, d)
	if err != nil {
		return cred.Credentials{}, err
	}
	if s.Interactive() {
		t.Error("it needs a person")
	}
	return fetchFrom(t, s)
}

const canary = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYCANARYSECRET"

func fetchFrom(t *testing.T, s cred.Source) (cred.Credentials, error) {
	t.Helper()
	c, err := s.Fetch(t.Context(), cred.Input{Profile: "dev"})
	for e := err; e != nil; e = errors.Unwrap(e) {
		if seen := e.Error() + cred.HintOf(e); strings.Contains(seen, canary) {
			t.Errorf("a secret is shown in %q", seen)
		}
	}
	if err != nil && !c.SecretAccessKey.IsZero() {
		t.Error("credentials come with an error")
	}
	return c, err
}

// fails wants an UpstreamError with these words.
func fails(t *testing.T, err error, refused bool, parts ...string) *cred.UpstreamError {
	t.Helper()
	var u *cred.UpstreamError
	if !errors.As(err, &u) {
		t.Fatalf("%T %v", err, err)
	}
	if u.Refused != refused {
		t.Errorf("refused is %v: %v", u.Refused, err)
	}
	if m := u.Error(); !strings.HasPrefix(m, "cannot get credentials for profile dev from ") || strings.ContainsAny(m, "\n\r") || strings.HasSuffix(m, ".") {
		t.Errorf("%q is not a line of ours", m)
	}
	for _, p := range parts {
		if !strings.Contains(u.Message+"\n"+u.Help, p) {
			t.Errorf("%q is missing in %q, hint %q", p, u.Message, u.Help)
		}
	}
	return u
}

func configError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if !errors.Is(err, cred.ErrConfig) {
		t.Errorf("%v", err)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q is missing in %q", p, err)
		}
	}
}

// odd is a service whose answers a test writes.
type odd struct {
	*httptest.Server
	mu       sync.Mutex // guards answers and seen
	answers  map[string]oddAnswer
	requests []string
}

type oddAnswer struct {
	status int
	body   string
	wait   bool // until the client leaves
	header map[string]string
}

func newOdd(t *testing.T, answers map[string]oddAnswer) *odd {
	t.Helper()
	o := &odd{answers: answers}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		a, ok := o.answers[r.Method+" "+r.RequestURI]
		o.requests = append(o.requests, r.Method+" "+r.RequestURI+" "+r.Header.Get("Authorization"))
		o.mu.Unlock()
		if !ok {
			a.status = http.StatusNotFound
		}
		if a.wait {
			<-r.Context().Done()
			return
		}
		for k, v := range a.header {
			w.Header().Set(k, v)
		}
		if a.status != 0 {
			w.WriteHeader(a.status)
		}
		_, _ = io.WriteString(w, a.body)
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *odd) seen() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.requests
}

func timeoutContext(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}
