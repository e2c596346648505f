package sts

import (
	"context"
	"fmt"
	"os/user"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/profiles"
)

// chainLimit is AWS's limit for a role that is assumed with temporary
// credentials ("role chaining"; it counts GetSessionToken's as well as a
// role's), whatever the role itself allows.
const chainLimit = 3600

// assumeRole is one AssumeRole.
type assumeRole struct {
	link       profiles.Link
	d          Deps
	role       string
	duration   int32
	tags       []types.Tag
	transitive []string
	capped     sync.Once // the warning about chainLimit
}

func newAssumeRole(link profiles.Link, d Deps) (cred.Source, error) {
	s := &assumeRole{link: link, d: d, role: link.Params["role_arn"]}
	if s.role == "" {
		s.role = link.RoleARN
	}
	if accountOfARN(s.role) == "" || !strings.Contains(s.role, ":role/") {
		return nil, unusable(link.Profile, fmt.Sprintf("role_arn = %q is not the ARN of a role", s.role), "arn:aws:iam::ACCOUNT:role/NAME", nil)
	}
	var err error
	if s.duration, err = seconds(link, 3600); err != nil {
		return nil, err
	}
	if s.tags, err = sessionTags(link); err != nil {
		return nil, err
	}
	s.transitive = list(link.Params["transitive_session_tags"])
	if link.Params["session_policy"] == "" { // what stands in a file is read at each fetch
		if _, _, err := sessionPolicy(link); err != nil {
			return nil, err
		}
	}
	if name := link.Params["role_session_name"]; name != "" && !legalName(name) {
		return nil, unusable(link.Profile, fmt.Sprintf("role_session_name = %q is not 2 to 64 letters, digits and =,.@_-", name), "", nil)
	}
	return s, nil
}

func (s *assumeRole) Interactive() bool { return s.d.interactive(s.link) }

// Limit is the time limit of a fetch where it is longer than usual, else 0.
func (s *assumeRole) Limit() time.Duration { return s.d.limit(s.link) }

// Reach tells whether STS can be connected to.
func (s *assumeRole) Reach(ctx context.Context) error { return reach(ctx, s.link.Client, s.d) }

func (s *assumeRole) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	if err := usableBase(s.link, in.Base); err != nil {
		return cred.Credentials{}, err
	}
	c := &call{op: "AssumeRole", doing: "assume role " + s.role, target: s.role, link: s.link, profile: in.Profile,
		base: in.Base, serial: s.link.Params["mfa_serial"], asked: s.length(in), d: &s.d}
	policy, policies, err := sessionPolicy(s.link)
	if err != nil {
		return cred.Credentials{}, err
	}
	input := &sts.AssumeRoleInput{
		RoleArn:           &s.role,
		RoleSessionName:   aws.String(s.sessionName()),
		DurationSeconds:   &c.asked,
		ExternalId:        optional(s.link.Params["external_id"]),
		SourceIdentity:    optional(s.link.Params["source_identity"]),
		Policy:            optional(policy),
		PolicyArns:        policies,
		Tags:              s.tags,
		TransitiveTagKeys: s.transitive,
	}
	if c.serial != "" {
		if err := c.askMFA(ctx, in); err != nil {
			return cred.Credentials{}, err
		}
		input.SerialNumber, input.TokenCode = &c.serial, aws.String(c.code.Reveal())
	}
	var out cred.Credentials
	err = c.do(ctx, func(ctx context.Context, client *sts.Client) error {
		answer, err := client.AssumeRole(ctx, input)
		if err != nil {
			return err
		}
		if out, err = c.granted(answer.Credentials); err != nil {
			return err
		}
		out.RoleARN, out.AccountID = s.role, accountOfARN(s.role)
		if u := answer.AssumedRoleUser; u != nil && accountOfARN(aws.ToString(u.Arn)) != out.AccountID {
			return c.bad("AWS's answer is for " + printable(aws.ToString(u.Arn)) + ", which is in another account")
		}
		return nil
	})
	if err != nil {
		return cred.Credentials{}, err
	}
	return out, nil
}

// length is the session's length to ask for. Above another session AWS
// refuses more than an hour with a ValidationError, for every call and
// whatever the role allows. The setting is usually inherited from days when
// the role was assumed with a user's keys, and an hour, refreshed by itself,
// serves as well: so it is capped and said, where failing would help nobody.
func (s *assumeRole) length(in cred.Input) int32 {
	if in.Base.SessionToken.IsZero() || s.duration <= chainLimit {
		return s.duration
	}
	s.capped.Do(func() {
		if s.d.Log != nil {
			s.d.Log.WithField(logging.Profile, s.link.Profile).WithField("role", s.role).WithField("source_role", in.Base.RoleARN).
				WithField("duration_seconds", s.duration).
				Warn("AWS limits a role that is assumed with temporary credentials to 3600 s (role chaining): asking for 3600 s")
		}
	})
	return chainLimit
}

// sessionName is the profile's, else one that tells AWS's logs which program
// of which user it was. It has no time in it: a name that changes at each
// refresh would make one user look like many in CloudTrail.
func (s *assumeRole) sessionName() string {
	if name := s.link.Params["role_session_name"]; name != "" {
		return name
	}
	name := s.d.User
	if name == "" {
		if u, err := user.Current(); err == nil {
			name = u.Username
			if name == "" {
				name = u.Uid
			}
		}
	}
	return defaultName(name)
}

// defaultName is keyfob-USER with what AWS does not allow as "-".
func defaultName(user string) string {
	if i := strings.LastIndexByte(user, '\\'); i >= 0 { // DOMAIN\user of Windows
		user = user[i+1:]
	}
	if user == "" {
		return "keyfob"
	}
	var b strings.Builder
	b.WriteString("keyfob-")
	for _, r := range user {
		if b.Len() == 64 {
			break
		}
		if r < 0x80 && legalByte(byte(r)) {
			b.WriteByte(byte(r))
		} else {
			b.WriteByte('-')
		}
	}
	return b.String()
}

// legalName: AWS takes [\w+=,.@-]{2,64}.
func legalName(s string) bool {
	if len(s) < 2 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if !legalByte(s[i]) {
			return false
		}
	}
	return true
}

func legalByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("+=,.@_-", c) >= 0
}
