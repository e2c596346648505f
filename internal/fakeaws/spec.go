package fakeaws

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
)

// Accounts used where a spec names none: people live in the first, roles of
// the default world in the second.
const (
	DefaultAccount = "111122223333"
	OtherAccount   = "444455556666"
)

// UserSpec describes an IAM user. Empty fields get good values.
type UserSpec struct {
	Name      string `json:"name"`      // default "alice"
	Account   string `json:"account"`   // 12 digits; default DefaultAccount
	Partition string `json:"partition"` // default "aws"
	Path      string `json:"path"`      // default "/"
	// Root makes it the account's root user: its ARN ends in :root, it may
	// assume no role.
	Root bool `json:"root"`
	// AccessKeyID and SecretAccessKey fix the first key pair; made up when
	// empty.
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key"`
	// MayAssume lists the role ARNs (with * and ?) that the user's own
	// policy lets it assume. nil (absent) is all of them, an empty list
	// none. As in AWS a role of the same account whose trust names the
	// user itself needs no permission on the user's side.
	MayAssume []string `json:"may_assume"`
	// Deny lists actions ("iam:*", "sts:GetSessionToken") denied to the
	// user and its sessions.
	Deny []string `json:"deny"`
	// MFA lists the user's devices.
	MFA []MFASpec `json:"mfa"`
}

// MFASpec describes a virtual MFA device.
type MFASpec struct {
	Serial string `json:"serial"` // default arn:PARTITION:iam::ACCOUNT:mfa/USER
	Seed   string `json:"seed"`   // base32; made up when empty
}

// RoleSpec describes a role: by its ARN, or by account, path and name.
type RoleSpec struct {
	ARN       string `json:"arn"`
	Account   string `json:"account"`   // default DefaultAccount
	Partition string `json:"partition"` // default "aws"
	Path      string `json:"path"`      // default "/"
	Name      string `json:"name"`      // default "role"
	// MaxSessionDuration in seconds, 3600 to 43200; default 3600.
	MaxSessionDuration int `json:"max_session_duration"`
	// Trust is the trust policy: one statement that holds is enough. nil
	// (absent) trusts everybody, an empty list nobody.
	Trust []Trust `json:"trust"`
	// MayAssume and Deny are as in UserSpec, for the role's sessions.
	MayAssume []string `json:"may_assume"`
	Deny      []string `json:"deny"`
}

// Trust is one Allow statement of a role's trust policy. Every condition
// that is set must hold.
type Trust struct {
	// Principals are ARNs of users, roles or role sessions, account
	// numbers, account root ARNs, or "*". Empty is "*".
	Principals []string `json:"principals"`
	// ExternalIDs: sts:ExternalId must be one of them.
	ExternalIDs []string `json:"external_ids"`
	// MFA: aws:MultiFactorAuthPresent must be true.
	MFA bool `json:"mfa"`
	// MFAMaxAge in seconds: aws:MultiFactorAuthAge must be below; 0 is no
	// condition.
	MFAMaxAge int `json:"mfa_max_age"`
	// SourceIdentities: sts:SourceIdentity must match one (with * and ?).
	SourceIdentities []string `json:"source_identities"`
	// SessionNames: sts:RoleSessionName must match one (with * and ?).
	SessionNames []string `json:"session_names"`
	// NoSourceIdentity: the statement does not allow sts:SetSourceIdentity.
	NoSourceIdentity bool `json:"no_source_identity"`
	// NoTags: the statement does not allow sts:TagSession.
	NoTags bool `json:"no_tags"`
	// TagKeys: only these session tag keys may be passed; nil is any.
	TagKeys []string `json:"tag_keys"`
	// Tags: aws:RequestTag/KEY must match the value (with * and ?).
	Tags map[string]string `json:"tags"`
	// Federated: the statement is for these identity providers (ARNs, with
	// * and ?, of OpenID Connect and SAML providers) instead of Principals. Roles
	// Anywhere is the principal rolesanywhere.amazonaws.com.
	Federated []string `json:"federated"`
	// Audiences and Subjects: the provider's :aud must be one of the
	// former, its :sub match one of the latter (with * and ?).
	Audiences []string `json:"audiences"`
	Subjects  []string `json:"subjects"`
}

func (u *UserSpec) defaults() error {
	if u.Name == "" && u.Root {
		u.Name = "root"
	}
	set(&u.Name, "alice")
	set(&u.Account, DefaultAccount)
	set(&u.Partition, "aws")
	set(&u.Path, "/")
	if !account.MatchString(u.Account) {
		return fmt.Errorf("user %s: account %q is not 12 digits", u.Name, u.Account)
	}
	if (u.AccessKeyID == "") != (u.SecretAccessKey == "") {
		return fmt.Errorf("user %s: access_key_id and secret_access_key go together", u.Name)
	}
	for i := range u.MFA {
		set(&u.MFA[i].Serial, fmt.Sprintf("arn:%s:iam::%s:mfa/%s", u.Partition, u.Account, u.Name))
		set(&u.MFA[i].Seed, NewSeed())
		if _, err := decodeSeed(u.MFA[i].Seed); err != nil {
			return fmt.Errorf("user %s: MFA seed of %s: %w", u.Name, u.MFA[i].Serial, err)
		}
	}
	return nil
}

func (u *UserSpec) arn() string {
	if u.Root {
		return fmt.Sprintf("arn:%s:iam::%s:root", u.Partition, u.Account)
	}
	return fmt.Sprintf("arn:%s:iam::%s:user%s%s", u.Partition, u.Account, u.Path, u.Name)
}

func (r *RoleSpec) defaults() error {
	if r.ARN != "" {
		part, acct, rest, ok := splitARN(r.ARN)
		resource, ok2 := strings.CutPrefix(rest, "role/")
		if !ok || !ok2 || !account.MatchString(acct) {
			return fmt.Errorf("%q is not a role ARN", r.ARN)
		}
		r.Partition, r.Account, r.Path, r.Name = part, acct, "/", resource
		if i := strings.LastIndexByte(resource, '/'); i >= 0 {
			r.Path, r.Name = "/"+resource[:i+1], resource[i+1:]
		}
	}
	set(&r.Name, "role")
	set(&r.Account, DefaultAccount)
	set(&r.Partition, "aws")
	set(&r.Path, "/")
	if !account.MatchString(r.Account) {
		return fmt.Errorf("role %s: account %q is not 12 digits", r.Name, r.Account)
	}
	if r.MaxSessionDuration == 0 {
		r.MaxSessionDuration = 3600
	}
	r.ARN = fmt.Sprintf("arn:%s:iam::%s:role%s%s", r.Partition, r.Account, r.Path, r.Name)
	return nil
}

// splitARN takes arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE apart.
func splitARN(arn string) (partition, acct, resource string, ok bool) {
	p := strings.SplitN(arn, ":", 6)
	if len(p) != 6 || p[0] != "arn" {
		return "", "", "", false
	}
	return p[1], p[4], p[5], true
}

// otherAccountThan is the account that a wrong-account fault speaks of:
// always the same one for an account.
func otherAccountThan(acct string) string {
	h := sha256.Sum256([]byte(acct))
	return fmt.Sprintf("%012d", binary.BigEndian.Uint64(h[:])%1_000_000_000_000)
}

func set(s *string, def string) {
	if *s == "" {
		*s = def
	}
}
