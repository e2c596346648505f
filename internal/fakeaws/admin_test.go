package fakeaws_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyfob/internal/fakeaws"
)

// admin calls the side port and decodes the answer into out (nil: ignored).
func admin(t *testing.T, base, method, path, body string, status int, out any) string {
	t.Helper()
	r, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != status || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s %s: %d %s (%v), want %d", method, path, resp.StatusCode, b, err, status)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			t.Fatalf("%s %s: %s: %v", method, path, b, err)
		}
	}
	return string(b)
}

func TestAdmin(t *testing.T) {
	s := fakeaws.New()
	srv := httptest.NewServer(s.AdminHandler())
	defer srv.Close()
	call := func(method, path, body string, status int, out any) string {
		t.Helper()
		return admin(t, srv.URL, method, path, body, status, out)
	}
	var u fakeaws.Created
	call("POST", "/users", `{"name":"carol","account":"777788889999","mfa":[{}]}`, 200, &u)
	if u.ARN != "arn:aws:iam::777788889999:user/carol" || len(u.MFA) != 1 || u.MFA[0].Seed == "" {
		t.Fatalf("created %+v", u)
	}
	var r struct{ ARN string }
	call("POST", "/roles", `{"name":"x","trust":[{"mfa":true}]}`, 200, &r)
	p := as(t, s, u.AccessKeyID, u.SecretAccessKey, "")
	var m struct{ Code string }
	call("GET", "/mfa?serial="+u.MFA[0].Serial, "", 200, &m)
	if want := s.MFACode(u.MFA[0].Serial); m.Code != want {
		t.Errorf("code %s, want %s", m.Code, want)
	}
	call("GET", "/mfa?serial=x", "", 400, nil)

	_, err := p.assume(r.ARN, nil)
	refused(t, err, 403, "AccessDenied", "User: "+u.ARN+" is not authorized to perform: sts:AssumeRole on resource: "+r.ARN)
	call("POST", "/roles", `{"arn":"`+r.ARN+`"}`, 200, nil) // replaced: trusts everybody
	session := p.mustAssume(r.ARN, nil)
	var calls []fakeaws.Call
	call("GET", "/calls?action=AssumeRole", "", 200, &calls)
	if len(calls) != 2 || calls[0].Code != "AccessDenied" || calls[1].Issued == "" {
		t.Errorf("calls %+v", calls)
	}
	call("GET", "/wait?action=AssumeRole&count=2&seconds=1", "", 200, nil)
	call("GET", "/wait?action=AssumeRole&count=3&seconds=0.01", "", 400, nil)
	call("POST", "/revoke", `{"access_key_id":"`+calls[1].Issued+`","as":"expired"}`, 200, nil)
	_, err = session.who()
	refused(t, err, 403, "ExpiredToken", "The security token included in the request is expired")
	call("POST", "/revoke", `{"access_key_id":"ASIAX"}`, 400, nil)
	call("POST", "/revoke", `{"access_key_id":"*","as":"sideways"}`, 400, nil)

	if text := call("GET", "/state", "", 200, nil); strings.Contains(text, u.SecretAccessKey) || strings.Contains(text, u.MFA[0].Seed) || !strings.Contains(text, u.AccessKeyID) {
		t.Errorf("state: %s", text)
	}
	call("PUT", "/faults", `[{"kind":"throttle","count":1}]`, 200, nil)
	_, err = p.who()
	refused(t, err, 503, "Throttling", "Rate exceeded")
	call("POST", "/faults", `{"kind":"500"}`, 200, nil)
	if _, err = p.who(); err == nil {
		t.Error("the added fault does nothing")
	}
	call("PUT", "/faults", `[{"kind":"tornado"}]`, 400, nil)
	call("PUT", "/faults", `[{"knd":"500"}]`, 400, nil)
	call("DELETE", "/faults", "", 200, nil)
	if _, err = p.who(); err != nil {
		t.Error(err)
	}
	call("PUT", "/settings", `{"clock_offset_seconds":3600}`, 200, nil)
	if _, err = p.who(); err == nil {
		t.Error("the clock did not move")
	}
	call("PUT", "/settings", `{"clock_offset_seconds":0,"regions":["us-*"]}`, 200, nil)
	_, err = p.who()
	refused(t, err, 403, "SignatureDoesNotMatch", "Credential should be scoped to a valid region, not 'eu-west-1'. ")
	call("PUT", "/settings", `{"outage":"sunday"}`, 400, nil)
	call("POST", "/reset", "", 200, nil)
	var counters map[string]int
	call("GET", "/counters", "", 200, &counters)
	if len(counters) != 0 {
		t.Errorf("counters after reset: %v", counters)
	}
	if _, err = p.who(); err != nil {
		t.Error(err)
	}
	call("PUT", "/keys", `{"access_key_id":"`+u.AccessKeyID+`","status":"Inactive"}`, 200, nil)
	_, err = p.who()
	refused(t, err, 403, "InvalidClientTokenId", "The security token included in the request is invalid.")
	call("PUT", "/keys", `{"access_key_id":"`+u.AccessKeyID+`","status":"Deleted"}`, 200, nil)
	call("PUT", "/keys", `{"access_key_id":"`+u.AccessKeyID+`","status":"Active"}`, 400, nil)
}

func TestWorldFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "w.json")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"users":[{"access_key_id":"AKIAEXAMPLEEXAMPLE77","secret_access_key":"s3cret","deny":["iam:*"]}],"roles":[{"name":"x"}],"settings":{"lifetime_seconds":60}}`)
	w, err := fakeaws.LoadWorld(file)
	if err != nil {
		t.Fatal(err)
	}
	s := fakeaws.New()
	users, roles, err := s.Populate(w)
	if err != nil || len(users) != 1 || users[0].AccessKeyID != "AKIAEXAMPLEEXAMPLE77" || len(roles) != 1 {
		t.Fatalf("%v %v %v", users, roles, err)
	}
	if arn, err := as(t, s, "AKIAEXAMPLEEXAMPLE77", "s3cret", "").who(); err != nil || arn != alice {
		t.Errorf("%s %v", arn, err)
	}
	for _, bad := range []string{
		`{"users":[{"nmae":"x"}]}`, `{`, `{} {}`,
		`{"users":[{"account":"1"}]}`, `{"users":[{"access_key_id":"AKIAX"}]}`, `{"users":[{"mfa":[{"seed":"!"}]}]}`,
		`{"users":[{},{}]}`, `{"roles":[{"arn":"arn:aws:iam::1:role/x"}]}`, `{"settings":{"outage":"x"}}`,
	} {
		write(bad)
		w, err := fakeaws.LoadWorld(file)
		if err == nil {
			_, _, err = fakeaws.New().Populate(w)
		}
		if err == nil {
			t.Errorf("accepted %s", bad)
		}
	}
	if _, err := fakeaws.LoadWorld(file + "x"); err == nil || !strings.Contains(err.Error(), file+"x") {
		t.Errorf("a missing file: %v", err)
	}
}
