package ops

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/profiles"
)

// deployer is a role that alice's keys may assume for twelve hours.
func deployer(w *world) string {
	return w.aws.AddRole(fakeaws.RoleSpec{Name: "deploy", Path: "/team/", Account: "222233334444", MaxSessionDuration: 43200})
}

func lastToken(t *testing.T, w *world) fakeaws.Call {
	t.Helper()
	all := w.aws.Calls("GetSigninToken")
	if len(all) == 0 {
		t.Fatal("nobody asked for a sign-in token")
	}
	return all[len(all)-1]
}

func TestConsoleOfARole(t *testing.T) {
	w := newWorld(t, fakeaws.UserSpec{})
	arn := deployer(w)
	r := w.request(w.vaultKeys(), w.link(profiles.KindAssumeRole, "role_arn", arn))
	r.Keys = nil // no business of a role's
	r.Service = "s3"
	link, err := w.console(r)
	if err != nil {
		t.Fatal(err)
	}
	p := w.open(link)
	if !strings.HasPrefix(p.arn, "arn:aws:sts::222233334444:assumed-role/deploy/") {
		t.Errorf("signed in as %s", p.arn)
	}
	if p.destination != "https://console.aws.amazon.com/s3/home?region=eu-west-1" {
		t.Errorf("sent to %s", p.destination)
	}
	if _, sent := lastToken(t, w).Params["SessionDuration"]; sent {
		t.Error("a duration was sent that nobody asked for")
	}
	if !about(p.until, r.Credentials.Expires) || !link.Ends.Equal(r.Credentials.Expires) || link.Warning != "" {
		t.Errorf("it ends %s, the link says %s, warning %q", p.until, link.Ends, link.Warning)
	}
	u, err := url.Parse(link.URL.Reveal())
	if q := u.Query(); err != nil || u.Path != "/federation" || q.Get("Action") != "login" || q.Get("Issuer") != "keyfob" || len(q.Get("SigninToken")) < 100 || len(q) != 4 {
		t.Errorf("%v %v", u, err)
	}
	if want := w.url + "/switchrole?account=222233334444&displayName=dev&roleName=team%2Fdeploy"; link.SwitchRole != want {
		t.Errorf("switch-role link %s, want %s", link.SwitchRole, want)
	}
	if status, body := get(t, link.SwitchRole); status != 200 || !strings.Contains(body, arn) {
		t.Errorf("the switch-role link answers %d %s", status, body)
	}

	r.Duration = 2 * time.Hour
	if link, err = w.console(r); err != nil {
		t.Fatal(err)
	}
	if lastToken(t, w).Params["SessionDuration"] != "7200" || link.Warning != "" {
		t.Errorf("asked for %v, warning %q", lastToken(t, w).Params, link.Warning)
	}
	if p = w.open(link); !about(p.until, time.Now().Add(2*time.Hour)) || !about(link.Ends, p.until) {
		t.Errorf("it ends %s, the link says %s", p.until, link.Ends)
	}
	// The secrets travel in the body of a POST: a GET's would stand in the
	// logs of proxies.
	if n := w.aws.Count("GetSigninToken"); n != 2 {
		t.Errorf("%d calls for two links", n)
	}
}

func TestConsoleOfAChainedRoleHasNoDuration(t *testing.T) {
	w := newWorld(t, fakeaws.UserSpec{})
	arn := deployer(w)
	entry := w.aws.AddRole(fakeaws.RoleSpec{Name: "entry"})
	for name, chain := range map[string][]profiles.Link{
		"role":    {w.vaultKeys(), w.link(profiles.KindAssumeRole, "role_arn", entry), w.link(profiles.KindAssumeRole, "role_arn", arn)},
		"session": {w.vaultKeys(), w.link(profiles.KindSessionToken), w.link(profiles.KindAssumeRole, "role_arn", arn)},
	} {
		r := w.request(chain...)
		r.Duration = 2 * time.Hour
		before := w.aws.Count("GetSigninToken")
		link, err := w.console(r)
		if err != nil {
			t.Fatal(name, err)
		}
		if _, sent := lastToken(t, w).Params["SessionDuration"]; sent || w.aws.Count("GetSigninToken") != before+1 {
			t.Errorf("%s: asked for %v", name, lastToken(t, w).Params)
		}
		if !strings.Contains(link.Warning, "role chaining") || !link.Ends.Equal(r.Credentials.Expires) {
			t.Errorf("%s: warning %q, ends %s", name, link.Warning, link.Ends)
		}
		w.open(link)
	}

	// Nobody knows what a program gives: the duration is tried, and left out
	// when AWS refuses it.
	process := w.link(profiles.KindProcess)
	process.Client = profiles.Client{}
	r := w.request(w.vaultKeys(), w.link(profiles.KindAssumeRole, "role_arn", entry), w.link(profiles.KindAssumeRole, "role_arn", arn))
	r.Chain, r.Duration = []profiles.Link{process}, 2*time.Hour
	before := w.aws.Count("GetSigninToken")
	link, err := w.console(r)
	if err != nil || w.aws.Count("GetSigninToken") != before+2 || !strings.Contains(link.Warning, "ends with its credentials") || link.SwitchRole != "" {
		t.Errorf("%v after %d calls, warning %q, switch %q", err, w.aws.Count("GetSigninToken")-before, link.Warning, link.SwitchRole)
	}
}

func TestConsoleOfAUser(t *testing.T) {
	w := newWorld(t, fakeaws.UserSpec{})
	r := w.request(w.vaultKeys(), w.link(profiles.KindSessionToken))
	r.Service, r.Duration = "iam", 20*time.Hour
	r.Person = "Jürgen von der Buchhaltung und Lagerhaltung"
	link, err := w.console(r)
	if err != nil {
		t.Fatal(err)
	}
	p := w.open(link)
	if p.arn != "arn:aws:sts::"+account+":federated-user/J-rgen-von-der-Buchhaltung-und-L" {
		t.Errorf("signed in as %s", p.arn)
	}
	if _, sent := lastToken(t, w).Params["SessionDuration"]; sent || link.Warning != "" || link.SwitchRole != "" {
		t.Errorf("asked for %v, warning %q, switch %q", lastToken(t, w).Params, link.Warning, link.SwitchRole)
	}
	if !about(p.until, time.Now().Add(20*time.Hour)) || !about(link.Ends, p.until) {
		t.Errorf("it ends %s, the link says %s", p.until, link.Ends)
	}
	call := w.aws.Calls("GetFederationToken")[0]
	if link.AccessKeyID != call.Issued {
		t.Errorf("the console session is %s's, and the link says %s", call.Issued, link.AccessKeyID)
	}
	if call.Params["DurationSeconds"] != "72000" || call.Params["Policy"] != everything || call.AccessKey != w.keys.AccessKeyID {
		t.Errorf("%+v", call)
	}

	r.Duration, r.Policy = 0, cred.SessionPolicy{ARNs: []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}}
	if _, err = w.console(r); err != nil {
		t.Fatal(err)
	}
	call = w.aws.Calls("GetFederationToken")[1]
	if s, _ := w.aws.Session(call.Issued); s.Policy != "" || len(s.PolicyARNs) != 1 || call.Params["DurationSeconds"] != "" {
		t.Errorf("a given policy was widened: %+v %+v", s, call)
	}
	r.Policy = cred.SessionPolicy{Inline: `{"Version":"2012-10-17","Statement":[]}`}
	if _, err = w.console(r); err != nil {
		t.Fatal(err)
	}
	if call = w.aws.Calls("GetFederationToken")[2]; call.Params["Policy"] != r.Policy.Inline {
		t.Errorf("%+v", call)
	}
}

func TestConsoleRefusals(t *testing.T) {
	const serial = "arn:aws:iam::111122223333:mfa/alice"
	w := newWorld(t, fakeaws.UserSpec{MFA: []fakeaws.MFASpec{{Serial: serial}}, Deny: []string{"sts:GetFederationToken"}})
	arn := deployer(w)

	// A user with a code: before any call.
	_, err := w.console(w.request(w.vaultKeys(), w.link(profiles.KindSessionToken, "mfa_serial", serial)))
	line(t, err, serial, "without the code", "role_arn and source_profile = dev")
	if w.aws.Count("GetFederationToken")+w.aws.Count("GetSigninToken") != 0 {
		t.Error("AWS was asked in vain")
	}
	_, err = w.console(w.request(w.vaultKeys(), w.link(profiles.KindSessionToken)))
	line(t, err, "AccessDenied", "allow the user sts:GetFederationToken")
	var up *cred.UpstreamError
	if !errors.As(err, &up) || !up.Refused || up.Op != "GetFederationToken" {
		t.Errorf("%#v", err)
	}

	// A session of GetSessionToken that stands in a file.
	session := w.handedOut(w.vaultKeys(), w.link(profiles.KindSessionToken))
	r := ConsoleRequest{Profile: "dev", Chain: []profiles.Link{w.link(profiles.KindProcess)}, Credentials: session}
	_, err = w.console(r)
	line(t, err, "cannot open the console as dev", "GetSessionToken", "source_profile = dev")
	if !errors.As(err, &up) || !up.Refused || up.Status != 400 {
		t.Errorf("%#v", err)
	}
	r.Chain = []profiles.Link{w.link(profiles.KindLogin)}
	_, err = w.console(r)
	line(t, err, "aws login session")

	// A role whose session has ended.
	r = w.request(w.vaultKeys(), w.link(profiles.KindAssumeRole, "role_arn", arn))
	w.aws.RevokeAll(fakeaws.RevokedExpired)
	_, err = w.console(r)
	line(t, err, "keyfob whoami dev")

	// What was asked for in the command.
	calls := len(w.aws.Calls())
	for want, change := range map[string]func(*ConsoleRequest){
		"15m to 12h":           func(r *ConsoleRequest) { r.Duration = 13 * time.Hour },
		"--duration 15m":       func(r *ConsoleRequest) { r.Duration = time.Minute },
		"no name of a region":  func(r *ConsoleRequest) { r.Region = "eu west" },
		"another partition":    func(r *ConsoleRequest) { r.Region = "cn-north-1" },
		"no name of a service": func(r *ConsoleRequest) { r.Service = "../x" },
		`page "//evil.example"`: func(r *ConsoleRequest) {
			r.Service = "//evil.example"
		},
		"15m to 36h": func(r *ConsoleRequest) {
			r.Duration, r.Chain = 37*time.Hour, []profiles.Link{w.vaultKeys(), w.link(profiles.KindSessionToken)}
		},
	} {
		x := r
		change(&x)
		_, err := w.console(x)
		line(t, err, want)
		if !errors.Is(err, ErrInput) {
			t.Errorf("%v is no ErrInput", err)
		}
	}
	x := r
	x.Policy.Inline = "{}"
	_, err = w.console(x)
	line(t, err, "narrowed")
	if len(w.aws.Calls()) != calls {
		t.Error("AWS was asked in vain")
	}
}

// TestConsoleWithoutAWS: what may answer or not in AWS's place.
func TestConsoleWithoutAWS(t *testing.T) {
	w := newWorld(t, fakeaws.UserSpec{})
	r := w.request(w.vaultKeys(), w.link(profiles.KindAssumeRole, "role_arn", deployer(w)))
	answer := func(status int, kind, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
			if err := q.ParseForm(); err != nil || q.Method != http.MethodPost || q.URL.RawQuery != "" || q.PostForm.Get("Session") == "" {
				t.Errorf("%s %s: %v", q.Method, q.URL, err)
			}
			rw.Header().Set("Content-Type", kind)
			if status == http.StatusFound {
				rw.Header().Set("Location", "http://portal.example/")
			}
			rw.WriteHeader(status)
			_, _ = rw.Write([]byte(body))
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + l.Addr().String()
	l.Close()
	quoting := r.Credentials.SecretAccessKey.Reveal() + r.Credentials.SessionToken.Reveal()
	for _, x := range []struct {
		url     string
		refused bool
		want    string
	}{
		{answer(200, "text/html", "<html>sign in to the network "+quoting), false, "web page"},
		{answer(200, "application/json", `{"SigninToken":""}`), false, "none of AWS's"},
		{answer(200, "application/json", `{"SigninToken":`+quoting), false, "none of AWS's"},
		{answer(200, "application/json", `"`+strings.Repeat("x", 2<<20)+`"`), false, "more than 1 MiB"},
		{answer(302, "text/plain", ""), false, "redirects (HTTP 302) to portal.example"},
		{answer(503, "text/plain", "busy "+quoting), false, "503"},
		{answer(400, "text/plain", quoting), true, "does not take its credentials"},
		{dead, false, "refuses the connection"},
	} {
		w.deps.Federation = x.url
		_, err := w.console(r)
		line(t, err, x.want)
		var up *cred.UpstreamError
		if !errors.As(err, &up) || up.Refused != x.refused || errors.Is(err, cred.ErrUnavailable) == x.refused {
			t.Errorf("%s: %#v", x.want, err)
		}
	}
	w.deps.Federation = "ftp://user:" + quoting + "@x/"
	_, err = w.console(r)
	line(t, err, "console.federation_endpoint")

	w.deps.Federation = w.url + "/federation"
	w.aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Hang, Action: "GetSigninToken"})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = w.deps.Console(ctx, r)
	w.noSecrets(err)
	line(t, err, "did not answer in time")
}

func TestShortConsoleIsSaid(t *testing.T) {
	w := newWorld(t, fakeaws.UserSpec{})
	w.aws.SetLifetime(10 * time.Minute)
	link, err := w.console(w.request(w.vaultKeys(), w.link(profiles.KindAssumeRole, "role_arn", deployer(w))))
	if err != nil || !strings.Contains(link.Warning, "ends in 9m") && !strings.Contains(link.Warning, "ends in 10m") {
		t.Errorf("%v, warning %q", err, link.Warning)
	}
}

// TestConsoleByTheCABundle: the federation address is called with the profile's CA
// bundle, and not at the profile's endpoint_url.
func TestConsoleByTheCABundle(t *testing.T) {
	w := newWorld(t, fakeaws.UserSpec{})
	r := w.request(w.vaultKeys(), w.link(profiles.KindAssumeRole, "role_arn", deployer(w)))
	other, address, ca := fakeawstest.StartTLS(t)
	w.deps.Federation = address + "/federation"
	_, err := w.console(r)
	line(t, err, "signed by an unknown authority", "ca_bundle")

	bundle := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(bundle, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	last := &r.Chain[len(r.Chain)-1]
	last.Client.CABundle = bundle
	_, err = w.console(r) // who answers knows nobody
	line(t, err, "does not take its credentials at 127.0.0.1")
	if other.Count("GetSigninToken") != 1 || w.aws.Count("GetSigninToken") != 0 {
		t.Errorf("asked %d times there, %d here", other.Count("GetSigninToken"), w.aws.Count("GetSigninToken"))
	}
}
