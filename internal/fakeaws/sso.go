package fakeaws

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// SSOSpec describes an IAM Identity Center instance with one person.
type SSOSpec struct {
	StartURL string `json:"start_url"` // default https://d-1234567890.awsapps.com/start
	// Region: requests sent to another region's host name are refused;
	// addresses without a region are always taken. Default eu-west-1.
	Region string `json:"region"`
	// User is who signs in: the session name of the roles. Default
	// alice@example.com. A sign-in page in form mode names its own.
	User     string       `json:"user"`
	Accounts []SSOAccount `json:"accounts"`
	// TokenSeconds is an access token's life, default 3600; SessionSeconds
	// that of the portal session, after which nothing refreshes, default
	// 28800.
	TokenSeconds   int `json:"token_seconds"`
	SessionSeconds int `json:"session_seconds"`
	// DeviceSeconds is a device code's life, default 600; Interval what the
	// answer says (default 1, -1 leaves it out). StrictInterval answers
	// slow_down to polls that come earlier.
	DeviceSeconds  int  `json:"device_seconds"`
	Interval       int  `json:"interval"`
	StrictInterval bool `json:"strict_interval"`
	// ClientSeconds is a registration's life, default 90 days.
	ClientSeconds int `json:"client_seconds"`
	// PageSize caps the pages of the lists, 0 for none.
	PageSize int `json:"page_size"`
}

// SSOAccount is an account with what the person may be in it.
type SSOAccount struct {
	ID    string    `json:"id"` // default DefaultAccount
	Name  string    `json:"name"`
	Email string    `json:"email"`
	Roles []SSORole `json:"roles"`
}

// SSORole is a permission set as assigned in an account.
type SSORole struct {
	Name    string `json:"name"`
	Seconds int    `json:"seconds"` // session length, default 3600
	// MayAssume and Deny are as in UserSpec.
	MayAssume []string `json:"may_assume"`
	Deny      []string `json:"deny"`
}

func (p *SSOSpec) defaults() error {
	set(&p.StartURL, "https://d-1234567890.awsapps.com/start")
	set(&p.Region, "eu-west-1")
	set(&p.User, "alice@example.com")
	setInt(&p.TokenSeconds, 3600)
	setInt(&p.SessionSeconds, 28800)
	setInt(&p.DeviceSeconds, 600)
	setInt(&p.ClientSeconds, 90*86400)
	setInt(&p.Interval, 1)
	p.Accounts = append([]SSOAccount(nil), p.Accounts...)
	for i := range p.Accounts {
		a := &p.Accounts[i]
		set(&a.ID, DefaultAccount)
		set(&a.Name, "account-"+a.ID)
		set(&a.Email, a.Name+"@example.com")
		if !account.MatchString(a.ID) {
			return fmt.Errorf("identity center %s: account %q is not 12 digits", p.StartURL, a.ID)
		}
		a.Roles = append([]SSORole(nil), a.Roles...)
		for j := range a.Roles {
			setInt(&a.Roles[j].Seconds, 3600)
			if a.Roles[j].Name == "" {
				return fmt.Errorf("identity center %s: a role of account %s has no name", p.StartURL, a.ID)
			}
		}
	}
	return nil
}

func setInt(n *int, def int) {
	if *n == 0 {
		*n = def
	}
}

// sameStart compares start URLs as the portal does: #/ and slashes at the
// end do not count.
func sameStart(a, b string) bool {
	trim := func(s string) string {
		return strings.TrimRight(strings.TrimSuffix(strings.TrimRight(s, "/"), "/#"), "/")
	}
	return trim(a) == trim(b)
}

// ssoState is Identity Center's memory. Server.mu guards it.
type ssoState struct {
	portals  []*SSOSpec
	clients  map[string]*ssoClient
	devices  map[string]*ssoDevice // by device code
	codes    map[string]*ssoCode
	access   map[string]*ssoToken
	refresh  map[string]*ssoToken
	sessions []*ssoSession
}

func newSSOState() ssoState {
	return ssoState{clients: map[string]*ssoClient{}, devices: map[string]*ssoDevice{}, codes: map[string]*ssoCode{},
		access: map[string]*ssoToken{}, refresh: map[string]*ssoToken{}}
}

type ssoClient struct {
	id, secret        string
	name              string
	start             string   // issuerUrl
	redirects, scopes []string //
	grants            []string // nil: registered for the device flow
	expires           time.Time
}

func (c *ssoClient) may(grant string) bool {
	if c.grants == nil {
		return grant == grantDevice || grant == grantRefresh
	}
	return contains(c.grants, grant)
}

type ssoDevice struct {
	userCode string
	client   *ssoClient
	portal   *SSOSpec
	user     string
	state    string // "", approved, denied, used
	expires  time.Time
	polled   time.Time
}

type ssoCode struct {
	client              *ssoClient
	portal              *SSOSpec
	user                string
	redirect, challenge string
	expires             time.Time
	used                bool
}

// ssoSession is a person's session at the portal.
type ssoSession struct {
	portal  *SSOSpec
	user    string
	expires time.Time
	ended   bool
}

// ssoToken is an access or a refresh token.
type ssoToken struct {
	session *ssoSession
	client  *ssoClient
	expires time.Time
	used    bool // refresh tokens are for one use
}

func (x *ssoSession) alive(now time.Time) bool { return !x.ended && x.expires.After(now) }

// AddSSO adds an Identity Center instance, or replaces that of the same start
// URL, and returns its start URL.
func (s *Server) AddSSO(spec SSOSpec) (startURL string) {
	start, err := s.addSSO(spec)
	if err != nil {
		panic("fakeaws: " + err.Error())
	}
	return start
}

func (s *Server) addSSO(spec SSOSpec) (string, error) {
	if err := spec.defaults(); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.sso.portals {
		if sameStart(p.StartURL, spec.StartURL) {
			*p = spec
			return spec.StartURL, nil
		}
	}
	s.sso.portals = append(s.sso.portals, &spec)
	return spec.StartURL, nil
}

func (s *Server) portalLocked(start string) *SSOSpec {
	for _, p := range s.sso.portals {
		if sameStart(p.StartURL, start) {
			return p
		}
	}
	return nil
}

// EndSSOSessions ends every portal session, as an administrator or a sign-out
// does: access tokens answer 401, refresh tokens InvalidGrantException. It
// returns how many were alive.
func (s *Server) EndSSOSessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, now := 0, s.nowLocked()
	for _, x := range s.sso.sessions {
		if x.alive(now) {
			n++
		}
		x.ended = true
	}
	s.sso.sessions = nil
	return n
}

// ExpireSSOTokens makes every access token of now expired; refresh tokens
// live on.
func (s *Server) ExpireSSOTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.sso.access {
		t.expires = time.Time{}
	}
}

// ExpireSSOClients makes every client registration of now expired.
func (s *Server) ExpireSSOClients() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sso.clients {
		c.expires = time.Time{}
	}
}

// DecideDevice approves or denies a device sign-in by its user code; "" is
// every one that waits. It returns how many there were.
func (s *Server) DecideDevice(userCode string, approve bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, d := range s.sso.devices {
		if d.state == "" && d.expires.After(s.nowLocked()) && (userCode == "" || d.userCode == userCode) {
			n++
			d.decide(approve, "")
		}
	}
	return n
}

func (d *ssoDevice) decide(approve bool, user string) {
	d.state, d.user = "denied", orElse(user, d.portal.User)
	if approve {
		d.state = "approved"
	}
}

// SSOTokens is a sign-in as the AWS command line's cache holds it.
type SSOTokens struct {
	StartURL, Region           string
	AccessToken, RefreshToken  string
	ClientID, ClientSecret     string
	Expires, RegistrationUntil time.Time
}

// NewSSOTokens signs a person in at a start URL without any page.
func (s *Server) NewSSOTokens(startURL string) (SSOTokens, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.portalLocked(startURL)
	if p == nil {
		return SSOTokens{}, errors.New("there is no Identity Center at " + startURL)
	}
	now := s.nowLocked()
	c := &ssoClient{id: opaque(16), secret: clientSecretJWT(now), name: "test", start: p.StartURL, scopes: []string{scopeAccess}, expires: now.Add(time.Duration(p.ClientSeconds) * time.Second).Truncate(time.Second)}
	s.sso.clients[c.id] = c
	a, r := s.ssoTokensLocked(c, s.newSSOSessionLocked(p, p.User))
	return SSOTokens{p.StartURL, p.Region, a, r, c.id, c.secret, s.sso.access[a].expires, c.expires}, nil
}

func (s *Server) newSSOSessionLocked(p *SSOSpec, user string) *ssoSession {
	x := &ssoSession{portal: p, user: orElse(user, p.User), expires: s.nowLocked().Add(time.Duration(p.SessionSeconds) * time.Second)}
	s.sso.sessions = append(s.sso.sessions, x)
	return x
}

// ssoTokensLocked makes an access token and, for clients with scopes, a
// refresh token.
func (s *Server) ssoTokensLocked(c *ssoClient, x *ssoSession) (access, refresh string) {
	end := s.nowLocked().Add(time.Duration(x.portal.TokenSeconds) * time.Second).Truncate(time.Second)
	if end.After(x.expires) {
		end = x.expires
	}
	access = "aoaAAAA" + opaque(120)
	s.sso.access[access] = &ssoToken{session: x, client: c, expires: end}
	if len(c.scopes) > 0 && c.may(grantRefresh) {
		refresh = "aorAAAA" + opaque(240)
		s.sso.refresh[refresh] = &ssoToken{session: x, client: c, expires: x.expires}
	}
	return access, refresh
}

// ssoRoleLocked is the role that a permission set is in an account.
func (s *Server) ssoRoleLocked(p *SSOSpec, acct string, r SSORole) *role {
	sum := sha256.Sum256([]byte(p.StartURL + "/" + r.Name))
	name := "AWSReservedSSO_" + r.Name + "_" + hex.EncodeToString(sum[:8])
	spec := RoleSpec{Name: name, Account: acct, Path: "/aws-reserved/sso.amazonaws.com/" + p.Region + "/", MaxSessionDuration: 43200,
		Trust: []Trust{}, MayAssume: r.MayAssume, Deny: r.Deny}
	if err := spec.defaults(); err != nil {
		panic(err) // checked by SSOSpec.defaults
	}
	x := s.roles[spec.ARN]
	if x == nil {
		x = &role{id: uniqueID("AROA")}
		s.roles[spec.ARN] = x
	}
	x.spec = spec
	return x
}

// roleSession is the principal of a role session.
func roleSession(r *role, sessionName string) principal {
	return principal{
		arn: fmt.Sprintf("arn:%s:sts::%s:assumed-role/%s/%s", r.spec.Partition, r.spec.Account, r.spec.Name, sessionName),
		id:  r.id + ":" + sessionName, account: r.spec.Account, partition: r.spec.Partition, role: r,
	}
}
