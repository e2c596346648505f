package rolesanywhere

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
)

// upstreamError is err as one, with the rules that hold for all of them.
func upstreamError(t *testing.T, err error, refused bool, code string, parts ...string) *cred.UpstreamError {
	t.Helper()
	var e *cred.UpstreamError
	if !errors.As(err, &e) {
		t.Fatalf("%T %v is no UpstreamError", err, err)
	}
	if e.Op != "CreateSession" || e.Refused != refused || e.Code != code || errors.Is(err, cred.ErrUnavailable) == refused {
		t.Errorf("%+v", e)
	}
	says(t, err, append(parts, "cannot get a session of role arn:aws:iam::")...)
	return e
}

// TestRefusals: what AWS refuses is said in words that name the part to
// change.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	leaf, key := w.root.leaf(t, false)
	c := w.file(t, "c.pem", pemOf(leaf), keyPEM(t, key))
	refused := func(code string, parts []string, kv ...string) {
		t.Helper()
		if len(kv) == 0 || kv[0] != "certificate" {
			kv = append([]string{"certificate", c}, kv...)
		}
		_, err := w.fetch(t, w.source(t, kv...))
		upstreamError(t, err, true, code, parts...)
	}
	const denied = "AccessDeniedException"

	stranger := newAuthority(t, nil, "other root")
	x, k := stranger.leaf(t, true)
	refused(denied, []string{"the trust anchor " + fakeaws.DefaultTrustAnchorARN + " does not trust the certificate CN=machine, issued by CN=other root",
		"the trust anchor must hold the certificate of CN=other root", "none was sent"}, "certificate", w.file(t, "x.pem", pemOf(x), keyPEM(t, k)))
	mid := newAuthority(t, w.root, "mid")
	low := newAuthority(t, mid, "low")
	x, k = low.leaf(t, false)
	refused(denied, []string{"the certificate of CN=mid, or " + settingChain, "one was sent", "or were too many: 1"},
		"certificate", w.file(t, "x.pem", pemOf(x, low.cert, newAuthority(t, stranger, "beside").cert), keyPEM(t, k)))

	w.aws.AddRole(fakeaws.RoleSpec{ARN: "arn:aws:iam::111122223333:role/other", Trust: []fakeaws.Trust{}})
	refused(denied, []string{"AWS does not let Roles Anywhere assume it", "rolesanywhere.amazonaws.com sts:AssumeRole, sts:TagSession and sts:SetSourceIdentity", "lists the role"},
		"role_arn", "arn:aws:iam::111122223333:role/other")
	refused(denied, []string{"are in one account (they are in 222233334444 and 111122223333)"}, "role_arn", "arn:aws:iam::222233334444:role/x")
	w.aws.AddRole(fakeaws.RoleSpec{ARN: role, MaxSessionDuration: 3600, Trust: []fakeaws.Trust{{Principals: []string{"rolesanywhere.amazonaws.com"}}}})
	refused(denied, []string{"maximum session duration is 7200 s or more"}, "duration_seconds", "7200")

	refused("ResourceNotFoundException", []string{"there is no trust anchor " + fakeaws.DefaultTrustAnchorARN + "0", "check " + settingAnchor}, settingAnchor, fakeaws.DefaultTrustAnchorARN+"0")
	refused("ResourceNotFoundException", []string{"there is no Roles Anywhere profile", "check " + settingProfile}, settingProfile, fakeaws.DefaultAnywhereProfileARN+"0")
	w.aws.AddAnywhereProfile(fakeaws.AnywhereProfile{Disabled: true})
	refused(denied, []string{"the Roles Anywhere profile " + fakeaws.DefaultAnywhereProfileARN + " is disabled"})
	w.aws.AddTrustAnchor(fakeaws.TrustAnchorSpec{PEM: string(pemOf(w.root.cert)), Disabled: true})
	refused(denied, []string{"the trust anchor " + fakeaws.DefaultTrustAnchorARN + " is disabled"})
}

// TestAnswers: what does not come from AWS, or is half an answer, is no
// session and no refusal.
func TestAnswers(t *testing.T) {
	const fine = `"accessKeyId":"ASIA1","secretAccessKey":"CANARY-answer-secret","sessionToken":"CANARY-answer-token"`
	session := func(rest string) string {
		return `{"credentialSet":[{"assumedRoleUser":{"arn":"arn:aws:sts::111122223333:assumed-role/machine/x"},"credentials":{` + rest + `}}],"subjectArn":"s"}`
	}
	for _, x := range []struct {
		name, kind, body string
		status           int
		refused          bool
		code             string
		parts            []string
	}{
		{"no credentials", "", `{"credentialSet":[]}`, 201, false, "", []string{"holds no credentials", "who answers is 127.0.0.1"}},
		{"no token", "", session(`"accessKeyId":"ASIA1","secretAccessKey":"CANARY-answer-secret","expiration":"2199-01-01T00:00:00Z"`), 201, false, "", []string{"lacks a part of the credentials"}},
		{"no end", "", session(fine), 201, false, "", []string{"does not say when"}},
		{"ended", "", session(fine + `,"expiration":"2020-01-01T00:00:00Z"`), 201, false, "", []string{"that ended at 2020-01-01T00:00:00Z"}},
		{"another account", "", strings.Replace(session(fine+`,"expiration":"2199-01-01T00:00:00Z"`), "111122223333", "999999999999", 1), 201, false, "", []string{"is not in the role's account"}},
		{"no JSON", "", "{", 201, false, "", []string{"half an answer, or something that is none of AWS's"}},
		{"a bad time", "", session(fine + `,"expiration":"CANARY-answer-token"`), 201, false, "", []string{"none of AWS's"}},
		{"web page", "", "<html>sign in to the network</html>", 200, false, "", []string{"web page", "captive portal"}},
		{"throttled", "ThrottlingException", `{"message":"Rate exceeded"}`, 429, false, "ThrottlingException", []string{"AWS limits the rate of calls"}},
		{"throttled by 400", "ThrottlingException:http://x/", `{"message":"Rate exceeded"}`, 400, false, "ThrottlingException", []string{"AWS limits the rate of calls"}},
		{"down", "", "", 503, false, "", []string{"503"}},
		{"fault", "InternalServerException", `{"message":"oh"}`, 500, false, "InternalServerException", []string{"an error of its own"}},
		{"a code in the body", "", `{"__type":"com.amazon#AccessDeniedException","Message":"Certificate revoked"}`, 403, true, "AccessDeniedException", []string{"is revoked", "get a new certificate"}},
		{"duration", "ValidationException", `{"message":"Value at 'durationSeconds' failed"}`, 400, true, "ValidationException", []string{"takes no session of 3600 s"}},
		{"insufficient", "AccessDeniedException", `{"message":"Untrusted certificate. Insufficient certificate"}`, 403, true, "AccessDeniedException", []string{"does not trust the certificate", "(Untrusted certificate. Insufficient certificate)"}},
		{"signature", "AccessDeniedException", `{"message":"The request signature we calculated does not match"}`, 403, true, "AccessDeniedException", []string{"does not accept the signature", "proxy"}},
		{"other", "AccessDeniedException", `{"message":"Because."}`, 403, true, "AccessDeniedException", []string{"AWS answered AccessDeniedException: Because"}},
		{"redirect", "", "", 302, false, "", []string{"redirects"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := newWorld(t)
			n := 0
			server := httptest.NewServer(http.HandlerFunc(func(a http.ResponseWriter, r *http.Request) {
				n++
				a.Header().Set("Content-Type", "application/json")
				if strings.HasPrefix(x.body, "<") {
					a.Header().Set("Content-Type", "text/html")
				}
				if x.kind != "" {
					a.Header().Set("x-amzn-ErrorType", x.kind)
				}
				if x.status == 302 {
					a.Header().Set("Location", "http://127.0.0.1:1/")
				}
				a.WriteHeader(x.status)
				_, _ = io.WriteString(a, x.body)
			}))
			defer server.Close()
			w.url = server.URL
			w.canaries = append(w.canaries, "CANARY")
			leaf, key := w.root.leaf(t, false)
			_, err := w.fetch(t, w.source(t, "certificate", w.file(t, "c.pem", pemOf(leaf), keyPEM(t, key))))
			upstreamError(t, err, x.refused, x.code, x.parts...)
			if n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestGone: nobody answers.
func TestGone(t *testing.T) {
	w := newWorld(t)
	w.url = "http://127.0.0.1:1"
	leaf, key := w.root.leaf(t, false)
	s := w.source(t, "certificate", w.file(t, "c.pem", pemOf(leaf), keyPEM(t, key)))
	_, err := w.fetch(t, s)
	if e := upstreamError(t, err, false, "", "127.0.0.1:1 refuses the connection"); e.Status != 0 {
		t.Errorf("%+v", e)
	}
	if s.Reach(t.Context()) == nil {
		t.Error("reached")
	}
	// Without a pool each call has its own.
	w = newWorld(t)
	w.deps.Pool, w.deps.Log, w.deps.Devices, w.deps.Store = nil, nil, nil, nil
	leaf, key = w.root.leaf(t, false)
	t.Setenv("HTTP_PROXY", "")
	w.good(t, "certificate", w.file(t, "c.pem", pemOf(leaf), keyPEM(t, key)))
	w.refused(t, []string{"there is no vault"}, "certificate", "vault:x")
}

// TestFaults: the fake's own throttling and latency.
func TestFaults(t *testing.T) {
	w := newWorld(t)
	leaf, key := w.root.leaf(t, false)
	s := w.source(t, "certificate", w.file(t, "c.pem", pemOf(leaf), keyPEM(t, key)))
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Action: "CreateSession", Count: 1})
	_, err := w.fetch(t, s)
	upstreamError(t, err, false, "ThrottlingException", "AWS limits the rate")
	if w.aws.Count("CreateSession") != 1 {
		t.Errorf("%d calls", w.aws.Count("CreateSession"))
	}
	if c, err := w.fetch(t, s); err != nil || time.Until(c.Expires) < 59*time.Minute {
		t.Errorf("%v %v", c, err)
	}
}
