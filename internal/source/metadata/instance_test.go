package metadata

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

const instanceRole = "arn:aws:iam::111122223333:role/app"

func newInstanceWorld(t *testing.T, spec fakeaws.InstanceSpec) (*fakeaws.Server, string) {
	t.Helper()
	aws, url := fakeawstest.Start(t)
	aws.AddRole(fakeaws.RoleSpec{ARN: instanceRole})
	if spec.Role == "" {
		spec.Role = instanceRole
	}
	aws.SetInstance(spec)
	return aws, url
}

func TestInstanceGivesItsRole(t *testing.T) {
	t.Parallel()
	aws, url := newInstanceWorld(t, fakeaws.InstanceSpec{})
	s, err := New(imdsLink("ec2_metadata_service_endpoint", url+"/"), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c, err := fetchFrom(t, s)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Temporary() || c.AccountID != "111122223333" || time.Until(c.Expires) < 5*time.Hour {
			t.Errorf("%+v", c)
		}
		if _, ok := aws.Session(c.AccessKeyID); !ok {
			t.Error("AWS does not know the session")
		}
	}
	// A token, a name and credentials each time; the account once.
	for action, want := range map[string]int{"IMDSToken": 2, "IMDSRole": 2, "IMDSCredentials": 2, "IMDSInfo": 1} {
		if n := aws.Count(action); n != want {
			t.Errorf("%d of %s", n, action)
		}
	}
	if up := s.(interface{ Upstream() string }).Upstream(); up != url {
		t.Errorf("upstream %q", up)
	}
	if err := s.(interface{ Reach(context.Context) error }).Reach(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRequestsWithoutTokenOnlyWhereTheyMayBe(t *testing.T) {
	t.Parallel()
	aws, url := newInstanceWorld(t, fakeaws.InstanceSpec{NoV2: true})
	for _, v := range []string{"", "true"} {
		_, err := fetch(t, imdsLink("ec2_metadata_service_endpoint", url, "ec2_metadata_v1_disabled", v), Deps{})
		u := fails(t, err, true, "HTTP 404", "session token (IMDSv2)", "ec2_metadata_v1_disabled = false")
		if u.Status != 404 {
			t.Errorf("status %d", u.Status)
		}
	}
	if n := aws.Count("IMDSRole"); n != 0 {
		t.Errorf("%d requests without a token", n)
	}
	c, err := fetch(t, imdsLink("ec2_metadata_service_endpoint", url, "ec2_metadata_v1_disabled", "false"), Deps{})
	if err != nil || !c.Temporary() {
		t.Errorf("%v", err)
	}
}

func TestInstanceFailsInWords(t *testing.T) {
	t.Parallel()
	aws, url := newInstanceWorld(t, fakeaws.InstanceSpec{})
	l := imdsLink("ec2_metadata_service_endpoint", url)
	for name, c := range map[string]struct {
		fault   fakeaws.Fault
		refused bool
		want    string
	}{
		"throttled":  {fakeaws.Fault{Kind: fakeaws.Throttle, Action: "IMDSCredentials"}, false, "HTTP 429"},
		"500":        {fakeaws.Fault{Kind: fakeaws.Fail500, Action: "IMDSRole"}, false, "HTTP 500"},
		"bad PUT":    {fakeaws.Fault{Kind: fakeaws.Error, Status: 400, Action: "IMDSToken"}, true, "HTTP 400"},
		"forbidden":  {fakeaws.Fault{Kind: fakeaws.Error, Status: 403, Action: "IMDSToken"}, true, "metadata options forbid it"},
		"token lost": {fakeaws.Fault{Kind: fakeaws.Error, Status: 401, Action: "IMDSCredentials"}, false, "HTTP 401"},
		"web page":   {fakeaws.Fault{Kind: fakeaws.Garbage, Action: "IMDSCredentials"}, false, "not the JSON expected"},
		"page list":  {fakeaws.Fault{Kind: fakeaws.Garbage, Action: "IMDSRole"}, false, "not one name"},
		"empty":      {fakeaws.Fault{Kind: fakeaws.Empty, Action: "IMDSToken"}, false, "its session token is none"},
		"dropped":    {fakeaws.Fault{Kind: fakeaws.Drop, Action: "IMDSCredentials"}, false, "closed the connection without an answer"},
		"half":       {fakeaws.Fault{Kind: fakeaws.Half, Action: "IMDSCredentials"}, false, "closed the connection without an answer"},
		"redirect":   {fakeaws.Fault{Kind: fakeaws.Redirect, Location: url + "/container/x", Action: "IMDSCredentials"}, false, "redirects are not followed"},
		"expired":    {fakeaws.Fault{Kind: fakeaws.PastExpiry, Action: "IMDSCredentials"}, false, "holds credentials that ended at"},
	} {
		aws.SetFaults(c.fault)
		_, err := fetch(t, l, Deps{})
		t.Log(name, err)
		fails(t, err, c.refused, c.want)
	}
	aws.SetFaults()
	aws.SetInstance(fakeaws.InstanceSpec{Role: "arn:aws:iam::111122223333:role/gone"})
	_, err := fetch(t, l, Deps{})
	if u := fails(t, err, true, "AssumeRoleUnauthorizedAccess: EC2 cannot assume the role gone", "trust policy"); u.Code != "AssumeRoleUnauthorizedAccess" {
		t.Errorf("code %q", u.Code)
	}
	aws.SetInstance(fakeaws.InstanceSpec{})
	_, err = fetch(t, l, Deps{})
	fails(t, err, true, "the instance has no role", "instance profile")
}

func TestAbsentServiceIsGivenUpSoon(t *testing.T) {
	t.Parallel()
	aws, url := newInstanceWorld(t, fakeaws.InstanceSpec{})
	l := imdsLink("ec2_metadata_service_endpoint", url)
	if err := aws.SetOutage(fakeaws.Silent); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err := fetch(t, l, Deps{})
	fails(t, err, false, "did not answer within 1s", "HttpPutResponseHopLimit")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	if err := aws.SetOutage(fakeaws.Refused); err != nil {
		t.Fatal(err)
	}
	_, err = fetch(t, l, Deps{})
	if u := fails(t, err, false, "can't be reached: "); u.Status != 0 {
		t.Errorf("status %d", u.Status)
	}
	ctx, cancel := timeoutContext(t)
	cancel()
	s, _ := New(l, Deps{})
	if _, err := s.Fetch(ctx, cred.Input{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestHalfAnswersAreRefused(t *testing.T) {
	t.Parallel()
	end := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	full := `"Code":"Success","AccessKeyId":"ASIAX","SecretAccessKey":"` + canary + `","Token":"` + canary + `","Expiration":"` + end + `"`
	for without, want := range map[string]string{
		`"AccessKeyId":"ASIAX",`:                   "no access key id",
		`"SecretAccessKey":"` + canary + `",`:      "no secret access key",
		`,"Token":"` + canary + `"`:                "no session token",
		`,"Expiration":"` + end + `"`:              "does not say when",
		`"Code":"Success",`:                        "does not say Success",
		`T` + strings.SplitN(end, "T", 2)[1] + `"`: "not the JSON expected",
	} {
		o := newOdd(t, map[string]oddAnswer{
			"PUT /pre/latest/api/token":   {body: "dG9rZW4="},
			"GET /pre" + rolePath:         {body: "app"},
			"GET /pre" + rolePath + "app": {body: "{" + strings.Replace(full, without, "", 1) + "}"},
		})
		_, err := fetch(t, imdsLink("ec2_metadata_service_endpoint", o.URL+"/pre"), Deps{})
		var u *cred.UpstreamError
		if !errors.As(err, &u) || !strings.Contains(u.Message, want) {
			t.Errorf("without %s: %v", without, err)
		}
	}
	for _, list := range []string{"first\nsecond", "", "../../user-data", "a b", ".."} {
		o := newOdd(t, map[string]oddAnswer{"PUT /latest/api/token": {body: "dG9rZW4="}, "GET " + rolePath: {body: list}})
		_, err := fetch(t, imdsLink("ec2_metadata_service_endpoint", o.URL), Deps{})
		fails(t, err, false, "not one name")
		if n := len(o.seen()); n != 2 {
			t.Errorf("%q: %d requests", list, n)
		}
	}
}

func TestOurOwnEndpointIsNeverAsked(t *testing.T) {
	t.Parallel()
	o := newOdd(t, map[string]oddAnswer{"PUT /latest/api/token": {body: "dG9rZW4="}})
	u, _ := url.Parse(o.URL)
	own := func(addr string) bool { return addr == u.Host }
	_, err := fetch(t, imdsLink("ec2_metadata_service_endpoint", o.URL), Deps{Own: own})
	configError(t, err, "is keyfob itself")
	// By a name, it is known when that leads there.
	_, err = fetch(t, imdsLink("ec2_metadata_service_endpoint", "http://localhost:"+u.Port()), Deps{Own: own})
	configError(t, err, "is keyfob itself")
	_, err = fetch(t, linkOf("container", "full_uri", "http://localhost:"+u.Port()+"/x"), Deps{Own: own})
	configError(t, err, "is keyfob itself")
	_, err = fetch(t, linkOf("container", "full_uri", o.URL+"/x"), Deps{Own: own})
	configError(t, err, "is keyfob itself")
	if len(o.seen()) != 0 {
		t.Errorf("asked: %v", o.seen())
	}
	// An endpoint that came later, by a reload.
	late := false
	s, err := New(imdsLink("ec2_metadata_service_endpoint", o.URL), Deps{Own: func(addr string) bool { return late && own(addr) }})
	if err != nil {
		t.Fatal(err)
	}
	late = true
	_, err = fetchFrom(t, s)
	configError(t, err, "is keyfob itself")
}

func TestInstanceSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ want, key, value string }{
		{"169.254.169.254:80", "", ""},
		{"169.254.169.254:80", "ec2_metadata_service_endpoint_mode", "ipv4"},
		{"[fd00:ec2::254]:80", "ec2_metadata_service_endpoint_mode", "IPv6"},
		{"127.0.0.1:9", "ec2_metadata_service_endpoint", "http://127.0.0.1:9"},
		{"x.example:443", "ec2_metadata_service_endpoint", "https://x.example/"},
	} {
		s, err := New(imdsLink(c.key, c.value), Deps{})
		if err != nil {
			t.Error(err)
			continue
		}
		dialled := ""
		s.(*instance).c.dial = func(_ context.Context, _, addr string) (net.Conn, error) {
			dialled = addr
			return nil, errors.New("no")
		}
		if _, err := fetchFrom(t, s); err == nil || dialled != c.want {
			t.Errorf("%s %s: %q", c.key, c.value, dialled)
		}
	}
	for _, kv := range [][2]string{
		{"ec2_metadata_service_endpoint_mode", "IPv5"}, {"ec2_metadata_service_endpoint", "169.254.169.254"}, {"ec2_metadata_service_endpoint", "ftp://x"},
		{"ec2_metadata_service_endpoint", "http://u:p@x/"}, {"ec2_metadata_v1_disabled", "maybe"}, {"ec2_metadata_disabled", "true"}, {"ec2_metadata_disabled", "yes"},
	} {
		_, err := New(imdsLink(kv[0], kv[1]), Deps{})
		configError(t, err, kv[0])
	}
	_, err := New(linkOf("sso"), Deps{})
	configError(t, err, "none of package metadata")
}
