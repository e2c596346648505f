package fakeaws_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sso"
	"github.com/aws/aws-sdk-go-v2/service/ssooidc"
	oidctypes "github.com/aws/aws-sdk-go-v2/service/ssooidc/types"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

const startURL = "https://d-1234567890.awsapps.com/start"

func twoAccounts() fakeaws.SSOSpec {
	return fakeaws.SSOSpec{PageSize: 2, Accounts: []fakeaws.SSOAccount{
		{ID: "111122223333", Name: "people", Roles: []fakeaws.SSORole{{Name: "ReadOnly"}, {Name: "Admin", Seconds: 43200}, {Name: "Billing"}}},
		{ID: "444455556666", Roles: []fakeaws.SSORole{{Name: "ReadOnly"}}}, {ID: "777788889999"},
	}}
}

func (p person) oidc() *ssooidc.Client { return ssooidc.NewFromConfig(p.cfg) }
func (p person) sso() *sso.Client      { return sso.NewFromConfig(p.cfg) }

// get opens a page in process.
func get(s *fakeaws.Server, address string) *http.Response {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", address, nil))
	return w.Result()
}

// code checks the code that an SDK read out of an error.
func code(t *testing.T, err error, want, message string) {
	t.Helper()
	var api smithy.APIError
	var grant *oidctypes.InvalidGrantException // says its message in another member
	if errors.As(err, &grant) && strings.Contains(aws.ToString(grant.Error_description), message) {
		message = ""
	}
	if !errors.As(err, &api) || api.ErrorCode() != want || !strings.Contains(api.ErrorMessage(), message) {
		t.Errorf("got %v, want %s with %q", err, want, message)
	}
}

func register(t *testing.T, p person, pkce bool) *ssooidc.RegisterClientOutput {
	t.Helper()
	in := &ssooidc.RegisterClientInput{ClientName: aws.String("keyfob"), ClientType: aws.String("public"), Scopes: []string{"sso:account:access"}}
	if pkce {
		in.GrantTypes, in.RedirectUris, in.IssuerUrl = []string{"authorization_code", "refresh_token"}, []string{"http://127.0.0.1/oauth/callback"}, aws.String(startURL)
	}
	c, err := p.oidc().RegisterClient(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDeviceSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		s := fakeaws.New()
		spec := twoAccounts()
		spec.StrictInterval = true
		s.AddSSO(spec)
		p := as(t, s, "", "", "")
		c := register(t, p, false)
		if d := time.Until(time.Unix(c.ClientSecretExpiresAt, 0)); d < 89*24*time.Hour || len(*c.ClientSecret) < 1000 {
			t.Errorf("registered for %v with a secret of %d", d, len(*c.ClientSecret))
		}
		device := func(start string) (*ssooidc.StartDeviceAuthorizationOutput, error) {
			return p.oidc().StartDeviceAuthorization(ctx, &ssooidc.StartDeviceAuthorizationInput{ClientId: c.ClientId, ClientSecret: c.ClientSecret, StartUrl: &start})
		}
		begin := func() (*ssooidc.StartDeviceAuthorizationOutput, func() (*ssooidc.CreateTokenOutput, error)) {
			d, err := device(startURL + "/#/")
			if err != nil {
				t.Fatal(err)
			}
			return d, func() (*ssooidc.CreateTokenOutput, error) {
				return p.oidc().CreateToken(ctx, &ssooidc.CreateTokenInput{ClientId: c.ClientId, ClientSecret: c.ClientSecret,
					GrantType: aws.String("urn:ietf:params:oauth:grant-type:device_code"), DeviceCode: d.DeviceCode})
			}
		}
		_, err := device("https://elsewhere.awsapps.com/start")
		code(t, err, "InvalidRequestException", "")

		d, poll := begin()
		_, err = poll()
		var pending *oidctypes.AuthorizationPendingException
		if !errors.As(err, &pending) || *pending.Error_ != "authorization_pending" {
			t.Errorf("at first: %v", err)
		}
		_, err = poll()
		code(t, err, "SlowDownException", "")
		if r := get(s, *d.VerificationUriComplete); r.StatusCode != 200 {
			t.Fatalf("the page is %d", r.StatusCode)
		}
		time.Sleep(time.Second)
		tok, err := poll()
		if err != nil || tok.ExpiresIn != 3600 || *tok.TokenType != "Bearer" || tok.RefreshToken == nil || tok.IdToken != nil {
			t.Fatalf("%+v %v", tok, err)
		}
		time.Sleep(time.Second)
		_, err = poll()
		code(t, err, "InvalidGrantException", "")

		d, poll = begin()
		if s.DecideDevice(*d.UserCode, false) != 1 || s.DecideDevice("", true) != 0 {
			t.Error("the device was not there to deny, or twice")
		}
		_, err = poll()
		code(t, err, "AccessDeniedException", "")
		_, poll = begin()
		time.Sleep(10 * time.Minute)
		_, err = poll()
		code(t, err, "ExpiredTokenException", "")

		s.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Action: "CreateToken", Count: 1})
		_, err = poll()
		code(t, err, "SlowDownException", "")
		s.ExpireSSOClients()
		_, err = device(startURL)
		code(t, err, "InvalidClientException", "")
		// Secrets are not in the record.
		for _, c := range s.Calls() {
			for k, v := range c.Params {
				if (k == "clientSecret" || k == "deviceCode") && v != "[redacted]" {
					t.Errorf("%s is recorded", k)
				}
			}
		}
	})
}

// authorize asks the authorize page and returns where it redirects to.
func authorize(t *testing.T, s *fakeaws.Server, base string, c *ssooidc.RegisterClientOutput, change func(url.Values)) (int, url.Values) {
	t.Helper()
	v := url.Values{"response_type": {"code"}, "client_id": {*c.ClientId}, "redirect_uri": {"http://127.0.0.1:4711/oauth/callback"}, "state": {"st"},
		"code_challenge_method": {"S256"}, "scopes": {"sso:account:access"}, "code_challenge": {challengeOf(verifier)}}
	if change != nil {
		change(v)
	}
	r := get(s, base+"/authorize?"+v.Encode())
	u, err := url.Parse(r.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode == 302 && !strings.HasPrefix(u.String(), "http://127.0.0.1:4711/oauth/callback?") {
		t.Errorf("redirects to %s", u)
	}
	return r.StatusCode, u.Query()
}

func TestPKCESignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		s := fakeaws.New()
		s.AddSSO(twoAccounts())
		p := as(t, s, "", "", "")
		c := register(t, p, true)
		const base = "https://oidc.eu-west-1.amazonaws.com"
		redeem := func(code, verifier, port string) (*ssooidc.CreateTokenOutput, error) {
			return p.oidc().CreateToken(ctx, &ssooidc.CreateTokenInput{ClientId: c.ClientId, ClientSecret: c.ClientSecret, GrantType: aws.String("authorization_code"),
				Code: &code, CodeVerifier: &verifier, RedirectUri: aws.String("http://127.0.0.1:" + port + "/oauth/callback")})
		}
		refresh := func(token string) (*ssooidc.CreateTokenOutput, error) {
			return p.oidc().CreateToken(ctx, &ssooidc.CreateTokenInput{ClientId: c.ClientId, ClientSecret: c.ClientSecret, GrantType: aws.String("refresh_token"), RefreshToken: &token})
		}
		approve := func() string {
			t.Helper()
			status, v := authorize(t, s, base, c, nil)
			if status != 302 || v.Get("state") != "st" || v.Get("code") == "" {
				t.Fatalf("%d %v", status, v)
			}
			return v.Get("code")
		}
		tok, err := redeem(approve(), verifier, "4711")
		if err != nil || tok.RefreshToken == nil {
			t.Fatal(err)
		}
		first := *tok.RefreshToken
		for _, bad := range []struct{ verifier, port string }{{verifier + "x", "4711"}, {verifier, "4712"}} {
			_, err = redeem(approve(), bad.verifier, bad.port)
			code(t, err, "InvalidGrantException", "")
		}
		used := approve()
		_, _ = redeem(used, verifier, "4711")
		_, err = redeem(used, verifier, "4711")
		code(t, err, "InvalidGrantException", "")
		if s.Count("reused:code") != 1 {
			t.Error("a code that was used again is not counted")
		}
		late := approve()
		time.Sleep(10 * time.Minute)
		_, err = redeem(late, verifier, "4711")
		code(t, err, "InvalidGrantException", "")

		// Refresh tokens are for one use.
		tok, err = refresh(first)
		if err != nil || *tok.RefreshToken == first {
			t.Fatalf("%v %v", tok, err)
		}
		_, err = refresh(first)
		code(t, err, "InvalidGrantException", "Invalid refresh token provided")
		if s.Count("reused:refresh_token") != 1 {
			t.Error("a refresh token that was used again is not counted")
		}

		// The pages: whoever is no client gets no redirect.
		for name, change := range map[string]func(url.Values){
			"client":    func(v url.Values) { v.Set("client_id", "x") },
			"path":      func(v url.Values) { v.Set("redirect_uri", "http://127.0.0.1:4711/other") },
			"elsewhere": func(v url.Values) { v.Set("redirect_uri", "http://evil.example.com/oauth/callback") },
		} {
			if status, _ := authorize(t, s, base, c, change); status != 400 {
				t.Errorf("%s: %d", name, status)
			}
		}
		for want, change := range map[string]func(url.Values){
			"invalid_scope":             func(v url.Values) { v.Set("scopes", "other") },
			"invalid_request":           func(v url.Values) { v.Set("code_challenge_method", "plain") },
			"unsupported_response_type": func(v url.Values) { v.Set("response_type", "token") },
		} {
			if status, v := authorize(t, s, base, c, change); status != 302 || v.Get("error") != want || v.Get("state") != "st" {
				t.Errorf("%s: %d %v", want, status, v)
			}
		}
		device := register(t, p, false)
		if status, _ := authorize(t, s, base, device, nil); status != 400 {
			t.Errorf("a device client at the authorize page: %d", status)
		}
		_, err = p.oidc().StartDeviceAuthorization(ctx, &ssooidc.StartDeviceAuthorizationInput{ClientId: c.ClientId, ClientSecret: c.ClientSecret, StartUrl: aws.String(startURL)})
		code(t, err, "UnauthorizedClientException", "")

		s.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInDeny)
		if _, v := authorize(t, s, base, c, nil); v.Get("error") != "access_denied" || v.Get("state") != "st" {
			t.Errorf("denied: %v", v)
		}
		s.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInWrongState)
		if _, v := authorize(t, s, base, c, nil); v.Get("state") == "st" || v.Get("code") == "" {
			t.Errorf("wrong state: %v", v)
		}
		s.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInWait)
		if status, _ := authorize(t, s, base, c, nil); status != 200 {
			t.Errorf("waiting: %d", status)
		}
		s.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInAuto)

		// The session ends: the refresh token with it.
		time.Sleep(8 * time.Hour)
		_, err = refresh(*tok.RefreshToken)
		code(t, err, "InvalidGrantException", "Invalid refresh token provided")
	})
}

func TestPortal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		s := fakeaws.New()
		s.AddSSO(twoAccounts())
		p := as(t, s, "", "", "")
		tok, err := s.NewSSOTokens(startURL)
		if err != nil {
			t.Fatal(err)
		}
		creds := func(acct, role string) (*sso.GetRoleCredentialsOutput, error) {
			return p.sso().GetRoleCredentials(ctx, &sso.GetRoleCredentialsInput{AccessToken: &tok.AccessToken, AccountId: &acct, RoleName: &role})
		}
		c, err := creds("111122223333", "Admin")
		if err != nil {
			t.Fatal(err)
		}
		r := c.RoleCredentials
		near(t, "expiration", time.UnixMilli(r.Expiration), time.Now().Add(12*time.Hour))
		who, err := p.with(&types.Credentials{AccessKeyId: r.AccessKeyId, SecretAccessKey: r.SecretAccessKey, SessionToken: r.SessionToken}).who()
		if err != nil || !strings.HasPrefix(who, "arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_Admin_") || !strings.HasSuffix(who, "/alice@example.com") {
			t.Errorf("%s %v", who, err)
		}
		_, err = creds("444455556666", "Admin")
		code(t, err, "ForbiddenException", "No access")
		_, err = creds("123456789012", "Admin")
		code(t, err, "ForbiddenException", "No access")

		var names []string
		pages := sso.NewListAccountsPaginator(p.sso(), &sso.ListAccountsInput{AccessToken: &tok.AccessToken})
		turns := 0
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			turns++
			for _, a := range page.AccountList {
				names = append(names, *a.AccountId+*a.AccountName)
			}
		}
		if strings.Join(names, " ") != "111122223333people 444455556666account-444455556666 777788889999account-777788889999" || turns != 2 {
			t.Errorf("%v in %d pages", names, turns)
		}
		roles, err := p.sso().ListAccountRoles(ctx, &sso.ListAccountRolesInput{AccessToken: &tok.AccessToken, AccountId: aws.String("111122223333"), MaxResults: aws.Int32(1)})
		if err != nil || len(roles.RoleList) != 1 || roles.NextToken == nil {
			t.Errorf("%+v %v", roles, err)
		}
		_, err = p.sso().ListAccountRoles(ctx, &sso.ListAccountRolesInput{AccessToken: &tok.AccessToken, AccountId: aws.String("111122223333"), NextToken: aws.String("x")})
		code(t, err, "InvalidRequestException", "")
		s.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Action: "ListAccounts", Count: 1})
		_, err = p.sso().ListAccounts(ctx, &sso.ListAccountsInput{AccessToken: &tok.AccessToken})
		code(t, err, "TooManyRequestsException", "")

		s.ExpireSSOTokens()
		_, err = creds("111122223333", "Admin")
		code(t, err, "UnauthorizedException", "Session token not found or invalid")
		tok, _ = s.NewSSOTokens(startURL)
		time.Sleep(time.Hour)
		_, err = creds("111122223333", "Admin")
		code(t, err, "UnauthorizedException", "Session token not found or invalid")
		tok, _ = s.NewSSOTokens(startURL)
		if _, err = p.sso().Logout(ctx, &sso.LogoutInput{AccessToken: &tok.AccessToken}); err != nil {
			t.Error(err)
		}
		_, err = creds("111122223333", "Admin")
		code(t, err, "UnauthorizedException", "")
		tok, _ = s.NewSSOTokens(startURL)
		if n := s.EndSSOSessions(); n < 1 {
			t.Errorf("%d sessions ended", n)
		}
		_, err = creds("111122223333", "Admin")
		code(t, err, "UnauthorizedException", "")
		_, err = p.oidc().CreateToken(ctx, &ssooidc.CreateTokenInput{ClientId: &tok.ClientID, ClientSecret: &tok.ClientSecret, GrantType: aws.String("refresh_token"), RefreshToken: &tok.RefreshToken})
		code(t, err, "InvalidGrantException", "Invalid refresh token provided")
	})
}

// The pages that want a person, through a real server.
func TestSignInPages(t *testing.T) {
	s, base := fakeawstest.Start(t)
	s.AddSSO(twoAccounts())
	p := as(t, s, "", "", "").at(base, nil)
	c := register(t, p, true)
	page := base + "/authorize?" + url.Values{"response_type": {"code"}, "client_id": {*c.ClientId}, "redirect_uri": {"http://127.0.0.1:4711/oauth/callback"}, "state": {"st"},
		"code_challenge_method": {"S256"}, "scopes": {"sso:account:access"}, "code_challenge": {challengeOf(verifier)}}.Encode()
	s.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInClick)
	b := fakeawstest.NewBrowser(t, false)
	if x := b.Open(page + "&decision=allow"); x.Status != 200 || !strings.Contains(x.Body, `id="allow"`) {
		t.Errorf("a link must not approve: %+v", x)
	}
	if x := b.Post(page, "decision", "deny"); !strings.Contains(x.Location, "error=access_denied") {
		t.Errorf("%+v", x)
	}
	if x := b.Post(page, "decision", "allow"); !strings.Contains(x.Location, "code=") {
		t.Errorf("%+v", x)
	}
	s.SetSignIn(fakeaws.SignInSSO, fakeaws.SignInForm)
	if x := b.Open(page); !strings.Contains(x.Body, `id="password"`) {
		t.Errorf("%+v", x)
	}
	if x := b.Post(page, "username", "bob@example.com", "password", "guess"); x.Status != 200 || !strings.Contains(x.Body, `id="wrong"`) {
		t.Errorf("%+v", x)
	}
	if x := b.Post(page, "username", "bob@example.com", "password", fakeaws.SignInPassword); !strings.Contains(x.Location, "code=") {
		t.Errorf("%+v", x)
	}
	if x := b.Open(page); !strings.Contains(x.Location, "code=") {
		t.Errorf("the cookie does not remember: %+v", x)
	}
	if s.Count("logins:sso") != 1 {
		t.Errorf("%d logins", s.Count("logins:sso"))
	}
	s.ForgetLogins()
	if x := b.Open(page); x.Status != 200 {
		t.Errorf("%+v", x)
	}
}

func deviceOf(tok fakeaws.SSOTokens) *ssooidc.StartDeviceAuthorizationInput {
	return &ssooidc.StartDeviceAuthorizationInput{ClientId: &tok.ClientID, ClientSecret: &tok.ClientSecret, StartUrl: &tok.StartURL}
}
