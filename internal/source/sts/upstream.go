package sts

import (
	"context"

	"keyfob/internal/awsclient"
	"keyfob/profiles"
)

// Upstream names the STS endpoint that the link calls, "" where the settings
// give none.
func (s *assumeRole) Upstream() string { return stsOf(s.link.Client) }

// Upstream names the STS endpoint that the link calls, "" where the settings
// give none.
func (s *sessionToken) Upstream() string { return stsOf(s.link.Client) }

func stsOf(c profiles.Client) string {
	u, err := awsclient.STSEndpoint(context.Background(), c)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
