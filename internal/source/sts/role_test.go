package sts

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/profiles"
)

func TestAssumeRole(t *testing.T) {
	w := newWorld(t)
	arn := w.aws.AddRole(fakeaws.RoleSpec{Account: "222233334444", Path: "/team/", Name: "deploy", MaxSessionDuration: 7200,
		Trust: []fakeaws.Trust{{ExternalIDs: []string{"ext-1"}, SourceIdentities: []string{"alice"}, Tags: map[string]string{"team": "blue"}}}})
	file := filepath.Join(t.TempDir(), "policy.json")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\ufeff{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [{\"Effect\": \"Allow\", \"Action\": \"s3:*\", \"Resource\": \"*\"}]\n}\n")
	l := w.link(profiles.KindAssumeRole, "role_arn", arn, "external_id", "ext-1", "source_identity", "alice", "duration_seconds", "7200",
		"session_tags", "team=blue, cost = a=b,", "transitive_session_tags", "team", "session_policy", file,
		"session_policy_arns", "arn:aws:iam::aws:policy/ReadOnlyAccess, arn:aws:iam::aws:policy/job-function/Billing")
	c, err := w.fetch(t, l, w.base)
	if err != nil {
		t.Fatal(err)
	}
	left := time.Until(c.Expires)
	if !c.Temporary() || c.RoleARN != arn || c.AccountID != "222233334444" || left < 7190*time.Second || left > 7210*time.Second || c.Expires.Location() != time.UTC {
		t.Errorf("%+v, %v left", c, left)
	}
	calls := w.aws.Calls()
	if len(calls) != 1 {
		t.Fatalf("%d calls", len(calls))
	}
	p := calls[0].Params
	for k, v := range map[string]string{
		"RoleSessionName": "keyfob-tester", "Tags.member.1.Key": "team", "Tags.member.1.Value": "blue", "Tags.member.2.Key": "cost", "Tags.member.2.Value": "a=b",
		"TransitiveTagKeys.member.1": "team", "PolicyArns.member.1.arn": "arn:aws:iam::aws:policy/ReadOnlyAccess",
		"PolicyArns.member.2.arn": "arn:aws:iam::aws:policy/job-function/Billing",
		"Policy":                  `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`,
	} {
		if p[k] != v {
			t.Errorf("%s = %q, want %q", k, p[k], v)
		}
	}
	if calls[0].Region != "eu-west-1" {
		t.Errorf("signed for %s", calls[0].Region)
	}
	// The file is read at each fetch.
	write(`{"Version":"2012-10-17","Statement":[]}`)
	if _, err := w.fetch(t, l, w.base); err != nil {
		t.Fatal(err)
	}
	if got := w.aws.Calls()[1].Params["Policy"]; got != `{"Version":"2012-10-17","Statement":[]}` {
		t.Errorf("policy %q", got)
	}
}

// The policy of an endpoint, a grant, a command or a rule, as the broker's
// query puts it into the link.
func TestPolicyOfARequest(t *testing.T) {
	w := newWorld(t)
	arn := w.aws.AddRole(fakeaws.RoleSpec{Trust: []fakeaws.Trust{{}}})
	l := w.link(profiles.KindAssumeRole, "role_arn", arn, "session_policy_inline", "{ \"Version\": \"2012-10-17\",\n\"Statement\": [] }",
		"session_policy_arns", "arn:aws:iam::aws:policy/ReadOnlyAccess,arn:aws:iam::222233334444:policy/a,b")
	if _, err := w.fetch(t, l, w.base); err != nil {
		t.Fatal(err)
	}
	p := w.aws.Calls()[0].Params
	for k, v := range map[string]string{"Policy": `{"Version":"2012-10-17","Statement":[]}`,
		"PolicyArns.member.1.arn": "arn:aws:iam::aws:policy/ReadOnlyAccess", "PolicyArns.member.2.arn": "arn:aws:iam::222233334444:policy/a,b", "PolicyArns.member.3.arn": ""} {
		if p[k] != v {
			t.Errorf("%s = %q, want %q", k, p[k], v)
		}
	}
	for want, kv := range map[string][2]string{
		"has 2060 characters, and AWS allows 2048":                 {"session_policy_inline", `{"a":"` + strings.Repeat("x", 2052) + `"}`},
		"11 session policy ARNs, and AWS takes 10":                 {"session_policy_arns", strings.Repeat("arn:aws:iam::aws:policy/x,", 11)},
		"line 1 of the session policy is not JSON":                 {"session_policy_inline", "oops"},
		`"arn:aws:iam::1:role/x" is not the ARN of a managed poli`: {"session_policy_arns", "arn:aws:iam::1:role/x"},
	} {
		_, err := New(w.link(profiles.KindAssumeRole, "role_arn", arn, kv[0], kv[1]), w.deps)
		if !errors.Is(err, cred.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestNothingIsSentThatIsNotSet(t *testing.T) {
	w := newWorld(t)
	arn := w.aws.AddRole(fakeaws.RoleSpec{})
	if _, err := w.fetch(t, w.link(profiles.KindAssumeRole, "role_arn", arn, "role_session_name", "me@work"), w.base); err != nil {
		t.Fatal(err)
	}
	p := w.aws.Calls()[0].Params
	want := map[string]string{"Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": arn, "RoleSessionName": "me@work", "DurationSeconds": "3600"}
	for k, v := range p {
		if want[k] != v {
			t.Errorf("sent %s=%s", k, v)
		}
	}
	if len(p) != len(want) {
		t.Errorf("sent %v", p)
	}
}

func TestDefaultSessionName(t *testing.T) {
	for user, want := range map[string]string{
		"alice": "keyfob-alice", `CORP\bob`: "keyfob-bob", "": "keyfob", "zoë müller": "keyfob-zo--m-ller", "a:b/c": "keyfob-a-b-c",
		strings.Repeat("x", 100): "keyfob-" + strings.Repeat("x", 57),
	} {
		if got := defaultName(user); got != want || !legalName(got) {
			t.Errorf("%q: %q, want %q", user, got, want)
		}
	}
	s := &assumeRole{} // the user who runs this test
	if n := s.sessionName(); !legalName(n) || !strings.HasPrefix(n, "keyfob") {
		t.Errorf("%q", n)
	}
}

// TestRoleChaining: AWS refuses more than an hour above a role's session.
func TestRoleChaining(t *testing.T) {
	w := newWorld(t)
	first := w.aws.AddRole(fakeaws.RoleSpec{Name: "first", MaxSessionDuration: 43200})
	second := w.aws.AddRole(fakeaws.RoleSpec{Name: "second", MaxSessionDuration: 43200})
	base, err := w.fetch(t, w.link(profiles.KindAssumeRole, "role_arn", first, "duration_seconds", "43200"), w.base)
	if err != nil {
		t.Fatal(err)
	}
	if w.logs.Len() != 0 {
		t.Errorf("logged %s", w.logs)
	}
	s, err := New(w.link(profiles.KindAssumeRole, "role_arn", second, "duration_seconds", "43200"), w.deps)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c, err := s.Fetch(t.Context(), cred.Input{Profile: "dev", Base: base, Ask: w.asks})
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(c.Expires); left > time.Hour+time.Minute {
			t.Errorf("%v left", left)
		}
	}
	if n := strings.Count(w.logs.String(), "role chaining"); n != 1 || !strings.Contains(w.logs.String(), "duration_seconds=43200") {
		t.Errorf("%d warnings: %s", n, w.logs)
	}
	// AWS counts a session of GetSessionToken as well.
	session, err := w.fetch(t, w.link(profiles.KindSessionToken, "duration_seconds", "7200"), w.base)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = w.fetch(t, w.link(profiles.KindAssumeRole, "role_arn", second, "duration_seconds", "7200"), session); err != nil {
		t.Errorf("over a session: %v", err)
	}
}

func TestAssumeRoleWithMFA(t *testing.T) {
	w := newWorld(t)
	arn := w.aws.AddRole(fakeaws.RoleSpec{Trust: []fakeaws.Trust{{MFA: true}}})
	w.asks.codes = func(cred.Question) (string, error) { return w.aws.MFACode(serial), nil }
	l := w.link(profiles.KindAssumeRole, "role_arn", arn, "mfa_serial", serial)
	s, err := New(l, w.deps)
	if err != nil || !s.Interactive() {
		t.Fatalf("%v, %v", s, err)
	}
	if _, err := w.fetch(t, l, w.base); err != nil {
		t.Fatal(err)
	}
	delete(l.Params, "mfa_serial")
	if s, _ := New(l, w.deps); s.Interactive() {
		t.Error("interactive without a device")
	}
	_, err = w.fetch(t, l, w.base)
	refusedWith(t, err, "AccessDenied", "MFA (mfa_serial)")
}

func TestUnusableParameters(t *testing.T) {
	w := newWorld(t)
	arn := "arn:aws:iam::222233334444:role/r"
	for want, kv := range map[string][]string{
		"is not the ARN of a role":    {"role_arn", "deploy"},
		"is not the ARN of a role ":   {"role_arn", "arn:aws:iam::222233334444:user/u"},
		"no number of seconds":        {"role_arn", arn, "duration_seconds", "1h"},
		`"blue", which is not`:        {"role_arn", arn, "session_tags", "blue"},
		`"Team" twice`:                {"role_arn", arn, "session_tags", "team=a,Team=b"},
		`role_session_name = "a b" `:  {"role_arn", arn, "role_session_name", "a b"},
		`role_session_name = "\x00\n`: {"role_arn", arn, "role_session_name", "\x00\n"},
	} {
		_, err := New(w.link(profiles.KindAssumeRole, kv...), w.deps)
		if !errors.Is(err, cred.ErrConfig) || !strings.HasPrefix(err.Error(), "cannot use profile dev: ") || !strings.Contains(err.Error(), strings.TrimRight(want, " ")) {
			t.Errorf("%v: %v", kv, err)
		}
	}
	if _, err := New(w.link(profiles.KindSSO), w.deps); !errors.Is(err, cred.ErrConfig) {
		t.Errorf("sso: %v", err)
	}
}

func TestUnusablePolicyFiles(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	write := func(name, s string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "nosuch"):            "no such file",
		dir:                                     "not a regular file",
		write("bad", "{\n \"a\": 1,\n oops\n}"): "bad:3 is not JSON",
		write("long", `{"a":"`+strings.Repeat("x", 2048)+`"}`): "AWS allows 2048",
		write("huge", strings.Repeat(" ", 64<<10+1)+`{"a"`):    "longer than AWS allows",
	} {
		_, err := w.fetch(t, w.link(profiles.KindAssumeRole, "role_arn", "arn:aws:iam::222233334444:role/r", "session_policy", path), w.base)
		if !errors.Is(err, cred.ErrConfig) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n := len(w.aws.Calls()); n != 0 {
		t.Errorf("%d calls", n)
	}
}

func TestNoBase(t *testing.T) {
	w := newWorld(t)
	for _, kind := range []profiles.Kind{profiles.KindAssumeRole, profiles.KindSessionToken} {
		for _, base := range []cred.Credentials{{}, {AccessKeyID: "AKIAX"}} {
			if _, err := w.fetch(t, w.link(kind, "role_arn", "arn:aws:iam::222233334444:role/r"), base); !errors.Is(err, cred.ErrConfig) {
				t.Errorf("%s: %v", kind, err)
			}
		}
	}
}
