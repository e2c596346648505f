package sts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/profiles"
)

const anyRole = "arn:aws:iam::222233334444:role/deploy"

func TestRefusalsOfAWS(t *testing.T) {
	w := newWorld(t)
	arn := w.aws.AddRole(fakeaws.RoleSpec{Name: "closed", Trust: []fakeaws.Trust{}})
	short := w.aws.AddRole(fakeaws.RoleSpec{Name: "short"})
	role := func(kv ...string) profiles.Link {
		return w.link(profiles.KindAssumeRole, append([]string{"role_arn", arn}, kv...)...)
	}
	me := "arn:aws:iam::111122223333:user/alice"

	_, err := w.fetch(t, role(), w.base)
	e := refusedWith(t, err, "AccessDenied", "cannot assume role "+arn, me, "trust policy", "sts:AssumeRole", "MFA (mfa_serial)", "external_id")
	if !e.Refused || e.Status != 403 || e.Target != arn || e.Op != "AssumeRole" {
		t.Errorf("%+v", e)
	}
	_, err = w.fetch(t, role("role_arn", short, "duration_seconds", "7200"), w.base)
	refusedWith(t, err, "ValidationError", "maximum session duration is less than the 7200 s", "lower duration_seconds in profile dev")
	_, err = w.fetch(t, role("role_arn", short, "duration_seconds", "60"), w.base)
	refusedWith(t, err, "ValidationError", "takes no session of 60 s", "900 to 43200")

	other := w.base
	other.SecretAccessKey = cred.NewSecret("another-secret-canary")
	_, err = w.fetch(t, role(), other)
	refusedWith(t, err, "SignatureDoesNotMatch", "the secret access key is not that of "+w.base.AccessKeyID, "keyfob add dev")
	other = w.base
	other.AccessKeyID = "AKIAQAAAAAAAAAAAAAAA"
	_, err = w.fetch(t, w.link(profiles.KindSessionToken), other)
	refusedWith(t, err, "InvalidClientTokenId", "does not know the access key AKIAQAAAAAAAAAAAAAAA", "deleted or deactivated", "partition")

	session, err := w.fetch(t, w.link(profiles.KindSessionToken), w.base)
	if err != nil {
		t.Fatal(err)
	}
	w.aws.RevokeAll(fakeaws.RevokedExpired)
	_, err = w.fetch(t, role(), session)
	refusedWith(t, err, "ExpiredToken", "has ended", "keyfob login dev")
}

// TestWordsOfRefusals: what the fake does not say by itself.
func TestWordsOfRefusals(t *testing.T) {
	w := newWorld(t)
	for _, x := range []struct {
		code, message string
		refused       bool
		want          []string
	}{
		{"AccessDenied", "User: arn:aws:sts::1:assumed-role/a/b is not authorized to perform: sts:AssumeRole on resource: " + anyRole + " because no identity-based policy allows the sts:AssumeRole action",
			true, []string{"denies it to arn:aws:sts::1:assumed-role/a/b, because no identity-based policy allows the sts:AssumeRole action"}},
		{"AccessDenied", "User: arn:aws:iam::1:user/a is not authorized to perform: sts:AssumeRole on resource: r with an explicit deny in a service control policy",
			true, []string{"with an explicit deny in a service control policy"}},
		{"AccessDenied", "User: arn:aws:iam::1:user/a is not authorized to perform: sts:TagSession on resource: r", true, []string{"sts:TagSession is not allowed"}},
		{"AccessDenied", "", true, []string{"access key " + w.base.AccessKeyID}},
		{"RegionDisabledException", "STS is not activated in this region", true, []string{"not enabled in region eu-west-1", "another region"}},
		{"MalformedPolicyDocument", "Syntax errors in policy.", true, []string{"Syntax errors in policy", "correct the policy that"}},
		{"PackedPolicyTooLarge", "Packed size consumes 120% of allotted space.", true, []string{"consumes 120% of allotted space", "shorten"}},
		{"ExpiredTokenException", "gone", true, []string{"has ended"}},
		{"Throttling", "Rate exceeded", false, []string{"limits the rate"}},
		{"RequestLimitExceeded", "Rate exceeded", false, []string{"limits the rate"}},
		{"InternalFailure", "", false, []string{"error of its own"}},
		{"SomethingNew", "Nobody knows.", true, []string{"AWS answered SomethingNew: Nobody knows"}},
	} {
		status := 400
		if x.code == "InternalFailure" {
			status = 500
		}
		w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Error, Status: status, Code: x.code, Message: x.message})
		w.aws.ResetCalls()
		_, err := w.fetch(t, w.link(profiles.KindAssumeRole, "role_arn", anyRole), w.base)
		e := refusedWith(t, err, x.code, x.want...)
		if e.Refused != x.refused || e.Status != status || !strings.HasPrefix(e.Message, "cannot assume role "+anyRole+": ") {
			t.Errorf("%s: %+v", x.code, e)
		}
		if n := len(w.aws.Calls()); n != 1 {
			t.Errorf("%s: %d requests", x.code, n)
		}
	}
}

func TestBadAnswers(t *testing.T) {
	w := newWorld(t)
	arn := w.aws.AddRole(fakeaws.RoleSpec{Account: "222233334444"})
	for _, x := range []struct {
		fault  fakeaws.Fault
		status int
		want   string
	}{
		{fakeaws.Fault{Kind: fakeaws.WrongAccount}, 200, "which is in another account"},
		{fakeaws.Fault{Kind: fakeaws.PastExpiry}, 200, "credentials that ended at "},
		{fakeaws.Fault{Kind: fakeaws.Garbage}, 200, "web page (HTTP 200)"},
		{fakeaws.Fault{Kind: fakeaws.Empty}, 200, "no credentials"},
		{fakeaws.Fault{Kind: fakeaws.Half}, 200, "half an answer"},
		{fakeaws.Fault{Kind: fakeaws.Late}, 0, "closed the connection without an answer"},
		{fakeaws.Fault{Kind: fakeaws.Drop}, 0, "closed the connection without an answer"},
		{fakeaws.Fault{Kind: fakeaws.Redirect}, 307, "redirects"},
		{fakeaws.Fault{Kind: fakeaws.ErrorIn200}, 200, "half an answer"},
	} {
		w.aws.SetFaults(x.fault)
		w.aws.ResetCalls()
		c, err := w.fetch(t, w.link(profiles.KindAssumeRole, "role_arn", arn), w.base)
		e := refusedWith(t, err, "", x.want)
		if e.Refused || e.Status != x.status || c.AccessKeyID != "" || len(w.aws.Calls()) != 1 {
			t.Errorf("%s: %+v after %d requests", x.fault.Kind, e, len(w.aws.Calls()))
		}
	}
}

func TestHalfAnAnswer(t *testing.T) {
	full := map[string]string{"AccessKeyId": "ASIAX", "SecretAccessKey": "canary-secret", "SessionToken": "canary-token", "Expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}
	for missing, want := range map[string]string{"": "", "AccessKeyId": "no access key id", "SecretAccessKey": "no secret access key", "SessionToken": "no session token", "Expiration": "does not say when"} {
		var b strings.Builder
		for k, v := range full {
			if k != missing {
				fmt.Fprintf(&b, "<%s>%s</%s>", k, v, k)
			}
		}
		up := answering(t, 200, "text/xml", `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>`+b.String()+`</Credentials></AssumeRoleResult></AssumeRoleResponse>`)
		w := &world{url: up.URL, deps: Deps{Pool: pool(t)}, asks: &asker{}}
		l := profiles.Link{Kind: profiles.KindAssumeRole, Profile: "dev", Params: map[string]string{"role_arn": anyRole}, Client: profiles.Client{EndpointURL: map[string]string{"": up.URL}}}
		s, _ := New(l, w.deps)
		c, err := s.Fetch(t.Context(), cred.Input{Base: cred.Credentials{AccessKeyID: "A", SecretAccessKey: cred.NewSecret("b")}, Ask: w.asks})
		if missing == "" {
			if err != nil || c.AccountID != "222233334444" { // AssumedRoleUser may be left out
				t.Errorf("%+v %v", c, err)
			}
			continue
		}
		e := refusedWith(t, err, "", want)
		if strings.Contains(fmt.Sprintf("%+v", e), "canary") {
			t.Errorf("shows a secret: %+v", e)
		}
	}
}

func TestNoConnection(t *testing.T) {
	w := newWorld(t)
	l := w.link(profiles.KindAssumeRole, "role_arn", anyRole)
	if err := w.aws.SetOutage(fakeaws.Refused); err != nil {
		t.Fatal(err)
	}
	_, err := w.fetch(t, l, w.base)
	e := refusedWith(t, err, "", "refuses the connection")
	s, _ := New(l, w.deps)
	reacher := s.(interface{ Reach(context.Context) error })
	if e.Status != 0 || !errors.Is(err, cred.ErrUnavailable) || reacher.Reach(t.Context()) == nil {
		t.Errorf("%+v", e)
	}
	if err := w.aws.SetOutage(fakeaws.Up); err != nil {
		t.Fatal(err)
	}
	if err := reacher.Reach(t.Context()); err != nil {
		t.Error(err)
	}

	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = s.Fetch(ctx, cred.Input{Base: w.base, Ask: w.asks})
	refusedWith(t, err, "", "did not answer in time")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error("the deadline is not told")
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, err = s.Fetch(ctx, cred.Input{Base: w.base, Ask: w.asks})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}

	l.Client.EndpointURL = map[string]string{"sts": "localhost"}
	if _, err = w.fetch(t, l, w.base); !errors.Is(err, cred.ErrConfig) || err.Error() != "cannot use the endpoint URL localhost: it is not http://HOST or https://HOST (profile dev)" || cred.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
	if _, err = Identity(t.Context(), l.Client, w.base); !errors.Is(err, cred.ErrConfig) || strings.Contains(err.Error(), "profile") {
		t.Errorf("%v", err)
	}
}

func TestClock(t *testing.T) {
	w := newWorld(t)
	arn := w.aws.AddRole(fakeaws.RoleSpec{})
	var told []time.Duration
	w.deps.Skew = func(d time.Duration) { told = append(told, d.Round(10*time.Second)) }
	l := w.link(profiles.KindAssumeRole, "role_arn", arn)
	if _, err := w.fetch(t, l, w.base); err != nil {
		t.Fatal(err)
	}
	for _, off := range []time.Duration{20 * time.Minute, -90 * time.Minute} {
		w.deps.Pool = pool(t)
		w.aws.SetClock(off)
		_, err := w.fetch(t, l, w.base)
		e := refusedWith(t, err, "SignatureDoesNotMatch", "refuses the time", "the clock of this machine is ")
		if e.Refused || e.Skew.Round(10*time.Second) != off {
			t.Errorf("%+v", e)
		}
		// From then on the signature has AWS's time, and the end is judged by it.
		c, err := w.fetch(t, l, w.base)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Until(c.Expires) - off; d < 59*time.Minute || d > 61*time.Minute {
			t.Errorf("ends %v from AWS's now", d)
		}
		// What was learnt holds for an answer without a date.
		w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.NoDate})
		if _, err := w.fetch(t, l, w.base); err != nil {
			t.Error(err)
		}
		w.aws.SetFaults()
	}
	w.aws.SetClock(2 * time.Minute) // AWS still takes the signature
	w.deps.Pool = pool(t)
	if _, err := w.fetch(t, l, w.base); err != nil {
		t.Fatal(err)
	}
	_, err := w.fetch(t, w.link(profiles.KindAssumeRole, "role_arn", anyRole), w.base)
	refusedWith(t, err, "AccessDenied", "the clock of this machine is 2m0s behind AWS's")
	w.aws.SetClock(0)
	if _, err := w.fetch(t, l, w.base); err != nil {
		t.Fatal(err)
	}
	m := time.Minute
	want := []time.Duration{0, 20 * m, 20 * m, -90 * m, -90 * m, 2 * m, 2 * m, 0}
	if fmt.Sprint(told) != fmt.Sprint(want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

// TestEnvironmentChangesNothing: every variable that the SDK knows points
// elsewhere.
func TestEnvironmentChangesNothing(t *testing.T) {
	w := newWorld(t)
	arn := w.aws.AddRole(fakeaws.RoleSpec{})
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1", "AWS_REGION": "af-south-1", "AWS_DEFAULT_REGION": "af-south-1",
		"AWS_PROFILE": "nosuch", "AWS_CONFIG_FILE": "/nosuch", "AWS_SHARED_CREDENTIALS_FILE": "/nosuch", "AWS_ACCESS_KEY_ID": "AKIAEVIL", "AWS_SECRET_ACCESS_KEY": "evil",
		"AWS_SESSION_TOKEN": "evil", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1", "AWS_CA_BUNDLE": "/nosuch", "AWS_USE_FIPS_ENDPOINT": "true",
		"AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_MAX_ATTEMPTS": "x", "AWS_RETRY_MODE": "x", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1",
		"AWS_ROLE_ARN": "arn:aws:iam::999999999999:role/evil", "AWS_WEB_IDENTITY_TOKEN_FILE": "/nosuch", "AWS_ROLE_SESSION_NAME": "evil", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
	} {
		t.Setenv(name, value)
	}
	if _, err := w.fetch(t, w.link(profiles.KindAssumeRole, "role_arn", arn), w.base); err != nil {
		t.Fatal(err)
	}
	c := w.aws.Calls()[0]
	if c.Region != "eu-west-1" || c.AccessKey != w.base.AccessKeyID || c.Params["RoleSessionName"] != "keyfob-tester" {
		t.Errorf("%+v", c)
	}
}

// TestWithoutPool leaves no connection behind.
func TestWithoutPool(t *testing.T) {
	w := newWorld(t)
	arn := w.aws.AddRole(fakeaws.RoleSpec{})
	w.deps = Deps{}
	if _, err := w.fetch(t, w.link(profiles.KindAssumeRole, "role_arn", arn), w.base); err != nil {
		t.Fatal(err)
	}
}
