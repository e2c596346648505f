package metadata

import (
	"context"
	"fmt"
	"strings"
	"time"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// Deps is what the sources of this package work with. Every field may be
// left out.
type Deps struct {
	// Own reports whether an address (IP:port) is one of keyfob's own
	// endpoints; nil is never. To ask those would be a loop.
	Own func(addr string) bool
	// Skew is AWS's clock minus ours as far as it is known; nil is 0.
	Skew func() time.Duration
}

func (d *Deps) now() time.Time {
	if d.Skew == nil {
		return time.Now()
	}
	return time.Now().Add(d.Skew())
}

// New returns the source of an imds or container link. It opens nothing.
// Errors (Is cred.ErrConfig): settings that no service can be found by,
// another kind of link.
func New(link profiles.Link, d Deps) (cred.Source, error) {
	switch link.Kind {
	case profiles.KindIMDS:
		return newInstance(link, d)
	case profiles.KindContainer:
		return newContainer(link, d)
	}
	return nil, unusable(link, "a link of kind "+string(link.Kind)+" is none of package metadata", "")
}

// unusable is a profile, or an environment, that can't be used as it is.
func unusable(link profiles.Link, why, help string) error {
	err := fmt.Errorf("cannot use profile %s: %s%w", link.Profile, why, silent{cred.ErrConfig})
	if help == "" {
		return err
	}
	return cred.WithHint(err, help)
}

// silent is an error that is only to be found.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

// failure makes an UpstreamError: what was wanted, and a clause that says
// what is wrong.
func failure(link profiles.Link, what, why, help string) *cred.UpstreamError {
	return &cred.UpstreamError{Op: what, Target: link.Profile, Help: help,
		Message: "cannot get credentials for profile " + link.Profile + " from " + what + ": " + why}
}

// usable refuses half an answer and one that has ended.
func usable(c cred.Credentials, expires string, now time.Time) (cred.Credentials, string) {
	switch {
	case c.AccessKeyID == "":
		return c, "its answer holds no access key id"
	case c.SecretAccessKey.IsZero():
		return c, "its answer holds no secret access key"
	case c.SessionToken.IsZero():
		return c, "its answer holds no session token"
	case expires == "":
		return c, "its answer does not say when the credentials end"
	}
	t, err := time.Parse(time.RFC3339, expires)
	switch {
	case err != nil:
		return c, "its answer says when the credentials end in a form that is not RFC 3339"
	case !t.After(now):
		return c, "its answer holds credentials that ended at " + t.UTC().Format(time.RFC3339)
	}
	c.Expires = t.UTC()
	return c, ""
}

// printable is one short line of what a service sent.
func printable(s string) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return ' '
		}
		return r
	}, s)), " ")
	return strings.TrimRight(s[:min(len(s), 200)], ". ")
}

// account is the fifth field of an ARN, "" where there is none.
func account(arn string) string {
	p := strings.SplitN(arn, ":", 6)
	if len(p) != 6 || p[0] != "arn" || len(p[4]) != 12 || strings.Trim(p[4], "0123456789") != "" {
		return ""
	}
	return p[4]
}

var _ interface {
	Reach(context.Context) error
	Upstream() string
} = (*instance)(nil)
