package imds

import (
	"net/http"
	"strings"
	"time"

	"keyfob/internal/cred"
	"keyfob/internal/peer"
)

// maxAuditText bounds what a request can bring into the audit log, in bytes.
const maxAuditText = 200

// handout records that credentials are about to be given to a caller.
func (s *Server) handout(c *peer.Caller, now time.Time, profile, grant string, given *cred.Snapshot, advertised time.Time) {
	if s.audit == nil {
		return
	}
	s.audit.Record(cred.Event{
		Time: now, Kind: cred.EventHandOut, Profile: profile, Via: s.via, Grant: grant, Caller: *c,
		AccessKeyID: given.AccessKeyID, AccountID: given.AccountID, Expires: advertised,
	})
}

// handout records this request's. A HEAD is answered without the body, which
// gives nothing.
func (x *exchange) handout(profile string, given *cred.Snapshot, advertised time.Time) {
	if x.r.Method == http.MethodHead {
		return
	}
	x.s.handout(&x.conn.caller, x.now, profile, x.grantID(), given, advertised)
}

// refusal records a fault that refuses: the guard's, the rules', a token's or
// grant's, and AWS's.
func (x *exchange) refusal(f *fault) {
	if x.s.audit == nil || f.status != http.StatusUnauthorized && f.status != http.StatusForbidden && f.document == nil {
		return
	}
	x.s.audit.Record(cred.Event{
		Time: x.now, Kind: cred.EventRefusal, Profile: bounded(x.profile), Via: x.s.via, Grant: x.grantID(), Caller: x.conn.caller,
		Reason: bounded(f.reason),
	})
}

// grantID names the grant that the request showed. The id of a relative one
// is a secret, because it opens the grant: its first digits stand for it.
func (x *exchange) grantID() string {
	switch {
	case x.grant == nil:
		return ""
	case x.grant.Relative:
		return x.grant.ID[:min(len(x.grant.ID), 8)] + "…"
	}
	return x.grant.ID
}

// bounded is s without what a line of a log can't hold, and not too long.
func bounded(s string) string {
	if len(s) > maxAuditText {
		s = s[:maxAuditText]
	}
	if strings.ContainsFunc(s, unprintable) {
		s = strings.Map(func(r rune) rune {
			if unprintable(r) {
				return '?'
			}
			return r
		}, s)
	}
	return s
}

// unprintable also finds what is not UTF-8, such as a letter cut in half.
func unprintable(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\uFFFD' }
