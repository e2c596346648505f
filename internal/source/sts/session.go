package sts

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// rootLimit is the longest session that AWS gives an account's root user,
// whatever was asked for (API reference of GetSessionToken).
const rootLimit = time.Hour

// sessionToken turns a long-lived pair into a session, with an MFA code
// where a device is named.
type sessionToken struct {
	link     profiles.Link
	d        Deps
	duration int32
	notRoot  atomic.Pointer[string] // the access key id that was seen not to be root's
}

func newSessionToken(link profiles.Link, d Deps) (cred.Source, error) {
	n, err := seconds(link, 43200)
	if err != nil {
		return nil, err
	}
	return &sessionToken{link: link, d: d, duration: n}, nil
}

func (s *sessionToken) Interactive() bool { return s.d.interactive(s.link) }

// Limit is the time limit of a fetch where it is longer than usual, else 0.
func (s *sessionToken) Limit() time.Duration { return s.d.limit(s.link) }

// Reach tells whether STS can be connected to.
func (s *sessionToken) Reach(ctx context.Context) error { return reach(ctx, s.link.Client, s.d) }

func (s *sessionToken) Fetch(ctx context.Context, in cred.Input) (cred.Credentials, error) {
	if err := usableBase(s.link, in.Base); err != nil {
		return cred.Credentials{}, err
	}
	if !in.Base.SessionToken.IsZero() {
		return cred.Credentials{}, unusable(s.link.Profile, "its keys already are a session, which AWS makes no session of", "", nil)
	}
	c := s.call(in)
	input := &sts.GetSessionTokenInput{DurationSeconds: aws.Int32(s.duration)}
	if c.serial != "" {
		if err := c.askMFA(ctx, in); err != nil {
			return cred.Credentials{}, err
		}
		input.SerialNumber, input.TokenCode = &c.serial, aws.String(c.code.Reveal())
	}
	var out cred.Credentials
	err := c.do(ctx, func(ctx context.Context, client *sts.Client) error {
		answer, err := client.GetSessionToken(ctx, input)
		if err != nil {
			return err
		}
		out, err = c.granted(answer.Credentials)
		return err
	})
	if err != nil {
		return cred.Credentials{}, err
	}
	out.AccountID = sessionAccount(in.Base, out)
	if err := s.refuseRoot(ctx, c, in.Base, out); err != nil {
		return cred.Credentials{}, err
	}
	return out, nil
}

func (s *sessionToken) call(in cred.Input) *call {
	c := &call{op: "GetSessionToken", doing: "get a session for the access key " + in.Base.AccessKeyID, link: s.link, profile: in.Profile,
		base: in.Base, serial: s.link.Params["mfa_serial"], asked: s.duration, d: &s.d}
	c.target = c.serial
	return c
}

// sessionAccount is the account of the pair's record, else the one that the
// ids of the pair and of its session both carry: AWS does not document the
// encoding, but no other reason makes two ids agree.
func sessionAccount(base, session cred.Credentials) string {
	if base.AccountID != "" {
		return base.AccountID
	}
	a, ok := accountOfKey(base.AccessKeyID)
	if b, ok2 := accountOfKey(session.AccessKeyID); ok && ok2 && a == b {
		return a
	}
	return ""
}

// refuseRoot refuses a session of an account's root user unless it is
// allowed. `keyfob add` asks who a key is, but a key in a file was never
// asked about. The answer of GetSessionToken does not name the user; it
// betrays a root user by an end in one hour where more was asked for. Only
// when it looks so does a second call ask.
func (s *sessionToken) refuseRoot(ctx context.Context, c *call, base, session cred.Credentials) error {
	if s.d.AllowRoot != nil && s.d.AllowRoot(s.link.Profile) {
		return nil
	}
	if id := s.notRoot.Load(); id != nil && *id == base.AccessKeyID {
		return nil
	}
	const slack = 2 * time.Minute // between the answer and our clock
	left := session.Expires.Sub(c.awsNow())
	asked := time.Duration(s.duration) * time.Second
	if asked > rootLimit && (left > rootLimit+slack || left < rootLimit-slack) {
		return nil
	}
	who, err := identity(ctx, s.link.Client, base, s.d)
	if err != nil {
		return err
	}
	if who.Root {
		return &cred.UpstreamError{
			Op:      c.op,
			Target:  who.ARN,
			Message: "cannot use profile " + s.link.Profile + ": its key belongs to the root user of account " + who.AccountID,
			Help:    "make an IAM user or a role for daily work and delete the root user's access key",
			Refused: true,
		}
	}
	id := strings.Clone(base.AccessKeyID)
	s.notRoot.Store(&id)
	return nil
}
