package oidc

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/profiles"
)

// fileLink is a web-identity link whose token file is path.
func (w *world) fileLink(path string, kv ...string) profiles.Link {
	l := w.link(kv...)
	l.Kind = profiles.KindWebIdentity
	l.Params["web_identity_token_file"] = path
	return l
}

func (w *world) write(path, text string) {
	w.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) idToken(subject string) string {
	w.t.Helper()
	token, err := w.aws.IDToken(w.base, "idp", subject)
	if err != nil {
		w.t.Fatal(err)
	}
	w.canaries.add(token)
	return token
}

// TestTokenFile: read anew each time, white space at its end dropped.
func TestTokenFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	path := filepath.Join(t.TempDir(), "token")
	w.write(path, w.idToken("pod")+" \r\n\n")
	policy := filepath.Join(t.TempDir(), "policy.json")
	w.write(policy, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`)
	link := w.fileLink(path, "duration_seconds", "7200", "session_policy", policy, "session_policy_arns", "arn:aws:iam::aws:policy/ReadOnlyAccess")
	src := w.source(link)
	if src.Interactive() {
		t.Error("it is interactive")
	}
	c, err := w.fetchWith(link, cred.Input{})
	if err != nil {
		t.Fatal(err)
	}
	s, _ := w.aws.Session(c.AccessKeyID)
	if !strings.HasSuffix(s.ARN, "assumed-role/federated/keyfob-tester") || !strings.Contains(s.Policy, "s3:*") || len(s.PolicyARNs) != 1 {
		t.Errorf("session %+v", s)
	}
	if left := time.Until(c.Expires); left < 119*time.Minute || left > 2*time.Hour {
		t.Errorf("it lasts %v", left)
	}
	w.write(path, w.idToken("other"))
	link.Params["role_session_name"] = "chosen"
	if c, err = w.fetchWith(link, cred.Input{}); err != nil {
		t.Fatal(err)
	}
	if s, _ := w.aws.Session(c.AccessKeyID); !strings.HasSuffix(s.ARN, "/chosen") {
		t.Errorf("session %+v", s)
	}
	w.write(policy, `{"Version":`)
	_, err = w.fetchWith(link, cred.Input{})
	wants(t, err, policy, "not JSON")
}

// TestTokenFileFaults: what is wrong with the file, in words, before any call.
func TestTokenFileFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	for name, x := range map[string]struct{ text, want string }{
		"empty":   {"", "is empty"},
		"white":   {" \n\t\r\n", "is empty"},
		"short":   {"abc\n", "holds no token"},
		"long":    {strings.Repeat("a", 20001), "more than the 20000 characters"},
		"huge":    {strings.Repeat("\n", 1<<20), "more than the 20000 characters"},
		"two":     {"aaaa.bbbb.cccc dddd", "characters in it that no token has"},
		"bom":     {"\ufeffaaaa.bbbb.cccc", "characters in it that no token has"},
		"utf-16":  {"a\x00a\x00.\x00b\x00", "characters in it that no token has"},
		"newline": {"aaaa.bbbb\n.cccc", "characters in it that no token has"},
	} {
		w.write(path, x.text)
		_, err := w.fetchWith(w.fileLink(path), cred.Input{})
		wants(t, err, x.want, path, "profile dev")
		if !errors.Is(err, cred.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := w.fetchWith(w.fileLink(filepath.Join(dir, "none")), cred.Input{})
	wants(t, err, "does not exist", "AWS_WEB_IDENTITY_TOKEN_FILE")
	_, err = w.fetchWith(w.fileLink(dir), cred.Input{})
	wants(t, err, "is no regular file")
	if os.Getuid() > 0 && runtime.GOOS != "windows" {
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		_, err = w.fetchWith(w.fileLink(path), cred.Input{})
		wants(t, err, "cannot be read: permission denied")
	}
	if w.aws.Count("*") != 0 {
		t.Error("AWS was called")
	}
	_, err = New(w.fileLink(""), w.deps)
	wants(t, err, "web_identity_token_file is missing")
}

// TestRefusals: AWS's refusals name issuer and audience; what may pass is
// tried again.
func TestRefusals(t *testing.T) {
	t.Parallel()
	path := func(w *world) string { return filepath.Join(w.t.TempDir(), "token") }
	for name, x := range map[string]struct {
		spec    fakeaws.OIDCSpec
		fault   *fakeaws.Fault
		role    fakeaws.RoleSpec
		kv      []string
		refused bool
		want    []string
	}{
		"audience":  {spec: fakeaws.OIDCSpec{Wrong: "aud"}, refused: true, want: []string{"AWS does not accept the token in", "audience somebody-else", "/oidc/idp", "Incorrect token audience", "identity provider in IAM"}},
		"issuer":    {spec: fakeaws.OIDCSpec{Wrong: "iss"}, refused: true, want: []string{"issuer https://elsewhere.example.com", "audience keyfob"}},
		"signature": {spec: fakeaws.OIDCSpec{Wrong: "signature"}, refused: true, want: []string{"AWS does not accept", "/oidc/idp"}},
		"expired":   {spec: fakeaws.OIDCSpec{Wrong: "expired"}, refused: true, want: []string{"expired at 20", "must renew it"}},
		"rejected":  {fault: &fakeaws.Fault{Kind: fakeaws.Error, Status: 403, Code: "IDPRejectedClaim", Message: "revoked"}, refused: true, want: []string{"rejected the token in", "audience keyfob", "/oidc/idp", "revoked"}},
		"no way":    {fault: &fakeaws.Fault{Kind: fakeaws.Error, Status: 400, Code: "IDPCommunicationError", Message: "timeout"}, want: []string{"AWS cannot reach the identity provider", "audience keyfob", "tries again"}},
		"trust": {role: fakeaws.RoleSpec{Name: "picky", Trust: []fakeaws.Trust{{Federated: []string{"arn:aws:iam::*:oidc-provider/*"}, Subjects: []string{"bob"}}}},
			refused: true, want: []string{"AWS denies it to the bearer of the token", "audience keyfob", "trust policy", "subject alice"}},
		"duration": {kv: []string{"duration_seconds", "43200"}, role: fakeaws.RoleSpec{Name: "short"}, refused: true, want: []string{"maximum session duration is less than the 43200 s"}},
		"throttle": {fault: &fakeaws.Fault{Kind: fakeaws.Throttle}, want: []string{"limits the rate"}},
		"page":     {fault: &fakeaws.Fault{Kind: fakeaws.Garbage}, want: []string{"web page"}},
		"drop":     {fault: &fakeaws.Fault{Kind: fakeaws.Drop}, want: []string{"closed the connection"}},
		"account":  {fault: &fakeaws.Fault{Kind: fakeaws.WrongAccount}, want: []string{"another account"}},
		"past":     {fault: &fakeaws.Fault{Kind: fakeaws.PastExpiry}, want: []string{"ended at"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, x.spec)
			if x.fault != nil {
				w.aws.SetFaults(*x.fault)
			}
			if x.role.Name != "" {
				x.kv = append(x.kv, "role_arn", w.aws.AddRole(x.role))
			}
			p := path(w)
			w.write(p, w.idToken("alice"))
			_, err := w.fetchWith(w.fileLink(p, x.kv...), cred.Input{})
			wants(t, err, append(x.want, "cannot assume role arn:")...)
			if up := upstreamError(t, err); up.Refused != x.refused || errors.Is(err, cred.ErrUnavailable) == x.refused {
				t.Errorf("Refused = %v: %v", up.Refused, err)
			}
		})
	}
}

// TestSkew: AWS's clock is told, and named in a failure.
func TestSkew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeaws.OIDCSpec{})
	var skew time.Duration
	w.deps.Skew = func(d time.Duration) { skew = d }
	p := filepath.Join(t.TempDir(), "token")
	w.write(p, w.idToken("alice"))
	w.aws.SetClock(3 * time.Hour)
	_, err := w.fetchWith(w.fileLink(p), cred.Input{})
	wants(t, err, "expired at", "the clock of this machine is 3h0m0s behind AWS's")
	if skew < 179*time.Minute || upstreamError(t, err).Skew != skew {
		t.Errorf("skew %v", skew)
	}
}

// FuzzPeek: whatever a file holds, reading its claims does no harm.
func FuzzPeek(f *testing.F) {
	f.Add("a.b.c")
	f.Add("e30." + b64([]byte(`{"iss":"x","aud":["a",1],"exp":1e300,"sub":"s"}`)) + ".c")
	f.Fuzz(func(t *testing.T, s string) {
		c, _ := peek(s)
		if text := c.forPeople(); strings.ContainsAny(text, "\n\x1b") {
			t.Errorf("%q", text)
		}
	})
}

// FuzzSessionName: whatever a person is called, AWS takes the name.
func FuzzSessionName(f *testing.F) {
	f.Add("alice@example.com")
	f.Add("Ä")
	f.Fuzz(func(t *testing.T, s string) {
		a := &assume{d: Deps{User: "x"}}
		if name := a.sessionName(s); !legalName(name) {
			t.Errorf("%q", name)
		}
	})
}
