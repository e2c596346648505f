package fakeaws

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

var (
	account = regexp.MustCompile(`^\d{12}$`)
	region  = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-\d+$`)
)

// user is an IAM user, or an account's root user.
type user struct {
	spec    UserSpec
	id      string // AIDA…, the account number for root
	arn     string
	created time.Time
	keys    []*accessKey
	devices []*device
}

// accessKey is a user's long-lived key.
type accessKey struct {
	id, secret string
	owner      *user
	active     bool
	created    time.Time
	usableFrom time.Time // new keys take a moment to work (KeyDelay)
	used       time.Time
	usedRegion string
	usedBy     string // the service that saw it last
}

// role is an IAM role.
type role struct {
	spec RoleSpec
	id   string // AROA…
}

// session is a set of temporary credentials.
type session struct {
	id, secret, token string
	who               principal
	issued, expires   time.Time
	revoked           Revocation
}

// principal is who a request comes from: a user with its own key, or a
// session of a user or role.
type principal struct {
	arn, id, account, partition string

	user *user // nil for role sessions
	role *role // nil for users and their sessions
	temp bool  // temporary credentials: a role assumed with them is chained

	mfaAt          time.Time         // when an MFA code was given, zero if not
	tags           map[string]string // session tags
	transitive     []string          // keys of tags that pass on to chained roles
	sourceIdentity string
	policy         *policy // session policy, nil for none
	policyText     string  // that policy as it was given
	policyARNs     []string
	via            string // how the session was made, "" for long-lived keys
}

// The ways sessions are made, as Session.Via shows them.
const (
	viaSessionToken = "GetSessionToken"
	viaFederation   = "GetFederationToken"
	viaRole         = "AssumeRole"
	viaChain        = "AssumeRole chained" // with a session that was a role's
	viaWebIdentity  = "AssumeRoleWithWebIdentity"
	viaSAML         = "AssumeRoleWithSAML"
	viaSSO          = "GetRoleCredentials"
	viaLogin        = "CreateOAuth2Token"
	viaAnywhere     = "CreateSession"
	viaInstance     = "instance metadata"
	viaContainer    = "container"
)

// Session is what is known of temporary credentials, without their secrets.
type Session struct {
	AccessKeyID    string            `json:"access_key_id"`
	ARN            string            `json:"arn"`
	Via            string            `json:"via"` // the call that made it; "AssumeRole chained" with a role's session
	Issued         time.Time         `json:"issued"`
	Expires        time.Time         `json:"expires"`
	MFA            bool              `json:"mfa"`
	Tags           map[string]string `json:"tags,omitempty"`
	TransitiveTags []string          `json:"transitive_tags,omitempty"`
	SourceIdentity string            `json:"source_identity,omitempty"`
	Policy         string            `json:"policy,omitempty"`      // the session policy as it was given
	PolicyARNs     []string          `json:"policy_arns,omitempty"` // the managed session policies
	Revoked        Revocation        `json:"revoked,omitempty"`
}

// Session describes the session of an access key id.
func (s *Server) Session(accessKeyID string) (Session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[accessKeyID]
	if x == nil {
		return Session{}, false
	}
	return x.shown(), true
}

func (x *session) shown() Session {
	w := x.who
	return Session{x.id, w.arn, w.via, x.issued, x.expires, !w.mfaAt.IsZero(), w.tags, w.transitive, w.sourceIdentity, w.policyText, w.policyARNs, x.revoked}
}

func (p *principal) mayAssume(arn string) bool {
	list := []string(nil)
	if p.role != nil {
		list = p.role.spec.MayAssume
	} else {
		list = p.user.spec.MayAssume
	}
	return list == nil || matchAny(list, arn)
}

func (p *principal) denied(action string) bool {
	if p.role != nil {
		return matchAny(p.role.spec.Deny, action)
	}
	return matchAny(p.user.spec.Deny, action)
}

// Revocation is how a session or key that was taken back is refused.
type Revocation string

// The ways of refusing a revoked session.
const (
	RevokedInvalid Revocation = "invalid" // InvalidClientTokenId, like an unknown one
	RevokedExpired Revocation = "expired" // ExpiredToken
	RevokedDenied  Revocation = "denied"  // AccessDenied with an explicit deny, as after "revoke sessions" in the console; GetCallerIdentity still works
)

// AddUser adds an IAM user with one active access key and returns the pair.
// It panics when the spec is no good (an account that is not 12 digits, half
// a key pair, a seed that is not base32, a name taken): a mistake in a test.
func (s *Server) AddUser(spec UserSpec) (accessKeyID, secret string) {
	k, err := s.addUser(spec)
	if err != nil {
		panic("fakeaws: " + err.Error())
	}
	return k.id, k.secret
}

func (s *Server) addUser(spec UserSpec) (*accessKey, error) {
	spec.MFA = append([]MFASpec(nil), spec.MFA...)
	if err := spec.defaults(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &user{spec: spec, arn: spec.arn(), id: uniqueID("AIDA"), created: s.nowLocked()}
	if spec.Root {
		u.id = spec.Account
	}
	for _, o := range s.users {
		if o.arn == u.arn {
			return nil, fmt.Errorf("user %s exists", u.arn)
		}
	}
	for _, m := range spec.MFA {
		seed, err := decodeSeed(m.Seed)
		if err != nil {
			return nil, err
		}
		u.devices = append(u.devices, &device{serial: m.Serial, seed: seed, enabled: u.created, used: map[int64]bool{}})
	}
	k := &accessKey{id: spec.AccessKeyID, secret: spec.SecretAccessKey, owner: u, active: true, created: u.created}
	if k.id == "" {
		k.id, k.secret = keyID("AKIA", spec.Account), secretKey()
	}
	if s.keys[k.id] != nil {
		return nil, fmt.Errorf("access key %s exists", k.id)
	}
	u.keys = []*accessKey{k}
	s.keys[k.id] = k
	s.users = append(s.users, u)
	return k, nil
}

// AddRole adds a role, or replaces the one of the same ARN, and returns its
// ARN. It panics when the spec is no good, like AddUser.
func (s *Server) AddRole(spec RoleSpec) (arn string) {
	arn, err := s.addRole(spec)
	if err != nil {
		panic("fakeaws: " + err.Error())
	}
	return arn
}

func (s *Server) addRole(spec RoleSpec) (string, error) {
	if err := spec.defaults(); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[spec.ARN] = &role{spec: spec, id: uniqueID("AROA")}
	return spec.ARN, nil
}

// RemoveRole forgets a role. Its sessions live on, as in AWS for a while.
func (s *Server) RemoveRole(arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.roles, arn)
}

// SetKeyActive activates or deactivates a user's access key and reports
// whether there is such a key.
func (s *Server) SetKeyActive(accessKeyID string, active bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[accessKeyID]
	if k != nil {
		k.active = active
	}
	return k != nil
}

// DeleteKey deletes a user's access key and reports whether there was one.
func (s *Server) DeleteKey(accessKeyID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[accessKeyID]
	if k != nil {
		s.dropKeyLocked(k)
	}
	return k != nil
}

func (s *Server) dropKeyLocked(k *accessKey) {
	delete(s.keys, k.id)
	for i, o := range k.owner.keys {
		if o == k {
			k.owner.keys = append(k.owner.keys[:i], k.owner.keys[i+1:]...)
			return
		}
	}
}

// Revoke takes the session of an access key id back: from now on it is
// refused in the given way. It reports whether there is such a session.
func (s *Server) Revoke(accessKeyID string, how Revocation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[accessKeyID]
	if x != nil {
		x.revoked = how
	}
	return x != nil
}

// RevokeAll revokes every session issued so far and returns how many.
func (s *Server) RevokeAll(how Revocation) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.sessions {
		x.revoked = how
	}
	return len(s.sessions)
}

// issueLocked makes a session; asked is DurationSeconds.
func (s *Server) issueLocked(who principal, asked int) *session {
	now := s.nowLocked()
	life := time.Duration(asked) * time.Second
	if s.set.lifetime > 0 {
		life = s.set.lifetime
	}
	who.temp = true
	x := &session{
		id: keyID("ASIA", who.account), secret: secretKey(), token: sessionToken(), who: who,
		// AWS tells whole seconds.
		issued: now, expires: now.Add(life).Truncate(time.Second),
	}
	s.sessions[x.id] = x
	if len(s.sessions) > s.sweepAt {
		for id, o := range s.sessions {
			// A day longer than it lived, so that an expired session is
			// still told from an unknown one.
			if o.expires.Before(now.AddDate(0, 0, -1)) {
				delete(s.sessions, id)
			}
		}
		s.sweepAt = max(minSweep, 2*len(s.sessions))
	}
	return x
}

// minSweep is the least number of sessions at which old ones are thrown out.
const minSweep = 10000

// match is IAM's wildcard match: * is any run of characters, ? any one.
func match(pattern, s string) bool {
	for pattern != "" {
		switch pattern[0] {
		case '*':
			rest := strings.TrimLeft(pattern, "*")
			for i := 0; i <= len(s); i++ {
				if match(rest, s[i:]) {
					return true
				}
			}
			return false
		case '?':
			if s == "" {
				return false
			}
		default:
			if s == "" || s[0] != pattern[0] {
				return false
			}
		}
		pattern, s = pattern[1:], s[1:]
	}
	return s == ""
}

func matchAny(patterns []string, s string) bool {
	for _, p := range patterns {
		if match(p, s) {
			return true
		}
	}
	return false
}
